/*-------------------------------------------------------------------------
 *
 * machine.h
 *	  The relay's protocol as a pure state machine.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11: no PostgreSQL, no librdkafka, no clock.  The driver asks for the
 * next action, performs it, and gives the result back; time and flags come in
 * as arguments.  So the protocol runs in unit tests, one input after another,
 * exactly as in the server (test/unit/test_machine.c, test_histories.c).
 *
 * The machine owns what it decides on: the position, what is confirmed, the
 * claim, the lineage it works for, and the health that log and status tell.
 * Actions carry all that their performer needs to know of it; results carry
 * facts and no judgement.
 *
 * States
 *
 *   CLOSED --open--> CHECK --> ADVISORY --> INIT --> AUTHORITATIVE --> COMPARE
 *      ^                                                                  |
 *      |                 (uncertain, refused, tainted, fenced)            v
 *      +--- BACKOFF <-------------------------------------------------- READY
 *                                                                       ^  |
 *                          settle pause <-- COMMIT <-- PUBLISH <--------+--+
 *
 *   STOPPED: a contradiction that only a person can resolve (I13); nothing is
 *   fenced while stopped.  PAUSED: outbox.pause().
 *
 * The order matters (doc/ARCHITECTURE.md): the advisory read comes before
 * init_transactions, so that a copy of the database stops without touching the
 * original's producer; the authoritative read comes after it, when no
 * transaction of ours can be open any more: read earlier, an EndTxn still under
 * way would be missed and its events published twice (test/model/relay.pml,
 * READ_FIRST).
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_MACHINE_H
#define RELAY_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "kafka/kafka.h"
#include "relay/health.h"
#include "relay/pace.h"
#include "relay/progress.h"

typedef enum RelayState
{
	RELAY_CLOSED,				/* no handle; may begin at retry_at */
	RELAY_CHECK,				/* the cluster and the progress topic */
	RELAY_CREATE,				/* the progress topic of a newborn lineage */
	RELAY_BORN,					/* to be recorded in PostgreSQL */
	RELAY_ADVISORY,
	RELAY_ADVISORY_COMPARE,
	RELAY_INIT,
	RELAY_AUTHORITATIVE,
	RELAY_COMPARE,
	RELAY_READY,
	RELAY_TOPIC,				/* a topic of events to be looked up or made */
	RELAY_PUBLISH,
	RELAY_COMMIT,
	RELAY_HOME,					/* the new home to be recorded in PostgreSQL */
	RELAY_JUDGE,				/* one event was refused: dead letter */
	RELAY_STOPPED
} RelayState;

/* What people are shown of it: outbox.stat_relay, time by state. */
typedef enum RelayShown
{
	SHOWN_CONNECTING,
	SHOWN_RECOVERING,
	SHOWN_IDLE,
	SHOWN_PUBLISHING,
	SHOWN_PAUSED,
	SHOWN_PREPARING_TOPIC,
	SHOWN_WAITING_KAFKA,
	SHOWN_WAITING_TOPIC,
	SHOWN_WAITING_STANDBY,
	SHOWN_STORING_DEAD_LETTER,
	SHOWN_STOPPED
} RelayShown;

#define RELAY_SHOWN_STATES	(SHOWN_STOPPED + 1)

typedef enum RelayActionKind
{
	ACT_WAIT,					/* until wait_until */
	ACT_OPEN,					/* read the lineage's row, make a handle */
	ACT_CLOSE,
	ACT_CHECK,
	ACT_CREATE_PROGRESS_TOPIC,
	ACT_RECORD_BIRTH,
	ACT_READ_PROGRESS,
	ACT_COMPARE,				/* what does PostgreSQL know of record, other? */
	ACT_INIT,
	ACT_MAKE_TICK,
	ACT_PREPARE_TOPIC,
	ACT_PUBLISH,				/* begin, read, send */
	ACT_COMMIT,
	ACT_RECORD_HOME,			/* this home owns the lineage; the claim is
								 * used */
	ACT_RECORD_CONFIRMED,
	ACT_TIDY,					/* what is in Kafka leaves the outbox */
	ACT_UNPARK,					/* what is aside of a topic becomes a tick */
	ACT_DEAD_LETTER,
	ACT_LOOK					/* stopped: what does the lineage's row say? */
} RelayActionKind;

/* An event that was judged: the broker refuses it, or it cannot be read. */
typedef struct RelayRefusal
{
	int64_t		seq;
	int64_t		tick;
	char		reason[HEALTH_TEXT];
} RelayRefusal;

typedef struct RelayAction
{
	RelayActionKind kind;
	int64_t		wait_until;		/* WAIT: microseconds; -1: for ever */
	bool		stable;			/* READ_PROGRESS: no transaction may be open */

	/*
	 * COMPARE: the record found in Kafka, NULL: none.  PUBLISH: the place
	 * from which to go on.  COMMIT: where the open transaction ends.
	 */
	const Progress *record;
	const Progress *other;		/* COMPARE: a newer one of another lineage */
	bool		record_only;	/* PUBLISH: no events, only the record */
	int64_t		through_tick;	/* PUBLISH: none beyond this one */
	int64_t		max_events;		/* PUBLISH: no other transaction of the */
	int64_t		max_bytes;		/* database is begun beyond this */
	int64_t		part_events;	/* PUBLISH: a single one is cut here, */
	int64_t		part_bytes;		/* any at twice these bytes */
	int64_t		confirmed;		/* MAKE_TICK, RECORD_CONFIRMED, TIDY, UNPARK:
								 * a tick */
	const RelayRefusal *refusal;	/* DEAD_LETTER */
} RelayAction;

/* How an action went, and the facts that it found; only what belongs to it. */
typedef struct RelayResult
{
	KafkaOutcome outcome;
	int			kind;			/* for outcomes other than OK: see health.h */
	const char *message;		/* may be NULL or "" */
	const char *remedy;			/* the same; with PENDING: waiting is in vain */
	const char *topic;			/* the same: whose trouble it is */
	bool		timed_out;		/* the broker ended the transaction for its
								 * age */

	/*
	 * OPEN, COMPARE, MAKE_TICK, RECORD_BIRTH, RECORD_HOME, LOOK, UNPARK: the
	 * row
	 */
	const char *lineage;
	bool		claimed;
	bool		paused;

	/* OPEN, COMPARE, MAKE_TICK, UNPARK: what PostgreSQL knows */
	int64_t		newest_tick;
	int64_t		confirmed;		/* highest tick recorded as confirmed */
	int64_t		start_tick;

	/* OPEN, UNPARK */
	bool		leaving;		/* a parked topic is to be published again */

	/* CHECK, READ_PROGRESS */
	bool		topic_exists;	/* as one broker says */

	/* CHECK */
	bool		same_cluster;	/* cluster id equals the recorded one, or none
								 * is */
	bool		born;			/* a cluster is recorded */
	bool		does_not_verify;
	bool		reopen;			/* the handle does not fit the topics' limits */

	/* READ_PROGRESS */
	bool		found;			/* a record under this lineage's key */
	bool		readable;
	Progress	progress;
	bool		other_found;	/* a newer record of another lineage */
	Progress	other;

	/* COMPARE */
	bool		lineage_matches;	/* the record's is the row's */
	bool		home_same;		/* home of record (without one: row) is ours */
	bool		home_descends;	/* or one on a timeline that ours comes from */
	bool		tick_known;		/* exists and the nonce is equal */
	bool		other_home_same;
	bool		home_later;		/* or one on a later timeline of this system */
	bool		common_known;	/* Kafka knows more: up to where it is the */
	int64_t		common_tick;	/* same, by the newest tick and the highest */
	int64_t		common_seq;		/* seq; 0: no event is kept */

	/* MAKE_TICK */
	uint64_t	ticket;			/* newest of outbox.wait_published before it */

	/* RECORD_CONFIRMED */
	bool		recorded;		/* false: somebody holds the row */

	/* TIDY */
	int64_t		tidy_ms;		/* until the next step; see outbox/tidy.h */

	/* COMMIT */
	bool		early;			/* it met the former one's markers */

	/* COMMIT, PUBLISH with REFUSED */
	bool		own_record;		/* the progress record was refused, no event */

	/* PUBLISH */
	bool		need_topic;		/* cut here: the next event's topic is unknown */
	bool		torn;			/* ... and a transaction is half sent */
	bool		unreadable;		/* cut here: the next event cannot be read,
								 * torn as above; */
	int64_t		unreadable_seq; /* message says why */
	int64_t		unreadable_tick;
	int64_t		events;			/* sent in this transaction */
	int64_t		aside;			/* of parked topics, not sent */
	bool		alone;			/* all of one transaction of the database */
	int64_t		last_seq;		/* of the last event sent or refused */
	Progress	reached;		/* where it ends */
} RelayResult;

/* What may have happened since the last call. */
typedef struct RelayInput
{
	int64_t		now;			/* microseconds, monotonic */
	bool		wake;			/* events may be there; consumed when true */
	bool		tainted;		/* the handle has seen a connection failure */
	bool		restart;		/* what a handle is made of has changed */
	bool		retry;			/* somebody asks to try again at once */
	bool		may_poll;		/* prepared transactions exist */
	bool		hold;			/* publish only what standbys have: */
	int64_t		safe_tick;		/* up to this tick */
} RelayInput;

typedef struct RelayLimits
{
	int64_t		max_events;
	int64_t		max_bytes;
	int			transaction_timeout_ms;
	int			poll_interval_ms;
	int			linger_ms;
	int			standbys;		/* publish what so many have; see safe_tick */
	bool		transactions;	/* false: at_least_once, nothing settles */
	bool		require_verification;
} RelayLimits;

/* Tickets of outbox.wait_published, and the tick that covers each. */
#define RELAY_TICKETS	8

typedef struct RelayTicket
{
	uint64_t	ticket;
	int64_t		tick;
} RelayTicket;

typedef struct RelayMachine
{
	RelayState	state;
	RelayLimits limits;

	bool		open;			/* a handle exists */
	bool		close_first;	/* it must go before anything else */
	int64_t		retry_at;		/* CLOSED, TOPIC: not before */
	int64_t		deadline;		/* of a pending action; 0: none */
	int			attempts;		/* for the back-off */
	int			fenced;			/* times, see fenced_at */
	int64_t		fenced_at;
	bool		topic_first;	/* a topic is prepared before publishing */

	/* who it works for */
	char		lineage[40];	/* "": not read yet */
	bool		claimed;		/* outbox.claim() was called and is not used */
	bool		settle_home;	/* the record in Kafka names another home */
	bool		settle_place;	/* ... is behind: dead letters only since */
	bool		restart;		/* begin anew: other settings, other lineage */

	/* position: everything up to place is in Kafka, or judged */
	bool		position_known; /* place was read from Kafka for this lineage */
	Progress	place;
	Progress	pending;		/* found in Kafka, or where the open one ends */
	Progress	other;			/* newer than pending, of another lineage */
	bool		found;			/* pending was found in Kafka */
	bool		other_found;
	bool		record_only;	/* the open transaction holds no event */
	int64_t		pending_events;
	bool		pending_alone;
	int64_t		pending_seq;	/* its last event */
	RelayRefusal refusal;

	int64_t		newest_tick;
	int64_t		confirmed;		/* highest tick known to be in Kafka */
	int64_t		recorded;		/* ... as PostgreSQL has it */
	int64_t		record_at;		/* RECORD_CONFIRMED: not before */
	int64_t		tidy_at;		/* TIDY: not before; -1: never */
	int			tidy_tries;		/* that were blocked */
	bool		leaving;		/* UNPARK is due when all is in Kafka */
	int64_t		unpark_at;		/* not before */
	int64_t		safe_tick;		/* newest that may be published */
	int64_t		standby_since;	/* work waits for standbys; 0: it does not */
	bool		tidied;			/* since the last tick or publication */
	bool		ticked;			/* since the last publication */
	bool		wake;			/* a tick may be due */
	int64_t		wake_at;		/* when the wake came (linger) */
	int64_t		ticked_at;		/* last attempt to make one */
	int64_t		looked_at;		/* STOPPED: last look at the lineage's row */
	bool		paused;

	RelayTicket tickets[RELAY_TICKETS]; /* not answered, ascending */
	int			n_tickets;
	uint64_t	answered;		/* the newest ticket that is answered */

	Pace		pace;
	int64_t		settled_at;		/* when the last transaction ended */
	int64_t		began_at;		/* when the open one began */

	/* a contradiction that one answer is not believed about */
	const char *doubt;			/* its reason; NULL: none */
	int			doubts;
	int64_t		doubt_since;

	/* what log and status say */
	RelayHealth health;
	int64_t		unready_since;	/* 0: ready */
	int64_t		transactions;
	int64_t		events_published;
	int64_t		errors;
	double		last_transaction_ms;
} RelayMachine;

extern void relay_machine_init(RelayMachine *machine, const RelayLimits *limits);
extern void relay_machine_set_limits(RelayMachine *machine,
									 const RelayLimits *limits);

/*
 * The next action.  What it points to stays valid until relay_machine_done.
 */
extern void relay_machine_next(RelayMachine *machine, const RelayInput *input,
							   RelayAction *action);

/* The result of the action that relay_machine_next answered. */
extern void relay_machine_done(RelayMachine *machine, const RelayAction *action,
							   const RelayResult *result, int64_t now);

/* Everything that was ticked is in Kafka and nothing waits. */
extern bool relay_machine_idle(const RelayMachine *machine);

/* What the log is to be told; see health_news. */
extern HealthNews relay_machine_news(RelayMachine *machine, int64_t now);

extern RelayShown relay_machine_shown(const RelayMachine *machine);
extern const char *relay_shown_name(RelayShown shown);

#endif							/* RELAY_MACHINE_H */
