/*-------------------------------------------------------------------------
 *
 * replay.c
 *	  Giving a part of the event log to a report's statement once more, in
 *	  somebody's session.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The reporter's way to apply a range is report_run(); here the same statement
 * runs with the same rights and settings (report_enter), but within the
 * transaction of a person, who can cancel it: what passes with time is not
 * tried again, it ends the whole.
 *
 * Everything is read with one snapshot, so that what retention removes meanwhile
 * is not missed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "report/definitions.h"
#include "report/event_log.h"
#include "report/replay.h"
#include "report/reports.h"
#include "report/sql_plan.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

/*
 * Events given to the statement at once: as many as make what each execution
 * costs by itself small beside them.  A value that is stored apart (TOAST) is
 * not copied before it is used, so the size of the events matters little.
 */
#define REPLAY_RANGE	100000

/* ... in pieces, where the statement takes one event of a key at a time */
#define PIECES_RANGE	1000

#define GET_REPORT \
	"SELECT d.statement, d.target::pg_catalog.oid," \
	" d.owner::pg_catalog.oid, a.applied_seq," \
	" d.start_seq" \
	" FROM report.definitions d JOIN report.applied a USING (name)" \
	" WHERE d.name = $1"

static SqlPlan get_owner = {
	"SELECT owner::pg_catalog.oid FROM report.definitions WHERE name = $1",
	1, {TEXTOID}, NULL
};

static SqlPlan get_report = {GET_REPORT, 1, {TEXTOID}, NULL};

/* The definition first, as report.drop() does. */
static SqlPlan lock_definition = {
	"SELECT FROM report.definitions WHERE name = $1 FOR UPDATE",
	1, {TEXTOID}, NULL
};

static SqlPlan get_report_locked = {
	GET_REPORT " FOR NO KEY UPDATE OF a", 1, {TEXTOID}, NULL
};

ReplayReport *
replay_load(const char *name, Oid caller, bool lock, MemoryContext context)
{
	Datum		value = CStringGetTextDatum(name);
	ReplayReport *report;
	MemoryContext old;

	/* Who may not does not lock anything. */
	if (sql_plan_execute(&get_owner, &value, NULL) == 0)
		report_does_not_exist(name);
	report_check_owner(name, DatumGetObjectId(sql_value(0, 1, NULL)), caller);
	if (lock)
		(void) sql_plan_execute(&lock_definition, &value, NULL);
	if (sql_plan_execute(lock ? &get_report_locked : &get_report,
						 &value, NULL) == 0)
		report_does_not_exist(name);

	old = MemoryContextSwitchTo(context);
	report = palloc0(sizeof(ReplayReport));
	report->name = pstrdup(name);
	report->statement = TextDatumGetCString(sql_value(0, 1, NULL));
	report->target = DatumGetObjectId(sql_value(0, 2, NULL));
	report->owner = DatumGetObjectId(sql_value(0, 3, NULL));
	report->applied_seq = DatumGetInt64(sql_value(0, 4, NULL));
	report->start_seq = DatumGetInt64(sql_value(0, 5, NULL));
	MemoryContextSwitchTo(old);

	/* It may have become another's while we waited for the lock. */
	report_check_owner(name, report->owner, caller);
	return report;
}

void
replay_measure(Snapshot snapshot, int64 after, int64 *last, int64 *n)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(after);

	PushActiveSnapshot(snapshot);
	if (SPI_execute_with_args("SELECT COALESCE(pg_catalog.max(log_seq), 0),"
							  " pg_catalog.count(*)"
							  " FROM report.reported_events WHERE log_seq > $1",
							  1, &type, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not measure the event log");
	PopActiveSnapshot();
	*last = Max(DatumGetInt64(sql_value(0, 1, NULL)), after);
	*n = DatumGetInt64(sql_value(0, 2, NULL));
}

int64
replay_complete_from(Snapshot snapshot)
{
	List	   *name = list_make2(makeString("report"),
								  makeString("event_log_removed_before"));
	Oid			function = LookupFuncName(name, 0, NULL, true);
	int64		from;

	if (!OidIsValid(function))
		return 0;				/* nothing removes events */
	PushActiveSnapshot(snapshot);
	from = DatumGetInt64(OidFunctionCall0(function));
	PopActiveSnapshot();
	return from;
}

/* It is not an event's fault: the replay as a whole has failed. */
static void
fail(const Replay *replay, ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg("the statement of report \"%s\" has failed: %s",
					replay->report->name, error->message),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 error->hint != NULL ? errhint("%s", error->hint) : 0,
			 error->context != NULL ? errcontext("%s", error->context) : 0));
}

/* A range of n events up to seq has failed and was undone. */
static void
judge(Replay *replay, ErrorData *error, int64 n, int64 seq)
{
	if (report_error_kind(error->sqlerrcode) != ERROR_OF_EVENT)
		fail(replay, error);
	if (n > 1)
	{
		replay->range = n / 2;
		return;
	}
	report_shorten_context(replay->report->name, replay->statement, error);
	if (replay->on_refused != NULL)
		replay->on_refused(replay, seq, error);
	replay->after = seq;
	replay->events++;
	replay->refused++;
	replay->range = 2;
	if (++replay->in_a_row >= setting_report_max_failures &&
		setting_report_max_failures > 0)
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("the statement of report \"%s\" has refused " INT64_FORMAT " events in a row (carshop_outbox.report_max_failures), the last one: %s",
						replay->report->name, replay->in_a_row, error->message)));
}

/*
 * Apply the n events of store, the last of which is last; fewer if it must be
 * done in pieces and one of them fails.  False: it failed, by the fault of *n
 * events up to *last.
 */
static bool
try_range(Replay *replay, Tuplestorestate *store, int64 *n, int64 *last,
		  ErrorData **error)
{
	ReportRun	task = {0};

	task.statement = replay->statement;
	task.plans = &replay->plans;
	task.owner = replay->report->owner;
	task.store = store;
	task.n = *n;
	task.deadline = DT_NOEND;
	task.in_session = true;
	if (!replay->in_pieces)
	{
		if (report_run(&task, error))
		{
			replay->runs++;
			return true;
		}
		if ((*error)->sqlerrcode != ERRCODE_CARDINALITY_VIOLATION || *n == 1)
			return false;
		FreeErrorData(*error);
		replay->in_pieces = true;
		task.n = Min(*n, PIECES_RANGE);
	}

	task.in_pieces = true;
	if (!report_run(&task, error))
	{
		/* an event that fails, or a key that is not event_key */
		FreeErrorData(*error);
		task.singly = true;
		if (!report_run(&task, error))
		{
			if (task.done == 0)
			{
				*n = 1;
				*last = task.last_seq;
				return false;
			}
			/* what came before it is good: that again, without it */
			FreeErrorData(*error);
			task.n = task.done;
			if (!report_run(&task, error))
				return false;
		}
	}
	replay->runs += task.runs;
	*n = task.done;
	*last = task.last_seq;
	return true;
}

void
replay_upto(Replay *replay, Snapshot snapshot, int64 upto)
{
	if (replay->range == 0)
		replay->range = REPLAY_RANGE;
	/* what it has caused itself is withheld here, too; nothing is published */
	replay->plans.report = replay->report->name;
	while (replay->after < upto)
	{
		Tuplestorestate *store = tuplestore_begin_heap(false, false,
													   maintenance_work_mem);
		ErrorData  *error;
		int64		last;
		int64		n;

		/* A copy: event_log_read() moves its command on. */
		PushCopiedSnapshot(snapshot);
		n = event_log_read(replay->after, upto, replay->range, store, &last);
		PopActiveSnapshot();
		if (n == 0)
			replay->after = upto;
		else if (try_range(replay, store, &n, &last, &error))
		{
			replay->after = last;
			replay->events += n;
			replay->in_a_row = 0;
			replay->range = Min(replay->range * 2,
								replay->in_pieces ? PIECES_RANGE : REPLAY_RANGE);
		}
		else
		{
			judge(replay, error, n, last);
			FreeErrorData(error);
		}
		tuplestore_end(store);
		CHECK_FOR_INTERRUPTS();
		if (replay->on_progress != NULL)
			replay->on_progress(replay);
	}
}
