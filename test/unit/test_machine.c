/*-------------------------------------------------------------------------
 *
 * test_machine.c
 *	  The relay's state machine against a small model of PostgreSQL and Kafka.
 *
 * The model commits Kafka transactions, loses answers, lets an EndTxn arrive
 * late, fences, and kills the relay between any two actions; all of it from a
 * seed.  At the end every event stands in the topic once, in order.  Compiled
 * with -DMUTANT_READ_FIRST the machine reads progress before it fences, and
 * this test must fail (as READ_FIRST in test/model/relay.pml).
 *
 *-------------------------------------------------------------------------
 */
#include "relay/machine.h"

#include <stdlib.h>

#include "tap.h"

#define EVENTS		40
#define PER_TICK	4

/* --- the model --- */

typedef struct Model
{
	unsigned	seed;
	/* PostgreSQL: events 1..events exist, ticks 1..ticks cover PER_TICK each */
	int			events;
	int			ticks;
	int			confirmed;
	/* Kafka */
	bool		topic;
	bool		born;
	int			epoch;
	int			log[EVENTS * 4];
	int			log_len;
	Progress	record;			/* committed; lineage "" when there is none */
	bool		open;			/* a transaction of the current epoch */
	int			open_from;
	int			open_to;
	Progress	open_record;
	bool		late;			/* an EndTxn is under way */
	int			late_epoch;
	/* the relay's handle */
	int			my_epoch;		/* 0: not initialised */
	int			poison;			/* event that Kafka refuses, 0: none */
	int			dead;			/* event that was judged */
	bool		reachable;
} Model;

static int
chance(Model *model, int of)
{
	return rand_r(&model->seed) % of == 0;
}

/* The batch of a refused event never was in the log: nothing to commit. */
static bool
poisoned(const Model *model)
{
	return model->poison >= model->open_from && model->poison <= model->open_to &&
		model->poison != model->dead;
}

static void
apply(Model *model)
{
	for (int event = model->open_from; event <= model->open_to; event++)
		if (event != model->dead)
			model->log[model->log_len++] = event;
	model->record = model->open_record;
	model->open = false;
}

/* A late EndTxn arrives at some time, or is found fenced. */
static void
network(Model *model)
{
	if (model->late && chance(model, 3))
	{
		model->late = false;
		if (model->open && model->late_epoch == model->epoch)
			apply(model);
	}
}

static int
place_of(const Progress *place)
{
	return place->complete ? (int) place->tick * PER_TICK : (int) place->seq;
}

static void
publish(Model *model, RelayMachine *machine, RelayResult *result)
{
	int			from = place_of(&machine->place) + 1;
	int			to = from - 1;
	int			sent = 0;

	while (to < model->ticks * PER_TICK && sent < machine->pace.events)
	{
		to++;
		if (to != model->dead)
			sent++;
	}
	strcpy(result->reached.lineage, "l");
	strcpy(result->reached.home, "h");
	result->reached.tick = (to + PER_TICK - 1) / PER_TICK;
	snprintf(result->reached.nonce, sizeof(result->reached.nonce), "n%d",
			 (int) result->reached.tick);
	result->reached.complete = to % PER_TICK == 0;
	result->reached.seq = result->reached.complete ? 0 : to;
	result->events = sent;
	if (sent == 0)
		return;
	if (model->my_epoch != model->epoch)
	{
		result->outcome = DONE_FENCED;
		result->message = "fenced";
		return;
	}
	model->open = true;
	model->open_from = from;
	model->open_to = to;
	model->open_record = result->reached;
}

static void
commit(Model *model, RelayResult *result)
{
	if (model->my_epoch != model->epoch || !model->open)
	{
		result->outcome = DONE_FENCED;
		result->message = "fenced";
	}
	else if (poisoned(model))
	{
		result->outcome = DONE_REFUSED;
		result->message = "message too large";
	}
	else if (chance(model, 8))
	{
		/* the answer is lost: applied, never to be, or still under way */
		int			fate = rand_r(&model->seed) % 3;

		if (fate == 0)
			apply(model);
		else if (fate == 1)
		{
			model->late = true;
			model->late_epoch = model->epoch;
		}
		result->outcome = DONE_UNCERTAIN;
		result->message = "connection lost";
	}
	else
		apply(model);
}

static void
perform(Model *model, RelayMachine *machine, RelayAction action, RelayResult *result)
{
	result->outcome = DONE_OK;
	if (!model->reachable && action != ACT_MAKE_TICK && action != ACT_CLOSE &&
		action != ACT_OPEN && action != ACT_COMPARE && action != ACT_DEAD_LETTER)
	{
		result->outcome = DONE_UNREACHABLE;
		result->message = "no broker";
		return;
	}
	switch (action)
	{
		case ACT_CLOSE:
			model->my_epoch = 0;
			break;
		case ACT_CHECK:
			result->topic_exists = model->topic;
			result->born = model->born;
			result->same_cluster = true;
			break;
		case ACT_CREATE_PROGRESS_TOPIC:
			model->topic = true;
			break;
		case ACT_RECORD_BIRTH:
			model->born = true;
			break;
		case ACT_READ_PROGRESS:
			result->found = model->record.lineage[0] != '\0';
			result->readable = true;
			result->progress = model->record;
			break;
		case ACT_COMPARE:
			result->lineage_matches = true;
			result->home_acceptable = true;
			result->tick_known = machine->pending.tick <= model->ticks;
			result->confirmed = model->confirmed;
			result->newest_tick = model->ticks;
			break;
		case ACT_INIT:
			/* fences, and aborts what is open */
			model->my_epoch = ++model->epoch;
			model->open = false;
			break;
		case ACT_MAKE_TICK:
			if (model->events >= (model->ticks + 1) * PER_TICK)
			{
				model->ticks++;
				if (machine->state == RELAY_READY)
					model->confirmed = machine->place.complete ?
						(int) machine->place.tick : (int) machine->place.tick - 1;
			}
			result->newest_tick = model->ticks;
			break;
		case ACT_PUBLISH:
			publish(model, machine, result);
			break;
		case ACT_COMMIT:
			commit(model, result);
			break;
		case ACT_DEAD_LETTER:
			model->dead = model->poison;
			break;
		default:
			break;
	}
}

static RelayLimits
limits(void)
{
	RelayLimits made = {
		.max_events = 7, .max_bytes = 1000000, .transaction_timeout_ms = 1000,
		.poll_interval_ms = 50, .transactions = true, .require_verification = true
	};

	return made;
}

/* Run one random history; true when every event stands in the log, once. */
static bool
history(unsigned seed, int poison, int *crashes)
{
	Model		model = {.seed = seed, .poison = poison, .reachable = true};
	RelayMachine machine;
	RelayLimits l = limits();
	int64_t		now = 1000000;
	bool		order = true;
	int			expected = EVENTS - (poison ? 1 : 0);

	*crashes = 0;
	relay_machine_init(&machine, &l);
	for (int step = 0; step < 20000; step++)
	{
		RelayInput	input = {0};
		RelayResult result = {0};
		RelayAction action;
		int64_t		until;
		bool		quiet = step > 3000;	/* then no faults: it must drain */

		now += 1000 * (1 + rand_r(&model.seed) % 5);
		network(&model);
		if (model.events < EVENTS && chance(&model, 3))
		{
			model.events++;
			input.wake = true;
		}
		input.now = now;
		input.wake |= quiet || chance(&model, 5);
		input.tainted = machine.open && !quiet && chance(&model, 30);
		if (!quiet && chance(&model, 100))
			model.reachable = !model.reachable;
		if (quiet)
			model.reachable = true;

		action = relay_machine_next(&machine, &input, &until);
		if (action == ACT_WAIT)
		{
			if (quiet && model.events == EVENTS && relay_machine_idle(&machine))
				break;
			if (until > now)
				now = until;
			else if (quiet)
				now += 50000;
		}
		else
		{
			bool		crash = !quiet && chance(&model, 40);

			/* a crash before, or after the action and before its result */
			if (!crash || chance(&model, 2))
				perform(&model, &machine, action, &result);
			if (crash)
			{
				(*crashes)++;
				relay_machine_init(&machine, &l);
				model.my_epoch = 0;
				/* an EndTxn may be under way when a process dies */
				if (model.open && !poisoned(&model) && chance(&model, 2))
				{
					model.late = true;
					model.late_epoch = model.epoch;
				}
				continue;
			}
			relay_machine_done(&machine, action, &result, now);
		}
		if (machine.state == RELAY_STOPPED)
		{
			diag("seed %u: stopped: %s", seed, machine.stop_reason);
			return false;
		}
	}
	for (int i = 1; i < model.log_len; i++)
		order &= model.log[i] > model.log[i - 1];
	if (model.log_len != expected || !order)
	{
		diag("seed %u: %d events in the log, expected %d, state %s", seed,
			 model.log_len, expected, relay_state_name(&machine));
		return false;
	}
	return true;
}

static void
test_histories(void)
{
	int			good = 0;
	int			crashes = 0;
	int			n = 4000;

	for (unsigned seed = 1; seed <= (unsigned) n; seed++)
	{
		int			c;

		good += history(seed, seed % 4 == 0 ? 1 + (int) (seed % EVENTS) : 0, &c);
		crashes += c;
	}
	is_int(good, n, "every event once and in order, whatever happens");
	ok(crashes > n, "the histories had crashes (%d)", crashes);
}

/* --- single rules --- */

static RelayMachine machine;

/* Ask, expect this action, and answer. */
static void
step(RelayAction expected, RelayResult result, const char *name)
{
	static int64_t now = 0;
	RelayInput	input = {.now = now += 10000000};
	int64_t		until;
	RelayAction action = relay_machine_next(&machine, &input, &until);

	is_int(action, expected, name);
	if (action != ACT_WAIT)
		relay_machine_done(&machine, action, &result, now);
}

static RelayResult
fine(void)
{
	RelayResult result = {.outcome = DONE_OK, .same_cluster = true,
		.topic_exists = true, .born = true, .readable = true,
	.lineage_matches = true, .home_acceptable = true, .tick_known = true};

	return result;
}

static void
start(void)
{
	RelayLimits l = limits();

	relay_machine_init(&machine, &l);
	step(ACT_OPEN, fine(), "open");
}

static void
test_order_of_start(void)
{
	RelayResult result = fine();

	strcpy(result.progress.lineage, "l");
	result.found = true;
	result.progress.complete = true;
	start();
	step(ACT_CHECK, fine(), "check the cluster");
	step(ACT_READ_PROGRESS, result, "advisory read");
	step(ACT_COMPARE, fine(), "compare, before anything is fenced");
	step(ACT_INIT, fine(), "init_transactions");
	is_int(machine.state, RELAY_AUTHORITATIVE, "then the authoritative read");
	step(ACT_READ_PROGRESS, result, "authoritative read");
	step(ACT_COMPARE, fine(), "compare");
	is_int(machine.state, RELAY_READY, "ready");
}

/* The states in which nothing may be fenced. */
static void
test_stops(void)
{
	RelayResult result = fine();
	RelayResult other;

	strcpy(result.progress.lineage, "l");
	result.found = true;

	for (int i = 0; i < 3; i++)
	{
		other = fine();
		if (i == 0)
			other.home_acceptable = false;
		else if (i == 1)
			other.tick_known = false;
		else
			other.lineage_matches = false;
		start();
		step(ACT_CHECK, fine(), "check");
		step(ACT_READ_PROGRESS, result, "advisory read");
		step(ACT_COMPARE, other, "compare");
		is_int(machine.state, RELAY_STOPPED, "a contradiction stops");
		step(ACT_CLOSE, fine(), "the handle goes");
		step(ACT_WAIT, fine(), "and nothing is fenced");
		ok(machine.stop_remedy[0] != '\0', "a remedy is named");
	}

	start();
	other = fine();
	other.topic_exists = false;
	step(ACT_CHECK, other, "check: the topic is missing");
	is_int(machine.state, RELAY_STOPPED, "a lost progress topic stops");

	start();
	other = fine();
	other.same_cluster = false;
	step(ACT_CHECK, other, "check: another cluster");
	is_int(machine.state, RELAY_STOPPED, "another cluster stops");

	start();
	step(ACT_CHECK, fine(), "check");
	step(ACT_READ_PROGRESS, fine(), "nothing found");
	step(ACT_INIT, fine(), "init");
	step(ACT_READ_PROGRESS, fine(), "nothing found");
	other = fine();
	other.confirmed = 5;
	step(ACT_COMPARE, other, "compare with confirmed ticks");
	is_int(machine.state, RELAY_STOPPED, "lost progress stops");

	start();
	other = fine();
	other.does_not_verify = true;
	step(ACT_CHECK, other, "check: no verification");
	is_int(machine.state, RELAY_CLOSED, "a broker without verification is not used");
}

static void
test_fencing(void)
{
	RelayResult fenced = {.outcome = DONE_FENCED, .message = "fenced"};
	int			times = 0;

	while (machine.state != RELAY_STOPPED && times < 20)
	{
		start();
		machine.fenced = times++;
		step(ACT_CHECK, fine(), "check");
		step(ACT_READ_PROGRESS, fine(), "advisory read");
		step(ACT_INIT, fenced, "fenced");
	}
	ok(times >= 3 && times <= 7, "fenced again and again stops after a few times");
}

int
main(void)
{
	test_order_of_start();
	test_stops();
	test_fencing();
	test_histories();
	return done_testing();
}
