/*-------------------------------------------------------------------------
 *
 * judge.c
 *	  The relay's state machine: what follows from the result of an action.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "relay/machine_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "mutants.h"
#include "outbox/tidy.h"

#define REMEDY_VERIFICATION \
	"Upgrade the brokers to Kafka 3.6 or later and leave transaction.partition.verification.enable on; for a Kafka-compatible broker that needs no verification: ALTER SYSTEM SET carshop_outbox.broker_verification = 'warn'; SELECT pg_reload_conf();"
#define REMEDY_TOPIC_OWN \
	"Give this database a progress topic of its own with carshop_outbox.progress_topic, then: SELECT outbox.start_lineage();"

static const char other_cluster[] =
"this is another Kafka cluster than the one that holds the lineage's progress";
static const char topic_missing[] =
"the progress topic is missing in Kafka, although events have been published";
static const char progress_behind[] =
"Kafka's progress is behind what was confirmed: the cluster has lost committed data";

/* ------------------------------------------------------------------------
 * The lineage's row
 * ------------------------------------------------------------------------
 */

/* True: the row is of another lineage than the one that was opened. */
static bool
take_lineage(RelayMachine *machine, const RelayResult *result)
{
	if (result->lineage == NULL)
		return false;
	if (strcmp(machine->lineage, result->lineage) == 0)
	{
		/* claimed while stopped, or on the way: see again who is at home */
		if (result->claimed && !machine->claimed &&
			machine->state != RELAY_ADVISORY_COMPARE && machine->state != RELAY_COMPARE)
			machine->restart = true;
		machine->claimed = result->claimed;
		return false;
	}
	machine->restart = true;
	return true;
}

/* The lineage's row was read: another one begins with nothing known. */
static void
begin_lineage(RelayMachine *machine, const RelayResult *result)
{
	if (strcmp(machine->lineage, result->lineage) != 0)
	{
		snprintf(machine->lineage, sizeof(machine->lineage), "%s", result->lineage);
		memset(&machine->place, 0, sizeof(machine->place));
		machine->position_known = false;
		machine->confirmed = 0;
		machine->topic_first = false;
		machine->doubt = NULL;
	}
	machine->claimed = result->claimed;
	machine->paused = result->paused;
	machine->newest_tick = result->newest_tick;
	machine->leaving = result->leaving;
	machine->recorded = result->confirmed;
	if (result->confirmed > machine->confirmed)
		machine->confirmed = result->confirmed;
}

/* ------------------------------------------------------------------------
 * From CLOSED to READY
 * ------------------------------------------------------------------------
 */
static void
checked(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	if (result->does_not_verify && machine->limits.require_verification)
	{
		RelayResult refused = {0};

		refused.outcome = KAFKA_MISCONFIGURED;
		refused.kind = KIND_VERIFICATION;
		refused.message = "the broker does not verify partitions in transactions"
			" (transaction.partition.verification.enable); Kafka 3.6 or later is needed";
		refused.remedy = REMEDY_VERIFICATION;
		machine_fail(machine, &refused, now);
	}
	else if (!result->same_cluster)
		machine_doubt(machine, other_cluster,
					  "Point carshop_outbox.brokers to the former cluster; if it is gone for good: SELECT outbox.start_lineage();",
					  now);
	else if (!result->topic_exists && result->born)
		machine_doubt(machine, topic_missing,
					  "Restore the topic; if it is lost for good: SELECT outbox.start_lineage();",
					  now);
	else
	{
		/* what had been denied is there */
		if (machine->doubt != progress_behind)
			machine->doubt = NULL;
		if (result->reopen)
			machine_close_and_retry(machine, now);
		else if (!result->topic_exists)
			machine->state = RELAY_CREATE;
		else
			machine->state = result->born ? RELAY_ADVISORY : RELAY_BORN;
	}
}

/*
 * ADVISORY or AUTHORITATIVE: the newest progress record, or that there is
 * none.
 */
static void
progress_read(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	if (!result->topic_exists)
	{
		/*
		 * "No progress" is believed only from a topic that exists, and the
		 * check has just seen it: this broker lags behind.
		 */
		machine_doubtful(machine, "a broker does not know the progress topic, although it is there", now);
		return;
	}
	if (result->found && !result->readable)
	{
		machine_stop(machine, "the newest record of the progress topic is not ours",
					 "Keep others from writing to the progress topic; then: SELECT outbox.start_lineage();",
					 now);
		return;
	}
	memset(&machine->pending, 0, sizeof(machine->pending));
	machine->found = result->found;
	if (result->found)
		machine->pending = result->progress;
	machine->other_found = result->other_found;
	if (result->other_found)
		machine->other = result->other;
	machine->state = machine->state == RELAY_AUTHORITATIVE ? RELAY_COMPARE :
		RELAY_ADVISORY_COMPARE;
}

/*
 * Kafka knows more than this database: what it was, as far as that can be told.
 * home: the one who has published that is this server, or one it descends from.
 */
static void
stop_behind(RelayMachine *machine, const RelayResult *result, bool home, int64_t now)
{
	char		reason[HEALTH_TEXT];
	char		what[192] = "";
	const Progress *record = &machine->pending;

	if (result->common_known && record->last_seq > result->common_seq && result->common_seq > 0)
		snprintf(what, sizeof(what), " (ticks %" PRId64 " to %" PRId64 ", about %" PRId64 " events, seq %" PRId64 " to %" PRId64 ")",
				 result->common_tick + 1, record->tick, record->last_seq - result->common_seq,
				 result->common_seq + 1, record->last_seq);
	else if (result->common_known)
		snprintf(what, sizeof(what), " (ticks %" PRId64 " to %" PRId64 ")",
				 result->common_tick + 1, record->tick);
	snprintf(reason, sizeof(reason), "Kafka holds progress that this database does not know%s: %s", what,
			 home ? "it was restored from a backup, or a failover lost transactions" :
			 "it was written by another server; this is an older copy, a restored backup, or was claimed there");
	machine_stop(machine, reason, home ?
				 "If the server that published this is off for good: SELECT outbox.start_lineage();" :
				 "SELECT outbox.start_lineage();", now);
}

/* False: a contradiction, the machine has stopped. */
static bool
acceptable(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	bool		home = result->home_same || result->home_descends || MUTANT("any_home");

	/*
	 * A newer record of another lineage: this server's own former one, after
	 * start_lineage() with a progress topic that is named for the database;
	 * or another server, which would be fenced.
	 */
	if (machine->other_found &&
		(machine->found || !(result->other_home_same || machine->claimed)))
		machine_stop(machine, "the progress topic is used by another lineage, on another server or in another database",
					 REMEDY_TOPIC_OWN, now);
	else if (machine->found && !result->lineage_matches)
		machine_stop(machine, "the progress topic holds the progress of another lineage",
					 REMEDY_TOPIC_OWN, now);
	else if (!home && !machine->claimed && result->home_later)
		machine_stop(machine, "the lineage's progress was written by another server, which was promoted: this is the former primary, or a copy of it was promoted",
					 "Make this server a standby of the new primary (pg_rewind, pg_basebackup). If a copy was promoted by mistake and is off: SELECT outbox.claim();",
					 now);
	else if (!home && !machine->claimed && !(machine->found && !result->tick_known))
		machine_stop(machine, "the lineage's progress was written by another server: this is a copy, or it was moved",
					 "Moved or upgraded, and the original is gone: SELECT outbox.claim(); A copy or a restored backup: SELECT outbox.start_lineage();",
					 now);
	else if (machine->found && !result->tick_known)
		stop_behind(machine, result, home, now);
	else
		return true;
	return false;
}

/*
 * Everything up to this place is in Kafka, or settled otherwise.  True when
 * that is another one than before.
 */
static bool
stand(RelayMachine *machine, const Progress *place)
{
	bool		moved = place->tick != machine->place.tick ||
	place->seq != machine->place.seq ||
	place->complete != machine->place.complete;

	machine->place = *place;
	/* the transaction that was cut small, if one was, is through */
	if (moved && (place->complete || place->seq == place->through))
		pace_whole(&machine->pace);
	return moved;
}

/* The record beside the table: go on from it, wait, or stop. */
static void
compared(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	int64_t		found_confirmed;

	if (take_lineage(machine, result))
		return;
	machine->recorded = result->confirmed;
	machine->newest_tick = result->newest_tick;
	found_confirmed = machine->found ? machine_confirmed_by(&machine->pending) :
		result->start_tick;
	if (machine->found && result->lineage_matches && result->tick_known &&
		found_confirmed > machine->confirmed)
		machine->confirmed = found_confirmed;
	if (!acceptable(machine, result, now))
		return;
	if (machine->state == RELAY_ADVISORY_COMPARE)
	{
		machine->state = RELAY_INIT;
		return;
	}

	/* what PostgreSQL knows to be confirmed must be there */
	if (found_confirmed < result->confirmed)
	{
		machine_doubt(machine, progress_behind,
					  "Find out what was lost; then: SELECT outbox.start_lineage();", now);
		return;
	}
	machine->doubt = NULL;
	if (!machine->found)
	{
		machine->pending.tick = result->start_tick;
		machine->pending.complete = true;
	}
	(void) stand(machine, &machine->pending);
	machine->confirmed = found_confirmed;
	machine->position_known = true;
	machine->settle_home = !result->home_same || machine->other_found;
	machine->settle_place = false;
	if (machine->topic_first)
	{
		machine->retry_at = now;
		machine->state = RELAY_TOPIC;
	}
	else if (machine->claimed && !machine->settle_home)
		machine->state = RELAY_HOME;	/* nothing to take over */
	else
		machine->state = RELAY_READY;
	machine_answer_tickets(machine);
}

/* ------------------------------------------------------------------------
 * From READY to READY
 * ------------------------------------------------------------------------
 */
static void
ticked(RelayMachine *machine, const RelayResult *result)
{
	if (machine->lineage[0] != '\0' && take_lineage(machine, result))
		return;
	machine->paused = result->paused;
	if (result->newest_tick > machine->newest_tick)
		machine->recorded = machine->confirmed;
	machine->newest_tick = result->newest_tick;
	machine->ticked = true;
	machine_take_ticket(machine, result->ticket, result->newest_tick);
}

/* What was aside stands in a tick of its own, or that must be tried again. */
static void
unparked(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	if (take_lineage(machine, result))
		return;
	machine->leaving = result->leaving;
	if (result->newest_tick > machine->newest_tick)
	{
		machine->recorded = machine->confirmed;
		machine->newest_tick = result->newest_tick;
	}
	else
		machine->unpark_at = now + UNPARK_AGAIN;
}

/* An event that cannot be read becomes a dead letter. */
static void
judge_unreadable(RelayMachine *machine, const RelayResult *result)
{
	machine->refusal.seq = result->unreadable_seq;
	machine->refusal.tick = result->unreadable_tick;
	snprintf(machine->refusal.reason, sizeof(machine->refusal.reason), "%s",
			 result->message != NULL ? result->message : "");
	machine->state = RELAY_JUDGE;
}

/* A Kafka transaction is filled: commit it, or look at why it is not. */
static void
published(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	if (result->need_topic && result->torn)
	{
		/*
		 * Half of a transaction is sent and the other half goes to a topic
		 * that is not known: take it back with the handle, and begin again
		 * when the topic is there.
		 */
		machine->topic_first = true;
		machine_close_and_retry(machine, now);
		return;
	}
	if (result->unreadable && result->torn)
	{
		/* the same: it is judged first, then the rest is published whole */
		judge_unreadable(machine, result);
		machine->close_first = true;
		return;
	}
	machine->pending = result->reached;
	machine->pending_events = result->events;
	machine->pending_alone = result->alone;
	machine->pending_seq = result->last_seq;
	if (result->events > 0 || machine->record_only)
	{
		machine->state = RELAY_COMMIT;
		return;
	}

	/*
	 * Nothing in it but dead letters and what has gone aside.  If no event
	 * follows, a record alone makes them confirmed.
	 */
	machine->settle_place |= stand(machine, &result->reached);
	machine_answer_tickets(machine);
	if (result->need_topic)
	{
		machine->retry_at = now;
		machine->state = RELAY_TOPIC;
	}
	else if (result->unreadable)
		judge_unreadable(machine, result);
	else
		machine->state = RELAY_READY;
}

/* It is in Kafka.  What is confirmed never goes back. */
static void
committed(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	int64_t		confirmed = machine_confirmed_by(&machine->pending);

	if (confirmed > machine->confirmed)
		machine->confirmed = confirmed;
	machine->events_published += machine->pending_events;
	machine->transactions++;
	machine->last_transaction_ms = (double) (now - machine->began_at) / 1000;
	machine->attempts = 0;
	health_fine(&machine->health);
	machine->settled_at = now;
	machine->deadline = 0;
	machine->settle_place = false;
	machine->state = machine->record_only && machine->settle_home ? RELAY_HOME : RELAY_READY;
	pace_committed(&machine->pace, result->early);
	if (machine->tidy_at < 0 || machine->tidy_at > now + TIDY_AFTER)
		machine->tidy_at = now + TIDY_AFTER;
	(void) stand(machine, &machine->pending);
	machine_answer_tickets(machine);
}

/* A step was made, or is due later, or somebody was in the way. */
static void
tidied(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	machine->tidied = true;
	if (result->tidy_ms >= 0 || result->tidy_ms == TIDY_NEVER)
	{
		machine->tidy_tries = 0;
		machine->tidy_at = result->tidy_ms < 0 ? -1 : now + MS(result->tidy_ms);
	}
	else
	{
		int64_t		wait = TIDY_BACKOFF_FIRST << (machine->tidy_tries < 6 ? machine->tidy_tries++ : 6);

		machine->tidy_at = now + (wait < TIDY_BACKOFF_MOST ? wait : TIDY_BACKOFF_MOST);
	}
}

/* A silence is over when there is an answer, unless attempts have failed, too. */
static void
answered(RelayMachine *machine)
{
	if (machine->attempts == 0 &&
		(machine->health.kind == KIND_SILENT || machine->health.kind == KIND_CONNECTING) &&
		(machine->state == RELAY_COMPARE || machine->health.kind == KIND_SILENT))
		health_fine(&machine->health);
}

/* The one event that was judged is out of the way. */
static void
dead_letter_stored(RelayMachine *machine, int64_t now)
{
	pace_recover(&machine->pace);
	if (machine->open)
		machine->state = RELAY_READY;	/* unreadable: nothing was sent */
	else
		machine_close_and_retry(machine, now);
}

void
relay_machine_done(RelayMachine *machine, const RelayAction *action,
				   const RelayResult *result, int64_t now)
{
	RelayActionKind kind = action->kind;

	if (kind == ACT_CLOSE)
	{
		machine->open = false;
		machine->close_first = false;
		return;
	}
	if (kind == ACT_MAKE_TICK)
	{
		ticked(machine, result);
		return;
	}
	if (kind == ACT_TIDY)
	{
		tidied(machine, result, now);
		return;
	}
	if (kind == ACT_UNPARK)
	{
		unparked(machine, result, now);
		return;
	}
	if (result->outcome == KAFKA_PENDING)
	{
		machine_pending(machine, kind, result, now);
		return;
	}
	machine->deadline = 0;
	if (kind == ACT_OPEN && result->lineage != NULL)
		begin_lineage(machine, result);
	if (result->outcome != KAFKA_OK)
	{
		machine_not_done(machine, kind, result, now);
		return;
	}
	answered(machine);

	switch (kind)
	{
		case ACT_OPEN:
			machine->open = true;
			machine->state = RELAY_CHECK;
			break;
		case ACT_CHECK:
			checked(machine, result, now);
			break;
		case ACT_CREATE_PROGRESS_TOPIC:
			machine->state = RELAY_CHECK;
			break;
		case ACT_RECORD_BIRTH:
			if (!take_lineage(machine, result))
				machine->state = RELAY_ADVISORY;
			break;
		case ACT_READ_PROGRESS:
			progress_read(machine, result, now);
			break;
		case ACT_COMPARE:
			compared(machine, result, now);
			break;
		case ACT_INIT:
			/* read when nothing can be under way any more */
			machine->state = MUTANT("read_first") ? RELAY_COMPARE : RELAY_AUTHORITATIVE;
			break;
		case ACT_PREPARE_TOPIC:
			machine->topic_first = false;
			if (result->reopen)
				machine_close_and_retry(machine, now);
			else
				machine->state = RELAY_READY;
			break;
		case ACT_PUBLISH:
			published(machine, result, now);
			break;
		case ACT_COMMIT:
			committed(machine, result, now);
			break;
		case ACT_RECORD_HOME:
			machine->settle_home = false;
			machine->claimed = false;
			machine->state = RELAY_READY;
			(void) take_lineage(machine, result);
			break;
		case ACT_RECORD_CONFIRMED:
			if (result->recorded)
				machine->recorded = action->confirmed;
			else
				machine->record_at = now + RECORD_AFTER;
			(void) take_lineage(machine, result);
			break;
		case ACT_DEAD_LETTER:
			dead_letter_stored(machine, now);
			break;
		case ACT_LOOK:
			(void) take_lineage(machine, result);
			break;
		case ACT_WAIT:
		case ACT_CLOSE:
		case ACT_MAKE_TICK:
		case ACT_TIDY:
		case ACT_UNPARK:
			break;
	}
}
