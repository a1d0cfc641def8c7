/*-------------------------------------------------------------------------
 *
 * reader.c
 *	  Reading partitions that were assigned by hand, committed data only.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The library's group machinery is not used: no subscribe, hence no rebalance
 * and no poll deadline.  It insists on a group.id all the same, and asks for
 * the group's coordinator in the background; nothing here waits for that.
 *
 * One queue carries messages, partition events, errors and log lines.  An event
 * is one message, and stays with the item until kafka_reader_release.
 *
 * Thread: the worker's.  Memory: malloc; message memory is the library's.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

/* No group of that name comes into being; offsets are shown by another handle. */
#define UNUSED_GROUP "carshop_outbox_reader"

#define DEFAULT_FETCH_WAIT_MS 500
/* 4 Mbit/s carry so much before the request is given up (ANSWER_MS in conf.c). */
#define MAX_FETCH_BYTES (4 * 1024 * 1024)
#define MIN_FETCH_BYTES (1024 * 1024)

/*
 * Of one partition, in the form that it is sent in: the library unpacks a whole
 * answer at once, and what compresses to nothing takes many times as much then.
 */
#define MAX_PARTITION_BYTES (1024 * 1024)
#define MIN_PARTITION_BYTES (64 * 1024)

typedef struct Assigned
{
	char	   *topic;
	int			partition;
	int64_t		offset;
} Assigned;

struct KafkaReader
{
	KafkaClient *client;
	Assigned   *assigned;
	int			n_assigned;
	KafkaShow  *show;			/* NULL: no offsets are shown */
};

/* ------------------------------------------------------------------------
 * Opening and closing
 * ------------------------------------------------------------------------
 */
static bool
set_fetching(rd_kafka_conf_t *conf, const KafkaReaderOptions *options,
			 int fetch_wait_ms, KafkaError *error)
{
	int64_t		kbytes = (int64_t) (options->queue_bytes / 1024);
	int64_t		fetch_bytes = (int64_t) options->queue_bytes;
	int64_t		partition_bytes = (int64_t) options->queue_bytes / 64;

	/*
	 * queued.max.messages.kbytes stops the next request, not the answer under
	 * way, so one answer must be bounded too.  A single larger batch still
	 * comes through, whatever the limit.
	 */
	if (fetch_bytes > MAX_FETCH_BYTES)
		fetch_bytes = MAX_FETCH_BYTES;
	if (fetch_bytes < MIN_FETCH_BYTES)
		fetch_bytes = MIN_FETCH_BYTES;
	if (partition_bytes > MAX_PARTITION_BYTES)
		partition_bytes = MAX_PARTITION_BYTES;
	if (partition_bytes < MIN_PARTITION_BYTES)
		partition_bytes = MIN_PARTITION_BYTES;
	return kafka_conf_set_int(conf, "queued.max.messages.kbytes",
							  kbytes > 0 ? kbytes : 1, error) &&
		kafka_conf_set_int(conf, "fetch.max.bytes", fetch_bytes, error) &&
		kafka_conf_at_most(conf, "message.max.bytes", fetch_bytes, error) &&
		kafka_conf_at_most(conf, "fetch.message.max.bytes", partition_bytes, error) &&
		kafka_conf_set_int(conf, "fetch.wait.max.ms", fetch_wait_ms, error) &&
		kafka_conf_set_int(conf, "fetch.error.backoff.ms", 100, error);
}

/* Only committed records, no group, and an end of partition that is told. */
static rd_kafka_conf_t *
reader_conf(const KafkaProperties *props, const KafkaReaderOptions *options,
			int fetch_wait_ms, KafkaError *error)
{
	rd_kafka_conf_t *conf = kafka_conf_new(props, RD_KAFKA_CONSUMER, error);

	if (conf == NULL)
		return NULL;
	if (kafka_conf_set(conf, "group.id", UNUSED_GROUP, error) &&
		kafka_conf_set(conf, "isolation.level", "read_committed", error) &&
		kafka_conf_set(conf, "auto.offset.reset", "error", error) &&
		kafka_conf_set(conf, "enable.auto.commit", "false", error) &&
		kafka_conf_set(conf, "enable.auto.offset.store", "false", error) &&
		kafka_conf_set(conf, "enable.partition.eof", "true", error) &&
		kafka_conf_set(conf, "check.crcs", "true", error) &&
		set_fetching(conf, options, fetch_wait_ms, error))
		return conf;
	rd_kafka_conf_destroy(conf);
	return NULL;
}

KafkaReader *
kafka_reader_open_wait(const KafkaProperties *props,
					   const KafkaReaderOptions *options, int fetch_wait_ms,
					   KafkaError *error)
{
	rd_kafka_conf_t *conf = reader_conf(props, options, fetch_wait_ms, error);
	KafkaClient *client;
	KafkaReader *reader;

	if (conf == NULL)
		return NULL;
	client = kafka_client_open(conf, RD_KAFKA_CONSUMER, RD_KAFKA_EVENT_FETCH,
							   props, options->log, options->log_arg, error);
	if (client == NULL)
		return NULL;

	reader = kafka_malloc(sizeof(KafkaReader));
	memset(reader, 0, sizeof(*reader));
	reader->client = client;
	if (options->group_id != NULL && options->group_id[0] != '\0')
	{
		reader->show = kafka_show_open(props, options->group_id, client->fd, error);
		if (reader->show == NULL)
		{
			(void) kafka_client_close(client, KAFKA_WORK_NONE);
			free(reader);
			return NULL;
		}
	}
	return reader;
}

KafkaReader *
kafka_reader_open(const KafkaProperties *props,
				  const KafkaReaderOptions *options, KafkaError *error)
{
	return kafka_reader_open_wait(props, options, DEFAULT_FETCH_WAIT_MS,
								  error);
}

static void
forget_assignment(KafkaReader *reader)
{
	int			i;

	for (i = 0; i < reader->n_assigned; i++)
		free(reader->assigned[i].topic);
	free(reader->assigned);
	reader->assigned = NULL;
	reader->n_assigned = 0;
}

bool
kafka_reader_close(KafkaReader *reader)
{
	bool		ended;

	if (reader == NULL)
		return true;
	forget_assignment(reader);
	ended = kafka_show_close(reader->show);
	ended &= kafka_client_close(reader->client, KAFKA_WORK_NONE);
	free(reader);
	return ended;
}

int
kafka_reader_fd(KafkaReader *reader)
{
	return reader->client->fd;
}

void
kafka_reader_no_answer(KafkaReader *reader, KafkaError *error)
{
	kafka_client_no_answer(reader->client, 0, error);
}

const char *
kafka_reader_cluster_id(KafkaReader *reader)
{
	return kafka_client_cluster_id(reader->client);
}

/* ------------------------------------------------------------------------
 * The assignment
 * ------------------------------------------------------------------------
 */
static const Assigned *
find_assigned(const KafkaReader *reader, const char *topic, int partition)
{
	int			i;

	for (i = 0; i < reader->n_assigned; i++)
	{
		if (reader->assigned[i].partition == partition &&
			strcmp(reader->assigned[i].topic, topic) == 0)
			return &reader->assigned[i];
	}
	return NULL;
}

/*
 * Drop what waits.  Messages of an assignment that ended are dropped by the
 * library itself, which numbers assignments; "offset out of range" is not
 * numbered, so it is thrown away here before the new assignment is made.
 */
static void
drop_waiting(KafkaReader *reader)
{
	rd_kafka_topic_partition_t *partition;
	rd_kafka_event_t *event;

	while ((event = kafka_client_next(reader->client, 0)) != NULL)
	{
		rd_kafka_event_type_t type = rd_kafka_event_type(event);

		/* what is not of a partition is still true, and may be said once */
		partition = type == RD_KAFKA_EVENT_ERROR ?
			rd_kafka_event_topic_partition(event) : NULL;
		if (partition != NULL)
			rd_kafka_topic_partition_destroy(partition);
		else if (type != RD_KAFKA_EVENT_FETCH)
			kafka_client_handle(reader->client, event);
		rd_kafka_event_destroy(event);
	}
}

/* The assignment, for us and as the library wants it. */
static rd_kafka_topic_partition_list_t *
remember_positions(KafkaReader *reader, const KafkaPosition *positions, int n)
{
	rd_kafka_topic_partition_list_t *list;
	int			i;

	forget_assignment(reader);
	reader->assigned = kafka_malloc((size_t) n * sizeof(Assigned));
	reader->n_assigned = n;
	list = rd_kafka_topic_partition_list_new(n);
	for (i = 0; i < n; i++)
	{
		reader->assigned[i].topic = kafka_strdup(positions[i].topic);
		reader->assigned[i].partition = positions[i].partition;
		reader->assigned[i].offset = positions[i].offset;
		rd_kafka_topic_partition_list_add(list, positions[i].topic,
										  positions[i].partition)->offset =
			positions[i].offset;
	}
	return list;
}

KafkaOutcome
kafka_reader_assign(KafkaReader *reader, const KafkaPosition *positions,
					int n, KafkaError *error)
{
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t code;

	code = rd_kafka_assign(reader->client->rk, NULL);
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		drop_waiting(reader);
		list = remember_positions(reader, positions, n);
		if (n > 0)
			code = rd_kafka_assign(reader->client->rk, list);
		rd_kafka_topic_partition_list_destroy(list);
	}
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		return KAFKA_OK;
	kafka_error_set(error, code, "could not assign partitions: %s",
					rd_kafka_err2str(code));
	return KAFKA_UNCERTAIN;
}

/* ------------------------------------------------------------------------
 * Items
 * ------------------------------------------------------------------------
 */

/*
 * An item owns either an event (a message) or the library's description of a
 * partition (end, lost, error).  Both are at least word aligned, so the
 * lowest bit tells them apart.
 */
#define PARTITION_BIT ((uintptr_t) 1)

static void
fill_message(KafkaItem *item, rd_kafka_event_t *event,
			 const rd_kafka_message_t *message)
{
	rd_kafka_timestamp_type_t kind;

	item->kind = KAFKA_ITEM_MESSAGE;
	item->topic = rd_kafka_topic_name(message->rkt);
	item->partition = message->partition;
	item->offset = message->offset;
	item->timestamp_ms = rd_kafka_message_timestamp(message, &kind);
	if (kind == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
		item->timestamp_ms = -1;
	item->key = message->key;
	item->key_len = message->key_len;
	item->value = message->payload;
	item->value_len = message->len;
	item->message = message;
	item->handle = event;
}

/* What an error means while reading. */
static KafkaOutcome
item_outcome(rd_kafka_resp_err_t code)
{
	KafkaOutcome outcome = kafka_outcome_of(code);

	/* "Refused" and "fenced" are words of writing. */
	return outcome == KAFKA_OK || outcome == KAFKA_REFUSED ||
		outcome == KAFKA_FENCED ? KAFKA_UNCERTAIN : outcome;
}

/* An event about one partition.  False: of an assignment that has ended. */
static bool
fill_partition(KafkaReader *reader, KafkaItem *item, rd_kafka_event_t *event,
			   rd_kafka_topic_partition_t *partition)
{
	rd_kafka_resp_err_t code = rd_kafka_event_error(event);
	const Assigned *assigned;

	assigned = find_assigned(reader, partition->topic, partition->partition);
	if (assigned == NULL)
		return false;
	item->topic = partition->topic;
	item->partition = partition->partition;
	item->offset = partition->offset;
	item->handle = (void *) ((uintptr_t) partition | PARTITION_BIT);
	if (code == RD_KAFKA_RESP_ERR__PARTITION_EOF)
	{
		item->kind = KAFKA_ITEM_END;
		return true;
	}

	kafka_error_set(&item->error, code, "topic \"%s\" partition %d: %s",
					partition->topic, (int) partition->partition,
					rd_kafka_event_error_string(event));
	item->outcome = item_outcome(code);
	item->kind = KAFKA_ITEM_ERROR;
	if (code == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET)
	{
		/* Not numbered by the library: see drop_waiting. */
		if (assigned->offset >= 0 && partition->offset >= 0 &&
			partition->offset < assigned->offset)
			return false;
		item->kind = KAFKA_ITEM_LOST;
	}
	return true;
}

/*
 * An error without a partition.  Only two kinds are for the caller: every
 * broker is away, and the handle is broken.  A single connection mends
 * itself, and the group's coordinator does not matter to us.
 */
static bool
fill_error(KafkaReader *reader, KafkaItem *item, rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t code = rd_kafka_event_error(event);

	kafka_client_handle(reader->client, event);
	if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
	{
		item->kind = KAFKA_ITEM_ERROR;
		item->outcome = KAFKA_UNREACHABLE;
		kafka_client_no_answer(reader->client, code, &item->error);
		return true;
	}
	if (rd_kafka_event_error_is_fatal(event))
	{
		item->kind = KAFKA_ITEM_ERROR;
		item->outcome = KAFKA_UNCERTAIN;
		kafka_error_set(&item->error, code, "%s",
						rd_kafka_event_error_string(event));
		return true;
	}
	return false;
}

/* True if the event became an item; it is destroyed unless the item owns it. */
static bool
take_event(KafkaReader *reader, KafkaItem *item, rd_kafka_event_t *event)
{
	const rd_kafka_message_t *message;
	rd_kafka_topic_partition_t *partition;
	bool		taken = false;

	switch (rd_kafka_event_type(event))
	{
		case RD_KAFKA_EVENT_FETCH:
			message = rd_kafka_event_message_next(event);
			if (message != NULL && message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			{
				fill_message(item, event, message);
				return true;
			}
			break;
		case RD_KAFKA_EVENT_ERROR:
			partition = rd_kafka_event_topic_partition(event);
			if (partition == NULL)
				taken = fill_error(reader, item, event);
			else
			{
				taken = fill_partition(reader, item, event, partition);
				if (!taken)
					rd_kafka_topic_partition_destroy(partition);
			}
			break;
		default:
			kafka_client_handle(reader->client, event);
			break;
	}
	rd_kafka_event_destroy(event);
	return taken;
}

void
kafka_reader_next(KafkaReader *reader, KafkaItem *item)
{
	rd_kafka_event_t *event;

	item->handle = NULL;
	item->message = NULL;
	item->topic = NULL;
	while ((event = kafka_client_next(reader->client, 0)) != NULL)
	{
		if (take_event(reader, item, event))
			return;
	}
	if (reader->show != NULL)
		kafka_show_serve(reader->show);
	item->kind = KAFKA_ITEM_NONE;
	item->handle = NULL;
}

void
kafka_reader_release(KafkaItem *item)
{
	uintptr_t	handle = (uintptr_t) item->handle;

	if (handle & PARTITION_BIT)
		rd_kafka_topic_partition_destroy((rd_kafka_topic_partition_t *)
										 (handle & ~PARTITION_BIT));
	else if (handle != 0)
		rd_kafka_event_destroy((rd_kafka_event_t *) item->handle);
	item->handle = NULL;
	item->message = NULL;
}

bool
kafka_item_header(const KafkaItem *item, size_t index, KafkaHeader *header)
{
	rd_kafka_headers_t *headers;

	if (item->message == NULL ||
		rd_kafka_message_headers(item->message, &headers) !=
		RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	return rd_kafka_header_get_all(headers, index, &header->name,
								   &header->value, &header->value_len) ==
		RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ------------------------------------------------------------------------
 * Topics and offsets
 * ------------------------------------------------------------------------
 */
KafkaOutcome
kafka_reader_topic(KafkaReader *reader, const char *topic, int slice_ms,
				   int max_ms, KafkaTopicInfo *info, KafkaError *error)
{
	return kafka_client_topic(reader->client, topic, slice_ms, max_ms, info,
							  error);
}

int64_t
kafka_reader_high_watermark(KafkaReader *reader, const char *topic,
							int partition)
{
	int64_t		low = KAFKA_OFFSET_UNKNOWN;
	int64_t		high = KAFKA_OFFSET_UNKNOWN;

	if (rd_kafka_get_watermark_offsets(reader->client->rk, topic, partition,
									   &low, &high) !=
		RD_KAFKA_RESP_ERR_NO_ERROR)
		return KAFKA_OFFSET_UNKNOWN;
	return high;
}

KafkaOutcome
kafka_reader_show_offsets(KafkaReader *reader, const KafkaPosition *positions,
						  int n, const char *metadata, KafkaError *error)
{
	if (reader->show == NULL)
	{
		kafka_error_set(error, 0, "no group was named to show offsets under");
		return KAFKA_MISCONFIGURED;
	}
	return kafka_show_step(reader->show, positions, n, metadata, error);
}
