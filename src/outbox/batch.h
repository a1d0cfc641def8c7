/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Reading the events between two ticks, in the order of plan.h.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_BATCH_H
#define OUTBOX_BATCH_H

#include "postgres.h"

#include "outbox/plan.h"
#include "outbox/stored.h"
#include "outbox/tick.h"

typedef struct Batch Batch;

/*
 * The batch between two ticks from a place on.  It stays valid over
 * transactions and takes about worker_memory / 4 at most, whatever stands
 * between the ticks; none until the first call of batch_next_transaction.
 * Raises ERRCODE_DATA_CORRUPTED unless tick is later than prev.
 */
extern Batch *batch_open(const Tick *prev, const Tick *tick, BatchPlace from);
extern void batch_close(Batch *batch);

/*
 * The following need a transaction with an active snapshot that is not older
 * than the tick, which may be another one for each call; call batch_pause
 * before it ends.  They take ACCESS SHARE on segments.
 */

/* Events still to be read of the transaction that comes next; 0: the end. */
extern int64 batch_next_transaction(Batch *batch);

/*
 * The next event, false at the end of the batch.  Everything in event is
 * palloc'd in a context of the batch that the next call resets.  Raises
 * ERRCODE_DATA_CORRUPTED when an event is not there any more.
 */
extern bool batch_next(Batch *batch, StoredEvent *event);

/* The row of the event that batch_next has given last; until its next call. */
extern TupleTableSlot *batch_row(const Batch *batch);

/* Close relations and scans before the transaction ends. */
extern void batch_pause(Batch *batch);

/*
 * Is any event visible in the active snapshot among these transactions?  In one
 * segment only, or in any of them (-1).
 */
extern bool batch_any_event(int only, const XidRange *ranges, size_t n);

#endif							/* OUTBOX_BATCH_H */
