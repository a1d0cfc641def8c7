/*-------------------------------------------------------------------------
 *
 * report_run.h
 *	  Executing a report's statement with the rights of its owner.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef REPORT_RUN_H
#define REPORT_RUN_H

#include "postgres.h"

#include "executor/spi.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* Plans are made per size class of the batch: 1-7, 8-63, 64-511, ... */
#define REPORT_PLAN_CLASSES	7

/* What a report's statement sees; its own names must be qualified. */
#define REPORT_SEARCH_PATH	"pg_catalog, pg_temp"

/* Longest time of one execution unless the definition says otherwise. */
#define REPORT_TIMEOUT_MS	60000

/* Longest wait for a lock in it. */
#define REPORT_LOCK_TIMEOUT_MS	1000

typedef struct ReportPlans
{
	SPIPlanPtr	plans[REPORT_PLAN_CLASSES];

	/*
	 * Whose they are, which tells what the statement is not to be given
	 * (publish.h); NULL: all of it.  Only who applies events for the first
	 * time sets publishes: otherwise events that the statement writes are not
	 * written.
	 */
	const char *report;
	bool		publishes;
	bool		in_parts;		/* see publish_is_unclear() */
} ReportPlans;

/*
 * Register new_events on the current SPI connection.  The columns are those
 * of report.reported_events, which is returned: held open, and to be closed
 * when no statement reads new_events any more.
 */
extern Relation report_register_events(Tuplestorestate *store, int64 n);

/*
 * Switch to the rights, settings and restrictions of a report's owner.
 * Undone by report_leave() or by the end of a failed (sub)transaction.  Events
 * that are written meanwhile are not written (outbox/consequence.h).
 */
typedef struct ReportScope
{
	Oid			user;
	int			security;
	int			guc_level;
} ReportScope;

/*
 * Settings that a statement's result and texts depend on, as the workers have them
 * (worker/pins.c): a report makes the same of an event whoever runs it and
 * wherever.  They hold until the GUC nest level ends.
 */
extern void report_pin_settings(void);

/* In somebody's session. */
extern void report_enter(ReportScope *scope, Oid owner);
extern void report_leave(ReportScope *scope);

/* One task for report_run(). */
typedef struct ReportRun
{
	const char *statement;
	ReportPlans *plans;
	Oid			owner;
	Tuplestorestate *store;
	bool		clean;			/* known of store: publish_is_clean() */
	int64		n;				/* take so many of store; without pieces all */
	bool		in_pieces;		/* an execution for each piece without two
								 * events of one key ... */
	bool		singly;			/* ... or for each event */
	int			timeout_ms;		/* of an execution */
	TimestampTz deadline;		/* of all of it; DT_NOEND: none */
	bool		in_session;		/* of a person: its timers, its cancel and its
								 * advisory locks stay its own */

	/* What has become of it: */
	int64		runs;			/* executions */
	int64		done;			/* events before the end, or before the error */
	int64		last_seq;		/* with pieces: of the last event executed */
	bool		unclear;		/* see publish_is_unclear() */
} ReportRun;

/*
 * Execute the statement over the events, in one subtransaction.  False with
 * *error set when it failed and was undone.  With pieces it stops at the deadline
 * between two of them, with done < n.
 */
extern bool report_run(ReportRun *run, ErrorData **error);

extern void report_forget_plans(ReportPlans *plans);

/* Why the owner may not run a report on the target any more; NULL if he may. */
extern const char *report_owner_trouble(Oid owner, Oid target);

#endif							/* REPORT_RUN_H */
