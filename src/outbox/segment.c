/*-------------------------------------------------------------------------
 *
 * segment.c
 *	  Segments of the event store: which one is current, and which one a
 *	  transaction writes into.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The truth is outbox.lineage.current_segment.  Shared memory repeats what was
 * committed last, so that a writer need not read the table: one word that names
 * outbox.lineage's oid as well, so it says nothing about an extension that was
 * dropped and created again.  Without shared memory (the library is not
 * preloaded) everybody reads the table.
 *
 * Rotation rests on locks: who holds ROW EXCLUSIVE on a segment writes into it,
 * so ACCESS EXCLUSIVE NOWAIT on a former segment proves that all its writers
 * have ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fault.h"
#include "fmgr.h"
#include "mutants.h"
#include "outbox/lineage.h"
#include "outbox/relations.h"
#include "outbox/segment.h"
#include "shared.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(outbox_switch_segment);

/* ------------------------------------------------------------------------
 * The current segment
 * ------------------------------------------------------------------------
 */

/*
 * As the table has it: what was committed last, and what this transaction has
 * changed itself.  With the newest snapshot, never the transaction's (a
 * REPEATABLE READ transaction would still choose a former segment).
 */
int
segment_current_committed(void)
{
	Relation	rel = table_open(outbox_relation("lineage"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = compat_table_beginscan(rel, snapshot);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			segment = 0;

	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		AttrNumber	attno = get_attnum(RelationGetRelid(rel), "current_segment");
		bool		isnull;

		segment = DatumGetInt16(slot_getattr(slot, attno, &isnull));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	if (segment < 0 || segment >= OUTBOX_SEGMENTS)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("outbox.lineage names segment %d, which does not exist", segment)));
	return segment;
}

/* The word of shared memory: whose, and which. */
static uint64
segment_word(Oid lineage, int segment)
{
	return (uint64) lineage << 32 | (uint64) segment;
}

/*
 * As writers see it.  Whoever finds that shared memory does not know fills it
 * in, unless somebody else has changed it meanwhile: a switch that commits
 * between the look at the table and here has the last word.
 */
int
segment_current(void)
{
	pg_atomic_uint64 *word = shared_segment_word();
	Oid			lineage = outbox_relation("lineage");
	uint64		known;
	int			segment;

	if (word == NULL)
		return segment_current_committed();
	known = pg_atomic_read_u64(word);
	if ((Oid) (known >> 32) == lineage)
		return (int) (known & PG_UINT32_MAX);
	segment = segment_current_committed();
	(void) pg_atomic_compare_exchange_u64(word, &known, segment_word(lineage, segment));
	return segment;
}

/* ------------------------------------------------------------------------
 * The segment of the running transaction
 * ------------------------------------------------------------------------
 */

/*
 * Chosen by the first event, and kept as long as the lock that came with it:
 * an aborted subtransaction gives up both (its events are gone, too), a
 * committed one hands them to the one around it.
 */
static int	chosen = -1;
static SubTransactionId chosen_by = InvalidSubTransactionId;

/*
 * Lock the current segment.  For the (sub)transaction itself: a cursor's locks
 * go when it fails, also those of rows that it has written before and that stay
 * (AtSubAbort_Portals).
 */
static int
choose(void)
{
	ResourceOwner owner = CurrentResourceOwner;
	int			segment;

	CurrentResourceOwner = CurTransactionResourceOwner;
	for (;;)
	{
		Oid			relation;

		segment = segment_current();
		relation = outbox_segment_relation(segment);
		FAULT_POINT("segment_chosen");
		LockRelationOid(relation, RowExclusiveLock);

		/* it may have moved between the look and the lock */
		if (segment_current() == segment || MUTANT("no_second_look"))
			break;
		UnlockRelationOid(relation, RowExclusiveLock);
	}
	CurrentResourceOwner = owner;
	return segment;
}

Relation
segment_open(void)
{
	if (chosen < 0 || MUTANT("follow_current"))
	{
		chosen = choose();
		chosen_by = GetCurrentSubTransactionId();
	}
	return table_open(outbox_segment_relation(chosen), NoLock);
}

/* ------------------------------------------------------------------------
 * The next segment
 * ------------------------------------------------------------------------
 */

static Oid	switched = InvalidOid;	/* outbox.lineage, changed by this
									 * transaction, rolled back or not */
static uint64 word_to_be = 0;	/* shared memory's at commit; 0: as it is */

/*
 * The next segment becomes the current one.  The caller has SHARE ROW EXCLUSIVE
 * on outbox.lineage, and its row.  Returns -1 if the next one is not empty.
 */
static int
switch_on(void)
{
	Oid			types[1] = {INT2OID};
	Datum		values[1];
	Relation	rel;
	int			next;
	bool		is_empty;

	/*
	 * Fill shared memory in before the change: from now on our own look at
	 * the table sees what may be rolled back.
	 */
	(void) segment_current();
	next = (segment_current_committed() + 1) % OUTBOX_SEGMENTS;
	rel = table_open(outbox_segment_relation(next), AccessShareLock);
	is_empty = RelationGetNumberOfBlocks(rel) == 0;
	table_close(rel, AccessShareLock);
	if (!is_empty)
		return -1;

	values[0] = Int16GetDatum(next);
	if (SPI_execute_with_args("UPDATE outbox.lineage SET current_segment = $1",
							  1, types, values, NULL, false, 0) != SPI_OK_UPDATE ||
		SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("outbox.lineage has no row")));
	if (SPI_execute_with_args("UPDATE outbox.segment SET opened_at = pg_catalog.clock_timestamp(), settled_at = NULL"
							  " WHERE segment OPERATOR(pg_catalog.=) $1",
							  1, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update outbox.segment");
	switched = outbox_relation("lineage");
	FAULT_POINT("switched");
	return next;
}

bool
segment_try_switch(void)
{
	return lineage_try_lock(ShareRowExclusiveLock) && switch_on() >= 0;
}

/*
 * outbox.switch_segment() returns smallint.  Takes SHARE ROW EXCLUSIVE on
 * outbox.lineage to the end of the transaction.  Transactions that have written
 * into the former segment keep their lock on it and go on there.
 */
Datum
outbox_switch_segment(PG_FUNCTION_ARGS)
{
	int			next;

	LockRelationOid(outbox_relation("lineage"), ShareRowExclusiveLock);
	SPI_connect();
	next = switch_on();
	SPI_finish();
	if (next < 0)
	{
		next = (segment_current_committed() + 1) % OUTBOX_SEGMENTS;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("segment outbox.%s is not empty", get_rel_name(outbox_segment_relation(next))),
				 errhint("Events go round the segments: it can be used again when it has been emptied.")));
	}
	PG_RETURN_INT16(next);
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId level,
					  SubTransactionId outer, void *arg)
{
	if (chosen < 0 || chosen_by != level)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		chosen_by = outer;
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		chosen = -1;
}

/*
 * Writers look at shared memory, so it changes when the change is committed: to
 * what the table has then, whatever was rolled back to a savepoint.  Nobody
 * else can change it between PRE_COMMIT and COMMIT, the row is locked.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (OidIsValid(switched) && get_rel_name(switched) != NULL)
				word_to_be = segment_word(switched, segment_current_committed());
			return;
		case XACT_EVENT_PRE_PREPARE:
			/* whoever commits it would not know */
			if (OidIsValid(switched))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has called outbox.switch_segment()"),
						 errhint("Call it in a transaction of its own.")));
			return;
		case XACT_EVENT_COMMIT:
			if (word_to_be != 0)
				FAULT_POINT("switch_committed");
			if (word_to_be != 0 && shared_segment_word() != NULL)
				pg_atomic_write_u64(shared_segment_word(), word_to_be);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	chosen = -1;
	switched = InvalidOid;
	word_to_be = 0;
}

void
segment_install(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}
