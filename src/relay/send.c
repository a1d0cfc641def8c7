/*-------------------------------------------------------------------------
 *
 * send.c
 *	  From an event to a record of the Kafka client.
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

#include "relay/relay.h"

#define MAX_HEADERS		64
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

void
relay_drop_held(Relay *relay)
{
	for (int i = 0; i < relay->n_held; i++)
		free(relay->held[i]);
	relay->n_held = 0;
	relay->held_bytes = 0;
	relay->streaming = false;
}

KafkaOutcome
relay_send_held(Relay *relay, KafkaError *error)
{
	for (int i = 0; i < relay->n_held; i++)
	{
		KafkaOutcome outcome = kafka_producer_send(relay_sender(relay),
												   &relay->held[i]->record, error);

		if (outcome != KAFKA_OK)
			return outcome;
	}
	for (int i = 0; i < relay->n_held; i++)
		free(relay->held[i]);
	relay->n_held = 0;
	return KAFKA_OK;
}

static KafkaOutcome
hold_or_send(Relay *relay, const KafkaRecord *record, KafkaError *error)
{
	if (!relay->streaming)
	{
		KafkaOutcome outcome;

		if (relay->n_held < RELAY_HOLD_RECORDS && relay->held_bytes < HOLD_BYTES)
		{
			relay->held[relay->n_held++] = copy_record(record);
			relay->held_bytes += record->value_len + record->key_len;
			return KAFKA_OK;
		}
		outcome = relay_send_held(relay, error);
		if (outcome != KAFKA_OK)
			return outcome;
		relay->streaming = true;
	}
	return kafka_producer_send(relay_sender(relay), record, error);
}

static void
add_header(KafkaHeader *headers, int *n, const char *name, const void *value,
		   size_t len)
{
	if (*n < MAX_HEADERS)
	{
		headers[*n].name = name;
		headers[*n].value = value;
		headers[*n].value_len = len;
		(*n)++;
	}
}

static void
add_text_header(KafkaHeader *headers, int *n, const char *name, const char *text)
{
	add_header(headers, n, name, text, strlen(text));
}

/* Headers of every format first, then those of the format, then the event's. */
static int
make_headers(const StoredEvent *event, KafkaHeader *headers, const char *id,
			 const char *time)
{
	int			n = 0;
	const WireEvent *wire = &event->wire;

	add_header(headers, &n, "id", id, 36);
	if (event->traceparent != NULL)
		add_text_header(headers, &n, "traceparent", event->traceparent);
	if (wire->format == FORMAT_PAYLOAD)
	{
		add_text_header(headers, &n, "ce_specversion", "1.0");
		add_header(headers, &n, "ce_id", id, 36);
		add_text_header(headers, &n, "ce_source", wire->source);
		add_header(headers, &n, "ce_type", wire->type.data, wire->type.len);
		add_text_header(headers, &n, "ce_time", time);
		if (wire->key.data != NULL && wire->key.len > 0)
			add_header(headers, &n, "ce_subject", wire->key.data, wire->key.len);
		add_text_header(headers, &n, "content-type", "application/json");
	}
	else if (wire->format == FORMAT_CLOUDEVENTS)
		add_text_header(headers, &n, "content-type", "application/cloudevents+json");
	for (int i = 0; i < event->n_headers; i++)
		add_header(headers, &n, event->headers[i].name, event->headers[i].value,
				   event->headers[i].value_len);
	return n;
}

KafkaOutcome
relay_send_event(Relay *relay, StoredEvent *event, RelayTopic *topic,
				 int64 *bytes, KafkaError *error)
{
	KafkaRecord record = {0};
	KafkaHeader headers[MAX_HEADERS];
	char		id[40];
	char		time[40];

	event->wire.source = relay->event_source;
	wire_uuid_text(event->wire.id, id);
	if (event->wire.format == FORMAT_PAYLOAD)
		wire_time_text(event->wire.occurred_at, time);

	record.topic = topic->name;
	record.key = event->wire.key.data;
	record.key_len = event->wire.key.len;
	record.partition = record.key != NULL ?
		kafka_partition_for_key(record.key, record.key_len, topic->partitions) :
		(int) (relay->batch_tick.tick_id % topic->partitions);
	if (wire_value(&relay->value, &event->wire))
	{
		/* an empty value is not a tombstone */
		record.value = relay->value.len > 0 ? relay->value.data : "";
		record.value_len = relay->value.len;
	}
	if (relay->value.failed)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	record.headers = headers;
	record.n_headers = make_headers(event, headers, id, time);
	record.tag = (uint64_t) event->seq;
	*bytes += record.value_len + record.key_len + 100;
	return hold_or_send(relay, &record, error);
}

KafkaOutcome
relay_send_progress(Relay *relay, Progress *place, KafkaError *error)
{
	KafkaRecord record = {0};
	KafkaOutcome outcome;
	char	   *text;
	size_t		used = 0;

	strlcpy(place->lineage, relay->lineage.lineage, sizeof(place->lineage));
	strlcpy(place->home, relay->home, sizeof(place->home));
	strlcpy(place->instance, relay->instance, sizeof(place->instance));
	place->partitions[0] = '\0';
	for (int i = 0; i < relay->n_topics; i++)
	{
		RelayTopic *topic = &relay->topics[i];

		if (topic->partitions > 0 &&
			used + strlen(topic->name) + 16 < sizeof(place->partitions))
			used += snprintf(place->partitions + used,
							 sizeof(place->partitions) - used, "%s%s=%d",
							 used ? "," : "", topic->name, topic->partitions);
	}
	text = progress_encode(place);
	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	record.topic = relay->progress_topic;
	record.key = place->lineage;
	record.key_len = strlen(place->lineage);
	record.value = text;
	record.value_len = strlen(text);

	/* encoded before, so that nothing comes between */
	outcome = relay_send_held(relay, error);
	if (outcome == KAFKA_OK)
		outcome = kafka_producer_send(relay_sender(relay), &record, error);
	free(text);
	return outcome;
}
