/*-------------------------------------------------------------------------
 *
 * machine_steps.h
 *	  The relay's state machine, asked and answered step by step.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef MACHINE_STEPS_H
#define MACHINE_STEPS_H

#include "outbox/tidy.h"
#include "relay/machine_internal.h"

#include <stdlib.h>

#include "machine_limits.h"
#include "mutants.h"
#include "tap.h"

#ifdef MUTANTS
char	   *setting_mutant = "";
#endif

static RelayMachine machine;
static int64_t now;
static bool tidying;			/* else it is done aside, and there is nothing
								 * to do */

static inline RelayAction
ask(RelayInput input)
{
	RelayAction action;

	input.now = now;
	relay_machine_next(&machine, &input, &action);
	if (action.kind == ACT_TIDY && !tidying)
	{
		RelayResult nothing = {.tidy_ms = TIDY_NEVER};

		relay_machine_done(&machine, &action, &nothing, now);
		relay_machine_next(&machine, &input, &action);
	}
	return action;
}

static inline void
answer(RelayAction action, RelayResult result)
{
	relay_machine_done(&machine, &action, &result, now);
}

/* Ask, expect this action, and answer. */
static inline void
step(RelayActionKind expected, RelayResult result, const char *name)
{
	RelayInput	input = {0};
	RelayAction action;

	now += 10000000;
	action = ask(input);
	is_int(action.kind, expected, name);
	if (action.kind != ACT_WAIT)
		answer(action, result);
}

static inline RelayResult
fine(void)
{
	RelayResult result = {.same_cluster = true, .lineage = "l",
		.topic_exists = true, .born = true, .readable = true,
	.lineage_matches = true, .home_same = true, .tick_known = true, .recorded = true};

	return result;
}

static inline RelayResult
found(int64_t tick)
{
	RelayResult result = fine();

	strcpy(result.progress.lineage, "l");
	result.found = true;
	result.progress.complete = true;
	result.progress.tick = tick;
	return result;
}

static inline RelayResult
failed(KafkaOutcome outcome, int kind, const char *message)
{
	RelayResult result = {.outcome = outcome, .kind = kind, .message = message,
	.remedy = "a remedy"};

	return result;
}

static inline void
start(void)
{
	RelayLimits l = limits();

	now = 1000000;
	relay_machine_init(&machine, &l);
	step(ACT_OPEN, fine(), "open");
}

/* Ready at that tick, of which newest is the newest. */
static inline void
ready(int64_t tick, int64_t newest)
{
	RelayResult compared = fine();

	compared.newest_tick = newest;
	start();
	step(ACT_CHECK, fine(), "check the cluster");
	step(ACT_READ_PROGRESS, found(tick), "advisory read");
	step(ACT_COMPARE, compared, "compare, before anything is fenced");
	step(ACT_INIT, fine(), "init_transactions");
	is_int(machine.state, RELAY_AUTHORITATIVE, "then the authoritative read");
	step(ACT_READ_PROGRESS, found(tick), "authoritative read");
	step(ACT_COMPARE, compared, "compare");
	is_int(machine.state, RELAY_READY, "ready");
}

#endif							/* MACHINE_STEPS_H */
