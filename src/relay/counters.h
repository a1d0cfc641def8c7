/*-------------------------------------------------------------------------
 *
 * counters.h
 *	  What the relay counts beside its work: failures by cause, time by state.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The numbers stand in shared memory (RelayReport) and go on where the former
 * process of this relay left them; outbox.stat_reset() and a start of the server
 * begin anew.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_COUNTERS_H
#define RELAY_COUNTERS_H

#include "postgres.h"

#include "kafka/kafka.h"
#include "relay/machine.h"
#include "shared.h"

extern void counters_failure(RelayCounters *counters, KafkaOutcome outcome);

/* The relay is at this, from now on (microseconds, monotonic). */
extern void counters_state(RelayCounters *counters, RelayShown state, int64 now);

/* Names for the views; NULL beyond the last one. */
extern const char *counters_failure_name(int n);
extern const char *counters_state_name(int n);

#endif							/* RELAY_COUNTERS_H */
