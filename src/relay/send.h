/*-------------------------------------------------------------------------
 *
 * send.h
 *	  From an event to a record of the Kafka client.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_SEND_H
#define RELAY_SEND_H

#include "postgres.h"

#include "outbox/batch.h"
#include "relay/link.h"
#include "relay/progress.h"

#define SENDER_HOLD_RECORDS	64

typedef struct HeldRecord HeldRecord;

/* The records of one Kafka transaction. */
typedef struct Sender
{
	RelayLink  *link;
	char	   *event_source;	/* CloudEvents' source; in TopMemoryContext */
	WireBuffer	value;			/* of the event at hand */
	HeldRecord *held[SENDER_HOLD_RECORDS];
	int			n_held;
	size_t		held_bytes;
	bool		streaming;		/* what was held has been sent */
} Sender;

/*
 * Enqueue an event, or hold it back for the moment.  spread chooses the
 * partition of an event without a key.  bytes grows by what the record takes
 * on the wire.
 */
extern KafkaOutcome sender_event(Sender *sender, StoredEvent *event,
								 const RelayTopic *topic, int64 spread,
								 int64 *bytes, KafkaError *error);

/* Enqueue what is held. */
extern KafkaOutcome sender_flush(Sender *sender, KafkaError *error);

/* Enqueue what is held and right behind it the progress record. */
extern KafkaOutcome sender_progress(Sender *sender, const Progress *place,
									KafkaError *error);

/* The transaction is over, or is given up. */
extern void sender_reset(Sender *sender);

#endif							/* RELAY_SEND_H */
