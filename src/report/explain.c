/*-------------------------------------------------------------------------
 *
 * explain.c
 *	  report.explain: which events went into a row of a report.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Each kind of report says by a query over new_events which events belong to
 * a key.  That query is code which the report's owner chose: it runs as the
 * owner, restricted as the report itself, over what the report was given.  The
 * caller must be allowed to read the target (or the view over it), and reads
 * the events' rows from report.reported_events with nobody's rights but the
 * own.
 *
 * An owner who may read the event log has the query executed over the whole
 * of it at once, where indexes help; for others the log is given in pieces, as
 * the reporter gives it.  So it is when an event is one that the query cannot
 * take, such as a dead letter of the report: the pieces become smaller around it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "errors.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "report/as_owner.h"
#include "report/event_log.h"
#include "report/explain.h"
#include "report/publish.h"
#include "report/report_run.h"
#include "report/reports.h"
#include "report/select.h"
#include "report/sql_plan.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"
#include "worker/subtransaction.h"

/* Events of the log in one piece, rows fetched at a time. */
#define EVENTS_AT_ONCE	20000
#define ROWS_AT_ONCE	1000

PG_FUNCTION_INFO_V1(report_explain);

/* Places in the event log, in order. */
typedef struct Places
{
	MemoryContext context;
	int64	   *log_seqs;
	int64		n;
	int64		room;
} Places;

/* ------------------------------------------------------------------------
 * Reports
 * ------------------------------------------------------------------------
 */

static void
look_up(const char *name, MemoryContext context, ExplainedReport *report)
{
	static SqlPlan get = {
		"SELECT d.kind, d.source, d.target::pg_catalog.oid,"
		" d.owner::pg_catalog.oid, a.applied_seq, d.start_seq"
		" FROM report.definitions d JOIN report.applied a USING (name)"
		" WHERE d.name = $1",
		1, {TEXTOID}, NULL
	};
	Datum		value = CStringGetTextDatum(name);
	AsOwner		scope;
	Datum		source;
	bool		isnull;

	as_owner_begin(&scope);
	if (sql_plan_execute(&get, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("report \"%s\" does not exist", name),
				 errhint("SELECT name FROM report.stat_reports lists them.")));
	report->name = name;
	report->kind = MemoryContextStrdup(context, sql_string(0, 1));
	source = sql_value(0, 2, &isnull);
	report->source = NULL;
	if (!isnull)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		report->source = DatumGetJsonbPCopy(source);
		MemoryContextSwitchTo(old);
	}
	report->target = DatumGetObjectId(sql_value(0, 3, NULL));
	report->owner = DatumGetObjectId(sql_value(0, 4, NULL));
	report->applied_seq = DatumGetInt64(sql_value(0, 5, NULL));
	report->start_seq = DatumGetInt64(sql_value(0, 6, NULL));
	as_owner_end(&scope);
}

JsonbValue *
explain_member(Jsonb *object, const char *name)
{
	if (object == NULL || !JB_ROOT_IS_OBJECT(object))
		return NULL;
	return getKeyJsonValueFromContainer(&object->root, name, strlen(name),
										NULL);
}

/* The view over the target that people read; InvalidOid: none. */
static Oid
view_of(const ExplainedReport *report)
{
	JsonbValue *view = report->source != NULL ?
	explain_member(report->source, "view") : NULL;
	char	   *name;

	if (view == NULL || view->type != jbvString)
		return InvalidOid;
	name = pnstrdup(view->val.string.val, view->val.string.len);
	return RangeVarGetRelid(makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(name))),
							NoLock, true);
}

/* May the caller see the row that is asked about? */
static void
check_caller(const ExplainedReport *report)
{
	const char *trouble = report_owner_trouble(report->owner, report->target);
	Oid			view;

	if (trouble != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("report \"%s\" cannot be explained: %s", report->name,
						trouble),
				 errhint("Define it again as the role that owns the table.")));
	view = view_of(report);
	if (pg_class_aclcheck(report->target, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		(OidIsValid(view) &&
		 pg_class_aclcheck(view, GetUserId(), ACL_SELECT) == ACLCHECK_OK))
		return;
	aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE,
				   get_rel_name(OidIsValid(view) ? view : report->target));
}

/* ------------------------------------------------------------------------
 * Places in the log
 * ------------------------------------------------------------------------
 */

/* What the cursor answers. */
static void
collect(Portal portal, Places *places)
{
	for (;;)
	{
		SPI_cursor_fetch(portal, true, ROWS_AT_ONCE);
		if (SPI_processed == 0)
			break;
		if (places->n + SPI_processed > places->room)
		{
			places->room = Max(places->room * 2, ROWS_AT_ONCE * 2);
			if (places->log_seqs == NULL)
				places->log_seqs =
					MemoryContextAllocHuge(places->context,
										   places->room * sizeof(int64));
			else
				places->log_seqs =
					repalloc_huge(places->log_seqs,
								  places->room * sizeof(int64));
		}
		for (uint64 i = 0; i < SPI_processed; i++)
			places->log_seqs[places->n++] =
				DatumGetInt64(sql_value(i, 1, NULL));
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_freetuptable(SPI_tuptable);
	SPI_cursor_close(portal);
}

static void
execute(const Explanation *explanation, const char *query, Places *places)
{
	collect(SPI_cursor_open_with_args(NULL, query, explanation->n,
									  explanation->types, explanation->values,
									  explanation->nulls, true, 0),
			places);
}

static bool
may_read_log(Oid owner)
{
	Oid			log = event_log_relid();

	return pg_class_aclcheck(log, owner, ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(log, owner, true) != RLS_ENABLED;
}

/* One execution of the query: over the whole log, or over a piece of it. */
typedef struct Search
{
	const ExplainedReport *report;
	const Explanation *explanation;
	Tuplestorestate *store;		/* NULL: the whole log */
	int64		n;				/* events in the store */
	Places	   *places;
} Search;

/* As the owner; within a subtransaction. */
static void
search(void *arg)
{
	Search	   *search = arg;
	const ExplainedReport *report = search->report;
	const char *query = search->explanation->query;
	Relation	log = NULL;
	ReportScope scope;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (search->store != NULL)
		log = report_register_events(search->store, search->n);
	else
		query = psprintf("WITH " NEW_EVENTS " AS NOT MATERIALIZED"
						 " (SELECT * FROM report.reported_events WHERE log_seq > "
						 INT64_FORMAT " AND log_seq <= " INT64_FORMAT ") %s",
						 report->start_seq, report->applied_seq, query);
	report_enter(&scope, report->owner);
	execute(search->explanation, query, search->places);
	report_leave(&scope);
	SPI_finish();
	if (log != NULL)
		table_close(log, NoLock);
}

/*
 * False: an event is one that the query cannot take.  It has a place in the
 * log, as the report's dead letter, and in no row.
 */
static bool
try_search(Search *task)
{
	int64		n = task->places->n;
	ErrorData  *error;

	if (subtransaction_try(search, task, &error))
		return true;
	if (report_error_kind(error->sqlerrcode) != ERROR_OF_EVENT)
		ReThrowError(error);
	FreeErrorData(error);
	task->places->n = n;
	return false;
}

/* The log piece by piece, without the events that the query cannot take. */
static void
search_pieces(Search *task)
{
	int64		last = task->report->start_seq;
	int64		range = EVENTS_AT_ONCE;

	for (;;)
	{
		AsOwner		as_owner;
		int64		upto;

		task->store = tuplestore_begin_heap(false, false, work_mem);
		as_owner_begin(&as_owner);
		task->n = event_log_read(last, task->report->applied_seq, range,
								 task->store, &upto);
		as_owner_end(&as_owner);
		if (task->n == 0)
			break;
		if (try_search(task) || task->n == 1)
		{
			last = upto;
			range = Min(range * 2, EVENTS_AT_ONCE);
		}
		else
			range = task->n / 2;
		tuplestore_end(task->store);
		CHECK_FOR_INTERRUPTS();
	}
	tuplestore_end(task->store);
}

static ArrayType *
as_array(const int64 *log_seqs, int64 n)
{
	Datum	   *values = palloc(n * sizeof(Datum));

	for (int64 i = 0; i < n; i++)
		values[i] = Int64GetDatum(log_seqs[i]);
	return construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						   TYPALIGN_DOUBLE);
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

/*
 * The events at these places that the report has been given and has not refused,
 * as the caller.
 */
static void
put_rows(const char *name, const int64 *log_seqs, int64 n,
		 ReturnSetInfo *result)
{
	static SqlPlan get_accepted = {
		"SELECT COALESCE(array_agg(s), '{}') FROM unnest($1) s"
		" WHERE NOT EXISTS (SELECT FROM report.dead_letter d"
		" WHERE d.report = $2 AND d.log_seq = s)",
		2, {INT8ARRAYOID, TEXTOID}, NULL
	};
	static Oid	types[] = {INT8ARRAYOID};
	Datum		values[2];
	AsOwner		scope;
	MemoryContext context = CurrentMemoryContext;
	MemoryContext old;
	Tuplestorestate *rows;
	Tuplestorestate *given;
	TupleTableSlot *slot;
	int64		n_rows;

	values[0] = PointerGetDatum(as_array(log_seqs, n));
	values[1] = CStringGetTextDatum(name);
	as_owner_begin(&scope);
	sql_plan_execute(&get_accepted, values, NULL);
	old = MemoryContextSwitchTo(context);
	values[0] = PointerGetDatum(DatumGetArrayTypePCopy(sql_value(0, 1, NULL)));
	MemoryContextSwitchTo(old);
	as_owner_end(&scope);

	SPI_execute_with_args("SELECT e.* FROM report.reported_events e"
						  " WHERE e.log_seq = ANY ($1) ORDER BY e.log_seq",
						  1, types, values, NULL, true, 0);
	rows = tuplestore_begin_heap(false, false, work_mem);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rows, SPI_tuptable->vals[i]);
	n_rows = (int64) SPI_processed;
	slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(SPI_tuptable->tupdesc),
									&TTSOpsMinimalTuple);
	SPI_freetuptable(SPI_tuptable);
	given = publish_withhold(name, rows, &n_rows);
	tuplestore_select_read_pointer(given, 0);
	while (tuplestore_gettupleslot(given, true, false, slot))
		tuplestore_puttupleslot(result->setResult, slot);
	ExecDropSingleTupleTableSlot(slot);
	if (given != rows)
		tuplestore_end(given);
	tuplestore_end(rows);
}

static void
explain(const ExplainedReport *report, Jsonb *key, MemoryContext context,
		Explanation *explanation)
{
	ReportScope scope;

	if (strcmp(report->kind, "select") == 0)
	{
		report_enter(&scope, report->owner);
		explain_select(report, key, context, explanation);
		report_leave(&scope);
	}
	else if (strcmp(report->kind, "mirror") == 0)
	{
		report_enter(&scope, report->owner);
		explain_mirror(report, key, context, explanation);
		report_leave(&scope);
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("report \"%s\" is a statement of its own: which events make a row stands nowhere",
						report->name),
				 errhint("Reports of report.define_select and mirrors can be explained.")));
}

Datum
report_explain(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Jsonb	   *key = PG_GETARG_JSONB_P(1);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ExplainedReport report;
	Explanation explanation = {0};
	Places		places = {0};
	Search		task = {&report, &explanation, NULL, 0, &places};

	InitMaterializedSRF(fcinfo, 0);
	places.context = CurrentMemoryContext;
	look_up(name, places.context, &report);
	check_caller(&report);

	SPI_connect();
	explain(&report, key, places.context, &explanation);
	if (!may_read_log(report.owner) || !try_search(&task))
		search_pieces(&task);
	for (int64 i = 0; i < places.n; i += ROWS_AT_ONCE)
		put_rows(name, places.log_seqs + i, Min(places.n - i, ROWS_AT_ONCE),
				 result);
	SPI_finish();
	return (Datum) 0;
}
