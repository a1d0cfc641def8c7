/*-------------------------------------------------------------------------
 *
 * select_query.c
 *	  Reports that are a SELECT: can the query be kept up to date batch by
 *	  batch, and from which columns?
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * PostgreSQL itself parses and analyzes the query.  It can be kept when each
 * event takes part by itself (new_events once, in the query's own FROM, and
 * not where an outer join fills in NULLs for a missing event), and when each
 * aggregate of the whole follows from those of the parts, in whatever order
 * and grouping the parts come.  So sums of floating-point numbers are refused:
 * their last digits depend on the order of addition.
 *
 * An aggregate becomes one or two columns of the table (SelectState), each
 * with a rule that merges two values; an output column is an expression over
 * those.  avg is sum / count, which is what PostgreSQL's avg computes for
 * these types (numeric.c, int8_avg(); timestamp.c, interval_avg()).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "compat.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parse_coerce.h"
#include "parser/parse_func.h"
#include "parser/parse_oper.h"
#include "parser/parser.h"
#include "parser/parsetree.h"
#include "report/advice.h"
#include "report/event_log.h"
#include "report/report_run.h"
#include "report/reports.h"
#include "report/select_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/typcache.h"

/* An output column while it is translated. */
typedef struct Translation
{
	SelectReport *report;
	const char *output;			/* its name */
} Translation;

/* ------------------------------------------------------------------------
 * Columns of the table
 * ------------------------------------------------------------------------
 */

static bool
name_taken(SelectReport *report, const char *name)
{
	ListCell   *cell;

	foreach(cell, report->states)
	{
		if (strcmp(((SelectState *) lfirst(cell))->name, name) == 0)
			return true;
	}
	foreach(cell, report->outputs)
	{
		if (strcmp(((SelectOutput *) lfirst(cell))->name, name) == 0)
			return true;
	}
	return false;
}

/* A column for a part of an output: its name and what the part is. */
static char *
part_name(SelectReport *report, const char *output, const char *part)
{
	char	   *name = makeObjectName(output, part, NULL);

	for (int i = 2; name_taken(report, name); i++)
		name = makeObjectName(output, psprintf("%s%d", part, i), NULL);
	return name;
}

/*
 * The number (from 0) of the column with this value, which is made, with this
 * name, unless there is one.
 */
static int
add_state(SelectReport *report, const char *output, const char *part,
		  Node *value, SelectMerge merge)
{
	SelectState *state;
	ListCell   *cell;

	foreach(cell, report->states)
	{
		state = lfirst(cell);
		if (state->merge == merge && equal(state->value, value))
			return foreach_current_index(cell);
	}
	state = palloc0(sizeof(SelectState));
	state->name = part == NULL ? pstrdup(output) :
		part_name(report, output, part);
	state->value = value;
	state->merge = merge;
	report->states = lappend(report->states, state);
	return list_length(report->states) - 1;
}

static Node *
state_var(SelectReport *report, int number)
{
	SelectState *state = list_nth(report->states, number);

	return (Node *) makeVar(1, number + 1, exprType(state->value),
							exprTypmod(state->value),
							exprCollation(state->value), 0);
}

/* The same aggregate's input, to another function of pg_catalog. */
static Aggref *
other_aggregate(const Aggref * aggref, const char *function, Oid argument)
{
	Aggref	   *other = copyObjectImpl(aggref);

	other->aggfnoid = LookupFuncName(list_make2(makeString("pg_catalog"),
												makeString(pstrdup(function))),
									 1, &argument, false);
	other->aggtype = get_func_rettype(other->aggfnoid);
	return other;
}

TargetEntry *
select_log_seq(const SelectReport *report, int resno, char *name,
			   SortGroupClause * *by)
{
	TypeCacheEntry *type = lookup_type_cache(INT8OID, TYPECACHE_EQ_OPR |
											 TYPECACHE_LT_OPR);
	Var		   *var = makeVar(report->events,
							  get_attnum(event_log_relid(), "log_seq"),
							  INT8OID, -1, InvalidOid, 0);
	TargetEntry *entry = makeTargetEntry((Expr *) var, resno, name,
										 name == NULL);

	*by = makeNode(SortGroupClause);
	(*by)->eqop = type->eq_opr;
	(*by)->sortop = type->lt_opr;
	(*by)->hashable = true;
	(*by)->tleSortGroupRef = entry->ressortgroupref = 1;
	return entry;
}

/* avg: from its sum and its count. */
static Node *
translate_avg(Translation *translation, Aggref * aggref, Oid argument)
{
	SelectReport *report = translation->report;
	ParseState *pstate = make_parsestate(NULL);
	Aggref	   *sum = other_aggregate(aggref, "sum", argument);
	Aggref	   *count = other_aggregate(aggref, "count", ANYOID);
	Oid			dividend = argument == INTERVALOID ? INTERVALOID : NUMERICOID;
	Oid			divisor = argument == INTERVALOID ? FLOAT8OID : NUMERICOID;
	Node	   *left;
	Node	   *right;

	left = state_var(report, add_state(report, translation->output, "sum",
									   (Node *) sum, MERGE_SUM));
	right = state_var(report, add_state(report, translation->output, "count",
										(Node *) count, MERGE_SUM));
	left = coerce_to_target_type(pstate, left, exprType(left), dividend, -1,
								 COERCION_EXPLICIT, COERCE_EXPLICIT_CAST, -1);
	right = coerce_to_target_type(pstate, right, exprType(right), divisor, -1,
								  COERCION_EXPLICIT, COERCE_EXPLICIT_CAST, -1);
	return (Node *) make_op(pstate, list_make2(makeString("pg_catalog"),
											   makeString("/")),
							left, right, NULL, -1);
}

/*
 * report.latest(value): the last of the batch by log_seq, and that log_seq
 * beside it, so that an older event that comes later (a dead letter that is
 * tried again) replaces nothing.
 */
static Node *
translate_latest(Translation *translation, Aggref * aggref, const char *part)
{
	SelectReport *report = translation->report;
	Aggref	   *value = copyObject(aggref);
	Aggref	   *seq = other_aggregate(aggref, "max", INT8OID);
	SortGroupClause *by;
	TargetEntry *log_seq = select_log_seq(report, 2, NULL, &by);
	int			number;
	int			seq_number;

	value->args = lappend(value->args, log_seq);
	value->aggorder = list_make1(by);

	seq->args = list_make1(makeTargetEntry(copyObject(log_seq->expr), 1, NULL,
										   false));
	seq->aggargtypes = list_make1_oid(INT8OID);
	seq->aggcollid = seq->inputcollid = InvalidOid;

	number = add_state(report, translation->output, part, (Node *) value,
					   MERGE_NEWEST);
	seq_number = add_state(report, translation->output,
						   part == NULL ? "log_seq" : "latest_log_seq",
						   (Node *) seq, MERGE_NEWEST_SEQ);
	((SelectState *) list_nth(report->states, number))->seq = seq_number;
	return state_var(report, number);
}

/* One of the aggregates that are known, or NULL. */
static const char *
known_aggregate(const Aggref * aggref)
{
	static const char *const known[] = {
		"count", "sum", "min", "max", "avg", "bool_and", "bool_or", "every"
	};
	char	   *name = get_func_name(aggref->aggfnoid);
	Oid			schema = get_func_namespace(aggref->aggfnoid);

	if (schema == get_rel_namespace(event_log_relid()))
		return strcmp(name, "latest") == 0 ? name : NULL;
	if (schema != PG_CATALOG_NAMESPACE)
		return NULL;
	for (Size i = 0; i < lengthof(known); i++)
	{
		if (strcmp(name, known[i]) == 0)
			return name;
	}
	return NULL;
}

static void
check_aggregate(SelectReport *report, const Aggref * aggref, const char *name)
{
	int			at = aggref->location;

	if (name == NULL)
		select_refuse(report->text, at,
					  psprintf("aggregate %s cannot be kept up to date from batch to batch",
							   get_func_name(aggref->aggfnoid)),
					  "Those that can: count, sum, min, max, avg, bool_and, bool_or, every and report.latest. Others follow from them, as a variance from count(*), sum(x) and sum(x * x), or are computed where the table is read: group by that value, too.");
	if (aggref->aggdistinct != NIL)
		select_refuse(report->text, at,
					  "a report's query cannot have DISTINCT in an aggregate",
					  "Group by that value, too, and count the rows of the table where it is read.");
	if (aggref->aggorder != NIL)
		select_refuse(report->text, at,
					  "a report's query cannot have ORDER BY in an aggregate",
					  "The order is that of log_seq for report.latest, and makes no difference to the others.");
	if ((strcmp(name, "sum") == 0 || strcmp(name, "avg") == 0) &&
		(linitial_oid(aggref->aggargtypes) == FLOAT4OID ||
		 linitial_oid(aggref->aggargtypes) == FLOAT8OID))
		select_refuse(report->text, at,
					  psprintf("%s of floating-point numbers depends on the order of addition",
							   name),
					  psprintf("Make them exact: %s((...)::numeric).", name));
}

/* An aggregate of the query becomes an expression over the table's columns. */
static Node *
translate_aggregate(Translation *translation, Aggref * aggref, bool whole)
{
	SelectReport *report = translation->report;
	const char *name = known_aggregate(aggref);
	const char *part;
	SelectMerge merge = MERGE_SUM;

	check_aggregate(report, aggref, name);
	part = whole ? NULL : name;
	if (strcmp(name, "avg") == 0)
		return translate_avg(translation, aggref,
							 linitial_oid(aggref->aggargtypes));
	if (strcmp(name, "latest") == 0)
		return translate_latest(translation, aggref, part);
	if (strcmp(name, "min") == 0)
		merge = MERGE_LEAST;
	else if (strcmp(name, "max") == 0)
		merge = MERGE_GREATEST;
	else if (strcmp(name, "bool_or") == 0)
		merge = MERGE_OR;
	else if (strcmp(name, "bool_and") == 0 || strcmp(name, "every") == 0)
		merge = MERGE_AND;
	return state_var(report, add_state(report, translation->output, part,
									   (Node *) aggref, merge));
}

/* A part of an output column. */
static Node *
translate_part(Node *node, void *context)
{
	Translation *translation = context;
	SelectReport *report = translation->report;
	ListCell   *cell;

	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref))
		return translate_aggregate(translation, (Aggref *) node, false);
	foreach(cell, report->states)
	{
		SelectState *state = lfirst(cell);

		if (state->merge == MERGE_KEY && equal(state->value, node))
			return state_var(report, foreach_current_index(cell));
	}
	if (IsA(node, Var))
		select_refuse(report->text, ((Var *) node)->location,
					  "a column is neither in GROUP BY nor in an aggregate",
					  "It is known from the primary key today, and may change: add it to GROUP BY, or use report.latest.");
	if (IsA(node, SubLink) || IsA(node, GroupingFunc))
		select_refuse(report->text, exprLocation(node),
					  "a report's query cannot have a subquery or GROUPING in its list",
					  "Join the table in FROM, or where the report is read.");
	return expression_tree_mutator(node, translate_part, context);
}

/* ------------------------------------------------------------------------
 * The whole
 * ------------------------------------------------------------------------
 */

/* Names of the outputs, and the columns for the keys among them. */
static void
find_keys(SelectReport *report)
{
	ListCell   *cell;

	foreach(cell, report->query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		SelectOutput *output;

		if (entry->resjunk)
			select_refuse(report->text, exprLocation((Node *) entry->expr),
						  "an expression of GROUP BY is missing in the report's columns",
						  "Add it to the list of the SELECT: it is part of the table's key.");
		if (strcmp(entry->resname, "?column?") == 0)
			select_refuse(report->text, exprLocation((Node *) entry->expr),
						  "a column of the report has no name",
						  "Name it: expression AS name.");
		if (name_taken(report, entry->resname))
			select_refuse(report->text, exprLocation((Node *) entry->expr),
						  psprintf("two columns of the report have the name \"%s\"",
								   entry->resname),
						  "Name one of them: expression AS name.");
		output = palloc0(sizeof(SelectOutput));
		output->name = entry->resname;
		report->outputs = lappend(report->outputs, output);
	}
}

static SortGroupClause *
grouping_of(Query *query, TargetEntry * entry)
{
	ListCell   *cell;

	foreach(cell, query->groupClause)
	{
		SortGroupClause *group = lfirst_node(SortGroupClause, cell);

		if (entry->ressortgroupref == group->tleSortGroupRef)
			return group;
	}
	return NULL;
}

/* The table's columns follow the query's, each key at its place. */
static void
find_columns(SelectReport *report)
{
	List	   *later = NIL;
	ListCell   *cell;
	ListCell   *output_cell;

	/*
	 * What is a key or one aggregate has the output's name; the parts of
	 * expressions, which may use them, come after.
	 */
	forboth(cell, report->query->targetList, output_cell, report->outputs)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		SelectOutput *output = lfirst(output_cell);
		SortGroupClause *group = grouping_of(report->query, entry);
		Translation translation = {report, output->name};

		if (group != NULL)
		{
			int			number = add_state(report, output->name, NULL,
										   (Node *) entry->expr, MERGE_KEY);

			((SelectState *) list_nth(report->states, number))->group = group;
			output->expression = state_var(report, number);
		}
		else if (IsA(entry->expr, Aggref))
			output->expression = translate_aggregate(&translation,
													 (Aggref *) entry->expr,
													 true);
		else
			later = lappend(later, entry);
	}
	foreach(cell, later)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		SelectOutput *output = list_nth(report->outputs, entry->resno - 1);
		Translation translation = {report, output->name};

		output->expression = translate_part((Node *) entry->expr, &translation);
	}
}

/* Is the table itself what the query answers? */
static bool
is_plain(const SelectReport *report)
{
	ListCell   *cell;
	ListCell   *state_cell;

	if (list_length(report->states) != list_length(report->outputs))
		return false;
	forboth(cell, report->outputs, state_cell, report->states)
	{
		SelectOutput *output = lfirst(cell);
		SelectState *state = lfirst(state_cell);

		if (!IsA(output->expression, Var) ||
			strcmp(output->name, state->name) != 0)
			return false;
	}
	return true;
}

/* The place is one in the query, not in the statement that calls us. */
static void
point_into_query(void *arg)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery((const char *) arg);
	}
	report_hint_at_names("query");
	if (geterrcode() == ERRCODE_GROUPING_ERROR)
		errhint("Each column stands in GROUP BY or in an aggregate of the list: the newest value of a group is report.latest(value).");
}

static Query *
analyze(RawStmt * statement, const char *text)
{
	EphemeralNamedRelation events = palloc0(sizeof(EphemeralNamedRelationData));
	QueryEnvironment *environment = create_queryEnv();

	events->md.name = NEW_EVENTS;
	events->md.reliddesc = event_log_relid();
	events->md.enrtype = ENR_NAMED_TUPLESTORE;
	register_ENR(environment, events);
	return parse_analyze_fixedparams(statement, text, NULL, 0, environment);
}

SelectReport *
select_analyze(const char *text)
{
	SelectReport *report = palloc0(sizeof(SelectReport));
	ErrorContextCallback callback;
	Relation	log;

	callback.callback = point_into_query;
	callback.arg = unconstify(char *, text);
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	/* Its descriptor is used without a lock: see report_register_events(). */
	log = table_open(event_log_relid(), AccessShareLock);
	report->text = text;
	report->query = analyze(select_parse(text), text);
	if (report->query->commandType != CMD_SELECT)
		select_refuse(text, -1, "a report's query must be a SELECT",
					  "Statements that write a table themselves are defined with report.define.");
	report->query->targetList = compat_ungrouped(report->query,
												 report->query->targetList);
	select_check_reads(report);
	select_check_functions(report);
	find_keys(report);
	find_columns(report);
	select_check_moments(report);
	select_check_types(report);
	report->plain = is_plain(report);
	table_close(log, NoLock);

	error_context_stack = callback.previous;
	return report;
}
