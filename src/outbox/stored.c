/*-------------------------------------------------------------------------
 *
 * stored.c
 *	  Reading an event from its row.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "outbox/encoding.h"
#include "outbox/event.h"
#include "outbox/segment.h"
#include "outbox/stored.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/xid8.h"

/* Turn into UTF-8, or note that it cannot be. */
static TextSlice
read_slice(const char *data, size_t len, const char *what, StoredEvent *event)
{
	TextSlice	text = {data, len};
	TextSlice	utf8 = {0};

	if (!outbox_try_utf8(text, &utf8))
		event->problem = psprintf("%s is not valid in the database's encoding", what);
	return utf8;
}

/* A text column; not NUL-terminated. */
static TextSlice
read_text(TupleTableSlot *row, int column, const char *what, StoredEvent *event)
{
	TextSlice	none = {0};
	text	   *value;

	if (row->tts_isnull[column])
		return none;
	value = DatumGetTextPP(row->tts_values[column]);
	return read_slice(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), what, event);
}

static char *
read_cstring(TupleTableSlot *row, int column, const char *what, StoredEvent *event)
{
	TextSlice	slice = read_text(row, column, what, event);

	return slice.data ? pnstrdup(slice.data, slice.len) : NULL;
}

static void
read_headers(TupleTableSlot *row, StoredEvent *event)
{
	Jsonb	   *headers;
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	EventHeader *out;

	if (row->tts_isnull[EVENT_HEADERS])
		return;
	headers = DatumGetJsonbP(row->tts_values[EVENT_HEADERS]);
	if (!JB_ROOT_IS_OBJECT(headers))
	{
		event->problem = "headers is not a JSON object";
		return;
	}
	out = palloc0(sizeof(EventHeader) * (JB_ROOT_COUNT(headers) + 1));
	event->headers = out;
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		TextSlice	text;

		if (token != WJB_KEY && token != WJB_VALUE)
			continue;
		if (value.type != jbvString)
		{
			event->problem = "headers holds a value that is not a string";
			return;
		}
		text = read_slice(value.val.string.val, value.val.string.len, "headers", event);
		if (text.data == NULL)
			return;
		if (token == WJB_KEY)
			out[event->n_headers].name = pnstrdup(text.data, text.len);
		else
		{
			out[event->n_headers].value = text.data;
			out[event->n_headers++].value_len = text.len;
		}
	}
}

void
stored_event_read(TupleTableSlot *row, StoredEvent *event)
{
	TextSlice	format;
	TimestampTz occurred_at;
	pg_uuid_t  *id;

	slot_getallattrs(row);
	event->seq = DatumGetInt64(row->tts_values[EVENT_SEQ]);
	event->xid = DatumGetUInt64(row->tts_values[EVENT_XID]);
	id = DatumGetUUIDP(row->tts_values[EVENT_ID]);
	memcpy(event->wire.id, id->data, UUID_LEN);
	occurred_at = DatumGetTimestampTz(row->tts_values[EVENT_OCCURRED_AT]);
	if (occurred_at < OUTBOX_FIRST_TIME || occurred_at >= OUTBOX_END_OF_TIME)
	{
		event->problem = "occurred_at is outside the years 1 to 9999";
		return;
	}
	event->wire.occurred_at = occurred_at +
		(int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	event->wire.type = read_text(row, EVENT_TYPE, "type", event);
	event->wire.key = read_text(row, EVENT_AGGREGATEID, "aggregateid", event);
	event->wire.payload = read_text(row, EVENT_PAYLOAD, "payload", event);
	event->wire.description = read_text(row, EVENT_DESCRIPTION, "description", event);
	event->topic = read_cstring(row, EVENT_TOPIC, "topic", event);
	event->traceparent = read_cstring(row, EVENT_TRACEPARENT, "traceparent", event);
	format = read_text(row, EVENT_FORMAT, "format", event);
	if (!wire_format_parse(format.data, format.len, &event->wire.format))
		event->problem = "its format is unknown";
	if (!row->tts_isnull[EVENT_VALUE])
	{
		bytea	   *value = DatumGetByteaPP(row->tts_values[EVENT_VALUE]);

		event->wire.value.data = VARDATA_ANY(value);
		event->wire.value.len = VARSIZE_ANY_EXHDR(value);
	}
	read_headers(row, event);
}
