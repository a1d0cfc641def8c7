/*-------------------------------------------------------------------------
 *
 * reader.c
 *	  Reads a topic as a consumer of ours would, and says what it saw and when
 *	  it had seen everything there was to see.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * kcat prints messages, but a test of atomicity must also know the moments at
 * which a reader stood at the last stable offset: what it has seen by then is
 * exactly what committed transactions had made visible, so no transaction may
 * be seen in part.  Between two such moments a reader may well stand in the
 * middle of a transaction, only because a fetch has a size.
 *
 * Usage: reader -b BROKERS -t TOPIC [-i ISOLATION] [-e SECONDS]
 *	 -i		read_committed (default) or read_uncommitted
 *	 -e		end when every partition is read up to its high watermark; exit 1
 *			if that has not happened within SECONDS.  Without it: until SIGTERM.
 *
 * One line per item, fields separated by tabs:
 *	 M ms partition offset id key value
 *							a message: ms since the epoch at arrival, header id;
 *							"-" stands for none
 *	 E ms partition offset	the end: next offset to read = last stable offset
 *	 X ms partition text	an error that is not transport trouble; partition -1
 *							if it belongs to none
 * Lines are flushed at each end and whenever nothing waits.  Values are printed
 * as they are, with tabs, line feeds and NULs replaced by spaces: events hold none.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

#define MAX_PARTITIONS	1024

static volatile sig_atomic_t stop_requested;

static void
request_stop(int signo)
{
	(void) signo;
	stop_requested = 1;
}

static long long
wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (long long) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[256];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
	{
		fprintf(stderr, "reader: %s\n", error);
		exit(2);
	}
}

/* The topic's partitions; waits for a topic that does not exist yet. */
static int
count_partitions(rd_kafka_t *rk, const char *topic, long long deadline)
{
	rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);
	int			partitions = 0;

	while (partitions == 0 && !stop_requested &&
		   (deadline == 0 || wall_ms() < deadline))
	{
		const struct rd_kafka_metadata *md;

		if (rd_kafka_metadata(rk, 0, rkt, &md, 1000) != RD_KAFKA_RESP_ERR_NO_ERROR)
			continue;
		if (md->topic_cnt == 1 && md->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR)
			partitions = md->topics[0].partition_cnt;
		rd_kafka_metadata_destroy(md);
		if (partitions == 0)
			usleep(20000);
	}
	rd_kafka_topic_destroy(rkt);
	return partitions;
}

static void
print_bytes(const void *data, size_t len)
{
	const char *bytes = data;

	if (data == NULL)
	{
		putchar('-');
		return;
	}
	for (size_t i = 0; i < len; i++)
		putchar_unlocked(bytes[i] == '\t' || bytes[i] == '\n' || bytes[i] == '\0' ?
						 ' ' : bytes[i]);
}

static void
print_message(const rd_kafka_message_t *message)
{
	rd_kafka_headers_t *headers;
	const void *id = NULL;
	size_t		id_len = 0;

	if (rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR &&
		rd_kafka_header_get_last(headers, "id", &id, &id_len) != RD_KAFKA_RESP_ERR_NO_ERROR)
		id = NULL;
	printf("M\t%lld\t%d\t%lld\t", wall_ms(), (int) message->partition,
		   (long long) message->offset);
	print_bytes(id, id_len);
	putchar('\t');
	print_bytes(message->key, message->key_len);
	putchar('\t');
	print_bytes(message->payload, message->len);
	putchar('\n');
}

/*
 * At the end of a partition: is it the end of what was ever written?  Open
 * transactions keep the last stable offset below the high watermark.
 */
static bool
all_read(rd_kafka_t *rk, const rd_kafka_message_t *message)
{
	int64_t		low;
	int64_t		high;

	return rd_kafka_get_watermark_offsets(rk, rd_kafka_topic_name(message->rkt),
										  message->partition, &low, &high) ==
		RD_KAFKA_RESP_ERR_NO_ERROR && message->offset >= high;
}

int
main(int argc, char **argv)
{
	const char *brokers = NULL;
	const char *topic = NULL;
	const char *isolation = "read_committed";
	int			seconds = 0;
	long long	deadline = 0;
	char		error[256];
	static bool done[MAX_PARTITIONS];
	int			n_done = 0;
	int			partitions;
	rd_kafka_topic_partition_list_t *assignment;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	int			option;

	while ((option = getopt(argc, argv, "b:t:i:e:")) != -1)
	{
		if (option == 'b')
			brokers = optarg;
		else if (option == 't')
			topic = optarg;
		else if (option == 'i')
			isolation = optarg;
		else if (option == 'e')
			seconds = atoi(optarg);
		else
			return 2;
	}
	if (brokers == NULL || topic == NULL)
	{
		fprintf(stderr, "usage: reader -b BROKERS -t TOPIC [-i ISOLATION] [-e SECONDS]\n");
		return 2;
	}
	signal(SIGTERM, request_stop);
	signal(SIGINT, request_stop);
	prctl(PR_SET_PDEATHSIG, SIGTERM);	/* never outlive the test */
	if (seconds > 0)
		deadline = wall_ms() + seconds * 1000LL;

	set(conf, "bootstrap.servers", brokers);
	set(conf, "client.id", "carshop-test-reader");
	set(conf, "group.id", "carshop-test-reader");	/* never joined or
													 * committed */
	set(conf, "isolation.level", isolation);
	set(conf, "enable.partition.eof", "true");
	set(conf, "auto.offset.reset", "error");
	set(conf, "enable.auto.commit", "false");
	set(conf, "enable.auto.offset.store", "false");
	set(conf, "fetch.wait.max.ms", "20");
	set(conf, "reconnect.backoff.max.ms", "500");
	set(conf, "log_level", "2");
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof(error));
	if (rk == NULL)
	{
		fprintf(stderr, "reader: %s\n", error);
		return 2;
	}
	rd_kafka_poll_set_consumer(rk);

	partitions = count_partitions(rk, topic, deadline);
	if (partitions == 0 || partitions > MAX_PARTITIONS)
	{
		fprintf(stderr, "reader: no partitions of %s\n", topic);
		return 1;
	}
	assignment = rd_kafka_topic_partition_list_new(partitions);
	for (int i = 0; i < partitions; i++)
		rd_kafka_topic_partition_list_add(assignment, topic, i)->offset = 0;
	rd_kafka_assign(rk, assignment);
	rd_kafka_topic_partition_list_destroy(assignment);

	while (!stop_requested && (deadline == 0 || (n_done < partitions && wall_ms() < deadline)))
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, 0);

		if (message == NULL)
		{
			fflush(stdout);
			message = rd_kafka_consumer_poll(rk, 100);
			if (message == NULL)
				continue;
		}
		if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			print_message(message);
		else if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
		{
			printf("E\t%lld\t%d\t%lld\n", wall_ms(), (int) message->partition,
				   (long long) message->offset);
			fflush(stdout);
			if (!done[message->partition] && all_read(rk, message))
			{
				done[message->partition] = true;
				n_done++;
			}
		}
		else if (message->err != RD_KAFKA_RESP_ERR__TRANSPORT &&
				 message->err != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN &&
				 message->err != RD_KAFKA_RESP_ERR__RESOLVE)
			printf("X\t%lld\t%d\t%s\n", wall_ms(),
				   message->rkt != NULL ? (int) message->partition : -1,
				   rd_kafka_message_errstr(message));
		rd_kafka_message_destroy(message);
	}
	fflush(stdout);
	if (deadline != 0 && n_done < partitions && !stop_requested)
	{
		fprintf(stderr, "reader: %d of %d partitions read completely\n", n_done, partitions);
		_exit(1);
	}
	rd_kafka_consumer_close(rk);
	rd_kafka_destroy(rk);
	return 0;
}
