/*-------------------------------------------------------------------------
 *
 * publish.c
 *	  Reading batches from the outbox and sending them to Kafka.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * One Kafka transaction carries events of one or several ticks and one
 * progress record.  It is cut between transactions of the database, so that
 * none is torn; only one that alone exceeds a limit is cut inside (or that alone
 * was refused or took too long).  Bytes are known only while reading: a
 * transaction of the database that begins below the limit is finished up to
 * twice that.
 *
 * Events are sent while the reading transaction is open: sending only
 * enqueues.  Nothing here waits for the network with a snapshot held.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fault.h"
#include "miscadmin.h"
#include "mutants.h"
#include "relay/publish.h"
#include "settings.h"
#include "worker/latency.h"
#include "worker/worker.h"

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */
static void
drop_batch(Publisher *publisher)
{
	if (publisher->batch != NULL)
	{
		batch_close(publisher->batch);
		publisher->batch = NULL;
	}
	tick_free(&publisher->batch_tick);
	tick_free(&publisher->batch_prev);
}

void
publisher_reset(Publisher *publisher)
{
	drop_batch(publisher);
	sender_reset(&publisher->sender);
	publisher->progress_sent = false;
	publisher->early = 0;
}

/*
 * Open the batch in which place stands, or the one after it, if it is not beyond
 * the last one allowed.  False: none.
 */
static bool
open_batch(Publisher *publisher, const Progress *place, int64 last)
{
	BatchPlace	from = {0};
	bool		found;

	if (publisher->batch != NULL)
		return true;
	if (place->complete)
		found = tick_next(place->tick, &publisher->batch_tick);
	else
	{
		from.through = place->through;
		from.seq = place->seq;
		from.xid = place->xid;
		found = tick_find(place->tick, &publisher->batch_tick);
	}
	if (!found)
		return false;
	if (publisher->batch_tick.tick_id > last)
	{
		tick_free(&publisher->batch_tick);
		return false;
	}
	if (!tick_find(publisher->batch_tick.tick_id - 1, &publisher->batch_prev))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("tick " INT64_FORMAT " is missing",
						publisher->batch_tick.tick_id - 1)));
	publisher->batch = batch_open(&publisher->batch_prev, &publisher->batch_tick, from);
	FAULT_POINT("batch_opened");
	return true;
}

/* event NULL: the whole tick is read. */
static void
set_place(Publisher *publisher, Progress *place, const StoredEvent *event)
{
	place->tick = publisher->batch_tick.tick_id;
	strlcpy(place->nonce, publisher->batch_tick.nonce, sizeof(place->nonce));
	place->complete = event == NULL;
	/* what is too long is left out; see position.c */
	if (event == NULL)
		(void) snapshot_print(&publisher->batch_tick.snapshot, UINT64_MAX,
							  place->snapshot, sizeof(place->snapshot));
	else
		place->last_seq = Max(place->last_seq, event->seq);
	place->seq = event ? event->seq : 0;
	place->through = event ? event->through : 0;
	place->xid = event ? event->xid : 0;
}

/* ------------------------------------------------------------------------
 * Sending
 * ------------------------------------------------------------------------
 */

/* What sending has come to, for one Kafka transaction. */
typedef struct Sending
{
	const RelayAction *action;
	RelayResult *result;
	int64		deadline_us;
	bool		begun;
	Progress	place;
	KafkaOutcome outcome;
} Sending;

static bool
begin(Publisher *publisher, Sending *sending)
{
	if (sending->begun)
		return true;
	sending->outcome = kafka_producer_begin(relay_link_sender(publisher->link),
											&publisher->error);
	sending->begun = sending->outcome == KAFKA_OK;
	return sending->begun;
}

/* Stop before an event that cannot be read: it is judged alone. */
static void
note_unreadable(Publisher *publisher, Sending *sending, const StoredEvent *event,
				bool torn)
{
	sending->result->torn = torn;
	strlcpy(publisher->problem, event->problem, sizeof(publisher->problem));
	sending->result->unreadable = true;
	sending->result->unreadable_seq = event->seq;
	sending->result->unreadable_tick = publisher->batch_tick.tick_id;
	sending->result->message = publisher->problem;
}

/* One more event of the batch in this transaction. */
static void
note_waited(Publisher *publisher)
{
	TimestampTz since = publisher->batch_tick.created_at;
	int			n = publisher->n_waited;

	if (n == 0 || (publisher->waited[n - 1].since != since && n < PUBLISH_TICKS))
	{
		publisher->waited[n].since = since;
		publisher->waited[n].events = 0;
		publisher->n_waited = ++n;
	}
	publisher->waited[n - 1].events++;
}

/* Send one event, or put it aside.  False: stop here. */
static bool
send_event(Publisher *publisher, Sending *sending, StoredEvent *event,
		   bool first_of_transaction)
{
	RelayResult *result = sending->result;
	const char *name = event->topic ? event->topic : setting_topic;
	RelayTopic *topic;

	if (parked_has(&publisher->position->parked, name))
	{
		parked_put(name, batch_row(publisher->batch));
		result->aside++;
		set_place(publisher, &sending->place, event);
		return true;
	}
	topic = relay_link_topic(publisher->link, name);
	/* a look at a topic that is in use cuts no transaction that has begun */
	if (topic->partitions == 0 || relay_link_reserved(publisher->link, topic->name) ||
		(result->events == 0 && watch_is_due(&topic->watch, worker_now_us())))
	{
		strlcpy(publisher->link->wanted, topic->name, sizeof(publisher->link->wanted));
		result->need_topic = true;
		result->torn = !first_of_transaction && result->events > 0;
		return false;
	}
	if (!begin(publisher, sending))
		return false;
	sending->outcome = sender_event(&publisher->sender, event, topic,
									publisher->batch_tick.tick_id,
									&publisher->bytes, &publisher->error);
	if (sending->outcome != KAFKA_OK && sending->outcome != KAFKA_REFUSED)
		return false;

	/* one that is refused counts as well: it is judged when it stands alone */
	result->events++;
	note_waited(publisher);
	result->last_seq = event->seq;
	set_place(publisher, &sending->place, event);
	FAULT_POINT("event_sent");
	if ((result->events & 1023) == 0)
		kafka_producer_poll(relay_link_sender(publisher->link));
	return sending->outcome == KAFKA_OK;
}

/*
 * Send the next transaction of the database, which has n events left.  False:
 * stop here, for the reason that stands in sending.
 */
static bool
send_transaction(Publisher *publisher, Sending *sending, int64 n)
{
	int64		before = sending->result->events;
	bool		alone = before == 0;
	StoredEvent event;

	sending->result->alone = alone;

	for (int64 i = 0; i < n; i++)
	{
		/* larger than one Kafka transaction may be */
		if (((alone || MUTANT("cut_anywhere")) && sending->result->events >= sending->action->part_events) ||
			publisher->bytes >= sending->action->part_bytes * 2)
			return false;
		if (!batch_next(publisher->batch, &event))
			return true;
		if (position_is_dead(publisher->position, event.seq))
			set_place(publisher, &sending->place, &event);
		else if (event.problem != NULL)
		{
			note_unreadable(publisher, sending, &event, sending->result->events > before);
			return false;
		}
		else if (!send_event(publisher, sending, &event, i == 0))
			return false;
	}
	return true;
}

static void
send_batches(Publisher *publisher, Sending *sending)
{
	const RelayAction *action = sending->action;

	while (open_batch(publisher, &sending->place, action->through_tick))
	{
		int64		n = batch_next_transaction(publisher->batch);

		CHECK_FOR_INTERRUPTS();
		if (n == 0)
		{
			set_place(publisher, &sending->place, NULL);
			drop_batch(publisher);
			continue;
		}
		if (sending->result->aside >= action->max_events)
			return;
		if (sending->result->events > 0 &&
			(sending->result->events + n > action->max_events ||
			 publisher->bytes >= action->max_bytes ||
			 worker_now_us() > sending->deadline_us) && !MUTANT("cut_anywhere"))
			return;
		if (!send_transaction(publisher, sending, n))
			return;
	}
}

/* The record that goes with the events; at_least_once sends it later. */
static KafkaOutcome
send_record(Publisher *publisher, const Progress *place)
{
	return publisher->link->plain != NULL ?
		sender_flush(&publisher->sender, &publisher->error) :
		sender_progress(&publisher->sender, place, &publisher->error);
}

void
publisher_publish(Publisher *publisher, const RelayAction *action,
				  RelayResult *result)
{
	Sending		sending = {.action = action, .result = result, .place = *action->record};

	sending.deadline_us = worker_now_us() + (int64) setting_transaction_timeout * 1000 / 3;
	memset(&publisher->error, 0, sizeof(publisher->error));
	publisher->bytes = 0;
	publisher->n_waited = 0;
	if (action->record_only)
		(void) begin(publisher, &sending);
	else
	{
		worker_begin("publishing");
		send_batches(publisher, &sending);
		if (publisher->batch != NULL)
			batch_pause(publisher->batch);
		worker_commit();
	}

	result->reached = sending.place;
	strlcpy(result->reached.lineage, publisher->position->opened,
			sizeof(result->reached.lineage));
	strlcpy(result->reached.home, publisher->position->home,
			sizeof(result->reached.home));
	strlcpy(result->reached.instance, publisher->instance,
			sizeof(result->reached.instance));
	if (sending.outcome == KAFKA_OK && sending.begun && !result->torn)
		sending.outcome = send_record(publisher, MUTANT("stale_progress") ?
									  action->record : &result->reached);
	FAULT_POINT("record_sent");
	sender_reset(&publisher->sender);

	/* an event was read and not sent */
	if (result->need_topic || result->unreadable || sending.outcome != KAFKA_OK)
		drop_batch(publisher);

	/* a queue that is full in the middle of a transaction: begin again */
	if (sending.outcome == KAFKA_PENDING)
		sending.outcome = KAFKA_UNCERTAIN;
	if (sending.outcome == KAFKA_OK)
		result->outcome = KAFKA_OK;
	else
		relay_answer(result, sending.outcome, &publisher->error);
}

/*
 * delivery = at_least_once: the progress record follows when the whole batch
 * is delivered, so what a crash leaves undecided is published again.
 */
static KafkaOutcome
deliver(Publisher *publisher, const Progress *place)
{
	KafkaOutcome outcome = kafka_producer_flush(publisher->link->plain,
												RELAY_SLICE_MS, &publisher->error);

	if (outcome != KAFKA_OK)
		return outcome;
	if (!publisher->progress_sent)
	{
		outcome = sender_progress(&publisher->sender, place, &publisher->error);
		if (outcome != KAFKA_OK)
			return outcome;
		publisher->progress_sent = true;
		return KAFKA_PENDING;
	}
	publisher->progress_sent = false;
	return KAFKA_OK;
}

void
publisher_commit(Publisher *publisher, const RelayAction *action,
				 RelayResult *result)
{
	RelayLink  *link = publisher->link;
	KafkaOutcome outcome;
	TimestampTz now;

	memset(&publisher->error, 0, sizeof(publisher->error));
	FAULT_POINT("end_asked");
	if (link->plain != NULL)
		outcome = deliver(publisher, action->record);
	else
		outcome = kafka_producer_commit(link->producer, RELAY_SLICE_MS,
										&publisher->error);
	if (outcome == KAFKA_PENDING)
		strlcpy(publisher->error.message,
				kafka_producer_last_trouble(relay_link_sender(link)),
				sizeof(publisher->error.message));
	relay_answer(result, outcome, &publisher->error);

	/* the progress record has no tag: its refusal is no event's fault */
	result->own_record = outcome == KAFKA_REFUSED &&
		kafka_producer_refused_tag(relay_link_sender(link)) == 0;
	if (outcome != KAFKA_OK)
		return;
	FAULT_POINT("end_answered");
	result->early = kafka_producer_early(link->producer) != publisher->early;
	publisher->early = kafka_producer_early(link->producer);
	publisher->bytes_published += publisher->bytes;
	now = GetCurrentTimestamp();
	for (int i = 0; i < publisher->n_waited; i++)
		latency_add(&publisher->counters->latency, publisher->waited[i].since, now,
					publisher->waited[i].events);
}
