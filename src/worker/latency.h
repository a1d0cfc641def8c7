/*-------------------------------------------------------------------------
 *
 * latency.h
 *	  Histograms of latencies, in shared memory.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_LATENCY_H
#define WORKER_LATENCY_H

#include "postgres.h"

#include "shared.h"
#include "utils/timestamp.h"

/* So many events have waited since then, until now (0: not known). */
extern void latency_add(SharedLatency *latency, TimestampTz since, TimestampTz now,
						int64 events);

/*
 * Upper end of a bucket, in seconds: half a millisecond, and each one's is twice
 * that of the one before.  The last one has none; its name is Infinity.
 */
extern double latency_bucket_end(int n);
extern const char *latency_bucket_name(int n);

#endif							/* WORKER_LATENCY_H */
