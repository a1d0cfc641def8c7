/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  Starts a relay per shop database and a reporter per report database.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The launcher is registered with the postmaster, starts when recovery is over
 * (so not on a standby, and at once after a promotion) and is connected to the
 * shared catalogs only.  Workers are dynamic and never restarted by the
 * postmaster: the launcher starts an ended one again, with a growing delay,
 * because only it knows whether the worker is still wanted.  A missing
 * database is logged once and looked for again, with a growing delay and on
 * reload; so is whatever else keeps a worker from being started.
 *
 * A database that a command needs for itself is left alone until the command
 * is over (step_aside.c).  That one, and one that is made, renamed or opened
 * meanwhile, is looked for at once then, by its name.
 *
 * It also gives the slots of dropped databases back, when it needs one: it is
 * the one that can tell which databases there are.
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
#include "compat.h"
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
#include "worker/backoff.h"
#include "worker/step_aside.h"
#include "worker/worker.h"

#define RESTART_FIRST_MS	500
#define RESTART_MOST_MS		30000
#define LOOK_AGAIN_MOST_MS	60000
#define FOREIGN_LOOK_MS		5000

#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB	(-2)	/* left by a DROP DATABASE cut short */
#endif

/* Why a worker cannot be started; logged when it changes. */
typedef enum Obstacle
{
	OBSTACLE_NONE,
	OBSTACLE_RUNS,				/* one that an earlier launcher started */
	OBSTACLE_MISSING,			/* no such database */
	OBSTACLE_CLOSED,			/* it accepts no connections */
	OBSTACLE_ASIDE,				/* a command needs it for itself; this passes */
	OBSTACLE_NO_SLOT,			/* of ours, in shared memory */
	OBSTACLE_NO_PROCESS			/* of the server's */
} Obstacle;

typedef struct Wanted
{
	char		database[NAMEDATALEN];
	char		kind;			/* 'r' or 'p' */
	bool		seen;			/* still in the setting */
	Obstacle	obstacle;		/* logged last */
	bool		aside;			/* a command needed it when we looked last */
	Oid			oid;
	BackgroundWorkerHandle *handle;
	TimestampTz tried_at;		/* started, or looked for in vain; 0: not yet */
	int			attempts;		/* since it ran for long, or since a reload */
	long		delay_ms;		/* after tried_at */
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

/* Note the workers that a setting asks for; what they went through is kept. */
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
		wanted->attempts = 0;
		wanted->delay_ms = 0;
	}
	want(setting_shop_databases, 'r');
	want(setting_report_databases, 'p');

	/* one that comes back into the setting is new */
	foreach(lc, wanted_workers)
	{
		Wanted	   *wanted = lfirst(lc);

		if (!wanted->seen)
			wanted->obstacle = OBSTACLE_NONE;
	}
}

static const char *
kind_name(const Wanted *wanted)
{
	return wanted->kind == 'r' ? "relay" : "reporter";
}

/* Once per change; none is what the worker's own lines tell. */
static void
note_obstacle(Wanted *wanted, Obstacle obstacle)
{
	const char *setting = wanted->kind == 'r' ? "shop_databases" : "report_databases";

	if (wanted->obstacle == obstacle)
		return;
	wanted->obstacle = obstacle;
	switch (obstacle)
	{
		case OBSTACLE_NONE:
		case OBSTACLE_RUNS:
		case OBSTACLE_ASIDE:	/* does not come here */
			break;
		case OBSTACLE_MISSING:
			ereport(LOG,
					(errmsg("database \"%s\" in carshop_outbox.%s does not exist",
							wanted->database, setting),
					 errhint("Create it, or take it out of the setting.")));
			break;
		case OBSTACLE_CLOSED:
			ereport(LOG,
					(errmsg("database \"%s\" in carshop_outbox.%s does not accept connections",
							wanted->database, setting),
					 errhint("ALTER DATABASE ... ALLOW_CONNECTIONS true, or take it out of the setting.")));
			break;
		case OBSTACLE_NO_SLOT:
			ereport(WARNING,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not start the %s for database \"%s\"",
							kind_name(wanted), wanted->database),
					 errdetail("%d databases use carshop_outbox, as many as carshop_outbox.max_databases allows.",
							   setting_max_databases),
					 errhint("Raise carshop_outbox.max_databases and restart the server.")));
			break;
		case OBSTACLE_NO_PROCESS:
			ereport(WARNING,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not start the %s for database \"%s\"",
							kind_name(wanted), wanted->database),
					 errdetail("All background worker slots are in use."),
					 errhint("Raise max_worker_processes and restart the server.")));
			break;
	}
}

/*
 * Every database that there is, for the callback.  A sequential scan, as
 * autovacuum's launcher does: without a database there is no pg_class from
 * which an index of pg_database could be opened.
 */
static void
each_database(void (*callback) (Form_pg_database database, void *arg), void *arg)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	/* what this transaction has seen before may be of yesterday */
	InvalidateCatalogSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
		callback((Form_pg_database) GETSTRUCT(tuple), arg);
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

typedef struct Search
{
	const char *name;
	Oid			oid;			/* InvalidOid: not found */
	bool		open;			/* accepts connections */
} Search;

static void
compare_name(Form_pg_database database, void *arg)
{
	Search	   *search = arg;

	if (strcmp(NameStr(database->datname), search->name) != 0)
		return;
	search->oid = database->oid;
	search->open = database->datallowconn &&
		database->datconnlimit != DATCONNLIMIT_INVALID_DB;
}

typedef struct SlotHolders
{
	Oid		   *databases;		/* InvalidOid: it is there */
	int			n;
} SlotHolders;

/* A database that exists is not to be forgotten. */
static void
strike_out(Form_pg_database database, void *arg)
{
	SlotHolders *holders = arg;

	for (int i = 0; i < holders->n; i++)
	{
		if (holders->databases[i] == database->oid)
			holders->databases[i] = InvalidOid;
	}
}

/*
 * Have a slot for this database, in place of a dropped one's if need be.  Who
 * has taken a slot was connected to a database that existed, so one that the
 * later look into pg_database does not show has been dropped.
 */
static bool
reserve_slot(Oid database)
{
	SlotHolders holders;

	if (shared_reserve(database))
		return true;
	holders.databases = shared_databases(&holders.n);
	each_database(strike_out, &holders);
	for (int i = 0; i < holders.n; i++)
	{
		if (OidIsValid(holders.databases[i]))
			shared_forget(holders.databases[i]);
	}
	pfree(holders.databases);
	return shared_reserve(database);
}

/* False: the server has no background worker left (max_worker_processes). */
static bool
start_worker(Wanted *wanted)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;
	const char *type = kind_name(wanted);

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

	return started;
}

/* What keeps the worker from being started; none: it has been. */
static Obstacle
try_to_start(Wanted *wanted)
{
	Search		search = {.name = wanted->database};

	each_database(compare_name, &search);
	wanted->oid = search.oid;
	if (!OidIsValid(search.oid))
		return OBSTACLE_MISSING;
	/* first: DROP DATABASE closes it before it goes */
	if (step_aside_asked(search.oid))
		return OBSTACLE_ASIDE;
	if (!search.open)
		return OBSTACLE_CLOSED;
	if (shared_worker_pid(search.oid, wanted->kind) != 0)
		return OBSTACLE_RUNS;
	if (!reserve_slot(search.oid))
		return OBSTACLE_NO_SLOT;
	return start_worker(wanted) ? OBSTACLE_NONE : OBSTACLE_NO_PROCESS;
}

/* Time in ms until this worker needs a look; -1: it runs. */
static long
look_after(Wanted *wanted)
{
	pid_t		pid;
	long		passed;
	Obstacle	obstacle;

	if (!wanted->seen)
		return -1;
	if (wanted->handle != NULL &&
		GetBackgroundWorkerPid(wanted->handle, &pid) != BGWH_STOPPED)
		return -1;

	/* that it left when it was asked to does not count against it */
	if (OidIsValid(wanted->oid) && shared_take_left(wanted->oid, wanted->kind))
	{
		wanted->attempts = 0;
		wanted->delay_ms = 0;
	}
	if (wanted->tried_at != 0)
	{
		passed = TimestampDifferenceMilliseconds(wanted->tried_at,
												 worker_steady_now());
		if (passed < wanted->delay_ms)
			return wanted->delay_ms - passed;
		/* one that has run for long starts again soon */
		if (wanted->obstacle == OBSTACLE_NONE && passed > 10 * RESTART_MOST_MS)
			wanted->attempts = 0;
	}

	obstacle = try_to_start(wanted);
	wanted->tried_at = worker_steady_now();
	wanted->aside = obstacle == OBSTACLE_ASIDE;
	if (wanted->aside)
		return wanted->delay_ms = FOREIGN_LOOK_MS;
	note_obstacle(wanted, obstacle);
	if (obstacle == OBSTACLE_RUNS)
		return wanted->delay_ms = FOREIGN_LOOK_MS;
	wanted->delay_ms = backoff_ms(wanted->attempts++, RESTART_FIRST_MS,
								  obstacle == OBSTACLE_NONE ? RESTART_MOST_MS :
								  LOOK_AGAIN_MOST_MS);
	return obstacle == OBSTACLE_NONE ? -1 : wanted->delay_ms;
}

/* A command is over that may have removed what stood in the way. */
static void
take_news(void)
{
	ListCell   *lc;

	foreach(lc, wanted_workers)
	{
		Wanted	   *wanted = lfirst(lc);

		if (wanted->aside || wanted->obstacle == OBSTACLE_RUNS ||
			wanted->obstacle == OBSTACLE_MISSING ||
			wanted->obstacle == OBSTACLE_CLOSED)
			wanted->delay_ms = 0;
	}
}

void
carshop_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	worker_pin_settings();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname("carshop_outbox launcher");
	step_aside_attend();
	read_settings();

	for (;;)
	{
		static uint32 wait_event = 0;
		long		timeout = -1;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			read_settings();
		}
		if (step_aside_news())
			take_news();

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
						 timeout, compat_wait_event(&wait_event, "CarshopLauncher"));
		ResetLatch(MyLatch);
	}
}
