/*-------------------------------------------------------------------------
 *
 * latency.c
 *	  Histograms of latencies, in shared memory.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/latency.h"

double
latency_bucket_end(int n)
{
	return 0.0005 * (double) ((int64) 1 << n);
}

const char *
latency_bucket_name(int n)
{
	return n == SHARED_BUCKETS - 1 ? "Infinity" : psprintf("%g", latency_bucket_end(n));
}

void
latency_add(SharedLatency *latency, TimestampTz since, TimestampTz now, int64 events)
{
	double		seconds;
	int			n = 0;

	if (events <= 0 || since == 0)
		return;
	/* a clock that was set back makes nothing negative */
	seconds = (double) Max(now - since, 0) / USECS_PER_SEC;
	while (n < SHARED_BUCKETS - 1 && seconds > latency_bucket_end(n))
		n++;
	latency->events[n] += events;
	latency->sum += seconds * (double) events;
}
