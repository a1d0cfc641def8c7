/*-------------------------------------------------------------------------
 *
 * condition.c
 *	  The condition of a route as SQL.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * pg_get_triggerdef prints it between other things, where it cannot be found
 * again for certain: names and arguments may hold whatever the words around it
 * are.  So it is printed alone, the way that function does it (ruleutils.c): with
 * the table under the names old and new, which have these places in a trigger's
 * WHEN.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "capture/condition.h"
#include "catalog/pg_trigger.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/plannodes.h"
#include "storage/lockdefs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

PG_FUNCTION_INFO_V1(outbox_route_condition);

static RangeTblEntry *
table_named(Oid table, const char *name)
{
	RangeTblEntry *entry = makeNode(RangeTblEntry);

	entry->rtekind = RTE_RELATION;
	entry->relid = table;
	entry->relkind = get_rel_relkind(table);
	entry->rellockmode = AccessShareLock;
	entry->alias = makeAlias(name, NIL);
	entry->eref = entry->alias;
	entry->inFromCl = true;
	return entry;
}

char *
condition_text(const char *qual, Oid table)
{
	PlannedStmt *statement = makeNode(PlannedStmt);
	List	   *names = list_make2(pstrdup("old"), pstrdup("new"));

	statement->rtable = list_make2(table_named(table, "old"), table_named(table, "new"));
	return deparse_expression(stringToNode(qual),
							  deparse_context_for_plan_tree(statement, names),
							  true, false);
}

/* outbox.route_condition(trigger oid) */
Datum
outbox_route_condition(PG_FUNCTION_ARGS)
{
	Oid			trigger = PG_GETARG_OID(0);
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *condition = NULL;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(rel, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		qual = heap_getattr(tuple, Anum_pg_trigger_tgqual,
										RelationGetDescr(rel), &isnull);

		if (!isnull)
			condition = condition_text(TextDatumGetCString(qual),
									   ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (condition == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(condition));
}
