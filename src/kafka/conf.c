/*-------------------------------------------------------------------------
 *
 * conf.c
 *	  Building a configuration: our defaults, then what the operator says,
 *	  then what cannot be overridden.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * librdkafka's error text repeats some values, so it is never shown here.
 *
 * Thread: the worker's.  Memory: the library's.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

/*
 * Room for what the library counts besides key and value: headers and the
 * record's own frame.  A topic with a lower limit is watched by batch.size.
 */
#define MESSAGE_OVERHEAD_BYTES (128 * 1024)

/*
 * How long a request may go without its answer.  Only when that time is over does
 * the library look for another leader, so a broker that hangs holds all up for so
 * long: a minute by default, a transaction for all of its time.  Kafka itself gives
 * such a broker up after 9 s (broker.session.timeout.ms).  Not less: what is sent
 * or fetched by one request must come through a slow network.
 */
#define ANSWER_MS "10000"

/* Below every sensible max.message.bytes (Kafka's default is 1048588). */
#define DEFAULT_BATCH_BYTES 900000

bool
kafka_conf_set(rd_kafka_conf_t *conf, const char *key, const char *value,
			   KafkaError *error)
{
	char		ignored[512];	/* may repeat the value: never shown */
	bool		ok;

	ok = rd_kafka_conf_set(conf, key, value, ignored,
						   sizeof(ignored)) == RD_KAFKA_CONF_OK;
	explicit_bzero(ignored, sizeof(ignored));
	if (!ok)
		kafka_error_set(error, RD_KAFKA_RESP_ERR__INVALID_ARG,
						"librdkafka does not accept the value of property \"%s\"",
						key);
	return ok;
}

bool
kafka_conf_set_int(rd_kafka_conf_t *conf, const char *key, int64_t value,
				   KafkaError *error)
{
	char		text[32];

	snprintf(text, sizeof(text), "%lld", (long long) value);
	return kafka_conf_set(conf, key, text, error);
}

/* Only for properties that are numbers, none of which is a secret. */
static int64_t
conf_get_int(rd_kafka_conf_t *conf, const char *key)
{
	char		text[64];
	size_t		size = sizeof(text);

	if (rd_kafka_conf_get(conf, key, text, &size) != RD_KAFKA_CONF_OK)
		return 0;
	return strtoll(text, NULL, 10);
}

bool
kafka_conf_at_least(rd_kafka_conf_t *conf, const char *key, int64_t limit,
					KafkaError *error)
{
	return conf_get_int(conf, key) >= limit ||
		kafka_conf_set_int(conf, key, limit, error);
}

bool
kafka_conf_at_most(rd_kafka_conf_t *conf, const char *key, int64_t limit,
				   KafkaError *error)
{
	return conf_get_int(conf, key) <= limit ||
		kafka_conf_set_int(conf, key, limit, error);
}

static bool
verifies(const KafkaProperties *props)
{
	const char *value = kafka_properties_get(props,
											 "enable.ssl.certificate.verification");

	return value == NULL || strcmp(value, "true") == 0;
}

/*
 * What producers and readers have in common.  debug=broker makes the library
 * write a line for every connection failure, also for those whose log line
 * and error event it holds back for 30 s because they look like the last one.
 * debug=eos tells when a transaction began too early (kafka_producer_early).
 */
static bool
set_common(rd_kafka_conf_t *conf, const KafkaProperties *props,
		   rd_kafka_type_t type, KafkaError *error)
{
	const char *debug = kafka_properties_get(props, "debug");
	char		contexts[256] = "";

	if (!kafka_conf_set(conf, "log.queue", "true", error) ||
		!kafka_conf_set(conf, "log.connection.close", "true", error) ||
		!kafka_conf_set(conf, "socket.nagle.disable", "true", error) ||
		!kafka_conf_set(conf, "socket.max.fails", "1", error) ||
		!kafka_conf_set(conf, "allow.auto.create.topics", "false", error))
		return false;

	if (type == RD_KAFKA_PRODUCER)
		snprintf(contexts, sizeof(contexts), "broker,eos%s%s",
				 debug != NULL && debug[0] != '\0' ? "," : "",
				 debug != NULL ? debug : "");
	else if (debug != NULL)
		snprintf(contexts, sizeof(contexts), "%s", debug);
	if (contexts[0] != '\0' && !kafka_conf_set(conf, "debug", contexts, error))
		return false;

	/* Who has turned verification off must not get it back by our callback. */
	if (verifies(props))
		kafka_conf_explain_certificates(conf);

	/* Metrics for the broker's operator: costs, and is new since 2.5. */
	rd_kafka_conf_set(conf, "enable.metrics.push", "false", NULL, 0);
	return true;
}

/* Set the operator's properties that fit the kind of handle. */
static bool
set_properties(rd_kafka_conf_t *conf, const KafkaProperties *props,
			   rd_kafka_type_t type, KafkaError *error)
{
	const char *key;
	const char *value;
	size_t		i;

	for (i = 0; kafka_properties_item(props, i, type, &key, &value); i++)
	{
		if (key != NULL && !kafka_conf_set(conf, key, value, error))
			return false;
	}
	return true;
}

rd_kafka_conf_t *
kafka_conf_new(const KafkaProperties *props, rd_kafka_type_t type,
			   KafkaError *error)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	/* Defaults of ours first: the operator may change these. */
	if (kafka_conf_set(conf, "client.id", "carshop_outbox", error) &&
		kafka_conf_set(conf, "socket.timeout.ms", ANSWER_MS, error) &&
		kafka_conf_set(conf, "reconnect.backoff.ms", "100", error) &&
		kafka_conf_set(conf, "reconnect.backoff.max.ms", "2000", error) &&
		kafka_conf_set(conf, "socket.keepalive.enable", "true", error) &&
		set_properties(conf, props, type, error) &&
		set_common(conf, props, type, error))
		return conf;

	rd_kafka_conf_destroy(conf);
	return NULL;
}

/* ------------------------------------------------------------------------
 * A producer's
 * ------------------------------------------------------------------------
 */
static bool
set_compression(rd_kafka_conf_t *conf, const KafkaProperties *props,
				const KafkaProducerOptions *options, KafkaError *error)
{
	/* As with bootstrap.servers, what the file says wins. */
	if (options->compression == NULL ||
		kafka_properties_has(props, "compression.codec") ||
		kafka_properties_has(props, "compression.type"))
		return true;
	return kafka_conf_set(conf, "compression.codec", options->compression,
						  error);
}

static bool
set_transaction(rd_kafka_conf_t *conf, const KafkaProducerOptions *options,
				KafkaError *error)
{
	/*
	 * Without transactions the same time bounds how long a record may wait
	 * for its delivery; with them the library derives it.
	 */
	if (options->transactional_id == NULL)
		return kafka_conf_set_int(conf, "message.timeout.ms",
								  options->transaction_timeout_ms, error);
	/* the library takes no socket.timeout.ms that is longer */
	return kafka_conf_set(conf, "transactional.id", options->transactional_id,
						  error) &&
		kafka_conf_at_most(conf, "socket.timeout.ms",
						   options->transaction_timeout_ms, error) &&
		kafka_conf_set_int(conf, "transaction.timeout.ms",
						   options->transaction_timeout_ms, error);
}

/* Memory of the queue, and sizes that every record of ours fits in. */
static bool
set_limits(rd_kafka_conf_t *conf, const KafkaProducerOptions *options,
		   KafkaError *error)
{
	int64_t		kbytes = (int64_t) (options->queue_bytes / 1024);
	int64_t		batch = options->batch_bytes > 0 ?
	(int64_t) options->batch_bytes : DEFAULT_BATCH_BYTES;

	return kafka_conf_set_int(conf, "queue.buffering.max.kbytes",
							  kbytes > 0 ? kbytes : 1, error) &&
		kafka_conf_set_int(conf, "queue.buffering.max.messages",
						   options->queue_messages, error) &&
		kafka_conf_at_least(conf, "message.max.bytes",
							(int64_t) options->max_message_bytes +
							MESSAGE_OVERHEAD_BYTES, error) &&
		kafka_conf_at_most(conf, "batch.size", batch, error);
}

rd_kafka_conf_t *
kafka_producer_conf(const KafkaProperties *props,
					const KafkaProducerOptions *options, KafkaError *error)
{
	rd_kafka_conf_t *conf = kafka_conf_new(props, RD_KAFKA_PRODUCER, error);

	if (conf == NULL)
		return NULL;
	if (!kafka_properties_has(props, "linger.ms") &&
		!kafka_conf_set(conf, "linger.ms", "0", error))
		goto failed;
	if (set_compression(conf, props, options, error) &&
		set_transaction(conf, options, error) &&
		set_limits(conf, options, error) &&
		kafka_conf_set(conf, "enable.idempotence", "true", error) &&
		kafka_conf_set(conf, "acks", "all", error) &&
		kafka_conf_set(conf, "max.in.flight.requests.per.connection", "5",
					   error) &&
		kafka_conf_set(conf, "delivery.report.only.error", "true", error))
		return conf;

failed:
	rd_kafka_conf_destroy(conf);
	return NULL;
}
