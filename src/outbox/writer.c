/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  Putting events into the current segment, many at a time.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * When what waits is inserted
 * - at the end of the statement that fired the triggers (AFTER triggers run in
 *   ExecutorFinish; COPY is a utility statement), so that the transaction's
 *   next statement sees it;
 * - when a batch is full, so memory does not grow with the statement;
 * - before a subtransaction commits, as part of it: there is one batch per
 *   level, and an aborted level's batch is forgotten with it;
 * - before the transaction commits or is prepared, for whoever fires triggers
 *   without the executor's hooks (the apply worker of logical replication).
 *
 * seq is drawn when an event is put, not when it is inserted: the order of the
 * changes is that of the triggers, whichever batch an event waits in.
 *
 * Locking: the transaction's first event chooses and locks the segment, all
 * others follow it, also when another one has become current meanwhile
 * (segment.c).
 *
 * Memory: batches live in TopTransactionContext and hold BATCH_EVENTS rows and
 * about BATCH_BYTES at most.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "compat.h"
#include "errors.h"
#include "executor/executor.h"
#include "fault.h"
#include "miscadmin.h"
#include "mutants.h"
#include "outbox/relations.h"
#include "outbox/segment.h"
#include "outbox/sequence.h"
#include "outbox/writer.h"
#include "settings.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define BATCH_EVENTS	256
#define BATCH_BYTES		(256 * 1024)

/* The events of one transaction level that are not inserted yet. */
typedef struct EventBatch
{
	struct EventBatch *outer;
	SubTransactionId level;
	MemoryContext context;		/* all of the batch */
	TupleDesc	desc;			/* of the slots */
	TupleTableSlot *slots[BATCH_EVENTS];	/* made when first needed */
	int			n;
	Size		bytes;
} EventBatch;

static EventBatch *innermost = NULL;
static bool inserting = false;
static bool hooks_see_all = false;	/* installed before any statement began */
static ExecutorFinish_hook_type prev_executor_finish = NULL;

/* The batch of the running (sub)transaction, made if there is none. */
static EventBatch *
current_batch(void)
{
	SubTransactionId level = GetCurrentSubTransactionId();
	MemoryContext context;
	EventBatch *batch;

	if (innermost != NULL && innermost->level == level)
		return innermost;
	context = AllocSetContextCreate(TopTransactionContext,
									"carshop_outbox events",
									ALLOCSET_DEFAULT_SIZES);
	batch = MemoryContextAllocZero(context, sizeof(EventBatch));
	batch->context = context;
	batch->level = level;
	batch->outer = innermost;
	innermost = batch;
	return batch;
}

/* The innermost level has ended: committed, after inserting, or aborted. */
static void
forget_batch(void)
{
	EventBatch *batch = innermost;

	innermost = batch->outer;
	MemoryContextDelete(batch->context);
}

/* Insert n rows that stand in slots, and their index entries. */
static void
insert_rows(Relation rel, TupleTableSlot **slots, int n)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *info = makeNode(ResultRelInfo);
	MemoryContext old = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	bool		pushed = !ActiveSnapshotSet();

	/* toasting wants one; at the end of a transaction there is none */
	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	InitResultRelInfo(info, rel, 0, NULL, 0);
	ExecOpenIndices(info, false);
	if (n == 1)
		table_tuple_insert(rel, slots[0], GetCurrentCommandId(true), 0, NULL);
	else
		table_multi_insert(rel, slots, n, GetCurrentCommandId(true), 0, NULL);
	if (info->ri_NumIndices > 0)
		for (int i = 0; i < n; i++)
			list_free(compat_insert_index_tuples(info, slots[i], estate));
	ExecCloseIndices(info);
	if (pushed)
		PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	FreeExecutorState(estate);
}

/*
 * Insert what waits on the current level.  An index of a superuser's making may
 * have an expression that runs SQL, and so come back here: that call has
 * nothing to do (and may not put a further event: the slots are in use).  After an
 * error the level is aborted and the batch with it.
 */
static void
insert_waiting(EventBatch *batch)
{
	Relation	rel;
	int			n = batch->n;

	if (n == 0 || inserting)
		return;
	inserting = true;
	batch->n = 0;
	batch->bytes = 0;
	PG_TRY();
	{
		rel = segment_open();
		insert_rows(rel, batch->slots, n);
		table_close(rel, NoLock);
		for (int i = 0; i < n; i++)
			ExecClearTuple(batch->slots[i]);
	}
	PG_FINALLY();
	{
		inserting = false;
	}
	PG_END_TRY();
}

/* What the batch's slots look like. */
static void
describe(EventBatch *batch, Relation segment)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	if (RelationGetDescr(segment)->natts != EVENT_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("table \"%s\" was changed", RelationGetRelationName(segment)),
				 errhint("The segments of outbox.event belong to the extension.")));
	/* not the relation's own: slots would hold a reference to it */
	batch->desc = CreateTupleDescCopy(RelationGetDescr(segment));
	MemoryContextSwitchTo(old);
}

void
writer_put(Datum *values, bool *isnull, bool may_wait)
{
	EventBatch *batch = current_batch();
	Relation	rel;
	TupleTableSlot *slot;
	MemoryContext old;
	HeapTuple	tuple;

	if (inserting)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("an event cannot be written while others are being stored"),
				 errhint("An index on a segment of outbox.event has an expression that writes events: drop that index.")));
	rel = segment_open();
	if (batch->desc == NULL)
		describe(batch, rel);
	values[EVENT_SEQ] = Int64GetDatum(sequence_draw());
	FAULT_POINT("seq_drawn");
	old = MemoryContextSwitchTo(batch->context);
	tuple = heap_form_tuple(batch->desc, values, isnull);
	tuple->t_tableOid = RelationGetRelid(rel);
	slot = batch->slots[batch->n];
	if (slot == NULL)
		slot = batch->slots[batch->n] =
			MakeSingleTupleTableSlot(batch->desc, &TTSOpsHeapTuple);
	MemoryContextSwitchTo(old);
	ExecStoreHeapTuple(tuple, slot, true);
	batch->n++;
	batch->bytes += tuple->t_len;
	table_close(rel, NoLock);	/* the lock proves that we write here */

	if (!may_wait || !hooks_see_all || batch->n == BATCH_EVENTS ||
		batch->bytes >= BATCH_BYTES)
		insert_waiting(batch);
}

/*
 * Not in parallel mode: a query of a trigger's may be run in parallel while its
 * statement's events wait, and could begin no further command once this process
 * has written something (CommandCounterIncrement).
 */
void
writer_statement_ended(void)
{
	if (!IsInParallelMode() && innermost != NULL && innermost->n > 0 &&
		innermost->level == GetCurrentSubTransactionId())
		insert_waiting(innermost);
}

static void
executor_finish(QueryDesc *query)
{
	if (prev_executor_finish)
		prev_executor_finish(query);
	else
		standard_ExecutorFinish(query);
	if (!MUTANT("late_rows"))
		writer_statement_ended();
}

/* What waits is part of its level, and shares its fate. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId level,
					  SubTransactionId outer, void *arg)
{
	if (innermost == NULL || innermost->level != level)
		return;
	if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
	{
		insert_waiting(innermost);
		forget_batch();
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB && !MUTANT("keep_aborted"))
		forget_batch();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (innermost != NULL)
				insert_waiting(innermost);
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			/* its memory goes with the transaction's */
			innermost = NULL;
			break;
		default:
			break;
	}
}

void
writer_install(void)
{
	/*
	 * Loaded on demand, the library comes into the middle of a statement
	 * whose end the hook does not see.
	 */
	hooks_see_all = process_shared_preload_libraries_in_progress;
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	prev_executor_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = executor_finish;
}
