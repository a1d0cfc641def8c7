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
#include "utils/tuplestore.h"

/* Plans are made per size class of the batch: 1-7, 8-63, 64-511, ... */
#define REPORT_PLAN_CLASSES	7

/* What a report's statement sees; its own names must be qualified. */
#define REPORT_SEARCH_PATH	"pg_catalog, pg_temp"

/* Longest time of one execution, and of waiting for a lock in it. */
#define REPORT_TIMEOUT_MS	60000
#define REPORT_LOCK_TIMEOUT	"1s"

typedef struct ReportPlans
{
	SPIPlanPtr	plans[REPORT_PLAN_CLASSES];
} ReportPlans;

/*
 * Register new_events on the current SPI connection.  The columns are those
 * of report.reported_events, which is returned: held open, and to be closed
 * when no statement reads new_events any more.
 */
extern Relation report_register_events(Tuplestorestate *store, int64 n);

/*
 * Switch to the rights, settings and restrictions of a report's owner.
 * Undone by report_leave() or by the end of a failed (sub)transaction.
 */
typedef struct ReportScope
{
	Oid			user;
	int			security;
	int			guc_level;
} ReportScope;

/*
 * Settings that values and their texts depend on: a report makes the same of an
 * event whoever runs it and wherever, the reporter or a session.  They hold
 * until the GUC nest level ends.
 */
extern void report_pin_settings(void);

extern void report_enter(ReportScope *scope, Oid owner);
extern void report_leave(ReportScope *scope);

/*
 * Execute the statement over n events, in a subtransaction.  False with *error
 * set when it failed and was undone.
 */
extern bool report_run(const char *statement, ReportPlans *plans, Oid owner,
					   Tuplestorestate *store, int64 n, ErrorData **error);

extern void report_forget_plans(ReportPlans *plans);

/* Why the owner may not run a report on the target any more; NULL if he may. */
extern const char *report_owner_trouble(Oid owner, Oid target);

#endif							/* REPORT_RUN_H */
