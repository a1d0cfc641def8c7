/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  The messages of one transaction, decoded, before PostgreSQL sees them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Filled outside of any transaction from what Kafka hands over, so that no
 * snapshot is held while messages are taken from the network.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BATCH_H
#define BATCH_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "message/event_id.h"
#include "message/message.h"
#include "shared.h"
#include "utils/uuid.h"

/* One message.  Texts are UTF-8 and point into the batch's memory. */
typedef struct BatchEvent
{
	int			source;			/* the caller's number of the partition */
	int64		offset;
	int64		timestamp_ms;	/* -1: none */
	int64		letter;			/* the dead letter that it is tried from; 0:
								 * none */

	/* As it came, for the dead letters. */
	char	   *value;			/* NULL: none */
	Size		value_len;
	char	   *key;			/* NULL: none */
	Size		key_len;
	MessageText headers;		/* JSON */

	bool		rejected;
	char		sqlstate[6];
	char	   *reason;

	/* What it says; valid unless rejected. */
	pg_uuid_t	id;
	MessageText event_type;
	MessageText description;
	MessageText event_key;
	MessageText data;			/* JSON, a part of value or of its own */
	TimestampTz occurred_on;
} BatchEvent;

typedef struct EventBatch
{
	MemoryContext parent;
	MemoryContext context;		/* reset with the batch */
	char	  **blocks;			/* kept for the next batch */
	int			n_blocks;
	int			block_room;
	int			block;			/* the one in use */
	Size		used;			/* bytes of it */
	MessageDecoder *decoder;
	BatchEvent *events;
	int			n;
	int			room;
	Size		bytes;			/* memory of the messages, roughly */
} EventBatch;

extern EventBatch *batch_create(MemoryContext parent);
extern void batch_reset(EventBatch *batch);

/*
 * Decode a message and add it.  Answers MESSAGE_SKIP when there is nothing to
 * keep; a rejected message is added, to become a dead letter.
 */
extern MessageKind batch_add(EventBatch *batch, int source,
							 const MessageInput *input,
							 const MessagePlace *place);

/* Would it be kept? */
extern bool batch_would_take(EventBatch *batch, const MessageInput *input);

/*
 * A record's timestamp; false: it has none that PostgreSQL can hold.  Producers
 * write what they like, and brokers before 4.0 take it.
 */
extern bool batch_timestamp(int64 timestamp_ms, TimestampTz *at);
extern int64 batch_unix_ms(TimestampTz at);

/*
 * The batch can be seen now: how long ago did its events get to Kafka?  new_events
 * is how many were stored; where some were known already it says nothing, they
 * are read again.
 */
extern void batch_latency(const EventBatch *batch, int64 new_events,
						  SharedLatency *latency);

/* Turn an event into a dead letter. */
extern void batch_reject(EventBatch *batch, BatchEvent *event, int sqlerrcode,
						 const char *reason);

#endif							/* BATCH_H */
