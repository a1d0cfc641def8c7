/*-------------------------------------------------------------------------
 *
 * removed.c
 *	  What has left the event log, and must not be counted again when its
 *	  message is read again.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Events leave by age in the order in which they were read, so one mark per
 * partition says it: the highest offset that was removed.  A message up to it
 * that is not in the log any more was counted, if it is a message of the same
 * topic.  A topic that was made anew begins at offset 0 again: its messages are
 * told by their time.  They were written after the former ones had been read, so
 * later than the newest event that was removed was received.  Half of the
 * retention is added to that for clocks that differ: what is older was removed,
 * what is newer is new.  Nothing that is still unread can be as old as that:
 * removal waits until all that stood in the topics has been read (log_tidy.h).
 *
 * What a person asked to erase may be as new as it likes, and is little: its ids
 * are kept, and each is looked for by itself.
 *
 * Memory: the marks live in a context of their own, which removed_load()
 * replaces.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "compat.h"
#include "mutants.h"
#include "report/progress.h"
#include "report/removed.h"
#include "report/sql_plan.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

typedef struct RemovedMark
{
	char		topic[TOPIC_SIZE];
	int			partition;
	char		cluster_id[64]; /* "": not known */
	int64		offset;
	TimestampTz written_before;
} RemovedMark;

struct ErasedIds
{
	Relation	table;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
};

static MemoryContext marks_context = NULL;
static RemovedMark *marks = NULL;
static int	n_marks = 0;

static SqlPlan get_marks = {
	"SELECT topic, partition, cluster_id, kafka_offset, written_before"
	" FROM report.removed WHERE kafka_offset IS NOT NULL",
	0, {0}, NULL
};

void
removed_load(void)
{
	uint64		n = sql_plan_execute(&get_marks, NULL, NULL);

	if (marks_context == NULL)
		marks_context = AllocSetContextCreate(TopMemoryContext,
											  "carshop_outbox removed",
											  ALLOCSET_SMALL_SIZES);
	n_marks = 0;
	MemoryContextReset(marks_context);
	marks = MemoryContextAllocZero(marks_context,
								   sizeof(RemovedMark) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		strlcpy(marks[i].topic, sql_string(i, 1), TOPIC_SIZE);
		marks[i].partition = DatumGetInt32(sql_value(i, 2, NULL));
		strlcpy(marks[i].cluster_id, sql_string(i, 3),
				sizeof(marks[i].cluster_id));
		marks[i].offset = DatumGetInt64(sql_value(i, 4, NULL));
		marks[i].written_before = DatumGetTimestampTz(sql_value(i, 5, NULL));
	}
	n_marks = (int) n;
}

bool
removed_covers(const LogSource *source, const BatchEvent *event)
{
	TimestampTz written;

	if (event->letter != 0 || MUTANT("recount"))
		return false;
	for (int i = 0; i < n_marks; i++)
	{
		const RemovedMark *mark = &marks[i];

		if (event->offset > mark->offset ||
			mark->partition != source->partition ||
			strcmp(mark->topic, source->topic) != 0 ||
			(mark->cluster_id[0] != '\0' &&
			 strcmp(mark->cluster_id, source->cluster_id) != 0))
			continue;
		/* a record without a time that can be had is told by its offset alone */
		if (!batch_timestamp(event->timestamp_ms, &written) ||
			written < mark->written_before)
			return true;
	}
	return false;
}

ErasedIds  *
erased_open(void)
{
	Oid			schema = get_namespace_oid("report", false);
	Relation	table = table_open(get_relname_relid("erased", schema),
								   AccessShareLock);
	ErasedIds  *ids;

	if (RelationGetNumberOfBlocks(table) == 0)
	{
		table_close(table, AccessShareLock);
		return NULL;
	}
	ids = palloc(sizeof(ErasedIds));
	ids->table = table;
	ids->index = index_open(get_relname_relid("erased_pkey", schema),
							AccessShareLock);
	UpdateActiveSnapshotCommandId();
	ids->scan = compat_index_beginscan(ids->table, ids->index,
									   GetActiveSnapshot(), 1);
	ids->slot = table_slot_create(ids->table, NULL);
	return ids;
}

bool
erased_contains(ErasedIds *ids, const pg_uuid_t *id)
{
	ScanKeyData key;

	if (ids == NULL)
		return false;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(ids->scan, &key, 1, NULL, 0);
	return index_getnext_slot(ids->scan, ForwardScanDirection, ids->slot);
}

void
erased_close(ErasedIds *ids)
{
	if (ids == NULL)
		return;
	index_endscan(ids->scan);
	ExecDropSingleTupleTableSlot(ids->slot);
	index_close(ids->index, AccessShareLock);
	table_close(ids->table, AccessShareLock);
	pfree(ids);
}

/*
 * By the table access method, as rows are inserted: a trigger that somebody has
 * put on the table would run with the rights of a superuser.
 */
bool
removed_delete(Relation log, ItemPointer tid, bool wait)
{
	TM_FailureData failure;

	return compat_tuple_delete(log, tid, GetActiveSnapshot(), wait,
							   &failure) == TM_Ok;
}
