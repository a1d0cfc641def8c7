/*-------------------------------------------------------------------------
 *
 * counters.c
 *	  What the relay counts beside its work: latencies, failures by cause, time
 *	  by state.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "relay/counters.h"
#include "utils/timestamp.h"

StaticAssertDecl(RELAY_SHOWN_STATES == SHARED_STATES, "time is counted of each state");

/* The first bucket ends at half a millisecond, each further one at twice that. */
double
counters_bucket_end(int n)
{
	return 0.0005 * (double) ((int64) 1 << n);
}

void
counters_latency(RelayCounters *counters, TimestampTz since, int64 events)
{
	double		seconds;
	int			n = 0;

	if (events <= 0 || since == 0)
		return;
	/* a clock that was set back makes nothing negative */
	seconds = (double) Max(GetCurrentTimestamp() - since, 0) / USECS_PER_SEC;
	while (n < SHARED_BUCKETS - 1 && seconds > counters_bucket_end(n))
		n++;
	counters->latency[n] += events;
	counters->latency_sum += seconds * (double) events;
}

void
counters_failure(RelayCounters *counters, KafkaOutcome outcome)
{
	if (outcome != KAFKA_OK && outcome != KAFKA_PENDING && (int) outcome < SHARED_CAUSES)
		counters->failures[outcome]++;
}

void
counters_state(RelayCounters *counters, RelayShown state, int64 now)
{
	/* of a process that has ended no time is counted */
	if (counters->state >= 0 && counters->state_since_us != 0)
		counters->state_us[counters->state] += now - counters->state_since_us;
	counters->state = (int) state;
	counters->state_since_us = now;
	counters->at = GetCurrentTimestamp();
}

const char *
counters_failure_name(int n)
{
	return n < SHARED_CAUSES ? kafka_outcome_name((KafkaOutcome) n) : NULL;
}

const char *
counters_state_name(int n)
{
	return n < SHARED_STATES ? relay_shown_name((RelayShown) n) : NULL;
}
