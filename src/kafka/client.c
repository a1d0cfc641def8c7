/*-------------------------------------------------------------------------
 *
 * client.c
 *	  A librdkafka handle with its event queue: opening, events, closing.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Everything the library has to say comes as an event through a queue, whose
 * file descriptor the worker waits for; log lines through another one, which
 * is looked at whenever the first is empty.  There is one callback, which says
 * why a certificate is refused (verify_certificate in trouble.c) and touches
 * nothing; else nothing of ours runs inside the library or in its threads.
 *
 * Threads: the worker's.  The library's own threads are created with all
 * signals blocked.  kafka_client_close starts one helper, also with all
 * signals blocked, because rd_kafka_destroy can wait for ever; it also joins
 * the threads of look-ups that are under way (lookup.c).
 *
 * Memory: malloc.  A client that did not end in time is leaked on purpose: its
 * threads may still use it.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "kafka/internal.h"

/* How long closing may take before a handle is left behind. */
#define CLOSE_TIMEOUT_MS 3000

/* Of that, at most this much to leave an open transaction, twice. */
#define LEAVE_SLICE_MS 100
#define LEAVE_TURNS 8

/* ------------------------------------------------------------------------
 * Opening
 * ------------------------------------------------------------------------
 */
static rd_kafka_t *
new_handle_masked(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *reason,
				  size_t reason_size)
{
	sigset_t	all;
	sigset_t	before;
	struct sched_param priority;
	int			policy = -1;
	rd_kafka_t *rk;

	/* A library thread that took SIGURG would swallow a latch wake-up. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);

	/*
	 * The library's threads inherit SCHED_BATCH: when a call of ours wakes
	 * one, it does not take the processor away before the call is over.
	 * Otherwise the first record of a transaction is registered with the
	 * coordinator before the second one is there (seen: 9.6 instead of 8.8 ms
	 * from commit to Kafka on two processors).  Only a hint: a failure, or a
	 * system without it, changes nothing else.
	 */
#ifdef SCHED_BATCH
	if (pthread_getschedparam(pthread_self(), &policy, &priority) == 0 &&
		policy == SCHED_OTHER)
		pthread_setschedparam(pthread_self(), SCHED_BATCH, &priority);
#endif
	rk = rd_kafka_new(type, conf, reason, reason_size);
	if (policy == SCHED_OTHER)
		pthread_setschedparam(pthread_self(), SCHED_OTHER, &priority);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rk;
}

KafkaClient *
kafka_client_open(rd_kafka_conf_t *conf, rd_kafka_type_t type, int events,
				  const KafkaProperties *props, KafkaLogFunc log,
				  void *log_arg, KafkaError *error)
{
	static const uint64_t one = 1;
	const char *debug = kafka_properties_get(props, "debug");
	KafkaClient *client;
	char		reason[400] = "";
	int			fd;

	if (!kafka_properties_check(props, error) ||
		!kafka_files_check(props, error))
	{
		rd_kafka_conf_destroy(conf);
		return NULL;
	}
	fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0)
	{
		kafka_error_set(error, 0, "could not create an eventfd: %s",
						strerror(errno));
		rd_kafka_conf_destroy(conf);
		return NULL;
	}

	client = kafka_malloc(sizeof(KafkaClient));
	memset(client, 0, sizeof(*client));
	client->type = type;
	client->fd = fd;
	client->log = log;
	client->log_arg = log_arg;
	client->verbose = debug != NULL && debug[0] != '\0';

	/*
	 * Whoever fetches tokens by himself (OIDC) must not have their refresh
	 * made an event.
	 */
	if (kafka_properties_has(props, KAFKA_TOKEN_FILE))
		events |= RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH;
	rd_kafka_conf_set_events(conf, events | RD_KAFKA_EVENT_ERROR |
							 RD_KAFKA_EVENT_LOG);
	client->rk = new_handle_masked(type, conf, reason, sizeof(reason));
	if (client->rk == NULL)
	{
		kafka_error_set(error, KAFKA_CODE_CLIENT,
						"could not create a Kafka client: %s", reason);
		rd_kafka_conf_destroy(conf);
		close(fd);
		free(client);
		return NULL;
	}

	if (type == RD_KAFKA_CONSUMER)
	{
		/* Errors and messages in one queue: one thing to drain. */
		rd_kafka_poll_set_consumer(client->rk);
		client->queue = rd_kafka_queue_get_consumer(client->rk);
	}
	else
		client->queue = rd_kafka_queue_get_main(client->rk);

	/*
	 * Log lines have a queue of their own, which wakes nobody: a producer
	 * writes two dozen of them for each transaction, and each would interrupt
	 * the wait for the transaction's end (seen: 46 instead of 20 % of a core
	 * at 140 transactions a second).
	 */
	client->logs = rd_kafka_queue_new(client->rk);
	rd_kafka_set_log_queue(client->rk, client->logs);
	rd_kafka_queue_io_event_enable(client->queue, fd, &one, sizeof(one));
	if (!kafka_token_open(client, props, error))
	{
		(void) kafka_client_close(client, KAFKA_WORK_NONE);
		return NULL;
	}
	return client;
}

/* ------------------------------------------------------------------------
 * Closing
 * ------------------------------------------------------------------------
 */
typedef struct Closing
{
	pthread_mutex_t mutex;
	pthread_cond_t ended_cond;
	bool		ended;
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	rd_kafka_queue_t *logs;
	KafkaLookup *lookups;
	KafkaOpenWork work;
} Closing;

/* Throw away what waits; true if a record's failure was among it. */
static bool
drain_for_close(Closing *closing)
{
	rd_kafka_event_t *event;
	bool		failures = false;

	while ((event = rd_kafka_queue_poll(closing->queue, 0)) != NULL)
	{
		if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
			failures = true;
		rd_kafka_event_destroy(event);
	}
	return failures;
}

/*
 * Leave an open transaction before the handle is destroyed.
 *
 * librdkafka 2.0.2 aborts the process ("txn_req_cnt > 0") when its main thread
 * registers a partition with the transaction while the handle is being
 * destroyed: the request fails at once in another thread, before it was
 * counted.  A timer does that up to 500 ms after a record was enqueued, so
 * closing a few milliseconds after a send hit it in one of twenty cases.
 * Beginning to abort empties the list of partitions that wait for it.  That
 * the abort reaches the broker as well is welcome: the next init need not do
 * it.
 *
 * While a commit is under way there is no aborting, the library calls it a
 * conflict.  If all records were delivered then nothing waits to be
 * registered.  If not, the purge has made the commit impossible, and calling
 * it once more makes the library admit that.
 */
static void
leave_transaction(Closing *closing)
{
	rd_kafka_error_t *failed;
	bool		failures;
	int			turn;

	rd_kafka_purge(closing->rk,
				   RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	failures = drain_for_close(closing);
	if (closing->work == KAFKA_WORK_FAILED_COMMIT)
		failures = true;

	if (closing->work == KAFKA_WORK_COMMIT ||
		closing->work == KAFKA_WORK_FAILED_COMMIT)
	{
		bool		again = true;

		if (!failures)
			return;
		for (turn = 0; again && turn < LEAVE_TURNS; turn++)
		{
			failed = rd_kafka_commit_transaction(closing->rk, LEAVE_SLICE_MS);
			again = failed != NULL && rd_kafka_error_is_retriable(failed);
			if (failed != NULL)
				rd_kafka_error_destroy(failed);
			drain_for_close(closing);
		}
	}

	for (turn = 0; turn < LEAVE_TURNS; turn++)
	{
		bool		again;

		failed = rd_kafka_abort_transaction(closing->rk, LEAVE_SLICE_MS);
		if (failed == NULL)
			break;
		again = rd_kafka_error_is_retriable(failed);
		rd_kafka_error_destroy(failed);
		drain_for_close(closing);
		if (!again)
			break;
	}
}

/* A thread's body: destroying may take for ever, its caller does not. */
static void *
destroy_handle(void *arg)
{
	Closing    *closing = arg;

	/* Without the purge a producer would first try to deliver. */
	if (closing->work == KAFKA_WORK_RECORDS)
		rd_kafka_purge(closing->rk,
					   RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	else if (closing->work != KAFKA_WORK_NONE)
		leave_transaction(closing);

	/* Their threads use the handle; leaving has given them time to end. */
	kafka_lookups_join(closing->lookups);

	/* A reference still held would make the destroy wait for ever. */
	rd_kafka_queue_destroy(closing->logs);
	rd_kafka_queue_destroy(closing->queue);
	rd_kafka_destroy(closing->rk);

	pthread_mutex_lock(&closing->mutex);
	closing->ended = true;
	pthread_cond_signal(&closing->ended_cond);
	pthread_mutex_unlock(&closing->mutex);
	return NULL;
}

/* For CLOSE_TIMEOUT_MS at most. */
static void
wait_until_ended(Closing *closing)
{
	struct timespec deadline = kafka_deadline(CLOSE_TIMEOUT_MS);

	pthread_mutex_lock(&closing->mutex);
	while (!closing->ended)
	{
		if (pthread_cond_timedwait(&closing->ended_cond, &closing->mutex,
								   &deadline) == ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&closing->mutex);
}

bool
kafka_client_close(KafkaClient *client, KafkaOpenWork work)
{
	Closing    *closing;
	pthread_t	helper;
	bool		ended;

	closing = kafka_malloc(sizeof(Closing));
	memset(closing, 0, sizeof(*closing));
	closing->rk = client->rk;
	closing->queue = client->queue;
	closing->logs = client->logs;
	closing->lookups = client->lookups;
	closing->work = work;
	pthread_mutex_init(&closing->mutex, NULL);
	kafka_cond_init(&closing->ended_cond);

	kafka_lookups_stop(client->lookups);
	if (!kafka_thread_start(&helper, destroy_handle, closing))
		return false;
	wait_until_ended(closing);

	pthread_mutex_lock(&closing->mutex);
	ended = closing->ended;
	pthread_mutex_unlock(&closing->mutex);
	if (!ended)
	{
		/*
		 * The library may still write to the descriptor: closing it could
		 * send that write into a file which got the same number.
		 */
		pthread_detach(helper);
		return false;
	}

	pthread_join(helper, NULL);
	pthread_cond_destroy(&closing->ended_cond);
	pthread_mutex_destroy(&closing->mutex);
	free(closing);
	close(client->fd);
	kafka_token_close(client);
	free(client->cluster_id);
	free(client);
	return true;
}

const char *
kafka_client_cluster_id(KafkaClient *client)
{
	char	   *id;

	if (client->cluster_id != NULL)
		return client->cluster_id;
	id = rd_kafka_clusterid(client->rk, 0);
	if (id == NULL)
		return NULL;
	client->cluster_id = kafka_strdup(id);
	rd_kafka_mem_free(client->rk, id);
	return client->cluster_id;
}

/* ------------------------------------------------------------------------
 * Events
 * ------------------------------------------------------------------------
 */
rd_kafka_event_t *
kafka_client_next(KafkaClient *client, int timeout_ms)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(client->queue, timeout_ms);
	uint64_t	count;

	if (event == NULL)
		event = rd_kafka_queue_poll(client->logs, 0);
	if (event != NULL)
		return event;

	/*
	 * Empty.  Take the wake-up and look once more: an event that came before
	 * the wake-up was taken is found now, one that comes later writes again.
	 */
	if (read(client->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return NULL;
	return rd_kafka_queue_poll(client->queue, 0);
}

/* A line of the library's log: what it tells that no event does. */
static void
handle_log(KafkaClient *client, rd_kafka_event_t *event)
{
	const char *facility = "";
	const char *text = "";
	char		line[1024];
	int			level = LOG_DEBUG;

	if (rd_kafka_event_log(event, &facility, &text, &level) != 0)
		return;
	text = kafka_trouble_line(client, facility, text);

	/*
	 * AddPartitionsToTxn met the former transaction's markers being written,
	 * and the library waits a fixed 20 ms (rdkafka_txnmgr.c); it tells nobody
	 * but its debug log.
	 */
	if (strcmp(facility, "ADDPARTS") == 0 &&
		strstr(text, "another concurrent operation") != NULL)
		client->early++;

	/* The error of the commit does not say which topic that was. */
	if (strcmp(facility, "ADDPARTS") == 0 &&
		strstr(text, "authorization") != NULL &&
		strstr(text, "Failed to add partition") != NULL)
		snprintf(client->not_added, sizeof(client->not_added), "%s",
				 strstr(text, "Failed to add partition"));

	if (client->log == NULL ||
		(!client->verbose &&
		 (level >= LOG_DEBUG || kafka_trouble_is_known(facility))))
		return;
	snprintf(line, sizeof(line), "%s: %s", facility, text);
	client->log(client->log_arg, level, line);
}

void
kafka_client_take_lines(KafkaClient *client)
{
	rd_kafka_event_t *event;

	while ((event = rd_kafka_queue_poll(client->logs, 0)) != NULL)
	{
		kafka_client_handle(client, event);
		rd_kafka_event_destroy(event);
	}
}

bool
kafka_client_handle(KafkaClient *client, rd_kafka_event_t *event)
{
	switch (rd_kafka_event_type(event))
	{
		case RD_KAFKA_EVENT_LOG:
			handle_log(client, event);
			return true;
		case RD_KAFKA_EVENT_ERROR:
			kafka_trouble_event(client, event);
			return true;
		case RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH:
			kafka_token_refresh(client);
			return true;
		default:
			return false;
	}
}
