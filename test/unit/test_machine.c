/*-------------------------------------------------------------------------
 *
 * test_machine.c
 *	  The relay's state machine against a small model of PostgreSQL and Kafka.
 *
 * The model commits Kafka transactions, loses answers, lets an EndTxn arrive
 * late, fences, asks brokers that lag behind, moves the server, claims its
 * lineage or begins another one, and kills the relay between any two actions;
 * all of it from a seed.  At the end every event stands in its lineage's log
 * once, in order.  Compiled with -DMUTANTS and run with MUTANT=read_first the
 * machine reads progress before it fences, and this test must fail (as READ_FIRST in
 * test/model/relay.pml).
 *
 * HISTORIES=1000000 runs that many (4000); SEED begins elsewhere.
 *
 *-------------------------------------------------------------------------
 */
#include "relay/machine_internal.h"

#include <stdlib.h>
#include <time.h>

#include "mutants.h"
#include "tap.h"

#ifdef MUTANTS
char	   *setting_mutant;
#endif

#define EVENTS		40
#define TICKS		200
#define LINEAGES	4
#define LOG			(EVENTS * 8)
#define TICKETS		64

/* --- the model --- */

/* A progress topic and transactional.id. */
typedef struct Topic
{
	bool		exists;
	int			epoch;
	Progress	record[LINEAGES];	/* newest of each; lineage "": none */
	int			written[LINEAGES];	/* when: tells which one is newer */
	bool		open;			/* a transaction of the current epoch */
	int			open_lineage;
	int			open_from;
	int			open_to;
	bool		open_record_only;
	Progress	open_record;
	bool		late;			/* an EndTxn is under way */
	int			late_epoch;
} Topic;

typedef struct Model
{
	unsigned	seed;
	/* PostgreSQL: events 1..events exist, tick t covers those up to end[t] */
	int			events;
	int			ticks;
	int			end[TICKS + 1];
	int			table_confirmed;
	int			lineage;		/* the row ... */
	bool		born;
	bool		claimed;
	int			start_tick;
	int			row_confirmed;
	char		row_home[8];
	char		home[8];		/* where the server is */
	int			begins[LINEAGES];	/* events settled before the lineage */
	/* Kafka */
	bool		shared_topic;	/* named for the database, not the lineage */
	Topic		topics[LINEAGES];
	int			writes;
	int			log[LINEAGES][LOG];
	int			log_len[LINEAGES];
	bool		reachable;
	int			stale;			/* answers in a row that deny the topic */
	/* the relay's handle */
	int			my_lineage;		/* opened with */
	char		my_text[8];
	char		row_text[8];
	int			my_epoch;		/* 0: not initialised */
	int			poison;			/* event that Kafka refuses, 0: none */
	int			unreadable;		/* event that the relay cannot read */
	bool		dead[EVENTS + 1];
	/* outbox.wait_published */
	uint64_t	asked;
	int			asked_events[TICKETS];
	uint64_t	answered;
	bool		lied;
} Model;

static int
chance(Model *model, int of)
{
	return rand_r(&model->seed) % of == 0;
}

static Topic *
topic_of(Model *model, int lineage)
{
	return &model->topics[model->shared_topic ? 0 : lineage];
}

/* The batch of a refused event never was in the log: nothing to commit. */
static bool
poisoned(const Model *model, const Topic *topic)
{
	return !topic->open_record_only && model->poison >= topic->open_from &&
		model->poison <= topic->open_to && !model->dead[model->poison];
}

static void
apply(Model *model, Topic *topic)
{
	int			l = topic->open_lineage;

	for (int event = topic->open_from;
		 !topic->open_record_only && event <= topic->open_to; event++)
		if (!model->dead[event] && model->log_len[l] < LOG)
			model->log[l][model->log_len[l]++] = event;
	topic->record[l] = topic->open_record;
	topic->written[l] = ++model->writes;
	topic->open = false;
}

/* A late EndTxn arrives at some time, or is found fenced. */
static void
network(Model *model)
{
	for (int i = 0; i < LINEAGES; i++)
	{
		Topic	   *topic = &model->topics[i];

		if (topic->late && chance(model, 3))
		{
			topic->late = false;
			if (topic->open && topic->late_epoch == topic->epoch)
				apply(model, topic);
		}
	}
}

static int
place_of(const Model *model, const Progress *place)
{
	return place->complete ? model->end[place->tick] : (int) place->seq;
}

static int
tick_of(const Model *model, int event)
{
	int			tick = 1;

	while (model->end[tick] < event)
		tick++;
	return tick;
}

static void
row(Model *model, RelayResult *result)
{
	snprintf(model->row_text, sizeof(model->row_text), "l%d", model->lineage);
	result->lineage = model->row_text;
	result->claimed = model->claimed;
	result->newest_tick = model->ticks;
	result->start_tick = model->start_tick;
	result->confirmed = model->table_confirmed;
	if (model->row_confirmed > result->confirmed)
		result->confirmed = model->row_confirmed;
	if (model->start_tick > result->confirmed)
		result->confirmed = model->start_tick;
}

static void
publish(Model *model, const RelayAction *action, RelayResult *result)
{
	Topic	   *topic = topic_of(model, model->my_lineage);
	int			from = place_of(model, action->record) + 1;
	int			to = from - 1;
	int			sent = 0;

	result->reached = *action->record;
	while (!action->record_only && to < model->end[model->ticks] &&
		   sent < action->max_events)
	{
		if (to + 1 == model->unreadable && !model->dead[to + 1])
		{
			result->unreadable = true;
			result->unreadable_seq = to + 1;
			result->unreadable_tick = tick_of(model, to + 1);
			result->message = "no text";
			break;
		}
		to++;
		if (!model->dead[to])
		{
			sent++;
			result->last_seq = to;
		}
	}
	strcpy(result->reached.lineage, model->my_text);
	strcpy(result->reached.home, model->home);
	if (to >= from)
	{
		result->reached.tick = tick_of(model, to);
		result->reached.complete = to == model->end[result->reached.tick];
		result->reached.seq = result->reached.complete ? 0 : to;
	}
	snprintf(result->reached.nonce, sizeof(result->reached.nonce), "n%d",
			 (int) result->reached.tick);
	result->events = sent;
	if (sent == 0 && !action->record_only)
		return;
	if (model->my_epoch != topic->epoch)
	{
		result->outcome = KAFKA_FENCED;
		result->message = "fenced";
		return;
	}
	topic->open = true;
	topic->open_lineage = model->my_lineage;
	topic->open_from = from;
	topic->open_to = to;
	topic->open_record_only = action->record_only;
	topic->open_record = result->reached;
}

static void
commit(Model *model, RelayResult *result)
{
	Topic	   *topic = topic_of(model, model->my_lineage);

	if (model->my_epoch != topic->epoch || !topic->open)
	{
		result->outcome = KAFKA_FENCED;
		result->message = "fenced";
	}
	else if (poisoned(model, topic))
	{
		result->outcome = KAFKA_REFUSED;
		result->message = "message too large";
	}
	else if (chance(model, 8))
	{
		/* the answer is lost: applied, never to be, or still under way */
		int			fate = rand_r(&model->seed) % 3;

		if (fate == 0)
			apply(model, topic);
		else if (fate == 1)
		{
			topic->late = true;
			topic->late_epoch = topic->epoch;
		}
		result->outcome = KAFKA_UNCERTAIN;
		result->message = "connection lost";
	}
	else
		apply(model, topic);
}

static void
read_progress(Model *model, RelayResult *result)
{
	Topic	   *topic = topic_of(model, model->my_lineage);
	int			newest = -1;

	result->topic_exists = topic->exists;
	result->found = topic->record[model->my_lineage].lineage[0] != '\0';
	result->readable = true;
	result->progress = topic->record[model->my_lineage];
	for (int l = 0; l < LINEAGES; l++)
		if (l != model->my_lineage && topic->record[l].lineage[0] != '\0' &&
			topic->written[l] > topic->written[model->my_lineage] &&
			(newest < 0 || topic->written[l] > topic->written[newest]))
			newest = l;
	if (newest >= 0)
	{
		result->other_found = true;
		result->other = topic->record[newest];
	}
}

static void
compare(Model *model, const RelayAction *action, RelayResult *result)
{
	const char *home = action->record ? action->record->home : model->row_home;

	row(model, result);
	result->home_same = home[0] == '\0' || strcmp(home, model->home) == 0;
	if (action->record)
	{
		result->lineage_matches = strcmp(action->record->lineage, model->row_text) == 0;
		result->tick_known = action->record->tick <= model->ticks;
	}
	if (action->other)
		result->other_home_same = strcmp(action->other->home, model->home) == 0;
}

/* One answer may come from a broker that lags behind, not for ever. */
static bool
denied(Model *model)
{
	if (model->stale < 3 && chance(model, 12))
	{
		model->stale++;
		return true;
	}
	model->stale = 0;
	return false;
}

static bool
asks_kafka(RelayActionKind kind)
{
	switch (kind)
	{
		case ACT_CHECK:
		case ACT_CREATE_PROGRESS_TOPIC:
		case ACT_READ_PROGRESS:
		case ACT_INIT:
		case ACT_PREPARE_TOPIC:
		case ACT_PUBLISH:
		case ACT_COMMIT:
			return true;
		default:
			return false;
	}
}

static bool
machine_is_of(const Model *model)
{
	char		text[8];

	snprintf(text, sizeof(text), "l%d", model->lineage);
	return strcmp(model->my_text, text) == 0;
}

static void
perform(Model *model, const RelayAction *action, RelayResult *result)
{
	Topic	   *topic = topic_of(model, model->my_lineage);

	if (!model->reachable && asks_kafka(action->kind))
	{
		result->outcome = KAFKA_UNREACHABLE;
		result->message = "no broker";
		return;
	}
	switch (action->kind)
	{
		case ACT_OPEN:
			model->my_lineage = model->lineage;
			snprintf(model->my_text, sizeof(model->my_text), "l%d", model->lineage);
			row(model, result);
			break;
		case ACT_CLOSE:
			model->my_epoch = 0;
			break;
		case ACT_CHECK:
			result->topic_exists = topic->exists && !denied(model);
			result->born = model->lineage == model->my_lineage && model->born;
			result->same_cluster = true;
			break;
		case ACT_CREATE_PROGRESS_TOPIC:
			topic->exists = true;
			break;
		case ACT_RECORD_BIRTH:
			if (model->lineage == model->my_lineage)
			{
				model->born = true;
				strcpy(model->row_home, model->home);
			}
			row(model, result);
			break;
		case ACT_READ_PROGRESS:
			if (!denied(model))
				read_progress(model, result);
			break;
		case ACT_COMPARE:
			compare(model, action, result);
			break;
		case ACT_INIT:
			/* fences, and aborts what is open */
			model->my_epoch = ++topic->epoch;
			topic->open = false;
			break;
		case ACT_MAKE_TICK:
			result->ticket = model->asked;
			if (model->events > model->end[model->ticks])
			{
				model->end[++model->ticks] = model->events;
				/* what a former lineage has confirmed is not this one's */
				if (machine_is_of(model) && action->confirmed > model->table_confirmed)
					model->table_confirmed = (int) action->confirmed;
			}
			row(model, result);
			break;
		case ACT_PUBLISH:
			publish(model, action, result);
			break;
		case ACT_COMMIT:
			commit(model, result);
			break;
		case ACT_RECORD_HOME:
			if (model->lineage == model->my_lineage)
			{
				model->claimed = false;
				strcpy(model->row_home, model->home);
			}
			row(model, result);
			break;
		case ACT_RECORD_CONFIRMED:
			if (model->lineage == model->my_lineage)
				model->row_confirmed = (int) action->confirmed;
			row(model, result);
			break;
		case ACT_DEAD_LETTER:
			model->dead[action->refusal->seq] = true;
			break;
		case ACT_LOOK:
			row(model, result);
			break;
		case ACT_PREPARE_TOPIC:
		case ACT_WAIT:
			break;
	}
}

static RelayLimits
limits(void)
{
	RelayLimits made = {
		.max_events = 7, .max_bytes = 1000000, .transaction_timeout_ms = 60000,
		.poll_interval_ms = 50, .transactions = true, .require_verification = true
	};

	return made;
}

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
}

/* True when what a ticket promised stands in some lineage's log. */
static bool
all_published(const Model *model, int events)
{
	int			l = model->my_lineage;
	int			next = model->begins[l];

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
	if (!quiet && model->lineage < LINEAGES - 1 && chance(model, 400))
	{
		start_lineage(model, machine);
		return true;
	}
	return false;
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
			while (model->dead[next] && model->log[l][i] != next)
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

static void
crash(Model *model, RelayMachine *machine, const RelayLimits *l)
{
	relay_machine_init(machine, l);
	model->my_epoch = 0;
	model->my_text[0] = '\0';
	/* an EndTxn may be under way when a process dies */
	for (int i = 0; i < LINEAGES; i++)
	{
		Topic	   *topic = &model->topics[i];

		if (topic->open && !poisoned(model, topic) && chance(model, 2))
		{
			topic->late = true;
			topic->late_epoch = topic->epoch;
		}
	}
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
			model.events++;
			input.wake = true;
		}
		input.now = now;
		input.wake |= quiet || chance(&model, 5);
		input.wake |= people(&model, &machine, quiet);
		input.tainted = machine.open && !quiet && chance(&model, 30);
		input.restart = !quiet && chance(&model, 300);
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
				!model.claimed)
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

		/* what is confirmed stays confirmed, as long as the lineage is the same */
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
		diag("seed %u: not drained, state %s, %s", seed, relay_state_name(&machine),
			 machine.health.message);
	return complete(&model, seed) && !model.lied && relay_machine_idle(&machine) &&
		model.answered == model.asked;
}

static void
test_histories(void)
{
	const char *wanted = getenv("HISTORIES");
	const char *first = getenv("SEED");
	int			n = wanted ? atoi(wanted) : 4000;
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

/* --- single rules --- */

static RelayMachine machine;
static int64_t now;

static RelayAction
ask(RelayInput input)
{
	RelayAction action;

	input.now = now;
	relay_machine_next(&machine, &input, &action);
	return action;
}

static void
answer(RelayAction action, RelayResult result)
{
	relay_machine_done(&machine, &action, &result, now);
}

/* Ask, expect this action, and answer. */
static void
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

static RelayResult
fine(void)
{
	RelayResult result = {.same_cluster = true, .lineage = "l",
		.topic_exists = true, .born = true, .readable = true,
	.lineage_matches = true, .home_same = true, .tick_known = true};

	return result;
}

static RelayResult
found(int64_t tick)
{
	RelayResult result = fine();

	strcpy(result.progress.lineage, "l");
	result.found = true;
	result.progress.complete = true;
	result.progress.tick = tick;
	return result;
}

static RelayResult
failed(KafkaOutcome outcome, int kind, const char *message)
{
	RelayResult result = {.outcome = outcome, .kind = kind, .message = message,
	.remedy = "a remedy"};

	return result;
}

static void
start(void)
{
	RelayLimits l = limits();

	now = 1000000;
	relay_machine_init(&machine, &l);
	step(ACT_OPEN, fine(), "open");
}

/* Ready at that tick, of which newest is the newest. */
static void
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
#ifdef MUTANTS
	setting_mutant = getenv("MUTANT") ? getenv("MUTANT") : "";
#endif
	test_histories();
	test_order_of_start();
	test_stops();
	test_doubts();
	test_fencing();
	test_too_old();
	test_busy();
	test_claim();
	test_lineage_changes();
	test_health();
	test_own_record();
	return done_testing();
}
