/*-------------------------------------------------------------------------
 *
 * admission.c
 *	  What may enter the outbox: headers, texts, sizes.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Everything that could not be published is refused here, in the writer's own
 * transaction and with the remedy, instead of getting stuck in the relay.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "errors.h"
#include "mb/pg_wchar.h"
#include "mutants.h"
#include "outbox/admission.h"
#include "outbox/encoding.h"
#include "outbox/event.h"
#include "outbox/json_escapes.h"
#include "outbox/topics.h"
#include "settings.h"
#include "utils/builtins.h"

/* The beginning of a long text is enough in a message; for %.*s. */
#define SHOWN(slice) \
	pg_mbcliplen((slice).data, (slice).len, 100), (slice).data

/* ---- headers ---- */

/* Number of an event's own headers, and the bytes of names and values in UTF-8. */
static int
measure_headers(Jsonb *headers, size_t *bytes)
{
	JsonbIterator *it = JsonbIteratorInit(&headers->root);
	JsonbValue	value;
	JsonbIteratorToken token;
	int			n = 0;

	*bytes = 0;
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		TextSlice	text = {0};

		if (token != WJB_KEY && token != WJB_VALUE)
			continue;
		n += token == WJB_KEY;
		text.data = value.val.string.val;
		text.len = value.val.string.len;
		*bytes += outbox_utf8(text).len;
	}
	return n;
}

void
outbox_check_header_limits(Jsonb *headers, int sqlstate)
{
	size_t		bytes = VARSIZE(headers);
	int			n = JB_ROOT_COUNT(headers);

	if (MUTANT("any_header_size"))
		return;
	if (n > OUTBOX_MAX_HEADERS)
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("an event has %d headers, the limit is %d", n, OUTBOX_MAX_HEADERS),
				 errhint("Put data into the payload; headers are for what is looked at on the way.")));
	/* the names and values are part of the jsonb */
	if (bytes * outbox_utf8_growth() > OUTBOX_MAX_HEADER_BYTES)
		(void) measure_headers(headers, &bytes);
	else
		return;
	if (bytes > OUTBOX_MAX_HEADER_BYTES)
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("headers of an event have %zu bytes, the limit is %d", bytes,
						OUTBOX_MAX_HEADER_BYTES),
				 errhint("Put data into the payload; headers are for what is looked at on the way.")));
}

/*
 * An error for a name that the extension sets itself; also others' of
 * CloudEvents.
 */
static void
check_header_name(const char *name, int len, int sqlstate)
{
	if (len == 0)
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("the name of a header is empty"),
				 errhint("Give each header a name, for example {\"source\": \"till 4\"}.")));
	if ((len >= 3 && strncmp(name, "ce_", 3) == 0) ||
		(len == 2 && strncmp(name, "id", 2) == 0) ||
		(len == 11 && strncmp(name, "traceparent", 11) == 0) ||
		(len == 12 && strncmp(name, "content-type", 12) == 0) ||
		(len == 8 && strncmp(name, "replayed", 8) == 0) ||
		(len == 9 && strncmp(name, "caused-by", 9) == 0) ||
		(len == 16 && strncmp(name, "caused-by-report", 16) == 0))
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("header name \"%.*s\" is reserved", len, name),
				 errhint("ce_*, id, content-type, traceparent, replayed, caused-by and caused-by-report are set by the extension.")));
}

void
outbox_check_headers(Jsonb *headers, int sqlstate)
{
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	bool		first = true;

	if (MUTANT("any_header"))
		return;
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (first && token != WJB_BEGIN_OBJECT)
			break;
		first = false;
		if (token == WJB_VALUE && value.type != jbvString)
		{
			first = true;
			break;
		}
		if (token != WJB_KEY && token != WJB_VALUE)
			continue;
		if (!outbox_has_utf8_form(value.val.string.val, value.val.string.len))
			ereport(ERROR,
					(errcode(sqlstate),
					 token == WJB_KEY ?
					 errmsg("the name of a header has no form in UTF-8") :
					 errmsg("the value of a header has no form in UTF-8"),
					 errhint("Events are UTF-8 in Kafka: give a text that can be converted.")));
		if (token == WJB_KEY)
			check_header_name(value.val.string.val, value.val.string.len, sqlstate);
	}
	if (first)
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("headers must be a JSON object of strings"),
				 errhint("For example {\"source\": \"till 4\"}.")));
	outbox_check_header_limits(headers, sqlstate);
}

/* ---- texts ---- */

/* Let the writer raise a better error first. */
static void
explain(const OutboxEvent *event)
{
	if (event->explain != NULL)
		event->explain(event->explain_arg);
}

/*
 * Events are UTF-8 in Kafka, and their JSON is to be stored by whoever reads
 * it.  What has no form there is refused now: the relay would meet it again and
 * again, every reader after it.
 */
void
outbox_check_texts(const OutboxEvent *event)
{
	const struct
	{
		const char *name;
		const TextSlice *text;
	}			parts[] = {
		{"type", &event->type}, {"aggregatetype", &event->aggregatetype},
		{"key", &event->key}, {"payload", &event->payload},
		{"description", &event->description}, {"topic", &event->topic},
		{"traceparent", &event->traceparent}
	};
	const char *problem;

	for (int i = 0; i < lengthof(parts); i++)
	{
		if (parts[i].text->len == 0 ||
			outbox_has_utf8_form(parts[i].text->data, parts[i].text->len))
			continue;
		explain(event);
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("%s of an event has no form in UTF-8", parts[i].name),
				 errhint("Events are UTF-8 in Kafka: give a text that can be converted.")));
	}
	if (event->own_json && event->payload.data != NULL && !MUTANT("no_escape_check") &&
		(problem = json_escape_problem(event->payload.data, event->payload.len)) != NULL)
	{
		explain(event);
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("payload of event \"%.*s\" contains %s",
						SHOWN(event->type), problem),
				 errdetail(NO_TEXT_DETAIL),
				 errhint("Use type jsonb, which refuses it earlier, or leave the value out.")));
	}
}

/* ---- size ---- */

/* The lineage is not looked up here: any uuid is as long. */
#define SOME_LINEAGE	"00000000-0000-0000-0000-000000000000"

/*
 * What the parts of a message that every event has, and the default source with
 * a long database name, come to at most.
 */
#define FIXED_BYTES		2048

/* What the event takes as a record, exactly: made as the relay will make it. */
static size_t
record_bytes(const OutboxEvent *event)
{
	WireEvent	wire = {0};
	WireBuffer	buffer = {0};
	WireHeader	headers[WIRE_FORMAT_HEADERS];
	WireHeaderTexts texts;
	size_t		header_bytes = 0;
	int			n = 0;

	if (event->headers != NULL)
		n = measure_headers(event->headers, &header_bytes);
	memcpy(wire.id, event->id.data, UUID_LEN);
	wire.format = event->format;
	wire.type = outbox_utf8(event->type);
	wire.description = outbox_utf8(event->description);
	wire.key = outbox_utf8(event->key);
	wire.payload = outbox_utf8(event->payload);
	if (event->value != NULL)
	{
		wire.value.data = VARDATA_ANY(event->value);
		wire.value.len = VARSIZE_ANY_EXHDR(event->value);
	}
	wire.source = outbox_event_source(SOME_LINEAGE);
	for (int i = wire_headers(&wire, event->traceparent, headers, &texts); i-- > 0; n++)
		header_bytes += strlen(headers[i].name) + headers[i].value_len;

	(void) wire_value(&buffer, &wire);
	header_bytes = wire_record_bytes(wire.key.len, buffer.len, n, header_bytes);
	wire_buffer_free(&buffer);
	if (buffer.failed)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return header_bytes;
}

/*
 * Refuse what could not be published.  The exact size is only computed for
 * events near the limit: a character of a text may become six bytes of JSON, and
 * type and key stand in headers as well.
 *
 * What is not sent (white space, the description of a bare payload) is limited,
 * too: the relay has to read it.
 */
void
outbox_check_size(const OutboxEvent *event)
{
	size_t		value = event->value ? VARSIZE_ANY_EXHDR(event->value) : 0;
	size_t		headers = event->headers ? VARSIZE(event->headers) : 0;
	size_t		limit = (size_t) setting_max_message_bytes;
	size_t		growth = outbox_utf8_growth();
	size_t		stored;
	size_t		most;

	if (MUTANT("no_size_check"))
		return;
	if (event->key.len > OUTBOX_MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("key of event \"%.*s\" has %zu bytes, the limit is %d",
						SHOWN(event->type),
						event->key.len, OUTBOX_MAX_KEY_BYTES),
				 errhint("Choose a shorter key with the key template of outbox.capture.")));

	stored = event->type.len + event->aggregatetype.len + event->key.len +
		event->payload.len + event->description.len + event->topic.len +
		event->traceparent.len + value + headers;
	if (stored > 2 * limit)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("event \"%.*s\" takes %zu bytes in the outbox, the limit is %zu",
						SHOWN(event->type), stored, 2 * limit),
				 errdetail("It is twice carshop_outbox.max_message_bytes."),
				 errhint("Choose fewer columns with outbox.capture(columns => ...), and leave white space out of JSON.")));

	/* as JSON, and as a header or key */
	most = (event->type.len + event->description.len + event->key.len) * 6 +
		(event->type.len + event->key.len * 2) * growth +
		event->payload.len * growth + value + headers * growth +
		OUTBOX_MAX_HEADERS * 10 + event->traceparent.len +
		strlen(setting_event_source) * 3 * 6 + FIXED_BYTES;
	if (most > limit)
	{
		size_t		size = record_bytes(event);

		if (size > limit)
			ereport(ERROR,
					(errcode(ERRCODE_OB_EVENT_REFUSED),
					 errmsg("event \"%.*s\" has %zu bytes, the limit is %zu",
							SHOWN(event->type), size, limit),
					 errhint("Choose fewer columns with outbox.capture(columns => ...), or raise carshop_outbox.max_message_bytes together with the topic's max.message.bytes.")));
	}
}

/*
 * Check and complete an event that an application wrote (emit, INSERT): format
 * word, topic, headers, default description.
 */
void
outbox_complete_event(OutboxEvent *event, const TextSlice *format)
{
	event->format = event->value != NULL ? FORMAT_RAW : FORMAT_ENVELOPE;
	if (format->data != NULL &&
		!wire_format_parse(format->data, format->len, &event->format))
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("unknown format \"%.*s\"", (int) format->len, format->data),
				 errhint("Formats are envelope, payload, cloudevents and raw.")));
	if ((event->format == FORMAT_RAW) != (event->value != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 event->value != NULL ?
				 errmsg("value is sent by format raw only") :
				 errmsg("format raw needs a value"),
				 event->value != NULL ?
				 errhint("Give format => 'raw' with it.") :
				 errhint("Give the bytes to send as value, or a payload with another format.")));
	if (event->topic.data != NULL)
	{
		char	   *topic = pnstrdup(event->topic.data, event->topic.len);

		outbox_check_topic_name(topic, ERRCODE_OB_EVENT_REFUSED);
		outbox_check_topic_permitted(topic);
	}
	if (event->headers != NULL)
		outbox_check_headers(event->headers, ERRCODE_OB_EVENT_REFUSED);
	if (event->description.data == NULL && event->type.data != NULL)
	{
		event->description.data =
			psprintf("%.*s%s%.*s", (int) event->type.len, event->type.data,
					 event->key.len > 0 ? " " : "",
					 (int) event->key.len, event->key.len > 0 ? event->key.data : "");
		event->description.len = strlen(event->description.data);
	}
}
