/*-------------------------------------------------------------------------
 *
 * relay_status.c
 *	  What the relay says about itself, and SQL's ways to reach it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The views outbox.stat_relay and outbox.status are SQL over these functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/objectaddress.h"
#include "compat.h"
#include "errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "outbox/event.h"
#include "outbox/wakeup.h"
#include "pgstat.h"
#include "relay/counters.h"
#include "settings.h"
#include "shared.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "worker/latency.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(outbox_relay_report);
PG_FUNCTION_INFO_V1(outbox_relay_counters);
PG_FUNCTION_INFO_V1(outbox_has_relay);
PG_FUNCTION_INFO_V1(outbox_list_names);
PG_FUNCTION_INFO_V1(outbox_preloaded);
PG_FUNCTION_INFO_V1(outbox_wake);
PG_FUNCTION_INFO_V1(outbox_stat_reset);
PG_FUNCTION_INFO_V1(outbox_wait_published);

#define RELAY_REPORT_COLUMNS 22

Datum
outbox_preloaded(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(shared_available());
}

Datum
outbox_has_relay(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(shared_available() && worker_database_named(setting_shop_databases));
}

/* outbox.list_names(list text) */
Datum
outbox_list_names(PG_FUNCTION_ARGS)
{
	List	   *names = PG_ARGISNULL(0) ? NIL :
	settings_split(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_ARRAYTYPE_P(strlist_to_textarray(names));
}

/* Takes effect when the calling transaction commits. */
Datum
outbox_wake(PG_FUNCTION_ARGS)
{
	wakeup_at_commit();
	PG_RETURN_VOID();
}

Datum
outbox_stat_reset(PG_FUNCTION_ARGS)
{
	shared_stat_reset(MyDatabaseId, 'r');
	PG_RETURN_VOID();
}

static void
put_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text[0] == '\0';
	if (!nulls[column])
		values[column] = CStringGetTextDatum(text);
}

static void
put_time(Datum *values, bool *nulls, int column, TimestampTz at)
{
	nulls[column] = at == 0;
	values[column] = TimestampTzGetDatum(at);
}

/* outbox.relay_report(): one row. */
Datum
outbox_relay_report(PG_FUNCTION_ARGS)
{
	Datum		values[RELAY_REPORT_COLUMNS] = {0};
	bool		nulls[RELAY_REPORT_COLUMNS] = {0};
	RelayReport report;
	TupleDesc	desc;
	int			pid;
	int			n = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	(void) shared_get_relay(MyDatabaseId, &pid, &report);

	nulls[n] = pid == 0;
	values[n++] = Int32GetDatum(pid);
	put_text(values, nulls, n++, pid == 0 ? "not running" : report.state);
	put_time(values, nulls, n++, report.since);
	values[n++] = BoolGetDatum(report.stopped);
	put_text(values, nulls, n++, report.trouble.message);
	put_text(values, nulls, n++, report.trouble.remedy);
	put_text(values, nulls, n++, report.trouble.topic);
	put_text(values, nulls, n++, report.broker_warning);
	values[n++] = Int64GetDatum(report.tick);
	values[n++] = Int64GetDatum(report.confirmed_tick);
	values[n++] = Int64GetDatum(report.events_published);
	values[n++] = Int64GetDatum(report.bytes_published);
	values[n++] = Int64GetDatum(report.transactions);
	values[n++] = Float8GetDatum(report.last_transaction_ms);
	values[n++] = Float8GetDatum(report.settle_ms);
	values[n++] = Int64GetDatum(report.errors);
	put_text(values, nulls, n++, report.last_error);
	put_time(values, nulls, n++, report.last_error_at);
	put_time(values, nulls, n++, shared_stat_reset_at(MyDatabaseId, 'r'));
	values[n++] = BoolGetDatum(shared_available());
	values[n++] = BoolGetDatum(worker_database_named(setting_shop_databases));
	nulls[n] = report.lineage[0] == '\0';
	if (!nulls[n])
		values[n] = DirectFunctionCall1(uuid_in, CStringGetDatum(report.lineage));
	n++;
	Assert(n == RELAY_REPORT_COLUMNS);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/* One row of outbox.relay_counters(). */
static void
put_counter(ReturnSetInfo *rsinfo, const char *counter, const char *label, double value)
{
	Datum		values[3];
	bool		nulls[3] = {0};

	values[0] = CStringGetTextDatum(counter);
	values[1] = CStringGetTextDatum(label);
	values[2] = Float8GetDatum(value);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* outbox.relay_counters(): what relay/counters.c counts, a row each. */
Datum
outbox_relay_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RelayReport report;
	RelayCounters *counters = &report.counters;
	int			pid;

	InitMaterializedSRF(fcinfo, 0);
	(void) shared_get_relay(MyDatabaseId, &pid, &report);

	/* what has passed since it has told */
	if (pid != 0 && counters->at != 0 && counters->state >= 0)
		counters->state_us[counters->state] += Max(GetCurrentTimestamp() - counters->at, 0);
	for (int i = 0; i < SHARED_BUCKETS; i++)
		put_counter(rsinfo, "latency", latency_bucket_name(i), (double) counters->latency.events[i]);
	put_counter(rsinfo, "latency_sum", "", counters->latency.sum);
	for (int i = KAFKA_UNREACHABLE; counters_failure_name(i) != NULL; i++)
		put_counter(rsinfo, "failures", counters_failure_name(i), (double) counters->failures[i]);
	for (int i = 0; counters_state_name(i) != NULL; i++)
		put_counter(rsinfo, "state", counters_state_name(i),
					(double) counters->state_us[i] / USECS_PER_SEC);
	return (Datum) 0;
}

/* outbox.wait_published(timeout interval) */
Datum
outbox_wait_published(PG_FUNCTION_ARGS)
{
	Interval   *timeout = PG_GETARG_INTERVAL_P(0);
	TimestampTz end;
	uint64		ticket;

	if (!shared_available() || !worker_database_named(setting_shop_databases))
		ereport(ERROR,
				(errcode(ERRCODE_OB_NO_WORKER),
				 errmsg("no relay publishes the events of this database"),
				 errhint("SELECT * FROM outbox.status tells what to do.")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OB_NO_WORKER),
				 errmsg("no relay runs on a standby"),
				 errhint("Call it on the primary.")));
	end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												  TimestampTzGetDatum(worker_steady_now()),
												  IntervalPGetDatum(timeout)));

	/*
	 * The relay takes a snapshot after it has seen the ticket: whatever was
	 * committed before now is in it.
	 */
	ticket = shared_request_published(MyDatabaseId);
	while (!shared_is_published(MyDatabaseId, ticket))
	{
		static uint32 wait_event = 0;
		long		left = TimestampDifferenceMilliseconds(worker_steady_now(), end);

		if (left <= 0)
			PG_RETURN_BOOL(false);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left, 2),
						 compat_wait_event(&wait_event, "CarshopWaitPublished"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_BOOL(true);
}
