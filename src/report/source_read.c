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

/*
 * Reading that fails at one place, or a topic that ends before what was read of
 * it, is believed after this time: a leader that was just elected may not know
 * its end before replica.lag.time.max.ms (30 s by default) is over.
 */
#define DOUBT_MS			40000

/*
 * That Kafka has nothing at the position is believed sooner: who says so wrongly
 * is a leader that was replaced and does not know yet, for as long as its session
 * lasts (broker.session.timeout.ms, 9 s by default).
 */
#define LOST_MS				15000
#define DOUBT_LOOK_MS		2000

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
	if (source_assign_due(source) != 0)
		return;
	source->assign_at = 0;

	positions = palloc(sizeof(KafkaPosition) * Max(source->n, 1));
	for (int i = 0; i < source->n; i++)
	{
		SourcePartition *partition = &source->partitions[i];

		partition->at_end = false;
		partition->reached = false;
		partition->target = -1;
		partition->failed = false;
		if (!is_readable(partition))
			continue;
		positions[n].topic = partition->position.topic;
		positions[n].partition = partition->position.partition;
		positions[n].offset = partition->checking ?
			partition->position.last_offset : partition->position.next;
		n++;
	}

	source->assigned_at = worker_steady_now();
	memset(&error, 0, sizeof(error));
	source->assign_needed = false;
	if (kafka_reader_assign(source->reader, positions, n, &error) != KAFKA_OK)
	{
		/* Another handle is tried, and assigned, when topics are looked at. */
		source_trouble(source, SOURCE_WAITING, error.message,
					   kafka_remedy(&error));
		source_look_later(source);
		source->handle_failed = true;
	}
	pfree(positions);
}

long
source_assign_due(const Source *source)
{
	TimestampTz now;

	if (source->state == SOURCE_STOPPED)
		return -1;
	if (source->assign_needed)
		return 0;
	if (source->assign_at == 0)
		return -1;
	now = worker_steady_now();
	return source->assign_at <= now ? 0 :
		TimestampDifferenceMilliseconds(now, source->assign_at) + 1;
}

void
source_assign_later(Source *source, long ms)
{
	if (source->assign_at == 0)
		source->assign_at =
			TimestampTzPlusMilliseconds(worker_steady_now(), ms);
}

/*
 * An end that was met may be of an answer older than the question.  The
 * partitions are assigned anew when they have been read to such an end, not
 * before: what the library has fetched of a backlog would be fetched again.
 */
void
source_check_ends(Source *source)
{
	source->check_at = worker_steady_now();
}

/* All that stood there when it was assigned has been read. */
static bool
all_reached(const Source *source)
{
	bool		any = false;

	if (source->state != SOURCE_READING || source->assign_needed)
		return false;
	for (int i = 0; i < source->n; i++)
	{
		if (!is_readable(&source->partitions[i]))
			continue;
		if (!source->partitions[i].reached)
			return false;
		any = true;
	}
	return any;
}

bool
source_wants_check(const Source *source)
{
	return source->check_at > source->assigned_at && all_reached(source);
}

TimestampTz
source_proven_at(const Source *source)
{
	if (!all_reached(source))
		return 0;
	for (int i = 0; i < source->n; i++)
	{
		/* What waits behind the place at which it stopped is not read. */
		if (source->partitions[i].position.lost)
			return 0;
	}
	return source->assigned_at;
}

bool
source_is_held(const SourcePartition *partition)
{
	return is_readable(partition) && partition->settled &&
		partition->stats.high_watermark > partition->position.next;
}

SourceProgress
source_progress(const Source *source)
{
	SourceProgress progress = SOURCE_CURRENT;
	bool		any = false;

	if (source->state != SOURCE_READING || source->assign_needed)
		return SOURCE_BEHIND;
	for (int i = 0; i < source->n; i++)
	{
		const SourcePartition *partition = &source->partitions[i];

		if (!is_readable(partition))
			continue;
		any = true;
		if (!partition->at_end)
			return SOURCE_BEHIND;
		if (source_is_held(partition))
			progress = SOURCE_HELD;
	}
	return any ? progress : SOURCE_BEHIND;
}

void
source_note_ends(Source *source)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < source->n; i++)
	{
		SourcePartition *partition = &source->partitions[i];
		PartitionReport *stats = &partition->stats;
		int64		high = KAFKA_OFFSET_UNKNOWN;

		if (source->reader != NULL)
			high = kafka_reader_high_watermark(source->reader,
											   partition->position.topic,
											   partition->position.partition);
		if (high >= 0)
			stats->high_watermark = high;
		if (partition->at_end)
			stats->stable_offset = partition->position.next;
		if (!source_is_held(partition))
			stats->held_since = 0;
		else if (stats->held_since == 0 ||
				 partition->held_at != partition->position.next)
		{
			stats->held_since = now;
			partition->held_at = partition->position.next;
		}
	}
}

/* ------------------------------------------------------------------------
 * Items
 * ------------------------------------------------------------------------
 */

/* What report.stat_reporter shows as the partition's newest error. */
static void
note_error(SourcePartition *partition, const char *reason)
{
	partition->stats.last_error_at = GetCurrentTimestamp();
	strlcpy(partition->stats.last_error, reason,
			sizeof(partition->stats.last_error));
}

/* The partition stops until report.seek(); the others go on. */
static void
lose(Source *source, SourcePartition *partition, const char *reason)
{
	Position   *position = &partition->position;

	position->lost = true;
	strlcpy(position->lost_reason, reason, sizeof(position->lost_reason));
	note_error(partition, reason);
	source->assign_needed = true;
	ereport(WARNING,
			(errmsg("reading of topic \"%s\" partition %d has stopped: %s",
					position->topic, position->partition, reason),
			 errhint("Say where to go on: SELECT report.seek('%s', %d, -2) reads from the beginning, without counting again what was read before.",
					 position->topic, position->partition)));
}

/*
 * Reading does not get on at this place.  It is tried again, and the partition
 * stops for that reason when it has been so for ms.  True: it has stopped.
 */
static bool
doubt(Source *source, SourcePartition *partition, int ms, const char *reason)
{
	TimestampTz now = worker_steady_now();

	partition->failed = true;
	partition->at_end = partition->settled = false;
	if (partition->failing_since == 0)
		partition->failing_since = now;
	source_assign_later(source, DOUBT_LOOK_MS);
	if (TimestampDifferenceExceeds(partition->failing_since, now, ms))
		lose(source, partition, reason);
	return partition->position.lost;
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
	place->known_id = NULL;
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

/* It has moved on to there; is that all that stood there when it was assigned? */
static void
move_to(SourcePartition *partition, int64 next)
{
	partition->position.next = next;
	partition->failing_since = 0;
	if (partition->target >= 0 && next >= partition->target)
		partition->reached = true;
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
	{
		/* nothing but what is skipped stood behind the newest message */
		if (position->last_offset >= 0 && item->offset > position->last_offset &&
			batch_would_take(batch, &input))
			lose(source, partition,
				 psprintf("there is a message at offset " INT64_FORMAT ", where none was before: the topic was made anew",
						  item->offset));
		return;
	}
	partition->settled = false;
	if (batch_add(batch, (int) (partition - source->partitions), &input,
				  &place) == MESSAGE_SKIP)
		partition->stats.skipped++;
	move_to(partition, item->offset + 1);
}

/* All that may be read has been: up to the last stable offset. */
static void
take_end(Source *source, SourcePartition *partition)
{
	KafkaItem  *item = &source->item;
	Position   *position = &partition->position;
	int64		high;
	char	   *reason;

	/*
	 * It ends before the message that was read last.  Going on would pass
	 * over what will be written up to there.
	 */
	if (partition->checking && item->offset <= position->last_offset)
	{
		reason = psprintf("it ends at offset " INT64_FORMAT ", before the message at offset " INT64_FORMAT " that was read: the topic was made anew, or brokers have lost its end",
						  item->offset, position->last_offset);
		note_error(partition, reason);
		(void) doubt(source, partition, DOUBT_MS, reason);
		return;
	}
	if (partition->target < 0)
	{
		high = kafka_reader_high_watermark(source->reader, position->topic,
										   position->partition);
		partition->target = Max(high, item->offset);
	}
	partition->checking = false;
	partition->at_end = partition->settled = true;

	/* Past the control records of transactions. */
	move_to(partition, Max(position->next, item->offset));
}

/* Kafka has nothing at the position any more. */
static void
take_lost(Source *source, SourcePartition *partition)
{
	char	   *reason;

	/* The newest message may be gone while the next one is there. */
	if (partition->checking)
	{
		partition->checking = false;
		source->assign_needed = true;
		return;
	}
	reason = psprintf("offset " INT64_FORMAT " is not there: events were deleted before they were read, or the topic was made anew",
					  partition->position.next);
	note_error(partition, reason);
	(void) doubt(source, partition, LOST_MS, reason);
}

/* An error of one partition, or of the handle: look at everything again. */
static void
take_error(Source *source)
{
	KafkaItem  *item = &source->item;
	SourcePartition *partition = NULL;

	if (item->topic != NULL)
		partition = source_find(source, item->topic, item->partition);
	for (int i = 0; i < source->n; i++)
		source->partitions[i].at_end = source->partitions[i].settled = false;
	source_look_later(source);
	if (item->outcome == KAFKA_TROUBLE && partition != NULL)
		partition->refused = true;
	if (item->outcome == KAFKA_UNREACHABLE)
		source->unreachable = true;
	if (item->outcome == KAFKA_UNCERTAIN && item->topic == NULL)
		source->handle_failed = true;
	if (item->outcome == KAFKA_UNCERTAIN && partition != NULL &&
		is_readable(partition))
	{
		/*
		 * The library goes on behind what it cannot read, a batch that was
		 * damaged, say.  Nothing more is taken of this assignment.
		 */
		note_error(partition, item->error.message);
		if (doubt(source, partition, DOUBT_MS,
				  psprintf("what stands from offset " INT64_FORMAT " on cannot be read (%s); report.seek() to an offset behind it leaves it out",
						   partition->position.next, item->error.message)))
			return;
	}
	source_trouble(source, SOURCE_WAITING, item->error.message,
				   kafka_remedy(&item->error));
}

bool
source_collect(Source *source, EventBatch *batch, int max_events,
			   Size max_bytes)
{
	KafkaItem  *item = &source->item;

	/* Those that are skipped count as well: interrupts are served between. */
	for (int n = 0; n < max_events && batch->bytes < max_bytes; n++)
	{
		SourcePartition *partition = NULL;

		kafka_reader_next(source->reader, item);
		if (item->kind == KAFKA_ITEM_NONE)
			return false;
		if (item->kind != KAFKA_ITEM_ERROR)
			partition = source_find(source, item->topic, item->partition);

		if (item->kind == KAFKA_ITEM_ERROR)
			take_error(source);
		else if (partition != NULL && is_readable(partition) &&
				 !partition->failed)
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
				take_end(source, partition);
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
