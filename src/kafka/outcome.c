/*-------------------------------------------------------------------------
 *
 * outcome.c
 *	  What librdkafka's error codes and failure lines mean for us, and the
 *	  small helpers that everything here uses.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Threads: any; there is no state.  Memory: malloc.
 *
 *-------------------------------------------------------------------------
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kafka/internal.h"

/* ------------------------------------------------------------------------
 * Small helpers
 * ------------------------------------------------------------------------
 */
void *
kafka_malloc(size_t size)
{
	void	   *block = malloc(size > 0 ? size : 1);

	/* librdkafka, which shares this heap, does the same. */
	if (block == NULL)
		abort();
	return block;
}

char *
kafka_strdup(const char *string)
{
	size_t		size = strlen(string) + 1;

	return memcpy(kafka_malloc(size), string, size);
}

int64_t
kafka_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct timespec
kafka_deadline(int wait_ms)
{
	struct timespec deadline;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += wait_ms / 1000;
	deadline.tv_nsec += (long) (wait_ms % 1000) * 1000000;
	if (deadline.tv_nsec >= 1000000000)
	{
		deadline.tv_sec++;
		deadline.tv_nsec -= 1000000000;
	}
	return deadline;
}

void
kafka_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attributes);
	pthread_condattr_destroy(&attributes);
}

bool
kafka_thread_start(pthread_t *thread, void *(*run) (void *), void *arg)
{
	sigset_t	all;
	sigset_t	before;
	bool		started;

	/* A thread that took SIGURG would swallow a latch wake-up. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	started = pthread_create(thread, NULL, run, arg) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return started;
}

void
kafka_error_set(KafkaError *error, int code, const char *format, ...)
{
	va_list		args;

	if (error == NULL)
		return;
	error->code = code;
	error->timed_out = false;
	error->topic[0] = '\0';
	va_start(args, format);
	vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
}

/* Whose trouble it is that has been set. */
void
kafka_error_of_topic(KafkaError *error, const char *topic)
{
	if (error != NULL)
		snprintf(error->topic, sizeof(error->topic), "%s", topic);
}

/* ------------------------------------------------------------------------
 * What error codes mean
 * ------------------------------------------------------------------------
 */
const char *
kafka_outcome_name(KafkaOutcome outcome)
{
	switch (outcome)
	{
		case KAFKA_OK:
			return "ok";
		case KAFKA_PENDING:
			return "pending";
		case KAFKA_UNREACHABLE:
			return "unreachable";
		case KAFKA_TROUBLE:
			return "trouble";
		case KAFKA_REFUSED:
			return "refused";
		case KAFKA_FENCED:
			return "fenced";
		case KAFKA_UNCERTAIN:
			return "uncertain";
		case KAFKA_MISCONFIGURED:
			return "misconfigured";
	}
	return "unknown";
}

KafkaOutcome
kafka_outcome_of(rd_kafka_resp_err_t code)
{
	switch (code)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return KAFKA_OK;

			/*
			 * The batch, for what it contains.  Only what depends on the
			 * record itself may stand here: an event that is refused becomes
			 * a dead letter.
			 */
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
			return KAFKA_REFUSED;

			/*
			 * A topic, the cluster, a clock or the network between, which
			 * somebody may repair.  Timestamps are not the event's: they are
			 * the sending server's clock, judged by the broker's.  A corrupt
			 * message (INVALID_MSG) was damaged on its way: what a record may
			 * not contain is told by INVALID_RECORD.  The message format is
			 * the topic's, and policies are the cluster's.
			 */
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
		case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
		case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
		case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_NOT_CONTROLLER:
		case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
		case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
		case RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR:
		case RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED:
		case RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR:
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
		case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
			return KAFKA_TROUBLE;

		case RD_KAFKA_RESP_ERR__FENCED:
		case RD_KAFKA_RESP_ERR_PRODUCER_FENCED:
		case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH:
			return KAFKA_FENCED;

		case RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT:
		case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
		case RD_KAFKA_RESP_ERR_INVALID_PARTITIONS:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
		case RD_KAFKA_RESP_ERR_SECURITY_DISABLED:
		case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
		case RD_KAFKA_RESP_ERR__INVALID_ARG:
			return KAFKA_MISCONFIGURED;

		case RD_KAFKA_RESP_ERR__TRANSPORT:
		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
		case RD_KAFKA_RESP_ERR__TIMED_OUT:
		case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
		case RD_KAFKA_RESP_ERR__RESOLVE:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR__WAIT_COORD:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
		case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
		case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
			return KAFKA_UNREACHABLE;

		default:
			return KAFKA_UNCERTAIN;
	}
}

/* How much a delivery failure says; the strongest is kept. */
int
kafka_failure_rank(KafkaOutcome outcome)
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
KafkaOutcome
kafka_transaction_outcome(rd_kafka_resp_err_t code)
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

/*
 * A broker that cannot be asked, or refuses the question because it knows no such
 * setting, is one that does not say that it verifies: whether that is enough is
 * for carshop_outbox.broker_verification to say, and not a failure.
 */
bool
kafka_verification_of(rd_kafka_resp_err_t code, const char *value,
					  KafkaVerification *verification)
{
	switch (code)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			*verification = value != NULL && strcmp(value, "true") == 0 ?
				KAFKA_VERIFIES : KAFKA_DOES_NOT_VERIFY;
			return true;
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			*verification = KAFKA_VERIFICATION_UNKNOWN;
			return true;
		case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:	/* no DescribeConfigs */
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION:
		case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
			*verification = KAFKA_DOES_NOT_VERIFY;
			return true;
		default:
			return false;
	}
}

/*
 * A failure line says in which state the connection was: "... (after 5ms in
 * state CONNECT) (_TRANSPORT)".  Before the state UP a connection has carried
 * nothing but its own set-up, so no request of a transaction can have been
 * cut off.  This matters: "localhost" that resolves to an address nobody
 * listens on fails once on every first connection, and a handle that counted
 * it would be replaced for ever.  The same holds for the bootstrap connection
 * as long as it is not known to which broker it leads, for the library sends
 * a transaction's requests to brokers that it knows by number.
 */
bool
kafka_failure_counts(const char *text)
{
	static const char *const harmless[] = {
		"INIT", "DOWN", "TRY_CONNECT", "CONNECT", "SSL_HANDSHAKE",
		"AUTH_LEGACY", "APIVERSION_QUERY", "AUTH_HANDSHAKE", "AUTH_REQ", NULL
	};
	const char *state = strstr(text, "ms in state ");
	const char *colon = strstr(text, ": ");
	const char *bootstrap = strstr(text, "/bootstrap: ");
	size_t		len;
	int			i;

	/* Only as the end of the broker's name, not somewhere in the reason. */
	if (bootstrap != NULL && colon == bootstrap + strlen("/bootstrap"))
		return false;
	if (state == NULL)
		return true;
	state += strlen("ms in state ");
	len = strspn(state, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
	for (i = 0; harmless[i] != NULL; i++)
	{
		if (strlen(harmless[i]) == len &&
			strncmp(harmless[i], state, len) == 0)
			return false;
	}
	return true;
}

/* Fills error and frees what the library returned. */
rd_kafka_resp_err_t
kafka_error_take(rd_kafka_t *rk, rd_kafka_error_t *failed, KafkaError *error)
{
	rd_kafka_resp_err_t code = rd_kafka_error_code(failed);
	char		fatal[256];

	/* A fatal error is reported under its own code, not as "fatal". */
	if (code == RD_KAFKA_RESP_ERR__FATAL)
	{
		rd_kafka_resp_err_t cause;

		cause = rd_kafka_fatal_error(rk, fatal, sizeof(fatal));
		if (cause != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			kafka_error_set(error, cause, "%s", fatal);
			rd_kafka_error_destroy(failed);
			return cause;
		}
	}
	kafka_error_set(error, code, "%s", rd_kafka_error_string(failed));
	rd_kafka_error_destroy(failed);
	return code;
}
