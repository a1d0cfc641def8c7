/*-------------------------------------------------------------------------
 *
 * model_actions.h
 *	  What the relay's state machine has decided, done in the model.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef MODEL_ACTIONS_H
#define MODEL_ACTIONS_H

#include "model.h"

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
	int			newest = action->through_tick < model->ticks ? (int) action->through_tick : model->ticks;
	bool		sends[ITEMS + 1];

	result->reached = *action->record;
	/* the batch begins at the tick before the place, and reads from there on */
	if (place_of(model, action->record) < model->end[model->tidied])
		model->lost = true;
	while (!action->record_only && to < model->end[newest])
	{
		int			first = to + 1;
		int			last = model->last[first];
		int			before = sent;

		if (sent > 0 && sent + last - to > action->max_events)
			break;
		result->alone = sent == 0;
		for (; to < last; to++)
		{
			if (result->alone && sent >= action->part_events)
				break;
			int			event = model->item[to + 1];

			sends[to + 1] = false;
			if (model->dead[event])
				continue;
			if (model->my_parked && may_park(model, event) && event != model->unreadable)
			{
				/* committed with this, whatever becomes of the rest */
				model->aside[to + 1] = model->was_aside[event] = true;
				result->aside++;
				continue;
			}
			if (event == model->unreadable)
			{
				result->unreadable = true;
				result->torn = sent > before;
				result->unreadable_seq = to + 1;
				result->unreadable_tick = tick_of(model, to + 1);
				result->message = "no text";
				break;
			}
			sends[to + 1] = true;
			sent++;
			result->last_seq = to + 1;
		}
		if (to < last)
			break;
	}
	strcpy(result->reached.lineage, model->my_text);
	strcpy(result->reached.home, model->home);
	if (!action->record_only && to == model->end[newest])
	{
		/* of which the last ones may be empty */
		result->reached.tick = newest;
		result->reached.complete = true;
		result->reached.seq = result->reached.through = 0;
	}
	else if (to >= from)
	{
		result->reached.tick = tick_of(model, to);
		result->reached.complete = to == model->end[result->reached.tick];
		result->reached.seq = result->reached.complete ? 0 : to;
		result->reached.through = result->reached.complete ? 0 : model->last[to];
	}
	snprintf(result->reached.nonce, sizeof(result->reached.nonce), "n%d",
			 (int) result->reached.tick);
	result->events = sent;
	if (model->hold && sent > 0 && result->reached.tick > model->standby)
		model->ahead = true;
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
	for (int i = from; i <= to; i++)
		topic->open_sent[i] = sends[i];
	topic->open_alone = result->alone;
	topic->open_record_only = action->record_only;
	topic->open_record = result->reached;

	/* some of it has arrived, and nobody knows how much */
	if (chance(model, 60))
	{
		result->outcome = KAFKA_UNCERTAIN;
		result->message = "connection lost";
	}
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
	else if (chance(model, 40))
	{
		/* it has taken too long, and the broker has ended it */
		topic->open = false;
		topic->epoch++;
		result->outcome = KAFKA_FENCED;
		result->timed_out = true;
		result->message = "too old";	/* no reason to cut one */
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
read_progress(Model *model, bool stable, RelayResult *result)
{
	Topic	   *topic = topic_of(model, model->my_lineage);
	int			newest = -1;

	/* the last stable offset is not the end */
	if (stable && (topic->open || topic->markers))
	{
		result->outcome = KAFKA_PENDING;
		return;
	}
	result->topic_exists = topic->exists;
	result->found = topic->seen[model->my_lineage].lineage[0] != '\0';
	result->readable = true;
	result->progress = topic->seen[model->my_lineage];
	for (int l = 0; l < LINEAGES; l++)
		if (l != model->my_lineage && topic->seen[l].lineage[0] != '\0' &&
			topic->seen_written[l] > topic->seen_written[model->my_lineage] &&
			(newest < 0 || topic->seen_written[l] > topic->seen_written[newest]))
			newest = l;
	if (newest >= 0)
	{
		result->other_found = true;
		result->other = topic->seen[newest];
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

/* It was done, which nobody says. */
static void
lose_answer(Model *model, int of, RelayResult *result)
{
	if (!chance(model, of))
		return;
	result->outcome = KAFKA_UNREACHABLE;
	result->message = "connection lost";
}

static bool
machine_is_of(const Model *model)
{
	char		text[8];

	snprintf(text, sizeof(text), "l%d", model->lineage);
	return strcmp(model->my_text, text) == 0;
}

static void
load_parked(Model *model, RelayResult *result)
{
	model->my_parked = model->parked;
	model->my_leaving = model->leaving;
	result->leaving = model->my_leaving;
}

/*
 * What is aside becomes one transaction, which a tick of its own sees and nothing
 * else that is new; or all that is new is ticked first; or it cannot be written.
 */
static void
unpark(Model *model, const RelayAction *action)
{
	int			from = model->end[model->ticks];
	int			n = 0;
	int			again[ITEMS];

	model->row_confirmed = (int) action->confirmed;
	if (chance(model, 6))
	{
		model->end[++model->ticks] = model->n_items;
		flush(model);
		return;
	}
	if (chance(model, 8))
	{
		model->leaving = false;
		return;
	}
	for (int i = 1; i <= model->n_items; i++)
	{
		if (model->aside[i])
			again[n++] = model->item[i];
		model->aside[i] = false;
	}
	for (int i = model->n_items; i > from; i--)
	{
		model->item[i + n] = model->item[i];
		model->last[i + n] = model->last[i] + n;
	}
	for (int i = 0; i < n; i++)
	{
		model->item[from + 1 + i] = again[i];
		model->last[from + 1 + i] = from + n;
	}
	model->n_items += n;
	model->end[++model->ticks] = from + n;
	model->parked = model->leaving = false;
	model->unparks++;
	flush(model);
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
	/* not yet */
	if (asks_kafka(action->kind) && action->kind != ACT_PUBLISH && chance(model, 10))
	{
		result->outcome = KAFKA_PENDING;
		return;
	}
	switch (action->kind)
	{
		case ACT_OPEN:
			model->my_lineage = model->lineage;
			snprintf(model->my_text, sizeof(model->my_text), "l%d", model->lineage);
			row(model, result);
			load_parked(model, result);
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
			lose_answer(model, 5, result);
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
				read_progress(model, action->stable, result);
			break;
		case ACT_COMPARE:
			compare(model, action, result);
			break;
		case ACT_INIT:
			/* what is decided is finished first, the library waits for that */
			if (topic->markers)
			{
				result->outcome = KAFKA_PENDING;
				break;
			}
			/* fences, and aborts what is open */
			model->my_epoch = ++topic->epoch;
			topic->open = false;
			lose_answer(model, 20, result);
			break;
		case ACT_MAKE_TICK:
			result->ticket = model->asked;
			if (model->n_items > model->end[model->ticks])
			{
				model->end[++model->ticks] = model->n_items;
				/* what a former lineage has confirmed is not this one's */
				if (machine_is_of(model) && action->confirmed > model->table_confirmed)
					model->table_confirmed = (int) action->confirmed;
			}
			flush(model);
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
		case ACT_TIDY:
			/* only as long as the row is of the lineage that asks */
			if (model->lineage == model->my_lineage)
			{
				model->row_confirmed = (int) action->confirmed;
				if (action->confirmed > model->tidied)
					model->tidied = (int) action->confirmed;
			}
			result->tidy_ms = chance(model, 4) ? TIDY_BLOCKED : chance(model, 4) ? TIDY_NEVER :
				rand_r(&model->seed) % 3000;
			break;
		case ACT_RECORD_CONFIRMED:
			result->recorded = chance(model, 4) == 0;
			if (result->recorded && model->lineage == model->my_lineage)
				model->row_confirmed = (int) action->confirmed;
			flush(model);
			row(model, result);
			break;
		case ACT_DEAD_LETTER:
			model->dead[model->item[action->refusal->seq]] = true;
			flush(model);
			break;
		case ACT_LOOK:
			row(model, result);
			break;
		case ACT_UNPARK:
			load_parked(model, result);
			if (model->leaving && model->ticks == action->confirmed && machine_is_of(model) &&
				!chance(model, 4))
				unpark(model, action);
			load_parked(model, result);
			row(model, result);
			break;
		case ACT_PREPARE_TOPIC:
		case ACT_WAIT:
			break;
	}
}

#endif							/* MODEL_ACTIONS_H */
