/*-------------------------------------------------------------------------
 *
 * mirror_guard.c
 *	  What keeps an old state from coming after a newer one.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A report is given events in the order of log_seq, each once.  The one
 * exception is a dead letter of the report that is tried again after its
 * successors.  So a mirror needs to know which keys have changed since then,
 * deletions included, and only then: while there is a dead letter of the report,
 * report.mirror_row notes the newest log_seq of every key that changes, and what
 * is older is left out.  Without dead letters a mirror costs one look into an
 * index per batch, and its table holds nothing but the user's columns.
 *
 * What is noted can be forgotten when the last dead letter is gone: a later one
 * can only be older than events that come after it.  The same holds for what
 * was noted before a time without dead letters: it is older than whatever is
 * refused later, and harms nothing.
 *
 * The functions are called by the generated statement, as the report's owner,
 * who has no rights on these tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "mutants.h"
#include "report/as_owner.h"
#include "report/mirror_guard.h"
#include "report/sql_plan.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(report_mirror_guarded);
PG_FUNCTION_INFO_V1(report_mirror_take);

static bool off = false;

static SqlPlan forget = {
	"DELETE FROM report.mirror_row WHERE report = $1", 1, {TEXTOID}, NULL
};

void
mirror_guard_forget(const char *report)
{
	Datum		value = CStringGetTextDatum(report);

	sql_plan_execute(&forget, &value, NULL);
}

void
mirror_guard_off(bool yes)
{
	off = yes;
}

/* May an event of this report come late?  Asked once per batch. */
Datum
report_mirror_guarded(PG_FUNCTION_ARGS)
{
	static SqlPlan is_owner = {
		"SELECT FROM report.definitions WHERE name = $1 AND owner = $2",
		2, {TEXTOID, REGROLEOID}, NULL
	};
	static SqlPlan has_letters = {
		"SELECT FROM report.dead_letter WHERE report = $1 LIMIT 1",
		1, {TEXTOID}, NULL
	};
	AsOwner		scope;
	Datum		values[2];
	bool		guarded = false;

	if (off)
		PG_RETURN_BOOL(false);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = ObjectIdGetDatum(GetUserId());
	as_owner_begin(&scope);
	if (sql_plan_execute(&is_owner, values, NULL) > 0)
	{
		guarded = sql_plan_execute(&has_letters, values, NULL) > 0;
		if (!guarded)
			sql_plan_execute(&forget, values, NULL);
	}
	as_owner_end(&scope);
	PG_RETURN_BOOL(guarded);
}

/* Is this the newest change of the key?  Then it is noted. */
Datum
report_mirror_take(PG_FUNCTION_ARGS)
{
	static SqlPlan take = {
		"INSERT INTO report.mirror_row AS r (report, key, log_seq)"
		" SELECT name, $3, $4 FROM report.definitions"
		" WHERE name = $1 AND owner = $2"
		" ON CONFLICT (report, key) DO UPDATE SET log_seq = excluded.log_seq"
		" WHERE r.log_seq <= excluded.log_seq",
		4, {TEXTOID, REGROLEOID, JSONBOID, INT8OID}, NULL
	};
	AsOwner		scope;
	Datum		values[4];
	bool		taken;

	values[0] = PG_GETARG_DATUM(0);
	values[1] = ObjectIdGetDatum(GetUserId());
	values[2] = PG_GETARG_DATUM(1);
	values[3] = PG_GETARG_DATUM(2);
	as_owner_begin(&scope);
	taken = sql_plan_execute(&take, values, NULL) == 1;
	as_owner_end(&scope);
	PG_RETURN_BOOL(taken || MUTANT("late_states"));
}
