/*-------------------------------------------------------------------------
 *
 * counters.c
 *	  What the relay counts beside its work: failures by cause, time by state.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "relay/counters.h"
#include "utils/timestamp.h"

StaticAssertDecl(RELAY_SHOWN_STATES == SHARED_STATES, "time is counted of each state");

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
