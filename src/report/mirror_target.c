/*-------------------------------------------------------------------------
 *
 * mirror_target.c
 *	  The table of a mirror, as far as the mirror's SQL needs it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "errors.h"
#include "nodes/nodeFuncs.h"
#include "report/mirror.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

char *
mirror_array_literal(ArrayType *array)
{
	return quote_literal_cstr(OidOutputFunctionCall(F_ARRAY_OUT,
													PointerGetDatum(array)));
}

const char *
mirror_column_name(const MirrorTarget *target, int attno)
{
	return NameStr(TupleDescAttr(RelationGetDescr(target->rel),
								 attno - 1)->attname);
}

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

/*
 * Are equal values of a key's column the same bytes?  Not 1.0 and 1.00, nor texts
 * of citext or of a collation that is not deterministic.  B-trees want to know it
 * for deduplication (nbtutils.c, _bt_allequalimage()).
 */
static bool
is_exact(Relation index, int column)
{
	Oid			type = index->rd_opcintype[column];
	Oid			function = get_opfamily_proc(index->rd_opfamily[column],
											 type, type, BTEQUALIMAGE_PROC);

	return OidIsValid(function) &&
		DatumGetBool(OidFunctionCall1Coll(function,
										  index->rd_indcollation[column],
										  ObjectIdGetDatum(type)));
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
			if (index->rd_rel->relam != BTREE_AM_OID)	/* from 18 on */
				ereport(ERROR,
						(errcode(ERRCODE_OB_REPORT_REFUSED),
						 errmsg("the primary key of table \"%s\" is WITHOUT OVERLAPS",
								RelationGetRelationName(rel)),
						 errhint("Let the primary key be of columns that the events have.")));
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
	target->exact = palloc(sizeof(bool) * target->n_keys);
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
		target->exact[i] = is_exact(index, i);
		names[i] = CStringGetTextDatum(NameStr(att->attname));
	}
	target->key_names =
		mirror_array_literal(construct_array(names, target->n_keys, TEXTOID, -1,
											 false, TYPALIGN_INT));
	index_close(index, AccessShareLock);
	return target;
}

bool
mirror_has_column(const MirrorTarget *target, const char *name)
{
	return get_attnum(RelationGetRelid(target->rel), name) > 0;
}

bool
mirror_is_key(const MirrorTarget *target, AttrNumber attno)
{
	for (int i = 0; i < target->n_keys; i++)
	{
		if (target->keys[i] == attno)
			return true;
	}
	return false;
}

/* A key's value that equals the row's, but is not the same, is the newer one. */
bool
mirror_is_updated(const MirrorTarget *target, AttrNumber attno)
{
	for (int i = 0; i < target->n_keys; i++)
	{
		if (target->keys[i] == attno)
			return !target->exact[i];
	}
	return true;
}

/*
 * Columns that are filled from the event.  Generated ones are not; nor is an
 * identity column outside the key, which numbers the rows itself.
 */
bool
mirror_is_filled(const MirrorTarget *target, AttrNumber attno)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(target->rel),
										  attno - 1);

	return !att->attisdropped && att->attgenerated == '\0' &&
		(att->attidentity == '\0' || mirror_is_key(target, attno));
}

/* What a column gets that the event does not have; NULL: null. */
char *
mirror_default(const MirrorTarget *target, AttrNumber attno)
{
	Node	   *expression;

	if (!mirror_is_filled(target, attno) || mirror_is_key(target, attno))
		return NULL;
	expression = build_column_default(target->rel, attno);
	if (expression == NULL ||
		(IsA(expression, Const) && ((Const *) expression)->constisnull))
		return NULL;
	return deparse_expression(expression, NIL, false, false);
}
