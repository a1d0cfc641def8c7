/*-------------------------------------------------------------------------
 *
 * rebuild.c
 *	  report.rebuild: a report's content made again from the event log.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * One transaction, the caller's: the target is emptied with DELETE and filled
 * again, so that readers see the former content until the commit, and keep it
 * after a cancel, an error or a crash.  The report's row in report.applied is
 * locked meanwhile: the reporter leaves the report alone, which catches up
 * afterwards, and goes on with the others.
 *
 * Most of the log is applied as it stood at the beginning.  What came meanwhile
 * is applied after that; what comes while that is done is left to the reporter.
 *
 * Nobody else sees a transaction's progress in a table: it stands in shared
 * memory (shared_rebuilds.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "errors.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "mutants.h"
#include "report/as_owner.h"
#include "report/dead_letter.h"
#include "report/definitions.h"
#include "report/event_log.h"
#include "report/mirror_guard.h"
#include "report/replay.h"
#include "report/sql_plan.h"
#include "shared.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/subtransaction.h"
#include "worker/worker.h"

/* Something is said after this time, and again. */
#define NOTICE_MS	5000

PG_FUNCTION_INFO_V1(report_rebuild);
PG_FUNCTION_INFO_V1(report_rebuilds);

typedef struct Rebuild
{
	Replay		replay;			/* must be first */
	bool		allow_partial;
	int64		total;			/* events, as far as known */
	int64	   *unpublished;	/* log_seq of former dead letters, rising */
	uint64		n_unpublished;
	int			entry;			/* in shared memory */
	TimestampTz since;
	TimestampTz notice_at;
} Rebuild;

/*
 * Those whose event is judged anew, not those that have left the log.  Answers of
 * which nothing was published yet, up to a log_seq.
 */
static SqlPlan drop_letters = {
	"WITH gone AS ("
	"   DELETE FROM report.dead_letter d WHERE d.report = $1 AND EXISTS"
	"     (SELECT FROM report.reported_events e WHERE e.log_seq = d.log_seq)"
	"   RETURNING d.log_seq, d.published)"
	" SELECT DISTINCT log_seq FROM gone WHERE NOT published AND log_seq <= $2"
	" ORDER BY 1",
	2, {TEXTOID, INT8OID}, NULL
};

static SqlPlan set_rebuilt = {
	"UPDATE report.applied SET applied_seq = $2, failed = false,"
	" events = events + $3, runs = runs + $4, total_ms = total_ms + $5,"
	" dead_letters = dead_letters + $6, last_error = NULL,"
	" refused_in_a_row = 0 WHERE name = $1",
	6, {TEXTOID, INT8OID, INT8OID, INT8OID, FLOAT8OID, INT8OID}, NULL
};

/* ------------------------------------------------------------------------
 * What must not be emptied
 * ------------------------------------------------------------------------
 */

/* Other reports write the table, or rows of other tables would go with it. */
static void
check_alone(const ReplayReport *report)
{
	static SqlPlan get_other = {
		"SELECT name FROM report.definitions WHERE target = $1 AND name <> $2"
		" ORDER BY name LIMIT 1",
		2, {REGCLASSOID, TEXTOID}, NULL
	};
	static SqlPlan get_referrer = {
		"SELECT conname::pg_catalog.text, conrelid::pg_catalog.regclass::pg_catalog.text"
		" FROM pg_catalog.pg_constraint WHERE confrelid = $1 AND contype = 'f'"
		" AND confdeltype NOT IN ('a', 'r') AND conrelid <> confrelid"
		" ORDER BY 1 LIMIT 1",
		1, {REGCLASSOID}, NULL
	};
	Datum		values[2];

	values[0] = ObjectIdGetDatum(report->target);
	values[1] = CStringGetTextDatum(report->name);
	if (sql_plan_execute(&get_other, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("report \"%s\" cannot be rebuilt: report \"%s\" writes the same table",
						report->name, sql_string(0, 1)),
				 errhint("Give each report a table of its own.")));
	if (sql_plan_execute(&get_referrer, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("report \"%s\" cannot be rebuilt: to empty its table would change rows of %s",
						report->name, sql_string(0, 2)),
				 errdetail("Foreign key \"%s\" has an action ON DELETE.",
						   sql_string(0, 1)),
				 errhint("Drop the foreign key; a report's rows can be looked up without it.")));
}

/* In WITH stands what else a statement writes by itself. */
static void
look_at_statement(void *arg)
{
	const ReplayReport *report = arg;
	Tuplestorestate *store = tuplestore_begin_heap(false, false, 64);
	ReportScope scope;
	Relation	log;
	SPIPlanPtr	plan;
	ListCell   *cell;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	log = report_register_events(store, 0);
	report_enter(&scope, report->owner);
	plan = SPI_prepare(report->statement, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare the report's statement: %s",
			 SPI_result_code_string(SPI_result));
	foreach(cell, report_written_tables(plan))
	{
		if (lfirst_oid(cell) != report->target)
			ereport(WARNING,
					(errmsg("the statement of report \"%s\" writes table \"%s\" as well, which is not emptied",
							report->name, get_rel_name(lfirst_oid(cell))),
					 errdetail("What it adds up there of the events is added once more."),
					 errhint("Empty that table before report.rebuild() in the same transaction, or give each table a report of its own.")));
	}
	report_leave(&scope);
	SPI_freeplan(plan);
	table_close(log, NoLock);
	SPI_finish();
	tuplestore_end(store);
}

/* What is wrong with the statement itself will be said when it is executed. */
static void
check_only_target(const ReplayReport *report)
{
	ErrorData  *error;

	if (subtransaction_try(look_at_statement, unconstify(ReplayReport *, report), &error))
		return;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	FreeErrorData(error);
}

static void
check_complete(const Rebuild *rebuild, Snapshot snapshot)
{
	const ReplayReport *report = rebuild->replay.report;
	int64		from = replay_complete_from(snapshot);

	if (from > report->start_seq + 1 && !rebuild->allow_partial)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("report \"%s\" cannot be rebuilt completely: the event log has lost what stood before log_seq " INT64_FORMAT,
						report->name, from),
				 errdetail("Old events were removed (carshop_outbox.report_retention); the table holds what was made of them."),
				 errhint("SELECT report.rebuild(%s, allow_partial => true) makes it of the events that are left.",
						 quote_literal_cstr(report->name))));
}

/* ------------------------------------------------------------------------
 * Emptying
 * ------------------------------------------------------------------------
 */

/* As the owner, whose triggers may run. */
static void
empty_target(const ReplayReport *report)
{
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(report->target)),
												   get_rel_name(report->target));
	ReportScope scope;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	report_enter(&scope, report->owner);
	if (SPI_execute(psprintf("DELETE FROM %s", table), false, 0) < 0)
		elog(ERROR, "could not empty table %s", table);
	if (SPI_execute(psprintf("SELECT FROM %s LIMIT 1", table), false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read table %s", table);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("table %s has rows after it was emptied", table),
				 errhint("A trigger or a rule keeps them, or somebody else writes into the table.")));
	report_leave(&scope);
	SPI_finish();
}

/* ------------------------------------------------------------------------
 * Refilling
 * ------------------------------------------------------------------------
 */

static void
on_refused(Replay *replay, int64 log_seq, const ErrorData *error)
{
	AsOwner		scope;

	as_owner_begin(&scope);
	dead_letter_add_event(replay->report->name, log_seq,
						  !replay->plans.publishes, error);
	as_owner_end(&scope);
}

static void
on_progress(Replay *replay)
{
	Rebuild    *rebuild = (Rebuild *) replay;
	TimestampTz now = worker_steady_now();
	double		left;

	rebuild->total = Max(rebuild->total, replay->events);
	shared_note_rebuild(rebuild->entry, replay->events, rebuild->total);
	if (now < rebuild->notice_at || replay->events == 0)
		return;
	rebuild->notice_at = TimestampTzPlusMilliseconds(now, NOTICE_MS);
	left = (double) (now - rebuild->since) / USECS_PER_SEC / replay->events *
		(rebuild->total - replay->events);
	ereport(NOTICE,
			(errmsg("report \"%s\": " INT64_FORMAT " of " INT64_FORMAT " events applied, about %.0f s left",
					replay->report->name, replay->events, rebuild->total, left)));
}

static void
take_letters(Rebuild *rebuild, MemoryContext context)
{
	const ReplayReport *report = rebuild->replay.report;
	Datum		values[2];

	values[0] = CStringGetTextDatum(report->name);
	values[1] = Int64GetDatum(report->applied_seq);
	rebuild->n_unpublished = sql_plan_execute(&drop_letters, values, NULL);
	rebuild->unpublished = MemoryContextAllocHuge(context, sizeof(int64) *
												  Max(rebuild->n_unpublished, 1));
	for (uint64 i = 0; i < rebuild->n_unpublished; i++)
		rebuild->unpublished[i] = DatumGetInt64(sql_value(i, 1, NULL));
}

/*
 * What the report had applied has published what comes of it; what it had
 * refused, or not come to, has not.
 */
static void
replay_publishing(Rebuild *rebuild, Snapshot snapshot, int64 upto)
{
	Replay	   *replay = &rebuild->replay;

	for (uint64 i = 0; i < rebuild->n_unpublished; i++)
	{
		int64		log_seq = rebuild->unpublished[i];

		if (log_seq <= replay->after || log_seq > upto)
			continue;
		replay_upto(replay, snapshot, log_seq - 1);
		replay->plans.publishes = true;
		replay_upto(replay, snapshot, log_seq);
		replay->plans.publishes = false;
	}
	replay_upto(replay, snapshot, Min(upto, replay->report->applied_seq));
	replay->plans.publishes = true;
	replay_upto(replay, snapshot, upto);
}

/* Apply what a snapshot of now shows. */
static void
refill(Rebuild *rebuild, bool first)
{
	Replay	   *replay = &rebuild->replay;
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	AsOwner		scope;
	int64		last;
	int64		n;

	as_owner_begin(&scope);
	if (first)
		check_complete(rebuild, snapshot);
	replay_measure(snapshot, replay->after, &last, &n);
	as_owner_end(&scope);
	rebuild->total += n;
	shared_note_rebuild(rebuild->entry, replay->events, rebuild->total);
	if (first)
		empty_target(replay->report);
	replay_publishing(rebuild, snapshot, last);
	UnregisterSnapshot(snapshot);
}

/* The reporter goes on behind the last event, and not before it did. */
static void
finish(Rebuild *rebuild)
{
	Replay	   *replay = &rebuild->replay;
	AsOwner		scope;
	Datum		values[6];

	values[0] = CStringGetTextDatum(replay->report->name);
	values[1] = Int64GetDatum(Max(replay->after, replay->report->applied_seq));
	values[2] = Int64GetDatum(replay->events);
	values[3] = Int64GetDatum(replay->runs);
	values[4] = Float8GetDatum((worker_steady_now() - rebuild->since) / 1000.0);
	values[5] = Int64GetDatum(replay->refused);
	as_owner_begin(&scope);
	sql_plan_execute(&set_rebuilt, values, NULL);
	as_owner_end(&scope);
	wake_reporter_at_commit();
}

static void
run_rebuild(Rebuild *rebuild)
{
	const ReplayReport *report = rebuild->replay.report;
	const char *trouble = report_owner_trouble(report->owner, report->target);
	MemoryContext context = CurrentMemoryContext;
	AsOwner		scope;

	if (trouble != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("report \"%s\" cannot be rebuilt: %s", report->name,
						trouble),
				 errhint("Define it again as the role that owns the table.")));
	rebuild->since = worker_steady_now();
	rebuild->notice_at = TimestampTzPlusMilliseconds(rebuild->since, NOTICE_MS);
	rebuild->replay.after = report->start_seq;

	as_owner_begin(&scope);
	check_alone(report);
	take_letters(rebuild, context);
	mirror_guard_forget(report->name);
	as_owner_end(&scope);

	check_only_target(report);
	refill(rebuild, true);
	refill(rebuild, false);
	finish(rebuild);
}

/* On every way out: also when the session ends in the middle. */
static void
end_rebuild(int code, Datum arg)
{
	Rebuild    *rebuild = (Rebuild *) DatumGetPointer(arg);

	shared_end_rebuild(rebuild->entry);
	report_forget_plans(&rebuild->replay.plans);
}

Datum
report_rebuild(PG_FUNCTION_ARGS)
{
	Rebuild    *rebuild = palloc0(sizeof(Rebuild));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	MemoryContext context = CurrentMemoryContext;
	Oid			caller = GetUserId();
	AsOwner		scope;

	PreventCommandDuringRecovery("report.rebuild()");
	PreventCommandIfReadOnly("report.rebuild()");
	rebuild->allow_partial = PG_GETARG_BOOL(1);
	rebuild->replay.on_refused = on_refused;
	rebuild->replay.on_progress = on_progress;

	as_owner_begin(&scope);
	rebuild->replay.report = replay_load(name, caller,
										 !MUTANT("rebuild_unlocked"), context);
	as_owner_end(&scope);
	rebuild->replay.statement = rebuild->replay.report->statement;
	rebuild->entry = shared_begin_rebuild(name);
	PG_ENSURE_ERROR_CLEANUP(end_rebuild, PointerGetDatum(rebuild));
	{
		run_rebuild(rebuild);
	}
	PG_END_ENSURE_ERROR_CLEANUP(end_rebuild, PointerGetDatum(rebuild));
	end_rebuild(0, PointerGetDatum(rebuild));
	ereport(NOTICE,
			(errmsg("report \"%s\" was rebuilt: " INT64_FORMAT " event(s) applied, " INT64_FORMAT " refused",
					name, rebuild->replay.events - rebuild->replay.refused,
					rebuild->replay.refused)));
	PG_RETURN_INT64(rebuild->replay.events - rebuild->replay.refused);
}

/* Those under way in this database, for the view. */
Datum
report_rebuilds(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RebuildReport *found = palloc(sizeof(RebuildReport) * SHARED_MAX_REBUILDS);
	int			n = shared_get_rebuilds(MyDatabaseId, found);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		Datum		values[5];
		bool		nulls[5] = {false};

		values[0] = CStringGetTextDatum(found[i].name);
		values[1] = Int32GetDatum(found[i].pid);
		values[2] = Int64GetDatum(found[i].done);
		values[3] = Int64GetDatum(found[i].total);
		values[4] = TimestampTzGetDatum(found[i].since);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
