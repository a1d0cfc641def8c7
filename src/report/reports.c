/*-------------------------------------------------------------------------
 *
 * reports.c
 *	  Reports: a table each, and one statement that folds FROM new_events
 *	  into it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Every report has applied_seq, changed in the transaction that changes its
 * target.  A live batch goes to the reports that stand at the log's end; all
 * others (new, enabled again, failed a moment ago) apply ranges of the event
 * log until they stand there too.  There is no other way for a report to
 * receive events.
 *
 * What happens when the statement fails depends on the SQLSTATE's class:
 *	 - the event's fault (21, 22, 23, 44, 54, P0, OB002): the range is halved until
 *	   the one event is found, which becomes a dead letter of this report;
 *	 - passing trouble (40, 53, 55, 57): tried again later, with back-off and,
 *	   after a timeout or for lack of resources, a smaller range;
 *	 - anything else: the report stops until report.enable().
 * The other reports go on in each case.  A batch that meets a key twice in ON
 * CONFLICT or MERGE (SQLSTATE 21000) is cut into pieces at once.
 *
 * In the live path a report has a budget of time.  One that needs more, or has
 * a long way to go, is aside: a process of its own serves it (catch_up.c), which
 * runs the same code for this one report, with all the time that the definition
 * allows.  After a while it is tried in the live path again, the later the more
 * often it was too slow there.
 *
 * Memory: what is known about a report (range size, back-off, plans) lives in
 * a context of its own for the life of the worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "mutants.h"
#include "report/catch_up.h"
#include "report/dead_letter.h"
#include "report/event_log.h"
#include "report/publish.h"
#include "report/report_apply.h"
#include "report/report_state.h"
#include "report/reports.h"
#include "report/sql_plan.h"
#include "settings.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* When to look again for a report that somebody has locked. */
#define LOCKED_RETRY_MS		1000

/* Behind for so long, a report gets a process of its own. */
#define HELP_AFTER_MS		1000

static MemoryContext reports_context = NULL;
static List *reports = NIL;
static TimestampTz next_attempt = DT_NOEND; /* of the reports behind */
static bool serve_only = false; /* this is a process of catch_up.c ... */
static int64 served;			/* ... for the report of this number */

#define SELECT_DEFINITIONS \
	"SELECT d.name, d.statement, d.target::pg_catalog.oid," \
	" d.owner::pg_catalog.oid, a.applied_seq," \
	" pg_catalog.hashtextextended(d.name, 0)," \
	" (EXTRACT(epoch FROM d.timeout) * 1000)::pg_catalog.int4" \
	" FROM report.definitions d JOIN report.applied a USING (name)" \
	" WHERE d.enabled AND NOT a.failed"

static SqlPlan get_definitions = {
	SELECT_DEFINITIONS " AND d.name <> ALL ($1)"
	" ORDER BY d.name FOR NO KEY UPDATE OF a SKIP LOCKED",
	1, {TEXTARRAYOID}, NULL
};

/* The reporter holds it for moments only: waiting is fairer. */
static SqlPlan get_served = {
	SELECT_DEFINITIONS " AND pg_catalog.hashtextextended(d.name, 0) = $1"
	" ORDER BY d.name FOR NO KEY UPDATE OF a",
	1, {INT8OID}, NULL
};

static SqlPlan get_others = {
	"SELECT d.name, d.enabled AND NOT a.failed"
	" FROM report.definitions d JOIN report.applied a USING (name)",
	0, {0}, NULL
};

/* ------------------------------------------------------------------------
 * Definitions
 * ------------------------------------------------------------------------
 */

static Report *
find_report(const char *name)
{
	ListCell   *cell;

	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);

		if (strcmp(report->name, name) == 0)
			return report;
	}
	return NULL;
}

static Report *
make_report(const char *name)
{
	MemoryContext old = MemoryContextSwitchTo(reports_context);
	Report	   *report = palloc0(sizeof(Report));

	report->name = pstrdup(name);
	report->plans.report = report->name;
	report->plans.publishes = true;
	reports = lappend(reports, report);
	MemoryContextSwitchTo(old);
	return report;
}

/*
 * What was not loaded is gone, halted, or locked by somebody: only the last
 * is looked for again without being woken.
 */
static void
sort_out_others(void)
{
	uint64		n = sql_plan_execute(&get_others, NULL, NULL);
	ListCell   *cell;

	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);
		bool		found = report->loaded;

		for (uint64 i = 0; i < n && !found; i++)
		{
			found = strcmp(sql_string(i, 1), report->name) == 0;
			report->locked = found && DatumGetBool(sql_value(i, 2, NULL));
		}
		if (found)
			continue;
		report_forget_plans(&report->plans);
		reports = foreach_delete_current(reports, cell);
		pfree(report->name);
		pfree(report->statement);
		pfree(report);
	}
}

bool
reports_served(int64 *number)
{
	if (number != NULL)
		*number = served;
	return serve_only;
}

void
reports_serve_only(int64 number)
{
	serve_only = true;
	served = number;
}

/* Of the reports that the live path leaves alone. */
static Datum
names_elsewhere(bool live)
{
	TimestampTz now = worker_steady_now();
	Datum	   *names = palloc(sizeof(Datum) * Max(list_length(reports), 1));
	ListCell   *cell;
	int			n = 0;

	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);

		if (live && (report->next_attempt > now || report_is_aside(report)))
			names[n++] = CStringGetTextDatum(report->name);
	}
	return PointerGetDatum(construct_array(names, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

void
reports_load(bool live)
{
	ListCell   *cell;
	Datum		which;
	uint64		n;
	int			n_loaded = 0;

	if (reports_context == NULL)
		reports_context = AllocSetContextCreate(TopMemoryContext,
												"carshop_outbox reports",
												ALLOCSET_DEFAULT_SIZES);
	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);

		report->loaded = false;
		report->locked = false;
	}

	which = serve_only ? Int64GetDatum(served) : names_elsewhere(live);
	n = sql_plan_execute(serve_only ? &get_served : &get_definitions, &which,
						 NULL);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *name = sql_string(i, 1);
		char	   *statement = sql_string(i, 2);
		Report	   *report = find_report(name);

		if (report == NULL)
			report = make_report(name);
		if (report->statement == NULL ||
			strcmp(report->statement, statement) != 0 ||
			report->owner != DatumGetObjectId(sql_value(i, 4, NULL)))
		{
			report_forget_plans(&report->plans);
			if (report->statement != NULL)
				pfree(report->statement);
			report->statement = MemoryContextStrdup(reports_context,
													statement);
			report->range = report->too_many = 0;
			report->next_attempt = 0;
			report->aside_until = 0;
			report->times_aside = 0;
			backoff_reset(&report->backoff);
		}
		report->target = DatumGetObjectId(sql_value(i, 3, NULL));
		report->owner = DatumGetObjectId(sql_value(i, 4, NULL));
		report->applied_seq = DatumGetInt64(sql_value(i, 5, NULL));
		report->number = DatumGetInt64(sql_value(i, 6, NULL));
		report->timeout_ms = DatumGetInt32(sql_value(i, 7, NULL));
		report->loaded = true;
		n_loaded++;
	}
	if (n_loaded != list_length(reports))
		sort_out_others();
}

/* ------------------------------------------------------------------------
 * Applying
 * ------------------------------------------------------------------------
 */

/* When does the next report that is behind want to go on? */
static void
note_next_attempt(int64 head)
{
	TimestampTz now = worker_steady_now();
	ListCell   *cell;

	next_attempt = DT_NOEND;
	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);
		TimestampTz at = report->next_attempt;

		if (report->loaded && report->applied_seq >= head)
			report->behind_since = report->too_many = 0;
		if (report->loaded ? report->applied_seq >= head : !report->locked)
			continue;
		if (report->locked)
			at = TimestampTzPlusMilliseconds(now, LOCKED_RETRY_MS);
		next_attempt = Min(next_attempt, at);
	}
}

/* Does a live batch behind after go to it now? */
static bool
is_current(const Report *report, int64 after)
{
	return report->loaded && report->applied_seq == after &&
		report->next_attempt <= worker_steady_now() && !report_is_aside(report);
}

bool
reports_want(int64 after)
{
	ListCell   *cell;

	foreach(cell, reports)
	{
		if (is_current(lfirst(cell), after))
			return true;
	}
	return false;
}

void
reports_apply(Tuplestorestate *store, int64 n, int64 after, int64 head)
{
	bool		clean = store != NULL && publish_is_clean(store);
	ListCell   *cell;

	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);
		TimestampTz deadline = report_live_deadline(n);
		const char *trouble;
		ErrorData  *error;
		int64		n_failed = n;
		int64		seq = head;

		if (store == NULL || !is_current(report, after))
			continue;
		trouble = report_owner_trouble(report->owner, report->target);
		if (trouble != NULL)
			report_halt(report, trouble);
		else if (!report_apply(report, store, clean, &n_failed, &seq, deadline, &error))
		{
			/* Judged by reports_catch_up(), in a transaction of its own. */
			if (!report_step_aside(report, error, deadline))
			{
				if (n_failed == n)
					report->range = n;
				report->next_attempt = 0;
			}
			FreeErrorData(error);
		}
	}
	note_next_attempt(head);
}

/*
 * Apply the next events, limit at most, up to head.  live: within the budget.
 */
static void
catch_up_one(Report *report, int64 head, int64 limit, bool live)
{
	int64		n_wanted = (report->range > 0) ?
	Min(report->range, limit) : limit;
	Tuplestorestate *store = tuplestore_begin_heap(false, false,
												   setting_worker_memory / 4);
	const char *trouble;
	TimestampTz deadline;
	ErrorData  *error;
	int64		last;
	int64		n;

	trouble = report_owner_trouble(report->owner, report->target);
	if (trouble != NULL)
	{
		tuplestore_end(store);
		report_halt(report, trouble);
		return;
	}

	n = event_log_read(report->applied_seq, head, n_wanted, store, &last);
	deadline = live ? report_live_deadline(n) : DT_NOEND;
	if (n == 0)
	{
		/* Numbers that were never given, or removed with old events. */
		report_state_passed(report->name, head);
		report->applied_seq = head;
	}
	else if (report_apply(report, store, false, &n, &last, deadline, &error))
	{
		/* not so many that the next one is cancelled, or fails */
		if (report->applied_seq == last &&
			report->last_ms < report->timeout_ms / 4 &&
			(report->too_many == 0 || n_wanted * 2 < report->too_many))
			report->range = Min(n_wanted * 2, limit);
		report->next_attempt = 0;
		backoff_reset(&report->backoff);
	}
	else
	{
		if (!report_step_aside(report, error, deadline))
			report_handle_failure(report, error, n, last);
		FreeErrorData(error);
	}
	tuplestore_end(store);
}

/* Would serving it here hold up the others? */
static bool
needs_process(Report *report, int64 head, int64 limit)
{
	TimestampTz now = worker_steady_now();

	if (serve_only || MUTANT("no_budget"))
		return false;
	if (report->behind_since == 0)
		report->behind_since = now;
	return report_is_aside(report) || head - report->applied_seq > limit ||
		TimestampDifferenceExceeds(report->behind_since, now, HELP_AFTER_MS);
}

void
reports_catch_up(int64 head, int64 limit)
{
	TimestampTz now = worker_steady_now();
	ListCell   *cell;

	reports_load(false);
	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);
		bool		alone;

		if (!report->loaded || report->applied_seq >= head ||
			report->next_attempt > now)
			continue;
		alone = needs_process(report, head, limit);
		if (alone && catch_up_want(report->number))
		{
			report->next_attempt = TimestampTzPlusMilliseconds(now,
															   LOCKED_RETRY_MS);
			report->crowded = false;
			continue;
		}
		report->crowded = alone;
		catch_up_one(report, head, limit, !serve_only && !report_is_aside(report));
	}
	note_next_attempt(head);
}

int
reports_in_turns(void)
{
	ListCell   *cell;
	int			n = 0;

	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);

		if (report->crowded && !report_is_aside(report) && report->behind_since == 0)
			report->crowded = false;
		n += report->crowded;
	}
	return n;
}

long
reports_next_attempt(void)
{
	TimestampTz now = worker_steady_now();

	if (next_attempt == DT_NOEND)
		return -1;
	return next_attempt <= now ? 0 :
		TimestampDifferenceMilliseconds(now, next_attempt) + 1;
}

ReportRetry
reports_retry(const DeadLetter *letter, ErrorData **error)
{
	Report	   *report = find_report(letter->report);
	int64		log_seq = letter->log_seq;
	ReportRun	task = {0};
	Tuplestorestate *store;
	const char *trouble;
	int64		last;
	bool		done;

	*error = NULL;
	if (report == NULL || !report->loaded)
		return RETRY_LATER;
	trouble = report_owner_trouble(report->owner, report->target);
	if (trouble != NULL)
	{
		report_halt(report, trouble);
		return RETRY_LATER;
	}

	/* A report that was made anew comes by it, and judges it then. */
	if (log_seq > report->applied_seq && !MUTANT("retry_anyway"))
		return RETRY_DONE;
	if (!serve_only && report_is_aside(report) &&
		catch_up_want(report->number))
		return RETRY_LATER;
	store = tuplestore_begin_heap(false, false, 1024);
	task.statement = report->statement;
	task.plans = &report->plans;
	task.owner = report->owner;
	task.store = store;
	task.n = 1;
	task.timeout_ms = report->timeout_ms;
	task.deadline = report_is_aside(report) ? DT_NOEND : report_live_deadline(1);

	/* neither: it has been skipped meanwhile */
	report->plans.publishes = !letter->published;
	done = (event_log_read(log_seq - 1, log_seq, 1, store, &last) == 0 &&
			!dead_letter_read_event(letter->id, store)) ||
		report_run(&task, error);
	report->plans.publishes = true;
	tuplestore_end(store);
	if (done)
		return RETRY_DONE;
	if (report_step_aside(report, *error, task.deadline))
		return RETRY_LATER;
	report_shorten_context(report->name, report->statement, *error);
	return report_error_kind((*error)->sqlerrcode) == ERROR_PASSING ? RETRY_LATER :
		RETRY_REFUSED;
}
