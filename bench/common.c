/*-------------------------------------------------------------------------
 *
 * common.c
 *	  What the benchmark programs share.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common.h"

#define METADATA_MS		10000

void
fail(const char *format, ...)
{
	va_list		args;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void
sleep_until(int64_t when)
{
	struct timespec ts = {.tv_sec = when / 1000000, .tv_nsec = when % 1000000 * 1000};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

void
samples_add(Samples *samples, double value)
{
	if (samples->n == samples->room)
	{
		samples->room = samples->room ? samples->room * 2 : 1024;
		samples->values = realloc(samples->values, samples->room * sizeof(double));
		if (samples->values == NULL)
			fail("out of memory");
	}
	samples->values[samples->n++] = value;
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

double
samples_share(Samples *samples, double share)
{
	size_t		rank;

	if (samples->n == 0)
		return NAN;
	qsort(samples->values, samples->n, sizeof(double), compare_doubles);
	rank = (size_t) ceil(share * (double) samples->n);
	return samples->values[rank > 0 ? rank - 1 : 0];
}

void
samples_print(Samples *samples, FILE *out, const char *name)
{
	fprintf(out, "result %s_p50 %.2f\n", name, samples_share(samples, 0.50));
	fprintf(out, "result %s_p95 %.2f\n", name, samples_share(samples, 0.95));
	fprintf(out, "result %s_p99 %.2f\n", name, samples_share(samples, 0.99));
	fprintf(out, "result %s_max %.2f\n", name, samples_share(samples, 1.00));
}

void
conf_set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[256];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
		fail("%s", error);
}

static int
count_partitions(rd_kafka_t *rk, const char *topic)
{
	rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t code;
	int			n;

	code = rd_kafka_metadata(rk, 0, rkt, &metadata, METADATA_MS);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail("metadata: %s", rd_kafka_err2str(code));
	if (metadata->topic_cnt != 1 ||
		metadata->topics[0].err != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail("there is no topic %s", topic);
	n = metadata->topics[0].partition_cnt;
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(rkt);
	return n;
}

rd_kafka_t *
reader_open(const char *brokers, const char *topic, bool from_beginning)
{
	char		error[256];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *reader;
	rd_kafka_topic_partition_list_t *assignment;
	int			n;

	conf_set(conf, "bootstrap.servers", brokers);
	conf_set(conf, "client.id", "carshop-bench-reader");
	conf_set(conf, "group.id", "carshop-bench-reader"); /* never joined */
	conf_set(conf, "isolation.level", "read_committed");
	conf_set(conf, "auto.offset.reset", "error");
	conf_set(conf, "enable.auto.commit", "false");
	conf_set(conf, "enable.auto.offset.store", "false");
	conf_set(conf, "fetch.wait.max.ms", "100");
	conf_set(conf, "log_level", "3");
	reader = rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof(error));
	if (reader == NULL)
		fail("%s", error);
	rd_kafka_poll_set_consumer(reader);

	n = count_partitions(reader, topic);
	assignment = rd_kafka_topic_partition_list_new(n);
	for (int i = 0; i < n; i++)
	{
		int64_t		low = 0;
		int64_t		high = 0;
		rd_kafka_resp_err_t code;

		/* a logical "end" would be looked up at some later moment */
		code = rd_kafka_query_watermark_offsets(reader, topic, i, &low, &high, METADATA_MS);
		if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
			fail("offsets of %s: %s", topic, rd_kafka_err2str(code));
		rd_kafka_topic_partition_list_add(assignment, topic, i)->offset =
			from_beginning ? low : high;
	}
	if (rd_kafka_assign(reader, assignment) != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail("could not assign %s", topic);
	rd_kafka_topic_partition_list_destroy(assignment);
	return reader;
}

rd_kafka_message_t *
reader_next(rd_kafka_t *reader, int timeout_ms)
{
	rd_kafka_message_t *message = rd_kafka_consumer_poll(reader, timeout_ms);

	if (message != NULL && message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail("reader: %s", rd_kafka_message_errstr(message));
	return message;
}
