/*-------------------------------------------------------------------------
 *
 * statement_check.c
 *	  Is that a report's statement?  One command that reads new_events and
 *	  writes its target.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "errors.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "report/definitions.h"
#include "report/reports.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"

/* What a statement reads and writes. */
typedef struct StatementCheck
{
	bool		reads_events;
	List	   *written;		/* OIDs of result relations */
} StatementCheck;

/*
 * WITH x AS (SELECT outbox.emit(...) ...), and nobody reads x: PostgreSQL
 * executes a SELECT of WITH only as far as it is read.
 */
static void
refuse_idle_with(Query *query)
{
	ListCell   *cell;

	foreach(cell, query->cteList)
	{
		CommonTableExpr *with = lfirst_node(CommonTableExpr, cell);

		if (with->cterefcount == 0 && IsA(with->ctequery, Query) &&
			((Query *) with->ctequery)->commandType == CMD_SELECT &&
			contain_volatile_functions(with->ctequery))
			ereport(ERROR,
					(errcode(ERRCODE_OB_REPORT_REFUSED),
					 errmsg("the part \"%s\" of the report's statement is never executed", with->ctename),
					 errdetail("A SELECT in WITH is executed only as far as it is read."),
					 errhint("Let the part that writes call the function, or read from \"%s\".", with->ctename)));
	}
}

/* Collects what the statement reads and writes. */
static bool
check_walker(Node *node, void *context)
{
	StatementCheck *check = context;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_NAMEDTUPLESTORE &&
			strcmp(rte->enrname, NEW_EVENTS) == 0)
			check->reads_events = true;
		return false;
	}
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		refuse_idle_with(query);
		if (query->resultRelation > 0)
			check->written =
				list_append_unique_oid(check->written,
									   rt_fetch(query->resultRelation,
												query->rtable)->relid);
		return query_tree_walker(query, check_walker, context,
								 QTW_EXAMINE_RTES_BEFORE);
	}
	return expression_tree_walker(node, check_walker, context);
}

/* report_refuse(), pointing into the statement as its parser would. */
static void
refuse_at(const char *statement, int location, const char *message,
		  const char *hint)
{
	/* a command begins where the one before it ends */
	location = Max(location, 0);
	location += strspn(statement + location, " \t\r\n\f");
	ereport(ERROR,
			(errcode(ERRCODE_OB_REPORT_REFUSED),
			 errmsg("%s", message),
			 errhint("%s", hint),
			 internalerrposition(pg_mbstrlen_with_len(statement, location) + 1),
			 internalerrquery(statement)));
}

/*
 * A trigger that may wait for the commit cannot be queued under restricted
 * operation: the report would stop at its first row.
 */
static void
refuse_deferrable(Oid relid)
{
	List	   *children = find_all_inheritors(relid, AccessShareLock, NULL);
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	ListCell   *cell;

	foreach(cell, children)
	{
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple	tuple;

		ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber,
					F_OIDEQ, ObjectIdGetDatum(lfirst_oid(cell)));
		scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true,
								  NULL, 1, &key);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

			if (trigger->tgdeferrable ||
				(OidIsValid(trigger->tgconstraint) && !trigger->tgisinternal))
				ereport(ERROR,
						(errcode(ERRCODE_OB_REPORT_REFUSED),
						 errmsg("table \"%s\" has a deferrable constraint or a constraint trigger",
								get_rel_name(lfirst_oid(cell))),
						 errdetail("A report runs under restricted operation, where triggers cannot wait for the commit."),
						 errhint("Make the constraint NOT DEFERRABLE, or an ordinary trigger of the constraint trigger.")));
		}
		systable_endscan(scan);
	}
	table_close(triggers, AccessShareLock);
}

List *
report_written_tables(SPIPlanPtr plan)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	StatementCheck check = {0};
	ListCell   *cell;

	foreach(cell, source->query_list)
		(void) check_walker(lfirst(cell), &check);
	return check.written;
}

/* One command that reads new_events and writes its target. */
void
report_check_statement(SPIPlanPtr plan, const char *statement, Oid target)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	StatementCheck check;
	CachedPlanSource *source;
	ListCell   *cell;

	if (list_length(sources) > 1)
	{
		source = lsecond(sources);
		refuse_at(statement, source->raw_parse_tree->stmt_location,
				  "a report's statement must be exactly one SQL command",
				  "Join several with WITH, or define several reports.");
	}
	if (sources == NIL)
		report_refuse("a report's statement must be exactly one SQL command",
					  "Join several with WITH, or define several reports.");

	source = linitial(sources);
	memset(&check, 0, sizeof(check));
	foreach(cell, source->query_list)
	{
		Query	   *query = lfirst_node(Query, cell);

		if (query->commandType == CMD_UTILITY)
			refuse_at(statement, source->raw_parse_tree->stmt_location,
					  "a report's statement must be INSERT, UPDATE, DELETE or MERGE",
					  "Make the table first, and let the statement write it; report.define_select makes the table of a SELECT.");
		(void) check_walker((Node *) query, &check);
	}
	if (!check.reads_events)
		report_refuse("the report's statement does not read FROM " NEW_EVENTS,
					  "Write FROM " NEW_EVENTS ": it has the columns of report.reported_events, and holds the events that have just come.");
	if (check.written == NIL)
		report_refuse("the report's statement writes no table",
					  "Put INSERT INTO before the SELECT; one with GROUP BY can be given to report.define_select, which makes its table, too.");
	if (!list_member_oid(check.written, target))
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("the report's statement does not write its target \"%s\"",
						get_rel_name(target)),
				 errhint("The argument target names the table that the statement writes.")));
	foreach(cell, check.written)
		refuse_deferrable(lfirst_oid(cell));
}
