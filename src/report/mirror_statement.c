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

#include "catalog/pg_type.h"
#include "compat.h"
#include "lib/stringinfo.h"
#include "report/mirror.h"
#include "report/reports.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

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

		if (mirror_has_column(target, image->former) ||
			mirror_has_column(target, image->state))
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
						 mirror_array_literal(source->delete_types));
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
						 mirror_array_literal(source->event_types));
		if (source->delete_types != NULL)
			appendStringInfo(sql, " OR e.event_type = ANY (%s)",
							 mirror_array_literal(source->delete_types));
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
						 quote_identifier(mirror_column_name(target, target->keys[i])),
						 i + 1);
}

/* k1, ... */
static void
append_key_list(StringInfo sql, const MirrorTarget *target)
{
	bool		first = true;

	for (int i = 0; i < target->n_keys; i++)
		appendStringInfo(sql, "%sk%d", comma(&first), i + 1);
}

/*
 * What mirror_guard.c knows a key by.  It is the same in every session: the one
 * that rebuilds may have another time zone than the reporter.  And for equal
 * values: what is not exact is told by its hash.
 */
static void
append_noted_key(StringInfo sql, const MirrorTarget *target)
{
	bool		first = true;

	appendStringInfoString(sql, "jsonb_build_array(");
	for (int i = 0; i < target->n_keys; i++)
	{
		Oid			type = TupleDescAttr(RelationGetDescr(target->rel),
										 target->keys[i] - 1)->atttypid;

		if (getBaseType(type) == TIMESTAMPTZOID)
			appendStringInfo(sql, "%sk%d AT TIME ZONE 'UTC'", comma(&first), i + 1);
		else if (!target->exact[i] &&
				 OidIsValid(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc))
			appendStringInfo(sql, "%shash_record_extended(ROW(k%d), 0)",
							 comma(&first), i + 1);
		else
			appendStringInfo(sql, "%sk%d", comma(&first), i + 1);
	}
	appendStringInfoChar(sql, ')');
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
						 quote_identifier(mirror_column_name(target, target->keys[i])),
						 target->equal[i], right, i + 1);
}

/* ------------------------------------------------------------------------
 * The statement
 * ------------------------------------------------------------------------
 */

/*
 * The state as a row of the table.  Members that fill nothing are taken out: they
 * need not be values of their columns' types.  A domain may not allow the null that
 * stands for a member which is missing until the column's default takes its place.
 */
static void
append_state_row(StringInfo sql, const MirrorTarget *target)
{
	TupleDesc	desc = RelationGetDescr(target->rel);
	Datum	   *others = palloc(sizeof(Datum) * desc->natts);
	int			n_others = 0;

	appendStringInfo(sql, " jsonb_populate_record(NULL::%s, s.state", target->name);
	for (int i = 1; i <= desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i - 1)->attisdropped &&
			!mirror_is_filled(target, i))
			others[n_others++] =
				CStringGetTextDatum(mirror_column_name(target, i));
	}
	if (n_others > 0)
		appendStringInfo(sql, " - %s::text[]",
						 mirror_array_literal(construct_array(others, n_others,
															  TEXTOID, -1, false,
															  TYPALIGN_INT)));
	for (int i = 1; i <= desc->natts; i++)
	{
		char	   *name;
		char	   *otherwise = mirror_default(target, i);

		if (otherwise == NULL ||
			!compat_domain_has_constraints(TupleDescAttr(desc, i - 1)->atttypid))
			continue;
		name = quote_literal_cstr(mirror_column_name(target, i));
		appendStringInfo(sql,
						 " || CASE WHEN s.state ? %s THEN '{}'"
						 " ELSE jsonb_build_object(%s, %s) END",
						 name, name, otherwise);
	}
	appendStringInfoString(sql, ") AS state_row\n");
}

static void
append_changes(StringInfo sql, const char *report, const MirrorTarget *target)
{
	int			natts = RelationGetDescr(target->rel)->natts;

	appendStringInfoString(sql, ", changes AS MATERIALIZED (\n"
						   "\tSELECT * FROM (\n"
						   "\t\tSELECT DISTINCT ON (");
	append_key_list(sql, target);
	appendStringInfoString(sql, ") * FROM (\n\t\t\tSELECT ");
	append_keys(sql, target, "(s.state_row)");
	appendStringInfoString(sql, ", s.*, true AS stays\n"
						   "\t\t\tFROM (SELECT s.log_seq,");
	for (int i = 1; i <= natts; i++)
	{
		if (mirror_default(target, i) != NULL)
			appendStringInfo(sql, " NOT s.state ? %s AS lacks%d,",
							 quote_literal_cstr(mirror_column_name(target, i)), i);
	}
	append_state_row(sql, target);
	appendStringInfoString(sql,
						   "\t\t\t\tFROM said s WHERE s.state IS NOT NULL AND NOT s.ends OFFSET 0) s\n"
						   "\t\t\tUNION ALL\n\t\t\tSELECT ");
	append_keys(sql, target, "k");
	appendStringInfoString(sql, ", s.log_seq");
	for (int i = 1; i <= natts; i++)
	{
		if (mirror_default(target, i) != NULL)
			appendStringInfoString(sql, ", false");
	}
	appendStringInfo(sql, ", NULL::%s, false\n\t\t\tFROM (SELECT s.log_seq, ",
					 target->name);
	append_end(sql, target);
	appendStringInfoString(sql, "\n\t\t\t\tFROM said s OFFSET 0) s, jsonb_to_record(s.ended) AS ");
	append_key_record(sql, target);
	appendStringInfoString(sql, "\n\t\t\tWHERE s.ended IS NOT NULL\n"
						   "\t\t) c ORDER BY ");
	append_key_list(sql, target);
	appendStringInfo(sql, ", log_seq DESC, stays DESC\n"
					 "\t) c WHERE NOT (SELECT report.mirror_guarded(%s))"
					 " OR report.mirror_take(%s, ",
					 quote_literal_cstr(report), quote_literal_cstr(report));
	append_noted_key(sql, target);
	appendStringInfoString(sql, ", log_seq)\n)");
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
		if (!mirror_is_filled(target, i))
			continue;
		appendStringInfo(&sql, "%s%s", comma(&first),
						 quote_identifier(mirror_column_name(target, i)));
		identity |= TupleDescAttr(desc, i - 1)->attidentity != '\0';
		sets |= mirror_is_updated(target, i);
	}
	appendStringInfo(&sql, ")%s\nSELECT ",
					 identity ? " OVERRIDING SYSTEM VALUE" : "");
	first = true;
	for (int i = 1; i <= desc->natts; i++)
	{
		const char *name = quote_identifier(mirror_column_name(target, i));
		char	   *otherwise = mirror_default(target, i);

		if (!mirror_is_filled(target, i))
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
						 quote_identifier(mirror_column_name(target, target->keys[i])));
	appendStringInfoString(&sql, sets ? ") DO UPDATE SET " : ") DO NOTHING");
	first = true;
	for (int i = 1; i <= desc->natts; i++)
	{
		const char *name = quote_identifier(mirror_column_name(target, i));

		if (mirror_is_filled(target, i) && mirror_is_updated(target, i))
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
