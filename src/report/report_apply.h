/*-------------------------------------------------------------------------
 *
 * report_apply.h
 *	  One report and a range of events: applying it, and judging a failure.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * For reports.c, which knows which report is to have which range.
 *
 *-------------------------------------------------------------------------
 */
#ifndef REPORT_APPLY_H
#define REPORT_APPLY_H

#include "postgres.h"

#include "report/report_run.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

typedef struct Report
{
	char	   *name;
	char	   *statement;
	Oid			target;
	Oid			owner;
	int64		applied_seq;
	int64		number;			/* of the name: for catch_up.c */
	int			timeout_ms;		/* of one execution */
	double		last_ms;		/* the newest one took */
	bool		loaded;			/* seen and locked in this transaction */
	bool		locked;			/* could run, but somebody else holds it */
	int64		range;			/* events to try next; 0: as many as allowed */
	int64		too_many;		/* events for which resources did not suffice,
								 * since it was behind; 0: they did */
	Backoff		backoff;
	TimestampTz next_attempt;	/* 0: at once */
	TimestampTz behind_since;	/* 0: it stands at the end */
	TimestampTz aside_until;	/* out of the live path; 0: it was not slow */
	int			times_aside;
	bool		crowded;		/* served in turns for lack of a process */
	ReportPlans plans;
} Report;

/* It waits for report.enable(); the others go on. */
extern void report_halt(Report *report, const char *why);

/* When the live path, which has so many events, must be through with a report. */
extern TimestampTz report_live_deadline(int64 n);

/*
 * Apply the n events of store, the last of which is seq.  False: it failed, by
 * the fault of *n events up to *seq.  True also if only the first events were
 * applied: what remains is in report->range, and applied_seq says where it stands.
 * clean: known of store, see publish_is_clean().
 */
extern bool report_apply(Report *report, Tuplestorestate *store, bool clean,
						 int64 *n, int64 *seq, TimestampTz deadline,
						 ErrorData **error);

/*
 * Was the live path's deadline too early, and not the time over that the report
 * has by itself?  Then it leaves the live path for a while.
 */
extern bool report_step_aside(Report *report, const ErrorData *error,
							  TimestampTz deadline);
extern bool report_is_aside(const Report *report);

/* A range of n events up to seq has failed: what becomes of it. */
extern void report_handle_failure(Report *report, ErrorData *error, int64 n,
								  int64 seq);

#endif							/* REPORT_APPLY_H */
