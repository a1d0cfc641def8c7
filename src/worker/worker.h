/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  What the launcher, the relay and the reporter share: registration,
 *	  start-up, the one wait point, transactions, back-off, log discipline.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Rules (reference: PostgreSQL's worker_spi, logical/worker.c)
 * - A worker sleeps only in worker_wait().
 * - No transaction is open while it waits.
 * - It ends with proc_exit(0) when it is not wanted and with 1, by an error or
 *   a signal, when it is to be started again; anything else would restart the
 *   whole server (postmaster.c, CleanupBackgroundWorker).  The postmaster starts
 *   neither again (BGW_NEVER_RESTART): the launcher does, as long as the
 *   settings name the database.
 * - Each commit is synchronous, unless the transaction says otherwise itself.
 * - Kafka trouble is handled inside the worker; an SQL error ends it.
 * - It leaves when a command needs its database alone (step_aside.c); worker_check
 *   and worker_begin see to that.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_H
#define WORKER_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "kafka/kafka.h"

typedef enum WorkerKind
{
	WORKER_RELAY,
	WORKER_REPORTER
} WorkerKind;

/* Library entry points of the background workers (see launcher.c). */
extern PGDLLEXPORT void carshop_launcher_main(Datum arg);
extern PGDLLEXPORT void carshop_relay_main(Datum arg);
extern PGDLLEXPORT void carshop_reporter_main(Datum arg);

/* Register the launcher with the postmaster; from _PG_init only. */
extern void worker_register_launcher(void);

/*
 * First call of a database worker: signals, pinned settings, ownership of the
 * slot in shared memory of the database whose oid stands in arg, connection to
 * it.  Does not return when another live worker of the kind owns the slot, when
 * a command needs the database for itself, or when the setting does not name it.
 */
extern void worker_start(WorkerKind kind, Datum arg);

/*
 * Instead of that, for a process that needs no database and no slot: signals
 * (SIGTERM sets ShutdownRequestPending), and the clean-up of worker_on_exit().
 */
extern void worker_start_alone(void);

/*
 * Instead of that, for a process that a reporter has started for its database:
 * the same without a slot.  The reporter ends it when it ends itself.
 */
extern void worker_start_beside(Datum arg);

/* What worker_start() was told. */
extern WorkerKind worker_kind(void);

/*
 * Settings above what the file, ALTER DATABASE and ALTER ROLE say, for good
 * (pins.c says which and why).  The first before the connection is made, the
 * second right after; the launcher calls the first only.
 */
extern void worker_pin_settings(void);
extern void worker_pin_connected_settings(void);

/*
 * In a session that executes a report's statement: the settings that decide what
 * it gives, as the workers have them, until the GUC nest level ends.
 */
extern void session_pin_settings(void);

/* Does a setting's comma list name this database?  Needs a transaction. */
extern bool worker_database_named(const char *setting);

/*
 * Wait, quietly, until the extension is there and of the version that this
 * library was built for.  Shows that as the worker's state, and goes on as soon
 * as CREATE or ALTER EXTENSION is committed.
 */
extern void worker_wait_for_extension(void);

/*
 * Part of worker_check(): a worker that runs leaves, to wait as above, when the
 * extension has been changed into a version that does not fit.
 */
extern void worker_check_extension(void);

/*
 * Leave, to start again, if ALTER DATABASE or ALTER ROLE have stored something
 * else for this process since it began: only a new connection takes that.
 */
extern void worker_check_stored_settings(void);

/*
 * The library's own version, and what makes objects of a version fit it (NULL:
 * they do).
 */
extern const char *worker_library_version(void);
extern const char *worker_version_remedy(const char *objects);

/*
 * May a cancel (a statement's timer, pg_cancel_backend) end the statement that
 * runs?  Not unless somebody catches that, and never a commit.
 */
extern void worker_cancellable(bool yes);

/* Bits answered by worker_wait. */
#define WORKER_WOKEN	0x01	/* the latch was set */
#define WORKER_READY	0x02	/* the descriptor is readable */
#define WORKER_TIMEOUT	0x04	/* the time is over */
#define WORKER_RELOADED 0x08	/* settings were read again */

/*
 * The one wait point: the latch, the postmaster's death, a descriptor (-1:
 * none) and a time in ms (-1: for ever).  Serves interrupts before and after,
 * so SIGTERM ends the worker here; reads the configuration after SIGHUP.
 * Must not be called inside a transaction.
 */
extern int	worker_wait(int fd, long timeout_ms);

/*
 * The same with a time in microseconds, kept exactly up to 100 ms.  Does not
 * tell what has ended the wait.
 */
extern int	worker_wait_exactly(int fd, int64 timeout_us);

/* Serve interrupts and reload without waiting; same bits. */
extern int	worker_check(void);

/* A monotonic clock in microseconds; its zero means nothing. */
extern int64 worker_now_us(void);

/*
 * For how long something takes, and when something is due: a clock that nobody sets,
 * the same one in all processes of the server.  In microseconds, for the functions
 * on timestamps; nothing to be shown.
 */
extern TimestampTz worker_steady_now(void);

/* How often settings were read again; for those who wait in several places. */
extern uint32 worker_reloads(void);

/*
 * A transaction with a fresh snapshot pushed and SPI connected, and its end.
 * Its beginning may end the process, when it is asked to leave.  Its commit waits
 * for the disk, and for synchronous standbys as the setting says.  Both change the
 * current memory context, and its end does not restore it.
 */
extern void worker_begin(const char *activity);
extern void worker_commit(void);

/*
 * Commit without waiting for disk or standbys, so that no lock is held through
 * such a wait: for what may be lost in a crash, since it is done again.
 */
extern void worker_commit_lazily(void);

/* State shown in pg_stat_activity (query) and the status views. */
extern void worker_show_state(const char *state);

/*
 * Log once per change of state: emits text at LOG, or as a WARNING with the
 * SQLSTATE trouble if that is not 0, only if it differs from the last text of
 * this worker.  "" clears.
 */
extern void worker_log_change(int trouble, const char *text, const char *hint);

/* backoff_ms() with jitter: 100 ms doubling to 10 s, and up to a quarter more. */
typedef struct Backoff
{
	int			attempts;
} Backoff;

extern long backoff_next_ms(Backoff *backoff);
extern void backoff_reset(Backoff *backoff);

/*
 * Kafka's connection properties from the settings (brokers, config file).
 * NULL with error filled when they cannot be used.  Caller frees.  From now on
 * the files that they name are watched.
 */
extern KafkaProperties *worker_kafka_properties(KafkaError *error);

/*
 * A palloc'd digest of what the Kafka handles of this worker are made of:
 * settings and the content of kafka_config_file.  Equal before and after a
 * reload, and none of the files that it names is replaced: the handles can stay.
 * Take it before a handle is opened, outside of transactions.
 */
extern char *worker_kafka_fingerprint(void);

/*
 * Was a file replaced (certificate, key, token) that the newest handle was made
 * of?  True once for a change.  Looks once a second at most, and believes what it
 * has seen twice; at_once: now.
 */
extern bool worker_kafka_files_replaced(bool at_once);

/* Microseconds until the next look; -1: there is nothing to look at. */
extern int64 worker_kafka_files_due(void);

/* A KafkaLogFunc that maps syslog levels to ours and keeps the rate bounded. */
extern void worker_kafka_log(void *arg, int syslog_level, const char *text);

/*
 * Register a close function for Kafka handles, called when the process ends
 * (before_shmem_exit) however it ends.  One per worker.  If it returns false
 * the process leaves by _exit(1) after PostgreSQL's own clean-up is done.
 */
extern void worker_on_exit(bool (*close_handles) (void));

/*
 * A handle did not end in time and was left behind: end this process, by
 * _exit(1) in the end, so that the library's threads run through no clean-up.
 */
extern void worker_leave_handle(void) __attribute__((noreturn));

#endif							/* WORKER_H */
