/*-------------------------------------------------------------------------
 *
 * model.h
 *	  A small model of PostgreSQL and Kafka around one relay.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * From a seed it does
 *	 fencing		by the epoch of a transactional.id, and by strangers
 *	 late EndTxn	one whose connection is gone is applied at any time later
 *	 lost answers	to EndTxn, to a part of a transaction, to init_transactions, to
 *					the creation of a topic; and answers that keep one waiting
 *	 markers		a decided transaction becomes visible a while after its answer;
 *					who reads up to the last stable offset sees what was before
 *	 stale metadata	brokers that do not know the progress topic
 *	 time-outs		transactions that the broker has ended
 *	 homes, claims, lineages, of which several may share a topic
 *	 crashes		that take back commits which did not wait for the disk
 *	 parking		one of two topics is parked and unparked by people: its events go
 *					aside, and are written again
 * model_actions.h does what the relay's state machine has decided.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MODEL_H
#define MODEL_H

#include "machine_limits.h"
#include "outbox/tidy.h"
#include "relay/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS		40
#define ITEMS		(EVENTS * 4)	/* events, some of them written again */
#define UNPARKS		3
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
	Progress	seen[LINEAGES]; /* the same, up to the last stable offset */
	int			seen_written[LINEAGES];
	bool		markers;		/* are to be written: seen is older */
	bool		open;			/* a transaction of the current epoch */
	int			open_lineage;
	int			open_from;
	bool		open_alone;
	int			open_to;
	bool		open_sent[ITEMS + 1];
	bool		open_record_only;
	Progress	open_record;
	bool		late;			/* an EndTxn is under way */
	int			late_epoch;
} Topic;

typedef struct Model
{
	unsigned	seed;

	/*
	 * PostgreSQL: events 1..events exist.  They are read in the order of
	 * items (of which one is the same event, unless it was parked); tick t
	 * covers items up to end[t].  What is said of seq and places below is of
	 * items.
	 */
	int			events;
	int			n_items;
	int			item[ITEMS + 1];	/* its event */
	int			last[ITEMS + 2];	/* last item of the item's transaction */
	int			ticks;
	int			end[TICKS + 1];
	int			through[EVENTS + 2];	/* last event of the event's
										 * transaction */
	int			table_confirmed;
	int			lineage;		/* the row ... */
	bool		born;
	bool		claimed;
	int			start_tick;
	int			row_confirmed;
	char		row_home[8];
	char		home[8];		/* where the server is */
	int			begins[LINEAGES];	/* events settled before the lineage */
	int			tidied;			/* ticks before this one are gone, and what
								 * was in it and before */
	int			durable_tidied; /* a crash leaves this */
	int			durable_confirmed;
	bool		lost;			/* what is gone was wanted */
	bool		hold;			/* publish what a standby has: ticks up to */
	int			standby;		/* this one */
	bool		ahead;			/* something was published that it lacks */
	/* parking of one topic */
	bool		parks;			/* people do that here */
	bool		parked;
	bool		leaving;		/* outbox.unpark() was called */
	bool		aside[ITEMS + 1];
	bool		was_aside[EVENTS + 1];	/* some time */
	int			unparks;
	bool		my_parked;		/* as the relay has read it */
	bool		my_leaving;
	/* Kafka */
	bool		shared_topic;	/* named for the database, not the lineage */
	Topic		topics[LINEAGES];
	int			writes;
	int			log[LINEAGES][LOG];
	int			log_len[LINEAGES];
	bool		torn;			/* one that had no need to be */
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

/* Events of which topic may be parked? */
static bool
may_park(const Model *model, int event)
{
	return model->parks && event % 3 == 0;
}

/* The next transaction commits. */
static void
add_events(Model *model)
{
	int			last = model->through[model->events + 1];
	int			end = model->n_items + last - model->events;

	while (model->events < last)
	{
		model->item[++model->n_items] = ++model->events;
		model->last[model->n_items] = end;
	}
}

/* The batch of a refused event never was in the log: nothing to commit. */
static bool
poisoned(const Model *model, const Topic *topic)
{
	for (int i = topic->open_from; !topic->open_record_only && i <= topic->open_to; i++)
		if (topic->open_sent[i] && model->item[i] == model->poison && !model->dead[model->poison])
			return true;
	return false;
}

/* Is a transaction torn that is not refused? */
static bool
tears(const Model *model, const Topic *topic)
{
	int			last = topic->open_to;
	int			first = last;
	bool		sent = false;

	if (topic->open_record_only || last < topic->open_from || last == model->last[last])
		return false;
	while (first > 1 && model->last[first - 1] == model->last[last])
		first--;
	/* nothing of it is sent yet */
	for (int i = topic->open_from > first ? topic->open_from : first; i <= last; i++)
		sent |= topic->open_sent[i];
	if (!sent)
		return false;
	/* what was aside may be larger than a Kafka transaction */
	if (model->last[last] - first >= limits().max_events)
		return false;
	for (int i = first; i <= model->last[last]; i++)
		if (model->item[i] == model->poison)
			return false;
	return true;
}

/* What is decided is seen. */
static void
write_markers(Topic *topic)
{
	topic->markers = false;
	memcpy(topic->seen, topic->record, sizeof(topic->seen));
	memcpy(topic->seen_written, topic->written, sizeof(topic->seen_written));
}

/* All that was committed so far is on the disk. */
static void
flush(Model *model)
{
	model->durable_tidied = model->tidied;
	model->durable_confirmed = model->row_confirmed;
}

static void
apply(Model *model, Topic *topic)
{
	model->torn |= tears(model, topic);
	int			l = topic->open_lineage;

	for (int i = topic->open_from; !topic->open_record_only && i <= topic->open_to; i++)
		if (topic->open_sent[i] && model->log_len[l] < LOG)
			model->log[l][model->log_len[l]++] = model->item[i];
	topic->record[l] = topic->open_record;
	topic->written[l] = ++model->writes;
	topic->open = false;
	topic->markers = true;
	if (chance(model, 2))
		write_markers(topic);
}

/* A late EndTxn arrives at some time, or is found fenced. */
static void
network(Model *model)
{
	for (int i = 0; i < LINEAGES; i++)
	{
		Topic	   *topic = &model->topics[i];

		if (topic->markers && chance(model, 4))
			write_markers(topic);
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
tick_of(const Model *model, int item)
{
	int			tick = 1;

	while (model->end[tick] < item)
		tick++;
	return tick;
}

#endif							/* MODEL_H */
