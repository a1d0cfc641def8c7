/*-------------------------------------------------------------------------
 *
 * attempts.c
 *	  What can be tried in Kafka without a trace: reading, the transactional.id.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Read is tried by fetching the end of partition 0, without a group.
 *
 * The transactional.id is tried with a transaction.timeout.ms that every
 * broker refuses.  A broker looks at the right first (KafkaApis,
 * handleInitProducerIdRequest), then at the timeout, and only then for the
 * producer's state (TransactionCoordinator, handleInitProducerId): so one
 * that answers INVALID_TRANSACTION_TIMEOUT has fenced nobody and written
 * nothing.  It is tried only where each broker has said that its limit is
 * smaller; who must not take part is up to the caller all the same.
 *
 * Thread: the caller's.
 *
 *-------------------------------------------------------------------------
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/inspect_internal.h"

#define READ_QUEUE_BYTES (1024 * 1024)
#define READ_WAIT_MS	100
/* The library adds a little to it, without a look at the end of int. */
#define REFUSED_TIMEOUT_MS (INT_MAX - 10000)

#define BEFORE_END		(-2000) /* minus n: n before the end, see rdkafka.h */

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

static void
give_reading_up(KafkaFacts *facts, const KafkaError *error)
{
	for (int i = 0; i < facts->n_topics; i++)
	{
		KafkaFinding *finding = &facts->topics[i].read;

		if (!kafka_finding_is_open(finding))
			continue;
		finding->outcome = KAFKA_MISCONFIGURED;
		finding->error = *error;
	}
}

/* Once it is known of all topics which exist: one assignment for all. */
static void
begin_reading(KafkaInspection *inspection)
{
	KafkaReaderOptions options = {.queue_bytes = READ_QUEUE_BYTES};
	KafkaFacts *facts = &inspection->facts;
	KafkaPosition *positions;
	KafkaError	error;
	int			n = 0;

	inspection->reading = true;
	positions = kafka_malloc((size_t) facts->n_topics * sizeof(KafkaPosition));
	for (int i = 0; i < facts->n_topics; i++)
	{
		if (!kafka_finding_is_open(&facts->topics[i].read))
			continue;
		positions[n].topic = facts->topics[i].name;
		positions[n].partition = 0;
		positions[n++].offset = BEFORE_END - 1;
	}
	if (n > 0)
		inspection->reader = kafka_reader_open_wait(inspection->props, &options,
													READ_WAIT_MS, &error);
	if (n > 0 &&
		(inspection->reader == NULL ||
		 kafka_reader_assign(inspection->reader, positions, n, &error) != KAFKA_OK))
		give_reading_up(facts, &error);
	free(positions);
}

static void
take_items(KafkaInspection *inspection)
{
	KafkaItem	item;

	for (;;)
	{
		kafka_reader_next(inspection->reader, &item);
		if (item.kind == KAFKA_ITEM_NONE)
			return;
		for (int i = 0; item.topic != NULL && i < inspection->facts.n_topics; i++)
		{
			KafkaTopicFacts *topic = &inspection->facts.topics[i];

			if (!kafka_finding_is_open(&topic->read) || strcmp(topic->name, item.topic) != 0)
				continue;
			if (item.kind != KAFKA_ITEM_ERROR)
				topic->read.outcome = KAFKA_OK;
			else if (item.outcome != KAFKA_UNREACHABLE)
			{
				topic->read.outcome = item.outcome;
				topic->read.error = item.error;
			}
		}
		kafka_reader_release(&item);
	}
}

void
kafka_inspect_try_reading(KafkaInspection *inspection)
{
	if (!inspection->reading)
	{
		for (int i = 0; i < inspection->facts.n_topics; i++)
		{
			if (kafka_finding_is_open(&inspection->facts.topics[i].found))
				return;
		}
		begin_reading(inspection);
	}
	if (inspection->reader != NULL)
		take_items(inspection);
}

/* ------------------------------------------------------------------------
 * The transactional.id
 * ------------------------------------------------------------------------
 */

bool
kafka_inspect_may_try_transactional(const KafkaFacts *facts)
{
	for (int i = 0; i < facts->n_brokers; i++)
	{
		if (facts->brokers[i].described.outcome != KAFKA_OK ||
			facts->brokers[i].transaction_max_ms <= 0 ||
			facts->brokers[i].transaction_max_ms >= REFUSED_TIMEOUT_MS)
			return false;
	}
	return facts->n_brokers > 0 && facts->n_brokers == facts->n_all_brokers;
}

void
kafka_inspect_try_transactional(KafkaInspection *inspection)
{
	KafkaFinding *finding = &inspection->facts.transactional;

	if (inspection->transactional_id == NULL)
		return;
	if (!finding->asked)
	{
		KafkaProducerOptions options = {
			.transactional_id = inspection->transactional_id,
			.transaction_timeout_ms = REFUSED_TIMEOUT_MS,
			.max_message_bytes = 1000,
			.queue_bytes = READ_QUEUE_BYTES,
			.queue_messages = 10,
			.log = inspection->log,
			.log_arg = inspection->log_arg
		};

		if (!kafka_inspect_may_try_transactional(&inspection->facts))
			return;
		kafka_finding_ask(finding);
		inspection->producer = kafka_producer_open(inspection->props, &options,
												   &finding->error);
		if (inspection->producer == NULL)
			finding->outcome = KAFKA_MISCONFIGURED;
	}
	if (!kafka_finding_is_open(finding))
		return;
	finding->outcome = kafka_producer_init(inspection->producer, 0, &finding->error);
	if (finding->outcome == KAFKA_MISCONFIGURED &&
		finding->error.code == RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT)
		finding->outcome = KAFKA_OK;
}
