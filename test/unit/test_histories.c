/*-------------------------------------------------------------------------
 *
 * test_histories.c
 *	  The relay's state machine in random histories of a small model.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The model (model.h) has faults of its own; here the server moves, people
 * claim its lineage or begin another one, and the relay is killed between any
 * two actions; all of it from a seed.  In others people park one of two topics and
 * unpark it.  At the end every event stands in its lineage's log once, in order;
 * what was aside some time, in the order of its topic.  Compiled with -DMUTANTS and run with
 * MUTANT=read_first the machine reads progress before it fences, and this test
 * must fail (as READ_FIRST in test/model/relay.pml); and so with early_unpark.
 *
 * HISTORIES=1000000 runs that many (2500); SEED begins elsewhere.
 *
 *-------------------------------------------------------------------------
 */
#include "relay/machine_internal.h"

#include <stdlib.h>
#include <time.h>

#include "machine_limits.h"
#include "model_actions.h"
#include "mutants.h"
#include "tap.h"

#ifdef MUTANTS
char	   *setting_mutant;
#endif

/* outbox.start_lineage('unconfirmed') */
static void
start_lineage(Model *model, const RelayMachine *machine)
{
	int			confirmed = model->table_confirmed;

	if (model->row_confirmed > confirmed)
		confirmed = model->row_confirmed;
	if (model->start_tick > confirmed)
		confirmed = model->start_tick;
	snprintf(model->row_text, sizeof(model->row_text), "l%d", model->lineage);
	if (strcmp(machine->lineage, model->row_text) == 0 && machine->confirmed > confirmed)
		confirmed = (int) machine->confirmed;
	model->lineage++;
	model->born = model->claimed = false;
	model->row_home[0] = '\0';
	model->start_tick = model->row_confirmed = confirmed;
	model->begins[model->lineage] = model->end[confirmed];
	flush(model);
}

/* The same where people park a topic. */
static bool
all_published_or_aside(const Model *model, int events)
{
	bool		there[EVENTS + 1] = {false};

	for (int i = 0; i < model->log_len[0]; i++)
		there[model->log[0][i]] = true;
	for (int i = 1; i <= model->n_items; i++)
		there[model->item[i]] |= model->aside[i];
	for (int event = 1; event <= events; event++)
		if (!there[event] && !model->dead[event])
			return false;
	return true;
}

/* True when what a ticket promised stands in some lineage's log. */
static bool
all_published(const Model *model, int events)
{
	int			l = model->my_lineage;
	int			next = model->begins[l];

	if (model->parks)
		return all_published_or_aside(model, events);
	for (int i = 0; i < model->log_len[l]; i++)
		if (model->log[l][i] > next)
			next = model->log[l][i];
	for (int event = next + 1; event <= events; event++)
		if (!model->dead[event])
			return false;
	return true;
}

static void
tickets(Model *model, const RelayMachine *machine)
{
	if (model->asked + 1 < TICKETS && chance(model, 20))
		model->asked_events[++model->asked] = model->events;
	if (machine->answered > model->answered)
	{
		model->answered = machine->answered;
		model->lied |= !all_published(model, model->asked_events[model->answered]);
	}
}

/* What people do: move the server, claim, begin a new lineage. */
static bool
people(Model *model, RelayMachine *machine, bool quiet)
{
	if (machine->state == RELAY_STOPPED &&
		strstr(machine->health.message, "written by another server") && !model->claimed)
	{
		model->claimed = true;
		return true;
	}
	if (model->parks)
		return false;
	if (!quiet && model->lineage < LINEAGES - 1 && chance(model, 400))
	{
		start_lineage(model, machine);
		return true;
	}
	return false;
}

/* A topic is parked or unparked, or unparked and parked again. */
static bool
parking(Model *model, bool quiet)
{
	if (!model->parks)
		return false;
	if (quiet ? model->parked && !model->leaving : model->parked && chance(model, 60))
		model->leaving = quiet || !model->leaving;
	else if (!quiet && !model->parked && model->unparks < UNPARKS && chance(model, 60))
		model->parked = true;
	else
		return false;
	return true;
}

/* Every event once: all in their order that were never aside, and each topic's. */
static bool
complete_with_parking(const Model *model, unsigned seed)
{
	int			times[EVENTS + 1] = {0};
	int			newest[2] = {0, 0};
	int			newest_straight = 0;

	for (int i = 0; i < model->log_len[0]; i++)
	{
		int			event = model->log[0][i];
		int		   *before = &newest[may_park(model, event)];

		times[event]++;
		if (event < *before)
		{
			diag("seed %u: event %d after %d of its topic", seed, event, *before);
			return false;
		}
		*before = event;
		if (model->was_aside[event])
			continue;
		if (event < newest_straight)
		{
			diag("seed %u: event %d after %d", seed, event, newest_straight);
			return false;
		}
		newest_straight = event;
	}
	for (int event = 1; event <= EVENTS; event++)
		if (times[event] != (model->dead[event] ? 0 : 1))
		{
			diag("seed %u: event %d is there %d times", seed, event, times[event]);
			return false;
		}
	return true;
}

/* Every event of the last lineage once, and no gap between lineages. */
static bool
complete(const Model *model, unsigned seed)
{
	for (int l = 0; l <= model->lineage; l++)
	{
		int			next = model->begins[l] + 1;
		int			last = l == model->lineage ? EVENTS : model->begins[l + 1];

		for (int i = 0; i < model->log_len[l]; i++, next++)
		{
			while (next <= EVENTS && model->dead[next] && model->log[l][i] != next)
				next++;
			if (model->log[l][i] != next)
			{
				diag("seed %u: lineage %d has event %d instead of %d", seed, l,
					 model->log[l][i], next);
				return false;
			}
		}
		while (next <= EVENTS && model->dead[next])
			next++;
		if (next <= last)
		{
			diag("seed %u: lineage %d ends before event %d of %d", seed, l, next, last);
			return false;
		}
	}
	return true;
}

/*
 * The server dies, too: what did not wait for the disk is gone, but what a tick
 * sees.  Events are whole transactions.
 */
static void
lose_commits(Model *model)
{
	int			kept = model->end[model->ticks];

	while (kept < model->n_items && chance(model, 2))
		kept = model->last[kept + 1];
	model->n_items = kept;
	model->events = 0;
	for (int i = 1; i <= kept; i++)
		if (model->item[i] > model->events)
			model->events = model->item[i];
	for (uint64_t i = 1; i <= model->asked; i++)
		if (model->asked_events[i] > model->events)
			model->asked_events[i] = model->events;
	model->tidied = model->durable_tidied;
	model->row_confirmed = model->durable_confirmed;
}

static void
crash(Model *model, RelayMachine *machine, const RelayLimits *l)
{
	bool		committing = machine->state == RELAY_COMMIT;
	Topic	   *topic = topic_of(model, model->my_lineage);

	relay_machine_init(machine, l);
	model->my_epoch = 0;
	model->my_text[0] = '\0';
	/* an EndTxn may be under way when a process dies */
	if (committing && topic->open && !poisoned(model, topic) && chance(model, 2))
	{
		topic->late = true;
		topic->late_epoch = topic->epoch;
	}
	if (chance(model, 2))
		lose_commits(model);
	if (chance(model, 12))
		snprintf(model->home, sizeof(model->home), "h%d", rand_r(&model->seed) % 100);
}

/* Run one random history; true when it went well. */
static bool
history(unsigned seed, int *crashes)
{
	Model		model = {.seed = seed, .reachable = true, .home = "h"};
	RelayMachine machine;
	RelayLimits l = limits();
	int64_t		now = 1000000;
	int			strangers = 0;
	int64_t		confirmed = 0;
	int			confirmed_lineage = 0;

	if (seed % 4 == 0)
		model.poison = 1 + (int) (seed / 4 % EVENTS);
	if (seed % 5 == 0)
		model.unreadable = 1 + (int) (seed / 5 % EVENTS);
	model.shared_topic = seed % 3 == 0;
	model.hold = seed % 7 == 0;
	model.parks = seed % 11 < 4;
	for (int event = 1; event <= EVENTS;)
	{
		int			last = event + rand_r(&model.seed) % 4;

		for (last = last < EVENTS ? last : EVENTS; event <= last; event++)
			model.through[event] = last;
	}
	*crashes = 0;
	relay_machine_init(&machine, &l);
	for (int step = 0; step < 20000; step++)
	{
		RelayInput	input = {0};
		RelayResult result = {0};
		RelayAction action;
		bool		quiet = step > 1500;	/* then no faults: it must drain */

		now += 1000 * (1 + rand_r(&model.seed) % 5);
		network(&model);
		if (model.events < EVENTS && chance(&model, 3))
		{
			add_events(&model);
			input.wake = true;
		}
		input.now = now;
		input.wake |= quiet || chance(&model, 5);
		input.wake |= people(&model, &machine, quiet);
		input.tainted = machine.open && !quiet && chance(&model, 30);
		if (model.hold && (quiet || chance(&model, 4)))
			model.standby = model.ticks;
		input.hold = model.hold;
		input.safe_tick = model.standby;
		input.restart = (!quiet && chance(&model, 300)) | parking(&model, quiet);
		input.retry = chance(&model, 100);
		if (!quiet && chance(&model, 100))
			model.reachable = !model.reachable;
		if (quiet)
			model.reachable = true;
		if (!quiet && strangers < FENCED_MOST && chance(&model, 300))
		{
			/* somebody else inits with our id */
			Topic	   *topic = topic_of(&model, model.my_lineage);

			strangers++;
			topic->epoch++;
			topic->open = false;
		}
		tickets(&model, &machine);

		relay_machine_next(&machine, &input, &action);
		if (action.kind == ACT_WAIT)
		{
			if (quiet && model.events == EVENTS && relay_machine_idle(&machine) &&
				!model.claimed && !model.parked)
				break;
			if (action.wait_until > now)
				now = action.wait_until;
			else if (quiet)
				now += 50000;
		}
		else
		{
			bool		dies = !quiet && chance(&model, 40);

			/* a crash before, or after the action and before its result */
			if (!dies || chance(&model, 2))
				perform(&model, &action, &result);
			if (dies)
			{
				(*crashes)++;
				crash(&model, &machine, &l);
				confirmed = 0;
				continue;
			}
			relay_machine_done(&machine, &action, &result, now);
		}
		if (machine.state == RELAY_STOPPED &&
			!strstr(machine.health.message, "written by another server") &&
			!strstr(machine.health.message, "used by another lineage"))
		{
			diag("seed %u: stopped: %s", seed, machine.health.message);
			return false;
		}
		if (machine.state == RELAY_STOPPED && model.shared_topic &&
			strstr(machine.health.message, "used by another lineage") && !model.claimed)
			model.claimed = true;	/* moved, and began a new lineage: its own */

		/*
		 * what is confirmed stays confirmed, as long as the lineage is the
		 * same
		 */
		if (model.my_lineage != confirmed_lineage)
			confirmed = 0;
		confirmed_lineage = model.my_lineage;
		if (machine.confirmed < confirmed && machine.lineage[0] != '\0' &&
			strcmp(machine.lineage, model.my_text) == 0)
		{
			diag("seed %u: confirmed fell from %d to %d", seed, (int) confirmed,
				 (int) machine.confirmed);
			return false;
		}
		confirmed = machine.confirmed;
	}
	if (model.lied)
		diag("seed %u: wait_published answered too early", seed);
	if (!relay_machine_idle(&machine))
		diag("seed %u: not drained, state %s, %s", seed, relay_shown_name(relay_machine_shown(&machine)),
			 machine.health.message);
	if (model.ahead)
		diag("seed %u: published what a standby lacks", seed);
	if (model.torn)
		diag("seed %u: a transaction was torn", seed);
	if (model.lost)
		diag("seed %u: what had left the outbox was wanted again", seed);
	return (model.parks ? complete_with_parking(&model, seed) : complete(&model, seed)) && !model.lied && !model.ahead && !model.torn && !model.lost && relay_machine_idle(&machine) &&
		model.answered == model.asked;
}

static void
test_histories(void)
{
	const char *wanted = getenv("HISTORIES");
	const char *first = getenv("SEED");
	int			n = wanted ? atoi(wanted) : 2500;
	unsigned	seed = first ? (unsigned) atoi(first) : 1;
	int			good = 0;
	long		crashes = 0;
	clock_t		began = clock();
	double		seconds;

	for (int i = 0; i < n; i++)
	{
		int			c;

		good += history(seed + (unsigned) i, &c);
		crashes += c;
	}
	seconds = (double) (clock() - began) / CLOCKS_PER_SEC;
	is_int(good, n, "every event once and in order, whatever happens");
	ok(crashes > n, "the histories had crashes (%ld)", crashes);
	diag("%d histories in %.1f s of processor time, %.0f a second", n, seconds,
		 n / (seconds > 0 ? seconds : 1));
}

int
main(void)
{
#ifdef MUTANTS
	setting_mutant = getenv("MUTANT") ? getenv("MUTANT") : "";
#endif
	test_histories();
	return done_testing();
}
