/*-------------------------------------------------------------------------
 *
 * report_state.h
 *	  report.applied: how far a report is, and how it fares.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * All functions run inside a worker's transaction that holds the report's row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef REPORT_STATE_H
#define REPORT_STATE_H

#include "postgres.h"

/* So many events up to seq are in its target. */
extern void report_state_applied(const char *name, int64 seq, int64 events,
								 int64 runs, double ms);

/* There is nothing in the log up to seq. */
extern void report_state_passed(const char *name, int64 seq);

/* The event of that number became a dead letter.  Answers how many in a row. */
extern int64 report_state_refused(const char *name, int64 seq,
								  const char *message);

/* It has trouble.  failed: it waits for report.enable(). */
extern void report_state_trouble(const char *name, bool failed,
								 const char *message);

/* A batch had to be given to it event by event.  True: for the first time. */
extern bool report_state_singly(const char *name);

#endif							/* REPORT_STATE_H */
