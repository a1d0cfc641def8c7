/*-------------------------------------------------------------------------
 *
 * admission.c
 *	  What may enter the outbox: names, sizes, headers, topics.
 *
 * Everything that could not be published is refused here, in the writer's own
 * transaction and with the remedy, instead of getting stuck in the relay.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "errors.h"
#include "mb/pg_wchar.h"
#include "outbox/event.h"
#include "outbox/json_escapes.h"
#include "outbox/route_arguments.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* What the members' names of an envelope and the longest header add. */
#define WIRE_OVERHEAD	512

void
outbox_check_topic_name(const char *topic)
{
	size_t		len = strlen(topic);
	bool		legal = len >= 1 && len <= 249 &&
		strcmp(topic, ".") != 0 && strcmp(topic, "..") != 0;

	for (const char *at = topic; legal && *at; at++)
		legal = isalnum((unsigned char) *at) ?
			(unsigned char) *at < 128 : strchr("._-", *at) != NULL;
	if (!legal)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("\"%s\" is not a legal topic name", topic),
				 errhint("Kafka takes 1 to 249 letters, digits, dots, underscores and hyphens.")));
	if (strncmp(topic, "carshop-outbox-progress", strlen("carshop-outbox-progress")) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("topic \"%s\" is reserved for the relay's progress", topic),
				 errhint("Choose a name that does not begin with carshop-outbox-progress.")));
}

void
outbox_check_headers(Jsonb *headers)
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
		if (token == WJB_KEY)
		{
			const char *name = value.val.string.val;
			int			len = value.val.string.len;

			if ((len >= 3 && strncmp(name, "ce_", 3) == 0) ||
				(len == 2 && strncmp(name, "id", 2) == 0) ||
				(len == 11 && strncmp(name, "traceparent", 11) == 0) ||
				(len == 12 && strncmp(name, "content-type", 12) == 0) ||
				(len == 8 && strncmp(name, "replayed", 8) == 0))
				ereport(ERROR,
						(errcode(ERRCODE_OB_EVENT_REFUSED),
						 errmsg("header name \"%.*s\" is reserved", len, name),
						 errhint("ce_*, id, content-type, traceparent and replayed are set by the extension.")));
		}
		else if (token == WJB_VALUE && value.type != jbvString)
		{
			first = true;
			break;
		}
	}
	if (first)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("headers must be a JSON object of strings"),
				 errhint("For example {\"source\": \"till 4\"}.")));
}

bool
outbox_has_utf8_form(const char *text, size_t len)
{
	int			encoding = GetDatabaseEncoding();
	unsigned char *converted;
	size_t		ascii = 0;
	int			done;

	if (MUTANT("no_encoding_check"))
		return true;
	while (ascii < len && (unsigned char) text[ascii] < 128)
		ascii++;
	if (ascii == len || encoding == PG_UTF8)
		return true;
	/* any byte may stand in a SQL_ASCII database */
	if (encoding == PG_SQL_ASCII)
		return pg_encoding_verifymbstr(PG_UTF8, text, len) == len;
	if (len > MaxAllocSize / MAX_CONVERSION_GROWTH - 1)
		return true;			/* refused for its size */
	converted = palloc(len * MAX_CONVERSION_GROWTH + 1);
	done = pg_do_encoding_conversion_buf(FindDefaultConversionProc(encoding, PG_UTF8),
										 encoding, PG_UTF8,
										 (unsigned char *) text, len, converted,
										 len * MAX_CONVERSION_GROWTH + 1, true);
	pfree(converted);
	return done == len;
}

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
		{"description", &event->description}
	};
	const char *problem;

	if (GetDatabaseEncoding() != PG_UTF8)
	{
		for (int i = 0; i < lengthof(parts); i++)
		{
			if (outbox_has_utf8_form(parts[i].text->data, parts[i].text->len))
				continue;
			explain(event);
			ereport(ERROR,
					(errcode(ERRCODE_OB_EVENT_REFUSED),
					 errmsg("%s of an event has no form in UTF-8", parts[i].name),
					 errhint("Events are UTF-8 in Kafka: give a text that can be converted.")));
		}
		if (event->headers != NULL)
		{
			char	   *text = JsonbToCString(NULL, &event->headers->root,
											  VARSIZE(event->headers));

			if (!outbox_has_utf8_form(text, strlen(text)))
				ereport(ERROR,
						(errcode(ERRCODE_OB_EVENT_REFUSED),
						 errmsg("a header of event \"%.*s\" has no form in UTF-8",
								(int) event->type.len, event->type.data),
						 errhint("Events are UTF-8 in Kafka: give a text that can be converted.")));
		}
	}
	if (event->own_json && event->payload.data != NULL && !MUTANT("no_escape_check") &&
		(problem = json_escape_problem(event->payload.data, event->payload.len)) != NULL)
	{
		explain(event);
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("payload of event \"%.*s\" contains %s",
						(int) event->type.len, event->type.data, problem),
				 errdetail(NO_TEXT_DETAIL),
				 errhint("Use type jsonb, which refuses it earlier, or leave the value out.")));
	}
}

/*
 * Refuse what could not be published.  The exact size is only computed for
 * events near the limit: a character of a text may become six bytes of JSON.
 */
void
outbox_check_size(OutboxEvent *event)
{
	size_t		value = event->value ? VARSIZE_ANY_EXHDR(event->value) : 0;
	size_t		headers = event->headers ? VARSIZE_ANY_EXHDR(event->headers) : 0;
	size_t		limit = (size_t) setting_max_message_bytes;
	size_t		most;

	if (MUTANT("no_size_check"))
		return;
	if (event->key.len > OUTBOX_MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("key of event \"%.*s\" has %zu bytes, the limit is %d",
						(int) event->type.len, event->type.data,
						event->key.len, OUTBOX_MAX_KEY_BYTES),
				 errhint("Choose a shorter key with the key template of outbox.capture.")));

	/* other encodings may grow to three times their size in UTF-8 */
	most = (event->type.len + event->description.len + event->key.len * 2) * 6 +
		event->payload.len * (GetDatabaseEncoding() == PG_UTF8 ? 1 : 3) +
		value + headers + WIRE_OVERHEAD;
	if (most > limit)
	{
		WireEvent	wire = {0};
		WireBuffer	buffer = {0};
		size_t		size;

		memcpy(wire.id, event->id.data, UUID_LEN);
		wire.format = event->format;
		wire.type = event->type;
		wire.description = event->description;
		wire.key = event->key;
		wire.payload = event->payload;
		if (event->value)
		{
			wire.value.data = VARDATA_ANY(event->value);
			wire.value.len = value;
		}
		wire.source = setting_event_source;
		(void) wire_value(&buffer, &wire);
		size = buffer.len + event->key.len + headers + WIRE_OVERHEAD;
		if (GetDatabaseEncoding() != PG_UTF8 && buffer.len < MaxAllocSize)
		{
			char	   *utf8 = pg_server_to_any(buffer.data, buffer.len, PG_UTF8);

			if (utf8 != buffer.data)
				size += strlen(utf8) - buffer.len;
		}
		wire_buffer_free(&buffer);
		if (buffer.failed || size > limit)
			ereport(ERROR,
					(errcode(ERRCODE_OB_EVENT_REFUSED),
					 errmsg("event \"%.*s\" has %zu bytes, the limit is %zu",
							(int) event->type.len, event->type.data, size, limit),
					 errhint("Choose fewer columns with outbox.capture(columns => ...), or raise carshop_outbox.max_message_bytes together with the topic's max.message.bytes.")));
	}
}

/* Does a pattern of carshop_outbox.allowed_topics (only * is special) match? */
static bool
pattern_matches(const char *pattern, const char *text)
{
	const char *star = NULL;
	const char *retry = NULL;

	while (*text)
	{
		if (*pattern == '*')
		{
			star = ++pattern;
			retry = text;
		}
		else if (*pattern == *text)
		{
			pattern++;
			text++;
		}
		else if (star != NULL)
		{
			pattern = star;
			text = ++retry;
		}
		else
			return false;
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

/* Is it the fixed topic of one of this database's routes? */
static bool
topic_of_a_route(const char *topic)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	Oid			function = outbox_capture_function(false);
	HeapTuple	tuple;
	bool		found = false;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		char	   *named;

		if (((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid != function)
			continue;
		named = route_argument(rel, tuple, "topic");
		found = named != NULL && strcmp(named, topic) == 0;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

static void
check_topic_permitted(const char *topic)
{
	ListCell   *lc;

	if (strcmp(topic, setting_topic) == 0 || MUTANT("any_topic"))
		return;
	foreach(lc, settings_split(setting_allowed_topics))
	{
		if (pattern_matches(lfirst(lc), topic))
			return;
	}
	if (topic_of_a_route(topic))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OB_EVENT_REFUSED),
			 errmsg("topic \"%s\" is not allowed", topic),
			 errdetail("Allowed are the default topic, those of routes, and carshop_outbox.allowed_topics."),
			 errhint("An administrator can add it: ALTER DATABASE ... SET carshop_outbox.allowed_topics = '%s'.", topic)));
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

		outbox_check_topic_name(topic);
		check_topic_permitted(topic);
	}
	if (event->headers != NULL)
		outbox_check_headers(event->headers);
	if (event->description.data == NULL && event->type.data != NULL)
	{
		event->description.data =
			psprintf("%.*s%s%.*s", (int) event->type.len, event->type.data,
					 event->key.len > 0 ? " " : "",
					 (int) event->key.len, event->key.len > 0 ? event->key.data : "");
		event->description.len = strlen(event->description.data);
	}
}
