/*-------------------------------------------------------------------------
 *
 * tick.c
 *	  Ticks: snapshots that cut the outbox into batches.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mutants.h"
#include "outbox/batch.h"
#include "outbox/relations.h"
#include "outbox/tick.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define TICK_COLUMNS "tick_id, nonce::pg_catalog.text, snapshot::pg_catalog.text, confirmed_tick, created_at"

void
tick_free(Tick *tick)
{
	snapshot_free(&tick->snapshot);
	memset(tick, 0, sizeof(*tick));
}

static void
parse_snapshot(TickSnapshot *snapshot, const char *text)
{
	if (!snapshot_parse(snapshot, text))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not read snapshot \"%s\" of a tick", text)));
}

/* Run a kept plan that answers ticks; takes the first row. */
static bool
one_tick(SPIPlanPtr *plan, const char *query, int64 argument, Tick *tick)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	HeapTuple	row;
	TupleDesc	desc;
	bool		isnull;

	memset(tick, 0, sizeof(*tick));
	if (*plan == NULL)
	{
		SPIPlanPtr	made = SPI_prepare(query, 1, types);

		if (made == NULL || SPI_keepplan(made) != 0)
			elog(ERROR, "could not prepare \"%s\"", query);
		*plan = made;
	}
	values[0] = Int64GetDatum(argument);
	if (SPI_execute_plan(*plan, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", query);
	if (SPI_processed == 0)
		return false;
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	tick->tick_id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	strlcpy(tick->nonce, SPI_getvalue(row, desc, 2), sizeof(tick->nonce));
	parse_snapshot(&tick->snapshot, SPI_getvalue(row, desc, 3));
	tick->confirmed_tick = DatumGetInt64(SPI_getbinval(row, desc, 4, &isnull));
	tick->created_at = DatumGetTimestampTz(SPI_getbinval(row, desc, 5, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return true;
}

bool
tick_find(int64 tick_id, Tick *tick)
{
	static SPIPlanPtr plan = NULL;

	if (tick_id == 0)
	{
		memset(tick, 0, sizeof(*tick));
		snapshot_init_empty(&tick->snapshot);
		return true;
	}
	return one_tick(&plan, "SELECT " TICK_COLUMNS
					" FROM outbox.tick WHERE tick_id OPERATOR(pg_catalog.=) $1",
					tick_id, tick);
}

bool
tick_next(int64 after, Tick *tick)
{
	static SPIPlanPtr plan = NULL;

	return one_tick(&plan, "SELECT " TICK_COLUMNS
					" FROM outbox.tick WHERE tick_id OPERATOR(pg_catalog.>) $1"
					" ORDER BY tick_id LIMIT 1", after, tick);
}

void
tick_newest(Tick *tick)
{
	static SPIPlanPtr plan = NULL;

	/* the argument only gives the query the shape of the others */
	if (!one_tick(&plan, "SELECT " TICK_COLUMNS
				  " FROM outbox.tick WHERE tick_id OPERATOR(pg_catalog.>) $1"
				  " ORDER BY tick_id DESC LIMIT 1", 0, tick))
		(void) tick_find(0, tick);
}

void
tick_lock(void)
{
	LockRelationOid(outbox_relation("tick"), RowExclusiveLock);
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
}

bool
tick_snapshot_now(TickSnapshot *snapshot)
{
	Datum		now = DirectFunctionCall1(pg_current_snapshot, (Datum) 0);

	return snapshot_parse(snapshot, OidOutputFunctionCall(F_PG_SNAPSHOT_OUT, now));
}

/* The row of a tick whose snapshot is filled already. */
static void
insert_tick(const Tick *prev, int64 confirmed_tick, TimestampTz since, Datum snapshot,
			Tick *tick)
{
	static SPIPlanPtr plan = NULL;
	Datum		values[4];
	HeapTuple	row;

	if (plan == NULL)
	{
		Oid			types[4] = {INT8OID, PG_SNAPSHOTOID, INT8OID, TIMESTAMPTZOID};
		SPIPlanPtr	made = SPI_prepare("INSERT INTO outbox.tick (tick_id, nonce, snapshot, confirmed_tick, created_at)"
									   " VALUES ($1, pg_catalog.gen_random_uuid(), $2, $3, $4)"
									   " RETURNING nonce::pg_catalog.text", 4, types);

		if (made == NULL || SPI_keepplan(made) != 0)
			elog(ERROR, "could not prepare the insert of a tick");
		plan = made;
	}
	values[0] = Int64GetDatum(prev->tick_id + 1);
	values[1] = snapshot;
	values[2] = Int64GetDatum(confirmed_tick);
	tick->created_at = since != 0 ? since : GetCurrentTimestamp();
	values[3] = TimestampTzGetDatum(tick->created_at);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not insert a tick");
	row = SPI_tuptable->vals[0];
	tick->tick_id = prev->tick_id + 1;
	tick->confirmed_tick = confirmed_tick;
	strlcpy(tick->nonce, SPI_getvalue(row, SPI_tuptable->tupdesc, 1),
			sizeof(tick->nonce));
	SPI_freetuptable(SPI_tuptable);
}

bool
tick_make(const Tick *prev, int64 confirmed_tick, bool always, TimestampTz since,
		  Tick *tick)
{
	Datum		snapshot;
	char	   *text;
	XidRange   *ranges;
	size_t		n;
	bool		any;

	/*
	 * The active snapshot was taken before this transaction gets an id, so
	 * the tick does not list itself as in progress.
	 */
	snapshot = DirectFunctionCall1(pg_current_snapshot, (Datum) 0);
	text = OidOutputFunctionCall(F_PG_SNAPSHOT_OUT, snapshot);
	if (MUTANT("horizon"))
	{
		text = psprintf("%.*s:%.*s:", (int) strcspn(text, ":"), text,
						(int) strcspn(text, ":"), text);
		snapshot = OidInputFunctionCall(F_PG_SNAPSHOT_IN, text, InvalidOid, -1);
	}
	if (MUTANT("skip_late"))
	{
		char	   *xmax = strchr(text, ':') + 1;

		text = psprintf("%.*s:%.*s:", (int) strcspn(xmax, ":"), xmax,
						(int) strcspn(xmax, ":"), xmax);
		snapshot = OidInputFunctionCall(F_PG_SNAPSHOT_IN, text, InvalidOid, -1);
	}

	memset(tick, 0, sizeof(*tick));
	parse_snapshot(&tick->snapshot, text);
	if (!snapshot_difference(&prev->snapshot, &tick->snapshot, &ranges, &n))
	{
		tick_free(tick);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("snapshot %s is older than that of tick " INT64_FORMAT,
						text, prev->tick_id)));
	}
	any = always || batch_any_event(-1, ranges, n);
	free(ranges);
	if (any)
		insert_tick(prev, confirmed_tick, since, snapshot, tick);
	else
		tick_free(tick);
	return any;
}

bool
tick_is_near(const Tick *prev, uint64 most)
{
	FullTransactionId next = ReadNextFullTransactionId();

	if (U64FromFullTransactionId(next) - prev->snapshot.xmax > most)
		return false;
	(void) GetTopFullTransactionId();
	return true;
}

bool
tick_make_own(const Tick *prev, int64 confirmed_tick, Tick *tick)
{
	const TickSnapshot *former = &prev->snapshot;
	uint64		own = U64FromFullTransactionId(GetTopFullTransactionId());
	StringInfoData text;
	const char *comma = "";

	memset(tick, 0, sizeof(*tick));
	initStringInfo(&text);
	appendStringInfo(&text, UINT64_FORMAT ":" UINT64_FORMAT ":", former->xmin, own + 1);
	for (size_t i = 0; i < former->nxip; i++, comma = ",")
		appendStringInfo(&text, "%s" UINT64_FORMAT, comma, former->xip[i]);
	for (uint64 xid = former->xmax; xid < own; xid++, comma = ",")
		appendStringInfo(&text, "%s" UINT64_FORMAT, comma, xid);
	parse_snapshot(&tick->snapshot, text.data);
	insert_tick(prev, confirmed_tick, 0,
				OidInputFunctionCall(F_PG_SNAPSHOT_IN, text.data, InvalidOid, -1), tick);
	return true;
}
