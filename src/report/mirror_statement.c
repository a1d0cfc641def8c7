/*-------------------------------------------------------------------------
 *
 * mirror_statement.c
 *	  The SQL of a mirror.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * One statement for a batch of any size:
 *
 *	said		what each event says: the row's state, and the one before
 *	changes		the newest change of each key: a row, or the end of one
 *	gone		the ends, executed before the rows are written: a row may take
 *				over a unique value of one that ends in the same batch
 *
 * An event with a former and a new state ends the former one's key and writes the
 * new one's; where these are the same key, the row comes after the end.
 *
 * Rows are found through ON CONFLICT and not by a join (MERGE): that is an index
 * look-up whatever the planner thinks of the table, and plans are kept.
 *
 * Names are qualified and operators named with their schema: the search_path
 * is pg_catalog, where citext = citext would be the one of text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_index.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "errors.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "report/mirror.h"
#include "report/reports.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

/* Members of an image with the state before and after: ours, Debezium's. */
typedef struct ImageNames
{
	const char *former;
	const char *state;
	const char *members;		/* all that must be there */
} ImageNames;

static const ImageNames images[] = {
	{"old", "new", "{old,new}"},
	{"before", "after", "{before,after,op}"}
};

static char *
array_literal(ArrayType *array)
{
	return quote_literal_cstr(OidOutputFunctionCall(F_ARRAY_OUT,
													PointerGetDatum(array)));
}

static const char *
column_name(const MirrorTarget *target, int attno)
{
	return NameStr(TupleDescAttr(RelationGetDescr(target->rel),
								 attno - 1)->attname);
}

/* ------------------------------------------------------------------------
 * The target
 * ------------------------------------------------------------------------
 */

/* The operator that the primary key's index compares a column with. */
static char *
equality_operator(Relation index, int column)
{
	Oid			type = index->rd_opcintype[column];
	Oid			operator = get_opfamily_member(index->rd_opfamily[column],
											   type, type,
											   BTEqualStrategyNumber);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *text;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "no equality operator for column %d of index \"%s\"",
			 column + 1, RelationGetRelationName(index));
	form = (Form_pg_operator) GETSTRUCT(tuple);
	text = psprintf("OPERATOR(%s.%s)",
					quote_identifier(get_namespace_name(form->oprnamespace)),
					NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return text;
}

/* The primary key, not deferrable; NULL: there is none. */
static Relation
primary_key(Relation rel)
{
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indisprimary)
		{
			if (index->rd_index->indimmediate)
				return index;
			ereport(ERROR,
					(errcode(ERRCODE_OB_REPORT_REFUSED),
					 errmsg("the primary key of table \"%s\" is deferrable",
							RelationGetRelationName(rel)),
					 errhint("Make it NOT DEFERRABLE.")));
		}
		index_close(index, AccessShareLock);
	}
	return NULL;
}

MirrorTarget *
mirror_target(Oid relid)
{
	MirrorTarget *target = palloc0(sizeof(MirrorTarget));
	Relation	rel = table_open(relid, AccessShareLock);
	Relation	index = primary_key(rel);
	Datum	   *names;

	if (index == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("table \"%s\" has no primary key",
						RelationGetRelationName(rel)),
				 errdetail("A mirror finds the row of an event by the primary key of its table."),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (...), over columns that the events have.",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													RelationGetRelationName(rel)))));

	target->rel = rel;
	target->name =
		quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
								   RelationGetRelationName(rel));
	target->n_keys = index->rd_index->indnkeyatts;
	target->keys = palloc(sizeof(AttrNumber) * target->n_keys);
	target->equal = palloc(sizeof(char *) * target->n_keys);
	names = palloc(sizeof(Datum) * target->n_keys);
	for (int i = 0; i < target->n_keys; i++)
	{
		AttrNumber	attno = index->rd_index->indkey.values[i];
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);

		if (att->attgenerated != '\0')
			ereport(ERROR,
					(errcode(ERRCODE_OB_REPORT_REFUSED),
					 errmsg("column \"%s\" of the primary key of table \"%s\" is generated",
							NameStr(att->attname), RelationGetRelationName(rel)),
					 errdetail("A mirror finds the row of an event by the primary key, which it fills from the event."),
					 errhint("Let the primary key be of columns that the events have.")));
		target->keys[i] = attno;
		target->equal[i] = equality_operator(index, i);
		names[i] = CStringGetTextDatum(NameStr(att->attname));
	}
	target->key_names =
		array_literal(construct_array(names, target->n_keys, TEXTOID, -1,
									  false, TYPALIGN_INT));
	index_close(index, AccessShareLock);
	return target;
}

static bool
has_column(const MirrorTarget *target, const char *name)
{
	return get_attnum(RelationGetRelid(target->rel), name) > 0;
}

static bool
is_key(const MirrorTarget *target, AttrNumber attno)
{
	for (int i = 0; i < target->n_keys; i++)
	{
		if (target->keys[i] == attno)
			return true;
	}
	return false;
}

/*
 * Columns that are filled from the event.  Generated ones are not; nor is an
 * identity column outside the key, which numbers the rows itself.
 */
static bool
is_filled(const MirrorTarget *target, AttrNumber attno)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(target->rel),
										  attno - 1);

	return !att->attisdropped && att->attgenerated == '\0' &&
		(att->attidentity == '\0' || is_key(target, attno));
}

/* What a column gets that the event does not have; NULL: null. */
static char *
default_of(const MirrorTarget *target, AttrNumber attno)
{
	Node	   *expression;

	if (!is_filled(target, attno) || is_key(target, attno))
		return NULL;
	expression = build_column_default(target->rel, attno);
	if (expression == NULL ||
		(IsA(expression, Const) && ((Const *) expression)->constisnull))
		return NULL;
	return deparse_expression(expression, NIL, false, false);
}

/* ------------------------------------------------------------------------
 * Pieces of SQL
 * ------------------------------------------------------------------------
 */

/* ", " between the items of a list. */
static const char *
comma(bool *first)
{
	const char *text = *first ? "" : ", ";

	*first = false;
	return text;
}

/* CASE branches that take a member of the image; a row may have such columns. */
static void
append_images(StringInfo sql, const MirrorTarget *target, bool former)
{
	for (Size i = 0; i < lengthof(images); i++)
	{
		const ImageNames *image = &images[i];

		if (has_column(target, image->former) ||
			has_column(target, image->state))
			continue;
		appendStringInfo(sql,
						 "\n\t\t\tWHEN e.data ?& '%s'"
						 " AND jsonb_typeof(e.data -> '%s') = ANY ('{object,\"null\"}')"
						 " AND jsonb_typeof(e.data -> '%s') = ANY ('{object,\"null\"}')"
						 "\n\t\t\tTHEN NULLIF(e.data -> '%s', 'null')",
						 image->members, image->former, image->state,
						 former ? image->former : image->state);
	}
}

static void
append_said(StringInfo sql, const MirrorTarget *target,
			const MirrorSource *source)
{
	const char *word = "WHERE";

	appendStringInfoString(sql, "WITH said AS NOT MATERIALIZED (\n"
						   "\tSELECT e.log_seq, e.event_key,\n\t\t");
	if (source->delete_types != NULL)
		appendStringInfo(sql, "e.event_type = ANY (%s)",
						 array_literal(source->delete_types));
	else
		appendStringInfoString(sql, "false");
	appendStringInfoString(sql, " AS ends,\n\t\tCASE WHEN false THEN NULL::jsonb");
	append_images(sql, target, true);
	appendStringInfoString(sql, " END AS former,\n\t\tCASE WHEN false THEN NULL::jsonb");
	append_images(sql, target, false);
	appendStringInfoString(sql, "\n\t\t\tELSE NULLIF(e.data, 'null') END AS state\n"
						   "\tFROM " NEW_EVENTS " e");
	if (source->event_types != NULL)
	{
		appendStringInfo(sql, "\n\tWHERE (e.event_type = ANY (%s)",
						 array_literal(source->event_types));
		if (source->delete_types != NULL)
			appendStringInfo(sql, " OR e.event_type = ANY (%s)",
							 array_literal(source->delete_types));
		appendStringInfoChar(sql, ')');
		word = "AND";
	}
	if (source->topic != NULL)
		appendStringInfo(sql, "\n\t%s e.topic = %s", word,
						 quote_literal_cstr(source->topic));
	appendStringInfoString(sql, "\n)");
}

/* k(name type, ...): the key's columns out of a JSON object. */
static void
append_key_record(StringInfo sql, const MirrorTarget *target)
{
	bool		first = true;

	appendStringInfoString(sql, "k(");
	for (int i = 0; i < target->n_keys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(target->rel),
											  target->keys[i] - 1);

		appendStringInfo(sql, "%s%s %s", comma(&first),
						 quote_identifier(NameStr(att->attname)),
						 format_type_extended(att->atttypid, att->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(att->attcollation))
			appendStringInfo(sql, " COLLATE %s",
							 generate_collation_name(att->attcollation));
	}
	appendStringInfoChar(sql, ')');
}

/* prefix.name AS k1, ... */
static void
append_keys(StringInfo sql, const MirrorTarget *target, const char *prefix)
{
	bool		first = true;

	for (int i = 0; i < target->n_keys; i++)
		appendStringInfo(sql, "%s%s.%s AS k%d", comma(&first), prefix,
						 quote_identifier(column_name(target, target->keys[i])),
						 i + 1);
}

/*
 * k1, ...; or as JSON that is the same in every session: the one that rebuilds
 * may have another time zone than the reporter.
 */
static void
append_key_list(StringInfo sql, const MirrorTarget *target, bool as_json)
{
	bool		first = true;

	for (int i = 0; i < target->n_keys; i++)
	{
		Oid			type = TupleDescAttr(RelationGetDescr(target->rel),
										 target->keys[i] - 1)->atttypid;

		appendStringInfo(sql, "%sk%d%s", comma(&first), i + 1,
						 as_json && getBaseType(type) == TIMESTAMPTZOID ?
						 " AT TIME ZONE 'UTC'" : "");
	}
}

/* The JSON object with the key that an event ends; null: it ends none. */
static void
append_end(StringInfo sql, const MirrorTarget *target)
{
	appendStringInfo(sql,
					 "CASE WHEN s.ends OR s.state IS NULL"
					 " THEN report.mirror_key(%s, s.event_key, s.former, s.state)\n"
					 "\t\t\t\tWHEN s.former ?& %s THEN s.former END AS ended",
					 target->key_names, target->key_names);
}

/* t.id = prefix.k1 AND ... */
static void
append_match(StringInfo sql, const MirrorTarget *target, const char *left,
			 const char *right)
{
	for (int i = 0; i < target->n_keys; i++)
		appendStringInfo(sql, "%s%s.%s %s %s.k%d", i > 0 ? " AND " : "", left,
						 quote_identifier(column_name(target, target->keys[i])),
						 target->equal[i], right, i + 1);
}

/* ------------------------------------------------------------------------
 * The statement
 * ------------------------------------------------------------------------
 */

static void
append_changes(StringInfo sql, const char *report, const MirrorTarget *target)
{
	int			natts = RelationGetDescr(target->rel)->natts;

	appendStringInfoString(sql, ", changes AS MATERIALIZED (\n"
						   "\tSELECT * FROM (\n"
						   "\t\tSELECT DISTINCT ON (");
	append_key_list(sql, target, false);
	appendStringInfoString(sql, ") * FROM (\n\t\t\tSELECT ");
	append_keys(sql, target, "(s.state_row)");
	appendStringInfoString(sql, ", s.*, true AS stays\n"
						   "\t\t\tFROM (SELECT s.log_seq,");
	for (int i = 1; i <= natts; i++)
	{
		if (default_of(target, i) != NULL)
			appendStringInfo(sql, " NOT s.state ? %s AS lacks%d,",
							 quote_literal_cstr(column_name(target, i)), i);
	}
	appendStringInfo(sql, " jsonb_populate_record(NULL::%s, s.state) AS state_row\n"
					 "\t\t\t\tFROM said s WHERE s.state IS NOT NULL AND NOT s.ends OFFSET 0) s\n"
					 "\t\t\tUNION ALL\n\t\t\tSELECT ", target->name);
	append_keys(sql, target, "k");
	appendStringInfoString(sql, ", s.log_seq");
	for (int i = 1; i <= natts; i++)
	{
		if (default_of(target, i) != NULL)
			appendStringInfoString(sql, ", false");
	}
	appendStringInfo(sql, ", NULL::%s, false\n\t\t\tFROM (SELECT s.log_seq, ",
					 target->name);
	append_end(sql, target);
	appendStringInfoString(sql, "\n\t\t\t\tFROM said s OFFSET 0) s, jsonb_to_record(s.ended) AS ");
	append_key_record(sql, target);
	appendStringInfoString(sql, "\n\t\t\tWHERE s.ended IS NOT NULL\n"
						   "\t\t) c ORDER BY ");
	append_key_list(sql, target, false);
	appendStringInfo(sql, ", log_seq DESC, stays DESC\n"
					 "\t) c WHERE NOT (SELECT report.mirror_guarded(%s))"
					 " OR report.mirror_take(%s, jsonb_build_array(",
					 quote_literal_cstr(report), quote_literal_cstr(report));
	append_key_list(sql, target, true);
	appendStringInfoString(sql, "), log_seq)\n)");
}

char *
mirror_statement(const char *report, const MirrorTarget *target,
				 const MirrorSource *source)
{
	TupleDesc	desc = RelationGetDescr(target->rel);
	StringInfoData sql;
	bool		identity = false;
	bool		first = true;
	bool		sets = false;

	initStringInfo(&sql);
	append_said(&sql, target, source);
	append_changes(&sql, report, target);

	appendStringInfo(&sql, ", gone AS (\n\tDELETE FROM %s t USING changes c WHERE NOT c.stays AND ",
					 target->name);
	append_match(&sql, target, "t", "c");
	appendStringInfo(&sql, "\n\tRETURNING true\n)\nINSERT INTO %s AS t (", target->name);
	for (int i = 1; i <= desc->natts; i++)
	{
		if (!is_filled(target, i))
			continue;
		appendStringInfo(&sql, "%s%s", comma(&first),
						 quote_identifier(column_name(target, i)));
		identity |= TupleDescAttr(desc, i - 1)->attidentity != '\0';
		sets |= !is_key(target, i);
	}
	appendStringInfo(&sql, ")%s\nSELECT ",
					 identity ? " OVERRIDING SYSTEM VALUE" : "");
	first = true;
	for (int i = 1; i <= desc->natts; i++)
	{
		const char *name = quote_identifier(column_name(target, i));
		char	   *otherwise = default_of(target, i);

		if (!is_filled(target, i))
			continue;
		if (otherwise == NULL)
			appendStringInfo(&sql, "%s(c.state_row).%s", comma(&first), name);
		else
			appendStringInfo(&sql, "%sCASE WHEN c.lacks%d THEN %s ELSE (c.state_row).%s END",
							 comma(&first), i, otherwise, name);
	}
	appendStringInfoString(&sql, "\nFROM changes c WHERE c.stays AND (SELECT count(*) FROM gone) IS NOT NULL\n"
						   "ON CONFLICT (");
	first = true;
	for (int i = 0; i < target->n_keys; i++)
		appendStringInfo(&sql, "%s%s", comma(&first),
						 quote_identifier(column_name(target, target->keys[i])));
	appendStringInfoString(&sql, sets ? ") DO UPDATE SET " : ") DO NOTHING");
	first = true;
	for (int i = 1; i <= desc->natts; i++)
	{
		const char *name = quote_identifier(column_name(target, i));

		if (is_filled(target, i) && !is_key(target, i))
			appendStringInfo(&sql, "%s%s = excluded.%s", comma(&first), name, name);
	}
	return sql.data;
}

/*
 * Only keys are looked at: what else is wrong with an event has kept it away
 * from the row, or not.  They are compared as JSON and not by the columns'
 * types, since one event whose key is no value of the type would end it all.
 */
char *
mirror_explain_query(const MirrorTarget *target, const MirrorSource *source)
{
	StringInfoData sql;

	/* Not beginning with WITH: others put one of theirs before it. */
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT x.log_seq FROM (");
	append_said(&sql, target, source);
	appendStringInfoString(&sql, ", wanted AS MATERIALIZED (\n"
						   "\tSELECT to_jsonb(k) AS key FROM jsonb_to_record($1) AS ");
	append_key_record(&sql, target);
	appendStringInfo(&sql, "\n)\nSELECT s.log_seq FROM said s, wanted w\n"
					 "WHERE report.mirror_touches(%s, s.ends, s.event_key, s.former, s.state, w.key)\n"
					 ") x ORDER BY x.log_seq",
					 target->key_names);
	return sql.data;
}
