/*-------------------------------------------------------------------------
 *
 * tidy.c
 *	  What is in Kafka leaves the outbox: segments are switched, settled and
 *	  emptied, ticks are rotated.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A segment's life
 *
 *	 current	writers choose it, until it is a period old (half of retention) or
 *				large, and the next one is empty
 *	 former		transactions that have chosen it go on in it
 *	 settled	SHARE was to be had, so all its writers have ended, prepared ones
 *				too: each holds ROW EXCLUSIVE to its end, and none comes any more.
 *				All that a snapshot taken after that sees of it, the newest
 *				confirmed tick sees, too.  Now retention begins.
 *	 empty		ACCESS EXCLUSIVE was to be had, and the same was true once more
 *
 * The proof asks for the events themselves, through the index.  A horizon
 * (highest xid in it < xmin) would wait for every transaction that happens to be
 * open, and "the first tick after the last writer" for a tick that an idle shop
 * does not make.
 *
 * Which segment is current is asked of the table and of shared memory, and
 * neither is touched: between the commit of a switch and its callback the table
 * names the new one, while writers still choose the old one.
 *
 * Emptying gives the table and its index a new file, as TRUNCATE does, without
 * TRUNCATE's record for logical decoding: a subscriber of FOR ALL TABLES would
 * carry it out (ExecuteTruncateGuts in tablecmds.c).  With three segments and a
 * period of half of retention about 1.5 times of what comes in retention is kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/heaptoast.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "fault.h"
#include "mutants.h"
#include "outbox/batch.h"
#include "outbox/lineage.h"
#include "outbox/relations.h"
#include "outbox/segment.h"
#include "outbox/tick.h"
#include "outbox/tidy.h"
#include "pgstat.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define PERIOD_LEAST_MS		IN_HASTE(5000, 300) /* between two switches by age */
#define LARGE_BLOCKS		(256 * 1024 * 1024 / BLCKSZ)
#define TICKS_LARGE_BLOCKS	(2 * 1024 * 1024 / BLCKSZ)
#define TICKS_SMALL_BLOCKS	IN_HASTE(2, 1)
#define TICKS_LEAST			IN_HASTE(1, 5)	/* that leave, or it is not worth
											 * it */

/* Of some dead letter's event the segment may be gone; not known at a start. */
static bool letters_due = true;

typedef struct SegmentState
{
	BlockNumber blocks;			/* 0: empty */
	TimestampTz opened_at;		/* when it became current */
	TimestampTz settled_at;		/* 0: it is not */
} SegmentState;

/* Between two switches, and two rotations of ticks. */
static int64
period_ms(void)
{
	return Max((int64) setting_retention * 1000 / 2, PERIOD_LEAST_MS);
}

static int64
ms_since(TimestampTz at, TimestampTz now)
{
	return (now - at) / 1000;
}

static BlockNumber
blocks_of(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	table_close(rel, AccessShareLock);
	return blocks;
}

static void
execute(const char *query, int n, Oid *types, Datum *values, int expected)
{
	if (SPI_execute_with_args(query, n, types, values, NULL, false, 0) != expected)
		elog(ERROR, "could not run \"%s\"", query);
}

/* --- the segments' states --- */

/* False: somebody else has a segment locked; nothing is waited for. */
static bool
read_states(SegmentState *states)
{
	memset(states, 0, sizeof(SegmentState) * OUTBOX_SEGMENTS);
	for (int i = 0; i < OUTBOX_SEGMENTS; i++)
	{
		Oid			relid = outbox_segment_relation(i);

		if (!ConditionalLockRelationOid(relid, AccessShareLock))
			return false;
		states[i].blocks = blocks_of(relid);
		UnlockRelationOid(relid, AccessShareLock);
	}
	if (SPI_execute("SELECT segment, opened_at, settled_at FROM outbox.segment",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read outbox.segment");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		int			segment = DatumGetInt16(SPI_getbinval(row, desc, 1, &isnull));
		Datum		at;

		if (segment < 0 || segment >= OUTBOX_SEGMENTS)
			continue;
		states[segment].opened_at = DatumGetTimestampTz(SPI_getbinval(row, desc, 2, &isnull));
		at = SPI_getbinval(row, desc, 3, &isnull);
		if (!isnull)
			states[segment].settled_at = DatumGetTimestampTz(at);
	}
	return true;
}

static void
set_settled(int segment, const char *value)
{
	Oid			types[1] = {INT2OID};
	Datum		values[1];

	values[0] = Int16GetDatum(segment);
	execute(psprintf("UPDATE outbox.segment SET settled_at = %s"
					 " WHERE segment OPERATOR(pg_catalog.=) $1", value),
			1, types, values, SPI_OK_UPDATE);
}

/*
 * Everything in it is in Kafka.  The caller has a lock that keeps writers out;
 * the snapshot is newer than that.
 */
static bool
is_confirmed(int segment, int64 confirmed)
{
	Tick		tick;
	TickSnapshot now;
	XidRange   *ranges = NULL;
	size_t		n = 0;
	bool		any = true;

	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (MUTANT("empty_unconfirmed"))
		return true;
	if (!tick_find(confirmed, &tick))
		return false;
	if (!tick_snapshot_now(&now))
		elog(ERROR, "out of memory");
	if (snapshot_difference(&tick.snapshot, &now, &ranges, &n))
		any = batch_any_event(segment, ranges, n);
	free(ranges);
	snapshot_free(&now);
	tick_free(&tick);
	return !any;
}

/* --- new files --- */

/*
 * Throw away what is in the table, but these tuples, which everybody sees from
 * now on, whatever their snapshot.  The caller has ACCESS EXCLUSIVE.
 */
static void
rewrite(Relation rel, HeapTuple *keep, int n)
{
	Oid			toast = rel->rd_rel->reltoastrelid;

	compat_new_file(rel);
	if (OidIsValid(toast))
	{
		Relation	toast_rel = table_open(toast, AccessExclusiveLock);

		compat_new_file(toast_rel);
		table_close(toast_rel, NoLock);
	}

	/*
	 * before the inserts: a large value is put into the TOAST table's index
	 * at once
	 */
	FAULT_POINT("file_replaced");
	compat_reindex_table(RelationGetRelid(rel));
	for (int i = 0; i < n; i++)
		heap_insert(rel, keep[i], GetCurrentCommandId(true),
					HEAP_INSERT_FROZEN | HEAP_INSERT_NO_LOGICAL, NULL);
	if (n > 0)
	{
		CommandCounterIncrement();
		compat_reindex_table(RelationGetRelid(rel));
	}
	pgstat_count_truncate(rel);
}

/* --- the steps --- */

/*
 * What is confirmed, as the table shall have it from now on: whoever begins
 * another lineage later must not want what has gone.  One that has begun already
 * may want more than ours, which has not noticed yet, has published: then
 * nothing is done.
 */
static bool
hold(const char *lineage, int64 confirmed)
{
	return lineage_try_record_confirmed(lineage, confirmed);
}

static bool
settle(int segment, const char *lineage, int64 confirmed)
{
	if (!ConditionalLockRelationOid(outbox_segment_relation(segment),
									MUTANT("no_writer_proof") ? AccessShareLock : ShareLock) ||
		!is_confirmed(segment, confirmed) || !hold(lineage, confirmed))
		return false;
	set_settled(segment, "pg_catalog.clock_timestamp()");
	FAULT_POINT("settled");
	return true;
}

static bool
empty(int segment, const char *lineage, int64 confirmed)
{
	Oid			relid = outbox_segment_relation(segment);
	Relation	rel;

	if (!ConditionalLockRelationOid(relid, MUTANT("no_writer_proof") ?
									AccessShareLock : AccessExclusiveLock))
		return false;
	if (!is_confirmed(segment, confirmed) || !hold(lineage, confirmed))
		return false;
	rel = table_open(relid, NoLock);
	rewrite(rel, NULL, 0);
	table_close(rel, NoLock);
	set_settled(segment, "NULL");
	FAULT_POINT("emptied");
	letters_due = true;
	return true;
}

/*
 * Dead letters that somebody has decided about: the relay need not leave them
 * out any more when their events are gone.  In a transaction of its own, since
 * it looks into all segments.
 */
static void
forget_letters(int64 confirmed)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1];

	letters_due = false;
	values[0] = Int64GetDatum(confirmed);
	execute("DELETE FROM outbox.dead_letter d WHERE settled IS NOT NULL"
			" AND tick_id OPERATOR(pg_catalog.<=) $1"
			" AND NOT EXISTS (SELECT FROM outbox.event e WHERE e.xid OPERATOR(pg_catalog.=) d.xid"
			" AND e.seq OPERATOR(pg_catalog.=) d.seq)",
			1, types, values, SPI_OK_DELETE);
}

/*
 * Ticks before the newest confirmed one are not asked for any more: batches
 * begin there or later, and Kafka's progress is there or one further.  If it is
 * further back, Kafka has lost data, and position_compare() lets that be said
 * though the tick is gone.
 */
static bool
rotate_ticks(const char *lineage, int64 confirmed)
{
	Oid			relid = outbox_relation("tick");
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	Relation	rel;
	HeapTuple  *keep;
	int			n;
	MemoryContext caller = CurrentMemoryContext;

	/* start_lineage() takes them in this order */
	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return false;
	if (!hold(lineage, confirmed))
		return false;
	values[0] = Int64GetDatum(confirmed);
	if (SPI_execute_with_args("SELECT * FROM outbox.tick WHERE tick_id OPERATOR(pg_catalog.>=) $1"
							  " ORDER BY tick_id", 1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read outbox.tick");
	n = (int) SPI_processed;
	if (n == 0)
		return false;

	/* with all that stands in the TOAST table, which gets a new file, too */
	MemoryContextSwitchTo(caller);
	keep = palloc(sizeof(HeapTuple) * n);
	for (int i = 0; i < n; i++)
		keep[i] = MUTANT("toast_pointers") ? SPI_copytuple(SPI_tuptable->vals[i]) :
			toast_flatten_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	rel = table_open(relid, NoLock);
	rewrite(rel, keep, n);
	table_close(rel, NoLock);
	FAULT_POINT("ticks_rotated");
	return true;
}

/* Is it time, and would it help: most of them are confirmed? */
static bool
ticks_are_due(int64 confirmed, TimestampTz now, int64 *wait_ms)
{
	Oid			relid = outbox_relation("tick");
	BlockNumber blocks;
	bool		isnull;
	HeapTuple	row;
	TupleDesc	desc;
	int64		first;
	int64		last;
	int64		age_ms;

	*wait_ms = TIDY_NEVER;
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
	{
		*wait_ms = TIDY_BLOCKED;
		return false;
	}
	blocks = blocks_of(relid);
	if (blocks < TICKS_SMALL_BLOCKS)
		return false;
	if (SPI_execute("SELECT f.tick_id, f.created_at, l.tick_id"
					" FROM (SELECT tick_id, created_at FROM outbox.tick ORDER BY tick_id LIMIT 1) f,"
					" (SELECT tick_id FROM outbox.tick ORDER BY tick_id DESC LIMIT 1) l",
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read outbox.tick");
	if (SPI_processed == 0)
		return false;
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	first = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	age_ms = ms_since(DatumGetTimestampTz(SPI_getbinval(row, desc, 2, &isnull)), now);
	last = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
	if (last - confirmed > confirmed - first || confirmed - first < TICKS_LEAST)
		return false;
	if (blocks >= TICKS_LARGE_BLOCKS || age_ms >= period_ms())
		return true;
	*wait_ms = period_ms() - age_ms;
	return false;
}

/* The earlier of two times to wait.  Who is blocked looks again before long. */
static void
sooner(int64 *wait_ms, int64 other_ms)
{
	if (other_ms == TIDY_NEVER || *wait_ms == TIDY_BLOCKED)
		return;
	if (other_ms == TIDY_BLOCKED || *wait_ms == TIDY_NEVER || other_ms < *wait_ms)
		*wait_ms = other_ms;
}

/* The former segments, the one that comes next first. */
static bool
tidy_former(int current, const SegmentState *states, const char *lineage,
			int64 confirmed, TimestampTz now, int64 *wait_ms)
{
	for (int i = 1; i < OUTBOX_SEGMENTS; i++)
	{
		int			segment = (current + i) % OUTBOX_SEGMENTS;
		const SegmentState *state = &states[segment];
		int64		rest_ms = (int64) setting_retention * 1000;

		if (state->blocks == 0 || segment == segment_current())
			continue;
		if (state->settled_at == 0)
		{
			if (settle(segment, lineage, confirmed))
				return true;
			sooner(wait_ms, TIDY_BLOCKED);
			continue;
		}
		rest_ms -= ms_since(state->settled_at, now);
		if (rest_ms > 0)
		{
			sooner(wait_ms, rest_ms);
			continue;
		}
		if (empty(segment, lineage, confirmed))
			return true;
		sooner(wait_ms, TIDY_BLOCKED);
	}
	return false;
}

/* The current segment: by age, or by size while both others stand empty. */
static bool
tidy_current(int current, const SegmentState *states, TimestampTz now, int64 *wait_ms)
{
	const SegmentState *state = &states[current];
	int			next = (current + 1) % OUTBOX_SEGMENTS;
	bool		spare = states[next].blocks == 0 &&
	states[(current + 2) % OUTBOX_SEGMENTS].blocks == 0;
	int64		rest_ms = period_ms() - ms_since(state->opened_at, now);

	if (state->blocks == 0)
		return false;
	if (states[next].blocks > 0)
		return false;			/* its emptying is waited for */
	if (rest_ms > 0 && !(spare && state->blocks >= LARGE_BLOCKS))
	{
		sooner(wait_ms, rest_ms);
		return false;
	}
	if (segment_try_switch())
		return true;
	sooner(wait_ms, TIDY_BLOCKED);
	return false;
}

int64_t
tidy_step(const char *lineage, int64_t confirmed)
{
	SegmentState states[OUTBOX_SEGMENTS];
	TimestampTz now = GetCurrentTimestamp();
	int			current = segment_current_committed();
	int64		wait_ms = TIDY_NEVER;
	int64		ticks_ms;

	if (MUTANT("never_empty"))
		return TIDY_NEVER;
	if (letters_due)
	{
		forget_letters(confirmed);
		return 0;
	}
	if (!read_states(states))
		return TIDY_BLOCKED;
	if (tidy_former(current, states, lineage, confirmed, now, &wait_ms) ||
		tidy_current(current, states, now, &wait_ms))
		return 0;
	if (ticks_are_due(confirmed, now, &ticks_ms))
	{
		if (rotate_ticks(lineage, confirmed))
			return 0;
		ticks_ms = TIDY_BLOCKED;
	}
	sooner(&wait_ms, ticks_ms);
	return wait_ms;
}
