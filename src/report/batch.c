/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  The messages of one transaction, decoded, before PostgreSQL sees them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Memory: blocks of the batch hold copies of the messages and what was decoded
 * from them; a message is copied once and the decoded texts point into the
 * copy, except those that held escapes.  The blocks are kept for the next
 * batch: memory that is given back and taken again for each of them costs
 * page faults.  What a batch did not need is given back step by step.  What is
 * large has memory of its own, in the context, which is reset with the batch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/batch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/latency.h"

/* Room is taken in blocks of this size; what is larger than a part is not. */
#define BLOCK_SIZE		(512 * 1024)
#define LARGE_SIZE		(BLOCK_SIZE / 8)

/* So many events are kept room for, whatever the last batch was. */
#define EVENTS_KEPT		1024

#define UNIX_TO_POSTGRES_MICROS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

EventBatch *
batch_create(MemoryContext parent)
{
	EventBatch *batch = MemoryContextAllocZero(parent, sizeof(EventBatch));

	batch->parent = parent;
	batch->context = AllocSetContextCreate(parent, "carshop_outbox batch",
										   ALLOCSET_DEFAULT_SIZES);
	batch->decoder = message_decoder_new();
	if (batch->decoder == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return batch;
}

/* Give back one block in eight of those that the batch has not used. */
static void
shrink(EventBatch *batch)
{
	int			used = batch->block + (batch->used > 0 ? 1 : 0);
	int			keep = Max(used, 1) + (batch->n_blocks - used) * 7 / 8;

	while (batch->n_blocks > keep)
		pfree(batch->blocks[--batch->n_blocks]);
	if (batch->room > EVENTS_KEPT && batch->n < batch->room / 8)
	{
		pfree(batch->events);
		batch->events = NULL;
		batch->room = 0;
	}
}

void
batch_reset(EventBatch *batch)
{
	MemoryContextReset(batch->context);
	shrink(batch);
	batch->block = 0;
	batch->used = 0;
	batch->n = 0;
	batch->bytes = 0;
}

/* Bytes that live as long as the batch; not aligned. */
static char *
batch_bytes(EventBatch *batch, Size size)
{
	char	   *bytes;

	if (size > LARGE_SIZE)
		return MemoryContextAllocHuge(batch->context, size);
	if (batch->n_blocks > 0 && batch->used + size > BLOCK_SIZE)
	{
		batch->block++;
		batch->used = 0;
	}
	if (batch->block >= batch->n_blocks)
	{
		if (batch->n_blocks == batch->block_room)
		{
			int			room = Max(64, batch->block_room * 2);

			batch->blocks = batch->blocks == NULL ?
				MemoryContextAlloc(batch->parent, room * sizeof(char *)) :
				repalloc(batch->blocks, room * sizeof(char *));
			batch->block_room = room;
		}
		batch->blocks[batch->n_blocks] =
			MemoryContextAlloc(batch->parent, BLOCK_SIZE);
		batch->n_blocks++;
	}
	bytes = batch->blocks[batch->block] + batch->used;
	batch->used += size;
	return bytes;
}

static char *
copy_bytes(EventBatch *batch, const void *data, Size len)
{
	char	   *copy;

	if (data == NULL)
		return NULL;
	copy = batch_bytes(batch, len + 1);
	if (len > 0)
		memcpy(copy, data, len);
	copy[len] = '\0';
	return copy;
}

/* Texts inside the message itself stay there, others are copied. */
static void
keep_text(EventBatch *batch, const BatchEvent *event, MessageText *text)
{
	if (text->data == NULL)
		return;
	if ((event->value != NULL && text->data >= event->value &&
		 text->data <= event->value + event->value_len) ||
		(event->key != NULL && text->data >= event->key &&
		 text->data <= event->key + event->key_len))
		return;
	text->data = copy_bytes(batch, text->data, text->len);
}

static TimestampTz
from_unix_micros(int64 micros)
{
	return (TimestampTz) (micros - UNIX_TO_POSTGRES_MICROS);
}

bool
batch_timestamp(int64 timestamp_ms, TimestampTz *at)
{
	const int64 epoch_ms = UNIX_TO_POSTGRES_MICROS / 1000;

	if (timestamp_ms < 0 || timestamp_ms - epoch_ms >= END_TIMESTAMP / 1000)
		return false;
	*at = (timestamp_ms - epoch_ms) * 1000;
	return true;
}

int64
batch_unix_ms(TimestampTz at)
{
	return at / 1000 + UNIX_TO_POSTGRES_MICROS / 1000;
}

MessageKind
batch_add(EventBatch *batch, int source, const MessageInput *input,
		  const MessagePlace *place)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	MessageInput own = *input;
	Message		message;
	BatchEvent *event;
	int			block = batch->block;
	Size		used = batch->used;

	if (batch->n == batch->room)
	{
		batch->room = Max(16, batch->room * 2);
		batch->events = batch->events == NULL ?
			MemoryContextAllocHuge(batch->parent,
								   batch->room * sizeof(BatchEvent)) :
			repalloc_huge(batch->events, batch->room * sizeof(BatchEvent));
	}
	event = &batch->events[batch->n];
	memset(event, 0, sizeof(*event));

	event->source = source;
	event->offset = place->offset;
	event->timestamp_ms = place->timestamp_ms;
	event->value = copy_bytes(batch, input->value, input->value_len);
	event->value_len = input->value_len;
	event->key = copy_bytes(batch, input->key, input->key_len);
	event->key_len = input->key_len;
	own.value = event->value;
	own.key = event->key;

	if (!message_decode(batch->decoder, &own, &message))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));

	if (message.kind == MESSAGE_SKIP)
	{
		/* There may be millions of them in a row. */
		batch->block = block;
		batch->used = used;
		if (event->value != NULL && input->value_len + 1 > LARGE_SIZE)
			pfree(event->value);
		if (event->key != NULL && input->key_len + 1 > LARGE_SIZE)
			pfree(event->key);
		MemoryContextSwitchTo(old);
		return MESSAGE_SKIP;
	}

	if (message.kind == MESSAGE_REJECT)
	{
		event->rejected = true;
		memcpy(event->sqlstate, message.sqlstate, sizeof(event->sqlstate));
		event->reason = pstrdup(message.reason);
		if (!message_headers_json(batch->decoder, &own, &message.headers))
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory")));
	}
	else
	{
		event_id_choose(&message, &own, place, event->id.data);
		event->event_type = message.event_type;
		event->description = message.description;
		event->event_key = message.event_key;
		event->data = message.data;
		keep_text(batch, event, &event->event_type);
		keep_text(batch, event, &event->description);
		keep_text(batch, event, &event->event_key);
		keep_text(batch, event, &event->data);
		/* A CloudEvent may leave its time out: when it was published, then. */
		if (message.has_time)
			event->occurred_on = from_unix_micros(message.occurred_on);
		else if (!batch_timestamp(place->timestamp_ms, &event->occurred_on))
			event->occurred_on = GetCurrentTimestamp();
	}
	event->headers = message.headers;
	keep_text(batch, event, &event->headers);

	batch->n++;
	batch->bytes += sizeof(BatchEvent) + event->value_len + event->key_len +
		event->headers.len + 64;
	MemoryContextSwitchTo(old);
	return message.kind;
}

bool
batch_would_take(EventBatch *batch, const MessageInput *input)
{
	Message		message;

	if (!message_decode(batch->decoder, input, &message))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return message.kind != MESSAGE_SKIP;
}

void
batch_reject(EventBatch *batch, BatchEvent *event, int sqlerrcode,
			 const char *reason)
{
	event->rejected = true;
	strlcpy(event->sqlstate, unpack_sql_state(sqlerrcode),
			sizeof(event->sqlstate));
	event->reason = MemoryContextStrdup(batch->context, reason);
}

void
batch_latency(const EventBatch *batch, int64 new_events, SharedLatency *latency)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		good = 0;
	TimestampTz since;

	for (int i = 0; i < batch->n; i++)
		good += batch->events[i].rejected ? 0 : 1;
	if (good != new_events)
		return;
	for (int i = 0; i < batch->n; i++)
	{
		if (!batch->events[i].rejected &&
			batch_timestamp(batch->events[i].timestamp_ms, &since))
			latency_add(latency, since, now, 1);
	}
}
