/*-------------------------------------------------------------------------
 *
 * machine.c
 *	  The relay's protocol as a pure state machine.  See machine.h.
 *
 *-------------------------------------------------------------------------
 */
#include "relay/machine.h"

#include <stdio.h>
#include <string.h>

/* Times are in microseconds, the settings in milliseconds. */
#define MS(n)			((int64_t) (n) * 1000)

#define BACKOFF_FIRST	MS(100)
#define BACKOFF_MOST	MS(5000)
#define INIT_DEADLINE	MS(60000)
#define TROUBLE_AFTER	MS(2000)	/* of an action that is still pending */
#define FENCED_PAUSE	MS(2000)
#define FENCED_MOST			5

void
relay_machine_set_limits(RelayMachine *machine, const RelayLimits *limits)
{
	machine->limits = *limits;
	pace_set_limits(&machine->pace, limits->max_events, limits->max_bytes);
}

void
relay_machine_init(RelayMachine *machine, const RelayLimits *limits)
{
	memset(machine, 0, sizeof(*machine));
	machine->state = RELAY_CLOSED;
	pace_init(&machine->pace);
	machine->ticked_at = INT64_MIN / 2;
	relay_machine_set_limits(machine, limits);
}

static void
copy_text(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from ? from : "");
}

static void
close_and_retry(RelayMachine *machine, int64_t at)
{
	machine->state = RELAY_CLOSED;
	machine->close_first = machine->open;
	machine->retry_at = at;
	machine->deadline = 0;
}

/* A contradiction: only a person can tell.  The handle goes, nothing is fenced. */
static void
stop(RelayMachine *machine, const char *reason, const char *remedy)
{
	close_and_retry(machine, INT64_MAX);
	machine->state = RELAY_STOPPED;
	copy_text(machine->stop_reason, sizeof(machine->stop_reason), reason);
	copy_text(machine->stop_remedy, sizeof(machine->stop_remedy), remedy);
	machine->errors++;
}

static void
fail(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	int64_t		delay = BACKOFF_FIRST;

	machine->errors++;
	copy_text(machine->trouble, sizeof(machine->trouble), result->message);
	switch (result->outcome)
	{
		case DONE_FENCED:
			if (++machine->fenced > FENCED_MOST)
			{
				stop(machine, "another producer keeps taking over this lineage's transactional.id",
					 "Find the other server (a copy of this database?); on the copy call outbox.start_lineage().");
				return;
			}
			close_and_retry(machine, now + FENCED_PAUSE * machine->fenced);
			return;
		case DONE_UNCERTAIN:
			/* what became of the transaction stands in Kafka: read it soon */
			if (machine->attempts == 0)
				delay = 0;
			break;
		default:
			break;
	}
	if (delay > 0)
	{
		delay <<= machine->attempts < 8 ? machine->attempts : 8;
		if (delay > BACKOFF_MOST)
			delay = BACKOFF_MOST;
	}
	machine->attempts++;
	close_and_retry(machine, now + delay);
}

static bool
has_work(const RelayMachine *machine)
{
	return machine->newest_tick > machine->place.tick ||
		(machine->newest_tick == machine->place.tick && !machine->place.complete);
}

static bool
may_tick(const RelayMachine *machine, const RelayInput *input)
{
	return machine->wake &&
		input->now - machine->ticked_at >= MS(machine->limits.poll_interval_ms);
}

static RelayAction
make_tick(RelayMachine *machine, int64_t now)
{
	machine->wake = false;
	machine->ticked_at = now;
	return ACT_MAKE_TICK;
}

static void
until(int64_t *wait_until, int64_t at)
{
	if (*wait_until < 0 || at < *wait_until)
		*wait_until = at;
}

static RelayAction
next_ready(RelayMachine *machine, const RelayInput *input, int64_t *wait_until)
{
	machine->work = has_work(machine);

	if (input->tainted && (machine->wake || machine->work) && !machine->paused)
	{
		/* replaced before the next transaction begins, lazily while idle */
		close_and_retry(machine, input->now);
		return ACT_CLOSE;
	}
	if (!machine->wake && (!machine->work || machine->paused))
		return ACT_WAIT;

	/* what comes meanwhile joins the next tick */
	if (machine->limits.transactions &&
		input->now < machine->settled_at + (int64_t) machine->pace.settle_us)
	{
		until(wait_until, machine->settled_at + (int64_t) machine->pace.settle_us);
		return ACT_WAIT;
	}
	if (machine->wake && machine->limits.linger_ms > 0 &&
		input->now < machine->wake_at + MS(machine->limits.linger_ms))
	{
		until(wait_until, machine->wake_at + MS(machine->limits.linger_ms));
		if (!machine->work)
			return ACT_WAIT;
	}
	else if (machine->wake)
		return make_tick(machine, input->now);
	if (machine->paused)
		return ACT_WAIT;
	machine->state = RELAY_PUBLISH;
	machine->began_at = input->now;
	return ACT_PUBLISH;
}

RelayAction
relay_machine_next(RelayMachine *machine, const RelayInput *input,
				   int64_t *wait_until)
{
	*wait_until = -1;
	if (input->wake && !machine->wake)
	{
		machine->wake = true;
		machine->wake_at = input->now;
	}
	if (input->may_poll && !machine->wake)
	{
		if (input->now - machine->ticked_at >= MS(machine->limits.poll_interval_ms))
		{
			machine->wake = true;
			machine->wake_at = input->now;
		}
		else
			until(wait_until, machine->ticked_at + MS(machine->limits.poll_interval_ms));
	}
	machine->restart |= input->reload;
	if (machine->restart && machine->state != RELAY_PUBLISH &&
		machine->state != RELAY_COMMIT && machine->state != RELAY_JUDGE)
	{
		/* begin anew, with new settings or for another lineage */
		machine->restart = false;
		machine->attempts = 0;
		machine->fenced = 0;
		machine->trouble[0] = '\0';
		machine->stop_reason[0] = machine->stop_remedy[0] = '\0';
		close_and_retry(machine, input->now);
	}
	if (machine->close_first && machine->open)
		return ACT_CLOSE;

	switch (machine->state)
	{
		case RELAY_STOPPED:
			*wait_until = -1;
			return ACT_WAIT;
		case RELAY_CLOSED:
			if (may_tick(machine, input))
				return make_tick(machine, input->now);
			if (input->now >= machine->retry_at)
				return ACT_OPEN;
			until(wait_until, machine->retry_at);
			if (machine->wake)
				until(wait_until, machine->ticked_at + MS(machine->limits.poll_interval_ms));
			return ACT_WAIT;
		case RELAY_READY:
			return next_ready(machine, input, wait_until);
		default:
			break;
	}

	/* in the middle of something: a backlog is cut into batches meanwhile */
	if (machine->state != RELAY_PUBLISH && machine->state != RELAY_COMMIT &&
		machine->state != RELAY_JUDGE && may_tick(machine, input))
		return make_tick(machine, input->now);
	switch (machine->state)
	{
		case RELAY_CHECK:
			return ACT_CHECK;
		case RELAY_CREATE:
			return ACT_CREATE_PROGRESS_TOPIC;
		case RELAY_BORN:
			return ACT_RECORD_BIRTH;
		case RELAY_ADVISORY:
		case RELAY_AUTHORITATIVE:
			return ACT_READ_PROGRESS;
		case RELAY_ADVISORY_COMPARE:
		case RELAY_COMPARE:
			return ACT_COMPARE;
		case RELAY_INIT:
			return ACT_INIT;
		case RELAY_TOPIC:
			return ACT_PREPARE_TOPIC;
		case RELAY_PUBLISH:
			return ACT_PUBLISH;
		case RELAY_COMMIT:
			return ACT_COMMIT;
		case RELAY_JUDGE:
			return ACT_DEAD_LETTER;
		default:
			return ACT_WAIT;
	}
}

static void
checked(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	if (result->does_not_verify && machine->limits.require_verification)
	{
		RelayResult refused = {0};

		refused.outcome = DONE_MISCONFIGURED;
		refused.message = "the broker does not verify partitions in transactions"
			" (transaction.partition.verification.enable); Kafka 3.6 or later is needed";
		fail(machine, &refused, now);
		return;
	}
	if (!result->same_cluster)
		stop(machine, "this is another Kafka cluster than the one that holds the lineage's progress",
			 "Point carshop_outbox.brokers to the former cluster; if it is gone for good: SELECT outbox.start_lineage();");
	else if (!result->topic_exists && result->born)
		stop(machine, "the progress topic is missing in Kafka, although events have been published",
			 "Restore the topic; if it is lost for good: SELECT outbox.start_lineage();");
	else if (!result->topic_exists)
		machine->state = RELAY_CREATE;
	else
		machine->state = result->born ? RELAY_ADVISORY : RELAY_BORN;
}

/* False: a contradiction, the machine has stopped. */
static bool
acceptable(RelayMachine *machine, const RelayResult *result)
{
	if (!result->lineage_matches)
		stop(machine, "the progress topic holds the progress of another lineage",
			 "Give this database a progress topic of its own: carshop_outbox.progress_topic, then SELECT outbox.start_lineage();");
	else if (!result->home_acceptable)
		stop(machine, "the lineage's progress was written by another server: this is a copy, or it was moved",
			 "Moved or upgraded, and the original is gone: SELECT outbox.claim(); A copy or a restored backup: SELECT outbox.start_lineage();");
	else if (!result->tick_known)
		stop(machine, "Kafka holds progress that this database does not know: it was restored from a backup, or a failover lost transactions",
			 "SELECT outbox.start_lineage();");
	else
		return true;
	return false;
}

static void
compared(RelayMachine *machine, const RelayResult *result)
{
	bool		found = machine->pending.lineage[0] != '\0';

	if (found && !acceptable(machine, result))
		return;
	if (machine->state == RELAY_ADVISORY_COMPARE)
	{
		machine->state = RELAY_INIT;
		return;
	}

	/* what PostgreSQL knows to be confirmed must be there */
	if (found ? (machine->pending.tick < result->confirmed ||
				 (machine->pending.tick == result->confirmed &&
				  !machine->pending.complete)) :
		result->confirmed > result->start_tick)
	{
		stop(machine, "Kafka's progress is behind what was confirmed: the cluster has lost committed data",
			 "Find out what was lost; then SELECT outbox.start_lineage();");
		return;
	}
	if (found)
		machine->place = machine->pending;
	else
	{
		memset(&machine->place, 0, sizeof(machine->place));
		machine->place.tick = result->start_tick;
		machine->place.complete = true;
	}
	machine->newest_tick = result->newest_tick;
	machine->state = machine->topic_first ? RELAY_TOPIC : RELAY_READY;
	if (!machine->topic_first)
		machine->trouble[0] = '\0';
}

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
		close_and_retry(machine, now);
		return;
	}
	machine->pending = result->reached;
	machine->pending_events = result->events;
	if (result->events > 0)
		machine->state = RELAY_COMMIT;
	else if (result->need_topic)
		machine->state = RELAY_TOPIC;
	else
	{
		/* nothing in it (dead letters only): nothing to write either */
		machine->place = result->reached;
		machine->state = RELAY_READY;
	}
}

static void
committed(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	machine->place = machine->pending;
	machine->events_published += machine->pending_events;
	machine->transactions++;
	machine->last_transaction_ms = (double) (now - machine->began_at) / 1000;
	machine->attempts = 0;
	machine->fenced = 0;
	machine->trouble[0] = '\0';
	machine->state = RELAY_READY;
	machine->settled_at = now;
	machine->deadline = 0;
	pace_committed(&machine->pace, result->early);
}

static void
refused(RelayMachine *machine, const RelayResult *result, int64_t now)
{
	machine->errors++;
	copy_text(machine->trouble, sizeof(machine->trouble), result->message);
	if (machine->pending_events == 1)
	{
		machine->state = RELAY_JUDGE;
		machine->close_first = machine->open;
		return;
	}
	pace_halve(&machine->pace, machine->pending_events);
	close_and_retry(machine, now);
}

/* True: time is over for an action that is still pending. */
static bool
overdue(RelayMachine *machine, int64_t now, int64_t allowed)
{
	if (machine->deadline == 0)
		machine->deadline = now + allowed;
	if (now < machine->deadline)
		return false;
	machine->deadline = 0;
	return true;
}

static void
pending(RelayMachine *machine, RelayAction action, const RelayResult *result,
		int64_t now)
{
	RelayResult late = {0};
	int64_t		allowed = action == ACT_COMMIT ?
		MS(machine->limits.transaction_timeout_ms + 5000) : INIT_DEADLINE;

	if (!overdue(machine, now, allowed))
	{
		/* a connection being made is no trouble yet */
		if (now - (machine->deadline - allowed) >= TROUBLE_AFTER &&
			result->message != NULL && result->message[0] != '\0')
			copy_text(machine->trouble, sizeof(machine->trouble), result->message);
		return;
	}
	if (action == ACT_COMMIT)
		pace_halve(&machine->pace, machine->pending_events);
	late.outcome = action == ACT_COMMIT ? DONE_UNCERTAIN : DONE_UNREACHABLE;
	late.message = machine->trouble[0] != '\0' ? machine->trouble :
		"Kafka does not answer in time";
	{
		char		text[512];

		copy_text(text, sizeof(text), late.message);
		late.message = text;
		fail(machine, &late, now);
	}
}

void
relay_machine_done(RelayMachine *machine, RelayAction action,
				   const RelayResult *result, int64_t now)
{
	if (action == ACT_CLOSE)
	{
		machine->open = false;
		machine->close_first = false;
		return;
	}
	if (action == ACT_MAKE_TICK)
	{
		machine->newest_tick = result->newest_tick;
		machine->paused = result->paused;
		machine->restart |= result->lineage_changed;
		return;
	}
	if (action == ACT_OPEN && result->outcome == DONE_OK)
		machine->open = true;
	if (result->outcome == DONE_PENDING)
	{
		pending(machine, action, result, now);
		return;
	}
	machine->deadline = 0;
	if (result->outcome == DONE_REFUSED && action == ACT_PUBLISH)
		machine->pending_events = result->events;
	if (result->outcome == DONE_REFUSED &&
		(action == ACT_COMMIT || action == ACT_PUBLISH))
	{
		if (action == ACT_PUBLISH)
			machine->pending = result->reached;
		refused(machine, result, now);
		return;
	}
	if (result->outcome != DONE_OK)
	{
		fail(machine, result, now);
		return;
	}

	switch (action)
	{
		case ACT_OPEN:
			machine->state = RELAY_CHECK;
			break;
		case ACT_CHECK:
			checked(machine, result, now);
			break;
		case ACT_CREATE_PROGRESS_TOPIC:
			machine->state = RELAY_CHECK;
			break;
		case ACT_RECORD_BIRTH:
			machine->state = RELAY_ADVISORY;
			break;
		case ACT_READ_PROGRESS:
			memset(&machine->pending, 0, sizeof(machine->pending));
			if (result->found && !result->readable)
				stop(machine, "the newest record of the progress topic is not ours",
					 "Keep others from writing to the progress topic; then SELECT outbox.start_lineage();");
			else
			{
				if (result->found)
					machine->pending = result->progress;
				if (machine->state == RELAY_AUTHORITATIVE)
					machine->state = RELAY_COMPARE;
				else
					machine->state = result->found ? RELAY_ADVISORY_COMPARE : RELAY_INIT;
			}
			break;
		case ACT_COMPARE:
			compared(machine, result);
			break;
		case ACT_INIT:
#ifdef MUTANT_READ_FIRST
			/* a deliberately broken build for the tests (test/t/052) */
			machine->state = RELAY_COMPARE;
#else
			machine->state = RELAY_AUTHORITATIVE;
#endif
			break;
		case ACT_PREPARE_TOPIC:
			machine->topic_first = false;
			machine->state = RELAY_READY;
			break;
		case ACT_PUBLISH:
			published(machine, result, now);
			break;
		case ACT_COMMIT:
			committed(machine, result, now);
			break;
		case ACT_DEAD_LETTER:
			close_and_retry(machine, now);
			pace_recover(&machine->pace);
			break;
		default:
			break;
	}
}

bool
relay_machine_idle(const RelayMachine *machine)
{
	return machine->state == RELAY_READY && !machine->wake && !has_work(machine);
}

const char *
relay_state_name(const RelayMachine *machine)
{
	switch (machine->state)
	{
		case RELAY_CLOSED:
			return machine->attempts > 0 ? "waiting for Kafka" : "connecting";
		case RELAY_CHECK:
		case RELAY_CREATE:
		case RELAY_BORN:
			return "connecting";
		case RELAY_ADVISORY:
		case RELAY_ADVISORY_COMPARE:
		case RELAY_INIT:
		case RELAY_AUTHORITATIVE:
		case RELAY_COMPARE:
			return "recovering";
		case RELAY_READY:
			return machine->paused ? "paused" : "idle";
		case RELAY_TOPIC:
			return "preparing topic";
		case RELAY_PUBLISH:
		case RELAY_COMMIT:
			return "publishing";
		case RELAY_JUDGE:
			return "storing dead letter";
		case RELAY_STOPPED:
			return "stopped";
	}
	return "unknown";
}
