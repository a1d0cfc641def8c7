/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  Routes against DDL: what would break a route is refused.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Two event triggers call outbox.check_ddl: at the end of ALTER TABLE, ALTER
 * FOREIGN TABLE, ALTER TYPE (whose attributes are the columns of typed tables) and
 * CREATE TRIGGER, and when columns have been dropped (also by DROP TYPE ...
 * CASCADE and the like).  The routes of the tables concerned are compiled again,
 * as at the next write; whatever would fail there fails here, with the route's
 * name and the way on.  Only tables that the command has locked are looked at,
 * so nothing is waited for.
 *
 * It runs as the user of the command, and executes nothing of anybody's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "capture/route.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "errors.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "mutants.h"
#include "outbox/event.h"
#include "outbox/route_arguments.h"
#include "settings.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(outbox_check_ddl);

static const struct
{
	int16		type;
	RouteOperation operation;
	const char *word;
}			operations[] = {
	{TRIGGER_TYPE_INSERT, ROUTE_INSERT, "insert"},
	{TRIGGER_TYPE_UPDATE, ROUTE_UPDATE, "update"},
	{TRIGGER_TYPE_DELETE, ROUTE_DELETE, "delete"}
};

/* 'table', 'event type', as a person would type them. */
static char *
release_arguments(Relation rel, const Trigger *trigger)
{
	char	   *table =
	quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
							   RelationGetRelationName(rel));
	const char *event_type = NULL;

	for (int i = 0; event_type == NULL && i < trigger->tgnargs; i++)
		event_type = route_argument_value(trigger->tgargs[i], "event_type");
	return psprintf("%s, %s", quote_literal_cstr(table),
					event_type ? quote_literal_cstr(event_type) : "...");
}

/*
 * Compile one route; if that fails, say which command broke which route.  The
 * command fails in any case, so the first error need not be rolled back on its
 * own.
 */
static void
check_route_operation(Relation rel, const Trigger *trigger,
					  RouteOperation operation, const char *word, bool made_now)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		(void) route_compile(rel, operation, trigger->tgnargs, trigger->tgargs);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (made_now)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_OB_ROUTE_REFUSED)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("this would break the route of trigger \"%s\" (%s) on table \"%s\"",
						trigger->tgname, word, RelationGetRelationName(rel)),
				 errdetail("%s.", error->message),
				 errhint("In one transaction: SELECT outbox.release(%s), then this command, then outbox.capture with the new names.",
						 release_arguments(rel, trigger))));
	}
	PG_END_TRY();
}

/* Refuse a route's trigger that would not work.  made_now: by this command. */
static void
check_trigger(Relation rel, const Trigger *trigger, bool made_now)
{
	if (made_now &&
		(!TRIGGER_FOR_ROW(trigger->tgtype) || !TRIGGER_FOR_AFTER(trigger->tgtype)))
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("trigger \"%s\" must be AFTER ... FOR EACH ROW to call outbox.capture_row",
						trigger->tgname),
				 errhint("Make routes with outbox.capture.")));
	for (int i = 0; i < lengthof(operations); i++)
	{
		if (trigger->tgtype & operations[i].type)
			check_route_operation(rel, trigger, operations[i].operation,
								  operations[i].word, made_now);
	}
}

/*
 * Check the routes of a table: all, or only one trigger.  Triggers that were
 * cloned from a partitioned table are checked with the original.
 */
static void
check_table(Oid table, Oid only, Oid function)
{
	Relation	rel = relation_open(table, NoLock); /* the command's own lock */

	/*
	 * A copy: to compile a route takes locks, and a session that has missed
	 * too many changes of catalogs looks all of its relations up anew then
	 * (RelationCacheInvalidate).
	 */
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (trigger->tgfoid == function && !trigger->tgisclone &&
			(!OidIsValid(only) || trigger->tgoid == only))
			check_trigger(rel, trigger, OidIsValid(only));
	}
	relation_close(rel, NoLock);
}

/*
 * The table, and what inherits its columns.  A command that changes a column
 * has locked all of them; what another one has not locked, and somebody else
 * has, is left to the next write.
 */
static void
check_tree(Oid root, Oid function)
{
	ListCell   *lc;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(root)))
		return;
	foreach(lc, find_all_inheritors(root, NoLock, NULL))
	{
		Oid			table = lfirst_oid(lc);

		if (!ConditionalLockRelationOid(table, AccessShareLock))
			continue;
		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table)))
			check_table(table, InvalidOid, function);
		UnlockRelationOid(table, AccessShareLock);
	}
}

/* Tables OF a composite type, which its row in pg_class stands for. */
static List *
tables_of_type(Oid relation)
{
	Relation	rel = table_open(RelationRelationId, AccessShareLock);
	List	   *tables = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_class_reloftype, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(get_rel_type_id(relation)));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		tables = lappend_oid(tables, ((Form_pg_class) GETSTRUCT(tuple))->oid);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tables;
}

/* InvalidOid: the trigger is gone. */
static Oid
table_of_trigger(Oid oid)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			table = InvalidOid;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(oid));
	scan = systable_beginscan(rel, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		table = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return table;
}

Datum
outbox_check_ddl(PG_FUNCTION_ARGS)
{
	static const char altered[] =
	"SELECT DISTINCT classid, objid FROM pg_catalog.pg_event_trigger_ddl_commands()"
	" WHERE classid OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_class'::pg_catalog.regclass,"
	" 'pg_catalog.pg_trigger'::pg_catalog.regclass]::pg_catalog.oid[])";
	static const char dropped[] =
	"SELECT DISTINCT classid, objid FROM pg_catalog.pg_event_trigger_dropped_objects()"
	" WHERE object_type OPERATOR(pg_catalog.=) 'table column'";
	EventTriggerData *data = (EventTriggerData *) fcinfo->context;
	Oid			function;
	SPITupleTable *objects;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("outbox.check_ddl can only be called as an event trigger")));
	function = outbox_capture_function(true);
	if (MUTANT("any_ddl"))
		PG_RETURN_NULL();
	if (!OidIsValid(function))
		PG_RETURN_NULL();		/* the extension is being dropped */

	SPI_connect();
	if (SPI_execute(strcmp(data->event, "sql_drop") == 0 ? dropped : altered,
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the objects of a command");
	objects = SPI_tuptable;
	for (uint64 i = 0; i < objects->numvals; i++)
	{
		bool		isnull;
		Oid			class = DatumGetObjectId(SPI_getbinval(objects->vals[i],
														   objects->tupdesc, 1, &isnull));
		Oid			object = DatumGetObjectId(SPI_getbinval(objects->vals[i],
															objects->tupdesc, 2, &isnull));

		if (class == TriggerRelationId)
		{
			Oid			table = table_of_trigger(object);

			if (OidIsValid(table))
				check_table(table, object, function);
		}
		else if (get_rel_relkind(object) == RELKIND_COMPOSITE_TYPE)
		{
			ListCell   *lc;

			foreach(lc, tables_of_type(object))
				check_tree(lfirst_oid(lc), function);
		}
		else
			check_tree(object, function);
	}
	SPI_finish();
	PG_RETURN_NULL();
}
