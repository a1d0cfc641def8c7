/*-------------------------------------------------------------------------
 *
 * admin.c
 *	  Creating topics and asking a broker over a producer's handle.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Requests are sent by the library's main thread and answered by an event on
 * the producer's queue, so nothing here waits longer than its slice, and what
 * was asked stays asked however far the cluster is.  One request at a time:
 * its state lives in the producer.  A request for something else replaces one
 * under way.
 *
 * Thread: the worker's.  Memory: see request.c.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "kafka/internal.h"

/* How long a new topic may take until brokers know it and it has a leader. */
#define VISIBLE_TIMEOUT_MS 10000
#define VISIBLE_LOOKUP_MS 2000
#define RETRY_PAUSE_MS 20

static bool
is_under_way(const KafkaAdmin *admin, AdminRequest request, const char *topic)
{
	if (admin->request != request)
		return false;
	return topic == NULL || strcmp(admin->topic, topic) == 0;
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
		kafka_client_no_answer(kafka_producer_client(producer), 0, error);
		return KAFKA_PENDING;
	}
	if (admin->outcome != KAFKA_OK && error != NULL)
		*error = admin->error;
	return admin->outcome;
}

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
								   VISIBLE_LOOKUP_MS, &info, error);
	if (outcome == KAFKA_OK && info.exists)
		return KAFKA_OK;
	if (outcome != KAFKA_OK && outcome != KAFKA_PENDING &&
		outcome != KAFKA_TROUBLE)
		return outcome;
	if (kafka_now_ms() - admin->answered_ms > VISIBLE_TIMEOUT_MS)
	{
		if (outcome == KAFKA_OK)
			kafka_error_set(error, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
							"topic \"%s\" was created but no broker knows it",
							admin->topic);
		return KAFKA_TROUBLE;
	}
	/* The answer came at once: the next question must not. */
	if (outcome != KAFKA_PENDING)
		kafka_producer_serve(producer,
							 slice_ms < RETRY_PAUSE_MS ? slice_ms : RETRY_PAUSE_MS);
	return KAFKA_PENDING;
}

KafkaOutcome
kafka_admin_create_topic(KafkaProducer *producer, const char *topic,
						 int partitions, int replication,
						 const KafkaConfigEntry *config, int n_config,
						 int slice_ms, KafkaError *error)
{
	KafkaClient *client = kafka_producer_client(producer);
	KafkaAdmin *admin = kafka_producer_admin(producer);
	KafkaOutcome outcome;

	if (!is_under_way(admin, ADMIN_CREATE_TOPIC, topic))
	{
		kafka_admin_start(admin, client, ADMIN_CREATE_TOPIC, topic);
		if (!kafka_send_create_topic(client, admin->number, topic, partitions,
									 replication, config, n_config, false, error))
		{
			kafka_admin_forget(admin);
			return KAFKA_MISCONFIGURED;
		}
	}
	outcome = admin->done ? admin->outcome : KAFKA_PENDING;
	if (outcome == KAFKA_OK)
		outcome = await_visible(producer, slice_ms, error);
	else
	{
		/* A created topic becomes visible in the next call's slice. */
		outcome = await_answer(producer, slice_ms, error);
		if (outcome == KAFKA_OK)
			return KAFKA_PENDING;
	}
	if (outcome != KAFKA_PENDING)
		kafka_admin_forget(admin);
	return outcome;
}

KafkaOutcome
kafka_admin_verification(KafkaProducer *producer, int slice_ms,
						 KafkaVerification *verification, KafkaError *error)
{
	KafkaClient *client = kafka_producer_client(producer);
	KafkaAdmin *admin = kafka_producer_admin(producer);
	KafkaOutcome outcome;

	if (!is_under_way(admin, ADMIN_VERIFICATION, NULL))
	{
		/*
		 * Any broker will do; the controller's number comes with the first
		 * metadata, and is not waited for here.
		 */
		int32_t		broker = rd_kafka_controllerid(client->rk, 0);
		char		name[32];

		if (broker < 0)
		{
			kafka_producer_serve(producer, slice_ms);
			kafka_client_no_answer(client, 0, error);
			return KAFKA_PENDING;
		}
		snprintf(name, sizeof(name), "%d", (int) broker);
		kafka_admin_start(admin, client, ADMIN_VERIFICATION, NULL);
		kafka_send_describe(client, admin->number, RD_KAFKA_RESOURCE_BROKER,
							name, 0);
	}
	outcome = await_answer(producer, slice_ms, error);
	if (outcome == KAFKA_OK)
		*verification = admin->verification;
	if (outcome != KAFKA_PENDING)
		kafka_admin_forget(admin);
	return outcome;
}
