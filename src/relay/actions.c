/*-------------------------------------------------------------------------
 *
 * actions.c
 *	  The relay's actions that talk to Kafka and to the lineage's row.
 *
 * Each performs one action of the state machine once: it may answer PENDING
 * and is then called again, after the worker has looked at its interrupts.
 * No transaction is open while Kafka is asked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "relay/relay.h"
#include "settings.h"
#include "utils/builtins.h"
#include "worker/worker.h"

#define SLICE_MS	50
#define METADATA_MOST_MS 2000

RelayOutcome
relay_outcome(KafkaOutcome outcome)
{
	switch (outcome)
	{
		case KAFKA_OK:
			return DONE_OK;
		case KAFKA_PENDING:
			return DONE_PENDING;
		case KAFKA_UNREACHABLE:
			return DONE_UNREACHABLE;
		case KAFKA_TROUBLE:
			return DONE_TROUBLE;
		case KAFKA_REFUSED:
			return DONE_REFUSED;
		case KAFKA_FENCED:
			return DONE_FENCED;
		case KAFKA_UNCERTAIN:
			return DONE_UNCERTAIN;
		case KAFKA_MISCONFIGURED:
			return DONE_MISCONFIGURED;
	}
	return DONE_UNCERTAIN;
}

/* Put an outcome and its words into the result; message lives in the relay. */
static void
answer(Relay *relay, RelayResult *result, KafkaOutcome outcome,
	   const KafkaError *error)
{
	result->outcome = relay_outcome(outcome);
	if (outcome == KAFKA_OK)
		return;
	relay->last_trouble[0] = '\0';
	if (outcome != KAFKA_PENDING && error->message[0] != '\0')
		strlcpy(relay->last_trouble, error->message, sizeof(relay->last_trouble));
	else if (relay->producer != NULL)
		strlcpy(relay->last_trouble, kafka_producer_last_trouble(relay->producer),
				sizeof(relay->last_trouble));
	result->message = relay->last_trouble;
}

RelayTopic *
relay_topic(Relay *relay, const char *name)
{
	RelayTopic *topic;

	for (int i = 0; i < relay->n_topics; i++)
	{
		if (strcmp(relay->topics[i].name, name) == 0)
			return &relay->topics[i];
	}
	relay->topics = realloc(relay->topics,
							sizeof(RelayTopic) * (relay->n_topics + 1));
	if (relay->topics == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	topic = &relay->topics[relay->n_topics++];
	strlcpy(topic->name, name, sizeof(topic->name));
	topic->partitions = 0;
	return topic;
}

static void
read_lineage(Relay *relay)
{
	char	   *home;
	char	   *topic;

	worker_begin(NULL);
	lineage_read(&relay->lineage);
	home = home_text();
	strlcpy(relay->home, home, sizeof(relay->home));
	topic = lineage_progress_topic(&relay->lineage);
	strlcpy(relay->progress_topic,
			relay->lineage.progress_topic[0] != '\0' ?
			relay->lineage.progress_topic : topic,
			sizeof(relay->progress_topic));
	if (setting_event_source[0] != '\0')
		strlcpy(relay->event_source, setting_event_source,
				sizeof(relay->event_source));
	else
		snprintf(relay->event_source, sizeof(relay->event_source),
				 "urn:carshop-outbox:%s:%s", relay->lineage.lineage,
				 get_database_name(MyDatabaseId));
	worker_commit();
}

void
relay_open(Relay *relay, RelayResult *result)
{
	KafkaProducerOptions options = {0};
	KafkaError	error = {0};

	read_lineage(relay);
	relay_load_dead_letters(relay);
	relay->properties = worker_kafka_properties(&error);
	if (relay->properties != NULL)
	{
		options.transactional_id = relay->progress_topic;
		options.compression = settings_compression_name();
		options.transaction_timeout_ms = setting_transaction_timeout;
		options.max_message_bytes = setting_max_message_bytes;

		/* a transaction of the outbox may reach twice the limit, see publish.c */
		options.queue_bytes = Max((size_t) setting_worker_memory * 1024,
								  (size_t) setting_max_transaction_bytes * 1024 * 2 +
								  setting_max_message_bytes * 2);
		options.queue_messages = setting_max_transaction_events + 1000;
		options.log = worker_kafka_log;
		relay->producer = kafka_producer_open(relay->properties, &options, &error);
		if (relay->producer != NULL && setting_delivery == DELIVERY_AT_LEAST_ONCE)
		{
			options.transactional_id = NULL;
			relay->plain = kafka_producer_open(relay->properties, &options, &error);
			if (relay->plain == NULL)
			{
				(void) kafka_producer_close(relay->producer);
				relay->producer = NULL;
			}
		}
	}
	relay->progress_sent = false;
	relay->early = 0;
	for (int i = 0; i < relay->n_topics; i++)
		relay->topics[i].partitions = 0;
	if (relay->producer == NULL)
	{
		answer(relay, result, KAFKA_MISCONFIGURED, &error);
		if (relay->properties != NULL)
			kafka_properties_free(relay->properties);
		relay->properties = NULL;
	}
}

void
relay_close(Relay *relay)
{
	bool		ended = true;

	relay_drop_batch(relay);
	if (relay->last_read != NULL)
	{
		ended = kafka_last_close(relay->last_read) && ended;
		relay->last_read = NULL;
	}
	if (relay->plain != NULL)
	{
		ended = kafka_producer_close(relay->plain) && ended;
		relay->plain = NULL;
	}
	if (relay->producer != NULL)
	{
		ended = kafka_producer_close(relay->producer) && ended;
		relay->producer = NULL;
	}
	if (relay->properties != NULL)
	{
		kafka_properties_free(relay->properties);
		relay->properties = NULL;
	}
	if (!ended)
		worker_leave_handle();
}

/* Look up what this handle has not seen yet. */
static KafkaOutcome
look_up(Relay *relay, RelayTopic *topic, KafkaTopicInfo *info, KafkaError *error)
{
	KafkaOutcome outcome = kafka_producer_topic(relay_sender(relay), topic->name,
												SLICE_MS, METADATA_MOST_MS,
												info, error);

	if (outcome == KAFKA_OK && info->exists)
		topic->partitions = info->partitions;
	return outcome;
}

void
relay_check(Relay *relay, RelayResult *result)
{
	KafkaTopicInfo info = {0};
	KafkaError	error = {0};
	KafkaOutcome outcome;
	const char *cluster;

	outcome = kafka_producer_topic(relay->producer, relay->progress_topic,
								   SLICE_MS, METADATA_MOST_MS, &info, &error);
	if (outcome != KAFKA_OK)
	{
		answer(relay, result, outcome, &error);
		return;
	}
	if (relay->plain != NULL && info.exists)
	{
		/* the progress record goes by the other handle, which must know it */
		KafkaTopicInfo again = {0};

		outcome = kafka_producer_topic(relay->plain, relay->progress_topic,
									   SLICE_MS, METADATA_MOST_MS, &again, &error);
		if (outcome != KAFKA_OK)
		{
			answer(relay, result, outcome, &error);
			return;
		}
	}
	if (!relay->verification_known)
	{
		outcome = kafka_admin_verification(relay->producer, SLICE_MS,
										   &relay->verification, &error);
		if (outcome != KAFKA_OK)
		{
			answer(relay, result, outcome, &error);
			return;
		}
		/* a refusal is asked again: the broker may have been mended */
		relay->verification_known = relay->verification == KAFKA_VERIFIES;
	}

	/* warm the topics that were in use: the first message would wait a second */
	(void) relay_topic(relay, setting_topic);
	for (int i = 0; i < relay->n_topics; i++)
	{
		KafkaTopicInfo topic_info = {0};

		if (relay->topics[i].partitions > 0)
			continue;
		outcome = look_up(relay, &relay->topics[i], &topic_info, &error);
		if (outcome == KAFKA_PENDING)
		{
			answer(relay, result, outcome, &error);
			return;
		}
	}

	cluster = kafka_producer_cluster_id(relay->producer);
	result->outcome = DONE_OK;
	result->topic_exists = info.exists;
	result->born = relay->lineage.cluster_id[0] != '\0';
	result->same_cluster = !result->born ||
		(cluster != NULL && strcmp(cluster, relay->lineage.cluster_id) == 0);
	result->does_not_verify = relay->verification == KAFKA_DOES_NOT_VERIFY;
	strlcpy(relay->report.broker_warning,
			relay->verification == KAFKA_VERIFICATION_UNKNOWN ?
			"The broker's settings may not be read: whether it verifies partitions in transactions is unknown." : "",
			sizeof(relay->report.broker_warning));
}

void
relay_create_progress_topic(Relay *relay, RelayResult *result)
{
	static const KafkaConfigEntry config[] = {
		{"cleanup.policy", "compact"},
		{"segment.bytes", "16777216"},
		{"min.cleanable.dirty.ratio", "0.1"}
	};
	KafkaError	error = {0};
	KafkaOutcome outcome;

	if (!setting_create_topics)
	{
		snprintf(error.message, sizeof(error.message),
				 "topic \"%s\" does not exist and carshop_outbox.create_topics is off"
				 " (make it with one partition and cleanup.policy=compact)",
				 relay->progress_topic);
		answer(relay, result, KAFKA_TROUBLE, &error);
		return;
	}
	outcome = kafka_admin_create_topic(relay->producer, relay->progress_topic, 1,
									   setting_topic_replication_factor,
									   config, lengthof(config), SLICE_MS, &error);
	answer(relay, result, outcome, &error);
}

void
relay_record_birth(Relay *relay, RelayResult *result)
{
	const char *cluster = kafka_producer_cluster_id(relay->producer);

	worker_begin("recording the lineage");
	lineage_born(cluster ? cluster : "", relay->progress_topic, relay->home);
	worker_commit();
	read_lineage(relay);
	result->outcome = DONE_OK;
}

void
relay_read_progress(Relay *relay, RelayResult *result)
{
	KafkaError	error = {0};
	KafkaLastRecord record = {0};
	KafkaOutcome outcome;

	if (relay->last_read == NULL)
	{
		relay->last_read = kafka_last_open(relay->properties, relay->progress_topic,
										   relay->lineage.lineage,
										   relay->machine.state == RELAY_AUTHORITATIVE,
										   worker_kafka_log, NULL, &error);
		if (relay->last_read == NULL)
		{
			answer(relay, result, KAFKA_MISCONFIGURED, &error);
			return;
		}
	}
	outcome = kafka_last_poll(relay->last_read, 0, &record, &error);
	if (outcome == KAFKA_PENDING)
		(void) worker_wait(kafka_last_fd(relay->last_read), SLICE_MS);
	answer(relay, result, outcome, &error);
	if (outcome == KAFKA_PENDING)
		return;

	if (!kafka_last_close(relay->last_read))
	{
		relay->last_read = NULL;
		worker_leave_handle();
	}
	relay->last_read = NULL;
	if (outcome == KAFKA_OK && record.found)
	{
		result->found = true;
		result->readable = progress_decode(&result->progress, record.value,
										   record.value_len);
	}
	free(record.value);
}

void
relay_compare(Relay *relay, RelayResult *result)
{
	const Progress *progress = &relay->machine.pending;
	HomeRelation home = HOME_SAME;
	Tick		tick;
	int64		newest;
	int64		confirmed;

	worker_begin("comparing progress");
	lineage_read(&relay->lineage);
	tick_limits(&newest, &confirmed);
	result->outcome = DONE_OK;
	result->start_tick = relay->lineage.start_tick;
	result->confirmed = confirmed;
	result->newest_tick = newest;
	if (progress->lineage[0] != '\0')
	{
		home = home_compare(relay->home, progress->home);
		result->lineage_matches = strcmp(progress->lineage, relay->lineage.lineage) == 0;
		result->home_acceptable = home == HOME_SAME || home == HOME_ANCESTOR ||
			relay->lineage.claimed;
		result->tick_known = progress->tick <= newest &&
			tick_find(progress->tick, &tick);
		if (result->tick_known)
		{
			if (progress->tick > 0)
				result->tick_known = strcmp(tick.nonce, progress->nonce) == 0;
			tick_free(&tick);
		}
	}
	if (relay->machine.state == RELAY_COMPARE)
	{
		relay->confirmed = confirmed;
		if (relay->newest.tick_id != newest)
		{
			tick_free(&relay->newest);
			(void) tick_find(newest, &relay->newest);
		}
		if (relay->lineage.claimed && result->home_acceptable)
			lineage_claim_used(relay->home);
	}
	worker_commit();
}

void
relay_init(Relay *relay, RelayResult *result)
{
	KafkaError	error = {0};
	KafkaOutcome outcome = kafka_producer_init(relay->producer, SLICE_MS, &error);

	answer(relay, result, outcome, &error);
}

void
relay_prepare_topic(Relay *relay, RelayResult *result)
{
	RelayTopic *topic = relay_topic(relay, relay->wanted_topic);
	KafkaTopicInfo info = {0};
	KafkaError	error = {0};
	KafkaOutcome outcome = look_up(relay, topic, &info, &error);

	if (outcome == KAFKA_OK && !info.exists)
	{
		if (!setting_create_topics)
		{
			snprintf(error.message, sizeof(error.message),
					 "topic \"%s\" does not exist and carshop_outbox.create_topics is off",
					 topic->name);
			outcome = KAFKA_TROUBLE;
		}
		else
		{
			outcome = kafka_admin_create_topic(relay->producer, topic->name,
											   setting_topic_partitions,
											   setting_topic_replication_factor,
											   NULL, 0, SLICE_MS, &error);
			if (outcome == KAFKA_OK)
				outcome = KAFKA_PENDING;	/* look again: it is there soon */
		}
	}
	answer(relay, result, outcome, &error);
}
