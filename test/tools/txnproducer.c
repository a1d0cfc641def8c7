/*-------------------------------------------------------------------------
 *
 * txnproducer.c
 *	  A transactional producer for the tests of the tests: writes transactions
 *	  of known content, so that the proxy, the reader and the checker can be
 *	  tried without the extension.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Usage: txnproducer -b BROKERS -t TOPIC [-x ID] [-n TRANSACTIONS] [-m MESSAGES]
 *					  [-f FIRST] [-a] [-q MS] [-w MS] [-T MS] [-c PARTITIONS]
 *					  [-o MS] [-d MS] [-v VALUE]
 *	 -x		transactional.id (default carshop-test-producer)
 *	 -n -m	so many transactions of so many messages (default 1 of 10)
 *	 -f		number of the first transaction (default 1)
 *	 -a		abort them instead of committing
 *	 -q		pause between transactions
 *	 -w		wait in the middle of each transaction
 *	 -T		socket.timeout.ms
 *	 -c		create the topic first, and with -n 0 nothing else
 *	 -o		transaction.timeout.ms (default 30000)
 *	 -d		the messages' timestamp, in ms since 1970
 *	 -v		the messages' value, without key and header
 *
 * A message's value is an envelope whose Data is {"key": K, "version": V,
 * "txn": T}; keys go round 0..9, versions grow per key.  Prints one line
 * per transaction: its number and "committed", "aborted" or the error.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

#define KEYS	10

static const char *given_value = NULL;
static int64_t timestamp_ms = 0;	/* 0: now */

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[256];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
	{
		fprintf(stderr, "txnproducer: %s\n", error);
		exit(2);
	}
}

static void
check(const char *what, rd_kafka_error_t *error)
{
	if (error == NULL)
		return;
	fprintf(stderr, "txnproducer: %s: %s\n", what, rd_kafka_error_string(error));
	exit(1);
}

static void
send_message(rd_kafka_t *rk, const char *topic, long txn, long number)
{
	char		id[64];
	char		key[16];
	char		value[256];
	long		version = number / KEYS + 1;
	int			key_len = snprintf(key, sizeof(key), "%ld", number % KEYS);
	int			id_len = snprintf(id, sizeof(id), "00000000-0000-7000-8000-%012ld", number);
	int			value_len;
	rd_kafka_resp_err_t err;

	if (given_value != NULL)
	{
		err = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic),
								RD_KAFKA_V_VALUE((void *) given_value, strlen(given_value)),
								RD_KAFKA_V_TIMESTAMP(timestamp_ms),
								RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
		if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			fprintf(stderr, "txnproducer: %s\n", rd_kafka_err2str(err));
			exit(1);
		}
		return;
	}
	value_len = snprintf(value, sizeof(value),
						 "{\"EventType\":\"StockChanged\",\"EventDescription\":\"\","
						 "\"OccuredOn\":\"2026-11-22T20:27:03.512756+00:00\",\"EventId\":\"%s\","
						 "\"Key\":\"%s\",\"Data\":{\"key\":%s,\"version\":%ld,\"txn\":%ld}}",
						 id, key, key, version, txn);
	err = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_KEY(key, key_len),
							RD_KAFKA_V_VALUE(value, value_len),
							RD_KAFKA_V_HEADER("id", id, id_len),
							RD_KAFKA_V_TIMESTAMP(timestamp_ms),
							RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		fprintf(stderr, "txnproducer: %s\n", rd_kafka_err2str(err));
		exit(1);
	}
}

static void
create_topic(rd_kafka_t *rk, const char *topic, int partitions)
{
	char		error[256];
	rd_kafka_NewTopic_t *new_topic;
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		n = 0;

	new_topic = rd_kafka_NewTopic_new(topic, partitions, 1, error, sizeof(error));
	rd_kafka_CreateTopics(rk, &new_topic, 1, NULL, queue);
	rd_kafka_NewTopic_destroy(new_topic);
	event = rd_kafka_queue_poll(queue, 30000);
	if (event == NULL || rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		fprintf(stderr, "txnproducer: could not create %s: %s\n", topic,
				event ? rd_kafka_event_error_string(event) : "no answer");
		exit(1);
	}
	results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
	if (n != 1 || rd_kafka_topic_result_error(results[0]) != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		fprintf(stderr, "txnproducer: could not create %s: %s\n", topic,
				n == 1 ? rd_kafka_topic_result_error_string(results[0]) : "no result");
		exit(1);
	}
	rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
}

/* Without it the first message of a topic waits for a second. */
static void
learn_topic(rd_kafka_t *rk, const char *topic)
{
	rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);

	for (int i = 0; i < 100; i++)
	{
		const struct rd_kafka_metadata *md;
		bool		known;

		if (rd_kafka_metadata(rk, 0, rkt, &md, 5000) != RD_KAFKA_RESP_ERR_NO_ERROR)
			continue;
		known = md->topic_cnt == 1 && md->topics[0].partition_cnt > 0;
		rd_kafka_metadata_destroy(md);
		if (known)
			break;
		usleep(20000);
	}
	rd_kafka_topic_destroy(rkt);
}

int
main(int argc, char **argv)
{
	const char *brokers = NULL;
	const char *topic = NULL;
	const char *id = "carshop-test-producer";
	const char *socket_timeout = NULL;
	const char *transaction_timeout = "30000";
	long		transactions = 1;
	long		messages = 10;
	long		first = 1;
	bool		abort_them = false;
	int			pause_ms = 0;
	int			middle_ms = 0;
	int			partitions = 0;
	char		error[256];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	int			option;

	while ((option = getopt(argc, argv, "b:t:x:n:m:f:aq:w:T:c:o:d:v:")) != -1)
	{
		switch (option)
		{
			case 'b':
				brokers = optarg;
				break;
			case 't':
				topic = optarg;
				break;
			case 'x':
				id = optarg;
				break;
			case 'n':
				transactions = atol(optarg);
				break;
			case 'm':
				messages = atol(optarg);
				break;
			case 'f':
				first = atol(optarg);
				break;
			case 'a':
				abort_them = true;
				break;
			case 'q':
				pause_ms = atoi(optarg);
				break;
			case 'w':
				middle_ms = atoi(optarg);
				break;
			case 'T':
				socket_timeout = optarg;
				break;
			case 'c':
				partitions = atoi(optarg);
				break;
			case 'o':
				transaction_timeout = optarg;
				break;
			case 'd':
				timestamp_ms = atoll(optarg);
				break;
			case 'v':
				given_value = optarg;
				break;
			default:
				return 2;
		}
	}
	if (brokers == NULL || topic == NULL)
	{
		fprintf(stderr, "usage: txnproducer -b BROKERS -t TOPIC [options]\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);	/* never outlive the test */
	setvbuf(stdout, NULL, _IOLBF, 0);

	set(conf, "bootstrap.servers", brokers);
	set(conf, "client.id", "carshop-test-producer");
	set(conf, "transactional.id", id);
	set(conf, "transaction.timeout.ms", transaction_timeout);
	set(conf, "partitioner", "murmur2_random");
	set(conf, "log_level", "2");
	if (socket_timeout != NULL)
		set(conf, "socket.timeout.ms", socket_timeout);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
	if (rk == NULL)
	{
		fprintf(stderr, "txnproducer: %s\n", error);
		return 2;
	}
	if (partitions > 0)
		create_topic(rk, topic, partitions);
	learn_topic(rk, topic);
	if (transactions > 0)
		check("init_transactions", rd_kafka_init_transactions(rk, 30000));
	for (long txn = first; txn < first + transactions; txn++)
	{
		rd_kafka_error_t *failed;

		check("begin_transaction", rd_kafka_begin_transaction(rk));
		for (long i = 0; i < messages; i++)
		{
			send_message(rk, topic, txn, (txn - 1) * messages + i);
			if (i == messages / 2 && middle_ms > 0)
			{
				rd_kafka_flush(rk, 10000);
				usleep((useconds_t) middle_ms * 1000);
			}
		}
		if (abort_them)
		{
			rd_kafka_flush(rk, 10000);	/* let them reach the log first */
			failed = rd_kafka_abort_transaction(rk, -1);
		}
		else
			failed = rd_kafka_commit_transaction(rk, -1);
		printf("%ld %s\n", txn, failed ? rd_kafka_error_string(failed) :
			   abort_them ? "aborted" : "committed");
		if (failed != NULL)
			return 1;
		if (pause_ms > 0)
			usleep((useconds_t) pause_ms * 1000);
	}
	rd_kafka_destroy(rk);
	return 0;
}
