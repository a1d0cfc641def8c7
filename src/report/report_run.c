/*-------------------------------------------------------------------------
 *
 * report_run.c
 *	  Executing a report's statement with the rights of its owner.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The statement, and whatever it calls (triggers, constraints, defaults and
 * output functions of its target), is code that a role chose.  It runs as that
 * role, as REFRESH MATERIALIZED VIEW runs its query: under restricted
 * operation, in a GUC nest level of its own, with a timer of its own; session
 * advisory locks that it leaves behind are released.  Deferred triggers cannot
 * be queued under restricted operation, so nothing of the role is left to be
 * executed at the commit, which is the worker's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "report/event_log.h"
#include "report/report_run.h"
#include "report/reports.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "worker/subtransaction.h"
#include "worker/worker.h"

typedef struct Run
{
	const char *statement;
	ReportPlans *plans;
	Oid			owner;
	Tuplestorestate *store;
	int64		n;
} Run;

Relation
report_register_events(Tuplestorestate *store, int64 n)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	Relation	log;
	int			rc;

	/*
	 * Its descriptor is looked up whenever the statement is analyzed, planned
	 * or executed, without taking a lock, and used when the relation has been
	 * given up again (ENRMetadataGetTupDesc): a transition table's relation
	 * is locked and held open by the command that fires the trigger, this one
	 * by us.
	 */
	log = table_open(event_log_relid(), AccessShareLock);
	enr->md.name = NEW_EVENTS;
	enr->md.reliddesc = RelationGetRelid(log);
	enr->md.tupdesc = NULL;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = (double) n;
	enr->reldata = store;
	rc = SPI_register_relation(enr);
	if (rc != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register " NEW_EVENTS ": %s",
			 SPI_result_code_string(rc));
	return log;
}

void
report_pin_settings(void)
{
	static const char *const pinned[][2] = {
		{"search_path", REPORT_SEARCH_PATH},
		{"TimeZone", "UTC"},
		{"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"},
		{"extra_float_digits", "1"},
		{"bytea_output", "hex"},
	};

	/* Changing one costs more than looking at all. */
	for (Size i = 0; i < lengthof(pinned); i++)
	{
		if (strcmp(GetConfigOption(pinned[i][0], false, false),
				   pinned[i][1]) != 0)
			(void) set_config_option(pinned[i][0], pinned[i][1],
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
}

void
report_enter(ReportScope *scope, Oid owner)
{
	GetUserIdAndSecContext(&scope->user, &scope->security);
	scope->guc_level = NewGUCNestLevel();
	report_pin_settings();
	(void) set_config_option("lock_timeout", REPORT_LOCK_TIMEOUT,
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	/* Compiling costs more than a batch, at every new plan. */
	(void) set_config_option("jit", "off",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(owner, scope->security |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

void
report_leave(ReportScope *scope)
{
	SetUserIdAndSecContext(scope->user, scope->security);
	AtEOXact_GUC(false, scope->guc_level);
}

/* Batches of about the same size share a plan: steps of eight. */
static int
plan_class(int64 n)
{
	int			class = 0;

	while (n >= 8 && class < REPORT_PLAN_CLASSES - 1)
	{
		n /= 8;
		class++;
	}
	return class;
}

/*
 * The statement on its events, as its owner; called within a subtransaction.
 */
static void
run(void *arg)
{
	Run		   *run = arg;
	SPIPlanPtr *plan = &run->plans->plans[plan_class(run->n)];
	ReportScope scope;
	Relation	log;
	int			rc;

	rc = SPI_connect();
	if (rc != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed: %s", SPI_result_code_string(rc));
	log = report_register_events(run->store, run->n);

	report_enter(&scope, run->owner);
	enable_timeout_after(STATEMENT_TIMEOUT, REPORT_TIMEOUT_MS);

	/*
	 * A plan is kept per size class, made with a true row count: one made for
	 * a single row takes a nested loop, minutes for twenty thousand.
	 */
	if (*plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(run->statement, 0, NULL);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "could not prepare the report's statement: %s",
				 SPI_result_code_string(SPI_result));
		*plan = prepared;
	}
	rc = SPI_execute_plan(*plan, NULL, NULL, false, 0);
	if (rc < 0)
		elog(ERROR, "could not execute the report's statement: %s",
			 SPI_result_code_string(rc));

	disable_timeout(STATEMENT_TIMEOUT, false);
	CHECK_FOR_INTERRUPTS();		/* a cancel of the last moment is the
								 * statement's, not ours */
	report_leave(&scope);
	SPI_finish();
	table_close(log, NoLock);
}

bool
report_run(const char *statement, ReportPlans *plans, Oid owner,
		   Tuplestorestate *store, int64 n, ErrorData **error)
{
	Run			task;
	bool		done;

	task.statement = statement;
	task.plans = plans;
	task.owner = owner;
	task.store = store;
	task.n = n;

	/*
	 * Timers cancel, which workers ignore.  Here a cancel ends only the
	 * statement, so that is also what pg_cancel_backend() can do to us.
	 */
	worker_cancellable(true);
	done = subtransaction_try(run, &task, error);
	if (get_timeout_active(STATEMENT_TIMEOUT))
		disable_timeout(STATEMENT_TIMEOUT, false);
	worker_cancellable(false);
	LockReleaseSession(USER_LOCKMETHOD);
	return done;
}

void
report_forget_plans(ReportPlans *plans)
{
	for (int i = 0; i < REPORT_PLAN_CLASSES; i++)
	{
		if (plans->plans[i] != NULL)
			SPI_freeplan(plans->plans[i]);
		plans->plans[i] = NULL;
	}
}

const char *
report_owner_trouble(Oid owner, Oid target)
{
	HeapTuple	tuple;
	Oid			target_owner;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		return "the role that defined it is gone";
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(target));
	if (!HeapTupleIsValid(tuple))
		return "its target table is gone";
	target_owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	if (target_owner != owner)
		return "the role that defined it does not own its target table any more";
	return NULL;
}
