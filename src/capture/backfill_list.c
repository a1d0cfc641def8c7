/*-------------------------------------------------------------------------
 *
 * backfill_list.c
 *	  The list of rows that a backfill has to do, and its progress.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The one place of capture/ where rights change: a table's own code runs as the
 * table's owner, and our tables are written as theirs, by constant statements.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "capture/backfill.h"
#include "capture/pins.h"
#include "capture/route.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "errors.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "outbox/event.h"
#include "outbox/relations.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* A list of keys is written in pieces of this size. */
#define LIST_PIECE	10000

/* ---- roles ---- */

/*
 * Act as a role, with settings under which texts of keys mean the same in each
 * batch, and policies that would hide rows are an error.
 */
void
backfill_become(Oid role, Role *former)
{
	GetUserIdAndSecContext(&former->user, &former->security);
	SetUserIdAndSecContext(role, former->security | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	former->settings = NewGUCNestLevel();
	(void) pins_set(PIN_ALL);	/* undone with the level around it */
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
backfill_become_again(const Role *former)
{
	AtEOXact_GUC(false, former->settings);
	SetUserIdAndSecContext(former->user, former->security);
}

Oid
backfill_owner(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table with OID %u does not exist", relation)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * One of this file's constant statements on our own tables.  Its result stands
 * in SPI_tuptable; answers the number of rows.
 */
uint64
backfill_ours(const char *sql, int n, Oid *types, Datum *values, const char *nulls)
{
	Role		former;
	int			result;

	backfill_become(backfill_owner(outbox_relation("backfill_progress")), &former);
	result = SPI_execute_with_args(sql, n, types, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
	backfill_become_again(&former);
	return SPI_processed;
}

/* A value of the first row of that result. */
Datum
backfill_answer(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}

/* ---- the list of rows ---- */

/* Note the keys of the rows that are there. */
static void
make_list(Backfill *b)
{
	Oid			types[] = {INT8OID, TEXTARRAYOID, INT8OID};
	Relation	rel = relation_open(b->source, AccessShareLock);
	Relation	pkey = index_open(route_primary_key(rel), AccessShareLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "carshop_outbox keys",
												  ALLOCSET_DEFAULT_SIZES);
	StringInfoData sql;
	Portal		portal;
	Role		former;

	backfill_become(b->owner, &former);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	backfill_append_key(&sql, rel, pkey);
	backfill_append_from(&sql, b, rel, "");
	portal = SPI_cursor_open_with_args(NULL, sql.data, 0, NULL, NULL, NULL, true,
									   CURSOR_OPT_NO_SCROLL);
	for (;;)
	{
		MemoryContext old;
		SPITupleTable *table;
		Datum	   *keys;
		Datum		values[3];
		uint64		n;

		SPI_cursor_fetch(portal, true, LIST_PIECE);
		n = SPI_processed;
		table = SPI_tuptable;
		if (n == 0)
			break;
		old = MemoryContextSwitchTo(context);
		keys = palloc(sizeof(Datum) * n);
		for (uint64 i = 0; i < n; i++)
		{
			bool		isnull;

			keys[i] = SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull);
		}
		values[0] = Int64GetDatum(b->id);
		values[1] = PointerGetDatum(construct_array(keys, n, TEXTOID, -1, false, TYPALIGN_INT));
		values[2] = Int64GetDatum(b->total);
		MemoryContextSwitchTo(old);
		(void) backfill_ours("INSERT INTO outbox.backfill_row (backfill, n, key)"
							 " SELECT $1, $3 OPERATOR(pg_catalog.+) u.n, u.key"
							 " FROM pg_catalog.unnest($2) WITH ORDINALITY AS u (key, n)",
							 3, types, values, NULL);
		b->total += n;
		SPI_freetuptable(table);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	backfill_become_again(&former);
	MemoryContextDelete(context);
	index_close(pkey, AccessShareLock);
	relation_close(rel, AccessShareLock);
}

/* ---- the progress ---- */

void
backfill_remove(const Backfill *b)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(b->id)};

	(void) backfill_ours("DELETE FROM outbox.backfill_progress WHERE id OPERATOR(pg_catalog.=) $1",
						 1, types, values, NULL);
}

/* Note which rows are there, in the caller's transaction. */
static void
begin(Backfill *b)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[2];

	/* lists of backfills that were given up */
	(void) backfill_ours("DELETE FROM outbox.backfill_row r WHERE NOT EXISTS"
						 " (SELECT FROM outbox.backfill_progress p WHERE p.id OPERATOR(pg_catalog.=) r.backfill)",
						 0, NULL, NULL, NULL);
	make_list(b);
	values[0] = Int64GetDatum(b->id);
	values[1] = Int64GetDatum(b->total);
	(void) backfill_ours("UPDATE outbox.backfill_progress SET total = $2 WHERE id OPERATOR(pg_catalog.=) $1",
						 2, types, values, NULL);
}

/*
 * Go on with an unfinished backfill of this route, or begin one.  Who calls this
 * for the same route at the same time waits for the end of our transaction, and
 * then works on the same list.
 */
void
backfill_begin(Backfill *b)
{
	Oid			types[] = {OIDOID, TEXTOID, TEXTOID};
	Datum		values[3] = {ObjectIdGetDatum(b->source), CStringGetTextDatum(b->event_type)};
	char		nulls[] = {' ', ' ', b->condition ? ' ' : 'n'};
	bool		isnull;
	Datum		value;
	char	   *condition = NULL;

	if (b->condition != NULL)
		values[2] = CStringGetTextDatum(b->condition);
	if (backfill_ours("INSERT INTO outbox.backfill_progress AS p (source, event_type, condition)"
					  " VALUES ($1, $2, $3) ON CONFLICT (source, event_type)"
					  " DO NOTHING RETURNING p.id",
					  3, types, values, nulls) == 1)
	{
		b->id = DatumGetInt64(backfill_answer(1, &isnull));
		begin(b);
		return;
	}
	if (backfill_ours("SELECT p.id, p.done, p.total, p.condition FROM outbox.backfill_progress p"
					  " WHERE p.source OPERATOR(pg_catalog.=) $1 AND p.event_type OPERATOR(pg_catalog.=) $2",
					  2, types, values, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("another session has just finished the backfill of this route")));
	b->id = DatumGetInt64(backfill_answer(1, &isnull));
	b->done = DatumGetInt64(backfill_answer(2, &isnull));
	b->total = DatumGetInt64(backfill_answer(3, &isnull));
	value = backfill_answer(4, &isnull);
	if (!isnull)
		condition = TextDatumGetCString(value);
	if (b->condition != NULL && (condition == NULL || strcmp(condition, b->condition) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("an unfinished backfill of this route has another condition"),
				 errdetail("Its condition is: %s", condition ? condition : "none"),
				 errhint("Finish it with CALL outbox.backfill('%s', '%s'), or give it up with DELETE FROM outbox.backfill_progress WHERE id = " INT64_FORMAT ".",
						 b->name, b->event_type, b->id)));
	b->condition = condition;
}

/* Others may work on the same list: one transaction at a time.  False: finished. */
bool
backfill_lock(Backfill *b)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(b->id)};
	bool		isnull;

	if (backfill_ours("SELECT p.done FROM outbox.backfill_progress p"
					  " WHERE p.id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
					  1, types, values, NULL) == 0)
		return false;
	b->done = DatumGetInt64(backfill_answer(1, &isnull));
	return true;
}

/* The rows of the list that were dealt with. */
void
backfill_cross_off(Backfill *b, Datum places, int64 n)
{
	Oid			types[] = {INT8OID, INT8ARRAYOID, INT8OID};
	Datum		values[] = {Int64GetDatum(b->id), places, Int64GetDatum(n)};

	(void) backfill_ours("DELETE FROM outbox.backfill_row WHERE backfill OPERATOR(pg_catalog.=) $1"
						 " AND n OPERATOR(pg_catalog.=) ANY ($2)",
						 2, types, values, NULL);
	(void) backfill_ours("UPDATE outbox.backfill_progress SET done = done OPERATOR(pg_catalog.+) $3,"
						 " changed_at = pg_catalog.clock_timestamp()"
						 " WHERE id OPERATOR(pg_catalog.=) $1",
						 3, types, values, NULL);
	b->done += n;
}
