/*-------------------------------------------------------------------------
 *
 * log_tidy.c
 *	  Removing old events from the event log (carshop_outbox.report_retention).
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The log is gone through from its beginning, a range of log_seq in each
 * transaction, and after each the reporter rests for three times as long as it
 * took: a quarter of its time at most goes into this.  Stays: what an enabled
 * report has not applied, what a dead letter is about, and everything while
 * somebody holds a report's row, as a rebuild does (reports.h): it reads the log.
 *
 * Nothing waits for a lock here, and the only locks held are those of the rows
 * that go and of report.applied, for some milliseconds.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fault.h"
#include "mutants.h"
#include "report/log_tidy.h"
#include "report/removed.h"
#include "report/sql_plan.h"
#include "settings.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* Numbers looked at in one transaction. */
#define RANGE			1000

/* The log is gone through again after a tenth of the retention, within: */
#define PASS_LEAST_MS	1000
#define PASS_MOST_MS	60000

#define REST_LEAST_MS	20

static int64 position = 0;		/* looked at up to here; 0: at the beginning */
static TimestampTz next_at = 0; /* 0: at once */

/*
 * How far all reports have come that may want events, and whether none of them is
 * in somebody's hands.
 */
static SqlPlan get_limit = {
	"WITH a AS MATERIALIZED (SELECT a.applied_seq, d.enabled"
	"   FROM report.applied a JOIN report.definitions d USING (name)"
	"   FOR NO KEY UPDATE OF a SKIP LOCKED)"
	" SELECT (SELECT pg_catalog.count(*) FROM a) ="
	"   (SELECT pg_catalog.count(*) FROM report.applied),"
	" (SELECT pg_catalog.min(applied_seq) FROM a WHERE enabled)",
	0, {0}, NULL
};

static SqlPlan get_first = {
	"SELECT log_seq FROM report.reported_events WHERE log_seq > $1"
	" ORDER BY log_seq LIMIT 1",
	1, {INT8OID}, NULL
};

/*
 * The marks are written first, so a message that is read again later is covered
 * whatever happens.
 */
static SqlPlan get_due = {
	"WITH due AS MATERIALIZED ("
	"   SELECT e.ctid, e.topic, e.partition, e.kafka_offset, e.received_at, e.log_seq"
	"   FROM report.reported_events e"
	"   WHERE e.log_seq > $1 AND e.log_seq <= $2 AND e.received_at < $3"
	"   AND NOT EXISTS (SELECT FROM report.dead_letter d WHERE d.log_seq = e.log_seq)"
	" ), marks AS ("
	"   INSERT INTO report.removed AS r (topic, partition, cluster_id, kafka_offset,"
	"     written_before, log_seq, events, removed_at)"
	"   SELECT d.topic, d.partition, COALESCE(p.cluster_id, ''), pg_catalog.max(d.kafka_offset),"
	"     pg_catalog.max(d.received_at) + pg_catalog.make_interval(secs => $4),"
	"     pg_catalog.max(d.log_seq), pg_catalog.count(*), pg_catalog.now()"
	"   FROM due d LEFT JOIN report.progress p USING (topic, partition)"
	"   GROUP BY 1, 2, 3"
	"   ON CONFLICT (topic, partition, cluster_id) DO UPDATE SET"
	"     kafka_offset = GREATEST(r.kafka_offset, excluded.kafka_offset),"
	"     written_before = GREATEST(r.written_before, excluded.written_before),"
	"     log_seq = GREATEST(r.log_seq, excluded.log_seq),"
	"     events = r.events + excluded.events, removed_at = excluded.removed_at"
	" )"
	" SELECT ctid FROM due",
	4, {INT8OID, INT8OID, TIMESTAMPTZOID, FLOAT8OID}, NULL
};

/* Do younger events begin there?  What a clock ran ahead for does not count. */
static SqlPlan has_younger = {
	"SELECT FROM report.reported_events e WHERE e.log_seq > $1 AND e.log_seq <= $2"
	" AND e.received_at >= $3 AND e.received_at <= pg_catalog.now() LIMIT 1",
	3, {INT8OID, INT8OID, TIMESTAMPTZOID}, NULL
};

long
log_tidy_due(TimestampTz proven)
{
	static int	seen = -1;
	TimestampTz now = worker_steady_now();

	if (seen != setting_report_retention)
	{
		seen = setting_report_retention;
		position = 0;
		next_at = 0;
	}
	if (setting_report_retention == 0 || proven == 0)
		return -1;
	return next_at <= now ? 0 :
		TimestampDifferenceMilliseconds(now, next_at) + 1;
}

/* A foreign key of somebody's table on the log would be broken in silence. */
static bool
is_referred_to(Relation log)
{
	TriggerDesc *triggers = log->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (RI_FKey_trigger_type(triggers->triggers[i].tgfoid) == RI_TRIGGER_PK)
			return true;
	}
	return false;
}

/* No event behind this number may go; -1: none at all. */
static int64
find_limit(void)
{
	bool		no_reports;
	int64		limit;

	sql_plan_execute(&get_limit, NULL, NULL);
	if (!DatumGetBool(sql_value(0, 1, NULL)))
		return -1;
	limit = DatumGetInt64(sql_value(0, 2, &no_reports));
	return no_reports || MUTANT("hasty_removal") ? PG_INT64_MAX : limit;
}

/* Remove what is due of a range; false: it ends with younger events. */
static bool
remove_range(Relation log, int64 after, int64 upto, TimestampTz horizon)
{
	Datum		values[4];
	uint64		n;
	SPITupleTable *due;

	values[0] = Int64GetDatum(after);
	values[1] = Int64GetDatum(upto);
	values[2] = TimestampTzGetDatum(horizon);
	values[3] = Float8GetDatum(setting_report_retention / 2.0);
	n = sql_plan_execute(&get_due, values, NULL);
	due = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		tid = SPI_getbinval(due->vals[i], due->tupdesc, 1, &isnull);

		(void) removed_delete(log, (ItemPointer) DatumGetPointer(tid), false);
	}
	if (n > 0)
		removed_load();
	FAULT_POINT("events_removed");
	return sql_plan_execute(&has_younger, values, NULL) == 0;
}

/* The next range.  False: the end of what may go, or of the log, is reached. */
static bool
remove_next(Relation log, int64 limit, TimestampTz horizon)
{
	Datum		after = Int64GetDatum(position);
	int64		first;

	if (sql_plan_execute(&get_first, &after, NULL) == 0)
		return false;
	first = DatumGetInt64(sql_value(0, 1, NULL));
	if (first > limit)
		return false;
	position = Min(limit, first + RANGE - 1);
	return remove_range(log, first - 1, position, horizon);
}

void
log_tidy_step(void)
{
	TimestampTz started = worker_steady_now();
	TimestampTz horizon = GetCurrentTransactionStartTimestamp() -
	(int64) setting_report_retention * USECS_PER_SEC;
	Relation	log = table_open(event_log_relid(), RowExclusiveLock);
	int64		limit = is_referred_to(log) ? -1 : find_limit();
	long		ms = PASS_LEAST_MS;

	/* a plan that was made for an empty table reads all of a large one */
	(void) set_config_option("enable_seqscan", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	if (limit >= 0 && remove_next(log, limit, horizon))
		ms = Max(REST_LEAST_MS,
				 3 * TimestampDifferenceMilliseconds(started, worker_steady_now()));
	else if (limit >= 0)
	{
		position = 0;
		ms = Min(Max((long) setting_report_retention * 100, PASS_LEAST_MS),
				 PASS_MOST_MS);
	}
	table_close(log, NoLock);
	next_at = TimestampTzPlusMilliseconds(worker_steady_now(), ms);
}
