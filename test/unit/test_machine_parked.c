/*-------------------------------------------------------------------------
 *
 * test_machine_parked.c
 *	  The relay's state machine: topics whose events go aside, and come back.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "machine_steps.h"

/* Ready at tick 1 of 2, with a topic that is to leave. */
static void
ready_to_leave(bool paused)
{
	RelayResult opened = fine();
	RelayResult compared = fine();
	RelayLimits l = limits();

	now = 1000000;
	relay_machine_init(&machine, &l);
	opened.leaving = true;
	opened.paused = paused;
	compared.newest_tick = 2;
	step(ACT_OPEN, opened, "open");
	step(ACT_CHECK, fine(), "check");
	step(ACT_READ_PROGRESS, found(1), "advisory");
	step(ACT_COMPARE, compared, "compare");
	step(ACT_INIT, fine(), "init");
	step(ACT_READ_PROGRESS, found(1), "authoritative");
	step(ACT_COMPARE, compared, "compare");
}

static RelayResult
at(int64_t tick, int64_t events, int64_t aside)
{
	RelayResult result = fine();

	result.reached = found(tick).progress;
	result.events = events;
	result.aside = aside;
	return result;
}

static RelayResult
unparked(int64_t newest, bool leaving)
{
	RelayResult result = fine();

	result.newest_tick = newest;
	result.leaving = leaving;
	return result;
}

static void
test_order(void)
{
	RelayInput	input = {0};
	RelayAction action;

	/* what was ticked comes first, and stands in Kafka */
	ready_to_leave(false);
	step(ACT_PUBLISH, at(2, 1, 1), "publish what was ticked");
	step(ACT_COMMIT, fine(), "commit it");
	action = ask(input);
	is_int(action.kind, ACT_UNPARK, "then what is aside is written again");
	is_int(action.confirmed, 2, "behind the newest tick");

	/* somebody is in the way */
	answer(action, unparked(2, true));
	action = ask(input);
	is_int(action.kind, ACT_WAIT, "blocked: not at once");
	ok(action.wait_until > now && action.wait_until <= now + 2000000, "but soon");
	now = action.wait_until;
	action = ask(input);
	is_int(action.kind, ACT_UNPARK, "again");

	/* a tick of its own, which is published like all others */
	answer(action, unparked(3, false));
	step(ACT_PUBLISH, at(3, 5, 0), "its tick is published");
	step(ACT_COMMIT, fine(), "and committed");
	action = ask(input);
	ok(action.kind != ACT_UNPARK, "once");
	is_int(machine.confirmed, 3, "it is confirmed");
}

/* A place of which Kafka does not know yet is none to come back at. */
static void
test_settled(void)
{
	RelayAction action;
	RelayInput	input = {.wake = true};

	ready_to_leave(false);
	step(ACT_PUBLISH, at(2, 0, 3), "all of it goes aside");
	action = ask(input);
	is_int(action.kind, ACT_PUBLISH, "then a record ...");
	ok(action.record_only, "... alone makes that known");
	answer(action, at(2, 0, 0));
	step(ACT_COMMIT, fine(), "it is committed");
	action = ask(input);
	is_int(action.kind, ACT_UNPARK, "now what is aside comes back, also when there is news");
}

static void
test_paused(void)
{
	RelayInput	input = {0};
	RelayAction action;
	RelayResult ticked = fine();

	ready_to_leave(true);
	action = ask(input);
	ok(action.kind != ACT_UNPARK && action.kind != ACT_PUBLISH, "paused: nothing is published, nor unparked");
	if (action.kind == ACT_RECORD_CONFIRMED)
		answer(action, fine());
	input.wake = true;
	action = ask(input);
	is_int(action.kind, ACT_MAKE_TICK, "resumed: the row is read");
	ticked.newest_tick = 2;
	answer(action, ticked);
	step(ACT_PUBLISH, at(2, 1, 0), "published");
	step(ACT_COMMIT, fine(), "committed");
	step(ACT_UNPARK, unparked(3, false), "and unparked");
}

/* Another lineage, or nothing that is to leave any more. */
static void
test_changed(void)
{
	RelayInput	input = {0};
	RelayResult other = unparked(2, true);

	ready_to_leave(false);
	step(ACT_PUBLISH, at(2, 1, 0), "published");
	step(ACT_COMMIT, fine(), "committed");
	other.lineage = "another";
	step(ACT_UNPARK, other, "start_lineage() was called meanwhile");
	is_int(ask(input).kind, ACT_CLOSE, "begin anew for that one");

	ready_to_leave(false);
	step(ACT_PUBLISH, at(2, 1, 0), "published");
	step(ACT_COMMIT, fine(), "committed");
	step(ACT_UNPARK, unparked(2, false), "it was parked again");
	ok(ask(input).kind != ACT_UNPARK, "nothing is to be done");
}

/* Whose trouble it is. */
static void
test_topic(void)
{
	RelayResult trouble = failed(KAFKA_TROUBLE, 3, "topic \"t\": not there");
	RelayResult needs = fine();

	ready(1, 2);
	needs.need_topic = true;
	needs.reached = found(1).progress;
	trouble.topic = "t";
	step(ACT_PUBLISH, needs, "a topic is needed");
	step(ACT_PREPARE_TOPIC, trouble, "which is not there");
	ok(strcmp(machine.health.topic, "t") == 0, "the topic is known");
	step(ACT_PREPARE_TOPIC, failed(KAFKA_UNREACHABLE, 4, "no broker"), "other trouble");
	ok(strcmp(machine.health.topic, "") == 0, "is not the topic's");
	step(ACT_PREPARE_TOPIC, trouble, "again");
	step(ACT_PREPARE_TOPIC, fine(), "it is there");
	needs = at(2, 1, 0);
	step(ACT_PUBLISH, needs, "published");
	step(ACT_COMMIT, fine(), "committed");
	ok(strcmp(machine.health.topic, "") == 0, "all is well");
}

int
main(void)
{
	test_order();
	test_settled();
	test_paused();
	test_changed();
	test_topic();
	return done_testing();
}
