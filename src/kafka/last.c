/*-------------------------------------------------------------------------
 *
 * last.c
 *	  Reading the newest record of a one-partition topic by its key.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Starts a few records before the end and takes larger and larger steps back
 * until the key is found or the start was reached, because a progress topic
 * that the broker has not compacted for a while can be long.
 *
 * The start is given as "n before the end", never as a number, for a reason:
 * it makes the library ask the broker for the end, and a leader that was just
 * elected and does not know yet how far its log is committed refuses that
 * question.  A plain fetch it would answer, from too low an end, and the
 * newest records would seem not to exist.
 *
 * The end event comes at the last stable offset.  When a transaction is open
 * on the partition, or its end is not written yet, that is below the high
 * watermark; a stable read then waits for the next end event.
 *
 * Thread: the worker's.  Memory: malloc.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

/* Every record of a transaction is followed by its commit marker. */
#define FIRST_STEP 32
#define STEP_FACTOR 32
#define LAST_STEP 32768

/*
 * The end event comes with the first answer that has nothing new, and the
 * broker holds that back for this long.
 */
#define FETCH_WAIT_MS 5

#define QUEUE_BYTES (4 * 1024 * 1024)
#define LOOKUP_MAX_MS 2000

/*
 * If nothing at all was heard this long after assigning, assign again, and
 * wait twice as long then.  Now and then the partition is not yet attached to
 * its broker when the library wants to ask for the end, and it then pauses
 * for 500 ms.
 *
 * Assigning again throws away what is under way, so a far broker must be given
 * time: connecting to the partition's leader, asking for the end and fetching
 * take as many round trips as connecting and looking the topic up took, and
 * some more.
 */
#define FIRST_PATIENCE_MS 50
#define LOOKUPS_OF_PATIENCE 3
#define MOST_FIRST_PATIENCE_MS 5000

/* As rdkafka.h says it: n before the end is this minus n. */
#define BEFORE_END (-2000)

typedef enum LastStage
{
	LAST_LOOKUP,
	LAST_ASSIGN,
	LAST_READ,
	LAST_DONE
} LastStage;

struct KafkaLastRead
{
	KafkaReader *reader;
	char	   *topic;
	char	   *key;
	size_t		key_len;
	bool		stable;
	LastStage	stage;
	bool		topic_exists;
	int64_t		opened_ms;
	int64_t		step;			/* 0: from the beginning */
	int64_t		assigned_ms;
	int			patience_ms;
	bool		heard;			/* something came since assigning */
	bool		found;
	bool		tombstone;		/* the newest record has no value */
	char	   *value;
	size_t		value_len;
	int64_t		offset;
	char	   *other_value;	/* newer, under another key */
	size_t		other_len;
};

KafkaLastRead *
kafka_last_open(const KafkaProperties *props, const char *topic,
				const char *key, bool stable, KafkaLogFunc log, void *log_arg,
				KafkaError *error)
{
	KafkaReaderOptions options = {
		.group_id = NULL,
		.queue_bytes = QUEUE_BYTES,
		.log = log,
		.log_arg = log_arg
	};
	KafkaReader *reader;
	KafkaLastRead *read;

	reader = kafka_reader_open_wait(props, &options, FETCH_WAIT_MS, error);
	if (reader == NULL)
		return NULL;
	read = kafka_malloc(sizeof(KafkaLastRead));
	memset(read, 0, sizeof(*read));
	read->reader = reader;
	read->topic = kafka_strdup(topic);
	read->key = kafka_strdup(key);
	read->key_len = strlen(key);
	read->stable = stable;
	read->stage = LAST_LOOKUP;
	read->opened_ms = kafka_now_ms();
	read->step = FIRST_STEP;
	return read;
}

bool
kafka_last_close(KafkaLastRead *read)
{
	bool		ended;

	if (read == NULL)
		return true;
	ended = kafka_reader_close(read->reader);
	free(read->topic);
	free(read->key);
	free(read->value);
	free(read->other_value);
	free(read);
	return ended;
}

int
kafka_last_fd(KafkaLastRead *read)
{
	return kafka_reader_fd(read->reader);
}

/* ------------------------------------------------------------------------
 * Stages
 * ------------------------------------------------------------------------
 */
static void
forget_record(KafkaLastRead *read)
{
	free(read->value);
	read->value = NULL;
	read->value_len = 0;
	read->found = false;
	read->tombstone = false;
}

static void
forget_other(KafkaLastRead *read)
{
	free(read->other_value);
	read->other_value = NULL;
	read->other_len = 0;
}

static char *
copy_value(const KafkaItem *item)
{
	char	   *copy = kafka_malloc(item->value_len + 1);

	memcpy(copy, item->value, item->value_len);
	copy[item->value_len] = '\0';
	return copy;
}

/* How long to wait for the first sign after assigning. */
static int
first_patience(const KafkaLastRead *read)
{
	int64_t		patience = (kafka_now_ms() - read->opened_ms) * LOOKUPS_OF_PATIENCE;

	if (patience < FIRST_PATIENCE_MS)
		return FIRST_PATIENCE_MS;

	/*
	 * Kafka was away while it was looked up: that says nothing of its
	 * distance.
	 */
	if (patience > MOST_FIRST_PATIENCE_MS)
		return MOST_FIRST_PATIENCE_MS;
	return (int) patience;
}

/* Stage 1: does the topic exist, for this reader's broker? */
static KafkaOutcome
look_up(KafkaLastRead *read, int slice_ms, KafkaError *error)
{
	KafkaTopicInfo info;
	KafkaOutcome outcome;
	KafkaItem	item;

	/* Nothing is assigned: this only takes in what went wrong so far. */
	kafka_reader_next(read->reader, &item);
	kafka_reader_release(&item);

	outcome = kafka_reader_topic(read->reader, read->topic, slice_ms,
								 LOOKUP_MAX_MS, &info, error);
	if (outcome != KAFKA_OK)
		return outcome;
	read->topic_exists = info.exists;
	if (!info.exists)
		read->stage = LAST_DONE;
	else if (info.partitions != 1)
	{
		kafka_error_set(error, 0,
						"topic \"%s\" must have one partition, it has %d",
						read->topic, info.partitions);
		return KAFKA_MISCONFIGURED;
	}
	else
	{
		read->patience_ms = first_patience(read);
		read->stage = LAST_ASSIGN;
	}
	return KAFKA_OK;
}

/* Stage 2: begin some records before the end, further back each time. */
static KafkaOutcome
assign(KafkaLastRead *read, KafkaError *error)
{
	KafkaPosition position = {
		.topic = read->topic,
		.partition = 0,
		.offset = read->step > 0 ? BEFORE_END - read->step :
		KAFKA_OFFSET_BEGINNING
	};
	KafkaOutcome outcome;

	forget_record(read);
	forget_other(read);
	outcome = kafka_reader_assign(read->reader, &position, 1, error);
	if (outcome == KAFKA_OK)
		read->stage = LAST_READ;
	read->assigned_ms = kafka_now_ms();
	read->heard = false;
	return outcome;
}

/* Keep the newest value of our key, and one of another key behind it. */
static void
take_message(KafkaLastRead *read, const KafkaItem *item)
{
	if (item->key == NULL || item->key_len != read->key_len ||
		memcmp(item->key, read->key, read->key_len) != 0)
	{
		if (item->value != NULL)
		{
			forget_other(read);
			read->other_len = item->value_len;
			read->other_value = copy_value(item);
		}
		return;
	}
	forget_record(read);
	forget_other(read);
	read->offset = item->offset;
	if (item->value == NULL)
	{
		read->tombstone = true;
		return;
	}
	read->found = true;
	read->value_len = item->value_len;
	read->value = copy_value(item);
}

/* Everything up to the end was read; is it enough? */
static void
take_end(KafkaLastRead *read, const KafkaItem *item)
{
	int64_t		high;

	high = kafka_reader_high_watermark(read->reader, read->topic, 0);
	if (read->stable && high != item->offset)
		return;
	if (read->found || read->tombstone || read->step == 0 ||
		read->step >= item->offset)
	{
		read->stage = LAST_DONE;
		return;
	}
	read->step = read->step >= LAST_STEP ? 0 : read->step * STEP_FACTOR;
	read->stage = LAST_ASSIGN;
}

/* KAFKA_OK: go on with the stage that is set now. */
static KafkaOutcome
take_item(KafkaLastRead *read, const KafkaItem *item, KafkaError *error)
{
	read->heard = true;
	switch (item->kind)
	{
		case KAFKA_ITEM_MESSAGE:
			take_message(read, item);
			return KAFKA_OK;
		case KAFKA_ITEM_END:
			take_end(read, item);
			return KAFKA_OK;
		case KAFKA_ITEM_LOST:
			/* The start of the log lies after our step: take it all. */
			if (read->step > 0)
			{
				read->step = 0;
				read->stage = LAST_ASSIGN;
				return KAFKA_OK;
			}
			break;
		default:
			break;
	}
	/* Deleted since it was looked up, or its leader does not know it yet. */
	if (item->error.code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
		item->error.code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
	{
		forget_record(read);
		read->topic_exists = false;
		read->stage = LAST_DONE;
		return KAFKA_OK;
	}
	if (error != NULL)
		*error = item->error;
	return item->kind == KAFKA_ITEM_ERROR ? item->outcome : KAFKA_UNCERTAIN;
}

/* Nothing waits: wait for something, at most the slice.  False: not now. */
static bool
wait_for_items(KafkaLastRead *read, int slice_ms)
{
	struct pollfd wait = {kafka_reader_fd(read->reader), POLLIN, 0};
	int64_t		silence = kafka_now_ms() - read->assigned_ms;

	if (!read->heard)
	{
		if (silence >= read->patience_ms)
		{
			read->patience_ms *= 2;
			read->stage = LAST_ASSIGN;
			return true;
		}
		if (slice_ms > read->patience_ms - silence)
			slice_ms = (int) (read->patience_ms - silence);
	}
	return poll(&wait, 1, slice_ms) > 0;
}

/* Stage 3: up to the end of the partition. */
static KafkaOutcome
read_items(KafkaLastRead *read, int slice_ms, KafkaError *error)
{
	bool		waited = false;

	while (read->stage == LAST_READ)
	{
		KafkaOutcome outcome;
		KafkaItem	item;

		kafka_reader_next(read->reader, &item);
		if (item.kind == KAFKA_ITEM_NONE)
		{
			/* Wait once a call, or many small answers exceed the slice. */
			if (!waited && wait_for_items(read, slice_ms))
			{
				waited = true;
				continue;
			}
			kafka_reader_no_answer(read->reader, error);
			return KAFKA_PENDING;
		}
		outcome = take_item(read, &item, error);
		kafka_reader_release(&item);
		if (outcome != KAFKA_OK)
			return outcome;
	}
	return KAFKA_OK;
}

KafkaOutcome
kafka_last_poll(KafkaLastRead *read, int slice_ms, KafkaLastRecord *record,
				KafkaError *error)
{
	KafkaOutcome outcome = KAFKA_OK;

	while (outcome == KAFKA_OK && read->stage != LAST_DONE)
	{
		if (read->stage == LAST_LOOKUP)
			outcome = look_up(read, slice_ms, error);
		else if (read->stage == LAST_ASSIGN)
			outcome = assign(read, error);
		else
			outcome = read_items(read, slice_ms, error);
	}
	if (outcome != KAFKA_OK)
		return outcome;

	record->topic_exists = read->topic_exists;
	record->found = read->found;
	record->value = read->value;
	record->value_len = read->value_len;
	record->offset = read->found ? read->offset : KAFKA_OFFSET_UNKNOWN;
	record->other_value = read->other_value;
	record->other_len = read->other_len;
	read->value = NULL;			/* the caller's now */
	read->other_value = NULL;
	return KAFKA_OK;
}
