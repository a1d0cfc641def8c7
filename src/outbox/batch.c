/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Reading the events between two ticks, in the order of plan.h.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Events are found through the index on (xid, seq) of each segment, by the
 * index access method and not by a planned query: a plan flips as the table
 * grows (seen: 0.02 ms became 300 ms).
 *
 * What is kept of an event is its tuple id, seq and xid.  Segments are
 * insert-only and emptied by TRUNCATE after confirmation, but VACUUM FULL or
 * CLUSTER between two of our transactions gives tuple ids a new meaning.  So a
 * tuple is only taken when it is the event that was planned; else the plan is
 * made again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "mutants.h"
#include "outbox/batch.h"
#include "outbox/relations.h"
#include "outbox/segment.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

struct Batch
{
	MemoryContext context;		/* life of the batch, besides the plan */
	MemoryContext event_context;	/* reset for each event */
	int64		tick_id;
	Plan	   *plan;			/* malloc'd */

	int			open_segment;	/* being read, -1: none */
	Relation	rel;
	BlockNumber blocks;			/* it has at least so many */
	TupleTableSlot *slot;
};

/* ------------------------------------------------------------------------
 * Scanning
 * ------------------------------------------------------------------------
 */

/* One segment's events of low <= xid < high, of low only those behind after. */
static IndexScanDesc
begin_scan(Relation heap, Relation index, const PlanScan *wanted)
{
	ScanKeyData keys[2];
	IndexScanDesc scan;

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_XID8GE,
				UInt64GetDatum(wanted->low));
	ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_XID8LT,
				UInt64GetDatum(wanted->high));
	if (wanted->after > 0)
	{
		/* equal xids let the index go straight to seq */
		Assert(wanted->high == wanted->low + 1);
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_XID8EQ,
					UInt64GetDatum(wanted->low));
		ScanKeyInit(&keys[1], 2, BTGreaterStrategyNumber, F_INT8GT,
					Int64GetDatum(wanted->after));
	}
	scan = compat_index_beginscan(heap, index, GetActiveSnapshot(), lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	return scan;
}

/* A segment that is being scanned. */
typedef struct Scanned
{
	int			segment;		/* -1: none */
	bool		empty;
	Relation	heap;
	Relation	index;
	TupleTableSlot *slot;
} Scanned;

/* lock: AccessShareLock gives the locks back, NoLock keeps them. */
static void
close_scanned(Scanned *scanned, LOCKMODE lock)
{
	if (scanned->segment >= 0 && !scanned->empty)
	{
		ExecDropSingleTupleTableSlot(scanned->slot);
		index_close(scanned->index, lock);
	}
	if (scanned->segment >= 0)
		table_close(scanned->heap, lock);
	scanned->segment = -1;
}

static void
open_scanned(Scanned *scanned, int segment, LOCKMODE lock)
{
	if (scanned->segment == segment)
		return;
	close_scanned(scanned, lock);
	scanned->segment = segment;
	scanned->heap = table_open(outbox_segment_relation(segment), AccessShareLock);
	scanned->empty = RelationGetNumberOfBlocks(scanned->heap) == 0;
	if (!scanned->empty)
	{
		scanned->index = index_open(outbox_segment_index(segment), AccessShareLock);
		scanned->slot = table_slot_create(scanned->heap, NULL);
	}
}

bool
batch_any_event(int only, const XidRange *ranges, size_t n)
{
	Scanned		scanned = {.segment = -1};
	bool		found = false;

	for (int segment = 0; segment < OUTBOX_SEGMENTS && !found; segment++)
	{
		if (only >= 0 && segment != only)
			continue;
		/* the tick that asks may wait for a standby: without our locks */
		open_scanned(&scanned, segment, AccessShareLock);
		for (size_t i = 0; i < n && !found && !scanned.empty; i++)
		{
			PlanScan	wanted = {.low = ranges[i].low, .high = ranges[i].high};
			IndexScanDesc scan = begin_scan(scanned.heap, scanned.index, &wanted);

			found = index_getnext_slot(scan, ForwardScanDirection, scanned.slot);
			index_endscan(scan);
		}
	}
	close_scanned(&scanned, AccessShareLock);
	return found;
}

static void
add_scanned(Plan *plan, Scanned *scanned, const PlanScan *wanted)
{
	TupleTableSlot *slot = scanned->slot;
	IndexScanDesc scan;

	if (scanned->empty)
		return;
	scan = begin_scan(scanned->heap, scanned->index, wanted);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		int64		seq = DatumGetInt64(slot_getattr(slot, EVENT_SEQ + 1, &isnull));
		uint64		xid = DatumGetUInt64(slot_getattr(slot, EVENT_XID + 1, &isnull));

		if (!plan_add(plan, xid, seq, ItemPointerGetBlockNumber(&slot->tts_tid),
					  ItemPointerGetOffsetNumber(&slot->tts_tid)))
			break;
		CHECK_FOR_INTERRUPTS();
	}
	index_endscan(scan);
}

static void
fill(Plan *plan)
{
	Scanned		scanned = {.segment = -1};
	PlanScan	wanted;

	/* as long as the locks are held the tuple ids that are found stay good */
	plan_begin(plan);
	while (plan_scan(plan, &wanted))
	{
		open_scanned(&scanned, wanted.segment, NoLock);
		add_scanned(plan, &scanned, &wanted);
	}
	close_scanned(&scanned, NoLock);
}

/* ------------------------------------------------------------------------
 * A batch
 * ------------------------------------------------------------------------
 */
static void
out_of_memory(void)
{
	ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

Batch *
batch_open(const Tick *prev, const Tick *tick, BatchPlace from)
{
	MemoryContext context;
	Batch	   *batch;
	XidRange   *ranges;
	size_t		n;
	size_t		budget = (size_t) setting_worker_memory * 1024 / 7;

	if (!snapshot_difference(&prev->snapshot, &tick->snapshot, &ranges, &n))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("tick " INT64_FORMAT " is not later than its predecessor",
						tick->tick_id)));
	context = AllocSetContextCreate(TopMemoryContext, "carshop_outbox batch",
									ALLOCSET_SMALL_SIZES);
	batch = MemoryContextAllocZero(context, sizeof(Batch));
	batch->context = context;
	batch->event_context = AllocSetContextCreate(context, "carshop_outbox event",
												 ALLOCSET_DEFAULT_SIZES);
	batch->tick_id = tick->tick_id;
	batch->open_segment = -1;
	batch->plan = plan_make(ranges, n, OUTBOX_SEGMENTS, budget, from);
	free(ranges);
	if (batch->plan == NULL)
		out_of_memory();
	return batch;
}

void
batch_pause(Batch *batch)
{
	if (batch->open_segment >= 0)
	{
		ExecDropSingleTupleTableSlot(batch->slot);
		table_close(batch->rel, AccessShareLock);
		batch->open_segment = -1;
	}
}

void
batch_close(Batch *batch)
{
	batch_pause(batch);
	plan_free(batch->plan);
	MemoryContextDelete(batch->context);
}

static void
vanished(const Batch *batch)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("events of tick " INT64_FORMAT " have vanished", batch->tick_id),
			 errhint("Segments of outbox.event must not be changed by anybody but the extension.")));
}

/* Stand on the next event, false at the end. */
static bool
advance(Batch *batch, PlannedEvent *event)
{
	for (;;)
	{
		switch (plan_next(batch->plan, event))
		{
			case PLAN_EVENT:
				return true;
			case PLAN_END:
				return false;
			case PLAN_LOST:
				vanished(batch);
				break;
			case PLAN_NO_MEMORY:
				out_of_memory();
				break;
			case PLAN_FILL:
				fill(batch->plan);
				break;
		}
	}
}

int64
batch_next_transaction(Batch *batch)
{
	PlannedEvent event;

	return advance(batch, &event) ? plan_left(batch->plan) : 0;
}

static void
open_segment(Batch *batch, int segment)
{
	MemoryContext old;

	if (batch->open_segment == segment)
		return;
	batch_pause(batch);
	old = MemoryContextSwitchTo(batch->context);
	batch->rel = table_open(outbox_segment_relation(segment), AccessShareLock);
	batch->slot = table_slot_create(batch->rel, NULL);
	batch->blocks = 0;
	batch->open_segment = segment;
	MemoryContextSwitchTo(old);
}

/* Fetch the event into the slot.  False: another one stands there, or none. */
static bool
fetch(Batch *batch, const PlannedEvent *event)
{
	ItemPointerData tid;
	bool		isnull;

	open_segment(batch, event->segment);
	ItemPointerSet(&tid, event->block, event->offset);
	if (event->block >= batch->blocks)
		batch->blocks = RelationGetNumberOfBlocks(batch->rel);
	if (event->block >= batch->blocks ||
		!table_tuple_fetch_row_version(batch->rel, &tid, GetActiveSnapshot(), batch->slot))
		return false;
	if (MUTANT("any_tuple"))
		return true;
	return DatumGetInt64(slot_getattr(batch->slot, EVENT_SEQ + 1, &isnull)) == event->seq &&
		DatumGetUInt64(slot_getattr(batch->slot, EVENT_XID + 1, &isnull)) == event->xid;
}

bool
batch_next(Batch *batch, StoredEvent *event)
{
	PlannedEvent planned;
	MemoryContext old;

	memset(event, 0, sizeof(*event));
	for (int attempt = 1;; attempt++)
	{
		if (!advance(batch, &planned))
			return false;
		if (fetch(batch, &planned))
			break;
		/* made anew under a lock that is still held: no other tuple ids */
		if (attempt == 2)
			vanished(batch);
		plan_forget(batch->plan);
	}
	MemoryContextReset(batch->event_context);
	old = MemoryContextSwitchTo(batch->event_context);
	stored_event_read(batch->slot, event);
	MemoryContextSwitchTo(old);
	event->through = planned.through;
	plan_advance(batch->plan);
	return true;
}

TupleTableSlot *
batch_row(const Batch *batch)
{
	return batch->slot;
}
