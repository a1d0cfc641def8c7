/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  SQL functions of schema report, besides those that define reports:
 *	  starting and stopping, seeking, dead letters, waiting, and what the views
 *	  are made of.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Who may call them is decided by EXECUTE alone; what they change are the
 * extension's own tables (as_owner.h).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "report/advice.h"
#include "report/as_owner.h"
#include "report/sql_plan.h"
#include "settings.h"
#include "shared.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"
#include "utils/wait_event.h"
#include "worker/latency.h"
#include "worker/subtransaction.h"
#include "worker/worker.h"

/* How long stat_reset() waits for a report that somebody has in hand. */
#define RESET_WAITS		"1s"

/* wait_applied() looks again after this long, twice as long each time. */
#define WAIT_FIRST_MS	2
#define WAIT_LONGEST_MS	50

PG_FUNCTION_INFO_V1(report_start);
PG_FUNCTION_INFO_V1(report_stop);
PG_FUNCTION_INFO_V1(report_seek);
PG_FUNCTION_INFO_V1(report_retry);
PG_FUNCTION_INFO_V1(report_skip);
PG_FUNCTION_INFO_V1(report_value_text);
PG_FUNCTION_INFO_V1(report_wait_applied);
PG_FUNCTION_INFO_V1(report_stat_reset);
PG_FUNCTION_INFO_V1(report_worker);
PG_FUNCTION_INFO_V1(report_worker_partitions);
PG_FUNCTION_INFO_V1(report_worker_counters);

/* report.start() and stop(): takes effect when the caller commits. */
static void
set_reading(bool reading)
{
	static SqlPlan set = {
		"INSERT INTO report.instance (reading) VALUES ($1)"
		" ON CONFLICT (only_one) DO UPDATE SET reading = excluded.reading,"
		" changed_at = pg_catalog.now(), changed_by = session_user",
		1, {BOOLOID}, NULL
	};
	AsOwner		scope;
	Datum		value = BoolGetDatum(reading);

	as_owner_begin(&scope);
	sql_plan_execute(&set, &value, NULL);
	as_owner_end(&scope);
	wake_reporter_at_commit();
}

Datum
report_start(PG_FUNCTION_ARGS)
{
	set_reading(true);
	PG_RETURN_VOID();
}

Datum
report_stop(PG_FUNCTION_ARGS)
{
	set_reading(false);
	PG_RETURN_VOID();
}

/*
 * Where to go on is the administrator's word: what was remembered of the place
 * before (cluster, newest message, loss) counts no more.
 */
Datum
report_seek(PG_FUNCTION_ARGS)
{
	static SqlPlan seek = {
		"INSERT INTO report.progress (topic, partition, next_offset)"
		" VALUES ($1, $2, $3) ON CONFLICT (topic, partition) DO UPDATE SET"
		" next_offset = excluded.next_offset, cluster_id = NULL,"
		" last_offset = NULL, last_mark = NULL, lost = NULL,"
		" changed_at = pg_catalog.now()",
		3, {TEXTOID, INT4OID, INT8OID}, NULL
	};
	int32		partition = PG_GETARG_INT32(1);
	int64		offset = PG_GETARG_INT64(2);
	AsOwner		scope;
	Datum		values[3];

	if (partition < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partition must not be negative")));
	if (offset < 0 && offset != -2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("offset must not be negative"),
				 errhint("-2 stands for the partition's beginning.")));

	as_owner_begin(&scope);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = Int32GetDatum(partition);
	values[2] = Int64GetDatum(offset);
	sql_plan_execute(&seek, values, NULL);
	as_owner_end(&scope);
	wake_reporter_at_commit();
	report_warn_of_unread(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

Datum
report_retry(PG_FUNCTION_ARGS)
{
	static SqlPlan retry = {
		"UPDATE report.dead_letter SET retry = true"
		" WHERE $1 IS NULL OR id = $1",
		1, {INT8OID}, NULL
	};
	AsOwner		scope;
	Datum		value = PG_ARGISNULL(0) ? (Datum) 0 : PG_GETARG_DATUM(0);
	uint64		n;

	as_owner_begin(&scope);
	n = sql_plan_execute(&retry, &value, PG_ARGISNULL(0) ? "n" : " ");
	as_owner_end(&scope);
	wake_reporter_at_commit();
	PG_RETURN_INT64((int64) n);
}

Datum
report_skip(PG_FUNCTION_ARGS)
{
	static SqlPlan skip = {
		"DELETE FROM report.dead_letter WHERE id = $1", 1, {INT8OID}, NULL
	};
	AsOwner		scope;
	Datum		value = PG_GETARG_DATUM(0);
	uint64		n;

	as_owner_begin(&scope);
	n = sql_plan_execute(&skip, &value, NULL);
	as_owner_end(&scope);
	PG_RETURN_INT64((int64) n);
}

/*
 * A message's bytes, for people to read.  Kafka's texts are UTF-8; what is none,
 * or has a character that this database does not know, has no text.
 */
Datum
report_value_text(PG_FUNCTION_ARGS)
{
	bytea	   *value = PG_GETARG_BYTEA_PP(0);
	char	   *bytes = VARDATA_ANY(value);
	int			len = VARSIZE_ANY_EXHDR(value);
	int			encoding = GetDatabaseEncoding();
	char	   *converted;
	Oid			proc;

	if (!pg_verify_mbstr(PG_UTF8, bytes, len, true))
		PG_RETURN_NULL();
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		PG_RETURN_TEXT_P(cstring_to_text_with_len(bytes, len));

	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(proc) ||
		len >= MaxAllocSize / MAX_CONVERSION_GROWTH)
		PG_RETURN_NULL();
	converted = palloc0((Size) len * MAX_CONVERSION_GROWTH + 1);
	if (pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding,
									  (unsigned char *) bytes, len,
									  (unsigned char *) converted,
									  len * MAX_CONVERSION_GROWTH + 1,
									  true) < len)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(converted));
}

#define RESET_COUNTERS(how) \
	"UPDATE report.applied SET events = 0, runs = 0, total_ms = 0," \
	" last_ms = NULL, dead_letters = 0 WHERE name IN" \
	" (SELECT name FROM report.applied FOR NO KEY UPDATE" how ")"

/* Those of all reports, each of which is waited for as long as lock_timeout says. */
static void
reset_all(void *arg)
{
	static SqlPlan reset = {RESET_COUNTERS(""), 0, {0}, NULL};
	AsOwner		scope;
	int			level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", RESET_WAITS, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	as_owner_begin(&scope);
	sql_plan_execute(&reset, NULL, NULL);
	as_owner_end(&scope);
	AtEOXact_GUC(true, level);
}

/*
 * Who applies events has the rows for moments, a rebuild for as long as it takes:
 * to wait for that, with the others' rows in hand, would hold up all reports.
 */
Datum
report_stat_reset(PG_FUNCTION_ARGS)
{
	static SqlPlan reset_others = {RESET_COUNTERS(" SKIP LOCKED"), 0, {0}, NULL};
	ErrorData  *error;

	if (!subtransaction_try(reset_all, NULL, &error))
	{
		AsOwner		scope;

		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		FreeErrorData(error);
		as_owner_begin(&scope);
		sql_plan_execute(&reset_others, NULL, NULL);
		as_owner_end(&scope);
		ereport(NOTICE,
				(errmsg("the counters of reports that are being rebuilt or changed now are left as they are")));
	}
	if (shared_available())
	{
		shared_stat_reset(MyDatabaseId, 'p');
		shared_wake_reporter(MyDatabaseId);
	}
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------------------
 * Waiting
 * ------------------------------------------------------------------------
 */

/* Every running report has applied the event? */
static bool
event_is_applied(Datum id)
{
	static SqlPlan applied = {
		"SELECT FROM report.reported_events e WHERE e.id = $1"
		" AND NOT EXISTS (SELECT FROM report.applied a"
		" JOIN report.definitions d USING (name)"
		" WHERE d.enabled AND NOT a.failed AND a.applied_seq < e.log_seq)",
		1, {UUIDOID}, NULL
	};

	return sql_plan_execute(&applied, &id, NULL) > 0;
}

/*
 * All that stood in the topics at that time, up to their high watermarks, has
 * been read, and applied?  The reporter, woken, looks for the ends again.
 */
static bool
all_is_applied(TimestampTz asked)
{
	static SqlPlan applied = {
		"SELECT WHERE NOT EXISTS (SELECT FROM report.applied a"
		" JOIN report.definitions d USING (name)"
		" WHERE d.enabled AND NOT a.failed AND a.applied_seq <"
		" (SELECT COALESCE(pg_catalog.max(e.log_seq), 0)"
		" FROM report.reported_events e))",
		0, {0}, NULL
	};
	ReporterReport *report = palloc(sizeof(ReporterReport));
	int			pid;
	bool		done = shared_get_reporter(MyDatabaseId, &pid, report) &&
	pid != 0 && report->proven >= asked;

	pfree(report);
	return done && sql_plan_execute(&applied, NULL, NULL) > 0;
}

Datum
report_wait_applied(PG_FUNCTION_ARGS)
{
	TimestampTz asked = worker_steady_now();
	TimestampTz deadline;
	AsOwner		scope;
	long		ms = WAIT_FIRST_MS;
	bool		done;

	/* one that is only starting is waited for */
	if (!shared_available() || !worker_database_named(setting_report_databases))
		ereport(ERROR,
				(errcode(ERRCODE_OB_NO_WORKER),
				 errmsg("no reporter runs for this database"),
				 errhint("SELECT * FROM report.status tells what to do.")));

	/*
	 * an event comes with the primary's changes, what is in the topics does
	 * not
	 */
	if (PG_ARGISNULL(0) && RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OB_NO_WORKER),
				 errmsg("no reporter runs on a standby"),
				 errhint("Call it on the primary; or wait here for an event by its id.")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("report.wait_applied needs isolation level READ COMMITTED"),
				 errdetail("A transaction of another level never sees what is applied after it began."),
				 errhint("Call it before that transaction.")));
	if (PG_ARGISNULL(1))
		deadline = DT_NOEND;
	else
		deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														   TimestampTzGetDatum(asked),
														   PG_GETARG_DATUM(1)));

	if (PG_ARGISNULL(0))
		shared_wake_reporter(MyDatabaseId);
	for (;;)
	{
		static uint32 wait_event = 0;
		long		left;

		as_owner_begin(&scope);
		done = PG_ARGISNULL(0) ? all_is_applied(asked) :
			event_is_applied(PG_GETARG_DATUM(0));
		as_owner_end(&scope);
		if (done)
			PG_RETURN_BOOL(true);

		left = TimestampDifferenceMilliseconds(worker_steady_now(),
											   deadline);
		if (left <= 0)
			PG_RETURN_BOOL(false);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(ms, left),
						 compat_wait_event(&wait_event, "CarshopWaitApplied"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		ms = Min(ms * 2, WAIT_LONGEST_MS);
	}
}

/* ------------------------------------------------------------------------
 * What the worker says about itself
 * ------------------------------------------------------------------------
 */

static Datum
text_value(const char *text, bool *isnull)
{
	*isnull = text[0] == '\0';
	return *isnull ? (Datum) 0 : CStringGetTextDatum(text);
}

static Datum
time_value(TimestampTz time, bool *isnull)
{
	*isnull = time == 0;
	return TimestampTzGetDatum(time);
}

Datum
report_worker(PG_FUNCTION_ARGS)
{
	ReporterReport *report = palloc0(sizeof(ReporterReport));
	TupleDesc	desc;
	Datum		values[10];
	bool		nulls[10];
	int			pid = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!shared_available() ||
		!shared_get_reporter(MyDatabaseId, &pid, report) || pid == 0)
		memset(report, 0, sizeof(*report));

	memset(nulls, 0, sizeof(nulls));
	values[0] = BoolGetDatum(shared_available());
	values[1] = BoolGetDatum(shared_available() &&
							 worker_database_named(setting_report_databases));
	values[2] = Int32GetDatum(pid);
	nulls[2] = pid == 0;
	values[3] = text_value(report->state, &nulls[3]);
	values[4] = time_value(report->since, &nulls[4]);
	values[5] = text_value(report->trouble.message, &nulls[5]);
	values[6] = text_value(report->trouble.remedy, &nulls[6]);
	values[7] = time_value(report->trouble.at, &nulls[7]);
	values[8] = Int32GetDatum(report->catch_up_processes);
	values[9] = Int32GetDatum(report->in_turns);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}

Datum
report_worker_partitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ReporterReport *report = palloc0(sizeof(ReporterReport));
	int			pid = 0;

	InitMaterializedSRF(fcinfo, 0);
	if (!shared_available() ||
		!shared_get_reporter(MyDatabaseId, &pid, report) || pid == 0)
		return (Datum) 0;

	for (int i = 0; i < report->n_partitions; i++)
	{
		PartitionReport *partition = &report->partitions[i];
		Datum		values[14];
		bool		nulls[14];

		memset(nulls, 0, sizeof(nulls));
		values[0] = CStringGetTextDatum(partition->topic);
		values[1] = Int32GetDatum(partition->partition);
		values[2] = text_value(partition->state, &nulls[2]);
		values[3] = Int64GetDatum(partition->kafka_offset);
		values[4] = Int64GetDatum(partition->high_watermark);
		nulls[4] = partition->high_watermark < 0;
		values[5] = Int64GetDatum(partition->events_applied);
		values[6] = Int64GetDatum(partition->duplicates);
		values[7] = Int64GetDatum(partition->skipped);
		values[8] = Int64GetDatum(partition->dead_letters);
		values[9] = time_value(partition->last_applied_at, &nulls[9]);
		values[10] = text_value(partition->last_error, &nulls[10]);
		values[11] = time_value(partition->last_error_at, &nulls[11]);
		values[12] = Int64GetDatum(partition->stable_offset);
		nulls[12] = partition->stable_offset < 0;
		values[13] = time_value(partition->held_since, &nulls[13]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}

/* report.worker_counters(): a histogram, a row each bucket, and its sum. */
Datum
report_worker_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ReporterReport *report = palloc0(sizeof(ReporterReport));
	int			pid;

	InitMaterializedSRF(fcinfo, 0);
	if (shared_available())
		(void) shared_get_reporter(MyDatabaseId, &pid, report);
	for (int i = 0; i <= SHARED_BUCKETS; i++)
	{
		bool		bucket = i < SHARED_BUCKETS;
		Datum		values[3];
		bool		nulls[3] = {0};

		values[0] = CStringGetTextDatum(bucket ? "latency" : "latency_sum");
		values[1] = CStringGetTextDatum(bucket ? latency_bucket_name(i) : "");
		values[2] = Float8GetDatum(bucket ? (double) report->latency.events[i] :
								   report->latency.sum);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
