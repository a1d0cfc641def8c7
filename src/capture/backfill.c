/*-------------------------------------------------------------------------
 *
 * backfill.c
 *	  CALL outbox.backfill: a route's events for the rows that are already there.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Right beside concurrent writers
 * - First the primary keys of the rows that are there are noted, with one
 *   snapshot, in outbox.backfill_row.  Rows that come later have their own
 *   event, and are not in the list; so each row gets one event, whatever is
 *   inserted, updated or restarted meanwhile.
 * - Each row is locked FOR SHARE before its event is made, and read under the
 *   lock.  A writer that holds the row is waited for, and its newer image is
 *   taken; one that comes later draws its seq after our commit (promise I4).
 *   So an older image never follows a newer one.
 *
 * In batches: each is a transaction of its own that also takes its rows off the
 * list, so the call can be interrupted at any time and called again.  In a
 * transaction block all is one transaction.  A table without a primary key is
 * done in one transaction, too: its rows cannot be named.
 *
 * Whose rights: the caller must own the table (or be a superuser).  Everything
 * that the table's columns, the route's condition and the caller's bring along
 * is executed as the table's owner, under restricted operation, as REFRESH
 * MATERIALIZED VIEW does: a superuser who calls this does not run a stranger's
 * code as superuser.  Our own tables are written as their owner, by constant
 * statements (backfill_list.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/xact.h"
#include "capture/backfill.h"
#include "capture/capture.h"
#include "capture/route.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "errors.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "mutants.h"
#include "nodes/parsenodes.h"
#include "outbox/event.h"
#include "outbox/writer.h"
#include "settings.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(outbox_backfill);

/*
 * Progress for whoever called: once a second at most, and always at the end.
 */
static void
tell(Backfill *b, bool always)
{
	TimestampTz now = GetCurrentTimestamp();

	/* a last batch that took its time has told the end already */
	if (b->done == b->told && b->done > 0)
		return;
	if (always || TimestampDifferenceExceeds(b->told_at, now, 1000))
	{
		ereport(NOTICE,
				(errmsg("backfill of \"%s\" on %s: " INT64_FORMAT " of " INT64_FORMAT " rows",
						b->event_type, b->name, b->done, b->total)));
		b->told_at = now;
		b->told = b->done;
	}
}

/* ---- the events ---- */

/* The events of the rows that a query has locked, whole rows in column 1. */
static void
make_events(const Backfill *b, Relation rel, SPITupleTable *table, uint64 n)
{
	const Trigger *trigger = backfill_trigger(rel, b->event_type);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "carshop_outbox row",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		row = SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull);

		if (!isnull)
		{
			HeapTupleHeader header = DatumGetHeapTupleHeader(row);
			HeapTupleData tuple = {
				.t_len = HeapTupleHeaderGetDatumLength(header),
				.t_data = header
			};

			capture_inserted(rel, trigger, &tuple);
		}
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	writer_statement_ended();
}

/*
 * The events of listed rows, whole rows in column 1, places in column 2.
 * Answers the places as an array, and how many.
 */
static Datum
events_of_rows(Backfill *b, Datum places, Datum keys, bool wait, uint64 *n)
{
	Relation	rel = relation_open(b->source, AccessShareLock);
	Relation	pkey;
	Oid			types[2] = {INT8ARRAYOID, TEXTARRAYOID};
	Datum		values[2] = {places, keys};
	StringInfoData sql;
	SPITupleTable *table;
	Role		former;
	Datum	   *found;

	/* it may have been given to somebody since the last transaction */
	if (!compat_owns_relation(b->source, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
	b->owner = rel->rd_rel->relowner;
	if (!OidIsValid(route_primary_key(rel)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s has lost its primary key during the backfill", b->name)));
	pkey = index_open(route_primary_key(rel), AccessShareLock);
	backfill_become(b->owner, &former);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT new, \"outbox key\".\"outbox place\"");
	backfill_append_from(&sql, b, rel,
						 "ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS \"outbox key\" (\"outbox place\", \"outbox key\"), ");
	backfill_append_match(&sql, rel, pkey);
	if (!MUTANT("backfill_no_lock"))
		appendStringInfo(&sql, " FOR SHARE OF new%s",
						 wait || MUTANT("backfill_waits") ? "" : " SKIP LOCKED");
	if (SPI_execute_with_args(sql.data, 2, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the rows of %s", b->name);
	*n = SPI_processed;
	table = SPI_tuptable;
	make_events(b, rel, table, *n);
	backfill_become_again(&former);

	found = palloc(sizeof(Datum) * (*n + 1));
	for (uint64 i = 0; i < *n; i++)
	{
		bool		isnull;

		found[i] = Int64GetDatum(DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc,
															 2, &isnull)));
	}
	places = PointerGetDatum(construct_array(found, *n, INT8OID, sizeof(int64),
											 FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	SPI_freetuptable(table);
	index_close(pkey, AccessShareLock);
	relation_close(rel, AccessShareLock);
	return places;
}

/*
 * One batch of the list behind a place: the rows that nobody else has locked.
 * Rows that somebody has are left for do_rest, so that we never wait for one
 * while we hold others: a shop's transaction cannot meet a deadlock with us.
 * False: the list has no more rows behind the place.
 */
static bool
do_batch(Backfill *b)
{
	Oid			types[] = {INT8OID, INT8OID, INT8OID};
	Datum		values[] = {
		Int64GetDatum(b->id), Int64GetDatum(b->place), Int64GetDatum(b->batch)
	};
	Datum		places;
	Datum		keys;
	bool		isnull;
	uint64		n;

	if (!backfill_lock(b))
		return false;
	(void) backfill_ours("SELECT pg_catalog.array_agg(r.n), pg_catalog.array_agg(r.key), pg_catalog.max(r.n)"
						 " FROM (SELECT n, key FROM outbox.backfill_row"
						 " WHERE backfill OPERATOR(pg_catalog.=) $1 AND n OPERATOR(pg_catalog.>) $2"
						 " ORDER BY n LIMIT $3) r",
						 3, types, values, NULL);
	places = backfill_answer(1, &isnull);
	if (isnull)
		return false;
	keys = backfill_answer(2, &isnull);
	b->place = DatumGetInt64(backfill_answer(3, &isnull));
	places = events_of_rows(b, places, keys, false, &n);
	if (n > 0)
		backfill_cross_off(b, places, n);
	return true;
}

/*
 * One row that was locked when its turn came, or is not there any more.  Now we
 * wait for it.  False: the list is empty.
 */
static bool
do_rest(Backfill *b)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(b->id)};
	Datum		places;
	Datum		keys;
	bool		isnull;
	uint64		n;

	if (!backfill_lock(b))
		return false;
	if (backfill_ours("SELECT ARRAY[n], ARRAY[key] FROM outbox.backfill_row"
					  " WHERE backfill OPERATOR(pg_catalog.=) $1 ORDER BY n LIMIT 1",
					  1, types, values, NULL) == 0)
		return false;
	places = backfill_answer(1, &isnull);
	keys = backfill_answer(2, &isnull);
	(void) events_of_rows(b, places, keys, true, &n);
	backfill_cross_off(b, places, 1);
	return true;
}

/* A table without a primary key, in one go. */
static void
do_all(Backfill *b)
{
	Relation	rel = relation_open(b->source, AccessShareLock);
	StringInfoData sql;
	Portal		portal;
	Role		former;

	ereport(NOTICE,
			(errmsg("table %s has no primary key: its backfill is one transaction", b->name)));
	backfill_become(b->owner, &former);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT new");
	backfill_append_from(&sql, b, rel, "");
	appendStringInfoString(&sql, " FOR SHARE OF new");
	portal = SPI_cursor_open_with_args(NULL, sql.data, 0, NULL, NULL, NULL, false,
									   CURSOR_OPT_NO_SCROLL);
	for (;;)
	{
		uint64		n;

		SPI_cursor_fetch(portal, true, b->batch);
		n = SPI_processed;
		if (n == 0)
			break;
		make_events(b, rel, SPI_tuptable, n);
		b->done += n;
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	backfill_become_again(&former);
	relation_close(rel, AccessShareLock);
	ereport(NOTICE,
			(errmsg("backfill of \"%s\" on %s: " INT64_FORMAT " rows",
					b->event_type, b->name, b->done)));
}

/* ---- the procedure ---- */

/*
 * Refuse what cannot be done, before anything is noted; fills owner and name.
 */
static void
check_call(Backfill *b)
{
	Relation	rel;

	if (b->batch < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch must not be negative"),
				 errhint("It is the number of rows in a transaction; 0 only notes which rows are there.")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("outbox.backfill needs isolation level READ COMMITTED"),
				 errdetail("It must read a row again after it has waited for the row's writer."),
				 errhint("SET default_transaction_isolation = 'read committed';")));
	b->owner = backfill_owner(b->source);
	b->name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(b->source)),
										 get_rel_name(b->source));
	if (!compat_owns_relation(b->source, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(b->source));
	rel = relation_open(b->source, AccessShareLock);
	(void) backfill_trigger(rel, b->event_type);
	relation_close(rel, AccessShareLock);
}

/* Each step in a transaction of its own, unless we are within one. */
static void
work(Backfill *b, bool (*step) (Backfill *), bool atomic)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "carshop_outbox backfill",
												  ALLOCSET_DEFAULT_SIZES);
	bool		more = true;

	while (more)
	{
		MemoryContext old;

		if (!atomic)
		{
			SPI_commit();
			EnsurePortalSnapshotExists();
		}
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(context);
		more = step(b);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		tell(b, false);
	}
	MemoryContextDelete(context);
}

/*
 * CALL outbox.backfill(source regclass, event_type text, condition text, batch integer)
 */
Datum
outbox_backfill(PG_FUNCTION_ARGS)
{
	bool		atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
	castNode(CallContext, fcinfo->context)->atomic;
	Backfill	b = {0};
	Relation	rel;
	bool		keyless;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("source, event_type and batch must not be NULL")));
	if (SPI_connect_ext(atomic ? 0 : SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	b.source = PG_GETARG_OID(0);
	b.event_type = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!PG_ARGISNULL(2))
		b.condition = text_to_cstring(PG_GETARG_TEXT_PP(2));
	b.batch = PG_GETARG_INT32(3);

	check_call(&b);
	rel = relation_open(b.source, AccessShareLock);
	keyless = !OidIsValid(route_primary_key(rel));
	relation_close(rel, AccessShareLock);
	if (keyless && b.batch > 0)
	{
		do_all(&b);
		SPI_finish();
		PG_RETURN_VOID();
	}
	if (keyless)
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("table %s has no primary key: its rows cannot be noted", b.name),
				 errhint("Call outbox.capture and outbox.backfill in one transaction.")));

	backfill_begin(&b);
	tell(&b, true);
	if (b.batch > 0)
	{
		work(&b, do_batch, atomic);
		work(&b, do_rest, atomic);
		backfill_remove(&b);
		tell(&b, true);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
