/*-------------------------------------------------------------------------
 *
 * catch_up.c
 *	  Processes for reports that would hold up the others.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A process is registered by the reporter, which is told when it ends, and
 * which ends it when it ends itself: so whatever makes the reporter leave a
 * database (step_aside.c) makes them leave, too.  It is told its report as a
 * number, the hash of the name, since a name may be longer than what can be
 * handed to a process; two reports of one number are both served.
 *
 * It reads the event log only, as far as its snapshot sees it: the reporter
 * alone writes there, and commits in the order of log_seq.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "report/catch_up.h"
#include "report/event_log.h"
#include "report/progress.h"
#include "report/reports.h"
#include "report/retry.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* More would take the server's processes away from everybody else. */
#define MOST_PROCESSES	4

/* One that has ended is not registered again before this time. */
#define AGAIN_MS		500

/* How long a process waits for more to do, and how often it looks. */
#define LINGER_MS		5000
#define LOOK_MS			200

typedef struct Process
{
	BackgroundWorkerHandle *handle; /* NULL: free */
	int64		report;
	TimestampTz registered_at;
} Process;

static Process processes[MOST_PROCESSES];

/* ------------------------------------------------------------------------
 * The reporter's side
 * ------------------------------------------------------------------------
 */

static bool
start(Process *process, int64 report)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;

	StaticAssertStmt(sizeof(report) <= BGW_EXTRALEN, "no room for a report");
	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "carshop_outbox catch-up for %s",
			 get_database_name(MyDatabaseId));
	strlcpy(worker.bgw_type, "carshop_outbox catch-up", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "carshop_outbox",
			sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "carshop_catch_up_main",
			sizeof(worker.bgw_function_name));
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, &report, sizeof(report));

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &process->handle);
	MemoryContextSwitchTo(old);
	if (!started)
		process->handle = NULL;
	process->report = report;
	process->registered_at = worker_steady_now();
	return started;
}

/* False: it has ended, and its place is free. */
static bool
works(Process *process, bool wake)
{
	PGPROC	   *proc;
	pid_t		pid;

	if (process->handle == NULL)
		return false;
	switch (GetBackgroundWorkerPid(process->handle, &pid))
	{
		case BGWH_NOT_YET_STARTED:
			return true;
		case BGWH_STARTED:
			proc = wake ? BackendPidGetProc(pid) : NULL;
			if (proc != NULL)
				SetLatch(&proc->procLatch);
			return true;
		case BGWH_STOPPED:
		case BGWH_POSTMASTER_DIED:
			break;
	}
	pfree(process->handle);
	process->handle = NULL;
	return false;
}

bool
catch_up_want(int64 report)
{
	Process    *free = NULL;

	for (int i = 0; i < MOST_PROCESSES; i++)
	{
		Process    *process = &processes[i];
		bool		mine = process->report == report;

		if (works(process, mine))
		{
			if (mine)
				return true;
		}
		else if (mine && process->registered_at != 0 &&
				 !TimestampDifferenceExceeds(process->registered_at,
											 worker_steady_now(), AGAIN_MS))
			return true;		/* soon */
		else if (free == NULL || mine)
			free = process;
	}
	return free != NULL && start(free, report);
}

int
catch_up_processes(void)
{
	int			n = 0;

	for (int i = 0; i < MOST_PROCESSES; i++)
		n += works(&processes[i], false);
	return n;
}

void
catch_up_end(void)
{
	for (int i = 0; i < MOST_PROCESSES; i++)
	{
		if (works(&processes[i], false))
			TerminateBackgroundWorker(processes[i].handle);
	}
}

/* ------------------------------------------------------------------------
 * The process
 * ------------------------------------------------------------------------
 */

/* One transaction.  Answers when there is more to do in ms; -1: nothing. */
static long
turn(void)
{
	int64		head;
	long		retry_ms = -1;
	bool		reading;

	worker_begin("catching up");
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	reading = progress_reading() == 1;
	if (reading)
	{
		head = event_log_end();
		reports_load(false);	/* locked before its dead letters are, as by
								 * everybody else */
		retry_ms = retry_dead_letters(&head);
		reports_catch_up(head, setting_report_batch_events);
	}
	worker_commit();
	if (!reading)
		proc_exit(0);
	return retry_ms >= 0 ? retry_ms : reports_next_attempt();
}

void
carshop_catch_up_main(Datum arg)
{
	MemoryContext context;
	TimestampTz idle_since = 0;
	int64		report;

	memcpy(&report, MyBgworkerEntry->bgw_extra, sizeof(report));
	worker_start_beside(arg);
	reports_serve_only(report);
	context = AllocSetContextCreate(TopMemoryContext, "carshop_outbox turn",
									ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		TimestampTz now;
		long		wait_ms;

		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		wait_ms = turn();
		now = worker_steady_now();
		if (wait_ms >= 0)
			idle_since = 0;
		else if (idle_since == 0)
			idle_since = now;
		else if (TimestampDifferenceExceeds(idle_since, now, LINGER_MS))
			proc_exit(0);
		worker_show_state(wait_ms < 0 ? "waiting for more to apply" :
						  "catching up");
		(void) worker_wait(-1, wait_ms >= 0 ? wait_ms : LOOK_MS);
	}
}
