/*-------------------------------------------------------------------------
 *
 * select.c
 *	  report.define_select: a report that is one SELECT over new_events.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The table that is kept has the query's columns when each of them can be
 * merged by itself.  When avg, report.latest or an expression needs others,
 * those stand in a table <target>_state, and <target> is a view over it: so
 * SELECT * FROM target always has exactly the query's columns.
 *
 * Everything here is done as the caller, who becomes the report's owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "compat.h"
#include "errors.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "report/as_owner.h"
#include "report/definitions.h"
#include "report/report_run.h"
#include "report/select.h"
#include "report/sql_plan.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(report_define_select);
PG_FUNCTION_INFO_V1(report_latest_step);

/* A relation that is there, or is to be made. */
typedef struct Place
{
	Oid			schema;
	char	   *name;
	char	   *quoted;			/* and qualified */
	Oid			relid;			/* InvalidOid: not there */
	bool		ours;			/* the report is there, and may have made it */
} Place;

/* ------------------------------------------------------------------------
 * Where the report stands
 * ------------------------------------------------------------------------
 */

static Place
make_place(Oid schema, const char *name)
{
	Place		place;

	place.schema = schema;
	place.name = pstrdup(name);
	place.quoted = quote_qualified_identifier(get_namespace_name(schema), name);
	place.relid = get_relname_relid(name, schema);
	place.ours = false;
	return place;
}

/* As CREATE TABLE and regclass would look for it, with the caller's path. */
static Place
find_target(text * target)
{
	RangeVar   *name = makeRangeVarFromNameList(textToQualifiedNameList(target));
	Oid			relid = RangeVarGetRelid(name, NoLock, true);
	Oid			schema = OidIsValid(relid) ? get_rel_namespace(relid) :
	RangeVarGetCreationNamespace(name);

	if (isAnyTempNamespace(schema))
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("the target of a report cannot be a temporary table"),
				 errhint(REPORT_TEMPORARY_HINT)));
	return make_place(schema, name->relname);
}

compat_noreturn static void
refuse_target(const Place *place, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OB_REPORT_REFUSED),
			 errmsg("relation %s exists and does not fit the query",
					place->quoted),
			 errdetail("%s", detail),
			 place->ours ?
			 errhint("Name another target, or end the report with report.drop, drop the relation and define the report again: it is given the whole event log.") :
			 errhint("Name another target: report.define_select makes it.")));
}

/* The n-th column that the relation should have. */
static void
check_column(const Place *place, Relation rel, int n, const char *name,
			 const Node *value)
{
	Form_pg_attribute att = NULL;
	Oid			type = exprType(value);

	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		att = TupleDescAttr(RelationGetDescr(rel), i);
		if (!att->attisdropped && n-- == 0)
			break;
		att = NULL;
	}
	if (att == NULL)
		refuse_target(place, psprintf("It has no column \"%s\".", name));
	if (strcmp(NameStr(att->attname), name) != 0)
		refuse_target(place, psprintf("Its column \"%s\" stands where the query has \"%s\".",
									  NameStr(att->attname), name));
	if (att->atttypid != type || att->atttypmod != exprTypmod(value))
		refuse_target(place, psprintf("Its column \"%s\" is of type %s, the query's of type %s.",
									  name,
									  format_type_with_typemod(att->atttypid,
															   att->atttypmod),
									  format_type_with_typemod(type,
															   exprTypmod(value))));
	if (att->attcollation != exprCollation(value))
		refuse_target(place, psprintf("Its column \"%s\" has another collation than the query's.",
									  name));
}

static void
check_no_more_columns(const Place *place, Relation rel, int n)
{
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

		if (!att->attisdropped && n-- == 0)
			refuse_target(place, psprintf("It has a column \"%s\", which the query lacks.",
										  NameStr(att->attname)));
	}
}

/* Would this index find the one row of each key, NULLs included? */
static bool
is_key_index(Relation rel, Form_pg_index form, const SelectReport *report)
{
	ListCell   *cell;
	int			n_keys = 0;

	if (!form->indisunique || !form->indimmediate || !form->indisvalid)
		return false;
	foreach(cell, report->states)
	{
		SelectState *state = lfirst(cell);
		AttrNumber	attno;
		bool		found = false;

		if (state->merge != MERGE_KEY)
			continue;
		n_keys++;
		attno = get_attnum(RelationGetRelid(rel), state->name);
		for (int i = 0; i < form->indnkeyatts && !found; i++)
			found = form->indkey.values[i] == attno;
		if (!found)
			return false;
		if (!form->indnullsnotdistinct &&
			!TupleDescAttr(RelationGetDescr(rel), attno - 1)->attnotnull)
			return false;
	}
	return n_keys == form->indnkeyatts;
}

static void
check_key(const Place *place, Relation rel, const SelectReport *report)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;
	bool		found = false;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (RelationGetIndexPredicate(index) == NIL &&
			RelationGetIndexExpressions(index) == NIL)
			found = found || is_key_index(rel, index->rd_index, report);
		index_close(index, AccessShareLock);
	}
	if (!found)
		refuse_target(place, "It has no unique key over the columns of GROUP BY that is NULLS NOT DISTINCT or whose columns are NOT NULL.");
}

/* A table that is there already: kept if it is what would be made. */
static void
check_table(const Place *place, const SelectReport *report)
{
	Relation	rel;
	ListCell   *cell;

	if (get_rel_relkind(place->relid) != RELKIND_RELATION &&
		get_rel_relkind(place->relid) != RELKIND_PARTITIONED_TABLE)
		refuse_target(place, "It is not a table.");
	rel = table_open(place->relid, AccessShareLock);
	foreach(cell, report->states)
	{
		SelectState *state = lfirst(cell);

		check_column(place, rel, foreach_current_index(cell), state->name,
					 state->value);
	}
	check_no_more_columns(place, rel, list_length(report->states));
	check_key(place, rel, report);
	table_close(rel, NoLock);
}

static void
check_view(const Place *place, const SelectReport *report)
{
	Relation	rel;
	ListCell   *cell;

	if (get_rel_relkind(place->relid) != RELKIND_VIEW)
		refuse_target(place, "It is not a view, which this query needs: avg, report.latest and expressions keep columns that the query does not show.");
	rel = relation_open(place->relid, AccessShareLock);
	if (rel->rd_rel->relowner != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of view %s", place->name)));
	foreach(cell, report->outputs)
	{
		SelectOutput *output = lfirst(cell);

		check_column(place, rel, foreach_current_index(cell), output->name,
					 output->expression);
	}
	check_no_more_columns(place, rel, list_length(report->outputs));
	relation_close(rel, NoLock);
}

/* ------------------------------------------------------------------------
 * What is known of the report
 * ------------------------------------------------------------------------
 */

static bool
report_is_there(const char *name)
{
	static SqlPlan get = {
		"SELECT FROM report.definitions WHERE name = $1", 1, {TEXTOID}, NULL
	};
	AsOwner		scope;
	Datum		value = CStringGetTextDatum(name);
	bool		found;

	as_owner_begin(&scope);
	found = sql_plan_execute(&get, &value, NULL) > 0;
	as_owner_end(&scope);
	return found;
}

/*
 * One table per report, and one report per table: another table would lack
 * the events that have been applied, another report would count them twice.
 * Answers whether the report is there with another query.
 */
static bool
check_definitions(const char *name, const Place *table, const char *query)
{
	static SqlPlan get_own = {
		"SELECT target::pg_catalog.oid, target::pg_catalog.text,"
		" source OPERATOR(pg_catalog.->>) 'query'"
		" FROM report.definitions WHERE name = $1",
		1, {TEXTOID}, NULL
	};
	static SqlPlan get_other = {
		"SELECT name FROM report.definitions WHERE name <> $1 AND target = $2",
		2, {TEXTOID, REGCLASSOID}, NULL
	};
	AsOwner		scope;
	Datum		values[2];
	bool		changed = false;

	values[0] = CStringGetTextDatum(name);
	values[1] = ObjectIdGetDatum(table->relid);
	as_owner_begin(&scope);
	if (sql_plan_execute(&get_own, values, NULL) > 0)
	{
		char	   *former = sql_string(0, 3);

		if (DatumGetObjectId(sql_value(0, 1, NULL)) != table->relid)
			ereport(ERROR,
					(errcode(ERRCODE_OB_REPORT_REFUSED),
					 errmsg("report \"%s\" keeps another table, %s", name,
							sql_string(0, 2)),
					 errdetail("The events that it has applied would be missing in %s.",
							   table->quoted),
					 errhint("Name another report, or SELECT report.drop(%s) first: a new report is given the whole event log.",
							 quote_literal_cstr(name))));
		changed = former == NULL || strcmp(former, query) != 0;
	}
	if (sql_plan_execute(&get_other, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("table %s is kept by report \"%s\"", table->quoted,
						sql_string(0, 1)),
				 errhint("Name another target.")));
	as_owner_end(&scope);
	return changed;
}

/* ------------------------------------------------------------------------
 * Making it
 * ------------------------------------------------------------------------
 */

static void
execute(const char *command)
{
	int			rc = SPI_execute(command, false, 0);

	if (rc < 0)
		elog(ERROR, "could not execute \"%s\": %s", command,
			 SPI_result_code_string(rc));
}

static void
comment_on(const char *kind, const Place *place, const char *comment)
{
	execute(psprintf("COMMENT ON %s %s IS %s", kind, place->quoted,
					 quote_literal_cstr(comment)));
}

/* The table, and the view if one is needed, as the query wants them. */
static void
make_relations(const SelectReport *report, Place *table, Place *view,
			   const ReportDefinition *definition)
{
	SPI_connect();
	if (OidIsValid(table->relid))
		check_table(table, report);
	else
	{
		execute(select_make_table(report, table->quoted));
		/* the other members must outlive SPI's memory */
		table->relid = get_relname_relid(table->name, table->schema);
		if (!report->plain)
			comment_on("TABLE", table,
					   psprintf("What view %s is made of; kept by report \"%s\"",
								view->quoted, definition->name));
	}
	if (!report->plain)
	{
		if (OidIsValid(view->relid))
			check_view(view, report);
		execute(select_make_view(report, view->quoted, table->relid));
	}
	if (definition->description != NULL)
		comment_on(report->plain ? "TABLE" : "VIEW",
				   report->plain ? table : view, definition->description);
	SPI_finish();
}

/* report.definitions.source: {"query": ..., "view": ...} */
static char *
make_source(const char *query, const Place *view)
{
	StringInfoData source;

	initStringInfo(&source);
	appendStringInfoString(&source, "{\"query\": ");
	escape_json(&source, query);
	if (view != NULL)
	{
		appendStringInfoString(&source, ", \"view\": ");
		escape_json(&source, view->quoted);
	}
	appendStringInfoChar(&source, '}');
	return source.data;
}

static void
define_select(ReportDefinition *definition, const char *query, Place *target)
{
	SelectReport *report;
	ReportScope scope;
	Place		table;
	bool		changed;

	target->ours = report_is_there(definition->name);
	table = *target;
	report_enter(&scope, GetUserId());
	report = select_analyze(query);
	report_leave(&scope);

	if (!report->plain)
	{
		table = make_place(target->schema,
						   makeObjectName(target->name, NULL, "state"));
		table.ours = target->ours;
	}
	else if (OidIsValid(table.relid) &&
			 get_rel_relkind(table.relid) == RELKIND_VIEW)
		refuse_target(target, "It is a view, which this query does not need.");
	changed = check_definitions(definition->name, &table, query);
	make_relations(report, &table, target, definition);

	definition->statement = select_make_statement(report, table.quoted);
	definition->target = table.relid;
	definition->kind = "select";
	definition->source = make_source(query, report->plain ? NULL : target);
	report_define_as(definition);
	if (changed)
		ereport(NOTICE,
				(errmsg("report \"%s\" goes on with another query: what the former one made of earlier events stays in %s",
						definition->name, table.quoted),
				 errhint("SELECT report.rebuild(%s); makes all of it by this query.",
						 quote_literal_cstr(definition->name))));
}

Datum
report_define_select(PG_FUNCTION_ARGS)
{
	ReportDefinition definition = {0};
	Place		target;
	int			guc_level;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name, query and target of a report must not be null")));
	definition.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!PG_ARGISNULL(3))
		definition.description = text_to_cstring(PG_GETARG_TEXT_PP(3));
	report_define_options(fcinfo, 4, &definition);

	/* The target's name alone is looked up with the caller's search_path. */
	target = find_target(PG_GETARG_TEXT_PP(2));
	guc_level = NewGUCNestLevel();
	report_pin_settings();
	define_select(&definition, text_to_cstring(PG_GETARG_TEXT_PP(1)), &target);
	AtEOXact_GUC(false, guc_level);
	PG_RETURN_VOID();
}

/* The transition function of report.latest: the newer value, NULL or not. */
Datum
report_latest_step(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PG_GETARG_DATUM(1));
}
