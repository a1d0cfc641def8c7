/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  What the relay and the reporter share: start-up, waiting, transactions.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "mutants.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "shared.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/backoff.h"
#include "worker/step_aside.h"
#include "worker/worker.h"

#define BACKOFF_FIRST_MS	100
#define BACKOFF_MOST_MS		10000

static WorkerKind my_kind;
static bool (*close_function) (void) = NULL;
static bool handles_left = false;
static char *stored_settings = NULL;	/* ALTER DATABASE, ALTER ROLE, as at
										 * the start */
static volatile sig_atomic_t cancellable = false;
static char last_logged[512] = "";
static uint32 reloads = 0;

/* --- start-up --- */

/*
 * before_shmem_exit, the last: the transaction has been rolled back, nothing
 * of ours is in anybody's way.
 */
static void
give_slot_up(int code, Datum arg)
{
	step_aside_release();
}

/* before_shmem_exit, the first: close handles while their data is there. */
static void
leave(int code, Datum arg)
{
	if (close_function != NULL)
	{
		bool		(*function) (void) = close_function;

		close_function = NULL;
		if (!function())
			handles_left = true;
	}
}

/* Library threads that did not end must not run through exit handlers. */
static void
leave_at_once(int code, Datum arg)
{
	if (handles_left)
		_exit(1);
}

/*
 * What ALTER DATABASE and ALTER ROLE have stored for this process, as one
 * text; "" without any.  Only a new connection takes it.
 */
static char *
read_stored_settings(void)
{
	char	   *text = NULL;
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2];

	worker_begin(NULL);
	values[0] = ObjectIdGetDatum(MyDatabaseId);
	values[1] = ObjectIdGetDatum(GetSessionUserId());
	if (SPI_execute_with_args("SELECT pg_catalog.string_agg(setdatabase || ' ' || setrole || ' ' || setconfig::pg_catalog.text, ' '"
							  " ORDER BY setdatabase, setrole) FROM pg_catalog.pg_db_role_setting"
							  " WHERE setdatabase IN (0, $1) AND setrole IN (0, $2)",
							  2, types, values, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read pg_db_role_setting");
	text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	text = MemoryContextStrdup(TopMemoryContext, text != NULL ? text : "");
	worker_commit();
	return text;
}

/* Own the slot of the database, or leave. */
static void
claim(WorkerKind kind, Oid database)
{
	switch (step_aside_claim(database, kind == WORKER_RELAY ? 'r' : 'p'))
	{
		case SHARED_CLAIMED:
			return;
		case SHARED_TAKEN:
			ereport(LOG,
					(errmsg("%s leaves: another one works for this database",
							MyBgworkerEntry->bgw_name)));
			break;
		case SHARED_FULL:
			/* the launcher starts nobody before there is room */
			ereport(LOG,
					(errmsg("%s leaves: shared memory has no room for another database",
							MyBgworkerEntry->bgw_name)));
			break;
		case SHARED_ASIDE:
			break;				/* the launcher starts another one soon */
	}
	proc_exit(0);
}

/* Is our database named in the setting, by the name that it has now? */
static bool
still_wanted(void)
{
	bool		found;

	worker_begin(NULL);
	found = worker_database_named(my_kind == WORKER_RELAY ?
								  setting_shop_databases :
								  setting_report_databases);
	worker_commit();
	return found;
}

static void
leave_if_not_wanted(void)
{
	if (still_wanted())
		return;
	ereport(LOG,
			(errmsg("%s leaves: the database is not in the setting any more",
					MyBgworkerEntry->bgw_name)));
	proc_exit(0);
}

/*
 * SIGINT comes from the timer of a statement, from pg_cancel_backend(), and
 * from somebody who needs the database for himself.
 */
static void
interrupt(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (!proc_exit_inprogress)
	{
		if (step_aside_interrupts())
			InterruptPending = ProcDiePending = true;
		else if (cancellable)
			InterruptPending = QueryCancelPending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

void
worker_cancellable(bool yes)
{
	cancellable = yes;
	if (!yes)
		QueryCancelPending = false;
}

static void
take_signals(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);

	/*
	 * A cancel is ignored unless somebody wants it: it would end the wait for
	 * a synchronous standby: the commit counts as done then, and the events
	 * would be published before they are safe.
	 */
	pqsignal(SIGINT, interrupt);
	BackgroundWorkerUnblockSignals();
}

static void
connect_to(Oid database)
{
	step_aside_interruptible(true);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	before_shmem_exit(leave, (Datum) 0);

	worker_pin_connected_settings();
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	stored_settings = read_stored_settings();
	/* the launcher looked for it by name, we connect by oid */
	leave_if_not_wanted();
}

void
worker_start(WorkerKind kind, Datum arg)
{
	Oid			database = DatumGetObjectId(arg);

	my_kind = kind;
	take_signals();
	worker_pin_settings();

	/*
	 * Claimed before it is connected: who needs the database for himself sees
	 * everybody who is or will be in his way.
	 */
	on_proc_exit(leave_at_once, (Datum) 0);
	claim(kind, database);
	before_shmem_exit(give_slot_up, (Datum) 0);
	connect_to(database);
}

void
worker_start_beside(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);

	my_kind = WORKER_REPORTER;
	take_signals();
	worker_pin_settings();
	if (!step_aside_join(database))
		proc_exit(0);
	connect_to(database);
}

void
worker_start_alone(void)
{
	compat_ignore_signal(SIGHUP);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	on_proc_exit(leave_at_once, (Datum) 0);
	before_shmem_exit(leave, (Datum) 0);
}

void
worker_on_exit(bool (*close_handles) (void))
{
	close_function = close_handles;
}

void
worker_leave_handle(void)
{
	handles_left = true;
	ereport(FATAL,
			(errmsg("the Kafka client did not end in time"),
			 errdetail("The worker starts again with a new process.")));
	pg_unreachable();
}

WorkerKind
worker_kind(void)
{
	return my_kind;
}

/* --- waiting --- */

bool
worker_database_named(const char *setting)
{
	char	   *name = get_database_name(MyDatabaseId);
	ListCell   *lc;

	foreach(lc, settings_split(setting))
	{
		if (name != NULL && strcmp(name, lfirst(lc)) == 0)
			return true;
	}
	return false;
}

void
worker_check_stored_settings(void)
{
	char	   *now;

	now = read_stored_settings();
	if (strcmp(now, stored_settings) != 0)
	{
		ereport(LOG,
				(errmsg("%s starts again: settings of the database have changed",
						MyBgworkerEntry->bgw_name)));
		proc_exit(1);
	}
	pfree(now);
}

/* SIGHUP: take the settings, or leave if they are not for us any more. */
static void
reload(void)
{
	Assert(!IsTransactionState());
	ProcessConfigFile(PGC_SIGHUP);
	reloads++;
	leave_if_not_wanted();
	worker_check_stored_settings();
}

uint32
worker_reloads(void)
{
	return reloads;
}

/* Somebody needs the database for himself: the launcher has us back later. */
static void
leave_if_asked(void)
{
	if (!step_aside_asked(MyDatabaseId))
		return;
	ereport(LOG,
			(errmsg("%s leaves: a command needs the database for itself",
					MyBgworkerEntry->bgw_name)));
	proc_exit(0);
}

int
worker_check(void)
{
	if (MUTANT("deaf"))
		ProcDiePending = false;
	CHECK_FOR_INTERRUPTS();
	leave_if_asked();
	worker_check_extension();
	if (!ConfigReloadPending)
		return 0;
	ConfigReloadPending = false;
	reload();
	return WORKER_RELOADED;
}

/*
 * Latches wait in whole milliseconds.  A descriptor that stands for both a
 * timer of microseconds and another descriptor makes the time exact; -1 if
 * the system has none to give.
 */
static int
exact_timer(int fd, int64 timeout_us)
{
	static int	timer = -1;
	static int	both = -1;
	struct itimerspec when;
	struct epoll_event event = {0};

	event.events = EPOLLIN;
	if (both < 0)
	{
		/* all three or none: it is tried again at the next wait */
		timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
		if (timer < 0)
			return -1;
		both = epoll_create1(EPOLL_CLOEXEC);
		if (both < 0 || epoll_ctl(both, EPOLL_CTL_ADD, timer, &event) != 0)
		{
			if (both >= 0)
				close(both);
			close(timer);
			both = timer = -1;
			return -1;
		}
	}
	/* a closed descriptor leaves the set by itself, and its number comes back */
	if (fd >= 0 && epoll_ctl(both, EPOLL_CTL_ADD, fd, &event) != 0 &&
		errno != EEXIST)
		return -1;
	memset(&when, 0, sizeof(when));
	when.it_value.tv_sec = timeout_us / 1000000;
	when.it_value.tv_nsec = timeout_us % 1000000 * 1000;
	if (timerfd_settime(timer, 0, &when, NULL) != 0)
		return -1;
	return both;
}

int64
worker_now_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

TimestampTz
worker_steady_now(void)
{
	struct timespec now;

	/* not instr_time, which need not be the same clock in two processes */
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

int
worker_wait_exactly(int fd, int64 timeout_us)
{
	int			both;

	if (timeout_us <= 0 || timeout_us > 100000 ||
		(both = exact_timer(fd, timeout_us)) < 0)
		return worker_wait(fd, timeout_us < 0 ? -1 : (long) ((timeout_us + 999) / 1000));
	return worker_wait(both, -1);
}

int
worker_wait(int fd, long timeout_ms)
{
	static uint32 wait_event = 0;
	int			events;
	int			result;

	Assert(!IsTransactionState());
	result = worker_check();
	if (result != 0)
		return result;
	events = WaitLatchOrSocket(MyLatch,
							   WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
							   (fd >= 0 ? WL_SOCKET_READABLE : 0) |
							   (timeout_ms >= 0 ? WL_TIMEOUT : 0),
							   fd, timeout_ms,
							   compat_wait_event(&wait_event, my_kind == WORKER_RELAY ?
												 "CarshopRelay" : "CarshopReporter"));
	if (events & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		result |= WORKER_WOKEN;
	}
	if (events & WL_SOCKET_READABLE)
		result |= WORKER_READY;
	if (events & WL_TIMEOUT)
		result |= WORKER_TIMEOUT;
	return result | worker_check();
}

/* --- transactions --- */

void
worker_begin(const char *activity)
{
	Assert(!IsTransactionState());

	/*
	 * in this order: a signal comes before the look, or finds us
	 * interruptible
	 */
	step_aside_interruptible(true);
	leave_if_asked();
	SetCurrentStatementStartTimestamp();
	if (activity != NULL)
		pgstat_report_activity(STATE_RUNNING, activity);
	StartTransactionCommand();

	/*
	 * What Kafka shows must be durable here first, whatever the file or ALTER
	 * DATABASE say now; a stronger setting is kept.  Not pinned: a pin would
	 * hide what a reload changes.
	 */
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		(void) set_config_option("synchronous_commit", "on", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
								 false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
worker_commit(void)
{
	Assert(IsTransactionState());
	SPI_finish();
	PopActiveSnapshot();

	/* what has interrupted us must not end the wait for a standby */
	step_aside_interruptible(false);
	CHECK_FOR_INTERRUPTS();
	CommitTransactionCommand();
	pgstat_report_stat(false);

	/*
	 * The postmaster's death ends the wait for a standby, too, and notes that
	 * we are to die without asking for a look at it (SyncRepWaitForLSN): what
	 * no standby has must not be published meanwhile.
	 */
	if (ProcDiePending && !MUTANT("widowed"))
	{
		InterruptPending = true;
		CHECK_FOR_INTERRUPTS();
	}
}

void
worker_commit_lazily(void)
{
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	worker_commit();
}

/* --- telling --- */

void
worker_show_state(const char *state)
{
	pgstat_report_activity(STATE_IDLE, state);
}

void
worker_log_change(int trouble, const char *text, const char *hint)
{
	if (strncmp(text, last_logged, sizeof(last_logged) - 1) == 0)
		return;
	strlcpy(last_logged, text, sizeof(last_logged));
	if (text[0] == '\0')
		return;
	ereport(trouble != 0 ? WARNING : LOG,
			(trouble != 0 ? errcode(trouble) : 0,
			 errmsg("%s: %s", MyBgworkerEntry->bgw_name, text),
			 hint != NULL && hint[0] != '\0' ? errhint("%s", hint) : 0));
}

long
backoff_next_ms(Backoff *backoff)
{
	int64		delay = backoff_ms(backoff->attempts, BACKOFF_FIRST_MS,
								   BACKOFF_MOST_MS);

	backoff->attempts++;
	/* a quarter of jitter, so that servers do not come back in step */
	return delay + (long) (pg_prng_double(&pg_global_prng_state) * delay / 4);
}

void
backoff_reset(Backoff *backoff)
{
	backoff->attempts = 0;
}
