/*-------------------------------------------------------------------------
 *
 * pace.c
 *	  How large a Kafka transaction may be, and how long to wait after one.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "relay/pace.h"

#include <string.h>

#define SETTLE_FIRST		2000.0	/* microseconds */
#define SETTLE_LEAST		1500.0
#define SETTLE_MOST			20000.0
#define LENGTHEN			500.0

/* shortened by LENGTHEN * (pause - least) / SHARE: in balance with the above */
#define SHARE				50000.0

void
pace_init(Pace *pace)
{
	memset(pace, 0, sizeof(*pace));
	pace->settle_us = SETTLE_FIRST;
}

void
pace_set_limits(Pace *pace, int64_t max_events, int64_t max_bytes)
{
	pace->max_events = max_events;
	pace->max_bytes = max_bytes;
	if (pace->events <= 0 || pace->events > max_events)
		pace->events = max_events;
	if (pace->bytes <= 0 || pace->bytes > max_bytes)
		pace->bytes = max_bytes;
}

void
pace_halve(Pace *pace, int64_t events)
{
	pace->events = events > 1 ? events / 2 : 1;
	if (pace->bytes > 2048)
		pace->bytes /= 2;
}

void
pace_recover(Pace *pace)
{
	pace->events = pace->max_events;
	pace->bytes = pace->max_bytes;
}

/* Twice as much, within the limit and without overflow. */
static int64_t
grown(int64_t now, int64_t most)
{
	return now < most / 2 ? now * 2 : most;
}

void
pace_committed(Pace *pace, bool early)
{
	pace->events = grown(pace->events, pace->max_events);
	pace->bytes = grown(pace->bytes, pace->max_bytes);

	if (early)
		pace->settle_us += LENGTHEN;
	else
		pace->settle_us -= LENGTHEN * (pace->settle_us - SETTLE_LEAST) / SHARE;
	if (pace->settle_us > SETTLE_MOST)
		pace->settle_us = SETTLE_MOST;
}
