/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  What the relay and the reporter share: start-up, waiting, transactions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
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
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/worker.h"

#define EXTENSION_VERSION	"1.0"

#define BACKOFF_FIRST_MS	100
#define BACKOFF_MOST_MS		10000

static WorkerKind my_kind;
static bool (*close_function) (void) = NULL;
static bool handles_left = false;
static char *database_settings = NULL;	/* ALTER DATABASE, as at the start */
static char last_logged[512] = "";
static uint32 reloads = 0;

/* --- start-up --- */

static void
pin(const char *name, const char *value)
{
	/* ignore what this release does not know */
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * Above anything that ALTER DATABASE or ALTER ROLE can set: a database's owner
 * could otherwise break the order "durable before visible in Kafka", or stop
 * the worker by a timeout.
 */
static void
pin_settings(void)
{
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		pin("synchronous_commit", "on");
	pin("search_path", "pg_catalog, pg_temp");
	pin("default_transaction_isolation", "read committed");
	pin("default_transaction_read_only", "off");
	pin("default_transaction_deferrable", "off");
	pin("session_replication_role", "origin");
	pin("row_security", "off");
	pin("statement_timeout", "0");
	pin("lock_timeout", "0");
	pin("idle_in_transaction_session_timeout", "0");
	pin("idle_session_timeout", "0");
	pin("transaction_timeout", "0");
	pin("DateStyle", "ISO, YMD");
	pin("IntervalStyle", "postgres");
	pin("TimeZone", "UTC");
	pin("bytea_output", "hex");
	pin("extra_float_digits", "1");
	pin("xmlbinary", "base64");
	pin("jit", "off");
	pin("default_tablespace", "");
	pin("client_min_messages", "warning");
}

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
	shared_release_worker();
}

/* Library threads that did not end must not run through exit handlers. */
static void
leave_at_once(int code, Datum arg)
{
	if (handles_left)
		_exit(1);
}

/* ALTER DATABASE's settings as one text, "" without any. */
static char *
read_database_settings(void)
{
	char	   *text = NULL;
	Oid			types[1] = {OIDOID};
	Datum		values[1];
	MemoryContext old;

	worker_begin(NULL);
	values[0] = ObjectIdGetDatum(MyDatabaseId);
	if (SPI_execute_with_args("SELECT setconfig::pg_catalog.text FROM pg_catalog.pg_db_role_setting"
							  " WHERE setdatabase OPERATOR(pg_catalog.=) $1"
							  " AND setrole OPERATOR(pg_catalog.=) 0::pg_catalog.oid",
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_db_role_setting");
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (SPI_processed > 0)
	{
		char	   *value = SPI_getvalue(SPI_tuptable->vals[0],
										 SPI_tuptable->tupdesc, 1);

		if (value != NULL)
			text = MemoryContextStrdup(TopMemoryContext, value);
	}
	if (text == NULL)
		text = pstrdup("");
	MemoryContextSwitchTo(old);
	worker_commit();
	return text;
}

void
worker_start(WorkerKind kind, Datum arg)
{
	my_kind = kind;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);

	/*
	 * A cancel would end the wait for a synchronous standby: the commit counts
	 * as done then, and the events would be published before they are safe.
	 */
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg),
											  InvalidOid, 0);
	on_proc_exit(leave_at_once, (Datum) 0);
	before_shmem_exit(leave, (Datum) 0);

	if (!shared_claim_worker(MyDatabaseId, kind == WORKER_RELAY ? 'r' : 'p'))
	{
		ereport(LOG,
				(errmsg("%s leaves: another one works for this database",
						MyBgworkerEntry->bgw_name)));
		proc_exit(0);
	}
	pin_settings();
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	database_settings = read_database_settings();
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

bool
worker_extension_ready(void)
{
	bool		ready = false;
	char	   *version = NULL;

	worker_begin(NULL);
	if (SPI_execute("SELECT extversion FROM pg_catalog.pg_extension"
					" WHERE extname OPERATOR(pg_catalog.=) 'carshop_outbox'",
					true, 1) == SPI_OK_SELECT && SPI_processed > 0)
		version = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (version != NULL && strcmp(version, EXTENSION_VERSION) == 0)
		ready = true;
	else if (version != NULL)
		worker_log_change(true,
						  psprintf("extension carshop_outbox has version %s, the library is for %s",
								   version, EXTENSION_VERSION),
						  "Run ALTER EXTENSION carshop_outbox UPDATE in this database.");
	worker_commit();
	return ready;
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
reload(void)
{
	char	   *now;

	ProcessConfigFile(PGC_SIGHUP);
	reloads++;
	if (!still_wanted())
	{
		ereport(LOG,
				(errmsg("%s leaves: the database is not in the setting any more",
						MyBgworkerEntry->bgw_name)));
		proc_exit(0);
	}
	now = read_database_settings();
	if (strcmp(now, database_settings) != 0)
	{
		ereport(LOG,
				(errmsg("%s starts again: settings of the database have changed",
						MyBgworkerEntry->bgw_name)));
		proc_exit(1);
	}
	pfree(now);
}

uint32
worker_reloads(void)
{
	return reloads;
}

int
worker_check(void)
{
	CHECK_FOR_INTERRUPTS();
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
		timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
		both = epoll_create1(EPOLL_CLOEXEC);
		if (timer < 0 || both < 0 ||
			epoll_ctl(both, EPOLL_CTL_ADD, timer, &event) != 0)
			return -1;
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
							   fd, timeout_ms, PG_WAIT_EXTENSION);
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
	SetCurrentStatementStartTimestamp();
	if (activity != NULL)
		pgstat_report_activity(STATE_RUNNING, activity);
	StartTransactionCommand();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
worker_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

/* --- telling --- */

void
worker_show_state(const char *state)
{
	pgstat_report_activity(STATE_IDLE, state);
}

void
worker_log_change(bool trouble, const char *text, const char *hint)
{
	if (strncmp(text, last_logged, sizeof(last_logged) - 1) == 0)
		return;
	strlcpy(last_logged, text, sizeof(last_logged));
	if (text[0] == '\0')
		return;
	ereport(trouble ? WARNING : LOG,
			(errmsg("%s: %s", MyBgworkerEntry->bgw_name, text),
			 hint != NULL && hint[0] != '\0' ? errhint("%s", hint) : 0));
}

long
backoff_next_ms(Backoff *backoff)
{
	int64		delay = BACKOFF_FIRST_MS;

	delay <<= Min(backoff->attempts, 10);
	delay = Min(delay, BACKOFF_MOST_MS);
	if (backoff->attempts < 10)
		backoff->attempts++;
	/* a quarter of jitter, so that servers do not come back in step */
	return delay + (long) (pg_prng_double(&pg_global_prng_state) * delay / 4);
}

void
backoff_reset(Backoff *backoff)
{
	backoff->attempts = 0;
}

/* --- Kafka's settings --- */

KafkaProperties *
worker_kafka_properties(KafkaError *error)
{
	KafkaProperties *props = kafka_properties_new();

	if (props == NULL)
	{
		error->code = 0;
		strlcpy(error->message, "out of memory", sizeof(error->message));
		return NULL;
	}
	if (!kafka_properties_set(props, "bootstrap.servers", setting_brokers, error) ||
		(setting_kafka_config_file[0] != '\0' &&
		 !kafka_properties_read_file(props, setting_kafka_config_file, error)))
	{
		kafka_properties_free(props);
		return NULL;
	}
	return props;
}

/*
 * The workers say themselves, once per change, what is wrong; the library's
 * lines are for those who look closer.
 */
void
worker_kafka_log(void *arg, int syslog_level, const char *text)
{
	ereport(syslog_level <= 4 ? DEBUG1 : DEBUG2,
			(errmsg_internal("%s: librdkafka: %s", MyBgworkerEntry->bgw_name, text)));
}
