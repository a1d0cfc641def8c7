/*-------------------------------------------------------------------------
 *
 * backfill_sql.c
 *	  A route and its table in the SQL of outbox.backfill.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Names and operators are qualified, values are parameters; what comes as SQL is
 * the route's condition, as PostgreSQL prints it, and the caller's.  Whoever
 * executes the result does it as the table's owner (backfill_list.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "capture/backfill.h"
#include "capture/condition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "errors.h"
#include "executor/spi.h"
#include "outbox/event.h"
#include "outbox/route_arguments.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/*
 * The enabled trigger of the route on insert; a copy, since triggers may be
 * made while we read.
 */
const Trigger *
backfill_trigger(Relation rel, const char *event_type)
{
	Oid			function = outbox_capture_function(false);
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (trigger->tgfoid != function || !TRIGGER_FOR_INSERT(trigger->tgtype) ||
			(trigger->tgenabled != TRIGGER_FIRES_ON_ORIGIN &&
			 trigger->tgenabled != TRIGGER_FIRES_ALWAYS))
			continue;
		for (int a = 0; a < trigger->tgnargs; a++)
		{
			const char *type = route_argument_value(trigger->tgargs[a], "event_type");

			if (type != NULL && strcmp(type, event_type) == 0)
				return trigger;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_OB_ROUTE_REFUSED),
			 errmsg("table \"%s\" has no enabled route \"%s\" for inserted rows",
					RelationGetRelationName(rel), event_type),
			 errhint("Make it with outbox.capture first; outbox.routes lists the routes.")));
}

/*
 * FROM the source under the name NEW (so that conditions can say NEW.column),
 * joined with further items, WHERE the route's condition and the caller's hold.
 */
void
backfill_append_from(StringInfo sql, const Backfill *b, Relation rel, const char *more)
{
	const Trigger *trigger = backfill_trigger(rel, b->event_type);

	/* children of plain inheritance do not fire their parent's triggers */
	appendStringInfo(sql, " FROM %s%s%s AS new WHERE true",
					 more, rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												RelationGetRelationName(rel)));
	if (trigger->tgqual != NULL)
		appendStringInfo(sql, " AND (%s)",
						 condition_text(trigger->tgqual, RelationGetRelid(rel)));
	/* it may end in a comment */
	if (b->condition != NULL)
		appendStringInfo(sql, " AND (%s\n)", b->condition);
}

/* SQL for the key of a row, an array of texts as text. */
void
backfill_append_key(StringInfo sql, Relation rel, Relation pkey)
{
	appendStringInfoString(sql, "(ARRAY[");
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(pkey); i++)
	{
		Form_pg_attribute att =
		TupleDescAttr(RelationGetDescr(rel), pkey->rd_index->indkey.values[i] - 1);

		appendStringInfo(sql, "%snew.%s::pg_catalog.text", i > 0 ? ", " : "",
						 quote_identifier(NameStr(att->attname)));
	}
	appendStringInfoString(sql, "])::pg_catalog.text");
}

/*
 * SQL that compares a row's key with one of the list, by the index's own
 * operators: so the index can be used, whatever the types.
 */
void
backfill_append_match(StringInfo sql, Relation rel, Relation pkey)
{
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(pkey); i++)
	{
		Form_pg_attribute att =
		TupleDescAttr(RelationGetDescr(rel), pkey->rd_index->indkey.values[i] - 1);
		Oid			operator = get_opfamily_member(pkey->rd_opfamily[i],
												   pkey->rd_opcintype[i],
												   pkey->rd_opcintype[i],
												   BTEqualStrategyNumber);
		HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
		Form_pg_operator form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for operator %u", operator);
		form = (Form_pg_operator) GETSTRUCT(tuple);
		appendStringInfo(sql, " AND new.%s OPERATOR(%s.%s) (\"outbox key\".\"outbox key\"::pg_catalog.text[])[%d]::%s",
						 quote_identifier(NameStr(att->attname)),
						 quote_identifier(get_namespace_name(form->oprnamespace)),
						 NameStr(form->oprname), i + 1,
						 format_type_be_qualified(att->atttypid));
		ReleaseSysCache(tuple);
	}
}
