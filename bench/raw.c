/*-------------------------------------------------------------------------
 *
 * raw.c
 *	  The limit of the library and the broker: a transactional producer without
 *	  PostgreSQL, with the client settings that the relay uses.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Usage: raw -b BROKERS -t TOPIC -n EVENTS
 *			publishes so many events like the car shop's in transactions of
 *			50,000: "result drain EVENTS_PER_SECOND", until the last commit
 *		  raw -b BROKERS -t TOPIC -r RATE -s SECONDS
 *			publishes events at that rate, all that are due in one transaction:
 *			"result raw_p50 MS" etc., from the moment an event is due until a
 *			read_committed reader has it
 *	 -x TOPIC	one more record per transaction goes there, as the relay's record
 *			of its progress does
 *	 -v BYTES	of random text more in each event's Data
 *	 -z		the same letter all the time instead
 *	 -p MS	pause after each commit (2): the broker writes its markers then, and
 *			refuses a transaction that begins meanwhile
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

#define TRANSACTION_EVENTS	50000
#define WARM_UP_SECONDS		2
#define ID_LEN				36

static const char *brokers;
static const char *topic;
static const char *progress_topic;
static int64_t n_events;
static double rate;
static double seconds;
static double pause_ms = 2;
static size_t padding;
static bool compressible;

static int64_t start;
static _Atomic int64_t n_arrived;
static int64_t *arrivals;

static rd_kafka_t *
producer_open(void)
{
	char		error[256];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *producer;
	rd_kafka_error_t *failed;

	conf_set(conf, "bootstrap.servers", brokers);
	conf_set(conf, "transactional.id", "carshop-bench-raw");
	conf_set(conf, "linger.ms", "0");
	conf_set(conf, "compression.codec", "lz4");
	conf_set(conf, "queue.buffering.max.messages", "1000000");
	conf_set(conf, "delivery.report.only.error", "true");
	conf_set(conf, "log_level", "3");
	/* as events, although none is read: callbacks are much slower */
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR);
	producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
	if (producer == NULL)
		fail("%s", error);
	failed = rd_kafka_init_transactions(producer, 30000);
	if (failed != NULL)
		fail("init_transactions: %s", rd_kafka_error_string(failed));
	return producer;
}

static void
check(rd_kafka_error_t *failed, const char *what)
{
	if (failed != NULL)
		fail("%s: %s", what, rd_kafka_error_string(failed));
}

/* Text that is added to an event, in base 64. */
static void
pad(char *to, int64_t seed)
{
	uint64_t	state = (uint64_t) seed * 2 + 1;

	for (size_t i = 0; i < padding; i++)
	{
		state = state * 6364136223846793005u + 1442695040888963407u;
		to[i] = compressible ? '0' :
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[state >> 58];
	}
	to[padding] = '\0';
}

/* The events from first up to, not including, last in one transaction. */
static void
publish(rd_kafka_t *producer, rd_kafka_topic_t *rkt, int64_t first, int64_t last)
{
	size_t		room = 512 + padding;
	char	   *value = malloc(room);
	char	   *text = malloc(padding + 1);

	if (value == NULL || text == NULL)
		fail("out of memory");
	check(rd_kafka_begin_transaction(producer), "begin_transaction");
	for (int64_t i = first; i < last; i++)
	{
		char		key[32];
		char		id[ID_LEN + 1];
		int			value_len;
		int			key_len = snprintf(key, sizeof(key), "%" PRId64, i);
		rd_kafka_resp_err_t code;

		snprintf(id, sizeof(id), "00000000-0000-7000-8000-%012" PRIx64, i);
		pad(text, i);
		value_len = snprintf(value, room,
							 "{\"EventType\":\"CarAdded\",\"EventDescription\":\"CarAdded %s\","
							 "\"OccuredOn\":\"2026-11-22T20:27:03.512756+00:00\",\"EventId\":\"%s\",\"Key\":\"%s\","
							 "\"Data\":{\"Number\":%s,\"Engine\":\"{\\\"$type\\\":\\\"HandEngineEntity\\\"}%s\"}}",
							 key, id, key, key, text);
		code = rd_kafka_producev(producer, RD_KAFKA_V_RKT(rkt),
								 RD_KAFKA_V_KEY(key, (size_t) key_len),
								 RD_KAFKA_V_VALUE(value, (size_t) value_len),
								 RD_KAFKA_V_HEADER("id", id, ID_LEN),
								 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
								 RD_KAFKA_V_END);
		if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
			fail("produce: %s", rd_kafka_err2str(code));
	}
	if (progress_topic != NULL &&
		rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(progress_topic),
						  RD_KAFKA_V_KEY("raw", 3), RD_KAFKA_V_VALUE(&last, sizeof(last)),
						  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
						  RD_KAFKA_V_END) != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail("could not produce to %s", progress_topic);
	check(rd_kafka_commit_transaction(producer, 30000), "commit_transaction");
	free(value);
	free(text);
}

static void
drain(rd_kafka_t *producer, rd_kafka_topic_t *rkt)
{
	int64_t		end;

	start = now_us();
	for (int64_t first = 0; first < n_events; first = end)
	{
		end = first + TRANSACTION_EVENTS < n_events ? first + TRANSACTION_EVENTS : n_events;
		if (first > 0)
			sleep_until(now_us() + (int64_t) (pause_ms * 1000));
		publish(producer, rkt, first, end);
	}
	printf("result drain %.0f\n", (double) n_events * 1e6 / (double) (now_us() - start));
}

static void *
reader_main(void *arg)
{
	rd_kafka_t *reader = arg;

	while (n_arrived < n_events)
	{
		rd_kafka_message_t *message = reader_next(reader, 100);
		int64_t		now = now_us();

		if (message == NULL)
			continue;
		arrivals[n_arrived++] = now;
		rd_kafka_message_destroy(message);
	}
	rd_kafka_consumer_close(reader);
	rd_kafka_destroy(reader);
	return NULL;
}

static int64_t
due(int64_t i)
{
	return start + (int64_t) ((double) i * 1e6 / rate);
}

static void
at_rate(rd_kafka_t *producer, rd_kafka_topic_t *rkt)
{
	pthread_t	reader;
	Samples		samples = {0};
	int64_t		end;

	n_events = (int64_t) (rate * seconds);
	arrivals = calloc((size_t) n_events + 1, sizeof(int64_t));
	if (arrivals == NULL)
		fail("out of memory");
	pthread_create(&reader, NULL, reader_main, reader_open(brokers, topic, false));
	start = now_us() + 100000;
	for (int64_t first = 0; first < n_events; first = end)
	{
		sleep_until(due(first));
		end = first;
		while (end < n_events && due(end) <= now_us())
			end++;
		publish(producer, rkt, first, end);
		sleep_until(now_us() + (int64_t) (pause_ms * 1000));
	}
	pthread_join(reader, NULL);
	/* one partition: events arrive in the order in which they were sent */
	for (int64_t i = (int64_t) (rate * WARM_UP_SECONDS); i < n_events; i++)
		samples_add(&samples, (double) (arrivals[i] - due(i)) / 1000);
	samples_print(&samples, stdout, "raw");
}

/* Metadata beforehand: the first transaction must not wait for them. */
static void
look_up(rd_kafka_t *producer, rd_kafka_topic_t *rkt)
{
	const struct rd_kafka_metadata *metadata;

	if (rd_kafka_metadata(producer, 0, rkt, &metadata, 10000) != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail("no metadata of %s", rd_kafka_topic_name(rkt));
	rd_kafka_metadata_destroy(metadata);
}

int
main(int argc, char **argv)
{
	rd_kafka_t *producer;
	rd_kafka_topic_t *rkt;
	int			option;

	while ((option = getopt(argc, argv, "b:t:n:r:s:x:p:v:z")) != -1)
	{
		if (option == 'b')
			brokers = optarg;
		else if (option == 't')
			topic = optarg;
		else if (option == 'n')
			n_events = atoll(optarg);
		else if (option == 'r')
			rate = atof(optarg);
		else if (option == 's')
			seconds = atof(optarg);
		else if (option == 'x')
			progress_topic = optarg;
		else if (option == 'p')
			pause_ms = atof(optarg);
		else if (option == 'v')
			padding = (size_t) atoll(optarg);
		else if (option == 'z')
			compressible = true;
		else
			return 2;
	}
	if (brokers == NULL || topic == NULL || (n_events < 1 && (rate <= 0 || seconds <= WARM_UP_SECONDS)))
	{
		fprintf(stderr, "usage: raw -b BROKERS -t TOPIC (-n EVENTS | -r RATE -s SECONDS)\n");
		return 2;
	}
	producer = producer_open();
	rkt = rd_kafka_topic_new(producer, topic, NULL);
	look_up(producer, rkt);
	if (progress_topic != NULL)
	{
		rd_kafka_topic_t *progress = rd_kafka_topic_new(producer, progress_topic, NULL);

		look_up(producer, progress);
		rd_kafka_topic_destroy(progress);
	}
	if (rate > 0)
		at_rate(producer, rkt);
	else
		drain(producer, rkt);
	rd_kafka_topic_destroy(rkt);
	rd_kafka_destroy(producer);
	return 0;
}
