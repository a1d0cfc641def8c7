/*-------------------------------------------------------------------------
 *
 * machine.c
 *	  The relay's protocol as a pure state machine: what to do next.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * What is made of the results stands in judge.c.
 *
 *-------------------------------------------------------------------------
 */
#include "relay/machine_internal.h"

#include <stdio.h>
#include <string.h>

#include "mutants.h"

#define REMEDY_STANDBY \
	"See pg_stat_replication, and let the standby connect again; to publish without it: ALTER SYSTEM SET carshop_outbox.publish_after_standby = 0; SELECT pg_reload_conf();"

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

void
machine_close_and_retry(RelayMachine *machine, int64_t at)
{
	machine->state = RELAY_CLOSED;
	machine->close_first = machine->open;
	machine->retry_at = at;
	machine->deadline = 0;
}

/* The highest tick of which all is in Kafka when place is. */
int64_t
machine_confirmed_by(const Progress *place)
{
	return place->complete ? place->tick : place->tick - 1;
}

/* Is anything behind the place, up to that tick? */
static bool
work_up_to(const RelayMachine *machine, int64_t tick)
{
	return tick > machine->place.tick ||
		(tick == machine->place.tick && !machine->place.complete);
}

/* The same, as far as ticks have been made. */
static bool
has_work(const RelayMachine *machine)
{
	return work_up_to(machine, machine->newest_tick);
}

/* ... and standbys have them, if they are to be waited for. */
static bool
has_safe_work(const RelayMachine *machine)
{
	return work_up_to(machine, machine->safe_tick < machine->newest_tick ?
					  machine->safe_tick : machine->newest_tick);
}

/* ------------------------------------------------------------------------
 * Tickets of outbox.wait_published
 * ------------------------------------------------------------------------
 */

/* What was asked before this tick's snapshot is answered when it is in Kafka. */
void
machine_take_ticket(RelayMachine *machine, uint64_t ticket, int64_t tick)
{
	int			n = machine->n_tickets;

	if (ticket <= machine->answered ||
		(n > 0 && ticket <= machine->tickets[n - 1].ticket))
		return;
	/* full: the last one waits a little longer than it must */
	if (n == RELAY_TICKETS)
		n--;
	machine->tickets[n].ticket = ticket;
	machine->tickets[n].tick = tick;
	machine->n_tickets = n + 1;
	machine_answer_tickets(machine);
}

void
machine_answer_tickets(RelayMachine *machine)
{
	int64_t		done = machine_confirmed_by(&machine->place);
	int			n = 0;

	if (!machine->position_known || machine->state == RELAY_STOPPED)
		return;
	while (n < machine->n_tickets && machine->tickets[n].tick <= done)
		machine->answered = machine->tickets[n++].ticket;
	machine->n_tickets -= n;
	memmove(machine->tickets, machine->tickets + n,
			sizeof(RelayTicket) * (size_t) machine->n_tickets);
}

/* ------------------------------------------------------------------------
 * The next action
 * ------------------------------------------------------------------------
 */
static bool
may_tick(const RelayMachine *machine, int64_t now)
{
	return machine->wake &&
		now - machine->ticked_at >= MS(machine->limits.poll_interval_ms);
}

/* Decide on a tick.  What wakes us from now on is for the next one. */
static void
make_tick(RelayMachine *machine, RelayAction *action, int64_t now)
{
	machine->wake = false;
	machine->tidied = false;
	machine->ticked_at = now;
	action->kind = ACT_MAKE_TICK;
	action->confirmed = machine->confirmed;
}

/* Wait until then at the latest; several callers, the earliest counts. */
static void
wait_for(RelayAction *action, int64_t at)
{
	if (action->wait_until < 0 || at < action->wait_until)
		action->wait_until = at;
}

/* Begin a Kafka transaction at the place; record_only: with no event in it. */
static void
publish(RelayMachine *machine, RelayAction *action, int64_t now,
		bool record_only)
{
	machine->state = RELAY_PUBLISH;
	machine->began_at = now;
	machine->tidied = false;
	machine->record_only = record_only;
	if (!record_only)
		machine->ticked = false;
	action->kind = ACT_PUBLISH;
	action->record = &machine->place;
	action->record_only = record_only;
	action->through_tick = machine->safe_tick;
	action->max_events = machine->pace.events;
	action->max_bytes = machine->pace.bytes;
	action->part_events = machine->pace.part_events;
	action->part_bytes = machine->pace.part_bytes;
}

/* What is confirmed leaves the outbox, if that is due; Kafka is not asked. */
static bool
tidy(const RelayMachine *machine, RelayAction *action, int64_t now)
{
	if (machine->tidy_at < 0 || machine->lineage[0] == '\0')
		return false;
	if (now < machine->tidy_at)
	{
		wait_for(action, machine->tidy_at);
		return false;
	}
	action->kind = ACT_TIDY;
	action->confirmed = machine->confirmed;
	return true;
}

/*
 * A parked topic is published again from a place at which Kafka has all that was
 * ticked: behind it nothing of the topic can go aside, or be met again.
 */
static bool
unpark(const RelayMachine *machine, RelayAction *action, int64_t now)
{
	if (!machine->leaving || machine->paused ||
		(has_work(machine) && !MUTANT("early_unpark")))
		return false;
	if (now < machine->unpark_at)
	{
		wait_for(action, machine->unpark_at);
		return false;
	}
	action->kind = ACT_UNPARK;
	action->confirmed = machine->place.tick;
	return true;
}

/* Nothing to publish.  PostgreSQL learns once, later, how far that was. */
static void
rest(RelayMachine *machine, RelayAction *action, int64_t now)
{
	int64_t		at = machine->settled_at +
	(MS(machine->limits.poll_interval_ms) > RECORD_AFTER ?
	 MS(machine->limits.poll_interval_ms) : RECORD_AFTER);

	health_fine(&machine->health);
	if (machine->confirmed <= machine->recorded)
		return;
	if (at < machine->record_at)
		at = machine->record_at;
	if (now < at)
		wait_for(action, at);
	else
	{
		action->kind = ACT_RECORD_CONFIRMED;
		action->confirmed = machine->confirmed;
	}
}

/*
 * What is to be published would be missing on a standby that is promoted now.
 * Nobody wakes us when that changes: look again, soon at first.
 */
static void
wait_for_standbys(RelayMachine *machine, RelayAction *action, int64_t now)
{
	int64_t		pause = (now - machine->standby_since) / 4;
	char		message[HEALTH_TEXT];

	pause = pause < MS(1) ? MS(1) : pause > MS(50) ? MS(50) : pause;
	wait_for(action, now + pause);
	if (now - machine->standby_since < TROUBLE_AFTER)
		return;
	snprintf(message, sizeof(message),
			 "events wait until %d standby(s) have them (carshop_outbox.publish_after_standby)",
			 machine->limits.standbys);
	health_trouble(&machine->health, KIND_STANDBY, message, REMEDY_STANDBY, NULL, machine->standby_since);
}

/* READY: replace a tainted handle, make a tick or publish, or rest. */
static void
next_ready(RelayMachine *machine, const RelayInput *input, RelayAction *action)
{
	bool		any = has_work(machine) && !machine->paused;
	bool		work = any && has_safe_work(machine);
	bool		record_only = machine->settle_home ||
	(machine->settle_place && !machine->paused && !any);
	bool		begin = machine->wake || work || record_only;

	if (!any || work)
		machine->standby_since = 0;
	else if (machine->standby_since == 0)
		machine->standby_since = input->now;

	if (input->tainted && begin && (!machine->paused || machine->settle_home))
	{
		/* replaced before the next transaction begins, lazily while idle */
		machine_close_and_retry(machine, input->now);
		action->kind = ACT_CLOSE;
		return;
	}

	/*
	 * Between two transactions, when nothing in Kafka waits to be settled;
	 * one step at a time, however many want to follow.
	 */
	if (!machine->settle_home && !machine->settle_place &&
		((!(machine->tidied && begin) && tidy(machine, action, input->now)) ||
		 unpark(machine, action, input->now)))
		return;
	if (!begin && any)
	{
		wait_for_standbys(machine, action, input->now);
		return;
	}
	if (!begin)
	{
		rest(machine, action, input->now);
		return;
	}

	/* what comes meanwhile joins the next tick */
	if (machine->limits.transactions &&
		input->now < machine->settled_at + (int64_t) machine->pace.settle_us)
	{
		wait_for(action, machine->settled_at + (int64_t) machine->pace.settle_us);
		return;
	}
	if (record_only)
	{
		publish(machine, action, input->now, true);
		return;
	}

	/*
	 * With work waiting, one tick between two publications: each waits for a
	 * flush, and a commit meanwhile asks for the next one (at 9,000 commits a
	 * second 126 ticks were made for each Kafka transaction).
	 */
	if (machine->wake && !(any && machine->ticked))
	{
		int64_t		due = machine->wake_at + MS(machine->limits.linger_ms);

		if (machine->limits.linger_ms == 0 || input->now >= due)
		{
			make_tick(machine, action, input->now);
			return;
		}
		if (!any)
		{
			wait_for(action, due);
			return;
		}
	}
	if (work)
		publish(machine, action, input->now, false);
	else
		wait_for_standbys(machine, action, input->now);
}

/* Keep what the loop has seen until it is acted upon. */
static void
take_input(RelayMachine *machine, const RelayInput *input, RelayAction *action)
{
	if (input->wake && !machine->wake)
	{
		machine->wake = true;
		machine->wake_at = input->now;
	}
	if (input->may_poll && !machine->wake)
	{
		int64_t		due = machine->ticked_at + MS(machine->limits.poll_interval_ms);

		if (input->now >= due)
		{
			machine->wake = true;
			machine->wake_at = input->now;
		}
		else
			wait_for(action, due);
	}
	if (input->retry && (machine->state == RELAY_CLOSED || machine->state == RELAY_TOPIC))
		machine->retry_at = input->now;
	machine->restart |= input->restart ||
		(input->retry && machine->state == RELAY_STOPPED);
}

/* Begin anew, with new settings or for another lineage. */
static void
start_again(RelayMachine *machine, int64_t now)
{
	machine->restart = false;
	machine->attempts = 0;
	machine->fenced = 0;
	machine->doubt = NULL;
	machine->topic_first = false;

	/*
	 * the transaction that was searched for a refused event may have gone
	 * aside
	 */
	pace_whole(&machine->pace);
	if (machine->state == RELAY_STOPPED)
		health_fine(&machine->health);
	machine_close_and_retry(machine, now);
}

/* Must what has begun come to its end before something else is done? */
static bool
in_transaction(const RelayMachine *machine)
{
	return machine->state == RELAY_PUBLISH || machine->state == RELAY_COMMIT ||
		machine->state == RELAY_JUDGE || machine->state == RELAY_HOME;
}

/* How long it takes to become ready is told, whichever step it hangs in. */
static void
watch(RelayMachine *machine, int64_t now)
{
	if (machine->state == RELAY_READY || machine->state == RELAY_STOPPED ||
		in_transaction(machine))
		machine->unready_since = 0;
	else if (machine->unready_since == 0)
		machine->unready_since = now;
	else if (!machine->health.trouble && machine->state != RELAY_TOPIC &&
			 now - machine->unready_since >= TROUBLE_AFTER)
		health_trouble(&machine->health, KIND_CONNECTING,
					   "Kafka has not answered yet", REMEDY_CONNECTION, NULL,
					   machine->unready_since);
}

/* Between CLOSED and READY: the step that is under way. */
static void
next_step(RelayMachine *machine, RelayAction *action)
{
	switch (machine->state)
	{
		case RELAY_CHECK:
			action->kind = ACT_CHECK;
			break;
		case RELAY_CREATE:
			action->kind = ACT_CREATE_PROGRESS_TOPIC;
			break;
		case RELAY_BORN:
			action->kind = ACT_RECORD_BIRTH;
			break;
		case RELAY_ADVISORY:
		case RELAY_AUTHORITATIVE:
			action->kind = ACT_READ_PROGRESS;
			action->stable = machine->state == RELAY_AUTHORITATIVE;
			break;
		case RELAY_ADVISORY_COMPARE:
		case RELAY_COMPARE:
			action->kind = ACT_COMPARE;
			action->record = machine->found ? &machine->pending : NULL;
			action->other = machine->other_found ? &machine->other : NULL;
			break;
		case RELAY_INIT:
			action->kind = ACT_INIT;
			break;
		case RELAY_PUBLISH:
			publish(machine, action, machine->began_at, machine->record_only);
			break;
		case RELAY_COMMIT:
			action->kind = ACT_COMMIT;
			action->record = &machine->pending;
			break;
		case RELAY_HOME:
			action->kind = ACT_RECORD_HOME;
			break;
		case RELAY_JUDGE:
			action->kind = ACT_DEAD_LETTER;
			action->refusal = &machine->refusal;
			break;
		case RELAY_CLOSED:
		case RELAY_READY:
		case RELAY_TOPIC:
		case RELAY_STOPPED:
			break;
	}
}

void
relay_machine_next(RelayMachine *machine, const RelayInput *input,
				   RelayAction *action)
{
	machine_check(machine);
	memset(action, 0, sizeof(*action));
	action->kind = ACT_WAIT;
	action->wait_until = -1;
	take_input(machine, input, action);
	machine->safe_tick = input->hold ? input->safe_tick : INT64_MAX;
	if (machine->restart && !in_transaction(machine))
		start_again(machine, input->now);
	watch(machine, input->now);
	if (machine->close_first && machine->open)
	{
		action->kind = ACT_CLOSE;
		return;
	}

	switch (machine->state)
	{
		case RELAY_STOPPED:
			/* each commit of the shop wakes, so not at each of them */
			action->wait_until = -1;
			if (machine->wake && input->now < machine->looked_at + LOOK_PAUSE)
				wait_for(action, machine->looked_at + LOOK_PAUSE);
			else if (machine->wake)
			{
				machine->wake = false;
				machine->looked_at = input->now;
				action->kind = ACT_LOOK;
			}
			return;
		case RELAY_READY:
			next_ready(machine, input, action);
			return;
		case RELAY_CLOSED:
		case RELAY_TOPIC:
			if (may_tick(machine, input->now))
				make_tick(machine, action, input->now);
			else if (input->now >= machine->retry_at)
				action->kind = machine->state == RELAY_CLOSED ? ACT_OPEN :
					ACT_PREPARE_TOPIC;
			else if (!tidy(machine, action, input->now))
			{
				wait_for(action, machine->retry_at);
				if (!machine->health.trouble)
					wait_for(action, machine->unready_since + TROUBLE_AFTER);
				if (machine->wake)
					wait_for(action, machine->ticked_at +
							 MS(machine->limits.poll_interval_ms));
			}
			return;
		default:
			break;
	}

	/* in the middle of something: a backlog is cut into batches meanwhile */
	if (!in_transaction(machine) && may_tick(machine, input->now))
		make_tick(machine, action, input->now);
	else
		next_step(machine, action);
}

/* In the order of the promises that would be broken otherwise (DESIGN I1, I2). */
void
machine_check(const RelayMachine *machine)
{
	/* nothing is sent before Kafka has said from where, and by whom */
	Invariant((machine->state != RELAY_PUBLISH && machine->state != RELAY_COMMIT) ||
			  (machine->open && machine->position_known));
	Invariant(machine->state != RELAY_READY || machine->open || machine->close_first ||
			  machine->position_known);
	Invariant(machine->state != RELAY_READY || machine->lineage[0] != '\0');

	/* it never gets ahead of what was ticked, nor PostgreSQL ahead of Kafka */
	Invariant(!machine->position_known || machine->place.tick <= machine->newest_tick);
	Invariant(machine->confirmed <= machine->newest_tick || !machine->position_known);
	Invariant(machine->state != RELAY_COMMIT || machine->record_only ||
			  machine->pending.tick <= machine->newest_tick);
	Invariant(machine->state != RELAY_READY || machine->settle_place ||
			  machine_confirmed_by(&machine->place) <= machine->confirmed);

	/* tickets wait in order, and none that is answered waits */
	Invariant(machine->n_tickets >= 0 && machine->n_tickets <= RELAY_TICKETS);
	for (int i = 0; i < machine->n_tickets; i++)
		Invariant(machine->tickets[i].ticket > (i > 0 ? machine->tickets[i - 1].ticket :
												machine->answered));

	/* who has stopped says why */
	Invariant(machine->state != RELAY_STOPPED || machine->health.trouble);
	Invariant(!machine->health.trouble || machine->health.message[0] != '\0');
	Invariant(machine->pace.events >= 1 && machine->pace.bytes >= 1);
}

bool
relay_machine_idle(const RelayMachine *machine)
{
	return machine->state == RELAY_READY && !machine->wake &&
		!machine->settle_home && !machine->settle_place && !has_work(machine);
}

HealthNews
relay_machine_news(RelayMachine *machine, int64_t now)
{
	/* whoever looks again after a stop does not publish yet */
	if (!machine->health.trouble && machine->state != RELAY_READY && !in_transaction(machine))
		return NEWS_NONE;
	return health_news(&machine->health,
					   machine->state == RELAY_STOPPED || machine->attempts > 1 ||
					   now - machine->health.since >= TROUBLE_AFTER);
}
