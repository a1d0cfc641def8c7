/*-------------------------------------------------------------------------
 *
 * admin.c
 *	  Creating topics and reading settings over a producer's handle.
 *
 * Requests are sent by the library's main thread and answered by an event on
 * the producer's queue, so nothing here waits longer than its slice.  One
 * request at a time: its state lives in the producer.  A request for
 * something else replaces one under way, whose late answer is told by its
 * number and dropped.
 *
 * Thread: the worker's.  Memory: malloc, freed by kafka_admin_forget.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

/* After this long without an answer a request has failed. */
#define REQUEST_TIMEOUT_MS 10000

/* ------------------------------------------------------------------------
 * The request under way
 * ------------------------------------------------------------------------
 */
void
kafka_admin_forget(KafkaAdmin *admin)
{
	free(admin->topic);
	free(admin->name);
	admin->topic = NULL;
	admin->name = NULL;
	admin->request = ADMIN_NONE;
	admin->done = false;
}

static bool
same_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

static bool
is_under_way(const KafkaAdmin *admin, AdminRequest request, const char *topic,
			 const char *name)
{
	return admin->request == request && same_text(admin->topic, topic) &&
		same_text(admin->name, name);
}

static void
start_request(KafkaAdmin *admin, AdminRequest request, const char *topic,
			  const char *name)
{
	kafka_admin_forget(admin);
	admin->request = request;
	admin->number++;
	admin->topic = topic != NULL ? kafka_strdup(topic) : NULL;
	admin->name = name != NULL ? kafka_strdup(name) : NULL;
	admin->outcome = KAFKA_UNCERTAIN;
	admin->error.code = 0;
	admin->error.message[0] = '\0';
	admin->verification = KAFKA_VERIFICATION_UNKNOWN;
	admin->value[0] = '\0';
}

static rd_kafka_AdminOptions_t *
request_options(KafkaProducer *producer, rd_kafka_admin_op_t kind)
{
	rd_kafka_AdminOptions_t *options;
	char		ignored[256];

	options = rd_kafka_AdminOptions_new(kafka_producer_client(producer)->rk,
										kind);
	rd_kafka_AdminOptions_set_request_timeout(options, REQUEST_TIMEOUT_MS,
											  ignored, sizeof(ignored));
	rd_kafka_AdminOptions_set_opaque(options,
									 (void *) kafka_producer_admin(producer)->number);
	return options;
}

/* Serve the queue; the outcome if the answer has come. */
static KafkaOutcome
await_answer(KafkaProducer *producer, int slice_ms, KafkaError *error)
{
	KafkaAdmin *admin = kafka_producer_admin(producer);

	if (!admin->done)
		kafka_producer_serve(producer, slice_ms);
	if (!admin->done)
	{
		const char *trouble = kafka_producer_last_trouble(producer);

		kafka_error_set(error, 0, "%s",
						trouble[0] != '\0' ? trouble : "no answer yet");
		return KAFKA_PENDING;
	}
	if (admin->outcome != KAFKA_OK && error != NULL)
		*error = admin->error;
	return admin->outcome;
}

/* ------------------------------------------------------------------------
 * Answers
 * ------------------------------------------------------------------------
 */
static void
fail(KafkaAdmin *admin, rd_kafka_resp_err_t code, const char *text)
{
	admin->outcome = kafka_outcome_of(code);
	if (admin->outcome == KAFKA_OK || admin->outcome == KAFKA_REFUSED)
		admin->outcome = KAFKA_MISCONFIGURED;	/* a policy, for one */
	kafka_error_set(&admin->error, code, "%s%s%s",
					admin->topic != NULL ? admin->topic : "",
					admin->topic != NULL ? ": " : "",
					text != NULL ? text : rd_kafka_err2str(code));
}

static void
take_created_topic(KafkaAdmin *admin, rd_kafka_event_t *event)
{
	const rd_kafka_CreateTopics_result_t *result;
	const rd_kafka_topic_result_t **topics;
	rd_kafka_resp_err_t code;
	size_t		n = 0;

	result = rd_kafka_event_CreateTopics_result(event);
	topics = rd_kafka_CreateTopics_result_topics(result, &n);
	if (n != 1)
	{
		fail(admin, RD_KAFKA_RESP_ERR_UNKNOWN, "no answer about the topic");
		return;
	}
	code = rd_kafka_topic_result_error(topics[0]);
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR ||
		code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
		admin->outcome = KAFKA_OK;
	else
		fail(admin, code, rd_kafka_topic_result_error_string(topics[0]));
}

static bool
is_not_permitted(rd_kafka_resp_err_t code)
{
	return code == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED ||
		code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
}

/* The value of one setting, NULL if the answer does not have it. */
static const char *
find_value(const rd_kafka_ConfigResource_t *resource, const char *name)
{
	const rd_kafka_ConfigEntry_t **entries;
	size_t		n = 0;
	size_t		i;

	entries = rd_kafka_ConfigResource_configs(resource, &n);
	for (i = 0; i < n; i++)
	{
		if (strcmp(rd_kafka_ConfigEntry_name(entries[i]), name) == 0)
			return rd_kafka_ConfigEntry_value(entries[i]);
	}
	return NULL;
}

static void
take_setting(KafkaAdmin *admin, const char *value)
{
	admin->outcome = KAFKA_OK;
	if (admin->request == ADMIN_TOPIC_CONFIG)
		snprintf(admin->value, sizeof(admin->value), "%s",
				 value != NULL ? value : "");
	else if (value != NULL && strcmp(value, "true") == 0)
		admin->verification = KAFKA_VERIFIES;
	else
		admin->verification = KAFKA_DOES_NOT_VERIFY;
}

static void
take_settings(KafkaAdmin *admin, rd_kafka_event_t *event)
{
	const rd_kafka_DescribeConfigs_result_t *result;
	const rd_kafka_ConfigResource_t **resources;
	rd_kafka_resp_err_t code;
	size_t		n = 0;

	result = rd_kafka_event_DescribeConfigs_result(event);
	resources = rd_kafka_DescribeConfigs_result_resources(result, &n);
	if (n != 1)
	{
		fail(admin, RD_KAFKA_RESP_ERR_UNKNOWN, "no answer about the settings");
		return;
	}
	code = rd_kafka_ConfigResource_error(resources[0]);
	if (is_not_permitted(code))
		admin->outcome = KAFKA_OK;	/* unknown, "" */
	else if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail(admin, code, rd_kafka_ConfigResource_error_string(resources[0]));
	else
		take_setting(admin, find_value(resources[0], admin->name));
}

bool
kafka_admin_handle(KafkaAdmin *admin, rd_kafka_event_t *event)
{
	rd_kafka_event_type_t type = rd_kafka_event_type(event);
	rd_kafka_resp_err_t code = rd_kafka_event_error(event);

	if (type != RD_KAFKA_EVENT_CREATETOPICS_RESULT &&
		type != RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT)
		return false;
	if (admin->request == ADMIN_NONE || admin->done ||
		(uintptr_t) rd_kafka_event_opaque(event) != admin->number)
		return true;

	admin->done = true;
	admin->answered_ms = kafka_now_ms();
	if (type == RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT && is_not_permitted(code))
		admin->outcome = KAFKA_OK;
	else if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail(admin, code, rd_kafka_event_error_string(event));
	else if (type == RD_KAFKA_EVENT_CREATETOPICS_RESULT)
		take_created_topic(admin, event);
	else
		take_settings(admin, event);
	return true;
}

/* ------------------------------------------------------------------------
 * Creating a topic
 * ------------------------------------------------------------------------
 */

/* How long a new topic may take until brokers know it and it has a leader. */
#define VISIBLE_TIMEOUT_MS 10000
#define RETRY_PAUSE_MS 20

/*
 * The controller answers before every broker knows the topic (a KRaft cluster
 * ignores the request to wait).  Who then looks the topic up must not be told
 * that it does not exist.
 */
static KafkaOutcome
await_visible(KafkaProducer *producer, int slice_ms, KafkaError *error)
{
	KafkaAdmin *admin = kafka_producer_admin(producer);
	KafkaTopicInfo info;
	KafkaOutcome outcome;

	outcome = kafka_producer_topic(producer, admin->topic, slice_ms,
								   VISIBLE_TIMEOUT_MS, &info, error);
	if (outcome == KAFKA_OK && info.exists)
		return KAFKA_OK;
	if (outcome != KAFKA_OK && outcome != KAFKA_PENDING &&
		outcome != KAFKA_TROUBLE)
		return outcome;
	if (kafka_now_ms() - admin->answered_ms > VISIBLE_TIMEOUT_MS)
	{
		if (outcome == KAFKA_OK)
			kafka_error_set(error, 0, "topic \"%s\" was created but no broker knows it",
							admin->topic);
		return KAFKA_TROUBLE;
	}
	/* The answer came at once: the next question must not. */
	if (outcome != KAFKA_PENDING)
		kafka_producer_serve(producer,
							 slice_ms < RETRY_PAUSE_MS ? slice_ms : RETRY_PAUSE_MS);
	return KAFKA_PENDING;
}

static bool
send_create_topic(KafkaProducer *producer, const char *topic, int partitions,
				  int replication, const KafkaConfigEntry *config,
				  int n_config, KafkaError *error)
{
	KafkaClient *client = kafka_producer_client(producer);
	rd_kafka_AdminOptions_t *options;
	rd_kafka_NewTopic_t *new_topic;
	char		reason[256] = "";
	int			i;

	new_topic = rd_kafka_NewTopic_new(topic, partitions,
									  replication < 0 ? -1 : replication,
									  reason, sizeof(reason));
	if (new_topic == NULL)
	{
		kafka_error_set(error, RD_KAFKA_RESP_ERR__INVALID_ARG, "%s: %s",
						topic, reason);
		return false;
	}
	for (i = 0; i < n_config; i++)
		rd_kafka_NewTopic_set_config(new_topic, config[i].name,
									 config[i].value);

	options = request_options(producer, RD_KAFKA_ADMIN_OP_CREATETOPICS);
	rd_kafka_AdminOptions_set_operation_timeout(options, REQUEST_TIMEOUT_MS,
												reason, sizeof(reason));
	rd_kafka_CreateTopics(client->rk, &new_topic, 1, options, client->queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_NewTopic_destroy(new_topic);
	return true;
}

KafkaOutcome
kafka_admin_create_topic(KafkaProducer *producer, const char *topic,
						 int partitions, int replication,
						 const KafkaConfigEntry *config, int n_config,
						 int slice_ms, KafkaError *error)
{
	KafkaAdmin *admin = kafka_producer_admin(producer);
	KafkaOutcome outcome;

	if (!is_under_way(admin, ADMIN_CREATE_TOPIC, topic, NULL))
	{
		start_request(admin, ADMIN_CREATE_TOPIC, topic, NULL);
		if (!send_create_topic(producer, topic, partitions, replication,
							   config, n_config, error))
		{
			kafka_admin_forget(admin);
			return KAFKA_MISCONFIGURED;
		}
	}
	outcome = await_answer(producer, slice_ms, error);
	if (outcome == KAFKA_OK)
		outcome = await_visible(producer, slice_ms, error);
	if (outcome != KAFKA_PENDING)
		kafka_admin_forget(admin);
	return outcome;
}

/* ------------------------------------------------------------------------
 * Reading settings
 * ------------------------------------------------------------------------
 */
static void
send_describe(KafkaProducer *producer, rd_kafka_ResourceType_t type,
			  const char *resource_name)
{
	KafkaClient *client = kafka_producer_client(producer);
	rd_kafka_AdminOptions_t *options;
	rd_kafka_ConfigResource_t *resource;

	resource = rd_kafka_ConfigResource_new(type, resource_name);
	options = request_options(producer, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_DescribeConfigs(client->rk, &resource, 1, options,
							 client->queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ConfigResource_destroy(resource);
}

KafkaOutcome
kafka_admin_verification(KafkaProducer *producer, int slice_ms,
						 KafkaVerification *verification, KafkaError *error)
{
	static const char setting[] = "transaction.partition.verification.enable";
	KafkaAdmin *admin = kafka_producer_admin(producer);
	KafkaOutcome outcome;

	if (!is_under_way(admin, ADMIN_VERIFICATION, NULL, setting))
	{
		/* Any broker will do; the controller's number is known first. */
		int32_t		broker;
		char		name[32];

		kafka_producer_poll(producer);
		broker = rd_kafka_controllerid(kafka_producer_client(producer)->rk,
									   slice_ms);
		if (broker < 0)
		{
			kafka_error_set(error, 0, "no broker is known yet");
			kafka_producer_serve(producer, slice_ms);
			return KAFKA_PENDING;
		}
		snprintf(name, sizeof(name), "%d", (int) broker);
		start_request(admin, ADMIN_VERIFICATION, NULL, setting);
		send_describe(producer, RD_KAFKA_RESOURCE_BROKER, name);
	}
	outcome = await_answer(producer, slice_ms, error);
	if (outcome == KAFKA_OK)
		*verification = admin->verification;
	if (outcome != KAFKA_PENDING)
		kafka_admin_forget(admin);
	return outcome;
}

KafkaOutcome
kafka_admin_topic_config(KafkaProducer *producer, const char *topic,
						 const char *name, int slice_ms, char *value,
						 size_t value_size, KafkaError *error)
{
	KafkaAdmin *admin = kafka_producer_admin(producer);
	KafkaOutcome outcome;

	if (!is_under_way(admin, ADMIN_TOPIC_CONFIG, topic, name))
	{
		start_request(admin, ADMIN_TOPIC_CONFIG, topic, name);
		send_describe(producer, RD_KAFKA_RESOURCE_TOPIC, topic);
	}
	outcome = await_answer(producer, slice_ms, error);
	if (outcome == KAFKA_OK)
		snprintf(value, value_size, "%s", admin->value);
	if (outcome != KAFKA_PENDING)
		kafka_admin_forget(admin);
	return outcome;
}
