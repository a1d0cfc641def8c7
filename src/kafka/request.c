/*-------------------------------------------------------------------------
 *
 * request.c
 *	  Requests that the library sends by itself and answers by an event.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Each has a number, unique in its client, so that a late answer to something
 * that nobody waits for any more is told from the one awaited.  Of the
 * requests of admin.c there is one at a time; topic.c has its own beside it.
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

void
kafka_admin_forget(KafkaAdmin *admin)
{
	free(admin->topic);
	admin->topic = NULL;
	admin->request = ADMIN_NONE;
	admin->done = false;
}

void
kafka_admin_start(KafkaAdmin *admin, KafkaClient *client,
				  AdminRequest request, const char *topic)
{
	kafka_admin_forget(admin);
	admin->request = request;
	admin->number = ++client->requests;
	admin->topic = topic != NULL ? kafka_strdup(topic) : NULL;
	admin->outcome = KAFKA_UNCERTAIN;
	kafka_error_set(&admin->error, 0, "%s", "");
	admin->verification = KAFKA_VERIFICATION_UNKNOWN;
}

/* ------------------------------------------------------------------------
 * Sending
 * ------------------------------------------------------------------------
 */
static rd_kafka_AdminOptions_t *
request_options(KafkaClient *client, uintptr_t number,
				rd_kafka_admin_op_t kind, int timeout_ms)
{
	rd_kafka_AdminOptions_t *options;
	char		ignored[256];

	options = rd_kafka_AdminOptions_new(client->rk, kind);
	rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ignored,
											  sizeof(ignored));
	rd_kafka_AdminOptions_set_opaque(options, (void *) number);
	return options;
}

bool
kafka_send_create_topic(KafkaClient *client, uintptr_t number,
						const char *topic, int partitions, int replication,
						const KafkaConfigEntry *config, int n_config,
						bool only_ask, KafkaError *error)
{
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

	options = request_options(client, number, RD_KAFKA_ADMIN_OP_CREATETOPICS,
							  REQUEST_TIMEOUT_MS);
	rd_kafka_AdminOptions_set_operation_timeout(options, REQUEST_TIMEOUT_MS,
												reason, sizeof(reason));
	if (only_ask &&
		rd_kafka_AdminOptions_set_validate_only(options, 1, reason,
												sizeof(reason)) != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		kafka_error_set(error, RD_KAFKA_RESP_ERR__INVALID_ARG, "%s: %s",
						topic, reason);
		rd_kafka_AdminOptions_destroy(options);
		rd_kafka_NewTopic_destroy(new_topic);
		return false;
	}
	rd_kafka_CreateTopics(client->rk, &new_topic, 1, options, client->queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_NewTopic_destroy(new_topic);
	return true;
}

void
kafka_send_describe(KafkaClient *client, uintptr_t number,
					rd_kafka_ResourceType_t type, const char *resource_name,
					int timeout_ms)
{
	rd_kafka_AdminOptions_t *options;
	rd_kafka_ConfigResource_t *resource;

	resource = rd_kafka_ConfigResource_new(type, resource_name);
	options = request_options(client, number,
							  RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS,
							  timeout_ms > 0 ? timeout_ms : REQUEST_TIMEOUT_MS);
	rd_kafka_DescribeConfigs(client->rk, &resource, 1, options,
							 client->queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ConfigResource_destroy(resource);
}

/* ------------------------------------------------------------------------
 * Answers
 * ------------------------------------------------------------------------
 */
const char *
kafka_described_value(rd_kafka_event_t *event, const char *setting,
					  rd_kafka_resp_err_t *code, const char **reason)
{
	const rd_kafka_DescribeConfigs_result_t *result;
	const rd_kafka_ConfigResource_t **resources;
	const rd_kafka_ConfigEntry_t **entries;
	size_t		n = 0;
	size_t		i;

	*code = rd_kafka_event_error(event);
	*reason = rd_kafka_event_error_string(event);
	if (*code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return NULL;
	result = rd_kafka_event_DescribeConfigs_result(event);
	resources = rd_kafka_DescribeConfigs_result_resources(result, &n);
	if (n != 1)
	{
		*code = RD_KAFKA_RESP_ERR_UNKNOWN;
		*reason = "no answer about the settings";
		return NULL;
	}
	*code = rd_kafka_ConfigResource_error(resources[0]);
	*reason = rd_kafka_ConfigResource_error_string(resources[0]);
	if (*code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return NULL;

	entries = rd_kafka_ConfigResource_configs(resources[0], &n);
	for (i = 0; i < n; i++)
	{
		if (strcmp(rd_kafka_ConfigEntry_name(entries[i]), setting) == 0)
			return rd_kafka_ConfigEntry_value(entries[i]);
	}
	return NULL;
}

static int64_t
described_number(rd_kafka_event_t *event, const char *setting)
{
	rd_kafka_resp_err_t code;
	const char *reason;
	const char *value = kafka_described_value(event, setting, &code, &reason);

	return value != NULL ? strtoll(value, NULL, 10) : 0;
}

KafkaOutcome
kafka_described_topic(rd_kafka_event_t *event, KafkaTopicSettings *settings,
					  KafkaError *error)
{
	rd_kafka_resp_err_t code;
	const char *reason;
	const char *value;

	memset(settings, 0, sizeof(*settings));
	value = kafka_described_value(event, "cleanup.policy", &code, &reason);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		KafkaOutcome outcome = kafka_outcome_of(code);

		kafka_error_set(error, code, "%s",
						reason != NULL ? reason : rd_kafka_err2str(code));
		return outcome == KAFKA_OK ? KAFKA_UNCERTAIN : outcome;
	}
	settings->compacts = value != NULL && strstr(value, "compact") != NULL;
	settings->deletes = value != NULL && strstr(value, "delete") != NULL;
	value = kafka_described_value(event, "unclean.leader.election.enable", &code,
								  &reason);
	settings->unclean = value != NULL && strcmp(value, "true") == 0;
	settings->max_message_bytes = described_number(event, "max.message.bytes");
	settings->min_insync = (int) described_number(event, "min.insync.replicas");
	return KAFKA_OK;
}

rd_kafka_resp_err_t
kafka_described_broker(rd_kafka_event_t *event, KafkaBrokerFacts *broker,
					   const char **reason)
{
	rd_kafka_resp_err_t code;
	rd_kafka_resp_err_t same;
	const char *ignored;
	const char *value;

	value = kafka_described_value(event, KAFKA_VERIFICATION_SETTING, &code, reason);
	if (!kafka_verification_of(code, value, &broker->verification))
		broker->verification = KAFKA_VERIFICATION_UNKNOWN;
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return code;
	broker->transaction_max_ms = described_number(event, "transaction.max.timeout.ms");
	broker->max_message_bytes = described_number(event, "message.max.bytes");
	broker->default_replication = (int) described_number(event, "default.replication.factor");
	broker->min_insync = (int) described_number(event, "min.insync.replicas");
	value = kafka_described_value(event, "unclean.leader.election.enable", &same, &ignored);
	broker->unclean = value != NULL && strcmp(value, "true") == 0;
	value = kafka_described_value(event, "inter.broker.protocol.version", &same, &ignored);
	snprintf(broker->protocol, sizeof(broker->protocol), "%s", value != NULL ? value : "");
	return code;
}

/* The request has failed, in our words. */
static void
fail(KafkaAdmin *admin, rd_kafka_resp_err_t code, const char *text)
{
	admin->outcome = kafka_outcome_of(code);

	/* "Refused" is a word about records; here a person has to act. */
	if (admin->outcome == KAFKA_OK || admin->outcome == KAFKA_REFUSED ||
		code == RD_KAFKA_RESP_ERR_POLICY_VIOLATION)
		admin->outcome = KAFKA_MISCONFIGURED;
	kafka_error_set(&admin->error, code, "%s%s%s",
					admin->topic != NULL ? admin->topic : "",
					admin->topic != NULL ? ": " : "",
					text != NULL ? text : rd_kafka_err2str(code));
}

rd_kafka_resp_err_t
kafka_created_topic(rd_kafka_event_t *event, const char **reason)
{
	const rd_kafka_CreateTopics_result_t *result;
	const rd_kafka_topic_result_t **topics;
	rd_kafka_resp_err_t code = rd_kafka_event_error(event);
	size_t		n = 0;

	*reason = rd_kafka_event_error_string(event);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return code;
	result = rd_kafka_event_CreateTopics_result(event);
	topics = rd_kafka_CreateTopics_result_topics(result, &n);
	if (n != 1)
	{
		*reason = "no answer about the topic";
		return RD_KAFKA_RESP_ERR_UNKNOWN;
	}
	code = rd_kafka_topic_result_error(topics[0]);
	*reason = rd_kafka_topic_result_error_string(topics[0]);
	return code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS ?
		RD_KAFKA_RESP_ERR_NO_ERROR : code;
}

static void
take_created_topic(KafkaAdmin *admin, rd_kafka_event_t *event)
{
	const char *reason;
	rd_kafka_resp_err_t code = kafka_created_topic(event, &reason);

	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		admin->outcome = KAFKA_OK;
	else
		fail(admin, code, reason);
}

static void
take_verification(KafkaAdmin *admin, rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t code;
	const char *reason;
	const char *value;

	value = kafka_described_value(event, KAFKA_VERIFICATION_SETTING, &code,
								  &reason);
	if (kafka_verification_of(code, value, &admin->verification))
		admin->outcome = KAFKA_OK;
	else
		fail(admin, code, reason);
}

bool
kafka_admin_handle(KafkaAdmin *admin, rd_kafka_event_t *event)
{
	rd_kafka_event_type_t type = rd_kafka_event_type(event);

	if ((type != RD_KAFKA_EVENT_CREATETOPICS_RESULT &&
		 type != RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT) ||
		admin->request == ADMIN_NONE || admin->done ||
		(uintptr_t) rd_kafka_event_opaque(event) != admin->number)
		return false;

	admin->done = true;
	admin->answered_ms = kafka_now_ms();
	if (type == RD_KAFKA_EVENT_CREATETOPICS_RESULT)
		take_created_topic(admin, event);
	else
		take_verification(admin, event);
	return true;
}
