/*-------------------------------------------------------------------------
 *
 * event.c
 *	  Writing an event into the outbox.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Order of work, and why
 * - The top transaction id comes first: a tick's snapshot must be able to
 *   name the writer.
 * - The segment is locked before seq is drawn (writer.c).
 * - seq comes from a sequence with CACHE 1.  The writer of a row holds the
 *   row's lock, so for one key the order of seq is the order of commit.
 * - The row goes in by the table access method, not by SQL: nothing that a
 *   role attached to the table (trigger, rule, policy) runs, the writer needs
 *   no right on it, and it is the fastest way.
 *
 * Memory: everything is palloc'd in the caller's context, which is short-lived
 * (the per-tuple context of AFTER triggers).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "errors.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "outbox/admission.h"
#include "outbox/consequence.h"
#include "outbox/context.h"
#include "outbox/event.h"
#include "outbox/relations.h"
#include "outbox/segment.h"
#include "outbox/wakeup.h"
#include "outbox/writer.h"
#include "settings.h"
#include "shared.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

PG_FUNCTION_INFO_V1(outbox_insert_event);

/*
 * UUID version 7 (RFC 9562): 48 bits of milliseconds since 1970, 12 bits of
 * the sub-millisecond fraction, so that ids of one session rise, and 62 random
 * bits.  These are fetched for many ids at once: a call costs more than all the
 * rest of the id.
 */
static void
make_uuid_v7(pg_uuid_t *id, TimestampTz now)
{
	static unsigned char pool[512];
	static size_t left = 0;
	int64		micros = now +
	(int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	uint64		ms = micros / 1000;
	uint32		fraction = (uint32) ((micros % 1000) * 4096 / 1000);

	if (left == 0)
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = sizeof(pool);
	}
	left -= 8;
	memcpy(id->data + 8, pool + left, 8);
	for (int i = 0; i < 6; i++)
		id->data[i] = (unsigned char) (ms >> (8 * (5 - i)));
	id->data[6] = 0x70 | (fraction >> 8);
	id->data[7] = fraction & 0xff;
	id->data[8] = (id->data[8] & 0x3f) | 0x80;
}

static Datum
slice_datum(const TextSlice *slice, bool *isnull)
{
	*isnull = slice->data == NULL;
	if (*isnull)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len(slice->data, slice->len));
}

void
outbox_insert(OutboxEvent *event)
{
	Datum		values[EVENT_COLUMNS] = {0};
	bool		isnull[EVENT_COLUMNS] = {0};
	FullTransactionId xid;

	if (event->type.data == NULL || event->type.len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("an event needs a type"),
				 errhint("The type is what readers choose by, for example 'OrderPlaced'.")));
	if (event->occurred_at < OUTBOX_FIRST_TIME ||
		event->occurred_at >= OUTBOX_END_OF_TIME)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("occurred_at of event \"%.*s\" is outside the years 1 to 9999",
						(int) event->type.len, event->type.data),
				 errhint("Leave it out for the time of now, or put an unusual date into the payload.")));
	if (!event->again)
	{
		outbox_set_traceparent(event);
		outbox_add_session_headers(event);
		outbox_add_consequence(event);
	}
	if (!event->has_id)
		make_uuid_v7(&event->id, GetCurrentTimestamp());
	outbox_check_texts(event);
	outbox_check_size(event);
	if (outbox_report_is_silent())
		return;

	/* the row goes in by the access method, which does not ask */
	PreventCommandDuringRecovery("INSERT INTO outbox.event");
	PreventCommandIfReadOnly("INSERT INTO outbox.event");
	PreventCommandIfParallelMode("INSERT INTO outbox.event");
	xid = GetTopFullTransactionId();
	shared_note_writer(U64FromFullTransactionId(xid));
	values[EVENT_XID] = FullTransactionIdGetDatum(xid);
	values[EVENT_OCCURRED_AT] = TimestampTzGetDatum(event->occurred_at);
	values[EVENT_ID] = UUIDPGetDatum(&event->id);
	values[EVENT_TYPE] = slice_datum(&event->type, &isnull[EVENT_TYPE]);
	values[EVENT_AGGREGATETYPE] = slice_datum(&event->aggregatetype,
											  &isnull[EVENT_AGGREGATETYPE]);
	values[EVENT_AGGREGATEID] = slice_datum(&event->key, &isnull[EVENT_AGGREGATEID]);
	values[EVENT_PAYLOAD] = slice_datum(&event->payload, &isnull[EVENT_PAYLOAD]);
	values[EVENT_DESCRIPTION] = slice_datum(&event->description,
											&isnull[EVENT_DESCRIPTION]);
	values[EVENT_TOPIC] = slice_datum(&event->topic, &isnull[EVENT_TOPIC]);
	isnull[EVENT_HEADERS] = event->headers == NULL;
	values[EVENT_HEADERS] = PointerGetDatum(event->headers);
	values[EVENT_TRACEPARENT] = slice_datum(&event->traceparent,
											&isnull[EVENT_TRACEPARENT]);
	values[EVENT_FORMAT] = PointerGetDatum(cstring_to_text(wire_format_word(event->format)));
	isnull[EVENT_VALUE] = event->value == NULL;
	values[EVENT_VALUE] = PointerGetDatum(event->value);

	writer_put(values, isnull, event->may_wait);
	event->seq = DatumGetInt64(values[EVENT_SEQ]);
	event->xid = U64FromFullTransactionId(xid);
	wakeup_at_commit();
}

static void
view_text(HeapTuple tuple, TupleDesc desc, const char *column, TextSlice *slice)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, SPI_fnumber(desc, column), desc, &isnull);

	if (!isnull)
	{
		text	   *packed = DatumGetTextPP(value);

		slice->data = VARDATA_ANY(packed);
		slice->len = VARSIZE_ANY_EXHDR(packed);
	}
}

/* The row that RETURNING shows: with what the extension has filled in. */
static HeapTuple
as_stored(HeapTuple tuple, TupleDesc desc, const OutboxEvent *event)
{
	static const char *const names[] = {
		"id", "occurred_at", "seq", "xid", "format", "description", "traceparent", "headers"
	};
	Datum		values[lengthof(names)] = {
		UUIDPGetDatum(&event->id),
		TimestampTzGetDatum(event->occurred_at),
		Int64GetDatum(event->seq),
		UInt64GetDatum(event->xid),
		CStringGetTextDatum(wire_format_word(event->format))
	};
	bool		isnull[lengthof(names)] = {false};
	int			columns[lengthof(names)];

	values[5] = slice_datum(&event->description, &isnull[5]);
	values[6] = slice_datum(&event->traceparent, &isnull[6]);
	isnull[7] = event->headers == NULL;
	values[7] = PointerGetDatum(event->headers);
	for (int i = 0; i < lengthof(names); i++)
		columns[i] = SPI_fnumber(desc, names[i]);
	return heap_modify_tuple_by_cols(tuple, desc, lengthof(names), columns,
									 values, isnull);
}

/* INSTEAD OF trigger of the view outbox.event. */
Datum
outbox_insert_event(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	OutboxEvent event = {0};
	HeapTuple	tuple;
	TupleDesc	desc;
	TextSlice	format = {0};
	bool		isnull;
	Datum		value;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_INSTEAD(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != outbox_relation("event"))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("outbox.insert_event is the INSTEAD OF trigger of outbox.event only")));
	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("events in outbox.event cannot be changed or deleted"),
				 errhint("The relay removes them when they are published. In Debezium's style of outbox, turn off remove-after-insert (quarkus.debezium-outbox.remove-after-insert=false).")));

	tuple = trigger->tg_trigtuple;
	desc = RelationGetDescr(trigger->tg_relation);

	value = heap_getattr(tuple, SPI_fnumber(desc, "id"), desc, &isnull);
	if (!isnull)
	{
		event.has_id = true;
		event.id = *DatumGetUUIDP(value);
	}
	value = heap_getattr(tuple, SPI_fnumber(desc, "occurred_at"), desc, &isnull);
	event.occurred_at = isnull ? GetCurrentTimestamp() : DatumGetTimestampTz(value);
	view_text(tuple, desc, "type", &event.type);
	view_text(tuple, desc, "aggregatetype", &event.aggregatetype);
	view_text(tuple, desc, "aggregateid", &event.key);
	view_text(tuple, desc, "payload", &event.payload);
	event.own_json = true;
	event.may_wait = true;		/* the view is written by statements only */
	view_text(tuple, desc, "description", &event.description);
	view_text(tuple, desc, "topic", &event.topic);
	view_text(tuple, desc, "traceparent", &event.traceparent);
	view_text(tuple, desc, "format", &format);
	value = heap_getattr(tuple, SPI_fnumber(desc, "headers"), desc, &isnull);
	if (!isnull)
		event.headers = DatumGetJsonbP(value);
	value = heap_getattr(tuple, SPI_fnumber(desc, "value"), desc, &isnull);
	if (!isnull)
		event.value = DatumGetByteaPP(value);

	outbox_complete_event(&event, &format);
	outbox_insert(&event);

	return PointerGetDatum(as_stored(tuple, desc, &event));
}
