/*-------------------------------------------------------------------------
 *
 * shared.h
 *	  Shared memory behind functions, and the wake-up of workers.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * One slot per database, found by oid: taken for a database whose workers are
 * to be started, whose events are written or waited for, given back when the
 * database is dropped and somebody else needs it.  There are
 * carshop_outbox.max_databases of them.  A database without a slot, or a server
 * that does not preload the library, has no workers; its events are stored all
 * the same: the functions that set or report something then do nothing, and
 * those that answer say "nothing known".
 *
 * Locking: see shared.c; no function here needs or leaves a lock held, and none
 * but shared_databases raises an error, so that commit callbacks may call them.
 * No process-local pointer or descriptor is kept in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARED_H
#define SHARED_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"

#define SHARED_MAX_PARTITIONS	64	/* rows of report.stat_reporter per
									 * database */
#define SHARED_TEXT				256
#define SHARED_TOPIC			250

/* A message about trouble, with its remedy; "" when there is none. */
typedef struct SharedTrouble
{
	char		message[SHARED_TEXT];
	char		remedy[SHARED_TEXT];
	char		topic[SHARED_TOPIC];	/* whose it is; "": not one topic's */
	TimestampTz at;
} SharedTrouble;

#define SHARED_BUCKETS			24

/* A histogram of latencies; see worker/latency.h. */
typedef struct SharedLatency
{
	int64		events[SHARED_BUCKETS];
	double		sum;			/* seconds */
} SharedLatency;

#define SHARED_CAUSES			8	/* of failures: KafkaOutcome */
#define SHARED_STATES			11

/* See relay/counters.h.  They outlive the process. */
typedef struct RelayCounters
{
	SharedLatency latency;		/* from COMMIT to Kafka */
	int64		failures[SHARED_CAUSES];
	int64		state_us[SHARED_STATES];	/* up to at ... */
	int			state;			/* ... since when it is in this one; -1: none */
	int64		state_since_us; /* the same as the relay's own clock has it */
	TimestampTz at;
} RelayCounters;

/* What the relay of a database says about itself (outbox.stat_relay). */
typedef struct RelayReport
{
	char		lineage[40];	/* that the following is about; "": none yet */
	char		state[32];
	TimestampTz since;
	bool		stopped;		/* diverged: waits for a person */
	SharedTrouble trouble;		/* why it does not publish now; "" if it does */
	char		broker_warning[SHARED_TEXT];	/* published to all the same:
												 * the broker does not say
												 * that it verifies, or may
												 * not be asked */
	int64		tick;			/* newest tick made */
	int64		confirmed_tick;
	int64		events_published;
	int64		bytes_published;
	int64		transactions;
	double		last_transaction_ms;
	double		settle_ms;
	int64		errors;
	char		last_error[SHARED_TEXT];
	TimestampTz last_error_at;
	RelayCounters counters;
} RelayReport;

/* One partition as the reporter sees it (report.stat_reporter). */
typedef struct PartitionReport
{
	char		topic[250];		/* Kafka's limit is 249 */
	int			partition;
	char		state[32];
	int64		kafka_offset;	/* next to read */
	int64		stable_offset;	/* last stable offset, as last met; -1 unknown */
	int64		high_watermark; /* -1 unknown */
	TimestampTz held_since;		/* an open transaction holds back what stands
								 * behind stable_offset; 0: none does */
	int64		events_applied;
	int64		duplicates;
	int64		skipped;
	int64		dead_letters;
	TimestampTz last_applied_at;
	char		last_error[SHARED_TEXT];
	TimestampTz last_error_at;
} PartitionReport;

typedef struct ReporterReport
{
	char		state[32];
	TimestampTz since;
	TimestampTz proven;			/* all that stood in the topics then
								 * (worker_steady_now()), up to the high
								 * watermarks, has been read; 0: not so */
	SharedTrouble trouble;
	int			catch_up_processes; /* that the reporter has for slow reports */
	int			in_turns;		/* reports without the process that they need */
	SharedLatency latency;		/* from Kafka to the reports; outlives the
								 * process */
	int			n_partitions;
	PartitionReport partitions[SHARED_MAX_PARTITIONS];
} ReporterReport;

extern void shared_install_hooks(void); /* from _PG_init, preloaded only */
extern bool shared_available(void); /* false: library not preloaded */

/* ---- slots ---- */

/* Make sure that the database has a slot.  False: all are taken. */
extern bool shared_reserve(Oid database);

/* The databases that have one, palloc'd, and their number. */
extern Oid *shared_databases(int *n);

/*
 * Give the slot of a dropped database back.  The caller knows that it is
 * dropped: it had a slot, and a catalog snapshot taken after that was seen does
 * not show it.  Nobody can be connected to it any more; while a worker claims it
 * that is still to find out that it is gone, the slot stays.
 */
extern void shared_forget(Oid database);

/* ---- ownership: one relay and one reporter per database ---- */

typedef enum SharedClaim
{
	SHARED_CLAIMED,
	SHARED_TAKEN,				/* a live process already owns the slot */
	SHARED_FULL,				/* no slot for this database */
	SHARED_ASIDE				/* workers are asked to leave it alone now */
} SharedClaim;

/*
 * Once per process, of the database that it is about to connect to.  kind:
 * 'r'elay, 'p' reporter.  Workers call step_aside_claim() and
 * step_aside_release() instead.
 */
extern SharedClaim shared_claim_worker(Oid database, char kind);
extern void shared_release_worker(bool asked_to_leave);
extern int	shared_worker_pid(Oid database, char kind); /* 0: none */

/*
 * A worker has left, or not begun, because it was asked to: no failure.  The
 * launcher takes that when it looks why none runs.
 */
extern void shared_note_left(Oid database, char kind);
extern bool shared_take_left(Oid database, char kind);

/* ---- waking ---- */

/*
 * Wake-ups never make a slot: a worker that has none yet looks once at what is
 * there when it has claimed one, and finds its flag set.
 *
 * The latch is set only if the flag was not: who waits takes the flag first,
 * then looks, then waits.
 */

/* Events of this database may have become visible: sets flag and latch. */
extern void shared_wake_relay(Oid database);

/* The relay takes (and clears) the flag, and learns, if it wants, since when it was set. */
extern bool shared_take_wake(TimestampTz *since);

/*
 * The extension was made or changed: wakes both workers.  They compare the
 * number of such changes, of their own database, with that of their last look.
 */
extern void shared_note_extension(Oid database);
extern uint32 shared_extension_changes(void);

/*
 * Which topics are parked has changed: wakes the relay, which compares the number
 * of such changes with that of its last look.
 */
extern void shared_note_parking(Oid database);
extern uint32 shared_parking_changes(void);

/* Something for the reporter to look at (start, stop, define, retry). */
extern void shared_wake_reporter(Oid database);
extern bool shared_take_reporter_wake(void);
extern bool shared_reporter_wake_waits(void);	/* without taking it */

/*
 * A transaction with events was prepared: the poll timer is needed.  A relay
 * that starts later looks for such transactions anyway.
 */
extern void shared_note_prepared(Oid database);
extern bool shared_prepared_noted(void);
extern void shared_clear_prepared(void);

/* ---- outbox.wait_published ---- */
extern uint64 shared_request_published(Oid database);	/* returns a ticket */
extern bool shared_is_published(Oid database, uint64 ticket);
extern uint64 shared_published_request(void);	/* relay: newest ticket */
extern void shared_set_published(uint64 ticket);	/* relay: answered */

/* ---- the current segment ---- */

/*
 * A word that outbox/segment.c alone reads and writes; 0 until it does.  NULL:
 * no shared memory, or no slot for this database.
 */
extern pg_atomic_uint64 *shared_segment_word(void);

/* ---- where this server comes from ---- */

/*
 * True in a life of the server that has begun from somewhere else: as a standby,
 * or from a backup.  So nothing was written here before that life.
 */
extern bool shared_began_elsewhere(void);

/*
 * A transaction that writes events, of any database.  Call it before the commit.
 * first_writer: the lowest one of this life of the server; 0: none yet.
 */
extern void shared_note_writer(uint64 xid);
extern uint64 shared_first_writer(void);

/* ---- what workers report ---- */
extern void shared_report_relay(const RelayReport *report);
extern bool shared_get_relay(Oid database, int *pid, RelayReport *report);
extern void shared_report_reporter(const ReporterReport *report);
extern bool shared_get_reporter(Oid database, int *pid, ReporterReport *report);

/*
 * ---- what report.rebuild() says about itself (report.stat_reports) ----
 *
 * Sessions do that, not workers: one entry each, of all databases.  Whoever
 * begins ends it, on every way out.
 */
#define SHARED_MAX_REBUILDS		16	/* shown at a time */

typedef struct RebuildReport
{
	Oid			database;
	int			pid;			/* 0: free */
	char		name[SHARED_TEXT];	/* the report's, as far as it goes */
	int64		done;			/* events */
	int64		total;
	TimestampTz since;
} RebuildReport;

extern int	shared_begin_rebuild(const char *name); /* -1: none is free */
extern void shared_note_rebuild(int entry, int64 done, int64 total);
extern void shared_end_rebuild(int entry);

/* Those of a database; answers how many. */
extern int	shared_get_rebuilds(Oid database,
								RebuildReport found[SHARED_MAX_REBUILDS]);

/* When stat_reset() was called (both workers zero their counters after it). */
extern void shared_stat_reset(Oid database, char kind);
extern TimestampTz shared_stat_reset_at(Oid database, char kind);

#endif							/* SHARED_H */
