/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  Starts a relay per shop database and a reporter per report database.
 *
 * The launcher is registered with the postmaster, starts when recovery is over
 * (so not on a standby, and at once after a promotion) and is connected to the
 * shared catalogs only.  Workers are dynamic and never restarted by the
 * postmaster: the launcher starts an ended one again, with a growing delay,
 * because only it knows whether the worker is still wanted.  A missing
 * database is logged once and looked for again, with a growing delay and on
 * reload.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "shared.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define RESTART_FIRST_MS	500
#define RESTART_MOST_MS		30000
#define LOOK_AGAIN_MOST_MS	60000

typedef struct Wanted
{
	char		database[NAMEDATALEN];
	char		kind;			/* 'r' or 'p' */
	bool		seen;			/* still in the setting */
	bool		complained;
	Oid			oid;
	BackgroundWorkerHandle *handle;
	TimestampTz started_at;
	long		delay_ms;		/* before the next start */
} Wanted;

static List *wanted_workers = NIL;	/* of Wanted *, in TopMemoryContext */

void
worker_register_launcher(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, "carshop_outbox launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "carshop_outbox launcher", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "carshop_outbox",
			sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "carshop_launcher_main",
			sizeof(worker.bgw_function_name));
	RegisterBackgroundWorker(&worker);
}

static void
want(const char *databases, char kind)
{
	ListCell   *lc;

	foreach(lc, settings_split(databases))
	{
		const char *name = lfirst(lc);
		Wanted	   *found = NULL;
		ListCell   *known;

		foreach(known, wanted_workers)
		{
			Wanted	   *wanted = lfirst(known);

			if (wanted->kind == kind && strcmp(wanted->database, name) == 0)
				found = wanted;
		}
		if (found == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			found = palloc0(sizeof(Wanted));
			strlcpy(found->database, name, NAMEDATALEN);
			found->kind = kind;
			wanted_workers = lappend(wanted_workers, found);
			MemoryContextSwitchTo(old);
		}
		found->seen = true;
	}
}

/* Read the settings; workers no longer wanted leave by themselves. */
static void
read_settings(void)
{
	ListCell   *lc;

	foreach(lc, wanted_workers)
	{
		Wanted	   *wanted = lfirst(lc);

		wanted->seen = false;
		wanted->delay_ms = 0;
	}
	want(setting_shop_databases, 'r');
	want(setting_report_databases, 'p');
}

/*
 * The oid of a database, InvalidOid if there is none.  A sequential scan, as
 * autovacuum's launcher does: without a database there is no pg_class from
 * which an index of pg_database could be opened.
 */
static Oid
find_database(const char *name)
{
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple	tuple;
	Oid			oid = InvalidOid;

	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datallowconn &&
			strcmp(NameStr(database->datname), name) == 0)
			oid = database->oid;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return oid;
}

static bool
start_worker(Wanted *wanted)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;
	const char *type = wanted->kind == 'r' ? "relay" : "reporter";

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "carshop_outbox %s for %s", type,
			 wanted->database);
	snprintf(worker.bgw_type, BGW_MAXLEN, "carshop_outbox %s", type);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "carshop_outbox",
			sizeof(worker.bgw_library_name));
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "carshop_%s_main", type);
	worker.bgw_main_arg = ObjectIdGetDatum(wanted->oid);
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	if (wanted->handle != NULL)
	{
		pfree(wanted->handle);
		wanted->handle = NULL;
	}
	started = RegisterDynamicBackgroundWorker(&worker, &wanted->handle);
	MemoryContextSwitchTo(old);

	if (!started && !wanted->complained)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start the %s for database \"%s\"", type,
						wanted->database),
				 errdetail("All background worker slots are in use."),
				 errhint("Raise max_worker_processes and restart the server.")));
		wanted->complained = true;
	}
	if (started)
		wanted->complained = false;
	wanted->started_at = GetCurrentTimestamp();
	return started;
}

/* Time in ms until this worker needs a look; -1: it runs. */
static long
look_after(Wanted *wanted)
{
	pid_t		pid;
	long		passed;

	if (!wanted->seen)
		return -1;
	if (wanted->handle != NULL &&
		GetBackgroundWorkerPid(wanted->handle, &pid) != BGWH_STOPPED)
		return -1;

	if (wanted->started_at != 0)
	{
		passed = TimestampDifferenceMilliseconds(wanted->started_at,
												 GetCurrentTimestamp());
		if (passed < wanted->delay_ms)
			return wanted->delay_ms - passed;
		/* one that has run for long starts again soon */
		if (wanted->handle != NULL && passed > 10 * RESTART_MOST_MS)
			wanted->delay_ms = 0;
	}

	wanted->oid = find_database(wanted->database);
	wanted->delay_ms = wanted->delay_ms == 0 ? RESTART_FIRST_MS :
		Min(wanted->delay_ms * 2,
			OidIsValid(wanted->oid) ? RESTART_MOST_MS : LOOK_AGAIN_MOST_MS);
	if (!OidIsValid(wanted->oid))
	{
		if (!wanted->complained)
			ereport(LOG,
					(errmsg("database \"%s\" in carshop_outbox.%s does not exist",
							wanted->database,
							wanted->kind == 'r' ? "shop_databases" : "report_databases"),
					 errhint("Create it, or take it out of the setting.")));
		wanted->complained = true;
		wanted->started_at = GetCurrentTimestamp();
		return wanted->delay_ms;
	}

	/* one that an earlier launcher started */
	if (shared_worker_pid(wanted->oid, wanted->kind) != 0)
		return 5000;
	if (!start_worker(wanted))
		return wanted->delay_ms;
	return -1;
}

void
carshop_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname("carshop_outbox launcher");
	read_settings();

	for (;;)
	{
		long		timeout = -1;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			read_settings();
		}

		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		(void) GetTransactionSnapshot();
		foreach(lc, wanted_workers)
		{
			long		wait = look_after(lfirst(lc));

			if (wait >= 0 && (timeout < 0 || wait < timeout))
				timeout = Max(wait, 10);
		}
		CommitTransactionCommand();
		pgstat_report_activity(STATE_IDLE, NULL);

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (timeout >= 0 ? WL_TIMEOUT : 0),
						 timeout, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
