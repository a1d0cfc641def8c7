/*-------------------------------------------------------------------------
 *
 * link.c
 *	  The relay's link to Kafka: handles, topics, and what is asked of it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fault.h"
#include "outbox/topics.h"
#include "relay/link.h"
#include "settings.h"
#include "worker/worker.h"

#define METADATA_MOST_MS 2000

/* A record batch has a head of its own, and the broker counts it. */
#define BATCH_HEAD_BYTES 1024

void
relay_answer(RelayResult *result, KafkaOutcome outcome, const KafkaError *error)
{
	result->outcome = outcome;
	if (outcome == KAFKA_OK)
		return;
	result->kind = error->code;
	result->message = error->message;
	result->topic = error->topic;
	result->timed_out = error->timed_out;
	/* who waits for an answer does so in vain, or it may still come */
	if (outcome != KAFKA_PENDING || kafka_needs_person(error))
		result->remedy = kafka_remedy(error);
}

static void
answer(RelayLink *link, RelayResult *result, KafkaOutcome outcome)
{
	relay_answer(result, outcome, &link->error);
}

/* ------------------------------------------------------------------------
 * Handles
 * ------------------------------------------------------------------------
 */
void
relay_link_name(RelayLink *link, const Lineage *lineage)
{
	strlcpy(link->progress_topic,
			lineage->progress_topic[0] != '\0' ? lineage->progress_topic :
			lineage_progress_topic(lineage),
			sizeof(link->progress_topic));
	link->default_reserved = outbox_is_progress_topic(setting_topic);
}

bool
relay_link_reserved(const RelayLink *link, const char *topic)
{
	return strcmp(topic, link->progress_topic) == 0 ||
		(link->default_reserved && strcmp(topic, setting_topic) == 0);
}

/*
 * The broker refuses a batch that is larger than its topic allows, however
 * small its events are: batches stay below the smallest limit in use.
 */
static size_t
fitting_batch(const RelayLink *link)
{
	int64		least = 0;

	for (int i = 0; i < link->n_topics; i++)
	{
		int64		limit = link->topics[i].max_bytes;

		if (limit > 0 && (least == 0 || limit < least))
			least = limit;
	}
	if (least == 0 || least >= 1000000)
		return 0;
	return least > 2 * BATCH_HEAD_BYTES ? (size_t) (least - BATCH_HEAD_BYTES) :
		(size_t) (least / 2 + 1);
}

/* A producer; NULL, with the reason in link->error: it cannot be made. */
static KafkaProducer *
open_handle(RelayLink *link, const char *transactional_id)
{
	KafkaProducerOptions options = {0};

	options.transactional_id = transactional_id;
	options.compression = settings_compression_name();
	options.transaction_timeout_ms = setting_transaction_timeout;
	options.max_message_bytes = setting_max_message_bytes;
	options.batch_bytes = link->batch_bytes;

	/* a transaction of the outbox may reach twice the limit, see publish.c */
	options.queue_bytes = Max((size_t) setting_worker_memory * 1024,
							  (size_t) setting_max_transaction_bytes * 1024 * 2 +
							  setting_max_message_bytes * 2);
	options.queue_messages = setting_max_transaction_events + 1000;
	options.log = worker_kafka_log;
	return kafka_producer_open(link->properties, &options, &link->error);
}

void
relay_link_open(RelayLink *link, RelayResult *result)
{
	memset(&link->error, 0, sizeof(link->error));
	link->properties = worker_kafka_properties(&link->error);
	link->batch_bytes = fitting_batch(link);
	if (link->properties != NULL)
	{
		link->producer = open_handle(link, link->progress_topic);
		if (link->producer != NULL && setting_delivery == DELIVERY_AT_LEAST_ONCE)
		{
			link->plain = open_handle(link, NULL);
			if (link->plain == NULL)
			{
				(void) kafka_producer_close(link->producer);
				link->producer = NULL;
			}
		}
	}
	for (int i = 0; i < link->n_topics; i++)
		link->topics[i].partitions = 0;
	if (link->producer == NULL)
	{
		answer(link, result, KAFKA_MISCONFIGURED);
		if (link->properties != NULL)
			kafka_properties_free(link->properties);
		link->properties = NULL;
	}
}

bool
relay_link_close(RelayLink *link)
{
	bool		ended = true;

	if (link->last_read != NULL)
		ended = kafka_last_close(link->last_read) && ended;
	link->last_read = NULL;
	if (link->plain != NULL)
		ended = kafka_producer_close(link->plain) && ended;
	link->plain = NULL;
	if (link->producer != NULL)
		ended = kafka_producer_close(link->producer) && ended;
	link->producer = NULL;
	if (link->properties != NULL)
		kafka_properties_free(link->properties);
	link->properties = NULL;
	return ended;
}

const char *
relay_link_cluster(RelayLink *link)
{
	const char *cluster = kafka_producer_cluster_id(link->producer);

	return cluster != NULL ? cluster : "";
}

/* ------------------------------------------------------------------------
 * Topics
 * ------------------------------------------------------------------------
 */
RelayTopic *
relay_link_topic(RelayLink *link, const char *name)
{
	RelayTopic *topic;
	RelayTopic *more;

	for (int i = 0; i < link->n_topics; i++)
	{
		if (strcmp(link->topics[i].name, name) == 0)
			return &link->topics[i];
	}
	more = realloc(link->topics, sizeof(RelayTopic) * (link->n_topics + 1));
	if (more == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	link->topics = more;
	topic = &link->topics[link->n_topics++];
	memset(topic, 0, sizeof(*topic));
	strlcpy(topic->name, name, sizeof(topic->name));
	return topic;
}

/* Look a topic up with a handle, and remember what it says. */
static KafkaOutcome
look_up(RelayLink *link, KafkaProducer *handle, const char *name,
		bool *exists)
{
	KafkaTopicInfo info = {0};
	KafkaOutcome outcome = kafka_producer_topic(handle, name, RELAY_SLICE_MS,
												METADATA_MOST_MS, &info, &link->error);

	*exists = outcome == KAFKA_OK && info.exists;
	if (outcome == KAFKA_OK)
		watch_note(&relay_link_topic(link, name)->watch, &info, worker_now_us());
	if (*exists)
	{
		RelayTopic *topic = relay_link_topic(link, name);

		topic->partitions = info.partitions;
		topic->max_bytes = info.settings.max_message_bytes;
	}
	return outcome;
}

/* The steps of a check, each until it is not pending any more. */
static KafkaOutcome
check_progress_topic(RelayLink *link, bool *exists)
{
	KafkaOutcome outcome = look_up(link, link->producer, link->progress_topic, exists);
	bool		again;

	/* the progress record goes by the other handle, which must know it */
	if (outcome == KAFKA_OK && *exists && link->plain != NULL)
		outcome = look_up(link, link->plain, link->progress_topic, &again);
	return outcome;
}

/* Does the broker verify partitions in transactions?  Asked once a handle. */
static KafkaOutcome
check_verification(RelayLink *link)
{
	KafkaOutcome outcome;

	if (link->verification_known)
		return KAFKA_OK;
	outcome = kafka_admin_verification(link->producer, RELAY_SLICE_MS,
									   &link->verification, &link->error);
	/* a refusal is asked again: the broker may have been mended */
	link->verification_known = outcome == KAFKA_OK &&
		link->verification == KAFKA_VERIFIES;
	return outcome;
}

/*
 * Warm the topics that were in use: the first message to one that the handle
 * does not know would wait a second.  One that is in trouble must not hold up
 * the others: it is looked up again when an event needs it.
 */
static KafkaOutcome
warm_topics(RelayLink *link)
{
	(void) relay_link_topic(link, setting_topic);
	for (int i = 0; i < link->n_topics; i++)
	{
		bool		exists;

		if (link->topics[i].partitions == 0 &&
			!relay_link_reserved(link, link->topics[i].name) &&
			look_up(link, relay_link_sender(link), link->topics[i].name,
					&exists) == KAFKA_PENDING)
			return KAFKA_PENDING;
	}
	return KAFKA_OK;
}

void
relay_link_check(RelayLink *link, const Lineage *lineage, RelayResult *result)
{
	bool		exists = false;
	KafkaOutcome outcome = check_progress_topic(link, &exists);

	if (outcome == KAFKA_OK)
		outcome = check_verification(link);
	if (outcome == KAFKA_OK)
		outcome = warm_topics(link);
	answer(link, result, outcome);
	if (outcome != KAFKA_OK)
		return;
	result->topic_exists = exists;
	result->born = lineage->cluster_id[0] != '\0';
	result->same_cluster = !result->born ||
		strcmp(relay_link_cluster(link), lineage->cluster_id) == 0;
	result->does_not_verify = link->verification == KAFKA_DOES_NOT_VERIFY;
	result->reopen = fitting_batch(link) != link->batch_bytes;
}

/* May a topic be made?  False leaves the reason in link->error. */
static bool
may_create(RelayLink *link, const char *name, const char *how)
{
	if (setting_create_topics)
		return true;
	memset(&link->error, 0, sizeof(link->error));
	snprintf(link->error.message, sizeof(link->error.message),
			 "topic \"%s\" does not exist and carshop_outbox.create_topics is off%s",
			 name, how);
	strlcpy(link->error.topic, name, sizeof(link->error.topic));
	return false;
}

#define REMEDY_NO_TOPIC \
	"Create the topic, or let the relay do it: ALTER SYSTEM SET carshop_outbox.create_topics = on; SELECT pg_reload_conf();"

/* Told like the broker's "unknown topic", which it is. */
static void
no_topic(RelayLink *link, RelayResult *result)
{
	relay_answer(result, KAFKA_TROUBLE, &link->error);
	result->remedy = REMEDY_NO_TOPIC;
}

void
relay_link_create_progress_topic(RelayLink *link, RelayResult *result)
{
	static const KafkaConfigEntry config[] = {
		{"cleanup.policy", "compact"},
		{"segment.bytes", "16777216"},
		{"min.cleanable.dirty.ratio", "0.1"}
	};

	if (!may_create(link, link->progress_topic,
					" (make it with one partition and cleanup.policy=compact)"))
		no_topic(link, result);
	else
		answer(link, result,
			   kafka_admin_create_topic(link->producer, link->progress_topic, 1,
										setting_topic_replication_factor,
										config, lengthof(config),
										RELAY_SLICE_MS, &link->error));
}

void
relay_link_prepare_topic(RelayLink *link, RelayResult *result)
{
	bool		exists;
	KafkaOutcome outcome;

	if (relay_link_reserved(link, link->wanted))
	{
		memset(&link->error, 0, sizeof(link->error));
		snprintf(link->error.message, sizeof(link->error.message),
				 "topic \"%s\" is for a relay's progress: no events go there",
				 link->wanted);
		relay_answer(result, KAFKA_MISCONFIGURED, &link->error);
		result->remedy = "Choose another name with carshop_outbox.topic.";
		return;
	}
	outcome = look_up(link, relay_link_sender(link), link->wanted, &exists);
	if (outcome == KAFKA_OK && !exists)
	{
		if (!may_create(link, link->wanted, ""))
		{
			no_topic(link, result);
			return;
		}
		outcome = kafka_admin_create_topic(link->producer, link->wanted,
										   setting_topic_partitions,
										   setting_topic_replication_factor,
										   NULL, 0, RELAY_SLICE_MS, &link->error);
		if (outcome == KAFKA_OK)
			outcome = KAFKA_PENDING;	/* look again: it is there soon */
	}
	answer(link, result, outcome);
	result->reopen = outcome == KAFKA_OK &&
		fitting_batch(link) != link->batch_bytes;
}

/* ------------------------------------------------------------------------
 * Progress
 * ------------------------------------------------------------------------
 */
void
relay_link_read_progress(RelayLink *link, const char *lineage, bool stable,
						 RelayResult *result)
{
	KafkaLastRecord record = {0};
	KafkaOutcome outcome;

	if (link->last_read == NULL)
	{
		link->last_read = kafka_last_open(link->properties, link->progress_topic,
										  lineage, stable, worker_kafka_log,
										  NULL, &link->error);
		if (link->last_read == NULL)
		{
			answer(link, result, KAFKA_MISCONFIGURED);
			return;
		}
	}
	outcome = kafka_last_poll(link->last_read, 0, &record, &link->error);
	if (outcome == KAFKA_PENDING)
	{
		(void) worker_wait(kafka_last_fd(link->last_read), RELAY_SLICE_MS);
		answer(link, result, outcome);
		return;
	}
	answer(link, result, outcome);
	if (!kafka_last_close(link->last_read))
	{
		link->last_read = NULL;
		worker_leave_handle();
	}
	link->last_read = NULL;
	if (outcome == KAFKA_OK)
	{
		result->topic_exists = record.topic_exists;
		result->found = record.found;
		result->readable = record.found &&
			progress_decode(&result->progress, record.value, record.value_len);
		/* what is no progress record is nobody's */
		result->other_found = record.other_value != NULL &&
			progress_decode(&result->other, record.other_value, record.other_len);
	}
	free(record.value);
	free(record.other_value);
	FAULT_POINT("progress_read");
}

void
relay_link_init(RelayLink *link, RelayResult *result)
{
	answer(link, result, kafka_producer_init(link->producer, RELAY_SLICE_MS,
											 &link->error));
	if (result->outcome == KAFKA_OK)
		FAULT_POINT("init_done");
}
