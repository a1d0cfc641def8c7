/*-------------------------------------------------------------------------
 *
 * producer.c
 *	  The transactional and the idempotent producer.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Delivery reports come as events and only for failures: with a callback the
 * library's flush, also the one inside commit, polls in steps of 10 ms.  So
 * success is the absence of a failure once nothing is outstanding any more,
 * and everything that was not enqueued must be remembered here, because a
 * record that the library refused locally does not fail the transaction.
 *
 * There is no abort: whatever goes wrong, the caller closes the handle and
 * the next handle's init aborts what stayed open.  An abort would not help:
 * after a refused batch the next transaction of the same handle can fail with
 * a broken sequence, and an abort during a commit spins.
 *
 * Thread: the worker's.  Memory: malloc; the library copies each record.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"
#include "mutants.h"

struct KafkaProducer
{
	KafkaClient *client;
	KafkaAdmin	admin;
	KafkaTopics topics;
	bool		transactional;
	int			timeout_ms;		/* the broker's for a transaction */
	bool		in_transaction;
	int64_t		began_ms;
	bool		committing;		/* the library's commit was called */
	bool		incomplete;		/* a record was refused and not enqueued */
	KafkaOutcome failure;		/* the worst delivery failure, KAFKA_OK: none */
	KafkaError	failure_error;
	uint64_t	refused_tag;
};

/* ------------------------------------------------------------------------
 * Opening and closing
 * ------------------------------------------------------------------------
 */
KafkaProducer *
kafka_producer_open(const KafkaProperties *props,
					const KafkaProducerOptions *options, KafkaError *error)
{
	rd_kafka_conf_t *conf = kafka_producer_conf(props, options, error);
	KafkaClient *client;
	KafkaProducer *producer;

	if (conf == NULL)
		return NULL;
	client = kafka_client_open(conf, RD_KAFKA_PRODUCER, RD_KAFKA_EVENT_DR,
							   props, options->log, options->log_arg, error);
	if (client == NULL)
		return NULL;

	producer = kafka_malloc(sizeof(KafkaProducer));
	memset(producer, 0, sizeof(*producer));
	producer->client = client;
	producer->transactional = options->transactional_id != NULL;
	producer->timeout_ms = options->transaction_timeout_ms;
	return producer;
}

/* What closing the handle would leave undone. */
static KafkaOpenWork
open_work(const KafkaProducer *producer)
{
	if (!producer->in_transaction)
		return KAFKA_WORK_RECORDS;
	if (!producer->committing)
		return KAFKA_WORK_TRANSACTION;
	return producer->failure == KAFKA_OK ? KAFKA_WORK_COMMIT :
		KAFKA_WORK_FAILED_COMMIT;
}

bool
kafka_producer_close(KafkaProducer *producer)
{
	bool		ended;

	if (producer == NULL)
		return true;
	kafka_topics_forget(&producer->topics);
	kafka_admin_forget(&producer->admin);
	ended = kafka_client_close(producer->client, open_work(producer));
	free(producer);
	return ended;
}

/* ------------------------------------------------------------------------
 * Events
 * ------------------------------------------------------------------------
 */

/*
 * A transaction that the broker has aborted because it was open for too long
 * looks like one that another producer has fenced off, or ends in some other
 * way that leaves its fate open.  The broker's time begins no earlier than
 * ours, so a failure before ours is over cannot be that.
 */
static KafkaOutcome
judge(const KafkaProducer *producer, rd_kafka_resp_err_t code,
	  KafkaError *error)
{
	KafkaOutcome outcome = kafka_transaction_outcome(code);

	if (producer->transactional && producer->in_transaction &&
		(outcome == KAFKA_FENCED || outcome == KAFKA_UNCERTAIN) &&
		kafka_now_ms() - producer->began_ms >= producer->timeout_ms)
	{
		if (error != NULL)
			error->timed_out = true;
		return KAFKA_UNCERTAIN;
	}
	return outcome;
}

/* Keep a record's failure if it says more than the one that is known. */
static void
keep_failure(KafkaProducer *producer, KafkaOutcome outcome, uint64_t tag,
			 const KafkaError *error)
{
	if (kafka_failure_rank(outcome) <= kafka_failure_rank(producer->failure))
		return;
	producer->failure = outcome;
	producer->failure_error = *error;
	producer->refused_tag = outcome == KAFKA_REFUSED ? tag : 0;
}

/* A record was not delivered: keep the first reason. */
static void
note_failure(KafkaProducer *producer, const rd_kafka_message_t *message)
{
	const char *trouble = kafka_client_trouble(producer->client);
	KafkaOutcome outcome;
	KafkaError	error;

	kafka_error_set(&error, message->err,
					"topic \"%s\" partition %d: %s",
					message->rkt != NULL ? rd_kafka_topic_name(message->rkt) : "",
					(int) message->partition, rd_kafka_err2str(message->err));
	if (message->rkt != NULL)
		kafka_error_of_topic(&error, rd_kafka_topic_name(message->rkt));
	outcome = judge(producer, message->err, &error);
	if (outcome == KAFKA_UNCERTAIN && trouble[0] != '\0')
	{
		size_t		len = strlen(error.message);

		snprintf(error.message + len, sizeof(error.message) - len,
				 "; last connection trouble: %s", trouble);
	}
	keep_failure(producer, outcome, (uint64_t) (uintptr_t) message->_private,
				 &error);
}

static void
handle_event(KafkaProducer *producer, rd_kafka_event_t *event)
{
	const rd_kafka_message_t *message;

	if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
	{
		while ((message = rd_kafka_event_message_next(event)) != NULL)
		{
			if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
				note_failure(producer, message);
		}
	}
	else if (!kafka_client_handle(producer->client, event) &&
			 !kafka_topics_handle(&producer->topics, event))
		kafka_admin_handle(&producer->admin, event);
	rd_kafka_event_destroy(event);
}

void
kafka_producer_serve(KafkaProducer *producer, int wait_ms)
{
	rd_kafka_event_t *event = kafka_client_next(producer->client, wait_ms);

	while (event != NULL)
	{
		handle_event(producer, event);
		event = kafka_client_next(producer->client, 0);
	}
}

void
kafka_producer_poll(KafkaProducer *producer)
{
	kafka_producer_serve(producer, 0);
}

int
kafka_producer_fd(KafkaProducer *producer)
{
	return producer->client->fd;
}

unsigned int
kafka_producer_early(KafkaProducer *producer)
{
	return producer->client->early;
}

bool
kafka_producer_tainted(KafkaProducer *producer)
{
	return producer->client->failures > 0 && !MUTANT("keep_handle");
}

const char *
kafka_producer_last_trouble(KafkaProducer *producer)
{
	return kafka_client_trouble(producer->client);
}

/* For admin.c. */
KafkaClient *
kafka_producer_client(KafkaProducer *producer)
{
	return producer->client;
}

KafkaAdmin *
kafka_producer_admin(KafkaProducer *producer)
{
	return &producer->admin;
}

const char *
kafka_producer_cluster_id(KafkaProducer *producer)
{
	return kafka_client_cluster_id(producer->client);
}

/* NULL: the name is not one of a topic. */
static KafkaTopicSlot *
topic_slot(KafkaProducer *producer, const char *name, KafkaError *error)
{
	KafkaTopicSlot *slot;

	slot = kafka_topics_get(&producer->topics, producer->client->rk, name);
	if (slot == NULL)
		kafka_error_set(error, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
						"\"%s\" is not a valid name of a topic", name);
	return slot;
}

/*
 * What did not take the slice must not make the caller's loop spin: spend the
 * rest of it waiting for events.
 */
static void
serve_rest_of_slice(KafkaProducer *producer, int64_t started, int slice_ms)
{
	int64_t		rest = started + slice_ms - kafka_now_ms();

	kafka_producer_serve(producer, rest > 0 ? (int) rest : 0);
}

void
kafka_producer_ask_anew(KafkaProducer *producer)
{
	kafka_topics_ask_anew(&producer->topics);
}

KafkaOutcome
kafka_producer_topic(KafkaProducer *producer, const char *topic,
					 int slice_ms, int max_ms, KafkaTopicInfo *info,
					 KafkaError *error)
{
	int64_t		started = kafka_now_ms();
	KafkaTopicSlot *slot = topic_slot(producer, topic, error);
	KafkaOutcome outcome;

	memset(info, 0, sizeof(*info));
	if (slot == NULL)
		return KAFKA_MISCONFIGURED;
	kafka_producer_poll(producer);
	outcome = kafka_topic_look_up(slot, producer->client, slice_ms, max_ms,
								  info, error);
	if (outcome == KAFKA_PENDING)
		serve_rest_of_slice(producer, started, slice_ms);
	return outcome;
}

/* ------------------------------------------------------------------------
 * Transactions
 * ------------------------------------------------------------------------
 */

/*
 * What the library says of a call that is not finished ("the event queue must
 * be polled ...") is meant for a programmer; the connection's trouble, if
 * there is any, says more to a person.
 */
static KafkaOutcome
still_pending(KafkaProducer *producer, int code, int64_t started, int slice_ms,
			  KafkaError *error)
{
	serve_rest_of_slice(producer, started, slice_ms);
	kafka_client_no_answer(producer->client, code, error);
	kafka_topics_explain(&producer->topics, producer->client, error);
	return KAFKA_PENDING;
}

static KafkaOutcome
goes_on(KafkaProducer *producer, rd_kafka_error_t *failed, int64_t started,
		int slice_ms, KafkaError *error)
{
	int			code = rd_kafka_error_code(failed);

	rd_kafka_error_destroy(failed);
	return still_pending(producer, code, started, slice_ms, error);
}

static void
reset_batch(KafkaProducer *producer)
{
	producer->incomplete = false;
	producer->failure = KAFKA_OK;
	producer->refused_tag = 0;
	producer->topics.waits_ms = 0;
	producer->client->not_added[0] = '\0';
}

KafkaOutcome
kafka_producer_init(KafkaProducer *producer, int slice_ms, KafkaError *error)
{
	int64_t		started = kafka_now_ms();
	rd_kafka_error_t *failed;
	KafkaOutcome outcome;

	if (!producer->transactional)
		return KAFKA_OK;
	failed = rd_kafka_init_transactions(producer->client->rk, slice_ms);
	if (failed == NULL)
	{
		/*
		 * What failed while connecting, before any transaction of this
		 * handle, cannot come back into a later one.
		 */
		kafka_producer_poll(producer);
		producer->client->failures = 0;
		producer->topics.waits_ms = 0;
		return KAFKA_OK;
	}
	if (rd_kafka_error_is_retriable(failed))
		return goes_on(producer, failed, started, slice_ms, error);
	kafka_producer_poll(producer);
	outcome = kafka_outcome_of(kafka_error_take(producer->client->rk, failed, error));
	return outcome == KAFKA_OK || outcome == KAFKA_REFUSED ?
		KAFKA_UNCERTAIN : outcome;
}

KafkaOutcome
kafka_producer_begin(KafkaProducer *producer, KafkaError *error)
{
	rd_kafka_error_t *failed;

	kafka_producer_poll(producer);
	reset_batch(producer);
	if (!producer->transactional)
		return KAFKA_OK;

	/* The rule of the header, kept here too. */
	if (kafka_producer_tainted(producer))
	{
		kafka_error_set(error, 0, "the connection failed since the last init: %s",
						producer->client->trouble);
		return KAFKA_UNCERTAIN;
	}
	failed = rd_kafka_begin_transaction(producer->client->rk);
	if (failed == NULL)
	{
		producer->in_transaction = true;
		producer->began_ms = kafka_now_ms();
		producer->committing = false;
		return KAFKA_OK;
	}
	return kafka_transaction_outcome(kafka_error_take(producer->client->rk, failed, error));
}

/* ------------------------------------------------------------------------
 * Sending
 * ------------------------------------------------------------------------
 */
/* A record that was not enqueued: the batch is incomplete from now on. */
static KafkaOutcome
not_enqueued(KafkaProducer *producer, const KafkaRecord *record,
			 KafkaOutcome outcome, const KafkaError *failed, KafkaError *error)
{
	producer->incomplete = true;
	keep_failure(producer, outcome, record->tag, failed);
	if (error != NULL)
		*error = *failed;
	return outcome;
}

KafkaOutcome
kafka_producer_send(KafkaProducer *producer, const KafkaRecord *record,
					KafkaError *error)
{
	KafkaError	reason;
	KafkaTopicSlot *slot = topic_slot(producer, record->topic, &reason);
	rd_kafka_error_t *failed;
	rd_kafka_resp_err_t code;

	/* The name is the caller's, not a fault of what the record contains. */
	if (slot == NULL)
		return not_enqueued(producer, record, KAFKA_TROUBLE, &reason, error);

	failed = kafka_record_enqueue(producer->client->rk, record, kafka_topic_handle(slot));
	if (failed == NULL)
		return KAFKA_OK;
	code = kafka_error_take(producer->client->rk, failed, &reason);
	if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
	{
		if (error != NULL)
			*error = reason;
		return KAFKA_PENDING;
	}
	return not_enqueued(producer, record, judge(producer, code, &reason),
						&reason, error);
}

uint64_t
kafka_producer_refused_tag(KafkaProducer *producer)
{
	return producer->refused_tag;
}

/* ------------------------------------------------------------------------
 * The end of a batch
 * ------------------------------------------------------------------------
 */

/*
 * A known delivery failure says more than what the commit says of it, except
 * that only the commit may have come late enough to know of a time-out.
 */
static KafkaOutcome
failed_batch(KafkaProducer *producer, KafkaOutcome outcome, KafkaError *error)
{
	bool		timed_out = error != NULL && error->timed_out;

	if (kafka_failure_rank(producer->failure) < kafka_failure_rank(outcome))
		return outcome;
	if (error != NULL)
	{
		*error = producer->failure_error;
		if (producer->failure == KAFKA_UNCERTAIN)
			error->timed_out |= timed_out;
	}
	return producer->failure;
}

/* Nothing is committed of which a part is missing. */
static KafkaOutcome
incomplete_batch(KafkaProducer *producer, KafkaError *error)
{
	kafka_error_set(error, 0, "a record of the batch was not enqueued");
	return failed_batch(producer, KAFKA_UNCERTAIN, error);
}

/* All was sent, but not all was delivered. */
static KafkaOutcome
lost_batch(KafkaProducer *producer, KafkaError *error)
{
	kafka_error_set(error, 0, "a record of the batch was not delivered");
	return failed_batch(producer, KAFKA_UNCERTAIN, error);
}

KafkaOutcome
kafka_producer_commit(KafkaProducer *producer, int slice_ms,
					  KafkaError *error)
{
	int64_t		started = kafka_now_ms();
	rd_kafka_error_t *failed;
	rd_kafka_resp_err_t code;
	KafkaOutcome outcome;
	KafkaError	reason;

	/* Failures must be taken from the queue, or the flush cannot end. */
	kafka_producer_poll(producer);
	if (producer->incomplete)
		return incomplete_batch(producer, error);
	if (!producer->transactional)
		return kafka_producer_flush(producer, slice_ms, error);

	producer->committing = true;
	failed = rd_kafka_commit_transaction(producer->client->rk, slice_ms);
	if (failed == NULL)
	{
		/* Cannot happen; if it does, what was lost must not be confirmed. */
		kafka_producer_poll(producer);
		if (producer->failure != KAFKA_OK)
			return lost_batch(producer, error);
		producer->in_transaction = false;
		return KAFKA_OK;
	}
	if (rd_kafka_error_is_retriable(failed))
		return goes_on(producer, failed, started, slice_ms, error);
	/* The library has ended this commit: it can be aborted now. */
	producer->committing = false;
	kafka_producer_poll(producer);
	code = kafka_error_take(producer->client->rk, failed, &reason);
	if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED &&
		producer->client->not_added[0] != '\0')
		kafka_error_set(&reason, code, "%s", producer->client->not_added);
	outcome = judge(producer, code, &reason);
	if (error != NULL)
		*error = reason;
	return failed_batch(producer, outcome, error);
}

KafkaOutcome
kafka_producer_flush(KafkaProducer *producer, int slice_ms, KafkaError *error)
{
	int64_t		started = kafka_now_ms();
	rd_kafka_resp_err_t code;

	kafka_producer_poll(producer);
	if (producer->incomplete)
		return incomplete_batch(producer, error);
	code = rd_kafka_flush(producer->client->rk, slice_ms);
	kafka_producer_poll(producer);
	if (code == RD_KAFKA_RESP_ERR__TIMED_OUT)
		return still_pending(producer, code, started, slice_ms, error);
	if (producer->failure != KAFKA_OK)
		return lost_batch(producer, error);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		kafka_error_set(error, code, "%s", rd_kafka_err2str(code));
		return KAFKA_UNCERTAIN;
	}
	return KAFKA_OK;
}
