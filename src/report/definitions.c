/*-------------------------------------------------------------------------
 *
 * definitions.c
 *	  report.define, drop, enable, disable: reports as people define them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The statement is checked, and executed once over no events, with the rights
 * and under the restrictions that it will run with.  Only then, and only for
 * our own tables, do these functions act as the owner of the extension's
 * tables: the caller needs no rights on them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "errors.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "report/advice.h"
#include "report/as_owner.h"
#include "report/definitions.h"
#include "report/event_log.h"
#include "report/report_run.h"
#include "report/reports.h"
#include "report/sql_plan.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "worker/subtransaction.h"

PG_FUNCTION_INFO_V1(report_define);
PG_FUNCTION_INFO_V1(report_drop);
PG_FUNCTION_INFO_V1(report_enable);
PG_FUNCTION_INFO_V1(report_disable);
PG_FUNCTION_INFO_V1(report_allow_loops);

typedef struct Validation
{
	const char *statement;
	Oid			target;
	Oid			owner;
	bool		target_has_rows;
} Validation;

void
report_refuse(const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OB_REPORT_REFUSED),
			 errmsg("%s", message),
			 errhint("%s", hint)));
}

/* Rows that no report has made: a new report adds the whole log to them. */
static bool
has_rows(Oid relid)
{
	char	   *query;

	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		return false;
	query = psprintf("SELECT FROM %s LIMIT 1",
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												get_rel_name(relid)));
	if (SPI_execute(query, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the target of the report");
	return SPI_processed > 0;
}

/*
 * Prepare the statement as its owner, and execute it over no events.  To be undone:
 * an aggregate without GROUP BY makes a row of nothing.
 */
static void
validate(void *arg)
{
	Validation *validation = arg;
	ReportScope scope;
	Tuplestorestate *store = tuplestore_begin_heap(false, false, 64);
	SPIPlanPtr	plan;
	Relation	log = report_register_events(store, 0);
	int			rc;

	report_enter(&scope, validation->owner);
	plan = SPI_prepare(validation->statement, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare the report's statement: %s",
			 SPI_result_code_string(SPI_result));
	report_check_statement(plan, validation->statement, validation->target);
	rc = SPI_execute_plan(plan, NULL, NULL, false, 0);
	if (rc < 0)
		elog(ERROR, "could not execute the report's statement: %s",
			 SPI_result_code_string(rc));
	validation->target_has_rows = has_rows(validation->target);
	report_leave(&scope);
	table_close(log, NoLock);
	tuplestore_end(store);
}

/* ------------------------------------------------------------------------
 * The functions
 * ------------------------------------------------------------------------
 */

/* The report's owner, and its members, and superusers may change it. */
void
report_check_owner(const char *name, Oid owner, Oid caller)
{
	if (!superuser_arg(caller) &&
		(!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)) ||
		 !has_privs_of_role(caller, owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of report \"%s\"", name)));
}

void
report_does_not_exist(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("report \"%s\" does not exist", name),
			 errhint("SELECT name FROM report.stat_reports lists them.")));
}

static bool
lookup_definition(const char *name, Oid caller)
{
	static SqlPlan get_owner = {
		"SELECT owner::pg_catalog.oid FROM report.definitions WHERE name = $1"
		" FOR UPDATE",
		1, {TEXTOID}, NULL
	};
	Datum		value = CStringGetTextDatum(name);
	Oid			owner;

	if (sql_plan_execute(&get_owner, &value, NULL) == 0)
		return false;
	owner = DatumGetObjectId(sql_value(0, 1, NULL));
	report_check_owner(name, owner, caller);
	return true;
}

/* Raise an error unless the caller may change a report of that name. */
static void
require_definition(const char *name, Oid caller)
{
	if (!lookup_definition(name, caller))
		report_does_not_exist(name);
}

/* A crash empties it, and what had been applied stays applied. */
static void
refuse_unlogged(Oid target)
{
	ListCell   *cell;

	foreach(cell, find_all_inheritors(target, AccessShareLock, NULL))
	{
		if (get_rel_persistence(lfirst_oid(cell)) == RELPERSISTENCE_UNLOGGED)
			report_refuse("the target of a report cannot be an unlogged table",
						  psprintf("A crash would empty it, and the report go on: ALTER TABLE %s SET LOGGED.",
								   quote_qualified_identifier(get_namespace_name(get_rel_namespace(lfirst_oid(cell))),
															  get_rel_name(lfirst_oid(cell)))));
	}
}

void
report_check_target(Oid target, Oid caller)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(target));
	char		kind;
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", target)));
	kind = ((Form_pg_class) GETSTRUCT(tuple))->relkind;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	if (((Form_pg_class) GETSTRUCT(tuple))->relpersistence ==
		RELPERSISTENCE_TEMP)
		report_refuse("the target of a report cannot be a temporary table",
					  REPORT_TEMPORARY_HINT);
	ReleaseSysCache(tuple);
	refuse_unlogged(target);

	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("\"%s\" is not a table", get_rel_name(target)),
				 errhint("The target of a report is an ordinary or a partitioned table.")));
	if (owner != caller)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of table %s", get_rel_name(target)),
				 errdetail("A report runs as the role that defines it, and code of the target's owner runs with it."),
				 errhint("SET ROLE %s, then define the report.",
						 quote_identifier(GetUserNameFromId(owner, false)))));
}

void
report_define_as(const ReportDefinition *definition)
{
	static SqlPlan start_first = {
		"INSERT INTO report.instance (reading) SELECT true"
		" WHERE NOT EXISTS (SELECT FROM report.definitions WHERE name <> $1)"
		" ON CONFLICT (only_one) DO NOTHING",
		1, {TEXTOID}, NULL
	};
	static SqlPlan define = {
		"INSERT INTO report.definitions AS d"
		" (name, statement, target, owner, description, kind, source, timeout,"
		" start_seq) VALUES ($1, $2, $3, $4, $5, $6, $7::pg_catalog.jsonb,"
		" pg_catalog.make_interval(secs => COALESCE($8, $9) / 1000.0), $10)"
		" ON CONFLICT (name) DO UPDATE SET"
		" statement = excluded.statement, target = excluded.target,"
		" owner = excluded.owner, kind = excluded.kind,"
		" source = excluded.source,"
		" description = COALESCE(excluded.description, d.description),"
		" timeout = CASE WHEN $8 IS NULL THEN d.timeout ELSE excluded.timeout END,"
		" enabled = true, defined_at = pg_catalog.now() WHERE $11",
		11, {TEXTOID, TEXTOID, REGCLASSOID, REGROLEOID, TEXTOID, TEXTOID,
		TEXTOID, INT4OID, INT4OID, INT8OID, BOOLOID}, NULL
	};
	static SqlPlan reset = {
		"INSERT INTO report.applied (name, applied_seq) VALUES ($1, $2)"
		" ON CONFLICT (name) DO UPDATE SET failed = false, last_error = NULL,"
		" refused_in_a_row = 0, singly_since = NULL",
		2, {TEXTOID, INT8OID}, NULL
	};
	Oid			caller = GetUserId();
	Validation	validation;
	bool		known;
	AsOwner		scope;
	int64		start_seq;
	Datum		values[11];
	char		nulls[11];

	if (definition->name[0] == '\0')
		report_refuse("the name of a report must not be empty",
					  "Give it a name, for example that of its table.");
	validation.statement = definition->statement;
	validation.target = definition->target;
	validation.owner = caller;
	report_check_target(validation.target, caller);

	SPI_connect();
	PG_TRY();
	{
		subtransaction_undo(validate, &validation);
	}
	PG_CATCH();
	{
		report_hint_at_names("statement");
		PG_RE_THROW();
	}
	PG_END_TRY();
	SPI_finish();

	as_owner_begin(&scope);
	known = lookup_definition(definition->name, caller);
	start_seq = definition->from_now ? event_log_end() : 0;
	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(definition->name);
	sql_plan_execute(&start_first, values, NULL);
	values[1] = CStringGetTextDatum(validation.statement);
	values[2] = ObjectIdGetDatum(validation.target);
	values[3] = ObjectIdGetDatum(caller);
	if (definition->description == NULL)
		nulls[4] = 'n';
	else
		values[4] = CStringGetTextDatum(definition->description);
	values[5] = CStringGetTextDatum(definition->kind);
	if (definition->source == NULL)
		nulls[6] = 'n';
	else
		values[6] = CStringGetTextDatum(definition->source);
	values[7] = Int32GetDatum(definition->timeout_ms);
	if (definition->timeout_ms == 0)
		nulls[7] = 'n';
	values[8] = Int32GetDatum(REPORT_TIMEOUT_MS);
	values[9] = Int64GetDatum(start_seq);
	values[10] = BoolGetDatum(known);
	if (sql_plan_execute(&define, values, nulls) == 0)
	{
		/* somebody has defined it at the same time, perhaps somebody else */
		require_definition(definition->name, caller);
		values[10] = BoolGetDatum(true);
		sql_plan_execute(&define, values, nulls);
	}
	values[1] = Int64GetDatum(start_seq);
	sql_plan_execute(&reset, values, NULL);
	as_owner_end(&scope);
	wake_reporter_at_commit();
	if (!known && !definition->from_now && validation.target_has_rows)
		ereport(WARNING,
				(errmsg("table \"%s\" is not empty: the report adds the whole event log to what it holds",
						get_rel_name(validation.target)),
				 errhint("Unless its rows come from elsewhere, empty it in the same transaction, or make it anew later: SELECT report.rebuild(%s);",
						 quote_literal_cstr(definition->name))));
}

static int
timeout_from(const Interval *interval)
{
	int64		days = interval->day + (int64) interval->month * DAYS_PER_MONTH;
	int64		ms = interval->time / 1000 + days * (SECS_PER_DAY * 1000);

	if (ms < 1 || ms > INT64CONST(24) * SECS_PER_DAY * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout of a report must be between 1 ms and 24 days")));
	return (int) ms;
}

void
report_define_options(FunctionCallInfo fcinfo, int first,
					  ReportDefinition *definition)
{
	if (!PG_ARGISNULL(first))
		definition->timeout_ms = timeout_from(PG_GETARG_INTERVAL_P(first));
	definition->from_now = !PG_ARGISNULL(first + 1) && PG_GETARG_BOOL(first + 1);
}

Datum
report_define(PG_FUNCTION_ARGS)
{
	ReportDefinition definition = {.kind = "statement"};

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name, statement and target of a report must not be null")));
	definition.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	definition.statement = text_to_cstring(PG_GETARG_TEXT_PP(1));
	definition.target = PG_GETARG_OID(2);
	if (!PG_ARGISNULL(3))
		definition.description = text_to_cstring(PG_GETARG_TEXT_PP(3));
	report_define_options(fcinfo, 4, &definition);
	report_define_as(&definition);
	PG_RETURN_VOID();
}

/* One statement on one report, by somebody who may. */
static void
change_definition(FunctionCallInfo fcinfo, SqlPlan *first, SqlPlan *second)
{
	Oid			caller = GetUserId();
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	AsOwner		scope;
	Datum		value;

	as_owner_begin(&scope);
	require_definition(name, caller);
	value = CStringGetTextDatum(name);
	sql_plan_execute(first, &value, NULL);
	if (second != NULL)
		sql_plan_execute(second, &value, NULL);
	as_owner_end(&scope);
	wake_reporter_at_commit();
}

Datum
report_drop(PG_FUNCTION_ARGS)
{
	static SqlPlan drop = {
		"DELETE FROM report.definitions WHERE name = $1", 1, {TEXTOID}, NULL
	};
	static SqlPlan drop_letters = {
		"DELETE FROM report.dead_letter WHERE report = $1", 1, {TEXTOID}, NULL
	};

	change_definition(fcinfo, &drop, &drop_letters);
	PG_RETURN_VOID();
}

Datum
report_enable(PG_FUNCTION_ARGS)
{
	static SqlPlan enable = {
		"UPDATE report.definitions SET enabled = true WHERE name = $1",
		1, {TEXTOID}, NULL
	};
	static SqlPlan try_again = {
		"UPDATE report.applied SET failed = false, last_error = NULL,"
		" refused_in_a_row = 0"
		" WHERE name = $1",
		1, {TEXTOID}, NULL
	};

	change_definition(fcinfo, &enable, &try_again);
	PG_RETURN_VOID();
}

Datum
report_disable(PG_FUNCTION_ARGS)
{
	static SqlPlan disable = {
		"UPDATE report.definitions SET enabled = false WHERE name = $1",
		1, {TEXTOID}, NULL
	};

	change_definition(fcinfo, &disable, NULL);
	PG_RETURN_VOID();
}

Datum
report_allow_loops(PG_FUNCTION_ARGS)
{
	static SqlPlan allow = {
		"UPDATE report.definitions SET loops = true WHERE name = $1",
		1, {TEXTOID}, NULL
	};
	static SqlPlan forbid = {
		"UPDATE report.definitions SET loops = false WHERE name = $1",
		1, {TEXTOID}, NULL
	};

	change_definition(fcinfo, PG_GETARG_BOOL(1) ? &allow : &forbid, NULL);
	PG_RETURN_VOID();
}
