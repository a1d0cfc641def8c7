/*-------------------------------------------------------------------------
 *
 * setback.c
 *	  The relay's state machine: what follows when something did not succeed.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Back to CLOSED after a pause, or to a stop that only a person ends.
 *
 *-------------------------------------------------------------------------
 */
#include "mutants.h"
#include "relay/machine_internal.h"

#include <stdio.h>
#include <string.h>

#include "worker/backoff.h"

#define BACKOFF_FIRST	100		/* ms */
#define BACKOFF_MOST	5000
#define ANSWER_DEADLINE	MS(60000)	/* of an action that is still pending */
#define COMMIT_GRACE	5000	/* ms that a commit may take beyond Kafka's
								 * limit */

/* Fenced so often within that time: somebody else works for the lineage. */
#define FENCED_PAUSE	MS(2000)
#define FENCED_MEMORY	MS(600000)

/* One answer of one broker does not decide: a contradiction must persist. */
#define DOUBTS_LEAST	5
#define DOUBT_LASTS		MS(10000)

#define REMEDY_SILENT \
	"Check that Kafka's brokers are up and that enough replicas are in sync (min.insync.replicas); events are kept and will be published."
#define REMEDY_FENCED \
	"Look for another server that publishes with the same transactional.id (a copy of this one?); on the copy: SELECT outbox.start_lineage();"
#define REMEDY_DOUBT \
	"It is looked at again; if it stays so, the relay stops and names the way on."

/* ------------------------------------------------------------------------
 * Ways back
 * ------------------------------------------------------------------------
 */

/* Tells one reason from another. */
static int
reason_number(const char *reason)
{
	unsigned	number = 0;

	for (; *reason != '\0'; reason++)
		number = (number * 31 + (unsigned char) *reason) & 0xffff;
	return (int) number;
}

/* A contradiction: only a person can tell.  The handle goes, nothing is fenced. */
void
machine_stop(RelayMachine *machine, const char *reason, const char *remedy, int64_t now)
{
	machine_close_and_retry(machine, INT64_MAX);
	machine->state = RELAY_STOPPED;
	/* what is wrong now is not what was wrong before */
	health_fine(&machine->health);
	health_trouble(&machine->health, KIND_STOPPED + reason_number(reason), reason, remedy, NULL, now);
	machine->errors++;
}

/* How long to wait now, in microseconds; longer each time. */
static int64_t
backoff(RelayMachine *machine)
{
	return MS(backoff_ms(machine->attempts++, BACKOFF_FIRST, BACKOFF_MOST));
}

/* Note what is wrong, for the status and the log. */
static void
trouble(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	machine->errors++;
	health_trouble(&machine->health,
				   result->kind != 0 ? result->kind : (int) result->outcome,
				   result->message,
				   result->remedy != NULL && result->remedy[0] != '\0' ?
				   result->remedy : REMEDY_CONNECTION, result->topic, now);
}

/*
 * Another producer has taken over: seldom a zombie's end, often a second
 * server.
 */
static void
fenced(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	if (machine->fenced > 0 && now - machine->fenced_at > FENCED_MEMORY)
		machine->fenced = 0;
	machine->fenced_at = now;
	if (++machine->fenced > FENCED_MOST)
	{
		machine_stop(machine, "another producer keeps taking over this lineage's transactional.id",
					 "Find the other server (a copy of this database?); on the copy: SELECT outbox.start_lineage();",
					 now);
		return;
	}
	machine->errors++;
	health_trouble(&machine->health, KIND_FENCED,
				   result->message != NULL && result->message[0] != '\0' ?
				   result->message : "another producer has taken over this lineage's transactional.id",
				   REMEDY_FENCED, NULL, now);
	machine->attempts++;
	machine_close_and_retry(machine, now + FENCED_PAUSE * machine->fenced);
}

void
machine_fail(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	int64_t		delay;

	if (result->outcome == KAFKA_FENCED)
	{
		fenced(machine, result, now);
		return;
	}
	trouble(machine, result, now);

	/* a topic that is missing is no reason to give the handle up */
	if (machine->state == RELAY_TOPIC &&
		(result->outcome == KAFKA_TROUBLE || result->outcome == KAFKA_UNREACHABLE))
	{
		machine->retry_at = now + backoff(machine);
		machine->deadline = 0;
		return;
	}

	/* what became of a transaction stands in Kafka: read it soon */
	delay = backoff(machine);
	if (result->outcome == KAFKA_UNCERTAIN && machine->attempts == 1)
		delay = 0;
	machine_close_and_retry(machine, now + delay);
}

void
machine_doubtful(RelayMachine *machine, const char *reason, int64_t now)
{
	RelayResult again = {0};

	again.outcome = KAFKA_TROUBLE;
	again.kind = KIND_DOUBT;
	again.message = reason;
	again.remedy = REMEDY_DOUBT;
	machine_fail(machine, &again, now);
}

/*
 * What is not there may only be unknown to the broker that was asked: look
 * again, and stop when it stays so.  reason is static.
 */
void
machine_doubt(RelayMachine *machine, const char *reason, const char *remedy, int64_t now)
{
	if (machine->doubt != reason)
	{
		machine->doubt = reason;
		machine->doubts = 0;
		machine->doubt_since = now;
	}
	if (++machine->doubts >= DOUBTS_LEAST && now - machine->doubt_since >= DOUBT_LASTS)
	{
		machine->doubt = NULL;
		machine_stop(machine, reason, remedy, now);
		return;
	}
	machine_doubtful(machine, reason, now);
}

/* ------------------------------------------------------------------------
 * What has not succeeded
 * ------------------------------------------------------------------------
 */

/* The broker refuses a batch, not an event: halve until one is left. */
static void
refused(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	if (result->own_record || machine->pending_events == 0)
	{
		/* never an event's fault: it waits like a topic's trouble */
		RelayResult ours = *result;

		ours.outcome = KAFKA_TROUBLE;
		ours.kind = KIND_OWN_RECORD;
		machine_fail(machine, &ours, now);
		return;
	}
	machine->errors++;
	health_trouble(&machine->health, result->kind, result->message,
				   result->remedy, result->topic, now);
	if (machine->pending_events == 1)
	{
		machine->refusal.seq = machine->pending_seq;
		machine->refusal.tick = machine->pending.tick;
		snprintf(machine->refusal.reason, sizeof(machine->refusal.reason), "%s",
				 machine->health.message);
		machine->state = RELAY_JUDGE;
		machine->close_first = machine->open;
		machine->deadline = 0;
		return;
	}
	pace_halve(&machine->pace, machine->pending_events, machine->pending_alone);
	machine_close_and_retry(machine, now);
}

void
machine_pending(RelayMachine *machine, RelayActionKind kind, const RelayResult *result,
				int64_t now)
{
	int64_t		allowed = kind == ACT_COMMIT ?
	MS(machine->limits.transaction_timeout_ms + COMMIT_GRACE) : ANSWER_DEADLINE;
	RelayResult late = {0};

	if (machine->deadline == 0)
		machine->deadline = now + allowed;
	/* a connection being made is no trouble yet, unless it is known to fail */
	if (now - (machine->deadline - allowed) < TROUBLE_AFTER && result->remedy == NULL)
		return;
	late.message = result->message != NULL && result->message[0] != '\0' ?
		result->message : kind == ACT_COMMIT ?
		"Kafka does not confirm a transaction" : "Kafka does not answer";
	if (result->remedy != NULL)
	{
		/* the reason is known, and will be the same when the time is over */
		late.kind = result->kind;
		late.remedy = result->remedy;
	}
	else
	{
		late.kind = KIND_SILENT;
		late.remedy = REMEDY_SILENT;
	}
	if (now < machine->deadline)
	{
		health_trouble(&machine->health, late.kind, late.message, late.remedy, NULL,
					   machine->deadline - allowed);
		return;
	}
	if (kind == ACT_COMMIT)
		pace_late(&machine->pace, machine->pending_events, machine->pending_alone);
	late.outcome = kind == ACT_COMMIT ? KAFKA_UNCERTAIN : KAFKA_UNREACHABLE;
	machine_fail(machine, &late, now);
}

/*
 * A transaction that has become too old was ended by the broker, which fences
 * the producer by that: that is nobody else's doing, and smaller ones help.
 */
static bool
too_old(const RelayMachine *machine, RelayActionKind kind,
		const RelayResult *result, int64_t now)
{
	if (kind != ACT_COMMIT && kind != ACT_PUBLISH)
		return false;
	return result->timed_out ||
		(result->outcome == KAFKA_FENCED &&
		 now - machine->began_at >= MS(machine->limits.transaction_timeout_ms) * 9 / 10);
}

void
machine_not_done(RelayMachine *machine, RelayActionKind kind, const RelayResult *result,
				 int64_t now)
{
	bool		transaction = kind == ACT_COMMIT || kind == ACT_PUBLISH;

	if (kind == ACT_PUBLISH)
	{
		machine->pending = result->reached;
		machine->pending_events = result->events;
		machine->pending_alone = result->alone;
		machine->pending_seq = result->last_seq;
	}
	if (too_old(machine, kind, result, now))
	{
		RelayResult old = *result;

		old.outcome = KAFKA_UNCERTAIN;
		pace_late(&machine->pace, machine->pending_events, machine->pending_alone);
		machine_fail(machine, &old, now);
	}
	else if (transaction && result->outcome == KAFKA_REFUSED && !MUTANT("refused_stays"))
		refused(machine, result, now);
	else
		machine_fail(machine, result, now);
}
