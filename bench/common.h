/*-------------------------------------------------------------------------
 *
 * common.h
 *	  What the benchmark programs share: clock, samples, a read_committed
 *	  reader of one topic.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <librdkafka/rdkafka.h>

extern void fail(const char *format, ...)
			__attribute__((format(printf, 1, 2), noreturn));

/* ---- time ---- */

/* Microseconds of a clock that never jumps. */
extern int64_t now_us(void);

/* Sleep until then; returns at once if that is past. */
extern void sleep_until(int64_t when);

/* ---- samples ---- */

typedef struct Samples
{
	double	   *values;
	size_t		n;
	size_t		room;
} Samples;

extern void samples_add(Samples *samples, double value);

/* The value that a share (0.5: the median) does not exceed; NAN without any. */
extern double samples_share(Samples *samples, double share);

/* "result NAME_p50 ...", p95, p99 and max, one line each. */
extern void samples_print(Samples *samples, FILE *out, const char *name);

/* ---- Kafka ---- */

extern void conf_set(rd_kafka_conf_t *conf, const char *name, const char *value);

/*
 * Reads every partition of a topic, which must exist, with read_committed: from
 * its beginning or from its end as of now.
 */
extern rd_kafka_t *reader_open(const char *brokers, const char *topic,
							   bool from_beginning);

/* The next message within so many milliseconds, or NULL; fails on an error. */
extern rd_kafka_message_t *reader_next(rd_kafka_t *reader, int timeout_ms);

#endif							/* BENCH_COMMON_H */
