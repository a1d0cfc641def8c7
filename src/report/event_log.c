/*-------------------------------------------------------------------------
 *
 * event_log.c
 *	  report.reported_events: the table, and reading ranges of it for reports that
 *	  catch up.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "report/event_log_internal.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static const char *const column_names[N_COLUMNS] = {
	"id", "event_type", "event_description", "occurred_on", "event_key",
	"data", "headers", "topic", "partition", "kafka_offset", "received_at",
	"log_seq"
};

StaticAssertDecl(COL_EVENT_KEY + 1 == EVENT_KEY_ATTRIBUTE, "columns");

Oid
event_log_relid(void)
{
	Oid			schema = get_namespace_oid("report", false);
	Oid			relid = get_relname_relid("reported_events", schema);

	if (!OidIsValid(relid))
		elog(ERROR, "report.reported_events does not exist");
	return relid;
}

/*
 * The transaction's snapshot is a copy of its beginning: what was stored since,
 * by an earlier call, is not in it until it is told so.
 */
Snapshot
event_log_snapshot(void)
{
	UpdateActiveSnapshotCommandId();
	return GetActiveSnapshot();
}

/* The event log, checked: its columns are filled by number. */
Relation
event_log_open(LOCKMODE mode)
{
	Relation	rel = table_open(event_log_relid(), mode);
	TupleDesc	desc = RelationGetDescr(rel);

	/* Columns may have been added behind ours, nothing else. */
	for (int i = 0; i < N_COLUMNS; i++)
	{
		if (desc->natts < N_COLUMNS ||
			TupleDescAttr(desc, i)->attisdropped ||
			strcmp(NameStr(TupleDescAttr(desc, i)->attname),
				   column_names[i]) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("report.reported_events does not have the columns that carshop_outbox made"),
					 errhint("Undo the change of the table.")));
	}
	return rel;
}

/* The index whose one leading column is the given one. */
Oid
event_log_index(Relation rel, int column)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;
	Oid			found = InvalidOid;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indisunique && index->rd_index->indisvalid &&
			index->rd_index->indkey.values[0] == column + 1 &&
			index->rd_index->indnkeyatts == 1)
			found = RelationGetRelid(index);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	if (!OidIsValid(found))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("report.reported_events lacks the unique index on \"%s\"",
						column_names[column])));
	return found;
}

int64
event_log_head(void)
{
	bool		isnull;

	/*
	 * Old events may have been removed, so what else remembers a log_seq is
	 * asked as well.
	 */
	if (SPI_execute("SELECT GREATEST("
					"(SELECT pg_catalog.max(log_seq) FROM report.reported_events),"
					"(SELECT pg_catalog.max(last_log_seq) FROM report.progress),"
					"(SELECT pg_catalog.max(applied_seq) FROM report.applied), 0)",
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the end of the event log");
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

int64
event_log_end(void)
{
	bool		isnull;

	if (SPI_execute("SELECT COALESCE(pg_catalog.max(log_seq), 0)"
					" FROM report.reported_events",
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the end of the event log");
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

int64
event_log_seq(TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, COL_LOG_SEQ + 1, &isnull));
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

int64
event_log_read(int64 after, int64 upto, int64 limit, Tuplestorestate *store,
			   int64 *last)
{
	Relation	rel = event_log_open(AccessShareLock);
	Relation	index = index_open(event_log_index(rel, COL_LOG_SEQ),
								   AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan;
	ScanKeyData keys[2];
	int64		n = 0;

	/* A copy: the session's own, as in report.explain, must not be moved on. */
	PushCopiedSnapshot(GetActiveSnapshot());
	/* By the index directly: a planned query may flip to a sort one day. */
	ScanKeyInit(&keys[0], 1, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(after));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(upto));
	scan = compat_index_beginscan(rel, index, event_log_snapshot(), 2);
	index_rescan(scan, keys, 2, NULL, 0);

	*last = after;
	while (n < limit &&
		   index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		tuplestore_puttupleslot(store, slot);
		*last = event_log_seq(slot);
		n++;
	}

	index_endscan(scan);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return n;
}
