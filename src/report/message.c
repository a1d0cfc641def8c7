/*-------------------------------------------------------------------------
 *
 * message.c
 *	  Decoding one Kafka message into the fields of a domain event.
 *
 * Three shapes are understood: the object that the car shop's services
 * exchange (three members, and three more that the relay adds), CloudEvents
 * structured mode, and CloudEvents binary mode (bare data, attributes in
 * ce_* headers), which is what a route of format 'payload' sends.
 *
 * The text is scanned once, by json_scan.c, and never rewritten; json-c
 * decodes the strings that hold escapes.
 *
 * Memory: one scratch buffer per decoder, made large enough for a message
 * before it is decoded, so that the texts handed out stay where they are.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <json-c/json.h>

#include "report/json_scan.h"
#include "report/message.h"

/* SQLSTATEs as PostgreSQL gives them for the same faults. */
#define STATE_INVALID_JSON		"22032" /* invalid_json_text */
#define STATE_INVALID_TIME		"22007" /* invalid_datetime_format */
#define STATE_INVALID_MESSAGE	"22023" /* invalid_parameter_value */
#define STATE_UNSTORABLE		"22P05" /* untranslatable_character */

#define STRUCTURED_MODE	"application/cloudevents+json"

/* What a header may grow to as JSON text: escapes, quotes, colon, comma. */
#define HEADER_JSON_SIZE(len)	((len) * 6 + 16)

struct MessageDecoder
{
	struct json_tokener *tokener;
	char	   *scratch;
	size_t		size;
	size_t		used;
};

/* The top-level members that mean something to us. */
typedef struct Members
{
	JsonSpan	event_type;
	JsonSpan	description;
	JsonSpan	occurred_on;
	JsonSpan	event_id;
	JsonSpan	key;
	JsonSpan	data;
	/* CloudEvents attributes */
	JsonSpan	specversion;
	JsonSpan	id;
	JsonSpan	source;
	JsonSpan	type;
	JsonSpan	time;
	JsonSpan	subject;
	JsonSpan	ce_description;
	JsonSpan	ce_data;
	JsonSpan	data_base64;
} Members;

typedef struct MemberName
{
	const char *name;
	size_t		len;
	bool		fold;			/* compared without case */
	size_t		offset;
} MemberName;

#define MEMBER(name, fold, field) \
	{name, sizeof(name) - 1, fold, offsetof(Members, field)}

static const MemberName member_names[] = {
	MEMBER("EventType", true, event_type),
	MEMBER("EventDescription", true, description),
	MEMBER("OccuredOn", true, occurred_on),
	MEMBER("OccurredOn", true, occurred_on),
	MEMBER("EventId", true, event_id),
	MEMBER("Key", true, key),
	MEMBER("Data", true, data),
	MEMBER("specversion", false, specversion),
	MEMBER("id", false, id),
	MEMBER("source", false, source),
	MEMBER("type", false, type),
	MEMBER("time", false, time),
	MEMBER("subject", false, subject),
	MEMBER("description", false, ce_description),
	MEMBER("data", false, ce_data),
	MEMBER("data_base64", false, data_base64),
};

static void reject(Message *message, const char *sqlstate, const char *reason);
static bool decode_text(MessageDecoder *decoder, const JsonSpan *span,
						const char *name, Message *message,
						MessageText *text);
static bool decode_any(MessageDecoder *decoder, const JsonSpan *span,
					   const char *name, Message *message, MessageText *text);
static bool decode_time(const JsonSpan *span, const char *name,
						Message *message);
static bool take_data(const JsonSpan *span, const char *name,
					  Message *message);
static void headers_to_json(MessageDecoder *decoder, const MessageInput *input,
							const Message *message, MessageText *json);

MessageDecoder *
message_decoder_new(void)
{
	MessageDecoder *decoder = calloc(1, sizeof(*decoder));

	if (decoder == NULL)
		return NULL;
	decoder->tokener = json_tokener_new_ex(2);
	if (decoder->tokener == NULL)
	{
		free(decoder);
		return NULL;
	}
	json_tokener_set_flags(decoder->tokener,
						   JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	return decoder;
}

void
message_decoder_free(MessageDecoder *decoder)
{
	if (decoder == NULL)
		return;
	json_tokener_free(decoder->tokener);
	free(decoder->scratch);
	free(decoder);
}

/* Room for everything that decoding this message can write. */
static bool
reserve(MessageDecoder *decoder, const MessageInput *input)
{
	size_t		need = 2 * input->value_len + 64;
	int			i;

	for (i = 0; i < input->n_headers; i++)
		need += HEADER_JSON_SIZE(strlen(input->headers[i].name) +
								 input->headers[i].value_len);

	decoder->used = 0;
	if (need > decoder->size)
	{
		char	   *larger = realloc(decoder->scratch, need);

		if (larger == NULL)
			return false;
		decoder->scratch = larger;
		decoder->size = need;
	}
	return true;
}

static void
scratch_add(MessageDecoder *decoder, const char *data, size_t len)
{
	memcpy(decoder->scratch + decoder->used, data, len);
	decoder->used += len;
}

static void
reject(Message *message, const char *sqlstate, const char *reason)
{
	message->kind = MESSAGE_REJECT;
	memcpy(message->sqlstate, sqlstate, sizeof(message->sqlstate));
	if (reason != message->reason)
		snprintf(message->reason, sizeof(message->reason), "%s", reason);
}

static void
reject_member(Message *message, const char *sqlstate, const char *name,
			  const char *what)
{
	snprintf(message->reason, sizeof(message->reason),
			 "\"%s\" %s", name, what);
	reject(message, sqlstate, message->reason);
}

static void
reject_scan(Message *message, const JsonScanner *scanner)
{
	snprintf(message->reason, sizeof(message->reason),
			 "the message is not JSON: expected %s at byte %zu",
			 scanner->error != NULL ? scanner->error : "the end",
			 (size_t) (scanner->p - scanner->start) + 1);
	reject(message, STATE_INVALID_JSON, message->reason);
}

static const MessageHeader *
find_header(const MessageInput *input, const char *name)
{
	int			i;

	/* The last one, as for JSON members and for Kafka's own lastHeader(). */
	for (i = input->n_headers - 1; i >= 0; i--)
	{
		if (strcmp(input->headers[i].name, name) == 0 &&
			input->headers[i].value != NULL)
			return &input->headers[i];
	}
	return NULL;
}

static bool
valid_text(const char *data, size_t len)
{
	const unsigned char *p = (const unsigned char *) data;
	const unsigned char *end = p + len;

	while (p < end)
	{
		int			n = (*p == 0) ? 0 : json_utf8_length(p, end);

		if (n == 0)
			return false;
		p += n;
	}
	return true;
}

/* A header as text; false (and rejected) when PostgreSQL cannot hold it. */
static bool
header_text(const MessageInput *input, const char *name, Message *message,
			MessageText *text)
{
	const MessageHeader *header = find_header(input, name);

	if (header == NULL)
		return true;
	if (!valid_text(header->value, header->value_len))
	{
		reject_member(message, STATE_UNSTORABLE, name,
					  "header is not UTF-8 text");
		return false;
	}
	text->data = header->value;
	text->len = header->value_len;
	return true;
}

static bool
has_content_type(const MessageInput *input, const char *prefix)
{
	const MessageHeader *header = find_header(input, "content-type");
	size_t		len = strlen(prefix);

	if (header == NULL)
		header = find_header(input, "Content-Type");
	return header != NULL && header->value_len >= len &&
		strncasecmp(header->value, prefix, len) == 0;
}

/* ------------------------------------------------------------------------
 * Single members
 * ------------------------------------------------------------------------
 */

/* The text of a JSON string; span->type is '"' and the scanner accepted it. */
static bool
decode_string(MessageDecoder *decoder, const JsonSpan *span, MessageText *text)
{
	struct json_object *object;

	if (!span->escapes)
	{
		text->data = span->start + 1;
		text->len = span->len - 2;
		return true;
	}

	json_tokener_reset(decoder->tokener);
	object = json_tokener_parse_ex(decoder->tokener, span->start,
								   (int) span->len);
	if (object == NULL || !json_object_is_type(object, json_type_string))
	{
		json_object_put(object);
		return false;
	}
	text->data = decoder->scratch + decoder->used;
	text->len = (size_t) json_object_get_string_len(object);
	scratch_add(decoder, json_object_get_string(object), text->len);
	json_object_put(object);
	return true;
}

static bool
is_present(const JsonSpan *span)
{
	return span->start != NULL && span->type != 'n';
}

/* A member that must be a non-empty string. */
static bool
decode_text(MessageDecoder *decoder, const JsonSpan *span, const char *name,
			Message *message, MessageText *text)
{
	if (span->start == NULL)
	{
		reject_member(message, STATE_INVALID_MESSAGE, name, "is missing");
		return false;
	}
	if (span->type != '"')
	{
		reject_member(message, STATE_INVALID_MESSAGE, name, "is not a string");
		return false;
	}
	if (span->unstorable)
	{
		reject_member(message, STATE_UNSTORABLE, name,
					  "holds \\u0000 or half a surrogate pair, which PostgreSQL cannot store");
		return false;
	}
	if (!decode_string(decoder, span, text))
	{
		reject_member(message, STATE_INVALID_JSON, name,
					  "could not be decoded");
		return false;
	}
	return true;
}

/* An optional member of any type: a string's text, or the JSON text. */
static bool
decode_any(MessageDecoder *decoder, const JsonSpan *span, const char *name,
		   Message *message, MessageText *text)
{
	if (!is_present(span))
		return true;
	if (span->type == '"')
		return decode_text(decoder, span, name, message, text);
	text->data = span->start;
	text->len = span->len;
	return true;
}

static bool
decode_time(const JsonSpan *span, const char *name, Message *message)
{
	if (span->start == NULL)
	{
		reject_member(message, STATE_INVALID_MESSAGE, name, "is missing");
		return false;
	}
	/* An escape in a time ("\u002B" for the plus sign) is legal JSON. */
	if (span->type == '"' && span->escapes && span->len < 128)
	{
		char		plain[128];
		size_t		len = 0;
		const char *p = span->start + 1;
		const char *end = span->start + span->len - 1;

		while (p < end)
		{
			unsigned int code;

			if (*p == '\\' && end - p >= 6 && p[1] == 'u' &&
				sscanf(p + 2, "%4x", &code) == 1 && code < 0x80)
			{
				plain[len++] = (char) code;
				p += 6;
			}
			else
				plain[len++] = *p++;
		}
		message->has_time = message_parse_time(plain, len,
											   &message->occurred_on);
	}
	else
		message->has_time = span->type == '"' &&
			message_parse_time(span->start + 1, span->len - 2,
							   &message->occurred_on);

	if (!message->has_time)
		reject_member(message, STATE_INVALID_TIME, name,
					  "is not an ISO 8601 date and time");
	return message->has_time;
}

static bool
take_data(const JsonSpan *span, const char *name, Message *message)
{
	if (!is_present(span))
		return true;
	if (span->unstorable)
	{
		reject_member(message, STATE_UNSTORABLE, name,
					  "holds \\u0000 or half a surrogate pair, which PostgreSQL cannot store");
		return false;
	}
	message->data.data = span->start;
	message->data.len = span->len;
	return true;
}

/* ------------------------------------------------------------------------
 * The three shapes
 * ------------------------------------------------------------------------
 */

/* Find the members of the top-level object; the last of equal names wins. */
static bool
find_members(MessageDecoder *decoder, JsonScanner *scanner, Members *members)
{
	JsonSpan	name;
	JsonSpan	value;
	bool		first = true;

	while (json_scan_member(scanner, &first, &name, &value))
	{
		MessageText text;
		size_t		used = decoder->used;
		size_t		i;

		if (!decode_string(decoder, &name, &text))
			continue;
		for (i = 0; i < sizeof(member_names) / sizeof(member_names[0]); i++)
		{
			const MemberName *known = &member_names[i];

			if (known->len == text.len &&
				(known->fold ?
				 strncasecmp(known->name, text.data, text.len) == 0 :
				 memcmp(known->name, text.data, text.len) == 0))
				*(JsonSpan *) ((char *) members + known->offset) = value;
		}
		decoder->used = used;
	}
	return scanner->error == NULL;
}

/* The car shop's object. */
static void
decode_envelope(MessageDecoder *decoder, const Members *members,
				Message *message)
{
	MessageText id;

	memset(&id, 0, sizeof(id));
	if (!decode_text(decoder, &members->event_type, "EventType", message,
					 &message->event_type) ||
		!decode_text(decoder, &members->description, "EventDescription",
					 message, &message->description) ||
		!decode_time(&members->occurred_on, "OccuredOn", message) ||
		!decode_any(decoder, &members->key, "Key", message,
					&message->event_key) ||
		!take_data(&members->data, "Data", message))
		return;
	if (message->event_type.len == 0)
	{
		reject_member(message, STATE_INVALID_MESSAGE, "EventType", "is empty");
		return;
	}
	if (!message->has_id && members->event_id.type == '"' &&
		decode_string(decoder, &members->event_id, &id))
		message->has_id = message_parse_uuid(id.data, id.len, message->id);
	message->kind = MESSAGE_EVENT;
}

/* "type subject", where a CloudEvent says no more about itself. */
static void
describe(MessageDecoder *decoder, Message *message)
{
	if (message->description.data != NULL)
		return;
	if (message->event_key.len == 0)
	{
		message->description = message->event_type;
		return;
	}
	message->description.data = decoder->scratch + decoder->used;
	scratch_add(decoder, message->event_type.data, message->event_type.len);
	scratch_add(decoder, " ", 1);
	scratch_add(decoder, message->event_key.data, message->event_key.len);
	message->description.len =
		message->event_type.len + 1 + message->event_key.len;
}

/* Structured mode: attributes and data in one object. */
static void
decode_structured(MessageDecoder *decoder, const Members *members,
				  Message *message)
{
	MessageText id;

	memset(&id, 0, sizeof(id));
	if (is_present(&members->data_base64))
	{
		reject(message, STATE_INVALID_MESSAGE,
			   "CloudEvents with binary data (data_base64) are not supported");
		return;
	}
	if (!decode_text(decoder, &members->type, "type", message,
					 &message->event_type) ||
		!decode_text(decoder, &members->id, "id", message, &id) ||
		!decode_text(decoder, &members->source, "source", message,
					 &message->ce_source) ||
		!decode_any(decoder, &members->subject, "subject", message,
					&message->event_key) ||
		!decode_any(decoder, &members->ce_description, "description", message,
					&message->description) ||
		!take_data(&members->ce_data, "data", message))
		return;
	if (is_present(&members->time) &&
		!decode_time(&members->time, "time", message))
		return;
	if (message->event_type.len == 0 || id.len == 0)
	{
		reject_member(message, STATE_INVALID_MESSAGE,
					  id.len == 0 ? "id" : "type", "is empty");
		return;
	}
	if (!message->has_id && message->ce_id.data == NULL)
	{
		message->has_id = message_parse_uuid(id.data, id.len, message->id);
		if (!message->has_id)
			message->ce_id = id;
	}
	describe(decoder, message);
	message->kind = MESSAGE_EVENT;
}

/* Binary mode: attributes in headers, the value is data alone. */
static void
decode_binary(MessageDecoder *decoder, const MessageInput *input,
			  Message *message)
{
	MessageText time;

	memset(&time, 0, sizeof(time));
	if (!header_text(input, "ce_type", message, &message->event_type) ||
		!header_text(input, "ce_subject", message, &message->event_key) ||
		!header_text(input, "ce_description", message,
					 &message->description) ||
		!header_text(input, "ce_time", message, &time))
		return;
	if (message->event_type.len == 0)
	{
		reject_member(message, STATE_INVALID_MESSAGE, "ce_type", "is empty");
		return;
	}
	if (time.data != NULL)
	{
		message->has_time = message_parse_time(time.data, time.len,
											   &message->occurred_on);
		if (!message->has_time)
		{
			reject_member(message, STATE_INVALID_TIME, "ce_time",
						  "is not an ISO 8601 date and time");
			return;
		}
	}

	/* A delete has no value: Kafka's tombstone, an event all the same. */
	if (input->value != NULL)
	{
		JsonScanner scanner;
		JsonSpan	value;

		json_scan_init(&scanner, input->value, input->value_len);
		if (!json_scan_value(&scanner, &value) || !json_scan_at_end(&scanner))
		{
			reject_scan(message, &scanner);
			return;
		}
		if (!take_data(&value, "data", message))
			return;
	}
	describe(decoder, message);
	message->kind = MESSAGE_EVENT;
}

/* What headers say about the id comes before what the value says. */
static bool
decode_header_id(const MessageInput *input, Message *message)
{
	const MessageHeader *header = find_header(input, "ce_id");

	if (!header_text(input, "ce_source", message, &message->ce_source))
		return false;
	if (header != NULL)
	{
		message->has_id = message_parse_uuid(header->value, header->value_len,
											 message->id);
		if (!message->has_id &&
			!header_text(input, "ce_id", message, &message->ce_id))
			return false;
	}
	if (!message->has_id)
	{
		header = find_header(input, "id");
		if (header != NULL)
			message->has_id = message_parse_uuid(header->value,
												 header->value_len,
												 message->id);
	}
	return true;
}

bool
message_decode(MessageDecoder *decoder, const MessageInput *input,
			   Message *message)
{
	bool		structured = has_content_type(input, STRUCTURED_MODE);
	JsonScanner scanner;
	Members		members;

	memset(message, 0, sizeof(*message));
	message->kind = MESSAGE_SKIP;
	if (!reserve(decoder, input))
		return false;

	/* -1 as json-c takes an int; no broker has messages that large. */
	if (input->value_len >= 0x7fffffff)
	{
		reject(message, STATE_INVALID_MESSAGE, "the message is too large");
		return true;
	}
	if (!decode_header_id(input, message))
		return true;

	if (!structured && find_header(input, "ce_type") != NULL)
		decode_binary(decoder, input, message);
	else if (input->value != NULL)
	{
		json_scan_init(&scanner, input->value, input->value_len);
		if (json_scan_at_end(&scanner))
			reject(message, STATE_INVALID_JSON,
				   "the message is not JSON: it is empty");
		else if (!json_scan_object(&scanner))
		{
			JsonSpan	value;

			if (!json_scan_value(&scanner, &value) ||
				!json_scan_at_end(&scanner))
				reject_scan(message, &scanner);
			else if (value.type != 'n')
				reject(message, STATE_INVALID_MESSAGE,
					   "the message is JSON but not an object");
		}
		else
		{
			memset(&members, 0, sizeof(members));
			if (!find_members(decoder, &scanner, &members) ||
				!json_scan_at_end(&scanner))
				reject_scan(message, &scanner);
			else if (structured ||
					 (members.specversion.start != NULL &&
					  members.event_type.start == NULL))
				decode_structured(decoder, &members, message);
			else
				decode_envelope(decoder, &members, message);
		}
	}

	if (message->kind == MESSAGE_EVENT)
	{
		/* The record's own key, where the value names none. */
		if (message->event_key.data == NULL && input->key != NULL &&
			valid_text(input->key, input->key_len))
		{
			message->event_key.data = input->key;
			message->event_key.len = input->key_len;
		}
		headers_to_json(decoder, input, message, &message->headers);
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Headers
 * ------------------------------------------------------------------------
 */

static void
scratch_add_json(MessageDecoder *decoder, const char *data, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	bool		text = valid_text(data, len);
	size_t		i;

	scratch_add(decoder, "\"", 1);
	if (!text)
		scratch_add(decoder, "\\\\x", 3);	/* bytea's form */
	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) data[i];
		char		escape[6] = {'\\', 'u', '0', '0', 0, 0};

		if (!text)
		{
			scratch_add(decoder, &hex[c >> 4], 1);
			scratch_add(decoder, &hex[c & 15], 1);
		}
		else if (c == '"' || c == '\\')
		{
			scratch_add(decoder, "\\", 1);
			scratch_add(decoder, &data[i], 1);
		}
		else if (c < 0x20)
		{
			escape[4] = hex[c >> 4];
			escape[5] = hex[c & 15];
			scratch_add(decoder, escape, 6);
		}
		else
			scratch_add(decoder, &data[i], 1);
	}
	scratch_add(decoder, "\"", 1);
}

/*
 * All headers as one object.  The header "id" is left out where it only says
 * what the event's id says: that is the one header of every event the relay
 * sends, and repeating it would cost as much as the event's other columns.
 */
static void
headers_to_json(MessageDecoder *decoder, const MessageInput *input,
				const Message *message, MessageText *json)
{
	size_t		start = decoder->used;
	int			n = 0;
	int			i;

	for (i = 0; i < input->n_headers; i++)
	{
		const MessageHeader *header = &input->headers[i];
		unsigned char id[16];

		if (message != NULL && message->has_id && header->value != NULL &&
			strcmp(header->name, "id") == 0 &&
			message_parse_uuid(header->value, header->value_len, id) &&
			memcmp(id, message->id, sizeof(id)) == 0)
			continue;
		scratch_add(decoder, n++ == 0 ? "{" : ",", 1);
		scratch_add_json(decoder, header->name, strlen(header->name));
		scratch_add(decoder, ":", 1);
		if (header->value == NULL)
			scratch_add(decoder, "null", 4);
		else
			scratch_add_json(decoder, header->value, header->value_len);
	}
	if (n == 0)
	{
		json->data = NULL;
		json->len = 0;
		return;
	}
	scratch_add(decoder, "}", 1);
	json->data = decoder->scratch + start;
	json->len = decoder->used - start;
}

bool
message_headers_json(MessageDecoder *decoder, const MessageInput *input,
					 MessageText *json)
{
	if (!reserve(decoder, input))
		return false;
	headers_to_json(decoder, input, NULL, json);
	return true;
}
