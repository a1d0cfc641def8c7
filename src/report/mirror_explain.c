/*-------------------------------------------------------------------------
 *
 * mirror_explain.c
 *	  report.explain for mirrors: the events that wrote or ended a row.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "report/explain.h"
#include "report/mirror.h"
#include "utils/rel.h"

/* An object with a value for each column of the primary key. */
static void
check_key(const MirrorTarget *target, Jsonb *key)
{
	for (int i = 0; i < target->n_keys; i++)
	{
		const char *name = NameStr(TupleDescAttr(RelationGetDescr(target->rel),
												 target->keys[i] - 1)->attname);
		JsonbValue *value = explain_member(key, name);

		if (value == NULL || value->type == jbvNull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the key has no value of column \"%s\"", name),
					 errhint("Give a JSON object with all columns of the primary key of table %s.",
							 target->name)));
	}
}

void
explain_mirror(const ExplainedReport *report, Jsonb *key,
			   MemoryContext context, Explanation *explanation)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	MirrorTarget *target = mirror_target(report->target);
	MirrorSource source;

	check_key(target, key);
	mirror_read_source(report->source, &source);
	explanation->query = mirror_explain_query(target, &source);
	explanation->n = 1;
	explanation->types = palloc(sizeof(Oid));
	explanation->types[0] = JSONBOID;
	explanation->values = palloc(sizeof(Datum));
	explanation->values[0] = JsonbPGetDatum(key);
	explanation->nulls = pstrdup(" ");
	table_close(target->rel, NoLock);
	MemoryContextSwitchTo(old);
}
