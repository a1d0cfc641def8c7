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

/* How many events a single transaction of the database may have after being late. */
static int64_t
part_after(int64_t events, int times)
{
	ready(1, 2);
	for (int i = 0; i < times; i++)
		pace_late(&machine.pace, events, true);
	return machine.pace.part_events;
}

static void
test_late(void)
{
	int64_t		whole = part_after(2, 0);

	is_int(part_after(3, 10), whole, "a small transaction is never cut for being late");
	is_int(part_after(5000, 1), whole, "nor is a large one at once: Kafka may have been away");
	is_int(part_after(5000, 2), 2500, "it is when it is late again");
	ready(1, 2);
	pace_late(&machine.pace, 5000, true);
	pace_committed(&machine.pace, false);
	pace_late(&machine.pace, 5000, true);
	is_int(machine.pace.part_events, whole, "and what went well in between counts");
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

/* What standbys do not have is not published; a wait that lasts is told. */
static void
test_standbys(void)
{
	RelayInput	input = {.hold = true, .safe_tick = 1};
	RelayAction action;
	RelayResult sent = fine();
	int64_t		began;
	int			looks = 0;

	ready(1, 3);
	machine.limits.standbys = 2;
	now += 1000000;
	began = now;
	while (now < began + 10000000)
	{
		action = ask(input);
		if (!ok(action.kind == ACT_WAIT && action.wait_until > now && action.wait_until <= now + 50000, "it waits, and looks again"))
			return;
		looks++;
		now = action.wait_until;
	}
	ok(looks < 400, "ever more seldom (%d times in ten seconds)", looks);
	ok(machine.health.trouble && strstr(machine.health.message, "2 standby(s)"), "the status says for whom");
	is_text(relay_shown_name(relay_machine_shown(&machine)), "waiting for a standby", "and so does the state");
	is_int(relay_machine_news(&machine, now), NEWS_TROUBLE, "the log is told");

	/* events are cut into a batch meanwhile, once */
	input.wake = true;
	action = ask(input);
	is_int(action.kind, ACT_MAKE_TICK, "a tick is made meanwhile");
	sent.newest_tick = 4;
	answer(action, sent);
	action = ask(input);
	is_int(action.kind, ACT_WAIT, "and no further one");
	input.wake = false;

	/* one of them has come */
	input.safe_tick = 2;
	action = ask(input);
	is_int(action.kind, ACT_PUBLISH, "what they have is published");
	is_int(action.through_tick, 2, "and nothing beyond");
	sent.events = 5;
	sent.reached = found(2).progress;
	answer(action, sent);
	action = ask(input);
	is_int(action.kind, ACT_COMMIT, "committed");
	answer(action, fine());
	is_int(relay_machine_news(&machine, now), NEWS_FINE, "and told");
	now += 1000000;
	action = ask(input);
	is_int(action.kind, ACT_MAKE_TICK, "what came meanwhile becomes a tick");
	sent.newest_tick = 5;
	answer(action, sent);
	is_int(ask(input).kind, ACT_WAIT, "and waits like the former one");
	ok(!machine.health.trouble, "which is no trouble yet");

	/* inside a tick that they have had */
	input.safe_tick = 0;
	machine.place.complete = false;
	is_int(ask(input).kind, ACT_WAIT, "a part of a tick waits like a whole one");
	input.hold = false;
	action = ask(input);
	is_int(action.kind, ACT_PUBLISH, "without the setting nobody is waited for");
	ok(action.through_tick == INT64_MAX, "whatever the tick");
}

/* Kafka knows more than the database: what, and which way on. */
static void
test_behind(void)
{
	RelayResult read = found(103);
	RelayResult behind = fine();

	read.progress.last_seq = 1033;
	behind.tick_known = false;
	behind.home_same = false;
	behind.home_descends = true;
	behind.newest_tick = 105;
	behind.common_known = true;
	behind.common_tick = 100;
	behind.common_seq = 1000;
	for (int i = 0; i < 4; i++)
	{
		if (i == 1)
			behind.common_seq = 0;
		if (i == 2)
			behind.common_known = false;
		if (i == 3)
			behind.home_descends = false;
		start();
		step(ACT_CHECK, fine(), "check");
		step(ACT_READ_PROGRESS, read, "advisory read");
		step(ACT_COMPARE, behind, "compare");
		is_int(machine.state, RELAY_STOPPED, "stopped");
		ok(strstr(machine.health.message, "does not know") && strstr(machine.health.remedy, "start_lineage"), "it says why");
		ok((strstr(machine.health.message, "about 33 events, seq 1001 to 1033") != NULL) == (i == 0), "and how many, if that is known");
		ok((strstr(machine.health.message, "ticks 101 to 103") != NULL) == (i < 2), "and which ticks");
		ok(strlen(machine.health.message) < 256 && strlen(machine.health.remedy) < 256, "in the room that the status has");
		ok((strstr(machine.health.message, "failover") != NULL) == (i < 3), "how that came about");
		ok(strstr(machine.health.remedy, "claim") == NULL, "claiming would not help");
	}

	/* the former primary */
	behind.home_later = true;
	behind.tick_known = true;
	start();
	step(ACT_CHECK, fine(), "check");
	step(ACT_READ_PROGRESS, read, "advisory read");
	step(ACT_COMPARE, behind, "compare");
	is_int(machine.state, RELAY_STOPPED, "the former primary stops");
	ok(strstr(machine.health.message, "was promoted") && strstr(machine.health.remedy, "pg_rewind"), "and becomes a standby");
	ok(strlen(machine.health.message) < 256 && strlen(machine.health.remedy) < 256, "in the room that the status has");
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
	test_late();
	test_busy();
	test_standbys();
	test_behind();
	test_claim();
	test_lineage_changes();
	test_own_record();
	return done_testing();
}
