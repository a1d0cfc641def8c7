/*-------------------------------------------------------------------------
 *
 * report_state.c
 *	  report.applied: how far a report is, and how it fares.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "report/report_state.h"
#include "report/sql_plan.h"
#include "utils/builtins.h"

void
report_state_applied(const char *name, int64 seq, int64 events, int64 runs,
					 double ms)
{
	static SqlPlan set = {
		"UPDATE report.applied SET applied_seq = $2, events = events + $3,"
		" runs = runs + $5, total_ms = total_ms + $4, last_ms = $4,"
		" refused_in_a_row = 0, last_error = NULL WHERE name = $1",
		5, {TEXTOID, INT8OID, INT8OID, FLOAT8OID, INT8OID}, NULL
	};
	Datum		values[5];

	values[0] = CStringGetTextDatum(name);
	values[1] = Int64GetDatum(seq);
	values[2] = Int64GetDatum(events);
	values[3] = Float8GetDatum(ms);
	values[4] = Int64GetDatum(runs);
	sql_plan_execute(&set, values, NULL);
}

void
report_state_passed(const char *name, int64 seq)
{
	static SqlPlan set = {
		"UPDATE report.applied SET applied_seq = $2 WHERE name = $1",
		2, {TEXTOID, INT8OID}, NULL
	};
	Datum		values[2];

	values[0] = CStringGetTextDatum(name);
	values[1] = Int64GetDatum(seq);
	sql_plan_execute(&set, values, NULL);
}

int64
report_state_refused(const char *name, int64 seq, const char *message)
{
	static SqlPlan set = {
		"UPDATE report.applied SET applied_seq = $2, events = events + 1,"
		" dead_letters = dead_letters + 1,"
		" refused_in_a_row = refused_in_a_row + 1, last_error = $3,"
		" last_error_at = pg_catalog.now() WHERE name = $1"
		" RETURNING refused_in_a_row",
		3, {TEXTOID, INT8OID, TEXTOID}, NULL
	};
	Datum		values[3];

	values[0] = CStringGetTextDatum(name);
	values[1] = Int64GetDatum(seq);
	values[2] = CStringGetTextDatum(message);
	if (sql_plan_execute(&set, values, NULL) != 1)
		elog(ERROR, "report \"%s\" has no row in report.applied", name);
	return DatumGetInt64(sql_value(0, 1, NULL));
}

void
report_state_trouble(const char *name, bool failed, const char *message)
{
	static SqlPlan set = {
		"UPDATE report.applied SET failed = $2, last_error = $3,"
		" last_error_at = pg_catalog.now() WHERE name = $1",
		3, {TEXTOID, BOOLOID, TEXTOID}, NULL
	};
	Datum		values[3];

	values[0] = CStringGetTextDatum(name);
	values[1] = BoolGetDatum(failed);
	values[2] = CStringGetTextDatum(message);
	sql_plan_execute(&set, values, NULL);
}

bool
report_state_singly(const char *name)
{
	static SqlPlan set = {
		"UPDATE report.applied SET singly_since = pg_catalog.now()"
		" WHERE name = $1 AND singly_since IS NULL",
		1, {TEXTOID}, NULL
	};
	Datum		value = CStringGetTextDatum(name);

	return sql_plan_execute(&set, &value, NULL) > 0;
}
