/*-------------------------------------------------------------------------
 *
 * send.c
 *	  From an event to a record of the Kafka client.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A transaction's first record to a partition makes the client register that
 * partition with the coordinator at once, and records for a second partition
 * that come a moment later wait for a request of their own, a round trip and a
 * log write at the broker more (rdkafka_txnmgr.c; seen: 7 ms instead of 4).
 * The progress record always goes to another partition than the events.  So
 * the first records of a transaction are held until the batch is read, and go
 * to the client together with it; larger batches are streamed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "relay/send.h"

#define HOLD_BYTES		(256 * 1024)

/* A record and, behind it, all that it points to. */
struct HeldRecord
{
	KafkaRecord record;
	KafkaHeader headers[FLEXIBLE_ARRAY_MEMBER];
};

static const void *
copy_bytes(char **at, const void *from, size_t len)
{
	char	   *to = *at;

	if (from == NULL)
		return NULL;
	memcpy(to, from, len);
	*at += len;
	return to;
}

static HeldRecord *
copy_record(const KafkaRecord *record)
{
	size_t		size = offsetof(HeldRecord, headers) +
	sizeof(KafkaHeader) * record->n_headers;
	size_t		bytes = strlen(record->topic) + 1 + record->key_len + record->value_len;
	HeldRecord *held;
	char	   *at;

	for (int i = 0; i < record->n_headers; i++)
		bytes += strlen(record->headers[i].name) + 1 + record->headers[i].value_len;
	held = malloc(size + bytes);
	if (held == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	at = (char *) held + size;
	held->record = *record;
	held->record.topic = copy_bytes(&at, record->topic, strlen(record->topic) + 1);
	held->record.key = copy_bytes(&at, record->key, record->key_len);
	held->record.value = copy_bytes(&at, record->value, record->value_len);
	held->record.headers = held->headers;
	for (int i = 0; i < record->n_headers; i++)
	{
		const KafkaHeader *from = &record->headers[i];

		held->headers[i].name = copy_bytes(&at, from->name, strlen(from->name) + 1);
		held->headers[i].value = copy_bytes(&at, from->value, from->value_len);
		held->headers[i].value_len = from->value_len;
	}
	return held;
}

static void
free_held(Sender *sender)
{
	for (int i = 0; i < sender->n_held; i++)
		free(sender->held[i]);
	sender->n_held = 0;
}

void
sender_reset(Sender *sender)
{
	free_held(sender);
	sender->held_bytes = 0;
	sender->streaming = false;
}

KafkaOutcome
sender_flush(Sender *sender, KafkaError *error)
{
	for (int i = 0; i < sender->n_held; i++)
	{
		KafkaOutcome outcome = kafka_producer_send(relay_link_sender(sender->link),
												   &sender->held[i]->record, error);

		if (outcome != KAFKA_OK)
			return outcome;
	}
	free_held(sender);
	return KAFKA_OK;
}

/* What the record takes on the wire. */
static size_t
record_bytes(const KafkaRecord *record)
{
	size_t		headers = 0;

	for (int i = 0; i < record->n_headers; i++)
		headers += strlen(record->headers[i].name) + record->headers[i].value_len;
	return wire_record_bytes(record->key_len, record->value_len,
							 record->n_headers, headers);
}

/*
 * Keep a copy while the transaction is small; else hand all of it over, in
 * order.
 */
static KafkaOutcome
hold_or_send(Sender *sender, const KafkaRecord *record, size_t size,
			 KafkaError *error)
{
	if (!sender->streaming)
	{
		KafkaOutcome outcome;

		if (sender->n_held < SENDER_HOLD_RECORDS && sender->held_bytes < HOLD_BYTES)
		{
			sender->held[sender->n_held++] = copy_record(record);
			sender->held_bytes += size;
			return KAFKA_OK;
		}
		outcome = sender_flush(sender, error);
		if (outcome != KAFKA_OK)
			return outcome;
		sender->streaming = true;
	}
	return kafka_producer_send(relay_link_sender(sender->link), record, error);
}

static void
add_header(KafkaRecord *record, KafkaHeader *headers, const char *name,
		   const void *value, size_t len)
{
	headers[record->n_headers].name = name;
	headers[record->n_headers].value = value;
	headers[record->n_headers].value_len = len;
	record->n_headers++;
}

/* Those that its format has, then the event's own. */
static void
add_headers(KafkaRecord *record, KafkaHeader *headers, const StoredEvent *event,
			WireHeaderTexts *texts)
{
	WireHeader	format[WIRE_FORMAT_HEADERS];
	TextSlice	traceparent = {event->traceparent,
	event->traceparent ? strlen(event->traceparent) : 0};
	int			n = wire_headers(&event->wire, traceparent, format, texts);

	record->headers = headers;
	for (int i = 0; i < n; i++)
		add_header(record, headers, format[i].name, format[i].value,
				   format[i].value_len);
	for (int i = 0; i < event->n_headers; i++)
		add_header(record, headers, event->headers[i].name,
				   event->headers[i].value, event->headers[i].value_len);
}

KafkaOutcome
sender_event(Sender *sender, StoredEvent *event, const RelayTopic *topic,
			 int64 spread, int64 *bytes, KafkaError *error)
{
	KafkaRecord record = {0};
	KafkaHeader *headers = palloc(sizeof(KafkaHeader) *
								  (event->n_headers + WIRE_FORMAT_HEADERS));
	WireHeaderTexts texts;
	size_t		size;
	KafkaOutcome outcome;

	event->wire.source = sender->event_source;
	record.topic = topic->name;
	record.key = event->wire.key.data;
	record.key_len = event->wire.key.len;
	record.partition = record.key != NULL ?
		kafka_partition_for_key(record.key, record.key_len, topic->partitions) :
		(int) (spread % topic->partitions);
	if (wire_value(&sender->value, &event->wire))
	{
		/* an empty value is not a tombstone */
		record.value = sender->value.len > 0 ? sender->value.data : "";
		record.value_len = sender->value.len;
	}
	if (sender->value.failed)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	add_headers(&record, headers, event, &texts);
	record.tag = (uint64_t) event->seq;
	size = record_bytes(&record);
	*bytes += size;
	outcome = hold_or_send(sender, &record, size, error);
	pfree(headers);
	return outcome;
}

/* The partition counts in use, for the reader's eyes. */
static void
list_partitions(const RelayLink *link, Progress *place)
{
	size_t		used = 0;

	place->partitions[0] = '\0';
	for (int i = 0; i < link->n_topics; i++)
	{
		const RelayTopic *topic = &link->topics[i];

		if (topic->partitions > 0 && strcmp(topic->name, link->progress_topic) != 0 &&
			used + strlen(topic->name) + 16 < sizeof(place->partitions))
			used += snprintf(place->partitions + used,
							 sizeof(place->partitions) - used, "%s%s=%d",
							 used ? "," : "", topic->name, topic->partitions);
	}
}

KafkaOutcome
sender_progress(Sender *sender, const Progress *place, KafkaError *error)
{
	Progress	progress = *place;
	KafkaRecord record = {0};
	KafkaOutcome outcome;
	char	   *text;

	list_partitions(sender->link, &progress);
	text = progress_encode(&progress);
	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	record.topic = sender->link->progress_topic;
	record.key = progress.lineage;
	record.key_len = strlen(progress.lineage);
	record.value = text;
	record.value_len = strlen(text);

	/* encoded before, so that nothing comes between */
	outcome = sender_flush(sender, error);
	if (outcome == KAFKA_OK)
		outcome = kafka_producer_send(relay_link_sender(sender->link), &record, error);
	free(text);
	return outcome;
}
