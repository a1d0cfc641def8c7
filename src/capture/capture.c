/*-------------------------------------------------------------------------
 *
 * capture.c
 *	  The trigger that turns a changed row into an event.
 *
 * It opens no socket, waits for no worker, takes no lock that a worker holds
 * for longer than a memory access, and runs nothing with other rights than the
 * writer's own.  The row image is core's row_to_json, executed as the writer.
 *
 * Memory: all in the per-tuple context that AFTER triggers are called in; the
 * compiled route lives in the trigger's FmgrInfo, i.e. as long as the query.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupconvert.h"
#include "capture/pins.h"
#include "capture/route.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "outbox/event.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(outbox_capture_row);

/* The change in the route's shape. */
typedef struct Change
{
	HeapTuple	new_row;		/* NULL for a delete */
	HeapTuple	old_row;		/* NULL for an insert */
} Change;

static HeapTuple
in_shape(const Route *route, HeapTuple tuple, Relation rel)
{
	if (tuple == NULL || route->to_shape == NULL)
		return tuple;
	return execute_attr_map_tuple(tuple,
								  &(TupleConversionMap)
								  {
									  .indesc = RelationGetDescr(rel),
									  .outdesc = route->shape,
									  .attrMap = route->to_shape,
									  .invalues = palloc(sizeof(Datum) *
														 (RelationGetDescr(rel)->natts + 1)),
									  .inisnull = palloc(sizeof(bool) *
														 (RelationGetDescr(rel)->natts + 1)),
									  .outvalues = palloc(sizeof(Datum) * route->shape->natts),
									  .outisnull = palloc(sizeof(bool) * route->shape->natts)
								  });
}

static char *
column_text(Route *route, HeapTuple tuple, AttrNumber attno)
{
	FmgrInfo   *output = &route->outputs[attno - 1];
	bool		isnull;
	Datum		value;

	value = heap_getattr(tuple, attno, route->shape, &isnull);
	if (isnull)
		return NULL;
	if (!OidIsValid(output->fn_oid))
	{
		Oid			function;
		bool		varlena;

		getTypeOutputInfo(TupleDescAttr(route->shape, attno - 1)->atttypid,
						  &function, &varlena);
		fmgr_info(function, output);
	}
	return OutputFunctionCall(output, value);
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

		if (part->text != NULL)
			appendBinaryStringInfo(&text, part->text, part->len);
		else
		{
			HeapTuple	row = part->old || change->new_row == NULL ?
				change->old_row : change->new_row;
			char	   *value = column_text(route, row, part->attno);

			if (value != NULL)
				appendStringInfoString(&text, value);
		}
	}
	slice.data = text.data;
	slice.len = text.len;
	return slice;
}

/* The row as core makes it into JSON. */
static text *
row_json(Route *route, HeapTuple tuple)
{
	Datum		row;

	if (route->chosen != NULL)
	{
		int			n = route->chosen->natts;
		Datum	   *values = palloc(sizeof(Datum) * n);
		bool	   *isnull = palloc(sizeof(bool) * n);

		for (int i = 0; i < n; i++)
			values[i] = heap_getattr(tuple, route->chosen_attnos[i],
									 route->shape, &isnull[i]);
		row = HeapTupleGetDatum(heap_form_tuple(route->chosen, values, isnull));
	}
	else
		row = heap_copy_tuple_as_datum(tuple, route->shape);
	return DatumGetTextPP(DirectFunctionCall1(row_to_json, row));
}

static TextSlice
text_slice(text *value)
{
	TextSlice	slice = {VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)};

	return slice;
}

static TextSlice
payload(Route *route, const Change *change)
{
	TextSlice	none = {0};

	if (route->include_old)
	{
		StringInfoData both;
		TextSlice	slice;

		initStringInfo(&both);
		for (int i = 0; i < 2; i++)
		{
			HeapTuple	row = i == 0 ? change->old_row : change->new_row;

			appendStringInfoString(&both, i == 0 ? "{\"old\":" : ",\"new\":");
			if (row == NULL)
				appendStringInfoString(&both, "null");
			else
			{
				TextSlice	json = text_slice(row_json(route, row));

				appendBinaryStringInfo(&both, json.data, json.len);
			}
		}
		appendStringInfoChar(&both, '}');
		slice.data = both.data;
		slice.len = both.len;
		return slice;
	}
	/* a deleted row as bare payload is a tombstone */
	if (change->new_row == NULL && route->format == FORMAT_PAYLOAD)
		return none;
	return text_slice(row_json(route, change->new_row ? change->new_row :
							   change->old_row));
}

static Route *
get_route(FunctionCallInfo fcinfo, TriggerData *trigger)
{
	Route	   *route = fcinfo->flinfo->fn_extra;

	if (route == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		RouteOperation operation =
			TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? ROUTE_INSERT :
			TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? ROUTE_UPDATE :
			ROUTE_DELETE;

		route = route_compile(trigger->tg_relation, operation,
							  trigger->tg_trigger->tgnargs,
							  trigger->tg_trigger->tgargs);
		MemoryContextSwitchTo(old);
		fcinfo->flinfo->fn_extra = route;
	}
	return route;
}

static void
capture_change(Route *route, const Change *change)
{
	OutboxEvent event = {0};
	int			level = pins_set(route->pins);

	event.occurred_at = GetCurrentTimestamp();
	event.format = route->format;
	event.type.data = route->event_type;
	event.type.len = strlen(route->event_type);
	event.aggregatetype.data = route->aggregate_type;
	event.aggregatetype.len = strlen(route->aggregate_type);
	if (route->key != NULL)
		event.key = render(route, route->key, change);
	if (route->description != NULL)
		event.description = render(route, route->description, change);
	else
	{
		event.description.data =
			psprintf("%s%s%s", route->event_type, event.key.len > 0 ? " " : "",
					 event.key.len > 0 ? event.key.data : "");
		event.description.len = strlen(event.description.data);
	}
	if (route->topic != NULL)
	{
		event.topic = render(route, route->topic, change);
		outbox_check_topic_name(event.topic.data);
	}
	event.payload = payload(route, change);
	event.headers = route->headers;
	pins_restore(level);

	outbox_insert(&event);
}

Datum
outbox_capture_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Change		change = {0};
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
	if (!setting_capture)
		return PointerGetDatum(NULL);

	route = get_route(fcinfo, trigger);
	switch (route->operation)
	{
		case ROUTE_INSERT:
			change.new_row = trigger->tg_trigtuple;
			break;
		case ROUTE_UPDATE:
			change.old_row = trigger->tg_trigtuple;
			change.new_row = trigger->tg_newtuple;
			break;
		case ROUTE_DELETE:
			change.old_row = trigger->tg_trigtuple;
			break;
	}
	change.old_row = in_shape(route, change.old_row, trigger->tg_relation);
	change.new_row = in_shape(route, change.new_row, trigger->tg_relation);
	capture_change(route, &change);
	return PointerGetDatum(NULL);
}
