/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Reading the events between two ticks.
 *
 * The batch is found through the index on (xid, seq) of each segment, by the
 * index access method and not by a planned query: a plan flips as the table
 * grows (seen: 0.02 ms became 300 ms).  Planning collects for each transaction
 * a run of tuple ids, visible ones only; the runs are then sorted by the last
 * seq of their transaction.  Tuple ids stay valid between transactions because
 * segments are insert-only and emptied by TRUNCATE after confirmation.
 *
 * Memory: at most entry_cap tuple ids of 16 bytes.  When there are more, the
 * transactions with the highest last seq are dropped again and planned later
 * ("more"); of a transaction that alone exceeds half the cap only the first
 * part is kept ("truncated").  So a backlog costs a few passes over its index
 * entries and never more memory.
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
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "outbox/batch.h"
#include "outbox/relations.h"
#include "outbox/segment.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/xid8.h"

typedef struct Entry
{
	int64		seq;
	ItemPointerData tid;
} Entry;

/* Events of one transaction in one segment. */
typedef struct Run
{
	uint64		xid;
	int64		first;			/* lowest seq */
	int64		through;		/* highest seq of the transaction */
	uint32		start;			/* in entries */
	uint32		count;
	int64		left;			/* events that are not kept: truncated */
	uint8		segment;
} Run;

struct Batch
{
	MemoryContext context;		/* life of the batch */
	MemoryContext event_context;	/* reset for each event */
	Tick		prev;			/* only the snapshots are used */
	Tick		tick;
	BatchPlace	place;

	Entry	   *entries;
	uint32		n_entries;
	uint32		entry_cap;
	Run		   *runs;
	uint32		n_runs;
	uint32		run_room;
	bool		more;			/* transactions behind bound were dropped */
	int64		bound;

	uint32		run;			/* being read */
	uint32		entry;			/* next of it */

	int			open_segment;	/* -1: none */
	Relation	rel;
	TupleTableSlot *slot;
};

/* Scan one range of one segment's index. */
static IndexScanDesc
begin_range(Relation heap, Relation index, const XidRange *range)
{
	ScanKeyData keys[2];
	IndexScanDesc scan;

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_XID8GE,
				UInt64GetDatum(range->low));
	ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_XID8LT,
				UInt64GetDatum(range->high));
	scan = compat_index_beginscan(heap, index, GetActiveSnapshot(), 2);
	index_rescan(scan, keys, 2, NULL, 0);
	return scan;
}

bool
batch_any_event(const XidRange *ranges, size_t n)
{
	bool		found = false;

	for (int segment = 0; segment < OUTBOX_SEGMENTS && !found; segment++)
	{
		Relation	heap = table_open(outbox_segment_relation(segment),
									  AccessShareLock);

		if (RelationGetNumberOfBlocks(heap) > 0)
		{
			Relation	index = index_open(outbox_segment_index(segment),
										   AccessShareLock);
			TupleTableSlot *slot = table_slot_create(heap, NULL);

			for (size_t i = 0; i < n && !found; i++)
			{
				IndexScanDesc scan = begin_range(heap, index, &ranges[i]);

				found = index_getnext_slot(scan, ForwardScanDirection, slot);
				index_endscan(scan);
			}
			ExecDropSingleTupleTableSlot(slot);
			index_close(index, AccessShareLock);
		}
		table_close(heap, AccessShareLock);
	}
	return found;
}

static int
compare_by_xid(const void *a, const void *b)
{
	const Run  *left = a;
	const Run  *right = b;

	if (left->xid != right->xid)
		return left->xid < right->xid ? -1 : 1;
	return left->first < right->first ? -1 : left->first > right->first;
}

static int
compare_by_through(const void *a, const void *b)
{
	const Run  *left = a;
	const Run  *right = b;

	if (left->through != right->through)
		return left->through < right->through ? -1 : 1;
	return left->first < right->first ? -1 : left->first > right->first;
}

/*
 * Too many entries: keep the runs with the lowest last seq, half of the cap.
 * What is dropped has a higher last seq than bound, also when its transaction
 * turns out to go on in another segment; finish_plan drops the kept runs whose
 * transaction does.  The run that is still growing (the last one) stays last.
 */
static void
prune(Batch *batch)
{
	Run			growing = batch->runs[batch->n_runs - 1];
	Entry	   *kept;
	uint32		used = 0;
	uint32		n = 0;

	qsort(batch->runs, batch->n_runs - 1, sizeof(Run), compare_by_through);
	kept = MemoryContextAllocHuge(batch->context,
								  sizeof(Entry) * batch->entry_cap);
	while (n < batch->n_runs - 1 &&
		   (n == 0 || used + batch->runs[n].count <= batch->entry_cap / 4))
	{
		Run		   *run = &batch->runs[n++];

		memcpy(kept + used, batch->entries + run->start, sizeof(Entry) * run->count);
		run->start = used;
		used += run->count;
		if (run->left > 0)
			break;				/* nothing is read behind a truncated run */
	}
	if (n < batch->n_runs - 1)
	{
		int64		first_dropped = batch->runs[n].through;

		if (!batch->more || first_dropped - 1 < batch->bound)
			batch->bound = first_dropped - 1;
		batch->more = true;
	}
	memcpy(kept + used, batch->entries + growing.start,
		   sizeof(Entry) * growing.count);
	growing.start = used;
	used += growing.count;
	batch->runs[n++] = growing;
	batch->n_runs = n;
	batch->n_entries = used;
	pfree(batch->entries);
	batch->entries = kept;
}

static void
add_event(Batch *batch, int segment, uint64 xid, int64 seq, ItemPointer tid)
{
	Run		   *run = batch->n_runs > 0 ? &batch->runs[batch->n_runs - 1] : NULL;

	if (xid == batch->place.xid && seq <= batch->place.seq)
		return;
	if (run == NULL || run->xid != xid || run->segment != segment)
	{
		if (batch->n_runs == batch->run_room)
		{
			batch->run_room *= 2;
			batch->runs = repalloc_huge(batch->runs, sizeof(Run) * batch->run_room);
		}
		run = &batch->runs[batch->n_runs++];
		memset(run, 0, sizeof(*run));
		run->xid = xid;
		run->first = seq;
		run->start = batch->n_entries;
		run->segment = segment;
	}
	run->through = seq;
	if (run->left > 0 || run->count >= batch->entry_cap / 2)
	{
		run->left++;
		return;
	}
	if (batch->n_entries == batch->entry_cap)
	{
		prune(batch);
		run = &batch->runs[batch->n_runs - 1];
	}
	batch->entries[batch->n_entries].seq = seq;
	batch->entries[batch->n_entries].tid = *tid;
	batch->n_entries++;
	run->count++;
}

static void
scan_segment(Batch *batch, int segment, const XidRange *ranges, size_t n)
{
	Relation	heap = table_open(outbox_segment_relation(segment),
								  AccessShareLock);

	if (RelationGetNumberOfBlocks(heap) > 0)
	{
		Relation	index = index_open(outbox_segment_index(segment),
									   AccessShareLock);
		TupleTableSlot *slot = table_slot_create(heap, NULL);

		for (size_t i = 0; i < n; i++)
		{
			IndexScanDesc scan = begin_range(heap, index, &ranges[i]);

			while (index_getnext_slot(scan, ForwardScanDirection, slot))
			{
				bool		isnull;
				int64		seq = DatumGetInt64(slot_getattr(slot, EVENT_SEQ + 1, &isnull));
				uint64		xid = DatumGetUInt64(slot_getattr(slot, EVENT_XID + 1, &isnull));

				add_event(batch, segment, xid, seq, &slot->tts_tid);
				CHECK_FOR_INTERRUPTS();
			}
			index_endscan(scan);
		}
		ExecDropSingleTupleTableSlot(slot);
		index_close(index, AccessShareLock);
	}
	table_close(heap, AccessShareLock);
}

/* Join the runs of one transaction, order all, and drop what is done. */
static void
finish_plan(Batch *batch)
{
	uint32		n = 0;

	qsort(batch->runs, batch->n_runs, sizeof(Run), compare_by_xid);
	for (uint32 i = 0; i < batch->n_runs;)
	{
		uint32		end = i + 1;
		int64		through = batch->runs[i].through;

		for (; end < batch->n_runs && batch->runs[end].xid == batch->runs[i].xid; end++)
			through = Max(through, batch->runs[end].through);
		for (; i < end; i++)
			batch->runs[i].through = through;
	}
	for (uint32 i = 0; i < batch->n_runs; i++)
	{
		Run		   *run = &batch->runs[i];

		if (batch->more && run->through > batch->bound)
			continue;
		if (run->through < batch->place.through ||
			(run->through == batch->place.through && run->xid != batch->place.xid))
			continue;
		batch->runs[n++] = *run;
	}
	batch->n_runs = n;
	qsort(batch->runs, batch->n_runs, sizeof(Run), compare_by_through);
}

static void
make_plan(Batch *batch)
{
	XidRange   *ranges;
	size_t		n;

	batch->n_entries = 0;
	batch->n_runs = 0;
	batch->more = false;
	batch->bound = 0;
	batch->run = 0;
	batch->entry = 0;
	if (!snapshot_difference(&batch->prev.snapshot, &batch->tick.snapshot,
							 &ranges, &n))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("tick " INT64_FORMAT " is not later than its predecessor",
						batch->tick.tick_id)));
	for (int segment = 0; segment < OUTBOX_SEGMENTS; segment++)
		scan_segment(batch, segment, ranges, n);
	free(ranges);
	finish_plan(batch);
}

static void
copy_snapshot(TickSnapshot *to, const TickSnapshot *from)
{
	*to = *from;
	to->xip = NULL;
	if (from->nxip > 0)
	{
		to->xip = palloc(sizeof(uint64_t) * from->nxip);
		memcpy(to->xip, from->xip, sizeof(uint64_t) * from->nxip);
	}
}

Batch *
batch_open(const Tick *prev, const Tick *tick, BatchPlace from)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "carshop_outbox batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Batch	   *batch = palloc0(sizeof(Batch));

	batch->context = context;
	batch->event_context = AllocSetContextCreate(context,
												 "carshop_outbox event",
												 ALLOCSET_DEFAULT_SIZES);
	batch->prev.tick_id = prev->tick_id;
	copy_snapshot(&batch->prev.snapshot, &prev->snapshot);
	batch->tick.tick_id = tick->tick_id;
	copy_snapshot(&batch->tick.snapshot, &tick->snapshot);
	batch->place = from;
	batch->open_segment = -1;

	/* prune() needs room for two arrays for a moment */
	batch->entry_cap = Max((uint32) ((int64) setting_worker_memory * 1024 / 8 /
									 sizeof(Entry)), 1024);
	batch->entries = MemoryContextAllocHuge(context,
											sizeof(Entry) * batch->entry_cap);
	batch->run_room = 64;
	batch->runs = palloc(sizeof(Run) * batch->run_room);
	MemoryContextSwitchTo(old);
	make_plan(batch);
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
	MemoryContextDelete(batch->context);
}

/*
 * A transaction that goes on in another segment was dropped as a whole, and
 * nothing is left: only more room helps.
 */
static void
grow(Batch *batch)
{
	batch->entry_cap *= 2;
	pfree(batch->entries);
	batch->entries = MemoryContextAllocHuge(batch->context,
											sizeof(Entry) * batch->entry_cap);
}

/* Stand on the next entry, planning again where the plan was cut. */
static bool
advance(Batch *batch)
{
	for (;;)
	{
		Run		   *run;

		if (batch->run >= batch->n_runs)
		{
			if (!batch->more)
				return false;
			make_plan(batch);
			if (batch->n_runs == 0 && batch->more)
				grow(batch);
			continue;
		}
		run = &batch->runs[batch->run];
		if (batch->entry < run->count)
			return true;
		if (run->left > 0)
		{
			make_plan(batch);
			continue;
		}
		batch->run++;
		batch->entry = 0;
	}
}

int64
batch_next_transaction(Batch *batch)
{
	int64		n = 0;

	if (!advance(batch))
		return 0;
	for (uint32 i = batch->run; i < batch->n_runs &&
		 batch->runs[i].xid == batch->runs[batch->run].xid; i++)
		n += batch->runs[i].count - (i == batch->run ? batch->entry : 0) +
			batch->runs[i].left;
	return n;
}

/* A text column as UTF-8; not NUL-terminated. */
static TextSlice
read_text(TupleTableSlot *slot, int column)
{
	TextSlice	slice = {0};
	text	   *value;
	char	   *copy;

	if (slot->tts_isnull[column])
		return slice;
	value = DatumGetTextPP(slot->tts_values[column]);
	copy = pg_server_to_any(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), PG_UTF8);
	if (copy == VARDATA_ANY(value))
	{
		slice.data = copy;
		slice.len = VARSIZE_ANY_EXHDR(value);
	}
	else
	{
		slice.data = copy;
		slice.len = strlen(copy);
	}
	return slice;
}

static char *
read_cstring(TupleTableSlot *slot, int column)
{
	TextSlice	slice = read_text(slot, column);

	return slice.data ? pnstrdup(slice.data, slice.len) : NULL;
}

static void
read_headers(TupleTableSlot *slot, StoredEvent *event)
{
	Jsonb	   *headers;
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	EventHeader *out;

	if (slot->tts_isnull[EVENT_HEADERS])
		return;
	headers = DatumGetJsonbP(slot->tts_values[EVENT_HEADERS]);
	out = palloc0(sizeof(EventHeader) * (JB_ROOT_COUNT(headers) + 1));
	event->headers = out;
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			out[event->n_headers].name =
				pg_server_to_any(pnstrdup(value.val.string.val, value.val.string.len),
								 value.val.string.len, PG_UTF8);
		else if (token == WJB_VALUE && value.type == jbvString)
		{
			char	   *copy = pnstrdup(value.val.string.val, value.val.string.len);

			copy = pg_server_to_any(copy, value.val.string.len, PG_UTF8);
			out[event->n_headers].value = copy;
			out[event->n_headers].value_len = strlen(copy);
			event->n_headers++;
		}
	}
}

static void
read_event(TupleTableSlot *slot, StoredEvent *event)
{
	TextSlice	format;
	pg_uuid_t  *id;

	slot_getallattrs(slot);
	event->seq = DatumGetInt64(slot->tts_values[EVENT_SEQ]);
	id = DatumGetUUIDP(slot->tts_values[EVENT_ID]);
	memcpy(event->wire.id, id->data, UUID_LEN);
	event->wire.occurred_at = DatumGetTimestampTz(slot->tts_values[EVENT_OCCURRED_AT]) +
		(int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	event->wire.type = read_text(slot, EVENT_TYPE);
	event->wire.key = read_text(slot, EVENT_AGGREGATEID);
	event->wire.payload = read_text(slot, EVENT_PAYLOAD);
	event->wire.description = read_text(slot, EVENT_DESCRIPTION);
	event->topic = read_cstring(slot, EVENT_TOPIC);
	event->traceparent = read_cstring(slot, EVENT_TRACEPARENT);
	format = read_text(slot, EVENT_FORMAT);
	if (!wire_format_parse(format.data, format.len, &event->wire.format))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("event " INT64_FORMAT " has an unknown format", event->seq)));
	if (!slot->tts_isnull[EVENT_VALUE])
	{
		bytea	   *value = DatumGetByteaPP(slot->tts_values[EVENT_VALUE]);

		event->wire.value.data = VARDATA_ANY(value);
		event->wire.value.len = VARSIZE_ANY_EXHDR(value);
	}
	read_headers(slot, event);
}

bool
batch_next(Batch *batch, StoredEvent *event)
{
	Run		   *run;
	Entry	   *entry;
	MemoryContext old;

	memset(event, 0, sizeof(*event));
	if (!advance(batch))
		return false;
	run = &batch->runs[batch->run];
	entry = &batch->entries[run->start + batch->entry];

	MemoryContextReset(batch->event_context);
	if (batch->open_segment != run->segment)
	{
		batch_pause(batch);
		old = MemoryContextSwitchTo(batch->context);
		batch->rel = table_open(outbox_segment_relation(run->segment),
								AccessShareLock);
		batch->slot = table_slot_create(batch->rel, NULL);
		batch->open_segment = run->segment;
		MemoryContextSwitchTo(old);
	}

	if (!table_tuple_fetch_row_version(batch->rel, &entry->tid,
									   GetActiveSnapshot(), batch->slot))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("event " INT64_FORMAT " of tick " INT64_FORMAT " has vanished",
						entry->seq, batch->tick.tick_id),
				 errhint("Segments of outbox.event must not be changed by anybody but the extension.")));
	old = MemoryContextSwitchTo(batch->event_context);
	read_event(batch->slot, event);
	MemoryContextSwitchTo(old);
	event->xid = run->xid;
	event->through = run->through;

	batch->place.xid = run->xid;
	batch->place.through = run->through;
	batch->place.seq = entry->seq;
	batch->entry++;
	return true;
}
