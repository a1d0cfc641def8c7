/*-------------------------------------------------------------------------
 *
 * topic.c
 *	  What brokers say of topics, and the topics of a producer.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The metadata is asked for by lookup.c.  A producer also wants to know how
 * large a batch the topic takes: DescribeConfigs is asked beside the metadata
 * and answered by an event.  Once it was answered, in whatever way, it is not
 * asked again on that handle.
 *
 * Thread: the worker's.  Memory: malloc, freed by kafka_topics_forget.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

/* After this long the settings of a topic, and its limit, stay unknown. */
#define LIMIT_TIMEOUT_MS 5000

/* A topic whose settings a broker does not know yet is asked for again. */
#define LIMIT_AGAIN_MS 100

/*
 * What was asked longer ago is asked again by the next look-up: long enough for
 * a topic that is looked up again and again, being in trouble.
 */
#define LIMIT_KEEP_MS 2000

/* A call that waits for so long is explained, and so often it is looked why. */
#define EXPLAIN_AFTER_MS 1500
#define EXPLAIN_AGAIN_MS 1000
#define EXPLAIN_MAX_MS 2000

/* What was found longer ago is not given any more. */
#define KEEP_FOUND_MS (LIMIT_TIMEOUT_MS + 3000)

/* ------------------------------------------------------------------------
 * What a broker says
 * ------------------------------------------------------------------------
 */
static bool
every_partition_has_leader(const rd_kafka_metadata_topic_t *topic)
{
	int			i;

	for (i = 0; i < topic->partition_cnt; i++)
	{
		if (topic->partitions[i].leader < 0)
			return false;
	}
	return topic->partition_cnt > 0;
}

static KafkaOutcome
bad_name(const char *topic, KafkaError *error)
{
	kafka_error_set(error, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
					"\"%s\" is not a valid name of a topic", topic);
	kafka_error_of_topic(error, topic);
	return KAFKA_MISCONFIGURED;
}

static void
count_replicas(const rd_kafka_metadata_topic_t *topic, KafkaTopicInfo *info)
{
	for (int i = 0; i < topic->partition_cnt; i++)
	{
		const		rd_kafka_metadata_partition_t *partition = &topic->partitions[i];

		if (i == 0 || partition->replica_cnt < info->replicas)
			info->replicas = partition->replica_cnt;
		if (i == 0 || partition->isr_cnt < info->in_sync)
			info->in_sync = partition->isr_cnt;
	}
}

KafkaOutcome
kafka_topic_answer(const rd_kafka_metadata_topic_t *topic, const char *name,
				   KafkaTopicInfo *info, KafkaError *error)
{
	switch (topic->err)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
		case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
			info->exists = true;
			info->partitions = topic->partition_cnt;
			count_replicas(topic, info);
			if (every_partition_has_leader(topic))
				return KAFKA_OK;
			kafka_error_set(error, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
							"a partition of topic \"%s\" has no leader", name);
			kafka_error_of_topic(error, name);
			return KAFKA_TROUBLE;
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
			return KAFKA_OK;
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
			return bad_name(name, error);
		default:
			kafka_error_set(error, topic->err, "topic \"%s\": %s", name,
							rd_kafka_err2str(topic->err));
			kafka_error_of_topic(error, name);
			return KAFKA_TROUBLE;
	}
}

KafkaOutcome
kafka_client_topic(KafkaClient *client, const char *topic, int slice_ms,
				   int max_ms, KafkaTopicInfo *info, KafkaError *error)
{
	KafkaLookupAnswer answer;
	KafkaOutcome outcome;

	memset(info, 0, sizeof(*info));
	switch (kafka_lookup(client, topic, slice_ms, max_ms, &answer))
	{
		case KAFKA_LOOKUP_ANSWERED:
			break;
		case KAFKA_LOOKUP_BAD_NAME:
			return bad_name(topic, error);
		case KAFKA_LOOKUP_NO_THREAD:
			kafka_error_set(error, 0, "no thread could be started to ask for topic \"%s\"",
							topic);
			return KAFKA_TROUBLE;
		default:
			kafka_client_no_answer(client, 0, error);
			return KAFKA_PENDING;
	}

	if (answer.code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		kafka_client_take_lines(client);
		kafka_client_no_answer(client, answer.code, error);
		return KAFKA_UNREACHABLE;
	}
	client->answered = true;
	if (answer.metadata->topic_cnt != 1)
	{
		kafka_error_set(error, 0, "no answer about topic \"%s\"", topic);
		outcome = KAFKA_UNCERTAIN;
	}
	else
		outcome = kafka_topic_answer(&answer.metadata->topics[0], topic, info, error);
	rd_kafka_metadata_destroy(answer.metadata);
	return outcome;
}

/* ------------------------------------------------------------------------
 * The topics of a producer
 * ------------------------------------------------------------------------
 */
typedef enum LimitState
{
	LIMIT_NOT_ASKED,
	LIMIT_ASKED,
	LIMIT_ANSWERED				/* what is unknown now stays so */
} LimitState;

struct KafkaTopicSlot
{
	struct KafkaTopicSlot *next;
	rd_kafka_topic_t *rkt;
	LimitState	limit;
	uintptr_t	request;		/* the number of the question for the limit */
	int64_t		asked_ms;
	bool		described;
	KafkaTopicSettings settings;
	bool		found;			/* info is the metadata's, the limit is due */
	int64_t		found_ms;
	KafkaTopicInfo info;
	char		name[];
};

/* NULL: not known yet, and *bucket is where it belongs. */
static KafkaTopicSlot *
find_topic(KafkaTopics *topics, const char *name, unsigned int *bucket)
{
	const unsigned char *c;
	unsigned int hash = 2166136261u;
	KafkaTopicSlot *slot;

	slot = topics->last;
	if (slot != NULL && strcmp(slot->name, name) == 0)
		return slot;
	for (c = (const unsigned char *) name; *c != '\0'; c++)
		hash = (hash ^ *c) * 16777619u;
	*bucket = hash % KAFKA_TOPIC_BUCKETS;
	for (slot = topics->buckets[*bucket]; slot != NULL; slot = slot->next)
	{
		if (strcmp(slot->name, name) == 0)
		{
			topics->last = slot;
			return slot;
		}
	}
	return NULL;
}

KafkaTopicSlot *
kafka_topics_get(KafkaTopics *topics, rd_kafka_t *rk, const char *name)
{
	unsigned int bucket = 0;
	KafkaTopicSlot *slot = find_topic(topics, name, &bucket);
	rd_kafka_topic_t *rkt;
	size_t		size;

	if (slot != NULL)
		return slot;
	rkt = rd_kafka_topic_new(rk, name, NULL);
	if (rkt == NULL)
		return NULL;
	size = strlen(name) + 1;
	slot = kafka_malloc(sizeof(KafkaTopicSlot) + size);
	memset(slot, 0, sizeof(*slot));
	slot->rkt = rkt;
	memcpy(slot->name, name, size);
	slot->next = topics->buckets[bucket];
	topics->buckets[bucket] = slot;
	topics->last = slot;
	return slot;
}

rd_kafka_topic_t *
kafka_topic_handle(const KafkaTopicSlot *slot)
{
	return slot->rkt;
}

void
kafka_topics_forget(KafkaTopics *topics)
{
	int			i;

	for (i = 0; i < KAFKA_TOPIC_BUCKETS; i++)
	{
		while (topics->buckets[i] != NULL)
		{
			KafkaTopicSlot *slot = topics->buckets[i];

			topics->buckets[i] = slot->next;
			rd_kafka_topic_destroy(slot->rkt);
			free(slot);
		}
	}
	topics->last = NULL;
}

/* ------------------------------------------------------------------------
 * Looking a producer's topic up
 * ------------------------------------------------------------------------
 */
static void
ask_limit(KafkaTopicSlot *slot, KafkaClient *client)
{
	int64_t		now = kafka_now_ms();

	if (slot->limit == LIMIT_ANSWERED && !slot->found &&
		now - slot->asked_ms > LIMIT_KEEP_MS)
		slot->limit = LIMIT_NOT_ASKED;
	if (slot->limit != LIMIT_NOT_ASKED ||
		(slot->request != 0 && now - slot->asked_ms < LIMIT_AGAIN_MS))
		return;
	slot->limit = LIMIT_ASKED;
	slot->asked_ms = now;
	slot->request = ++client->requests;
	kafka_send_describe(client, slot->request, RD_KAFKA_RESOURCE_TOPIC,
						slot->name, LIMIT_TIMEOUT_MS);
}

/* max.message.bytes of the topic and the like, unless the broker does not tell. */
static void
take_limit(KafkaTopicSlot *slot, rd_kafka_event_t *event)
{
	KafkaError	error = {0};

	slot->described = kafka_described_topic(event, &slot->settings, &error) == KAFKA_OK;
	if (!slot->described && error.code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
	{
		/* It may come into being. */
		slot->limit = LIMIT_NOT_ASKED;
		return;
	}
	slot->limit = LIMIT_ANSWERED;
}

bool
kafka_topics_handle(KafkaTopics *topics, rd_kafka_event_t *event)
{
	uintptr_t	number;
	int			i;

	if (rd_kafka_event_type(event) != RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT)
		return false;
	number = (uintptr_t) rd_kafka_event_opaque(event);
	for (i = 0; i < KAFKA_TOPIC_BUCKETS; i++)
	{
		KafkaTopicSlot *slot;

		for (slot = topics->buckets[i]; slot != NULL; slot = slot->next)
		{
			if (slot->limit == LIMIT_ASKED && slot->request == number)
			{
				take_limit(slot, event);
				return true;
			}
		}
	}
	return false;
}

void
kafka_topics_ask_anew(KafkaTopics *topics)
{
	for (int i = 0; i < KAFKA_TOPIC_BUCKETS; i++)
	{
		for (KafkaTopicSlot *slot = topics->buckets[i]; slot != NULL; slot = slot->next)
		{
			/* an answer that is under way may be older than the wish */
			slot->limit = LIMIT_NOT_ASKED;
			slot->request = 0;
			slot->found = false;
		}
	}
}

KafkaOutcome
kafka_topic_look_up(KafkaTopicSlot *slot, KafkaClient *client, int slice_ms,
					int max_ms, KafkaTopicInfo *info, KafkaError *error)
{
	ask_limit(slot, client);
	if (slot->found && kafka_now_ms() - slot->found_ms > KEEP_FOUND_MS)
		slot->found = false;
	if (!slot->found)
	{
		KafkaOutcome outcome = kafka_client_topic(client, slot->name, slice_ms,
												  max_ms, info, error);

		if (outcome != KAFKA_OK || !info->exists)
			return outcome;
		slot->found = true;
		slot->found_ms = kafka_now_ms();
		slot->info = *info;
	}
	*info = slot->info;
	if (slot->limit != LIMIT_ANSWERED &&
		kafka_now_ms() - slot->found_ms < LIMIT_TIMEOUT_MS)
	{
		kafka_client_no_answer(client, 0, error);
		return KAFKA_PENDING;
	}
	slot->found = false;
	info->described = slot->described;
	info->settings = slot->settings;
	return KAFKA_OK;
}

/* ------------------------------------------------------------------------
 * Why nothing comes of it
 * ------------------------------------------------------------------------
 */

/* So few replicas in sync?  Without the topic's limit: as few as nobody wants. */
static bool
is_below(int in_sync, int replicas, const KafkaTopicSlot *slot)
{
	if (slot != NULL && slot->described && slot->settings.min_insync > 0)
		return in_sync < slot->settings.min_insync;
	return replicas > 2 && in_sync < 2;
}

/* True: there is something that keeps records of this topic from being taken. */
static bool
topic_lacks(KafkaTopics *topics, const rd_kafka_metadata_topic_t *topic,
			KafkaError *lack)
{
	unsigned int bucket;
	const KafkaTopicSlot *slot = find_topic(topics, topic->topic, &bucket);

	for (int i = 0; i < topic->partition_cnt; i++)
	{
		const		rd_kafka_metadata_partition_t *partition = &topic->partitions[i];

		if (partition->leader < 0)
		{
			kafka_error_set(lack, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
							"partition %d of topic \"%s\" has no leader",
							(int) partition->id, topic->topic);
			return true;
		}
		if (is_below(partition->isr_cnt, partition->replica_cnt, slot))
		{
			kafka_error_set(lack, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
							"partition %d of topic \"%s\" has only %d of %d replicas in sync",
							(int) partition->id, topic->topic, partition->isr_cnt,
							partition->replica_cnt);
			return true;
		}
	}
	return false;
}

void
kafka_topics_explain(KafkaTopics *topics, KafkaClient *client, KafkaError *error)
{
	int64_t		now = kafka_now_ms();
	KafkaLookupAnswer answer;

	if (topics->waits_ms == 0)
		topics->waits_ms = now;
	if (now - topics->waits_ms < EXPLAIN_AFTER_MS)
	{
		topics->lack.code = 0;
		return;
	}
	if (now - topics->lack_ms >= EXPLAIN_AGAIN_MS &&
		kafka_lookup(client, KAFKA_LOOKUP_KNOWN, 0, EXPLAIN_MAX_MS,
					 &answer) == KAFKA_LOOKUP_ANSWERED)
	{
		topics->lack_ms = now;
		topics->lack.code = 0;
		if (answer.code == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			for (int i = 0; i < answer.metadata->topic_cnt; i++)
			{
				if (topic_lacks(topics, &answer.metadata->topics[i], &topics->lack))
					break;
			}
			rd_kafka_metadata_destroy(answer.metadata);
		}
	}
	if (topics->lack.code != 0 && error != NULL)
		*error = topics->lack;
}
