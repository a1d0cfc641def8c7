/*-------------------------------------------------------------------------
 *
 * select_explain.c
 *	  report.explain for a report that is a SELECT.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The events behind a row: those that the query's FROM and WHERE let through
 * and whose GROUP BY expressions equal the key, as GROUP BY compares.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "report/explain.h"
#include "report/select.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

/* Each member must be a column, and each column of the key a member. */
static void
check_members(const ExplainedReport *report, const SelectReport *select,
			  Jsonb *key)
{
	StringInfoData names;
	bool		missing = !JB_ROOT_IS_OBJECT(key);
	uint32		known = 0;
	ListCell   *cell;

	initStringInfo(&names);
	foreach(cell, select->outputs)
	{
		SelectOutput *output = lfirst(cell);

		if (explain_member(key, output->name) != NULL)
			known++;
	}
	foreach(cell, select->states)
	{
		SelectState *state = lfirst(cell);

		if (state->merge != MERGE_KEY)
			continue;
		appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "",
						 state->name);
		if (explain_member(key, state->name) == NULL)
			missing = true;
	}
	if (missing || known != JsonContainerSize(&key->root))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the key is not one of report \"%s\"", report->name),
				 errdetail("It must be an object with the members %s; other columns of the report are ignored.",
						   names.data),
				 errhint("SELECT report.explain(%s, to_jsonb(r)) FROM ... r explains a row.",
						 quote_literal_cstr(report->name))));
}

/*
 * The key's values, as the table's columns would take them from JSON.  Of other
 * columns nothing is wanted: not every value can be read back from JSON.
 */
static void
read_key(const SelectReport *select, Jsonb *key, MemoryContext context,
		 Explanation *explanation, bool *isnull)
{
	static Oid	types[] = {JSONBOID};
	Datum		values[] = {JsonbPGetDatum(key)};
	StringInfoData query;
	ListCell   *cell;
	int			n = 0;

	initStringInfo(&query);
	foreach(cell, select->states)
	{
		SelectState *state = lfirst(cell);

		if (state->merge == MERGE_KEY)
			appendStringInfo(&query, "%s %s %s",
							 query.len == 0 ? "SELECT * FROM jsonb_to_record($1) AS r(" : ",",
							 quote_identifier(state->name),
							 format_type_with_typemod(exprType(state->value),
													  exprTypmod(state->value)));
	}
	appendStringInfoChar(&query, ')');
	if (SPI_execute_with_args(query.data, 1, types, values, NULL, true, 0) !=
		SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the key");
	foreach(cell, select->states)
	{
		SelectState *state = lfirst(cell);
		MemoryContext old;
		Datum		value;
		int16		length;
		bool		by_value;

		if (state->merge != MERGE_KEY)
			continue;
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
							  n + 1, &isnull[n]);
		explanation->types[n] = exprType(state->value);
		explanation->nulls[n] = isnull[n] ? 'n' : ' ';
		if (!isnull[n])
		{
			get_typlenbyval(explanation->types[n], &length, &by_value);
			old = MemoryContextSwitchTo(context);
			explanation->values[n] = datumCopy(value, by_value, length);
			MemoryContextSwitchTo(old);
		}
		n++;
	}
	explanation->n = n;
	SPI_freetuptable(SPI_tuptable);
}

void
explain_select(const ExplainedReport *report, Jsonb *key,
			   MemoryContext context, Explanation *explanation)
{
	JsonbValue *query = explain_member(report->source, "query");
	SelectReport *select;
	bool	   *isnull;
	int			room;

	if (query == NULL || query->type != jbvString)
		elog(ERROR, "report \"%s\" has no query", report->name);
	select = select_analyze(pnstrdup(query->val.string.val,
									 query->val.string.len));
	check_members(report, select, key);

	room = list_length(select->states);
	isnull = palloc0(room * sizeof(bool));
	explanation->types = MemoryContextAllocZero(context, room * sizeof(Oid));
	explanation->values = MemoryContextAllocZero(context,
												 room * sizeof(Datum));
	explanation->nulls = MemoryContextAllocZero(context, room + 1);
	read_key(select, key, context, explanation, isnull);
	explanation->query =
		MemoryContextStrdup(context, select_make_explanation(select, isnull));
}
