/*-------------------------------------------------------------------------
 *
 * producer.c
 *	  The transactional and the idempotent producer.
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

/* Topic, partition, flags, value, key, opaque. */
#define FIXED_FIELDS 6
#define FEW_HEADERS 16

struct KafkaProducer
{
	KafkaClient *client;
	KafkaAdmin	admin;
	KafkaTopics topics;
	bool		transactional;
	bool		in_transaction;
	bool		committing;		/* the library's commit was called */
	size_t		enqueued;		/* since begin, or since the last flush */
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
	return producer;
}

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

/* How much a delivery failure says; the strongest is kept. */
static int
failure_rank(KafkaOutcome outcome)
{
	switch (outcome)
	{
		case KAFKA_FENCED:
			return 4;
		case KAFKA_REFUSED:
			return 3;
		case KAFKA_TROUBLE:
			return 2;
		case KAFKA_OK:
			return 0;
		default:
			return 1;
	}
}

/* In a transaction, what is not known to be harmless leaves its fate open. */
static KafkaOutcome
transaction_outcome(rd_kafka_resp_err_t code)
{
	KafkaOutcome outcome = kafka_outcome_of(code);

	switch (outcome)
	{
		case KAFKA_FENCED:
		case KAFKA_REFUSED:
		case KAFKA_TROUBLE:
			return outcome;
		default:
			return KAFKA_UNCERTAIN;
	}
}

static void
note_failure(KafkaProducer *producer, const rd_kafka_message_t *message)
{
	KafkaOutcome outcome = transaction_outcome(message->err);
	const char *trouble = producer->client->trouble;

	if (failure_rank(outcome) <= failure_rank(producer->failure))
		return;
	producer->failure = outcome;
	if (outcome == KAFKA_REFUSED)
		producer->refused_tag = (uint64_t) (uintptr_t) message->_private;
	kafka_error_set(&producer->failure_error, message->err,
					"topic \"%s\" partition %d: %s%s%s",
					message->rkt != NULL ? rd_kafka_topic_name(message->rkt) : "",
					(int) message->partition, rd_kafka_err2str(message->err),
					outcome == KAFKA_UNCERTAIN && trouble[0] != '\0' ?
					"; last connection trouble: " : "",
					outcome == KAFKA_UNCERTAIN ? trouble : "");
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
	else if (!kafka_client_handle(producer->client, event))
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
#ifdef MUTANT_KEEP_HANDLE
	/* a deliberately broken build for the tests (test/t/052) */
	return false;
#else
	return producer->client->failures > 0;
#endif
}

const char *
kafka_producer_last_trouble(KafkaProducer *producer)
{
	return producer->client->trouble;
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

static rd_kafka_topic_t *
topic_handle(KafkaProducer *producer, const char *name)
{
	return kafka_topics_get(&producer->topics, producer->client->rk, name);
}

KafkaOutcome
kafka_producer_topic(KafkaProducer *producer, const char *topic,
					 int slice_ms, int max_ms, KafkaTopicInfo *info,
					 KafkaError *error)
{
	rd_kafka_topic_t *rkt = topic_handle(producer, topic);

	if (rkt == NULL)
	{
		kafka_error_set(error, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
						"\"%s\" is not a valid name of a topic", topic);
		return KAFKA_MISCONFIGURED;
	}
	kafka_producer_poll(producer);
	return kafka_client_topic(producer->client, rkt, topic, slice_ms, max_ms,
							  info, error);
}

/* ------------------------------------------------------------------------
 * Transactions
 * ------------------------------------------------------------------------
 */

/*
 * A retriable failure that came at once would make the caller's loop spin:
 * spend the rest of the slice waiting for events.
 */
static void
serve_rest_of_slice(KafkaProducer *producer, int64_t started, int slice_ms)
{
	int64_t		rest = started + slice_ms - kafka_now_ms();

	kafka_producer_serve(producer, rest > 0 ? (int) rest : 0);
}

/*
 * What the library says of a call that is not finished ("the event queue must
 * be polled ...") is meant for a programmer; the connection's trouble, if
 * there is any, says more to a person.
 */
static KafkaOutcome
still_pending(KafkaProducer *producer, rd_kafka_error_t *failed,
			  int64_t started, int slice_ms, KafkaError *error)
{
	int			code = rd_kafka_error_code(failed);
	const char *trouble = producer->client->trouble;

	rd_kafka_error_destroy(failed);
	serve_rest_of_slice(producer, started, slice_ms);
	kafka_error_set(error, code, "%s",
					trouble[0] != '\0' ? trouble : "no answer from Kafka yet");
	return KAFKA_PENDING;
}

static void
reset_batch(KafkaProducer *producer)
{
	producer->enqueued = 0;
	producer->incomplete = false;
	producer->failure = KAFKA_OK;
	producer->refused_tag = 0;
}

KafkaOutcome
kafka_producer_init(KafkaProducer *producer, int slice_ms, KafkaError *error)
{
	int64_t		started = kafka_now_ms();
	rd_kafka_error_t *failed;
	rd_kafka_resp_err_t code;
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
		return KAFKA_OK;
	}
	if (rd_kafka_error_is_retriable(failed))
		return still_pending(producer, failed, started, slice_ms, error);
	kafka_producer_poll(producer);
	code = kafka_error_take(producer->client->rk, failed, error);
	outcome = kafka_outcome_of(code);
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
		producer->committing = false;
		return KAFKA_OK;
	}
	return transaction_outcome(kafka_error_take(producer->client->rk, failed, error));
}

/* ------------------------------------------------------------------------
 * Sending
 * ------------------------------------------------------------------------
 */
static void
fill_fields(rd_kafka_vu_t *fields, const KafkaRecord *record,
			rd_kafka_topic_t *rkt)
{
	int			i;

	fields[0].vtype = RD_KAFKA_VTYPE_RKT;
	fields[0].u.rkt = rkt;
	fields[1].vtype = RD_KAFKA_VTYPE_PARTITION;
	fields[1].u.i32 = record->partition;
	fields[2].vtype = RD_KAFKA_VTYPE_MSGFLAGS;
	fields[2].u.i = RD_KAFKA_MSG_F_COPY;
	fields[3].vtype = RD_KAFKA_VTYPE_VALUE;
	fields[3].u.mem.ptr = (void *) record->value;
	fields[3].u.mem.size = record->value != NULL ? record->value_len : 0;
	fields[4].vtype = RD_KAFKA_VTYPE_KEY;
	fields[4].u.mem.ptr = (void *) record->key;
	fields[4].u.mem.size = record->key != NULL ? record->key_len : 0;
	fields[5].vtype = RD_KAFKA_VTYPE_OPAQUE;
	fields[5].u.ptr = (void *) (uintptr_t) record->tag;
	for (i = 0; i < record->n_headers; i++)
	{
		rd_kafka_vu_t *field = &fields[FIXED_FIELDS + i];
		const KafkaHeader *header = &record->headers[i];

		field->vtype = RD_KAFKA_VTYPE_HEADER;
		field->u.header.name = header->name;
		field->u.header.val = header->value;
		field->u.header.size = header->value != NULL ?
			(ssize_t) header->value_len : 0;
	}
}

/* A record that was not enqueued: the batch is incomplete from now on. */
static KafkaOutcome
not_enqueued(KafkaProducer *producer, const KafkaRecord *record,
			 KafkaOutcome outcome)
{
	producer->incomplete = true;
	if (outcome == KAFKA_REFUSED)
	{
		producer->failure = KAFKA_REFUSED;
		producer->refused_tag = record->tag;
		kafka_error_set(&producer->failure_error,
						RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
						"a record for topic \"%s\" was refused before sending",
						record->topic);
	}
	return outcome;
}

KafkaOutcome
kafka_producer_send(KafkaProducer *producer, const KafkaRecord *record,
					KafkaError *error)
{
	rd_kafka_vu_t few[FIXED_FIELDS + FEW_HEADERS];
	rd_kafka_vu_t *fields = few;
	size_t		n_fields = FIXED_FIELDS + (size_t) record->n_headers;
	rd_kafka_topic_t *rkt = topic_handle(producer, record->topic);
	rd_kafka_error_t *failed;
	rd_kafka_resp_err_t code;

	if (rkt == NULL)
	{
		kafka_error_set(error, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
						"\"%s\" is not a valid name of a topic",
						record->topic);
		return not_enqueued(producer, record, KAFKA_REFUSED);
	}

	/* No allocation of ours for the usual record. */
	if (record->n_headers > FEW_HEADERS)
		fields = kafka_malloc(n_fields * sizeof(rd_kafka_vu_t));
	fill_fields(fields, record, rkt);
	failed = rd_kafka_produceva(producer->client->rk, fields, n_fields);
	if (fields != few)
		free(fields);
	if (failed == NULL)
	{
		producer->enqueued++;
		return KAFKA_OK;
	}
	code = kafka_error_take(producer->client->rk, failed, error);
	if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		return KAFKA_PENDING;
	return not_enqueued(producer, record, transaction_outcome(code));
}

size_t
kafka_producer_enqueued(KafkaProducer *producer)
{
	return producer->enqueued;
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

/* A known delivery failure says more than what the commit says of it. */
static KafkaOutcome
failed_batch(KafkaProducer *producer, KafkaOutcome outcome, KafkaError *error)
{
	if (failure_rank(producer->failure) >= failure_rank(outcome))
	{
		if (error != NULL)
			*error = producer->failure_error;
		return producer->failure;
	}
	return outcome;
}

static KafkaOutcome
incomplete_batch(KafkaProducer *producer, KafkaError *error)
{
	kafka_error_set(error, 0, "a record of the batch was not enqueued");
	return failed_batch(producer, KAFKA_UNCERTAIN, error);
}

KafkaOutcome
kafka_producer_commit(KafkaProducer *producer, int slice_ms,
					  KafkaError *error)
{
	int64_t		started = kafka_now_ms();
	rd_kafka_error_t *failed;

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
			return failed_batch(producer, KAFKA_UNCERTAIN, error);
		producer->in_transaction = false;
		return KAFKA_OK;
	}
	if (rd_kafka_error_is_retriable(failed))
		return still_pending(producer, failed, started, slice_ms, error);
	/* The library has ended this commit: it can be aborted now. */
	producer->committing = false;
	kafka_producer_poll(producer);
	return failed_batch(producer,
						transaction_outcome(kafka_error_take(producer->client->rk, failed,
													   error)),
						error);
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
	{
		kafka_error_set(error, code, "%s", rd_kafka_err2str(code));
		serve_rest_of_slice(producer, started, slice_ms);
		return KAFKA_PENDING;
	}
	if (producer->failure != KAFKA_OK)
		return failed_batch(producer, KAFKA_UNCERTAIN, error);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		kafka_error_set(error, code, "%s", rd_kafka_err2str(code));
		return KAFKA_UNCERTAIN;
	}
	producer->enqueued = 0;
	return KAFKA_OK;
}
