/*-------------------------------------------------------------------------
 *
 * pace.h
 *	  How large a Kafka transaction may be, and how long to wait after one.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11, part of the relay's state machine.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_PACE_H
#define RELAY_PACE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Pace
{
	int64_t		max_events;		/* the settings */
	int64_t		max_bytes;
	int64_t		events;			/* now: halved after a refusal or a timeout, */
	int64_t		bytes;			/* grown back after each success */

	/*
	 * Of one transaction of the database alone, the same, for this one only:
	 * it is not to be torn when others with it were too much.
	 */
	int64_t		part_events;
	int64_t		part_bytes;
	int			late;			/* time-outs since the last success */

	/*
	 * Pause between the end of a transaction and the first message of the
	 * next: EndTxn answers before the broker has written the commit markers,
	 * and a transaction that begins meanwhile costs librdkafka 20 ms
	 * (doc/LIBRDKAFKA.md, "Transactions").  How long they take depends on the
	 * cluster, so the pause is adapted: one that was too early lengthens it,
	 * each other one shortens it a little, the more the longer it is.  So at
	 * 2 ms one in a hundred may be too early, at 10 ms one in six: a longer
	 * pause costs every transaction.
	 */
	double		settle_us;
} Pace;

extern void pace_init(Pace *pace);
extern void pace_set_limits(Pace *pace, int64_t max_events, int64_t max_bytes);

/*
 * A Kafka transaction of that many events was refused; alone: they are of one
 * transaction of the database.
 */
extern void pace_halve(Pace *pace, int64_t events, bool alone);

/*
 * The same was not finished in time.  Mostly that is Kafka's doing (too few
 * replicas, say), and no reason to tear a transaction of the database: only one of
 * many events that is late again, after Kafka was there in between, is too much.
 */
extern void pace_late(Pace *pace, int64_t events, bool alone);

/* A transaction was committed; early: it met the markers of the former one. */
extern void pace_committed(Pace *pace, bool early);

/* All stands at the end of a transaction of the database. */
extern void pace_whole(Pace *pace);

/* The guilty event is out of the way: full size again. */
extern void pace_recover(Pace *pace);

#endif							/* RELAY_PACE_H */
