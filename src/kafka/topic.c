/*-------------------------------------------------------------------------
 *
 * topic.c
 *	  Looking topics up, and the topic handles of a producer.
 *
 * A metadata request of the application is the one call of the library that
 * can neither be resumed nor be answered by an event: each starts afresh, so
 * one that always waits for less than a round trip never succeeds.  Hence a
 * time limit that grows from call to call.
 *
 * Thread: the worker's.  Memory: malloc, freed with the client or by
 * kafka_topics_forget.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

/* ------------------------------------------------------------------------
 * Topics and the cluster
 * ------------------------------------------------------------------------
 */
static void
lookup_begin(KafkaClient *client, const char *topic, int slice_ms)
{
	if (client->lookup_topic != NULL &&
		strcmp(client->lookup_topic, topic) == 0)
		return;
	free(client->lookup_topic);
	client->lookup_topic = kafka_strdup(topic);
	client->lookup_timeout = slice_ms > 0 ? slice_ms : 1;
}

static void
lookup_end(KafkaClient *client)
{
	free(client->lookup_topic);
	client->lookup_topic = NULL;
}

static KafkaOutcome
lookup_no_answer(KafkaClient *client, int max_ms, rd_kafka_resp_err_t code,
				 KafkaError *error)
{
	kafka_error_set(error, code, "%s",
					client->trouble[0] != '\0' ? client->trouble :
					rd_kafka_err2str(code));
	if (client->lookup_timeout >= max_ms)
	{
		lookup_end(client);
		return KAFKA_UNREACHABLE;
	}
	client->lookup_timeout *= 2;
	if (client->lookup_timeout > max_ms)
		client->lookup_timeout = max_ms;
	return KAFKA_PENDING;
}

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

/* What the broker says of the topic. */
static KafkaOutcome
lookup_answer(const rd_kafka_metadata_topic_t *topic, const char *name,
			  KafkaTopicInfo *info, KafkaError *error)
{
	switch (topic->err)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
		case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
			info->exists = true;
			info->partitions = topic->partition_cnt;
			if (every_partition_has_leader(topic))
				return KAFKA_OK;
			kafka_error_set(error, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
							"a partition of topic \"%s\" has no leader", name);
			return KAFKA_TROUBLE;
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
			return KAFKA_OK;
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
			kafka_error_set(error, topic->err,
							"\"%s\" is not a valid name of a topic", name);
			return KAFKA_MISCONFIGURED;
		default:
			kafka_error_set(error, topic->err, "topic \"%s\": %s", name,
							rd_kafka_err2str(topic->err));
			return KAFKA_TROUBLE;
	}
}

KafkaOutcome
kafka_client_topic(KafkaClient *client, rd_kafka_topic_t *rkt,
				   const char *topic, int slice_ms, int max_ms,
				   KafkaTopicInfo *info, KafkaError *error)
{
	const struct rd_kafka_metadata *metadata = NULL;
	rd_kafka_resp_err_t code;
	KafkaOutcome outcome;

	info->exists = false;
	info->partitions = 0;
	lookup_begin(client, topic, slice_ms);

	code = rd_kafka_metadata(client->rk, 0, rkt, &metadata,
							 client->lookup_timeout);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return lookup_no_answer(client, max_ms, code, error);

	if (metadata->topic_cnt != 1)
	{
		kafka_error_set(error, 0, "no answer about topic \"%s\"", topic);
		outcome = KAFKA_UNCERTAIN;
	}
	else
		outcome = lookup_answer(&metadata->topics[0], topic, info, error);
	rd_kafka_metadata_destroy(metadata);
	lookup_end(client);
	return outcome;
}

const char *
kafka_client_cluster_id(KafkaClient *client)
{
	char	   *id;

	if (client->cluster_id != NULL)
		return client->cluster_id;
	id = rd_kafka_clusterid(client->rk, 0);
	if (id == NULL)
		return NULL;
	client->cluster_id = kafka_strdup(id);
	rd_kafka_mem_free(client->rk, id);
	return client->cluster_id;
}

/* ------------------------------------------------------------------------
 * The topic handles of a producer
 * ------------------------------------------------------------------------
 */
struct KafkaTopicSlot
{
	struct KafkaTopicSlot *next;
	rd_kafka_topic_t *rkt;
	char		name[];
};

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

rd_kafka_topic_t *
kafka_topics_get(KafkaTopics *topics, rd_kafka_t *rk, const char *name)
{
	unsigned int bucket = 0;
	KafkaTopicSlot *slot = find_topic(topics, name, &bucket);
	rd_kafka_topic_t *rkt;

	if (slot != NULL)
		return slot->rkt;
	rkt = rd_kafka_topic_new(rk, name, NULL);
	if (rkt == NULL)
		return NULL;
	slot = kafka_malloc(sizeof(KafkaTopicSlot) + strlen(name) + 1);
	slot->rkt = rkt;
	memcpy(slot->name, name, strlen(name) + 1);
	slot->next = topics->buckets[bucket];
	topics->buckets[bucket] = slot;
	topics->last = slot;
	return rkt;
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
