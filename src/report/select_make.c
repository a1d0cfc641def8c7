/*-------------------------------------------------------------------------
 *
 * select_make.c
 *	  Reports that are a SELECT: the table, the view and the statements that
 *	  are generated from the query.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The query is deparsed by PostgreSQL from its analyzed form, with every name
 * that is not of pg_catalog qualified, as it does for views and pg_dump.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mutants.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/value.h"
#include "parser/parsetree.h"
#include "report/reports.h"
#include "report/select.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

/* ", " from the second on. */
static void
append_comma(StringInfo text, bool *first)
{
	if (!*first)
		appendStringInfoString(text, ", ");
	*first = false;
}

/* Names of the key's columns, or of all. */
static void
append_names(StringInfo text, const SelectReport *report, bool keys_only)
{
	bool		first = true;
	ListCell   *cell;

	foreach(cell, report->states)
	{
		SelectState *state = lfirst(cell);

		if (keys_only && state->merge != MERGE_KEY)
			continue;
		append_comma(text, &first);
		appendStringInfoString(text, quote_identifier(state->name));
	}
}

char *
select_make_table(const SelectReport *report, const char *table)
{
	StringInfoData text;
	ListCell   *cell;

	initStringInfo(&text);
	appendStringInfo(&text, "CREATE TABLE %s (", table);
	foreach(cell, report->states)
	{
		SelectState *state = lfirst(cell);
		Oid			type = exprType(state->value);
		Oid			collation = exprCollation(state->value);

		appendStringInfo(&text, "%s %s", quote_identifier(state->name),
						 format_type_with_typemod(type,
												  exprTypmod(state->value)));
		if (OidIsValid(collation) && collation != get_typcollation(type))
			appendStringInfo(&text, " COLLATE %s",
							 generate_collation_name(collation));
		appendStringInfoString(&text, ", ");
	}
	appendStringInfoString(&text, "UNIQUE NULLS NOT DISTINCT (");
	append_names(&text, report, true);
	appendStringInfoString(&text, "))");
	return text.data;
}

char *
select_make_view(const SelectReport *report, const char *view, Oid table)
{
	List	   *names = deparse_context_for(get_rel_name(table), table);
	StringInfoData text;
	bool		first = true;
	ListCell   *cell;

	initStringInfo(&text);
	appendStringInfo(&text, "CREATE OR REPLACE VIEW %s AS SELECT ", view);
	foreach(cell, report->outputs)
	{
		SelectOutput *output = lfirst(cell);

		append_comma(&text, &first);
		appendStringInfo(&text, "%s AS %s",
						 deparse_expression(output->expression, names, false,
											false),
						 quote_identifier(output->name));
	}
	appendStringInfo(&text, " FROM %s",
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
												get_rel_name(table)));
	return text.data;
}

/* Does the query give new_events' columns other names?  new_events AS e (a, b) */
static bool
renames_columns(const RangeTblEntry *events)
{
	ListCell   *cell;

	foreach(cell, events->eref->colnames)
	{
		char	   *name = get_attname(events->relid,
									   foreach_current_index(cell) + 1, true);

		if (name != NULL && strcmp(name, strVal(lfirst(cell))) != 0)
			return true;
	}
	return false;
}

/*
 * As text.  The deparser knows no ephemeral relation: a reference to WITH is
 * written the same.
 */
static char *
deparse(const SelectReport *report, Query *query)
{
	RangeTblEntry *events = rt_fetch(report->events, query->rtable);

	/* the parser leaves the alias of an ephemeral relation out */
	if (renames_columns(events))
		events->alias = copyObject(events->eref);

	events->rtekind = RTE_CTE;
	events->relid = InvalidOid;
	events->ctename = pstrdup(NEW_EVENTS);
	events->ctelevelsup = 0;
	return pg_get_querydef(query, false);
}

/* One row per key: the query, with the table's columns as its list. */
static char *
partial_query(const SelectReport *report)
{
	Query	   *query = copyObject(report->query);
	ListCell   *cell;

	query->targetList = NIL;
	query->groupClause = NIL;
	foreach(cell, report->states)
	{
		SelectState *state = lfirst(cell);
		TargetEntry *entry;

		entry = makeTargetEntry(copyObject((Expr *) state->value),
								foreach_current_index(cell) + 1,
								state->name, false);
		if (state->merge == MERGE_KEY)
		{
			entry->ressortgroupref = state->group->tleSortGroupRef;
			query->groupClause = lappend(query->groupClause,
										 copyObject(state->group));
		}
		query->targetList = lappend(query->targetList, entry);
	}
	return deparse(report, query);
}

/* The value of both: t is the row of the table, excluded the batch's. */
static void
append_merge(StringInfo text, const SelectReport *report,
			 const SelectState *state)
{
	const char *name = quote_identifier(state->name);
	const char *seq;

	switch (state->merge)
	{
		case MERGE_KEY:
			break;
		case MERGE_SUM:
			appendStringInfo(text, "COALESCE(t.%s + excluded.%s, t.%s, excluded.%s)",
							 name, name, name, name);
			break;
		case MERGE_AND:
			appendStringInfo(text, "COALESCE(t.%s AND excluded.%s, t.%s, excluded.%s)",
							 name, name, name, name);
			break;
		case MERGE_OR:
			appendStringInfo(text, "COALESCE(t.%s OR excluded.%s, t.%s, excluded.%s)",
							 name, name, name, name);
			break;
		case MERGE_LEAST:
			appendStringInfo(text, "LEAST(t.%s, excluded.%s)", name, name);
			break;
		case MERGE_GREATEST:
		case MERGE_NEWEST_SEQ:
			appendStringInfo(text, "GREATEST(t.%s, excluded.%s)", name, name);
			break;
		case MERGE_NEWEST:
			if (MUTANT("last_come"))
			{
				appendStringInfo(text, "excluded.%s", name);
				break;
			}
			seq = quote_identifier(((SelectState *) list_nth(report->states,
															 state->seq))->name);
			appendStringInfo(text, "CASE WHEN t.%s IS NULL OR excluded.%s > t.%s THEN excluded.%s ELSE t.%s END",
							 seq, seq, seq, name, name);
			break;
	}
}

char *
select_make_statement(const SelectReport *report, const char *table)
{
	StringInfoData text;
	StringInfoData merges;
	bool		first = true;
	ListCell   *cell;

	initStringInfo(&text);
	appendStringInfo(&text, "INSERT INTO %s AS t (", table);
	append_names(&text, report, false);
	appendStringInfo(&text, ")\n%s\nON CONFLICT (", partial_query(report));
	append_names(&text, report, true);

	initStringInfo(&merges);
	foreach(cell, report->states)
	{
		SelectState *state = lfirst(cell);

		if (state->merge == MERGE_KEY)
			continue;
		appendStringInfo(&merges, "%s\n  %s = ", first ? "" : ",",
						 quote_identifier(state->name));
		append_merge(&merges, report, state);
		first = false;
	}
	if (first)
		appendStringInfoString(&text, ") DO NOTHING");
	else
		appendStringInfo(&text, ") DO UPDATE SET%s", merges.data);
	return text.data;
}

/* key = $n, by the operator that GROUP BY compares with. */
static Node *
key_condition(const SelectState *state, int n, bool isnull)
{
	Node	   *value = copyObject(state->value);
	Param	   *param;

	if (isnull)
	{
		NullTest   *test = makeNode(NullTest);

		test->arg = (Expr *) value;
		test->nulltesttype = IS_NULL;
		test->location = -1;
		return (Node *) test;
	}
	param = makeNode(Param);
	param->paramkind = PARAM_EXTERN;
	param->paramid = n;
	param->paramtype = exprType(value);
	param->paramtypmod = exprTypmod(value);
	param->paramcollid = get_typcollation(param->paramtype);
	param->location = -1;
	return (Node *) make_opclause(state->group->eqop, BOOLOID, false,
								  (Expr *) value, (Expr *) param, InvalidOid,
								  exprCollation(value));
}

char *
select_make_explanation(const SelectReport *report, const bool *isnull)
{
	Query	   *query = copyObject(report->query);
	SortGroupClause *by;
	TargetEntry *entry;
	ListCell   *cell;
	int			n = 0;

	foreach(cell, report->states)
	{
		SelectState *state = lfirst(cell);

		if (state->merge != MERGE_KEY)
			continue;
		query->jointree->quals = make_and_qual(query->jointree->quals,
											   key_condition(state, n + 1,
															 isnull[n]));
		n++;
	}
	entry = select_log_seq(report, 1, pstrdup("log_seq"), &by);
	query->targetList = list_make1(entry);
	query->groupClause = list_make1(by);
	query->sortClause = list_make1(copyObject(by));
	query->hasAggs = false;
	return deparse(report, query);
}
