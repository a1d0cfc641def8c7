/*-------------------------------------------------------------------------
 *
 * step_aside.c
 *	  Workers leave a database that a command needs for itself, and come back.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * DROP DATABASE and the like fail as long as somebody is connected
 * (CountOtherDBBackends, procarray.c).  Of a worker that only gets in the way.
 *
 * A question is an entry {database, pid} in a table in shared memory.  While it
 * stands no worker can claim the database, so none connects: a worker claims
 * before it connects.  One that is there already leaves:
 *
 *	  between two transactions, in worker_check() and worker_begin(), quietly,
 *	  by proc_exit(0): the launcher holds its handle and is told by the
 *	  postmaster; for a moment that is all that happens;
 *
 *	  who has not left after POLITE_MS has long SQL to do, or waits for a lock.
 *	  SIGINT ends it as SIGTERM would, at the next CHECK_FOR_INTERRUPTS();
 *
 *	  not while it commits.  SIGTERM would end the wait for a synchronous
 *	  standby there and take the commit as done (SyncRepWaitForLSN).  The worker
 *	  stays then, and the command fails as it does with any other session.
 *
 * In each case the Kafka handle is closed, an open Kafka transaction aborted, an
 * SQL transaction rolled back: what a start after a crash is made for, and less.
 *
 * PostgreSQL 19 can do the like: CountOtherDBBackends() has the postmaster send
 * SIGTERM to workers that are BGWORKER_INTERRUPTIBLE.  Ours are not.  That does
 * not spare the commit; it does not keep the launcher from starting the worker
 * again under the command's hands, nor tell it when the command is over; and
 * 15 to 18 need all of this anyway.
 *
 * Locking
 * - The table and the launcher's place change under aside->lock (LWLock).  It is
 *   taken before shared->lock, never the other way round: a claim holds both, so
 *   whoever has entered a question sees in shared memory all who claimed before,
 *   and all others see the question.
 * - n_asks is the number of entries, for workers that look all the time; news is
 *   a flag.  The handler of SIGINT reads the table without the lock: it can be
 *   wrong about somebody who asks or ends at this very moment, and then the
 *   worker leaves and comes back for nothing.
 * - An entry is taken back when its transaction ends, which covers errors and a
 *   session that is terminated (ShutdownPostgres aborts).  One whose process is
 *   gone all the same does not count.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "shared.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "worker/step_aside.h"
#include "worker/worker.h"

/* How long a worker may take to end; a Kafka handle that hangs has three seconds. */
#define STEP_ASIDE_MOST_MS	5000
#define POLITE_MS			300
#define LOOK_MS				10

typedef struct Ask
{
	Oid			database;
	int			pid;			/* who asks; 0: a free entry */
	int			level;			/* of nested transactions */
} Ask;

typedef struct Aside
{
	LWLock	   *lock;
	pg_atomic_uint32 n_asks;
	pg_atomic_uint32 news;
	int			launcher;		/* its pid; 0: none */
	int			launcher_pgprocno;
	int			size;
	Ask			asks[FLEXIBLE_ARRAY_MEMBER];
} Aside;

static Aside *aside = NULL;
static bool asking = false;		/* this process has entries */
static bool look_again = false; /* tell the launcher at the end */

/* of a worker */
static Oid	my_database = InvalidOid;
static volatile sig_atomic_t interruptible = false;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* --- shared memory --- */

static Size
aside_size(void)
{
	return add_size(offsetof(Aside, asks), mul_size(MaxBackends, sizeof(Ask)));
}

static void
aside_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(aside_size()));
	RequestNamedLWLockTranche("carshop_outbox_aside", 1);
}

static void
aside_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	aside = ShmemInitStruct("carshop_outbox_aside", aside_size(), &found);
	if (!found)
	{
		memset(aside, 0, aside_size());
		aside->lock = &GetNamedLWLockTranche("carshop_outbox_aside")->lock;
		aside->size = MaxBackends;
		pg_atomic_init_u32(&aside->n_asks, 0);
		pg_atomic_init_u32(&aside->news, 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* --- the table --- */

/* Only a crash leaves entries of the dead, and empties shared memory. */
static bool
stands(const Ask *ask)
{
	return ask->pid != 0 && BackendPidGetProc(ask->pid) != NULL;
}

static bool
asked(Oid database)
{
	Assert(LWLockHeldByMe(aside->lock));
	if (pg_atomic_read_u32(&aside->n_asks) == 0)
		return false;
	for (int i = 0; i < aside->size; i++)
	{
		if (aside->asks[i].database == database && stands(&aside->asks[i]))
			return true;
	}
	return false;
}

bool
step_aside_asked(Oid database)
{
	bool		answer;

	if (aside == NULL || pg_atomic_read_u32(&aside->n_asks) == 0)
		return false;
	LWLockAcquire(aside->lock, LW_SHARED);
	answer = asked(database);
	LWLockRelease(aside->lock);
	return answer;
}

/* False: no room, which takes a server full of renames. */
static bool
enter(Oid database)
{
	Ask		   *entry = NULL;

	LWLockAcquire(aside->lock, LW_EXCLUSIVE);
	for (int i = 0; i < aside->size && entry == NULL; i++)
	{
		if (aside->asks[i].pid == 0)
			entry = &aside->asks[i];
	}
	if (entry != NULL)
	{
		entry->database = database;
		entry->pid = MyProcPid;
		entry->level = GetCurrentTransactionNestLevel();
		pg_atomic_fetch_add_u32(&aside->n_asks, 1);
		asking = true;
	}
	LWLockRelease(aside->lock);
	return entry != NULL;
}

/* Take back what was asked on this level of nesting and below. */
static void
take_back(int level)
{
	asking = false;
	LWLockAcquire(aside->lock, LW_EXCLUSIVE);
	for (int i = 0; i < aside->size; i++)
	{
		Ask		   *ask = &aside->asks[i];

		if (ask->pid != MyProcPid)
			continue;
		if (ask->level < level)
			asking = true;
		else
		{
			memset(ask, 0, sizeof(*ask));
			pg_atomic_fetch_sub_u32(&aside->n_asks, 1);
		}
	}
	LWLockRelease(aside->lock);
}

static void
tell_launcher(void)
{
	pg_atomic_write_u32(&aside->news, 1);
	LWLockAcquire(aside->lock, LW_SHARED);
	if (aside->launcher != 0)
		SetLatch(&ProcGlobal->allProcs[aside->launcher_pgprocno].procLatch);
	LWLockRelease(aside->lock);
}

/*
 * What the transaction did is visible by now, and its locks are still held: a
 * worker that starts at once waits for them in InitPostgres().  Must not raise an
 * error.  ALTER DATABASE SET TABLESPACE commits in its middle, and again at its
 * end; its lock outlives the first.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (asking)
	{
		take_back(0);
		look_again = true;
	}
	if (look_again)
		tell_launcher();
	look_again = false;
}

/* A subtransaction's locks go when it aborts. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine,
					  SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (!asking)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		take_back(level);
		tell_launcher();
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		LWLockAcquire(aside->lock, LW_EXCLUSIVE);
		for (int i = 0; i < aside->size; i++)
		{
			Ask		   *ask = &aside->asks[i];

			if (ask->pid == MyProcPid && ask->level >= level)
				ask->level = level - 1;
		}
		LWLockRelease(aside->lock);
	}
}

void
step_aside_install(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = aside_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = aside_startup;
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* --- the session that runs the command --- */

/*
 * Is the worker of this kind still there?  It is until it has left the process
 * array, a moment after it has given up the slot: *pid is who it was.
 */
static bool
is_there(Oid database, char kind, int *pid)
{
	int			now = shared_worker_pid(database, kind);

	if (now != 0)
		*pid = now;
	return now != 0 || (*pid != 0 && BackendPidGetProc(*pid) != NULL);
}

/* Have it look; or, when that has not helped, interrupt it. */
static void
nudge(int pid, bool interrupt)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	if (interrupt)
		(void) kill(pid, SIGINT);	/* as pg_cancel_backend() does */
	else if (proc != NULL)
		SetLatch(&proc->procLatch);
}

void
step_aside_ask(Oid database)
{
	static const char kinds[] = {'r', 'p'};
	TimestampTz began = worker_steady_now();
	int			pids[lengthof(kinds)] = {0};
	int			nudged = 0;

	if (aside == NULL || !enter(database))
		return;
	for (;;)
	{
		long		passed = TimestampDifferenceMilliseconds(began, worker_steady_now());
		static uint32 wait_event = 0;
		bool		nudge_now = nudged == 0 || (nudged == 1 && passed >= POLITE_MS);
		bool		there = false;

		for (int i = 0; i < lengthof(kinds); i++)
		{
			if (!is_there(database, kinds[i], &pids[i]))
				continue;
			there = true;
			if (nudge_now)
				nudge(pids[i], nudged > 0);
		}
		if (nudge_now)
			nudged++;
		if (!there || passed >= STEP_ASIDE_MOST_MS)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT,
						 LOOK_MS, compat_wait_event(&wait_event, "CarshopStepAside"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
step_aside_look_again(void)
{
	look_again = aside != NULL;
}

/* --- workers --- */

SharedClaim
step_aside_claim(Oid database, char kind)
{
	SharedClaim claim;

	my_database = database;
	if (aside == NULL)
		return shared_claim_worker(database, kind);
	LWLockAcquire(aside->lock, LW_SHARED);
	if (asked(database))
	{
		shared_note_left(database, kind);
		claim = SHARED_ASIDE;
	}
	else
		claim = shared_claim_worker(database, kind);
	LWLockRelease(aside->lock);
	return claim;
}

bool
step_aside_join(Oid database)
{
	my_database = database;
	return !step_aside_asked(database);
}

/* However it ends, one that was asked to is no failure. */
void
step_aside_release(void)
{
	shared_release_worker(step_aside_asked(my_database));
}

void
step_aside_interruptible(bool yes)
{
	interruptible = yes;
}

bool
step_aside_interrupts(void)
{
	if (!interruptible || aside == NULL)
		return false;
	for (int i = 0; i < aside->size; i++)
	{
		if (aside->asks[i].pid != 0 && aside->asks[i].database == my_database)
			return true;
	}
	return false;
}

/* --- the launcher --- */

static void
launcher_ends(int code, Datum arg)
{
	LWLockAcquire(aside->lock, LW_EXCLUSIVE);
	aside->launcher = 0;
	LWLockRelease(aside->lock);
}

void
step_aside_attend(void)
{
	LWLockAcquire(aside->lock, LW_EXCLUSIVE);
	aside->launcher = MyProcPid;
	aside->launcher_pgprocno = MyProc - ProcGlobal->allProcs;
	LWLockRelease(aside->lock);
	before_shmem_exit(launcher_ends, (Datum) 0);
}

bool
step_aside_news(void)
{
	return pg_atomic_exchange_u32(&aside->news, 0) != 0;
}
