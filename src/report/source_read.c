/*-------------------------------------------------------------------------
 *
 * source_read.c
 *	  Assigning partitions, taking messages from them, remembering how far.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The assignment is replaced as a whole, at the positions known here: what the
 * library had fetched of the old one is dropped by it and fetched again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/source.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* Is it in the assignment? */
static bool
is_readable(const SourcePartition *partition)
{
	return partition->there && !partition->position.lost;
}

void
source_assign(Source *source)
{
	KafkaPosition *positions;
	KafkaError	error;
	int			n = 0;

	if (source_wants_check(source))
		source->assign_needed = true;
	if (!source->assign_needed || source->state == SOURCE_STOPPED)
		return;

	positions = palloc(sizeof(KafkaPosition) * Max(source->n, 1));
	for (int i = 0; i < source->n; i++)
	{
		SourcePartition *partition = &source->partitions[i];

		partition->at_end = false;
		if (!is_readable(partition))
			continue;
		positions[n].topic = partition->position.topic;
		positions[n].partition = partition->position.partition;
		positions[n].offset = partition->checking ?
			partition->position.last_offset : partition->position.next;
		n++;
	}

	source->assigned_at = GetCurrentTimestamp();
	memset(&error, 0, sizeof(error));
	if (kafka_reader_assign(source->reader, positions, n, &error) == KAFKA_OK)
		source->assign_needed = false;
	else
	{
		source_trouble(source, SOURCE_WAITING, error.message,
					   kafka_remedy(&error));
		source_look_later(source);
	}
	pfree(positions);
}

/*
 * An end that was met may be of an answer older than the question.  The
 * partitions are assigned anew when they have been read to such an end, not
 * before: what the library has fetched of a backlog would be fetched again.
 */
void
source_check_ends(Source *source)
{
	source->check_at = GetCurrentTimestamp();
}

bool
source_wants_check(const Source *source)
{
	return source->check_at > source->assigned_at &&
		source_current_since(source) != 0;
}

TimestampTz
source_current_since(const Source *source)
{
	bool		any = false;

	if (source->state != SOURCE_READING || source->assign_needed)
		return 0;
	for (int i = 0; i < source->n; i++)
	{
		if (!is_readable(&source->partitions[i]))
			continue;
		if (!source->partitions[i].at_end)
			return 0;
		any = true;
	}
	return any ? source->assigned_at : 0;
}

/* ------------------------------------------------------------------------
 * Items
 * ------------------------------------------------------------------------
 */

/* The partition stops until report.seek(); the others go on. */
static void
lose(Source *source, SourcePartition *partition, const char *reason)
{
	Position   *position = &partition->position;

	position->lost = true;
	strlcpy(position->lost_reason, reason, sizeof(position->lost_reason));
	partition->stats.last_error_at = GetCurrentTimestamp();
	strlcpy(partition->stats.last_error, reason,
			sizeof(partition->stats.last_error));
	source->assign_needed = true;
	ereport(WARNING,
			(errmsg("reading of topic \"%s\" partition %d has stopped: %s",
					position->topic, position->partition, reason),
			 errhint("Say where to go on: SELECT report.seek('%s', %d, -2) reads from the beginning, without counting again what was read before.",
					 position->topic, position->partition)));
}

static void
fill_place(const Source *source, const Position *position, int64 offset,
		   int64 timestamp_ms, MessagePlace *place)
{
	place->cluster_id = source->cluster_id;
	place->topic = position->topic;
	place->partition = position->partition;
	place->offset = offset;
	place->timestamp_ms = timestamp_ms;
}

/* The message that was read last before: is it still the same one? */
static void
check_newest(Source *source, SourcePartition *partition,
			 const MessageInput *input, const MessagePlace *place)
{
	Position   *position = &partition->position;
	pg_uuid_t	mark;

	partition->checking = false;
	if (place->offset != position->last_offset)
		return;					/* compacted away */
	event_id_of_place(input, place, mark.data);
	if (memcmp(&mark, &position->last_mark, sizeof(mark)) != 0)
		lose(source, partition,
			 psprintf("the message at offset " INT64_FORMAT " is not the one read before: the topic was made anew",
					  position->last_offset));
}

/* Decode a message into the batch and move the position behind it. */
static void
take_message(Source *source, SourcePartition *partition, EventBatch *batch)
{
	KafkaItem  *item = &source->item;
	Position   *position = &partition->position;

	/* One too many is enough: the message is refused then. */
	MessageHeader headers[MESSAGE_MAX_HEADERS + 1];
	MessageInput input;
	MessagePlace place;
	KafkaHeader header;
	int			n = 0;

	while (n < (int) lengthof(headers) && kafka_item_header(item, n, &header))
	{
		headers[n].name = header.name;
		headers[n].value = header.value;
		headers[n].value_len = header.value_len;
		n++;
	}
	input.value = item->value;
	input.value_len = item->value_len;
	input.key = item->key;
	input.key_len = item->key_len;
	input.headers = headers;
	input.n_headers = n;
	fill_place(source, position, item->offset, item->timestamp_ms, &place);

	partition->at_end = false;
	if (source->unreachable)
		source->look_at = 0;	/* it is back */
	if (partition->checking)
	{
		check_newest(source, partition, &input, &place);
		if (position->lost)
			return;
	}
	if (item->offset < position->next)
		return;
	if (batch_add(batch, (int) (partition - source->partitions), &input,
				  &place) == MESSAGE_SKIP)
		partition->stats.skipped++;
	position->next = item->offset + 1;
}

/* Kafka has nothing at the position any more. */
static void
take_lost(Source *source, SourcePartition *partition)
{
	/* The newest message may be gone while the next one is there. */
	if (partition->checking)
	{
		partition->checking = false;
		source->assign_needed = true;
		return;
	}
	lose(source, partition,
		 psprintf("offset " INT64_FORMAT " is not there: events were deleted before they were read, or the topic was made anew",
				  partition->position.next));
}

/* An error of the handle, not of one partition: look at everything again. */
static void
take_error(Source *source)
{
	KafkaItem  *item = &source->item;

	for (int i = 0; i < source->n; i++)
		source->partitions[i].at_end = false;
	if (item->outcome == KAFKA_TROUBLE && item->topic != NULL)
	{
		SourcePartition *partition = source_find(source, item->topic,
												 item->partition);

		if (partition != NULL)
			partition->refused = true;
	}
	if (item->outcome == KAFKA_UNCERTAIN)
		source->assign_needed = true;
	if (item->outcome == KAFKA_UNREACHABLE)
		source->unreachable = true;
	source_trouble(source, SOURCE_WAITING, item->error.message,
				   kafka_remedy(&item->error));
	source_look_later(source);
}

bool
source_collect(Source *source, EventBatch *batch, int max_events,
			   Size max_bytes)
{
	KafkaItem  *item = &source->item;

	while (batch->n < max_events && batch->bytes < max_bytes)
	{
		SourcePartition *partition = NULL;

		kafka_reader_next(source->reader, item);
		if (item->kind == KAFKA_ITEM_NONE)
			return false;
		if (item->kind != KAFKA_ITEM_ERROR)
			partition = source_find(source, item->topic, item->partition);

		if (item->kind == KAFKA_ITEM_ERROR)
			take_error(source);
		else if (partition != NULL && is_readable(partition))
		{
			if (partition->refused)
			{
				partition->refused = false;
				source->look_at = 0;
			}
			if (item->kind == KAFKA_ITEM_MESSAGE)
				take_message(source, partition, batch);
			else if (item->kind == KAFKA_ITEM_LOST)
				take_lost(source, partition);
			else
			{
				/* Past the control records of transactions. */
				partition->position.next = Max(partition->position.next,
											   item->offset);
				partition->checking = false;
				partition->at_end = true;
			}
		}
		kafka_reader_release(item);
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Remembering
 * ------------------------------------------------------------------------
 */

void
source_mark(Source *source, const EventBatch *batch)
{
	int			missing = source->n;
	bool	   *marked = palloc0(sizeof(bool) * Max(source->n, 1));

	for (int i = batch->n - 1; i >= 0 && missing > 0; i--)
	{
		const BatchEvent *event = &batch->events[i];
		Position   *position = &source->partitions[event->source].position;
		MessageInput input;
		MessagePlace place;

		if (marked[event->source])
			continue;
		memset(&input, 0, sizeof(input));
		input.value = event->value;
		input.value_len = event->value_len;
		input.key = event->key;
		input.key_len = event->key_len;
		fill_place(source, position, event->offset, event->timestamp_ms,
				   &place);
		event_id_of_place(&input, &place, position->last_mark.data);
		position->last_offset = event->offset;
		marked[event->source] = true;
		missing--;
	}
	pfree(marked);
}

bool
source_is_dirty(const Source *source)
{
	for (int i = 0; i < source->n; i++)
	{
		const Position *position = &source->partitions[i].position;

		if (position->next != position->stored && !position->lost)
			return true;
	}
	return false;
}

bool
source_store(Source *source, int64 log_seq)
{
	for (int i = 0; i < source->n; i++)
	{
		const Position *position = &source->partitions[i].position;

		if (position->next != position->stored &&
			!progress_store(position, source->cluster_id, log_seq))
			return false;
	}
	return true;
}

/* The transaction has committed. */
void
source_stored(Source *source)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < source->n; i++)
	{
		SourcePartition *partition = &source->partitions[i];
		Position   *position = &partition->position;
		LogSource  *log = &partition->log;

		if (position->next != position->stored)
			strlcpy(position->cluster_id, source->cluster_id,
					sizeof(position->cluster_id));
		position->stored = position->next;
		if (log->applied + log->duplicates + log->rejected > 0)
			partition->stats.last_applied_at = now;
		partition->stats.events_applied += log->applied;
		partition->stats.duplicates += log->duplicates;
		partition->stats.dead_letters += log->rejected;
		log->applied = log->duplicates = log->rejected = 0;
	}
}

bool
source_has_lost(const Source *source)
{
	for (int i = 0; i < source->n; i++)
	{
		if (source->partitions[i].position.lost &&
			!source->partitions[i].lost_stored)
			return true;
	}
	return false;
}

void
source_store_lost(Source *source)
{
	for (int i = 0; i < source->n; i++)
	{
		SourcePartition *partition = &source->partitions[i];

		if (partition->position.lost && !partition->lost_stored)
			progress_lose(&partition->position);
		partition->lost_stored = partition->position.lost;
	}
}
