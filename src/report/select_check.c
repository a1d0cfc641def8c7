/*-------------------------------------------------------------------------
 *
 * select_check.c
 *	  Reports that are a SELECT: clauses that cannot be kept up to date, and
 *	  how new_events is read.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Each event must take part by itself: new_events once, in the query's own
 * FROM, and not where an outer join fills in NULLs for a missing event.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "errors.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"
#include "report/reports.h"
#include "report/select_internal.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Where in the query something stands, for walkers that look for it. */
typedef struct Search
{
	int			events;			/* how often new_events is read */
	int			location;		/* of the second time; of what is found */
	bool		temporary;		/* a temporary table is read */
} Search;

void
select_refuse(const char *text, int location, const char *message,
			  const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OB_REPORT_REFUSED),
			 errmsg("%s", message),
			 errhint("%s", hint),
			 location >= 0 ?
			 errposition(pg_mbstrlen_with_len(text, location) + 1) : 0));
}

/* ------------------------------------------------------------------------
 * The query as it was written
 * ------------------------------------------------------------------------
 */

static bool
find_second_events(Node *node, void *context)
{
	Search	   *search = context;

	if (node == NULL)
		return false;
	if (IsA(node, RangeVar))
	{
		RangeVar   *table = (RangeVar *) node;

		if (table->schemaname == NULL &&
			strcmp(table->relname, NEW_EVENTS) == 0 &&
			++search->events == 2)
		{
			search->location = table->location;
			return true;
		}
		return false;
	}
	return raw_expression_tree_walker(node, find_second_events, context);
}

/* Clauses that a table which is kept up to date cannot have. */
static void
check_clauses(const char *text, const SelectStmt * stmt)
{
	ListCell   *cell;

	if (stmt->op != SETOP_NONE)
		select_refuse(text, exprLocation((Node *) stmt->rarg->targetList),
					  "a report's query cannot have UNION, INTERSECT or EXCEPT",
					  "Define a report for each part, or tell the cases apart with CASE or FILTER.");
	if (stmt->valuesLists != NIL)
		select_refuse(text, exprLocation((Node *) stmt->valuesLists),
					  "a report's query must be a SELECT",
					  "Write SELECT ... FROM new_events GROUP BY ...");
	if (stmt->withClause != NULL)
		select_refuse(text, stmt->withClause->location,
					  "a report's query cannot have WITH",
					  "Write it as a subquery in FROM, or as a view; new_events itself stands in the query's own FROM.");
	if (stmt->intoClause != NULL)
		select_refuse(text, stmt->intoClause->rel->location,
					  "a report's query cannot have INTO",
					  "The argument target names the table.");
	if (stmt->distinctClause != NIL)
		select_refuse(text, exprLocation((Node *) stmt->targetList),
					  "a report's query cannot have DISTINCT",
					  "GROUP BY makes one row of each group; the newest value of a group is report.latest(value).");
	if (stmt->groupClause == NIL)
		select_refuse(text, -1, "the report's query has no GROUP BY",
					  "For one row over all events group by a constant: SELECT 'all' AS total, count(*) AS n FROM new_events GROUP BY 1. For a row per event use report.define.");
	foreach(cell, stmt->groupClause)
	{
		if (IsA(lfirst(cell), GroupingSet))
			select_refuse(text, exprLocation(lfirst(cell)),
						  "a report's query cannot have GROUPING SETS, ROLLUP or CUBE",
						  "Define a report for each grouping.");
	}
	if (stmt->havingClause != NULL)
		select_refuse(text, exprLocation(stmt->havingClause),
					  "a report's query cannot have HAVING",
					  "A group that does not satisfy it yet may do so later: keep all groups, and filter them where the table is read.");
	if (stmt->sortClause != NIL)
		select_refuse(text, exprLocation(linitial(stmt->sortClause)),
					  "a report's query cannot have ORDER BY",
					  "A table has no order: sort where it is read.");
	if (stmt->limitCount != NULL || stmt->limitOffset != NULL)
		select_refuse(text, exprLocation(stmt->limitCount != NULL ?
										 stmt->limitCount : stmt->limitOffset),
					  "a report's query cannot have LIMIT or OFFSET",
					  "Keep all rows, and limit them where the table is read.");
	if (stmt->lockingClause != NIL)
		select_refuse(text, -1, "a report's query cannot have FOR UPDATE or FOR SHARE",
					  "Leave it out: what the query reads is not locked.");
}

RawStmt    *
select_parse(const char *text)
{
	List	   *statements = raw_parser(text, RAW_PARSE_DEFAULT);
	RawStmt    *statement;
	Search		search = {0};

	if (list_length(statements) != 1)
		select_refuse(text, -1, "a report's query must be exactly one SELECT",
					  "Define a report for each.");
	statement = linitial_node(RawStmt, statements);
	if (!IsA(statement->stmt, SelectStmt))
		select_refuse(text, statement->stmt_location,
					  "a report's query must be a SELECT",
					  "Statements that write a table themselves are defined with report.define.");
	check_clauses(text, (SelectStmt *) statement->stmt);
	if (find_second_events(statement->stmt, &search))
		select_refuse(text, search.location,
					  "a report's query can read new_events only once",
					  "Pairs of events of different batches would be missed: read earlier events from report.reported_events, with a smaller log_seq.");
	return statement;
}

/* ------------------------------------------------------------------------
 * The query as PostgreSQL understands it
 * ------------------------------------------------------------------------
 */

/* What the query reads, at any depth. */
static bool
look_at_tables(Node *node, void *context)
{
	Search	   *search = context;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_NAMEDTUPLESTORE)
			search->events++;
		if (rte->rtekind == RTE_RELATION &&
			get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
			search->temporary = true;
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, look_at_tables, context,
								 QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, look_at_tables, context);
}

/* Does an outer join fill in NULLs where this relation has no row? */
static bool
nullable_side(Node *node, int rtindex, bool nullable)
{
	ListCell   *cell;

	if (IsA(node, RangeTblRef))
		return nullable && ((RangeTblRef *) node)->rtindex == rtindex;
	if (IsA(node, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) node;
		bool		left = nullable || join->jointype == JOIN_RIGHT ||
		join->jointype == JOIN_FULL;
		bool		right = nullable || join->jointype == JOIN_LEFT ||
		join->jointype == JOIN_FULL;

		return nullable_side(join->larg, rtindex, left) ||
			nullable_side(join->rarg, rtindex, right);
	}
	foreach(cell, castNode(FromExpr, node)->fromlist)
	{
		if (nullable_side(lfirst(cell), rtindex, nullable))
			return true;
	}
	return false;
}

/* Each event must take part once, by itself. */
void
select_check_reads(SelectReport *report)
{
	Search		search = {0};
	ListCell   *cell;

	(void) look_at_tables((Node *) report->query, &search);
	if (search.temporary)
		select_refuse(report->text, -1,
					  "a report's query cannot read a temporary table",
					  "Make it an ordinary one: the reporter is another session.");
	if (search.events == 0)
		select_refuse(report->text, -1,
					  "the report's query does not read FROM " NEW_EVENTS,
					  "Write FROM " NEW_EVENTS ": it has the columns of report.reported_events, and holds the events that have just come.");
	foreach(cell, report->query->rtable)
	{
		if (lfirst_node(RangeTblEntry, cell)->rtekind == RTE_NAMEDTUPLESTORE)
			report->events = foreach_current_index(cell) + 1;
	}
	if (report->events == 0)
		select_refuse(report->text, -1,
					  NEW_EVENTS " is read in a subquery",
					  "Read it in the query's own FROM; name expressions with CROSS JOIN LATERAL (SELECT ...) AS x.");
	if (nullable_side((Node *) report->query->jointree, report->events, false))
		select_refuse(report->text, -1,
					  NEW_EVENTS " stands on the side of an outer join that may be missing",
					  "Rows without an event would be counted again with each batch: begin with new_events, and LEFT JOIN the others.");
}

/* Set-returning and window functions stand where one would look for them. */
static bool
find_refused_function(Node *node, void *context)
{
	Search	   *search = context;

	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc) ||
		(IsA(node, FuncExpr) && ((FuncExpr *) node)->funcretset) ||
		(IsA(node, OpExpr) && ((OpExpr *) node)->opretset))
	{
		search->location = exprLocation(node);
		return true;
	}
	return expression_tree_walker(node, find_refused_function, context);
}

void
select_check_functions(SelectReport *report)
{
	Search		search = {.location = -1};

	if (!report->query->hasWindowFuncs && !report->query->hasTargetSRFs)
		return;
	(void) find_refused_function((Node *) report->query->targetList, &search);
	if (report->query->hasWindowFuncs)
		select_refuse(report->text, search.location,
					  "a report's query cannot have window functions",
					  "Use them where the table is read, for example in a view over it.");
	select_refuse(report->text, search.location,
				  "a report's query cannot have set-returning functions in its list",
				  "Put the function into FROM: new_events CROSS JOIN LATERAL f(...) AS x.");
}

/* Of PostgreSQL's own: people seldom say of theirs that they are not volatile. */
static bool
is_of_moment(Oid function, void *context)
{
	switch (function)
	{
		case F_NOW:
		case F_TRANSACTION_TIMESTAMP:
		case F_STATEMENT_TIMESTAMP:
		case F_AGE_TIMESTAMP:
		case F_AGE_TIMESTAMPTZ:
			return true;
		default:
			return get_func_namespace(function) == PG_CATALOG_NAMESPACE &&
				func_volatile(function) == PROVOLATILE_VOLATILE;
	}
}

static bool
find_moment(Node *node, void *context)
{
	Search	   *search = context;

	if (node == NULL)
		return false;
	if ((IsA(node, SQLValueFunction) &&
		 ((SQLValueFunction *) node)->op <= SVFOP_LOCALTIMESTAMP_N) ||
		check_functions_in_node(node, is_of_moment, NULL))
	{
		search->location = exprLocation(node);
		return true;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_moment, context, 0);
	return expression_tree_walker(node, find_moment, context);
}

/*
 * What an event adds to the table stays there: WHERE occurred_on > now() - '1 day'
 * would be true when the event is applied, and never looked at again.  What the
 * view computes of the table is computed when it is read, and may.
 */
void
select_check_moments(const SelectReport *report)
{
	Query	   *query = report->query;
	Search		search = {.location = -1};
	ListCell   *cell;
	bool		found;

	found = find_moment((Node *) query->jointree, &search) ||
		range_table_walker(query->rtable, find_moment, &search, 0);
	foreach(cell, report->states)
		found = found || find_moment(((SelectState *) lfirst(cell))->value, &search);
	if (found)
		select_refuse(report->text, search.location,
					  "a report's query cannot depend on the moment at which it runs",
					  "What an event has added stays in the table. Use the event's occurred_on or received_at, keep all groups, and compare them with the time where the table is read.");
}

/*
 * The table's columns may have to hold NULL: of report.latest with FILTER, or of a
 * table that is LEFT JOINed.  PostgreSQL stores it in a column of a domain with NOT
 * NULL all the same, and a dump of it cannot be restored.
 */
void
select_check_types(const SelectReport *report)
{
	ListCell   *cell;

	foreach(cell, report->states)
	{
		SelectState *state = lfirst(cell);
		Oid			type = exprType(state->value);

		while (get_typtype(type) == TYPTYPE_DOMAIN)
		{
			HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
			Form_pg_type form;

			if (!HeapTupleIsValid(tuple))
				elog(ERROR, "cache lookup failed for type %u", type);
			form = (Form_pg_type) GETSTRUCT(tuple);
			if (form->typnotnull)
				select_refuse(report->text, exprLocation(state->value),
							  psprintf("column \"%s\" of the report is of domain %s, which does not allow null values",
									   state->name, format_type_be(type)),
							  psprintf("Cast it: (...)::%s.",
									   format_type_be(getBaseType(type))));
			type = form->typbasetype;
			ReleaseSysCache(tuple);
		}
	}
}
