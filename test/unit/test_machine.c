/*-------------------------------------------------------------------------
 *
 * test_machine.c
 *	  Single rules of the relay's state machine.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * test_histories.c has the whole in random histories.
 *
 *-------------------------------------------------------------------------
 */
#include "machine_steps.h"

static void
test_order_of_start(void)
{
	ready(5, 5);
	is_int(machine.confirmed, 5, "what Kafka holds is confirmed, whatever the table says");
}

/* Contradictions that a record proves: nothing is fenced. */
static void
test_stops(void)
{
	for (int i = 0; i < 4; i++)
	{
		RelayResult read = found(0);
		RelayResult other = fine();

		if (i == 0)
			other.home_same = false;
		else if (i == 1)
			other.tick_known = false;
		else if (i == 2)
			other.lineage_matches = false;
		else
			read.other_found = true;
		start();
		step(ACT_CHECK, fine(), "check");
		step(ACT_READ_PROGRESS, read, "advisory read");
		step(ACT_COMPARE, other, "compare");
		is_int(machine.state, RELAY_STOPPED, "a contradiction stops");
		step(ACT_CLOSE, fine(), "the handle goes");
		step(ACT_WAIT, fine(), "and nothing is fenced");
		ok(machine.health.remedy[0] != '\0', "a remedy is named");
	}
}

/* Asks until it stops or that time is over; the number of times asked. */
static int
until_stopped(RelayActionKind kind, RelayResult bad, int64_t microseconds)
{
	int64_t		end = now + microseconds;
	int			asked = 0;

	while (now < end && machine.state != RELAY_STOPPED)
	{
		RelayInput	input = {0};
		RelayAction action = ask(input);

		if (action.kind == ACT_WAIT)
			now = action.wait_until > now ? action.wait_until : now + 1000;
		else if (action.kind == kind)
		{
			asked++;
			answer(action, bad);
		}
		else
			answer(action, fine());
		now += 1000;
	}
	return asked;
}

/* What one answer says about what is not there is not believed. */
static void
test_doubts(void)
{
	RelayResult bad;
	int			asked;

	start();
	bad = fine();
	bad.topic_exists = false;
	step(ACT_CHECK, bad, "check: the topic is missing");
	is_int(machine.state, RELAY_CLOSED, "one answer does not stop");
	asked = until_stopped(ACT_CHECK, bad, 60000000);
	is_int(machine.state, RELAY_STOPPED, "a topic that stays lost does");
	ok(asked >= 4 && now > 10000000, "asked %d more times, for ten seconds", asked);

	start();
	step(ACT_CHECK, fine(), "check");
	bad = fine();
	bad.topic_exists = false;
	step(ACT_READ_PROGRESS, bad, "read: the topic is missing");
	is_int(machine.state, RELAY_CLOSED, "that is not taken for no progress");

	start();
	bad = fine();
	bad.same_cluster = false;
	(void) until_stopped(ACT_CHECK, bad, 60000000);
	is_int(machine.state, RELAY_STOPPED, "another cluster stops");

	start();
	bad = fine();
	bad.confirmed = 5;
	(void) until_stopped(ACT_COMPARE, bad, 120000000);
	is_int(machine.state, RELAY_STOPPED, "lost progress stops");

	start();
	bad = fine();
	bad.does_not_verify = true;
	step(ACT_CHECK, bad, "check: no verification");
	is_int(machine.state, RELAY_CLOSED, "a broker without verification is not used");
	ok(strstr(machine.health.remedy, "broker_verification"), "the remedy names the setting");
}

static void
test_fencing(void)
{
	int			times = 0;

	start();
	times = until_stopped(ACT_INIT, failed(KAFKA_FENCED, 0, "fenced"), 300000000);
	is_int(machine.state, RELAY_STOPPED, "fenced again and again stops");
	ok(times >= 3 && times <= 7, "after a few times (%d)", times);

	/* two servers that take turns: a commit in between changes nothing */
	ready(1, 1000);
	times = 0;
	while (machine.state != RELAY_STOPPED && times < 50)
	{
		RelayInput	input = {0};
		RelayAction action = ask(input);
		RelayResult result = fine();

		now += 100000;
		if (action.kind == ACT_WAIT)
		{
			now = action.wait_until > now ? action.wait_until : now;
			continue;
		}
		if (action.kind == ACT_READ_PROGRESS)
			result = found(times + 1);
		result.newest_tick = 1000;
		if (action.kind == ACT_PUBLISH)
		{
			result.events = 1;
			result.reached = found(times + 2).progress;
			if (machine.transactions > times)
			{
				result = failed(KAFKA_FENCED, 0, "fenced");
				times++;
			}
		}
		answer(action, result);
	}
	is_int(machine.state, RELAY_STOPPED, "fenced in turns stops, too");
	ok(times <= 7, "after a few turns (%d)", times);
}

/* The broker ends a transaction that is too old: smaller ones, no stop. */
static void
test_too_old(void)
{
	RelayResult sent = fine();
	int64_t		before;

	ready(1, 2);
	before = machine.pace.events;
	sent.events = 6;
	sent.reached = found(2).progress;
	step(ACT_PUBLISH, sent, "publish");
	now += 60000000;
	step(ACT_COMMIT, failed(KAFKA_FENCED, 0, "fenced"), "the broker has ended it");
	is_int(machine.fenced, 0, "that is nobody else's doing");
	ok(machine.pace.events < before, "the next one is smaller");
}

/* Go on until something is to be published, with progress at tick 1 of 2. */
static RelayAction
until_publish(void)
{
	for (;;)
	{
		RelayInput	input = {0};
		RelayAction action = ask(input);
		RelayResult result = action.kind == ACT_READ_PROGRESS ? found(1) : fine();

		if (action.kind == ACT_PUBLISH)
			return action;
		now += 1000;
		if (action.kind == ACT_WAIT)
		{
			now = action.wait_until > now ? action.wait_until : now;
			continue;
		}
		result.newest_tick = 2;
		answer(action, result);
	}
}

/*
 * A broker that was away for long ends transactions, too: one of the database is
 * not torn for that.  When it alone fails again and again, it must be too large.
 */
static void
test_outage_tears_nothing(void)
{
	RelayResult sent = fine();
	int64_t		whole;

	ready(1, 2);
	whole = machine.pace.part_events;
	sent.events = 6;
	sent.alone = true;
	sent.reached = found(2).progress;
	for (int time = 1; time <= 3; time++)
	{
		ok(machine.pace.part_events == whole, "before time-out %d it is sent whole", time);
		answer(until_publish(), sent);
		now += 60000000;
		step(ACT_COMMIT, failed(KAFKA_FENCED, 0, "fenced"), "the broker has ended it");
	}
	is_int(machine.pace.part_events, 3, "then it is cut");
	answer(until_publish(), sent);
	step(ACT_COMMIT, fine(), "it is in time");
	is_int(machine.slow, 0, "and the count begins anew");
}

/* Commits all the time: one tick for each Kafka transaction. */
static void
test_busy(void)
{
	int			ticks = 0;
	int			published = 0;
	int64_t		newest = 1;

	ready(1, 1);
	for (int i = 0; i < 10000; i++)
	{
		RelayInput	input = {.wake = true};
		RelayAction action = ask(input);
		RelayResult result = fine();

		now += 500;
		if (action.kind == ACT_WAIT)
			continue;
		if (action.kind == ACT_MAKE_TICK)
		{
			ticks++;
			newest++;
			result.ticket = (uint64_t) newest;
		}
		if (action.kind == ACT_PUBLISH)
		{
			published++;
			result.events = 10;
			result.reached = found(newest).progress;
		}
		result.newest_tick = newest;
		answer(action, result);
	}
	ok(published > 100, "published while commits never ended (%d)", published);
	ok(ticks <= published + 2, "one tick for each (%d for %d)", ticks, published);
	ok(machine.answered + 8 >= (uint64_t) newest, "wait_published is answered meanwhile");
}

/* A claim takes effect at once, and once. */
static void
test_claim(void)
{
	RelayResult other = fine();
	RelayResult claimed = fine();

	other.home_same = false;
	start();
	step(ACT_CHECK, fine(), "check");
	step(ACT_READ_PROGRESS, found(3), "advisory read");
	other.newest_tick = 3;
	step(ACT_COMPARE, other, "another home");
	is_int(machine.state, RELAY_STOPPED, "stopped");
	step(ACT_CLOSE, fine(), "the handle goes");
	claimed.claimed = true;
	machine.wake = true;
	step(ACT_LOOK, claimed, "somebody calls outbox.claim()");
	claimed.newest_tick = 3;
	step(ACT_OPEN, claimed, "open");
	step(ACT_CHECK, fine(), "check");
	step(ACT_READ_PROGRESS, found(3), "advisory read");
	other.claimed = true;
	step(ACT_COMPARE, other, "accepted");
	step(ACT_INIT, fine(), "init");
	step(ACT_READ_PROGRESS, found(3), "authoritative read");
	step(ACT_COMPARE, other, "compare");
	{
		RelayInput	input = {0};
		RelayResult result = fine();
		RelayAction action;

		now += 10000000;
		action = ask(input);
		is_int(action.kind, ACT_PUBLISH, "with nothing to publish");
		ok(action.record_only, "the record with the new home is written");
		result.reached = found(3).progress;
		answer(action, result);
	}
	step(ACT_COMMIT, fine(), "commit");
	step(ACT_RECORD_HOME, fine(), "then the claim is used");
	is_int(machine.state, RELAY_READY, "ready");
	ok(!machine.claimed, "not claimed any more");
}

/* The lineage's row changes under the relay's feet. */
static void
test_lineage_changes(void)
{
	RelayResult changed = fine();

	changed.lineage = "m";
	start();
	step(ACT_CHECK, fine(), "check");
	step(ACT_READ_PROGRESS, found(1), "advisory read");
	changed.lineage_matches = false;
	step(ACT_COMPARE, changed, "start_lineage() came between");
	step(ACT_CLOSE, fine(), "begin anew");
	step(ACT_OPEN, changed, "with the new lineage");
	ok(strcmp(machine.lineage, "m") == 0, "it works for the new one");
	is_int(machine.state, RELAY_CHECK, "and does not stop");

	start();
	{
		RelayResult check = fine();

		check.born = false;
		step(ACT_CHECK, check, "check a newborn lineage");
	}
	step(ACT_RECORD_BIRTH, changed, "start_lineage() came between");
	step(ACT_CLOSE, fine(), "begin anew");
}

/* The progress record is ours: its refusal judges no event. */
static void
test_own_record(void)
{
	RelayResult sent = fine();
	RelayResult refused = failed(KAFKA_REFUSED, 10, "too large");

	ready(1, 2);
	sent.events = 1;
	sent.last_seq = 7;
	sent.reached = found(2).progress;
	step(ACT_PUBLISH, sent, "publish one event");
	refused.own_record = true;
	step(ACT_COMMIT, refused, "the progress record is refused");
	is_int(machine.state, RELAY_CLOSED, "no dead letter");
	ok(machine.health.trouble, "but trouble");
}

int
main(void)
{
	test_order_of_start();
	test_stops();
	test_doubts();
	test_fencing();
	test_too_old();
	test_outage_tears_nothing();
	test_busy();
	test_claim();
	test_lineage_changes();
	test_own_record();
	return done_testing();
}
