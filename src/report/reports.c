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
 *	   after a timeout, a smaller range;
 *	 - anything else: the report stops until report.enable().
 * The other reports go on in each case.
 *
 * Memory: what is known about a report (range size, back-off, plans) lives in
 * a context of its own for the life of the worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "errors.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "report/dead_letter.h"
#include "report/event_log.h"
#include "report/report_run.h"
#include "report/reports.h"
#include "report/sql_plan.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* When to look again for a report that somebody has locked. */
#define LOCKED_RETRY_MS		1000

typedef struct Report
{
	char	   *name;
	char	   *statement;
	Oid			target;
	Oid			owner;
	int64		applied_seq;
	bool		loaded;			/* seen and locked in this transaction */
	bool		locked;			/* could run, but somebody else holds it */
	int64		range;			/* events to try next; 0: as many as allowed */
	Backoff		backoff;
	TimestampTz next_attempt;	/* 0: at once */
	ReportPlans plans;
} Report;

static MemoryContext reports_context = NULL;
static List *reports = NIL;
static TimestampTz next_attempt = DT_NOEND; /* of the reports behind */

static SqlPlan get_definitions = {
	"SELECT d.name, d.statement, d.target::pg_catalog.oid,"
	" d.owner::pg_catalog.oid, a.applied_seq"
	" FROM report.definitions d JOIN report.applied a USING (name)"
	" WHERE d.enabled AND NOT a.failed ORDER BY d.name"
	" FOR NO KEY UPDATE OF a SKIP LOCKED",
	0, {0}, NULL
};

static SqlPlan get_others = {
	"SELECT d.name, d.enabled AND NOT a.failed"
	" FROM report.definitions d JOIN report.applied a USING (name)",
	0, {0}, NULL
};

static SqlPlan set_applied = {
	"UPDATE report.applied SET applied_seq = $2, events = events + $3,"
	" runs = runs + 1, total_ms = total_ms + $4, last_ms = $4,"
	" last_error = NULL WHERE name = $1",
	4, {TEXTOID, INT8OID, INT8OID, FLOAT8OID}, NULL
};

static SqlPlan set_passed = {
	"UPDATE report.applied SET applied_seq = $2 WHERE name = $1",
	2, {TEXTOID, INT8OID}, NULL
};

static SqlPlan set_refused = {
	"UPDATE report.applied SET applied_seq = $2, events = events + 1,"
	" dead_letters = dead_letters + 1, last_error = $3,"
	" last_error_at = pg_catalog.now() WHERE name = $1",
	3, {TEXTOID, INT8OID, TEXTOID}, NULL
};

static SqlPlan set_error = {
	"UPDATE report.applied SET failed = $2, last_error = $3,"
	" last_error_at = pg_catalog.now() WHERE name = $1",
	3, {TEXTOID, BOOLOID, TEXTOID}, NULL
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

void
reports_load(void)
{
	ListCell   *cell;
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

	n = sql_plan_execute(&get_definitions, NULL, NULL);
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
			report->range = 0;
			report->next_attempt = 0;
			backoff_reset(&report->backoff);
		}
		report->target = DatumGetObjectId(sql_value(i, 3, NULL));
		report->owner = DatumGetObjectId(sql_value(i, 4, NULL));
		report->applied_seq = DatumGetInt64(sql_value(i, 5, NULL));
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

ReportError
report_error_kind(int sqlerrcode)
{
	const char *state = unpack_sql_state(sqlerrcode);
	static const char *const of_event[] = {"21", "22", "23", "44", "54", "P0"};
	static const char *const passing[] = {"40", "53", "55", "57"};

	/* the event that it makes: too large, a key too long, ... */
	if (sqlerrcode == ERRCODE_OB_EVENT_REFUSED)
		return ERROR_OF_EVENT;
	for (Size i = 0; i < lengthof(of_event); i++)
	{
		if (strncmp(state, of_event[i], 2) == 0)
			return ERROR_OF_EVENT;
	}
	for (Size i = 0; i < lengthof(passing); i++)
	{
		if (strncmp(state, passing[i], 2) == 0)
			return ERROR_PASSING;
	}
	return ERROR_OF_REPORT;
}

/* It waits for report.enable(); the others go on. */
static void
stop_report(Report *report, const char *why)
{
	Datum		values[3];

	values[0] = CStringGetTextDatum(report->name);
	values[1] = BoolGetDatum(true);
	values[2] = CStringGetTextDatum(why);
	sql_plan_execute(&set_error, values, NULL);
	report->loaded = false;
	ereport(LOG,
			(errmsg("report \"%s\" has stopped: %s", report->name, why),
			 errhint("Repair the cause, then SELECT report.enable(%s).",
					 quote_literal_cstr(report->name))));
}

/* Run the statement and, when it succeeds, move applied_seq to seq. */
static bool
apply(Report *report, Tuplestorestate *store, int64 n, int64 seq,
	  ErrorData **error)
{
	instr_time	started;
	instr_time	took;
	Datum		values[4];

	INSTR_TIME_SET_CURRENT(started);
	if (!report_run(report->statement, &report->plans, report->owner, store,
					n, error))
		return false;
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, started);

	values[0] = CStringGetTextDatum(report->name);
	values[1] = Int64GetDatum(seq);
	values[2] = Int64GetDatum(n);
	values[3] = Float8GetDatum(INSTR_TIME_GET_MILLISEC(took));
	sql_plan_execute(&set_applied, values, NULL);
	report->applied_seq = seq;
	return true;
}

/* When does the next report that is behind want to go on? */
static void
note_next_attempt(int64 head)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *cell;

	next_attempt = DT_NOEND;
	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);
		TimestampTz at = report->next_attempt;

		if (report->loaded ? report->applied_seq >= head : !report->locked)
			continue;
		if (report->locked)
			at = TimestampTzPlusMilliseconds(now, LOCKED_RETRY_MS);
		next_attempt = Min(next_attempt, at);
	}
}

void
reports_apply(Tuplestorestate *store, int64 n, int64 after, int64 head)
{
	ListCell   *cell;

	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);
		const char *trouble;
		ErrorData  *error;

		if (!report->loaded || report->applied_seq != after ||
			report->next_attempt > GetCurrentTimestamp())
			continue;
		trouble = report_owner_trouble(report->owner, report->target);
		if (trouble != NULL)
			stop_report(report, trouble);
		else if (!apply(report, store, n, head, &error))
		{
			/* Judged by reports_catch_up(), in a transaction of its own. */
			FreeErrorData(error);
			report->range = n;
			report->next_attempt = 0;
		}
	}
	note_next_attempt(head);
}

/* A matter of time (locks, memory, ...): tried again, later each time. */
static void
note_passing(Report *report, const ErrorData *error, int64 n)
{
	long		delay = backoff_next_ms(&report->backoff);
	Datum		values[3];

	values[0] = CStringGetTextDatum(report->name);
	values[1] = BoolGetDatum(false);
	values[2] = CStringGetTextDatum(error->message);
	sql_plan_execute(&set_error, values, NULL);
	if (report->backoff.attempts == 1)
		ereport(LOG,
				(errmsg("report \"%s\" is tried again later: %s",
						report->name, error->message)));
	report->next_attempt =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		report->range = Max(n / 2, 1);
}

void
report_shorten_context(const char *name, const char *text, ErrorData *error)
{
	char	   *statement;

	if (error->context == NULL)
		return;
	statement = strstr(error->context, text);
	if (statement != NULL)
		error->context = psprintf("%.*s%s%s",
								  (int) (statement - error->context),
								  error->context, name,
								  statement + strlen(text));
}

/* A range of n events up to seq has failed. */
static void
handle_failure(Report *report, ErrorData *error, int64 n, int64 seq)
{
	Datum		values[3];

	switch (report_error_kind(error->sqlerrcode))
	{
		case ERROR_OF_EVENT:
			if (n > 1)
			{
				report->range = n / 2;
				return;
			}
			report_shorten_context(report->name, report->statement, error);
			dead_letter_add_event(report->name, seq, error);
			values[0] = CStringGetTextDatum(report->name);
			values[1] = Int64GetDatum(seq);
			values[2] = CStringGetTextDatum(error->message);
			sql_plan_execute(&set_refused, values, NULL);
			report->applied_seq = seq;
			report->range = 2;
			return;
		case ERROR_PASSING:
			note_passing(report, error, n);
			return;
		case ERROR_OF_REPORT:
			stop_report(report, psprintf("%s: %s",
										 unpack_sql_state(error->sqlerrcode),
										 error->message));
			return;
	}
}

/* Apply the next events, limit at most, up to head. */
static void
catch_up_one(Report *report, int64 head, int64 limit)
{
	int64		n_wanted = (report->range > 0) ?
	Min(report->range, limit) : limit;
	Tuplestorestate *store = tuplestore_begin_heap(false, false,
												   setting_worker_memory / 4);
	const char *trouble;
	ErrorData  *error;
	int64		last;
	int64		n;

	trouble = report_owner_trouble(report->owner, report->target);
	if (trouble != NULL)
	{
		tuplestore_end(store);
		stop_report(report, trouble);
		return;
	}

	n = event_log_read(report->applied_seq, head, n_wanted, store, &last);
	if (n == 0)
	{
		/* Numbers that were never given, or removed with old events. */
		Datum		values[2];

		values[0] = CStringGetTextDatum(report->name);
		values[1] = Int64GetDatum(head);
		sql_plan_execute(&set_passed, values, NULL);
		report->applied_seq = head;
	}
	else if (apply(report, store, n, last, &error))
	{
		report->range = Min(n_wanted * 2, limit);
		report->next_attempt = 0;
		backoff_reset(&report->backoff);
	}
	else
	{
		handle_failure(report, error, n, last);
		FreeErrorData(error);
	}
	tuplestore_end(store);
}

void
reports_catch_up(int64 head, int64 limit)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *cell;

	reports_load();
	foreach(cell, reports)
	{
		Report	   *report = lfirst(cell);

		if (report->loaded && report->applied_seq < head &&
			report->next_attempt <= now)
			catch_up_one(report, head, limit);
	}
	note_next_attempt(head);
}

long
reports_next_attempt(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (next_attempt == DT_NOEND)
		return -1;
	return next_attempt <= now ? 0 :
		TimestampDifferenceMilliseconds(now, next_attempt) + 1;
}

ReportRetry
reports_retry(const char *name, int64 log_seq, ErrorData **error)
{
	Report	   *report = find_report(name);
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
		stop_report(report, trouble);
		return RETRY_LATER;
	}
	store = tuplestore_begin_heap(false, false, 1024);

	/* Not in the log any more: there is nothing to try. */
	done = event_log_read(log_seq - 1, log_seq, 1, store, &last) == 0 ||
		report_run(report->statement, &report->plans, report->owner, store, 1,
				   error);
	tuplestore_end(store);
	if (done)
		return RETRY_DONE;
	return report_error_kind((*error)->sqlerrcode) == ERROR_PASSING ? RETRY_LATER :
		RETRY_REFUSED;
}
