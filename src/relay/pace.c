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

/* So many events take no Kafka's time: one that works does a thousand times more. */
#define LATE_LEAST			1000

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
	if (pace->part_events <= 0 || pace->part_events > max_events)
		pace->part_events = max_events;
	if (pace->part_bytes <= 0 || pace->part_bytes > max_bytes)
		pace->part_bytes = max_bytes;
}

/* Half of it, but large enough for a small event. */
static int64_t
half_bytes(int64_t bytes)
{
	return bytes > 2048 ? bytes / 2 : bytes;
}

void
pace_halve(Pace *pace, int64_t events, bool alone)
{
	pace->events = events > 1 ? events / 2 : 1;
	pace->bytes = half_bytes(pace->bytes);
	if (alone && events > 1)
	{
		pace->part_events = events / 2;
		pace->part_bytes = half_bytes(pace->part_bytes);
	}
}

void
pace_late(Pace *pace, int64_t events, bool alone)
{
	pace_halve(pace, events, alone && events > LATE_LEAST && pace->late > 0);
	pace->late++;
}

void
pace_whole(Pace *pace)
{
	pace->part_events = pace->max_events;
	pace->part_bytes = pace->max_bytes;
}

void
pace_recover(Pace *pace)
{
	pace->events = pace->part_events = pace->max_events;
	pace->bytes = pace->part_bytes = pace->max_bytes;
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
	pace->late = 0;
	pace->events = grown(pace->events, pace->max_events);
	pace->bytes = grown(pace->bytes, pace->max_bytes);
	pace->part_events = grown(pace->part_events, pace->max_events);
	pace->part_bytes = grown(pace->part_bytes, pace->max_bytes);

	if (early)
		pace->settle_us += LENGTHEN;
	else
		pace->settle_us -= LENGTHEN * (pace->settle_us - SETTLE_LEAST) / SHARE;
	if (pace->settle_us > SETTLE_MOST)
		pace->settle_us = SETTLE_MOST;
}
