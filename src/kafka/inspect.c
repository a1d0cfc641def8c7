/*-------------------------------------------------------------------------
 *
 * inspect.c
 *	  What a cluster, its brokers and topics are like, asked without a trace.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Each question, and why it leaves none:
 *
 * - Metadata (lookup.c); auto-creation is off for all our handles.
 * - DescribeConfigs of each broker, which it answers itself: so this also
 *	 shows that each can be reached under the name that it advertises.
 * - DescribeConfigs of the topics, and from librdkafka 2.3 on DescribeTopics,
 *	 which says what we are allowed to do.
 * - CreateTopics with validate_only: the controller checks rights, numbers and
 *	 policies, and makes nothing (KIP-4).
 * - What attempts.c tries.
 *
 * Whether a topic may be written to cannot be tried in this way: DescribeTopics
 * says it, or nobody.
 *
 * Thread: the caller's.  Memory: malloc, freed by kafka_inspect_close.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/inspect_internal.h"

/* How long to wait for the first answer when only a person can mend why. */
#define NEEDS_PERSON_MS	3000

/* What is left of the time for what follows from an answer. */
#define RESERVE_MS		1000

bool
kafka_tells_rights(void)
{
#if RDK23_GE
	return true;
#else
	return false;
#endif
}

/* ------------------------------------------------------------------------
 * Findings
 * ------------------------------------------------------------------------
 */
static void
settle(KafkaFinding *finding, rd_kafka_resp_err_t code, const char *text)
{
	finding->outcome = kafka_outcome_of(code);
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	kafka_error_set(&finding->error, code, "%s",
					text != NULL && text[0] != '\0' ? text : rd_kafka_err2str(code));
}

/* Time is over, or there is nobody to ask. */
static void
give_up(KafkaInspection *inspection, KafkaFinding *finding)
{
	if (!kafka_finding_is_open(finding))
		return;
	finding->outcome = KAFKA_UNREACHABLE;
	kafka_client_no_answer(inspection->client, RD_KAFKA_RESP_ERR__TIMED_OUT,
						   &finding->error);
}

/* ------------------------------------------------------------------------
 * Opening and closing
 * ------------------------------------------------------------------------
 */
KafkaInspection *
kafka_inspect_open(const KafkaProperties *props,
				   const KafkaInspectOptions *options,
				   const KafkaTopicFacts *topics, int n_topics,
				   KafkaError *error)
{
	rd_kafka_conf_t *conf = kafka_conf_new(props, RD_KAFKA_PRODUCER, error);
	const char *bootstrap = kafka_properties_get(props, "bootstrap.servers");
	KafkaInspection *inspection;
	KafkaClient *client;

	if (conf == NULL)
		return NULL;
	client = kafka_client_open(conf, RD_KAFKA_PRODUCER, 0, props, options->log,
							   options->log_arg, error);
	if (client == NULL)
		return NULL;

	inspection = kafka_malloc(sizeof(KafkaInspection));
	memset(inspection, 0, sizeof(*inspection));
	inspection->client = client;
	inspection->props = props;
	inspection->log = options->log;
	inspection->log_arg = options->log_arg;
	if (options->transactional_id != NULL)
		inspection->transactional_id = kafka_strdup(options->transactional_id);
	inspection->started = kafka_now_ms();
	inspection->deadline = inspection->started + options->timeout_ms;
	snprintf(inspection->facts.bootstrap, sizeof(inspection->facts.bootstrap),
			 "%s", bootstrap != NULL ? bootstrap : "");
	inspection->facts.n_topics = n_topics;
	inspection->facts.topics = kafka_malloc((size_t) n_topics * sizeof(KafkaTopicFacts));
	memcpy(inspection->facts.topics, topics, (size_t) n_topics * sizeof(KafkaTopicFacts));
	inspection->questions = kafka_malloc((size_t) n_topics * sizeof(TopicQuestions));
	memset(inspection->questions, 0, (size_t) n_topics * sizeof(TopicQuestions));
	kafka_finding_ask(&inspection->facts.reached);
	for (int i = 0; i < n_topics; i++)
		kafka_finding_ask(&inspection->facts.topics[i].found);
	return inspection;
}

bool
kafka_inspect_close(KafkaInspection *inspection)
{
	bool		ended = true;

	if (inspection == NULL)
		return true;
	if (inspection->producer != NULL)
		ended &= kafka_producer_close(inspection->producer);
	ended &= kafka_reader_close(inspection->reader);
	ended &= kafka_client_close(inspection->client, KAFKA_WORK_NONE);
	free(inspection->transactional_id);
	free(inspection->facts.topics);
	free(inspection->questions);
	free(inspection);
	return ended;
}

const KafkaFacts *
kafka_inspect_facts(const KafkaInspection *inspection)
{
	return &inspection->facts;
}

/* ------------------------------------------------------------------------
 * Metadata
 * ------------------------------------------------------------------------
 */

/* The first answer: who is there, and each is asked about itself. */
static void
take_brokers(KafkaInspection *inspection, const rd_kafka_metadata_t * metadata)
{
	KafkaFacts *facts = &inspection->facts;
	const char *cluster = kafka_client_cluster_id(inspection->client);
	int			rest_ms = (int) (inspection->deadline - kafka_now_ms());

	facts->reached.outcome = KAFKA_OK;
	snprintf(facts->cluster_id, sizeof(facts->cluster_id), "%s",
			 cluster != NULL ? cluster : "");
	facts->n_all_brokers = metadata->broker_cnt;
	while (facts->n_brokers < metadata->broker_cnt && facts->n_brokers < KAFKA_MOST_BROKERS)
	{
		const		rd_kafka_metadata_broker_t *from = &metadata->brokers[facts->n_brokers];
		KafkaBrokerFacts *broker = &facts->brokers[facts->n_brokers];
		char		name[32];

		broker->id = from->id;
		snprintf(broker->address, sizeof(broker->address), "%s:%d", from->host,
				 from->port);
		snprintf(name, sizeof(name), "%d", broker->id);
		kafka_finding_ask(&broker->described);
		inspection->broker_questions[facts->n_brokers] = ++inspection->client->requests;
		kafka_send_describe(inspection->client, inspection->client->requests,
							RD_KAFKA_RESOURCE_BROKER, name,
							rest_ms > RESERVE_MS ? rest_ms : RESERVE_MS);
		facts->n_brokers++;
	}
}

static void
take_topic(KafkaTopicFacts *topic, const rd_kafka_metadata_topic_t *from)
{
	KafkaTopicInfo info = {0};

	topic->found.outcome = kafka_topic_answer(from, topic->name, &info,
											  &topic->found.error);
	topic->exists = info.exists;
	topic->partitions = info.partitions;
	topic->replicas = info.replicas;
	topic->in_sync = info.in_sync;
}

static void
look_up(KafkaInspection *inspection, KafkaTopicFacts *topic)
{
	KafkaFacts *facts = &inspection->facts;
	KafkaLookupAnswer answer;
	int			max_ms = (int) (inspection->deadline - inspection->started) - RESERVE_MS;

	switch (kafka_lookup(inspection->client, topic->name, 0, max_ms, &answer))
	{
		case KAFKA_LOOKUP_PENDING:
			return;
		case KAFKA_LOOKUP_BAD_NAME:
			settle(&topic->found, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
				   "this is not a valid name of a topic");
			return;
		case KAFKA_LOOKUP_NO_THREAD:
			return;				/* tried again */
		case KAFKA_LOOKUP_ANSWERED:
			break;
	}
	if (answer.code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		kafka_client_take_lines(inspection->client);
		give_up(inspection, &topic->found);
		give_up(inspection, &facts->reached);
		return;
	}
	if (kafka_finding_is_open(&facts->reached))
		take_brokers(inspection, answer.metadata);
	if (answer.metadata->topic_cnt == 1)
		take_topic(topic, &answer.metadata->topics[0]);
	else
		settle(&topic->found, RD_KAFKA_RESP_ERR_UNKNOWN, "no answer about the topic");
	rd_kafka_metadata_destroy(answer.metadata);
}

/* ------------------------------------------------------------------------
 * Requests about one topic
 * ------------------------------------------------------------------------
 */
static void
ask_rights(KafkaInspection *inspection, const KafkaTopicFacts *topic,
		   TopicQuestions *questions)
{
#if RDK23_GE
	rd_kafka_AdminOptions_t *options;
	rd_kafka_TopicCollection_t *names;
	const char *name = topic->name;
	char		ignored[256];

	questions->rights = ++inspection->client->requests;
	options = rd_kafka_AdminOptions_new(inspection->client->rk,
										RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
	rd_kafka_AdminOptions_set_request_timeout(options, (int) (inspection->deadline - inspection->started),
											  ignored, sizeof(ignored));
	rd_kafka_AdminOptions_set_opaque(options, (void *) questions->rights);
	rd_kafka_error_destroy(rd_kafka_AdminOptions_set_include_authorized_operations(options, 1));
	names = rd_kafka_TopicCollection_of_topic_names(&name, 1);
	rd_kafka_DescribeTopics(inspection->client->rk, names, options,
							inspection->client->queue);
	rd_kafka_TopicCollection_destroy(names);
	rd_kafka_AdminOptions_destroy(options);
#endif
}

static void
ask_about(KafkaInspection *inspection, KafkaTopicFacts *topic,
		  TopicQuestions *questions)
{
	static const KafkaConfigEntry compact = {"cleanup.policy", "compact"};
	KafkaClient *client = inspection->client;
	int			rest_ms = (int) (inspection->deadline - kafka_now_ms());

	if (topic->exists)
	{
		kafka_finding_ask(&topic->described);
		questions->describe = ++client->requests;
		kafka_send_describe(client, questions->describe, RD_KAFKA_RESOURCE_TOPIC,
							topic->name, rest_ms > RESERVE_MS ? rest_ms : RESERVE_MS);
		if (topic->needs & KAFKA_RIGHT_READ)
			kafka_finding_ask(&topic->read);
		ask_rights(inspection, topic, questions);
	}
	else if (topic->create)
	{
		kafka_finding_ask(&topic->created);
		questions->create = ++client->requests;
		if (!kafka_send_create_topic(client, questions->create, topic->name,
									 topic->create_partitions,
									 topic->create_replication, &compact,
									 topic->compact ? 1 : 0, true,
									 &topic->created.error))
			topic->created.outcome = KAFKA_MISCONFIGURED;
	}
}

/* Metadata first, then what follows from it. */
static void
go_on_with_topic(KafkaInspection *inspection, int i)
{
	KafkaTopicFacts *topic = &inspection->facts.topics[i];

	if (!kafka_finding_is_open(&topic->found))
		return;
	look_up(inspection, topic);
	if (topic->found.outcome == KAFKA_OK || topic->exists)
		ask_about(inspection, topic, &inspection->questions[i]);
}

/* ------------------------------------------------------------------------
 * Events
 * ------------------------------------------------------------------------
 */
static void
take_broker(KafkaInspection *inspection, int i, rd_kafka_event_t *event)
{
	KafkaBrokerFacts *broker = &inspection->facts.brokers[i];
	const char *reason;
	rd_kafka_resp_err_t code = kafka_described_broker(event, broker, &reason);

	settle(&broker->described, code, reason);
	if (broker->described.outcome == KAFKA_UNREACHABLE &&
		inspection->broker_trouble[i][0] != '\0')
		kafka_error_set(&broker->described.error, inspection->broker_codes[i],
						"%s", inspection->broker_trouble[i]);
}

#if RDK23_GE
static void
take_rights(KafkaTopicFacts *topic, rd_kafka_event_t *event)
{
	const		rd_kafka_TopicDescription_t **topics;
	const		rd_kafka_AclOperation_t *operations;
	size_t		n = 0;

	if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	topics = rd_kafka_DescribeTopics_result_topics(rd_kafka_event_DescribeTopics_result(event), &n);
	if (n != 1 ||
		rd_kafka_error_code(rd_kafka_TopicDescription_error(topics[0])) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	operations = rd_kafka_TopicDescription_authorized_operations(topics[0], &n);
	if (operations == NULL)
		return;
	topic->rights_known = true;
	for (size_t i = 0; i < n; i++)
	{
		if (operations[i] == RD_KAFKA_ACL_OPERATION_READ)
			topic->rights |= KAFKA_RIGHT_READ;
		else if (operations[i] == RD_KAFKA_ACL_OPERATION_WRITE)
			topic->rights |= KAFKA_RIGHT_WRITE;
	}
}
#endif

/* Each broker has its own trouble; the client remembers the last of all. */
static void
note_trouble(KafkaInspection *inspection)
{
	const KafkaClient *client = inspection->client;
	char		mark[32];

	for (int i = 0; i < inspection->facts.n_brokers; i++)
	{
		const char *at;

		snprintf(mark, sizeof(mark), "/%d: ", inspection->facts.brokers[i].id);
		at = strstr(client->trouble, mark);
		if (at == NULL)
			continue;
		snprintf(inspection->broker_trouble[i], sizeof(inspection->broker_trouble[i]),
				 "%s", at + strlen(mark));
		inspection->broker_codes[i] = client->trouble_code != 0 ?
			client->trouble_code : RD_KAFKA_RESP_ERR__TRANSPORT;
	}
}

static void
take_event(KafkaInspection *inspection, rd_kafka_event_t *event)
{
	KafkaFacts *facts = &inspection->facts;
	uintptr_t	number;
	int			i;

	number = (uintptr_t) rd_kafka_event_opaque(event);
	for (i = 0; i < facts->n_brokers; i++)
	{
		if (inspection->broker_questions[i] == number)
			take_broker(inspection, i, event);
	}
	for (i = 0; i < facts->n_topics; i++)
	{
		KafkaTopicFacts *topic = &facts->topics[i];
		const TopicQuestions *questions = &inspection->questions[i];
		const char *reason;
		rd_kafka_resp_err_t code;

		if (number != 0 && questions->describe == number)
			topic->described.outcome = kafka_described_topic(event, &topic->settings,
															 &topic->described.error);
		else if (number != 0 && questions->create == number)
		{
			code = kafka_created_topic(event, &reason);
			settle(&topic->created, code, reason);
		}
#if RDK23_GE
		else if (number != 0 && questions->rights == number)
		{
			inspection->questions[i].rights = 0;
			take_rights(topic, event);
		}
#endif
	}
}

static void
serve(KafkaInspection *inspection, int wait_ms)
{
	rd_kafka_event_t *event = kafka_client_next(inspection->client, wait_ms);

	while (event != NULL)
	{
		if (kafka_client_handle(inspection->client, event))
			note_trouble(inspection);
		else
			take_event(inspection, event);
		rd_kafka_event_destroy(event);
		event = kafka_client_next(inspection->client, 0);
	}
}

/* ------------------------------------------------------------------------
 * All of it
 * ------------------------------------------------------------------------
 */

/* What is open is given up, when nobody answers or the time is over. */
static void
end(KafkaInspection *inspection)
{
	KafkaFacts *facts = &inspection->facts;

	kafka_client_take_lines(inspection->client);
	note_trouble(inspection);
	give_up(inspection, &facts->reached);
	give_up(inspection, &facts->transactional);
	for (int i = 0; i < facts->n_brokers; i++)
	{
		KafkaFinding *described = &facts->brokers[i].described;

		if (kafka_finding_is_open(described) && inspection->broker_trouble[i][0] != '\0')
		{
			described->outcome = KAFKA_UNREACHABLE;
			kafka_error_set(&described->error, inspection->broker_codes[i], "%s",
							inspection->broker_trouble[i]);
		}
		give_up(inspection, described);
	}
	for (int i = 0; i < facts->n_topics; i++)
	{
		give_up(inspection, &facts->topics[i].found);
		give_up(inspection, &facts->topics[i].described);
		give_up(inspection, &facts->topics[i].created);
		give_up(inspection, &facts->topics[i].read);
	}
}

static bool
all_answered(const KafkaInspection *inspection)
{
	const KafkaFacts *facts = &inspection->facts;

	if (kafka_finding_is_open(&facts->reached) || kafka_finding_is_open(&facts->transactional))
		return false;
	for (int i = 0; i < facts->n_brokers; i++)
	{
		if (kafka_finding_is_open(&facts->brokers[i].described))
			return false;
	}
	for (int i = 0; i < facts->n_topics; i++)
	{
		if (kafka_finding_is_open(&facts->topics[i].found) ||
			kafka_finding_is_open(&facts->topics[i].described) ||
			kafka_finding_is_open(&facts->topics[i].created) ||
			kafka_finding_is_open(&facts->topics[i].read) ||
			inspection->questions[i].rights != 0)
			return false;
	}
	/* what can be asked only now */
	return inspection->transactional_id == NULL || facts->transactional.asked ||
		!kafka_inspect_may_try_transactional(facts);
}

/* Nobody has answered, and more patience would not help. */
static bool
is_in_vain(const KafkaInspection *inspection)
{
	KafkaError	error = {0};

	if (!kafka_finding_is_open(&inspection->facts.reached) ||
		kafka_now_ms() - inspection->started < NEEDS_PERSON_MS)
		return false;
	kafka_client_no_answer(inspection->client, 0, &error);
	return kafka_needs_person(&error);
}

bool
kafka_inspect_step(KafkaInspection *inspection, int slice_ms)
{
	for (int i = 0; i < inspection->facts.n_topics; i++)
		go_on_with_topic(inspection, i);
	serve(inspection, slice_ms);
	if (!kafka_finding_is_open(&inspection->facts.reached))
	{
		kafka_inspect_try_reading(inspection);
		kafka_inspect_try_transactional(inspection);
	}
	if (all_answered(inspection))
		return true;
	if (kafka_now_ms() < inspection->deadline && !is_in_vain(inspection))
		return false;
	end(inspection);
	return true;
}
