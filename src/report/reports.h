/*-------------------------------------------------------------------------
 *
 * reports.h
 *	  Reports: a table each, and one statement that folds FROM new_events
 *	  into it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * All functions run inside a transaction of the reporter, with SPI connected,
 * unless said otherwise.
 *
 *-------------------------------------------------------------------------
 */
#ifndef REPORTS_H
#define REPORTS_H

#include "postgres.h"

#include "report/dead_letter.h"
#include "utils/elog.h"
#include "utils/tuplestore.h"

/* Name of the batch in a report's statement. */
#define NEW_EVENTS	"new_events"

/*
 * Read the definitions and lock the state of those that can run; one that
 * somebody else holds (rebuild, drop) is left alone and catches up later.
 * live: so is one that has a process of its own, which needs that lock.
 */
extern void reports_load(bool live);

/* Would any report take a batch behind after?  If not, it need not be kept. */
extern bool reports_want(int64 after);

/*
 * Give a batch, log_seq after < … <= head, to every report that stands at
 * after.  One that fails is left behind: reports_catch_up() deals with it.  With
 * store NULL nobody gets it now.
 */
extern void reports_apply(Tuplestorestate *store, int64 n, int64 after,
						  int64 head);

/*
 * Let each report that stands before head, and is due, apply one range of the
 * event log, at most limit events.
 */
extern void reports_catch_up(int64 head, int64 limit);

/*
 * By SQLSTATE class: whose fault is it that a statement failed, the event's,
 * nobody's, or the report's?
 */
typedef enum ReportError
{
	ERROR_OF_EVENT,
	ERROR_PASSING,
	ERROR_OF_REPORT
} ReportError;

extern ReportError report_error_kind(int sqlerrcode);

/*
 * SPI ends an error's context with the whole statement: the report's name says
 * as much beside a dead letter.
 */
extern void report_shorten_context(const char *name, const char *statement,
								   ErrorData *error);

/* Of them, how many need a process of their own and have none (catch_up.c). */
extern int	reports_in_turns(void);

/* In such a process: there is only the report of this number. */
extern void reports_serve_only(int64 number);
extern bool reports_served(int64 *number);

/*
 * Give an event that a report has refused to it once more; it stands in the log
 * still, or in that dead letter only.  With RETRY_REFUSED
 * *error says why it was refused again.
 */
typedef enum ReportRetry
{
	RETRY_DONE,
	RETRY_REFUSED,
	RETRY_LATER					/* somebody holds the report, or a table */
} ReportRetry;

extern ReportRetry reports_retry(const DeadLetter *letter, ErrorData **error);

/*
 * Also outside of transactions: in how many ms reports_catch_up() has work,
 * 0: at once, -1: all reports are current or stopped.
 */
extern long reports_next_attempt(void);

#endif							/* REPORTS_H */
