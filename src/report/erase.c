/*-------------------------------------------------------------------------
 *
 * erase.c
 *	  report.erase() and report.forget_removed().
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Who may call them is decided by EXECUTE alone; what they change are the
 * extension's own tables (as_owner.h).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "report/as_owner.h"
#include "report/removed.h"
#include "report/sql_plan.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(report_erase);
PG_FUNCTION_INFO_V1(report_forget_removed);

/* Their ids first: a message that is read again meanwhile finds them. */
static SqlPlan note_events = {
	"WITH gone AS MATERIALIZED ("
	"   SELECT e.ctid, e.id, e.log_seq FROM report.reported_events e"
	"   WHERE e.event_key = $1"
	" ), noted AS ("
	"   INSERT INTO report.erased (id) SELECT g.id FROM gone g"
	"   ON CONFLICT (id) DO NOTHING"
	" ), letters AS ("
	"   DELETE FROM report.dead_letter d USING gone g WHERE d.log_seq = g.log_seq"
	" )"
	" SELECT ctid FROM gone",
	1, {TEXTOID}, NULL
};

static SqlPlan erase_messages = {
	"WITH gone AS ("
	"   DELETE FROM report.dead_letter d"
	"   WHERE d.report IS NULL AND d.key = pg_catalog.convert_to($1, 'UTF8')"
	"   RETURNING d.message_id"
	" ), noted AS ("
	"   INSERT INTO report.erased (id) SELECT g.message_id FROM gone g"
	"   WHERE g.message_id IS NOT NULL ON CONFLICT (id) DO NOTHING"
	" )"
	" SELECT FROM gone",
	1, {TEXTOID}, NULL
};

/* Answers how many events and unreadable messages were erased. */
Datum
report_erase(PG_FUNCTION_ARGS)
{
	Datum		key = PG_GETARG_DATUM(0);
	AsOwner		scope;
	Relation	log;
	SPITupleTable *gone;
	int64		erased = 0;
	uint64		n;

	as_owner_begin(&scope);
	log = table_open(event_log_relid(), RowExclusiveLock);
	n = sql_plan_execute(&note_events, &key, NULL);
	gone = SPI_tuptable;
	PushActiveSnapshot(GetTransactionSnapshot());
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		tid = SPI_getbinval(gone->vals[i], gone->tupdesc, 1, &isnull);

		CHECK_FOR_INTERRUPTS();
		if (removed_delete(log, (ItemPointer) DatumGetPointer(tid), true))
			erased++;
	}
	PopActiveSnapshot();
	table_close(log, NoLock);
	CommandCounterIncrement();
	erased += (int64) sql_plan_execute(&erase_messages, &key, NULL);
	as_owner_end(&scope);
	PG_RETURN_INT64(erased);
}

Datum
report_forget_removed(PG_FUNCTION_ARGS)
{
	static SqlPlan forget = {
		"UPDATE report.removed SET kafka_offset = NULL"
		" WHERE topic = $1 AND partition = $2 AND kafka_offset IS NOT NULL",
		2, {TEXTOID, INT4OID}, NULL
	};
	AsOwner		scope;
	Datum		values[2] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	uint64		n;

	as_owner_begin(&scope);
	n = sql_plan_execute(&forget, values, NULL);
	as_owner_end(&scope);
	wake_reporter_at_commit();
	PG_RETURN_BOOL(n > 0);
}
