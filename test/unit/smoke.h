/*-------------------------------------------------------------------------
 *
 * smoke.h
 *	  What the programs that try src/kafka against a real broker share.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * They take the bootstrap servers as their argument, make topics with names of
 * their own (process id and time), never touch others, and print TAP.  Each
 * step of theirs calls in slices until the answer is there, and gives up after
 * MAX_TURNS of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SMOKE_H
#define SMOKE_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "kafka/kafka.h"
#include "tap.h"

#define SLICE_MS 100
#define MAX_TURNS 300

static char events_topic[64];
static char progress_topic[64];
static char transactional_id[64];
static char group_id[64];
static const char *bootstrap;
static KafkaError commit_error; /* of the last commit() */

__attribute__((unused))
static KafkaProperties *
properties(void)
{
	KafkaProperties *props = kafka_properties_new();
	KafkaError	error = {0};

	if (!kafka_properties_set(props, "bootstrap.servers", bootstrap, &error))
		printf("# %s\n", error.message);
	return props;
}

__attribute__((unused))
static void
show_log(void *arg, int level, const char *text)
{
	(void) arg;
	printf("# log %d: %s\n", level, text);
}

__attribute__((unused))
static int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ------------------------------------------------------------------------
 * Producers
 * ------------------------------------------------------------------------
 */
__attribute__((unused))
static KafkaProducer *
open_producer_timeout(const char *id, int transaction_timeout_ms)
{
	KafkaProducerOptions options = {
		.transactional_id = id,
		.compression = "lz4",
		.transaction_timeout_ms = transaction_timeout_ms,
		.max_message_bytes = 2 * 1024 * 1024,
		.queue_bytes = 64 * 1024 * 1024,
		.queue_messages = 200000,
		.log = show_log
	};
	KafkaProperties *props = properties();
	KafkaError	error = {0};
	KafkaProducer *producer = kafka_producer_open(props, &options, &error);

	kafka_properties_free(props);
	if (producer == NULL)
		printf("# %s\n", error.message);
	return producer;
}

__attribute__((unused))
static KafkaProducer *
open_producer(const char *id)
{
	return open_producer_timeout(id, 30000);
}

__attribute__((unused))
static KafkaOutcome
init(KafkaProducer *producer)
{
	KafkaError	error = {0};
	KafkaOutcome outcome = KAFKA_PENDING;
	int			turn;

	for (turn = 0; turn < MAX_TURNS && outcome == KAFKA_PENDING; turn++)
		outcome = kafka_producer_init(producer, SLICE_MS, &error);
	if (outcome != KAFKA_OK)
		printf("# init: %s: %s\n", kafka_outcome_name(outcome), error.message);
	return outcome;
}

__attribute__((unused))
static KafkaOutcome
commit(KafkaProducer *producer)
{
	KafkaError	error = {0};
	KafkaOutcome outcome = KAFKA_PENDING;
	int			turn;

	for (turn = 0; turn < MAX_TURNS && outcome == KAFKA_PENDING; turn++)
		outcome = kafka_producer_commit(producer, SLICE_MS, &error);
	commit_error = error;
	if (outcome != KAFKA_OK)
		printf("# commit: %s: %s\n", kafka_outcome_name(outcome),
			   error.message);
	return outcome;
}

__attribute__((unused))
static KafkaOutcome
look_up(KafkaProducer *producer, const char *topic, KafkaTopicInfo *info)
{
	KafkaError	error = {0};
	KafkaOutcome outcome = KAFKA_PENDING;
	int			turn;

	for (turn = 0; turn < MAX_TURNS && outcome == KAFKA_PENDING; turn++)
		outcome = kafka_producer_topic(producer, topic, SLICE_MS, 5000, info,
									   &error);
	if (outcome != KAFKA_OK)
		printf("# topic: %s: %s\n", kafka_outcome_name(outcome),
			   error.message);
	return outcome;
}

__attribute__((unused))
static KafkaOutcome
create(KafkaProducer *producer, const char *topic, int partitions,
	   const KafkaConfigEntry *config, int n_config)
{
	KafkaError	error = {0};
	KafkaOutcome outcome = KAFKA_PENDING;
	int			turn;

	for (turn = 0; turn < MAX_TURNS && outcome == KAFKA_PENDING; turn++)
		outcome = kafka_admin_create_topic(producer, topic, partitions, -1,
										   config, n_config, SLICE_MS, &error);
	if (outcome != KAFKA_OK)
		printf("# create: %s: %s\n", kafka_outcome_name(outcome),
			   error.message);
	return outcome;
}

__attribute__((unused))
static KafkaOutcome
send(KafkaProducer *producer, const char *topic, int partition,
	 const char *key, const void *value, size_t value_len, uint64_t tag)
{
	KafkaHeader header = {"id", "0123456789abcdef", 16};
	KafkaRecord record = {
		.topic = topic,
		.partition = partition,
		.key = key,
		.key_len = key != NULL ? strlen(key) : 0,
		.value = value,
		.value_len = value_len,
		.headers = &header,
		.n_headers = 1,
		.tag = tag
	};
	KafkaError	error = {0};
	KafkaOutcome outcome = kafka_producer_send(producer, &record, &error);

	if (outcome != KAFKA_OK && outcome != KAFKA_PENDING)
		printf("# send: %s: %s\n", kafka_outcome_name(outcome), error.message);
	return outcome;
}

/* ------------------------------------------------------------------------
 * The progress record
 * ------------------------------------------------------------------------
 */
__attribute__((unused))
static KafkaOutcome
read_last(const char *topic, const char *key, bool stable, int max_turns,
		  KafkaLastRecord *record)
{
	KafkaProperties *props = properties();
	KafkaError	error = {0};
	KafkaLastRead *read;
	KafkaOutcome outcome = KAFKA_PENDING;
	int64_t		started = now_us();
	int			turn;

	memset(record, 0, sizeof(*record));
	read = kafka_last_open(props, topic, key, stable, show_log, NULL, &error);
	kafka_properties_free(props);
	for (turn = 0; turn < max_turns && outcome == KAFKA_PENDING; turn++)
		outcome = kafka_last_poll(read, SLICE_MS, record, &error);
	if (outcome != KAFKA_OK)
		printf("# last: %s: %s\n", kafka_outcome_name(outcome), error.message);
	printf("# last record in %.1f ms\n", (double) (now_us() - started) / 1000);
	ok(kafka_last_close(read), "the last-record reader closes");
	return outcome;
}

__attribute__((unused))
static void
smoke_names(const char *servers)
{
	bootstrap = servers;
	snprintf(events_topic, sizeof(events_topic), "smoke-%ld-%d-events",
			 (long) time(NULL), (int) getpid());
	snprintf(progress_topic, sizeof(progress_topic), "smoke-%ld-%d-progress",
			 (long) time(NULL), (int) getpid());
	snprintf(transactional_id, sizeof(transactional_id), "smoke-%ld-%d",
			 (long) time(NULL), (int) getpid());
	snprintf(group_id, sizeof(group_id), "smoke-%ld-%d-group",
			 (long) time(NULL), (int) getpid());
}

#endif							/* SMOKE_H */
