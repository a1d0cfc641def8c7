/*-------------------------------------------------------------------------
 *
 * capture.c
 *	  The trigger that turns a changed row into an event.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * It opens no socket, waits for no worker, takes no lock that a worker holds
 * for longer than a memory access, and runs nothing with other rights than the
 * writer's own.
 *
 * Memory: all in the per-tuple context that AFTER triggers are called in; the
 * compiled route is the session's (route_cache.c), and what waits to be
 * inserted the transaction's (outbox/writer.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "capture/capture.h"
#include "capture/pins.h"
#include "capture/route.h"
#include "capture/virtual.h"
#include "commands/trigger.h"
#include "errors.h"
#include "fmgr.h"
#include "mutants.h"
#include "outbox/admission.h"
#include "outbox/encoding.h"
#include "outbox/event.h"
#include "outbox/json_escapes.h"
#include "outbox/topics.h"
#include "settings.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(outbox_capture_row);

/* One row in the route's shape. */
typedef struct Row
{
	Datum	   *values;
	bool	   *isnull;
} Row;

/* The change; NULL: there is no such row. */
typedef struct Change
{
	const Row  *new_row;		/* NULL for a delete */
	const Row  *old_row;		/* NULL for an insert */
} Change;

/*
 * The values of a tuple, in the order of the route's shape.  By the table's own
 * descriptor: it knows the defaults of columns that were added after the tuple
 * was written.
 */
static const Row *
read_row(const Route *route, HeapTuple tuple, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Row		   *row;
	Row		   *shaped;

	if (tuple == NULL)
		return NULL;
	row = palloc(sizeof(Row));
	row->values = palloc(sizeof(Datum) * (desc->natts + 1));
	row->isnull = palloc(sizeof(bool) * (desc->natts + 1));
	heap_deform_tuple(tuple, desc, row->values, row->isnull);
	if (route->to_shape == NULL || MUTANT("partition_shape"))
	{
		virtual_compute(route->virtuals, desc, row->values, row->isnull);
		return row;
	}

	shaped = palloc(sizeof(Row));
	shaped->values = palloc0(sizeof(Datum) * (route->to_shape->maplen + 1));
	shaped->isnull = palloc(sizeof(bool) * (route->to_shape->maplen + 1));
	for (int i = 0; i < route->to_shape->maplen; i++)
	{
		AttrNumber	attno = route->to_shape->attnums[i];

		shaped->isnull[i] =
			attno == InvalidAttrNumber || row->isnull[attno - 1];
		if (!shaped->isnull[i])
			shaped->values[i] = row->values[attno - 1];
	}
	virtual_compute(route->virtuals, route->shape, shaped->values, shaped->isnull);
	return shaped;
}

/* NULL columns give the empty string. */
static TextSlice
render(Route *route, const Template *template, const Change *change)
{
	StringInfoData text;
	TextSlice	slice;

	initStringInfo(&text);
	for (int i = 0; i < template->n_parts; i++)
	{
		const TemplatePart *part = &template->parts[i];
		const Row  *row;

		if (part->text != NULL)
		{
			appendBinaryStringInfo(&text, part->text, part->len);
			continue;
		}
		row = part->old || change->new_row == NULL ? change->old_row :
			change->new_row;
		if (!row->isnull[part->attno - 1])
			appendStringInfoString(&text,
								   OutputFunctionCall(&route->outputs[part->attno - 1],
													  row->values[part->attno - 1]));
	}
	slice.data = text.data;
	slice.len = text.len;
	return slice;
}

/* A row as JSON; NULL: the JSON null. */
static void
append_row(StringInfo out, Route *route, const Row *row)
{
	if (row == NULL)
		appendStringInfoString(out, "null");
	else
		append_row_json(out, route->columns, route->n_columns, row->values,
						row->isnull);
}

/* Data of the event; none: a tombstone. */
static TextSlice
payload(Route *route, const Change *change)
{
	StringInfoData json;
	TextSlice	slice = {0};

	/* a deleted row as bare payload is a tombstone */
	if (!route->include_old && change->new_row == NULL &&
		route->format == FORMAT_PAYLOAD)
		return slice;

	initStringInfo(&json);
	if (route->include_old)
	{
		appendStringInfoString(&json, "{\"old\":");
		append_row(&json, route, change->old_row);
		appendStringInfoString(&json, ",\"new\":");
		append_row(&json, route, change->new_row);
		appendStringInfoChar(&json, '}');
	}
	else
		append_row(&json, route,
				   change->new_row ? change->new_row : change->old_row);
	slice.data = json.data;
	slice.len = json.len;
	return slice;
}

/* What explain_refusal looks at. */
typedef struct Refused
{
	Route	   *route;
	const Change *change;
	Relation	rel;
} Refused;

/* Raise OB002 for one column; problem NULL: it has no form in UTF-8. */
static void
refuse_column(const Refused *refused, AttrNumber attno, const char *problem)
{
	const char *column = NameStr(TupleDescAttr(refused->route->shape, attno - 1)->attname);
	const char *table = RelationGetRelationName(refused->rel);

	ereport(ERROR,
			(errcode(ERRCODE_OB_EVENT_REFUSED),
			 problem == NULL ?
			 errmsg("column \"%s\" of table \"%s\" has no form in UTF-8", column, table) :
			 errmsg("column \"%s\" of table \"%s\" contains %s", column, table, problem),
			 problem == NULL ?
			 errdetail("Events are UTF-8 in Kafka.") : errdetail(NO_TEXT_DETAIL),
			 errhint("Repair the value, or leave the column out of the event with outbox.capture(columns => ...)."),
			 errtablecolname(refused->rel, column)));
}

/* Name the column whose value cannot be part of an event. */
static void
explain_refusal(void *arg)
{
	const Refused *refused = arg;
	Route	   *route = refused->route;
	const Row  *rows[] = {refused->change->new_row, refused->change->old_row};
	int			level = pins_set(route->pins);

	for (int r = 0; r < lengthof(rows); r++)
	{
		if (rows[r] == NULL)
			continue;
		for (int i = 0; i < route->n_columns; i++)
		{
			StringInfoData json;
			const char *problem;

			initStringInfo(&json);
			append_row_json(&json, &route->columns[i], 1, rows[r]->values, rows[r]->isnull);
			if (!outbox_has_utf8_form(json.data, json.len))
				refuse_column(refused, route->columns[i].attno, NULL);
			problem = json_escape_problem(json.data, json.len);
			if (problem != NULL)
				refuse_column(refused, route->columns[i].attno, problem);
		}
		for (int i = 0; i < route->shape->natts; i++)
		{
			char	   *text;

			if (!OidIsValid(route->outputs[i].fn_oid) || rows[r]->isnull[i])
				continue;
			text = OutputFunctionCall(&route->outputs[i], rows[r]->values[i]);
			if (!outbox_has_utf8_form(text, strlen(text)))
				refuse_column(refused, i + 1, NULL);
		}
	}
	pins_restore(level);
}

/* Where in Kafka the event goes. */
static void
fill_place(OutboxEvent *event, Route *route, const Change *change)
{
	if (route->key != NULL)
		event->key = render(route, route->key, change);
	if (route->topic != NULL)
		event->topic = render(route, route->topic, change);
}

static void
fill_event(OutboxEvent *event, Route *route, const Change *change)
{
	event->format = route->format;
	event->type.data = route->event_type;
	event->type.len = strlen(route->event_type);
	event->aggregatetype.data = route->aggregate_type;
	event->aggregatetype.len = strlen(route->aggregate_type);
	fill_place(event, route, change);
	if (route->description != NULL)
		event->description = render(route, route->description, change);
	else
	{
		event->description.data =
			psprintf("%s%s%s", route->event_type, event->key.len > 0 ? " " : "",
					 event->key.len > 0 ? event->key.data : "");
		event->description.len = strlen(event->description.data);
	}
	event->headers = route->headers;
	event->may_wait = true;
	event->explain = explain_refusal;
}

static bool
same_text(const TextSlice *a, const TextSlice *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/*
 * Of bare rows by key, as in a compacted topic, an update that changes the key
 * leaves the former one's row behind for ever: it needs a tombstone, before the
 * new state.  (Debezium sends these two as well.)  The same in a topic that the
 * row has left.  False: the row stays where it was, or was never in Kafka, since
 * there can be no such key or topic; the update must not fail for that.
 */
static bool
fill_tombstone(OutboxEvent *tombstone, Route *route, const Change *change,
			   const OutboxEvent *event)
{
	const Change before = {change->old_row, change->old_row};

	if (route->format != FORMAT_PAYLOAD || route->include_old || route->key == NULL ||
		change->old_row == NULL || change->new_row == NULL || MUTANT("ghosts"))
		return false;
	fill_place(tombstone, route, &before);
	if (same_text(&tombstone->key, &event->key) && same_text(&tombstone->topic, &event->topic))
		return false;
	if (tombstone->key.len > OUTBOX_MAX_KEY_BYTES ||
		!outbox_has_utf8_form(tombstone->key.data, tombstone->key.len) ||
		(route->topic != NULL && !outbox_is_topic_name(tombstone->topic.data)))
		return false;
	fill_event(tombstone, route, &before);
	return true;
}

/* Make the event of one route for one changed row. */
static void
capture_change(Route *route, const Change *change, Relation rel)
{
	Refused		refused = {route, change, rel};
	OutboxEvent event = {0};
	OutboxEvent tombstone = {0};
	bool		moved;
	int			level = pins_set(route->pins);

	fill_event(&event, route, change);
	if (route->topic != NULL)
		outbox_check_topic_name(event.topic.data, ERRCODE_OB_EVENT_REFUSED);
	moved = fill_tombstone(&tombstone, route, change, &event);
	event.payload = payload(route, change);
	event.own_json = route->own_json;
	pins_restore(level);

	event.occurred_at = tombstone.occurred_at = GetCurrentTimestamp();
	event.explain_arg = tombstone.explain_arg = &refused;
	if (moved)
		outbox_insert(&tombstone);
	outbox_insert(&event);
}

void
capture_inserted(Relation rel, const Trigger *trigger, HeapTuple row)
{
	Route	   *route = route_of_trigger(rel, trigger, ROUTE_INSERT);
	Change		change = {.new_row = read_row(route, row, rel)};

	capture_change(route, &change, rel);
}

Datum
outbox_capture_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	new_tuple = NULL;
	HeapTuple	old_tuple = NULL;
	Change		change;
	RouteOperation operation;
	Route	   *route;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("outbox.capture_row can only be called as a trigger")));
	if (!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("outbox.capture_row must be fired AFTER, FOR EACH ROW"),
				 errhint("Make routes with outbox.capture.")));
	if (!setting_capture && !MUTANT("always_capture"))
		return PointerGetDatum(NULL);

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		operation = ROUTE_INSERT;
		new_tuple = trigger->tg_trigtuple;
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		operation = ROUTE_UPDATE;
		old_tuple = trigger->tg_trigtuple;
		new_tuple = trigger->tg_newtuple;
	}
	else
	{
		operation = ROUTE_DELETE;
		old_tuple = trigger->tg_trigtuple;
	}
	route = route_of_trigger(trigger->tg_relation, trigger->tg_trigger, operation);
	change.old_row = read_row(route, old_tuple, trigger->tg_relation);
	change.new_row = read_row(route, new_tuple, trigger->tg_relation);
	capture_change(route, &change, trigger->tg_relation);
	return PointerGetDatum(NULL);
}
