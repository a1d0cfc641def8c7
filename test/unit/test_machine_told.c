/*-------------------------------------------------------------------------
 *
 * test_machine_told.c
 *	  The relay's state machine: what log and status are told, and what becomes of
 *	  the outbox.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "machine_steps.h"

/* Lasting trouble is told once, and ends when publishing works. */
static void
test_health(void)
{
	int			told = 0;
	int			fine_told = 0;
	RelayResult needs = fine();
	int64_t		end;

	ready(1, 2);
	needs.need_topic = true;
	needs.reached = found(1).progress;
	end = now + 60000000;
	while (now < end)
	{
		RelayInput	input = {.wake = true};
		RelayAction action = ask(input);
		RelayResult result = fine();

		result.newest_tick = 2;
		if (action.kind == ACT_WAIT)
			now = action.wait_until > now ? action.wait_until : now + 1000;
		else if (action.kind == ACT_PUBLISH)
			answer(action, needs);
		else if (action.kind == ACT_PREPARE_TOPIC)
			answer(action, failed(KAFKA_TROUBLE, 3, "topic does not exist"));
		else
			answer(action, result);
		now += 1000;
		switch (relay_machine_news(&machine, now))
		{
			case NEWS_TROUBLE:
				told++;
				break;
			case NEWS_FINE:
				fine_told++;
				break;
			case NEWS_NONE:
				break;
		}
	}
	is_int(told, 1, "a missing topic is logged once in a minute");
	is_int(fine_told, 0, "and never as mended");
	ok(machine.health.trouble, "the status says so all the time");
	ok(strcmp(machine.health.remedy, "a remedy") == 0, "with its own remedy");
	is_int(machine.open, true, "the handle is kept meanwhile");

	/* a commit that hangs is told, and connecting for long is never fine */
	ready(1, 2);
	needs = fine();
	needs.events = 1;
	needs.reached = found(2).progress;
	step(ACT_PUBLISH, needs, "publish");
	step(ACT_COMMIT, failed(KAFKA_PENDING, 0, ""), "the commit is pending");
	step(ACT_COMMIT, failed(KAFKA_PENDING, 0, ""), "still");
	ok(machine.health.trouble && machine.health.message[0] != '\0',
	   "a commit without an answer is trouble");
	step(ACT_COMMIT, fine(), "it is answered");
	ok(!machine.health.trouble, "fine again");

	start();
	step(ACT_CHECK, failed(KAFKA_PENDING, 0, ""), "connecting");
	step(ACT_CHECK, failed(KAFKA_PENDING, 0, ""), "connecting");
	ok(machine.health.trouble, "connecting for long is trouble");
}

/* From CHECK to a stop: this server is not at home. */
static void
stop_again(bool other_reason)
{
	RelayResult compared = fine();
	RelayResult read = found(5);

	compared.newest_tick = 5;
	if (other_reason)
		compared.tick_known = false;
	else
		compared.home_same = false;
	is_int(relay_machine_news(&machine, now), NEWS_NONE, "looking again is no news");
	step(ACT_CHECK, fine(), "check");
	ok(relay_machine_news(&machine, now) != NEWS_FINE, "nor is an answer on the way good news");
	step(ACT_READ_PROGRESS, read, "advisory read");
	step(ACT_COMPARE, compared, "compare");
	is_int(machine.state, RELAY_STOPPED, "stopped");
}

/* A stop is told once for each reason, and its end by who publishes again. */
static void
test_stop_told(void)
{
	RelayInput	again = {.retry = true};
	RelayResult compared = fine();

	compared.newest_tick = 5;
	start();
	stop_again(false);
	is_int(relay_machine_news(&machine, now), NEWS_TROUBLE, "it is told");
	step(ACT_CLOSE, fine(), "the handle goes");
	for (int i = 0; i < 3; i++)
	{
		RelayAction action = ask(again);

		is_int(action.kind, ACT_OPEN, "a reload: open");
		answer(action, compared);
		stop_again(i == 1);
		is_int(relay_machine_news(&machine, now), i == 1 ? NEWS_TROUBLE : NEWS_NONE,
			   i == 1 ? "another reason is told" : "the same is not told again");
		step(ACT_CLOSE, fine(), "the handle goes");
	}
	answer(ask(again), compared);
	step(ACT_CHECK, fine(), "check");
	step(ACT_READ_PROGRESS, found(5), "advisory read");
	step(ACT_COMPARE, compared, "compare");
	step(ACT_INIT, fine(), "init_transactions");
	is_int(relay_machine_news(&machine, now), NEWS_NONE, "not yet");
	step(ACT_READ_PROGRESS, found(5), "authoritative read");
	step(ACT_COMPARE, compared, "compare");
	is_int(relay_machine_news(&machine, now), NEWS_FINE, "now it publishes again");
}

/* What is in Kafka leaves the outbox: between transactions, when it is due. */
static void
test_tidy(void)
{
	RelayInput	input = {0};
	RelayResult result = fine();
	RelayAction action;

	tidying = true;
	ready(5, 5);
	machine.recorded = 5;
	action = ask(input);
	is_int(action.kind, ACT_TIDY, "a start looks once");
	is_int(action.confirmed, 5, "with what is confirmed");
	result.tidy_ms = 0;
	answer(action, result);
	action = ask(input);
	is_int(action.kind, ACT_TIDY, "another step at once");
	result.tidy_ms = 7000;
	answer(action, result);
	action = ask(input);
	is_int(action.kind, ACT_WAIT, "then later");
	is_int(action.wait_until, now + 7000000, "when it is due");
	now += 7000000;
	result.tidy_ms = TIDY_BLOCKED;
	for (int i = 0; i < 9; i++)
	{
		int64_t		before = now;

		action = ask(input);
		is_int(action.kind, ACT_TIDY, "tried again");
		answer(action, result);
		action = ask(input);
		ok(action.kind == ACT_WAIT && action.wait_until > now, "blocked: later");
		now = action.wait_until;
		is_int((now - before) / 1000000, i < 6 ? 1 << i : 60, "and later each time");
	}
	action = ask(input);
	result.tidy_ms = TIDY_NEVER;
	answer(action, result);
	action = ask(input);
	ok(action.kind == ACT_WAIT && action.wait_until < 0, "nothing to do: no timer");

	/* steps that never end hold up nothing */
	machine.tidy_at = now;
	result.tidy_ms = 0;
	action = ask(input);
	is_int(action.kind, ACT_TIDY, "one step");
	answer(action, result);
	now += 1000000;
	input.wake = true;
	action = ask(input);
	is_int(action.kind, ACT_MAKE_TICK, "then what waits");
	result = fine();
	result.newest_tick = 5;
	answer(action, result);
	input.wake = false;
	action = ask(input);
	is_int(action.kind, ACT_TIDY, "another step");
	result.tidy_ms = TIDY_NEVER;
	answer(action, result);

	/* a publication begins it again */
	now += 1000000;
	input.wake = true;
	action = ask(input);
	result = fine();
	result.newest_tick = 6;
	answer(action, result);
	input.wake = false;
	action = ask(input);
	is_int(action.kind, ACT_PUBLISH, "a batch");
	result = fine();
	result.events = 1;
	result.reached.tick = 6;
	result.reached.complete = true;
	answer(action, result);
	action = ask(input);
	answer(action, fine());
	ok(machine.tidy_at > now && machine.tidy_at <= now + 5000000, "and it is looked at again");

	/* the row of the lineage is in somebody's hands */
	now += 2000000;
	action = ask(input);
	is_int(action.kind, ACT_RECORD_CONFIRMED, "what is confirmed is written down");
	result = fine();
	result.recorded = false;
	answer(action, result);
	action = ask(input);
	ok(action.kind == ACT_WAIT && action.wait_until > now, "not in the way of who holds the row");
	now = action.wait_until;
	action = ask(input);
	is_int(action.kind, ACT_RECORD_CONFIRMED, "again later");
	answer(action, fine());
	is_int(machine.recorded, 6, "until it is written");

	/* also while Kafka is away, whose answer it is not */
	ready(5, 5);
	machine.recorded = 5;
	machine.tidy_at = now + 3600000000;
	input.wake = false;
	input.restart = true;
	action = ask(input);
	is_int(action.kind, ACT_CLOSE, "begin anew");
	answer(action, fine());
	input.restart = false;
	result = fine();
	result.newest_tick = 5;
	answer(ask(input), result);
	answer(ask(input), failed(KAFKA_UNREACHABLE, 7, "no broker"));
	answer(ask(input), fine());
	is_int(machine.state, RELAY_CLOSED, "waiting for Kafka");
	machine.tidy_at = now;
	action = ask(input);
	is_int(action.kind, ACT_TIDY, "what is confirmed leaves all the same");
	is_int(action.confirmed, 5, "and nothing else");
	result.tidy_ms = TIDY_NEVER;
	answer(action, result);
	ok(machine.health.trouble, "which mends nothing");
	action = ask(input);
	ok(action.kind == ACT_WAIT && action.wait_until > now, "then it waits on");
	tidying = false;
}

int
main(void)
{
	test_health();
	test_stop_told();
	test_tidy();
	return done_testing();
}
