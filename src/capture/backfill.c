/*-------------------------------------------------------------------------
 *
 * backfill.c
 *	  CALL outbox.backfill: a route's events for the rows that are already there.
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
 * transaction block all is one transaction.  A table without a primary key is done in one
 * transaction, too: its rows cannot be named.
 *
 * Whose rights: the caller must own the table (or be a superuser).  Everything
 * that the table's columns, the route's condition and the caller's bring along
 * is executed as the table's owner, under restricted operation, as REFRESH
 * MATERIALIZED VIEW does: a superuser who calls this does not run a stranger's
 * code as superuser.  Our own tables are written as their owner, by the
 * constant statements of this file.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "capture/capture.h"
#include "capture/pins.h"
#include "capture/route.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "outbox/event.h"
#include "outbox/route_arguments.h"
#include "outbox/writer.h"
#include "settings.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(outbox_backfill);

/* A list of keys is written in pieces of this size. */
#define LIST_PIECE	10000

typedef struct Backfill
{
	Oid			source;
	char	   *event_type;
	char	   *condition;		/* NULL: none */
	int			batch;
	Oid			owner;			/* of the table */

	int64		id;				/* in outbox.backfill_progress */
	int64		place;			/* in the list */
	int64		done;			/* rows */
	int64		total;
	char	   *name;			/* of the table, for messages */
	TimestampTz told_at;
} Backfill;

/* Whom we act as, and whom to become again. */
typedef struct Role
{
	Oid			user;
	int			security;
	int			settings;		/* GUC nest level */
} Role;

/* ---- roles ---- */

/*
 * Act as a role, with settings under which texts of keys mean the same in each
 * batch, and policies that would hide rows are an error.
 */
static void
become(Oid role, Role *former)
{
	GetUserIdAndSecContext(&former->user, &former->security);
	SetUserIdAndSecContext(role, former->security | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	former->settings = NewGUCNestLevel();
	(void) pins_set(PIN_ALL);	/* undone with the level around it */
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
become_again(const Role *former)
{
	AtEOXact_GUC(false, former->settings);
	SetUserIdAndSecContext(former->user, former->security);
}

static Oid
owner_of(Oid relation)
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
static uint64
ours(const char *sql, int n, Oid *types, Datum *values, const char *nulls)
{
	Role		former;
	int			result;

	become(owner_of(outbox_relation("backfill_progress")), &former);
	result = SPI_execute_with_args(sql, n, types, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
	become_again(&former);
	return SPI_processed;
}

/* A value of the first row of that result. */
static Datum
answer(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}

/* ---- the route ---- */

/*
 * The enabled trigger of the route on insert; a copy, since triggers may be
 * made while we read.
 */
static const Trigger *
find_trigger(Relation rel, const char *event_type)
{
	Oid			function = outbox_capture_function(false);
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (trigger->tgfoid != function || !TRIGGER_FOR_INSERT(trigger->tgtype) ||
			trigger->tgenabled == TRIGGER_DISABLED)
			continue;
		for (int a = 0; a < trigger->tgnargs; a++)
		{
			const char *type = route_argument_value(trigger->tgargs[a], "event_type");

			if (type != NULL && strcmp(type, event_type) == 0)
				return trigger;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_OB_ROUTE_REFUSED),
			 errmsg("table \"%s\" has no enabled route \"%s\" for inserted rows",
					RelationGetRelationName(rel), event_type),
			 errhint("Make it with outbox.capture first; outbox.routes lists the routes.")));
}

/* The trigger's WHEN as SQL over NEW, or NULL. */
static char *
trigger_condition(const Trigger *trigger)
{
	static const char sql[] =
		"SELECT pg_catalog.substring(pg_catalog.pg_get_triggerdef($1), ' WHEN \\((.*)\\) EXECUTE FUNCTION ')";
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(trigger->tgoid)};

	if (trigger->tgqual == NULL)
		return NULL;
	if (SPI_execute_with_args(sql, 1, types, values, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read the condition of trigger %u", trigger->tgoid);
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * FROM the source under the name NEW (so that conditions can say NEW.column),
 * joined with further items, WHERE the route's condition and the caller's hold.
 */
static void
append_from(StringInfo sql, const Backfill *b, Relation rel, const char *more)
{
	char	   *when = trigger_condition(find_trigger(rel, b->event_type));

	/* children of plain inheritance do not fire their parent's triggers */
	appendStringInfo(sql, " FROM %s%s%s AS new WHERE true",
					 more, rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												RelationGetRelationName(rel)));
	if (when != NULL)
		appendStringInfo(sql, " AND (%s)", when);
	if (b->condition != NULL)
		appendStringInfo(sql, " AND (%s)", b->condition);
}

/* ---- the list of rows ---- */

/* SQL for the key of a row, an array of texts as text. */
static void
append_key(StringInfo sql, Relation rel, Relation pkey)
{
	appendStringInfoString(sql, "(ARRAY[");
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(pkey); i++)
	{
		Form_pg_attribute att =
			TupleDescAttr(RelationGetDescr(rel), pkey->rd_index->indkey.values[i] - 1);

		appendStringInfo(sql, "%snew.%s::pg_catalog.text", i > 0 ? ", " : "",
						 quote_identifier(NameStr(att->attname)));
	}
	appendStringInfoString(sql, "])::pg_catalog.text");
}

/*
 * SQL that compares a row's key with one of the list, by the index's own
 * operators: so the index can be used, whatever the types.
 */
static void
append_key_match(StringInfo sql, Relation rel, Relation pkey)
{
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(pkey); i++)
	{
		Form_pg_attribute att =
			TupleDescAttr(RelationGetDescr(rel), pkey->rd_index->indkey.values[i] - 1);
		Oid			operator = get_opfamily_member(pkey->rd_opfamily[i],
												   pkey->rd_opcintype[i],
												   pkey->rd_opcintype[i],
												   BTEqualStrategyNumber);
		HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
		Form_pg_operator form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for operator %u", operator);
		form = (Form_pg_operator) GETSTRUCT(tuple);
		appendStringInfo(sql, " AND new.%s OPERATOR(%s.%s) (\"outbox key\".\"outbox key\"::pg_catalog.text[])[%d]::%s",
						 quote_identifier(NameStr(att->attname)),
						 quote_identifier(get_namespace_name(form->oprnamespace)),
						 NameStr(form->oprname), i + 1,
						 format_type_be_qualified(att->atttypid));
		ReleaseSysCache(tuple);
	}
}

static Oid
primary_key(Relation rel)
{
	(void) RelationGetIndexList(rel);	/* loads rd_pkindex */
	return rel->rd_pkindex;
}

/* Note the keys of the rows that are there. */
static void
make_list(Backfill *b)
{
	Oid			types[] = {INT8OID, TEXTARRAYOID, INT8OID};
	Relation	rel = relation_open(b->source, AccessShareLock);
	Relation	pkey = index_open(primary_key(rel), AccessShareLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "carshop_outbox keys",
												  ALLOCSET_DEFAULT_SIZES);
	StringInfoData sql;
	Portal		portal;
	Role		former;

	become(b->owner, &former);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_key(&sql, rel, pkey);
	append_from(&sql, b, rel, "");
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
		(void) ours("INSERT INTO outbox.backfill_row (backfill, n, key)"
					" SELECT $1, $3 OPERATOR(pg_catalog.+) u.n, u.key"
					" FROM pg_catalog.unnest($2) WITH ORDINALITY AS u (key, n)",
					3, types, values, NULL);
		b->total += n;
		SPI_freetuptable(table);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	become_again(&former);
	MemoryContextDelete(context);
	index_close(pkey, AccessShareLock);
	relation_close(rel, AccessShareLock);
}

/* ---- the progress ---- */

static void
remove_progress(const Backfill *b)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(b->id)};

	(void) ours("DELETE FROM outbox.backfill_progress WHERE id OPERATOR(pg_catalog.=) $1",
				1, types, values, NULL);
}

static void
begin(Backfill *b)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[2];

	/* lists of backfills that were given up */
	(void) ours("DELETE FROM outbox.backfill_row r WHERE NOT EXISTS"
				" (SELECT FROM outbox.backfill_progress p WHERE p.id OPERATOR(pg_catalog.=) r.backfill)",
				0, NULL, NULL, NULL);
	make_list(b);
	values[0] = Int64GetDatum(b->id);
	values[1] = Int64GetDatum(b->total);
	(void) ours("UPDATE outbox.backfill_progress SET total = $2 WHERE id OPERATOR(pg_catalog.=) $1",
				2, types, values, NULL);
}

/*
 * Go on with an unfinished backfill of this route, or begin one.  Who calls this
 * for the same route at the same time waits for the end of our transaction, and
 * then works on the same list.
 */
static void
begin_or_resume(Backfill *b)
{
	Oid			types[] = {OIDOID, TEXTOID, TEXTOID};
	Datum		values[3] = {ObjectIdGetDatum(b->source), CStringGetTextDatum(b->event_type)};
	char		nulls[] = {' ', ' ', b->condition ? ' ' : 'n'};
	bool		isnull;
	Datum		value;
	char	   *condition = NULL;

	if (b->condition != NULL)
		values[2] = CStringGetTextDatum(b->condition);
	if (ours("INSERT INTO outbox.backfill_progress AS p (source, event_type, condition)"
			 " VALUES ($1, $2, $3) ON CONFLICT (source, event_type)"
			 " DO NOTHING RETURNING p.id",
			 3, types, values, nulls) == 1)
	{
		b->id = DatumGetInt64(answer(1, &isnull));
		begin(b);
		return;
	}
	if (ours("SELECT p.id, p.done, p.total, p.condition FROM outbox.backfill_progress p"
			 " WHERE p.source OPERATOR(pg_catalog.=) $1 AND p.event_type OPERATOR(pg_catalog.=) $2",
			 2, types, values, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("another session has just finished the backfill of this route")));
	b->id = DatumGetInt64(answer(1, &isnull));
	b->done = DatumGetInt64(answer(2, &isnull));
	b->total = DatumGetInt64(answer(3, &isnull));
	value = answer(4, &isnull);
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

static void
tell(Backfill *b, bool always)
{
	TimestampTz now = GetCurrentTimestamp();

	if (always || TimestampDifferenceExceeds(b->told_at, now, 1000))
	{
		ereport(NOTICE,
				(errmsg("backfill of \"%s\" on %s: " INT64_FORMAT " of " INT64_FORMAT " rows",
						b->event_type, b->name, b->done, b->total)));
		b->told_at = now;
	}
}

/* ---- the events ---- */

/* The events of the rows that a query has locked, whole rows in column 1. */
static void
make_events(const Backfill *b, Relation rel, SPITupleTable *table, uint64 n)
{
	const Trigger *trigger = find_trigger(rel, b->event_type);
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

/* Others may work on the same list: one transaction at a time.  False: finished. */
static bool
lock_progress(Backfill *b)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(b->id)};
	bool		isnull;

	if (ours("SELECT p.done FROM outbox.backfill_progress p"
			 " WHERE p.id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
			 1, types, values, NULL) == 0)
		return false;
	b->done = DatumGetInt64(answer(1, &isnull));
	return true;
}

/* The rows of the list that were dealt with. */
static void
cross_off(Backfill *b, Datum places, int64 n)
{
	Oid			types[] = {INT8OID, INT8ARRAYOID, INT8OID};
	Datum		values[] = {Int64GetDatum(b->id), places, Int64GetDatum(n)};

	(void) ours("DELETE FROM outbox.backfill_row WHERE backfill OPERATOR(pg_catalog.=) $1"
				" AND n OPERATOR(pg_catalog.=) ANY ($2)",
				2, types, values, NULL);
	(void) ours("UPDATE outbox.backfill_progress SET done = done OPERATOR(pg_catalog.+) $3,"
				" changed_at = pg_catalog.clock_timestamp()"
				" WHERE id OPERATOR(pg_catalog.=) $1",
				3, types, values, NULL);
	b->done += n;
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

	if (!OidIsValid(primary_key(rel)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s has lost its primary key during the backfill", b->name)));
	pkey = index_open(primary_key(rel), AccessShareLock);
	become(b->owner, &former);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT new, \"outbox key\".\"outbox place\"");
	append_from(&sql, b, rel,
				"ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS \"outbox key\" (\"outbox place\", \"outbox key\"), ");
	append_key_match(&sql, rel, pkey);
	if (!MUTANT("backfill_no_lock"))
		appendStringInfo(&sql, " FOR SHARE OF new%s",
						 wait || MUTANT("backfill_waits") ? "" : " SKIP LOCKED");
	if (SPI_execute_with_args(sql.data, 2, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the rows of %s", b->name);
	*n = SPI_processed;
	table = SPI_tuptable;
	make_events(b, rel, table, *n);
	become_again(&former);

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

	if (!lock_progress(b))
		return false;
	(void) ours("SELECT pg_catalog.array_agg(r.n), pg_catalog.array_agg(r.key), pg_catalog.max(r.n)"
				" FROM (SELECT n, key FROM outbox.backfill_row"
				" WHERE backfill OPERATOR(pg_catalog.=) $1 AND n OPERATOR(pg_catalog.>) $2"
				" ORDER BY n LIMIT $3) r",
				3, types, values, NULL);
	places = answer(1, &isnull);
	if (isnull)
		return false;
	keys = answer(2, &isnull);
	b->place = DatumGetInt64(answer(3, &isnull));
	places = events_of_rows(b, places, keys, false, &n);
	if (n > 0)
		cross_off(b, places, n);
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

	if (!lock_progress(b))
		return false;
	if (ours("SELECT ARRAY[n], ARRAY[key] FROM outbox.backfill_row"
			 " WHERE backfill OPERATOR(pg_catalog.=) $1 ORDER BY n LIMIT 1",
			 1, types, values, NULL) == 0)
		return false;
	places = answer(1, &isnull);
	keys = answer(2, &isnull);
	(void) events_of_rows(b, places, keys, true, &n);
	cross_off(b, places, 1);
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
	become(b->owner, &former);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT new");
	append_from(&sql, b, rel, "");
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
	become_again(&former);
	relation_close(rel, AccessShareLock);
	ereport(NOTICE,
			(errmsg("backfill of \"%s\" on %s: " INT64_FORMAT " rows",
					b->event_type, b->name, b->done)));
}

/* ---- the procedure ---- */

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
	b->owner = owner_of(b->source);
	b->name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(b->source)),
										 get_rel_name(b->source));
	if (!compat_owns_relation(b->source, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(b->source));
	rel = relation_open(b->source, AccessShareLock);
	(void) find_trigger(rel, b->event_type);
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
	keyless = !OidIsValid(primary_key(rel));
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

	begin_or_resume(&b);
	tell(&b, true);
	if (b.batch > 0)
	{
		work(&b, do_batch, atomic);
		work(&b, do_rest, atomic);
		remove_progress(&b);
		tell(&b, true);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
