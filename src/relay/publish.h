/*-------------------------------------------------------------------------
 *
 * publish.h
 *	  Reading batches from the outbox and sending them to Kafka: one Kafka
 *	  transaction.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_PUBLISH_H
#define RELAY_PUBLISH_H

#include "postgres.h"

#include "outbox/batch.h"
#include "relay/counters.h"
#include "relay/link.h"
#include "relay/position.h"
#include "relay/send.h"

#define PUBLISH_TICKS	32

typedef struct Publisher
{
	RelayLink  *link;
	RelayPosition *position;
	char		instance[40];	/* this life of the relay, for the record */
	Sender		sender;

	Batch	   *batch;			/* being published, NULL: none */
	Tick		batch_tick;
	Tick		batch_prev;

	bool		progress_sent;	/* at_least_once: after the batch is delivered */
	unsigned int early;			/* kafka_producer_early() as seen last */
	int64		bytes;			/* in the open transaction */
	struct
	{
		TimestampTz since;
		int64		events;
	}			waited[PUBLISH_TICKS];	/* in it: events of each tick; the
										 * last one has all further ones */
	int			n_waited;
	RelayCounters *counters;
	int64		bytes_published;
	KafkaError	error;			/* of the last action */
	char		problem[HEALTH_TEXT];	/* of an unreadable event */
} Publisher;

/* A new handle: nothing of the former one is under way. */
extern void publisher_reset(Publisher *publisher);

/*
 * Begin a Kafka transaction at the action's place and fill it: nothing here
 * waits for the network.  With nothing to send no transaction is begun.
 */
extern void publisher_publish(Publisher *publisher, const RelayAction *action,
							  RelayResult *result);

/* End it, in slices. */
extern void publisher_commit(Publisher *publisher, const RelayAction *action,
							 RelayResult *result);

#endif							/* RELAY_PUBLISH_H */
