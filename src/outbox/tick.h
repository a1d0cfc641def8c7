/*-------------------------------------------------------------------------
 *
 * tick.h
 *	  Ticks: snapshots that cut the outbox into batches.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * All functions here run inside a transaction of the relay's (worker_begin).
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_TICK_H
#define OUTBOX_TICK_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "outbox/snapshot.h"

typedef struct Tick
{
	int64		tick_id;		/* 0: before the first one */
	char		nonce[37];
	TickSnapshot snapshot;		/* malloc'd parts: tick_free */
	int64		confirmed_tick;
	TimestampTz created_at;
} Tick;

extern void tick_free(Tick *tick);

/* The tick of a number; false if there is none.  Tick 0 is always there. */
extern bool tick_find(int64 tick_id, Tick *tick);

/* The lowest tick above a number; false if there is none. */
extern bool tick_next(int64 after, Tick *tick);

/*
 * The newest tick, tick 0 if there is none.  Its confirmed_tick is the highest
 * of all: it never falls from one tick to the next.
 */
extern void tick_newest(Tick *tick);

/*
 * Before a tick is made: outbox.start_lineage() is over or has not begun, and
 * the active snapshot, a new one, sees which.
 */
extern void tick_lock(void);

/* The active snapshot as a tick would have it; false on lack of memory. */
extern bool tick_snapshot_now(TickSnapshot *snapshot);

/*
 * Make a tick if events have become visible since prev (the newest tick);
 * false if there are none, and then nothing is written.  always: also if there
 * are none.  since: when the first of them was noticed, 0 for now, is kept as
 * created_at.  The transaction must be committed synchronously before anything of
 * the tick is committed in Kafka.
 */
extern bool tick_make(const Tick *prev, int64 confirmed_tick, bool always,
					  TimestampTz since, Tick *tick);

/*
 * The same, of what this transaction itself has written and nothing else: the
 * batch holds just that, and all that others have committed since prev comes
 * later.  The tick lists each transaction since prev as in progress, so prev must
 * be near: have at most so many transactions begun since?  True gives this
 * transaction its id.
 */
extern bool tick_is_near(const Tick *prev, uint64 most);
extern bool tick_make_own(const Tick *prev, int64 confirmed_tick, Tick *tick);

#endif							/* OUTBOX_TICK_H */
