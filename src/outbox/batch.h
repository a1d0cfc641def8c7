/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Reading the events between two ticks.
 *
 * Order.  Within a batch whole transactions follow each other, ordered by
 * their last seq, and inside a transaction events are ordered by seq.  For
 * changes under a common lock this is the order of commit: the second writer
 * draws its seq after the first one has committed, hence after all of the
 * first one's seqs.  Sorting single events by seq would be right for a key as
 * well, but then a batch could not be cut without tearing transactions apart.
 *
 * A place in a batch: xid = the transaction read last, through = its last seq,
 * seq = its last event read.  seq == through means that the transaction is
 * complete.  All zero is the beginning.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_BATCH_H
#define OUTBOX_BATCH_H

#include "postgres.h"

#include "outbox/envelope.h"
#include "outbox/tick.h"

typedef struct BatchPlace
{
	int64		through;
	int64		seq;
	uint64		xid;
} BatchPlace;

/* One header of an event, in UTF-8. */
typedef struct EventHeader
{
	const char *name;			/* NUL-terminated */
	const char *value;
	size_t		value_len;
} EventHeader;

/* An event as read; texts in UTF-8, valid until the next one is read. */
typedef struct StoredEvent
{
	int64		seq;
	int64		through;		/* last seq of its transaction */
	uint64		xid;
	WireEvent	wire;			/* source is left to the caller */
	const char *topic;			/* NULL: the default */
	const char *traceparent;	/* NULL: none */
	int			n_headers;
	const EventHeader *headers;
	const char *problem;
} StoredEvent;

typedef struct Batch Batch;

/*
 * Plan the batch between two ticks from a place on.  Runs in a transaction
 * with an active snapshot; the plan itself stays valid over transactions (in
 * malloc'd memory of about worker_memory / 4 at most: a larger batch is
 * planned in pieces, which the caller does not notice).
 */
extern Batch *batch_open(const Tick *prev, const Tick *tick, BatchPlace from);
extern void batch_close(Batch *batch);

/* Events still to be read of the transaction that comes next; 0: the end. */
extern int64 batch_next_transaction(Batch *batch);

/*
 * The next event, false at the end of the batch.  Needs a transaction, which
 * may be another one for each call; call batch_pause before it ends.
 * Everything in event is palloc'd in a context of the batch that the next
 * call resets.
 */
extern bool batch_next(Batch *batch, StoredEvent *event);

/* Close relations and scans before the transaction ends. */
extern void batch_pause(Batch *batch);

/* Is any event visible in the active snapshot among these transactions? */
extern bool batch_any_event(const XidRange *ranges, size_t n);

#endif							/* OUTBOX_BATCH_H */
