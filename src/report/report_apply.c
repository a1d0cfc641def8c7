/*-------------------------------------------------------------------------
 *
 * report_apply.c
 *	  One report and a range of events: applying it, and judging a failure.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "errors.h"
#include "mutants.h"
#include "portability/instr_time.h"
#include "report/dead_letter.h"
#include "report/report_apply.h"
#include "report/report_state.h"
#include "report/reports.h"
#include "settings.h"
#include "utils/builtins.h"

/* In the live path: a second, and a millisecond for each twenty events. */
#define LIVE_BUDGET_MS		1000
#define LIVE_EVENTS_PER_MS	20

/* How long a slow one is kept out of the live path: doubled each time. */
#define ASIDE_FIRST_MS		10000
#define ASIDE_MOST_MS		600000

/*
 * So many events are applied in pieces in a transaction.  More would make each
 * slower: the versions of a row that a transaction leaves behind can be removed
 * only after it, and every look-up by the key comes by them.
 */
#define SINGLY_AT_ONCE		500

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

void
report_halt(Report *report, const char *why)
{
	report_state_trouble(report->name, true, why);
	report->loaded = false;
	ereport(LOG,
			(errmsg("report \"%s\" has stopped: %s", report->name, why),
			 errhint("Repair the cause, then SELECT report.enable(%s).",
					 quote_literal_cstr(report->name))));
}

TimestampTz
report_live_deadline(int64 n)
{
	if (reports_served(NULL) || MUTANT("no_budget"))
		return DT_NOEND;
	return TimestampTzPlusMilliseconds(worker_steady_now(),
									   LIVE_BUDGET_MS + n / LIVE_EVENTS_PER_MS);
}

/* Run a task and, as far as it succeeds, move applied_seq to seq. */
static bool
apply_task(Report *report, ReportRun *task, int64 seq, ErrorData **error)
{
	instr_time	started;
	instr_time	took;

	INSTR_TIME_SET_CURRENT(started);
	if (!report_run(task, error))
		return false;
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, started);
	if (task->in_pieces)
		seq = task->last_seq;
	report_state_applied(report->name, seq, task->done, task->runs,
						 INSTR_TIME_GET_MILLISEC(took));
	report->applied_seq = seq;
	report->last_ms = INSTR_TIME_GET_MILLISEC(took);
	return true;
}

/*
 * In pieces without two events of one key, the first ones of the task as far as
 * the time goes; when the statement has another notion of a key, or an event is
 * refused, event by event up to that one.  False: the very first one is.
 */
static bool
apply_pieces(Report *report, ReportRun *task, ErrorData **error)
{
	if (report_state_singly(report->name))
		ereport(LOG,
				(errmsg("report \"%s\" takes one event of a key at a time, so its batches are cut",
						report->name),
				 errhint("SELECT * FROM report.status tells how its statement becomes faster.")));
	task->in_pieces = true;
	task->n = Min(task->n, SINGLY_AT_ONCE);
	if (apply_task(report, task, 0, error))
		return true;
	FreeErrorData(*error);
	task->singly = true;
	if (apply_task(report, task, 0, error))
		return true;
	if (task->done == 0)
		return false;

	/* what came before it is good: that again, without it */
	FreeErrorData(*error);
	task->n = task->done;
	return apply_task(report, task, 0, error);
}

bool
report_apply(Report *report, Tuplestorestate *store, bool clean, int64 *n,
			 int64 *seq, TimestampTz deadline, ErrorData **error)
{
	ReportRun	task = {0};

	task.statement = report->statement;
	task.plans = &report->plans;
	task.owner = report->owner;
	task.store = store;
	task.clean = clean;
	task.n = *n;
	task.timeout_ms = report->timeout_ms;
	task.deadline = deadline;
	if (apply_task(report, &task, *seq, error))
		return true;
	if ((*error)->sqlerrcode != ERRCODE_CARDINALITY_VIOLATION || *n == 1)
		return false;
	FreeErrorData(*error);
	report->range = SINGLY_AT_ONCE;
	if (apply_pieces(report, &task, error))
		return true;
	*n = 1;
	*seq = task.last_seq;
	return false;
}

bool
report_step_aside(Report *report, const ErrorData *error, TimestampTz deadline)
{
	int64		ms;

	if (deadline == DT_NOEND ||
		(error->sqlerrcode != ERRCODE_QUERY_CANCELED &&
		 error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE))
		return false;
	ms = ASIDE_FIRST_MS;
	for (int i = 0; i < report->times_aside && ms < ASIDE_MOST_MS; i++)
		ms *= 2;
	report->times_aside++;
	report->aside_until =
		TimestampTzPlusMilliseconds(worker_steady_now(), Min(ms, ASIDE_MOST_MS));
	report->next_attempt = 0;
	return true;
}

bool
report_is_aside(const Report *report)
{
	return report->aside_until > worker_steady_now();
}

/*
 * A matter of time (locks, memory, ...): tried again, later each time, and with
 * fewer events where that can help.
 */
static void
note_passing(Report *report, const ErrorData *error, int64 n)
{
	long		delay = backoff_next_ms(&report->backoff);
	const char *why = error->message;

	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		why = psprintf("%s (" INT64_FORMAT " event(s), %d ms allowed: timeout of report.define)",
					   error->message, n, report->timeout_ms);
	report_state_trouble(report->name, false, why);
	if (report->backoff.attempts == 1)
		ereport(LOG,
				(errmsg("report \"%s\" is tried again later: %s",
						report->name, why)));
	report->next_attempt =
		TimestampTzPlusMilliseconds(worker_steady_now(), delay);

	/* too many at once, perhaps: for the time, or for memory, locks, disk */
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES)
		report->too_many = n;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || report->too_many == n)
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

void
report_handle_failure(Report *report, ErrorData *error, int64 n, int64 seq)
{
	int64		in_a_row;

	switch (report_error_kind(error->sqlerrcode))
	{
		case ERROR_OF_EVENT:
			if (n > 1)
			{
				report->range = n / 2;
				return;
			}
			report_shorten_context(report->name, report->statement, error);
			dead_letter_add_event(report->name, seq, false, error);
			in_a_row = report_state_refused(report->name, seq, error->message);
			report->applied_seq = seq;
			report->range = 2;
			if (setting_report_max_failures > 0 &&
				in_a_row >= setting_report_max_failures)
				report_halt(report, psprintf("it has refused " INT64_FORMAT " events in a row (carshop_outbox.report_max_failures), the last one with %s: %s",
											 in_a_row,
											 unpack_sql_state(error->sqlerrcode),
											 error->message));
			return;
		case ERROR_PASSING:
			note_passing(report, error, n);
			return;
		case ERROR_OF_REPORT:
			report_halt(report, psprintf("%s: %s",
										 unpack_sql_state(error->sqlerrcode),
										 error->message));
			return;
	}
}
