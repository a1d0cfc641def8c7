/*-------------------------------------------------------------------------
 *
 * machine.h
 *	  The relay's protocol as a pure state machine.
 *
 * Plain C11: no PostgreSQL, no librdkafka, no clock.  The driver asks for the
 * next action, performs it, and gives the result back; time and flags come in
 * as arguments.  So the protocol runs in unit tests, one input after another,
 * exactly as in the server (test/unit/test_machine.c).
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
	RELAY_JUDGE,				/* one event was refused: dead letter */
	RELAY_STOPPED
} RelayState;

typedef enum RelayAction
{
	ACT_WAIT,					/* until wait_until (us, -1: for ever) */
	ACT_OPEN,
	ACT_CLOSE,
	ACT_CHECK,
	ACT_CREATE_PROGRESS_TOPIC,
	ACT_RECORD_BIRTH,
	ACT_READ_PROGRESS,			/* stable when the state is AUTHORITATIVE */
	ACT_COMPARE,				/* look up what PostgreSQL knows of it */
	ACT_INIT,
	ACT_MAKE_TICK,
	ACT_PREPARE_TOPIC,
	ACT_PUBLISH,				/* begin, read, send; limits below */
	ACT_COMMIT,
	ACT_DEAD_LETTER				/* the event at the place */
} RelayAction;

/* How an action went; kafka outcomes have the same names. */
typedef enum RelayOutcome
{
	DONE_OK,
	DONE_PENDING,				/* the same action again */
	DONE_UNREACHABLE,
	DONE_TROUBLE,
	DONE_REFUSED,
	DONE_FENCED,
	DONE_UNCERTAIN,
	DONE_MISCONFIGURED
} RelayOutcome;

/* What the driver tells with a result; only what belongs to the action. */
typedef struct RelayResult
{
	RelayOutcome outcome;
	const char *message;		/* for outcomes other than OK */

	/* ACT_CHECK */
	bool		topic_exists;
	bool		same_cluster;	/* cluster id equals the recorded one, or none is */
	bool		born;			/* a cluster is recorded */
	bool		does_not_verify;

	/* ACT_READ_PROGRESS */
	bool		found;
	bool		readable;
	Progress	progress;

	/* ACT_COMPARE: PostgreSQL's view of progress (see RelayFacts) */
	bool		lineage_matches;
	bool		home_acceptable;	/* same home, an ancestor, or claimed */
	bool		tick_known;		/* exists and the nonce is equal */
	int64_t		confirmed;		/* highest tick known to be confirmed */
	int64_t		start_tick;

	/* ACT_MAKE_TICK */
	bool		paused;
	bool		lineage_changed;
	int64_t		newest_tick;

	/* ACT_COMMIT */
	bool		early;			/* it met the former one's markers */

	/* ACT_PUBLISH */
	bool		need_topic;		/* cut here: the next event's topic is unknown */
	bool		torn;			/* ... and a transaction is half sent */
	int64_t		events;			/* sent in this transaction */
	Progress	reached;		/* where it ends */
} RelayResult;

/* What may have happened since the last call. */
typedef struct RelayInput
{
	int64_t		now;			/* microseconds, monotonic */
	bool		wake;			/* events may be there; consumed when true */
	bool		tainted;		/* the handle has seen a connection failure */
	bool		reload;			/* settings or the lineage may have changed */
	bool		may_poll;		/* prepared transactions exist */
} RelayInput;

typedef struct RelayLimits
{
	int64_t		max_events;
	int64_t		max_bytes;
	int			transaction_timeout_ms;
	int			poll_interval_ms;
	int			linger_ms;
	bool		transactions;	/* false: at_least_once, nothing settles */
	bool		require_verification;
} RelayLimits;

typedef struct RelayMachine
{
	RelayState	state;
	RelayLimits limits;

	bool		open;			/* a handle exists */
	bool		close_first;	/* it must go before anything else */
	int64_t		retry_at;		/* CLOSED: not before */
	int64_t		deadline;		/* of a pending action; 0: none */
	int			attempts;		/* for the back-off */
	int			fenced;			/* times in a row */
	bool		topic_first;	/* a topic is prepared before publishing */

	/* position: everything up to it is in Kafka */
	Progress	place;
	Progress	pending;		/* where the open transaction ends */
	int64_t		pending_events;

	int64_t		newest_tick;
	bool		work;			/* ticks wait to be published */
	bool		wake;			/* a tick may be due */
	int64_t		wake_at;		/* when the wake came (linger) */
	int64_t		ticked_at;		/* last attempt to make one */
	bool		paused;
	bool		restart;		/* settings or the lineage have changed */

	Pace		pace;
	int64_t		settled_at;		/* when the last transaction ended */
	int64_t		began_at;		/* when the open one began */

	/* what the status says */
	char		stop_reason[256];
	char		stop_remedy[256];
	char		trouble[512];
	int64_t		transactions;
	int64_t		events_published;
	int64_t		errors;
	double		last_transaction_ms;
} RelayMachine;

extern void relay_machine_init(RelayMachine *machine, const RelayLimits *limits);
extern void relay_machine_set_limits(RelayMachine *machine,
									 const RelayLimits *limits);

/*
 * The next action.  For ACT_WAIT *wait_until is the latest time to come back,
 * -1 for none.
 */
extern RelayAction relay_machine_next(RelayMachine *machine,
									  const RelayInput *input,
									  int64_t *wait_until);

/* The result of the action that relay_machine_next answered. */
extern void relay_machine_done(RelayMachine *machine, RelayAction action,
							   const RelayResult *result, int64_t now);

/* Everything that was ticked is in Kafka and nothing waits. */
extern bool relay_machine_idle(const RelayMachine *machine);

extern const char *relay_state_name(const RelayMachine *machine);

#endif							/* RELAY_MACHINE_H */
