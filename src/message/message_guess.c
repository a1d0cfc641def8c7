/*-------------------------------------------------------------------------
 *
 * message_guess.c
 *	  What a message that is no event may be instead: reasons that help.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Whoever finds a dead letter wants to know which program writes such messages
 * and what to change there, not only at which byte they stop being JSON.  So a
 * message that was refused is looked at once more: what others send into topics
 * begins or is built in ways that can be told apart.  Only the reason depends on
 * it; a guess that is wrong refuses nothing and accepts nothing.
 *
 * Reasons are printable ASCII, whatever they quote: they are stored in
 * databases of any encoding.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "message/message_parts.h"

/* What is quoted of a message, in characters. */
#define QUOTE_MAX	48
#define QUOTE_SIZE	(QUOTE_MAX + 8)

typedef struct Magic
{
	const char *bytes;
	size_t		len;
	const char *what;
} Magic;

#define MAGIC(bytes, what) {bytes, sizeof(bytes) - 1, what}

/* How files, streams and serializers begin; the longer of two that agree first. */
static const Magic magics[] = {
	MAGIC("\x00\x01\x00\x00\x00\xff\xff\xff\xff", "an object of .NET's BinaryFormatter"),
	MAGIC("\x00\x00\xfe\xff", "text in UTF-32, which JSON must not be in"),
	MAGIC("\xff\xfe", "text in UTF-16, which JSON must not be in"),
	MAGIC("\xfe\xff", "text in UTF-16, which JSON must not be in"),
	MAGIC("\xef\xbb\xbf", "text that begins with a byte order mark, which JSON must not have; in .NET, write with new UTF8Encoding(false)"),
	MAGIC("\x1f\x8b", "data compressed with gzip; set compression.type at the producer, and clients undo it themselves"),
	MAGIC("\x28\xb5\x2f\xfd", "data compressed with zstd; set compression.type at the producer, and clients undo it themselves"),
	MAGIC("\x04\x22\x4d\x18", "data compressed with lz4; set compression.type at the producer, and clients undo it themselves"),
	MAGIC("\xff\x06\x00\x00sNaPpY", "data compressed with snappy; set compression.type at the producer, and clients undo it themselves"),
	MAGIC("\x82SNAPPY\x00", "data compressed with snappy; set compression.type at the producer, and clients undo it themselves"),
	MAGIC("PK\x03\x04", "a zip file"),
	MAGIC("Obj\x01", "a container file of Avro"),
	MAGIC("PAR1", "a Parquet file"),
	MAGIC("\xac\xed\x00\x05", "a serialized object of Java"),
	MAGIC("\xd9\xd9\xf7", "CBOR"),
	MAGIC("eyJ", "JSON in base64, or a JSON Web Token"),
	MAGIC("<", "XML or HTML"),
};

/* What people write where JSON has nothing like it. */
static const Magic literals[] = {
	MAGIC("NaN", "JSON has no NaN"),
	MAGIC("Infinity", "JSON has no infinite numbers"),
	MAGIC("-Infinity", "JSON has no infinite numbers"),
	MAGIC("undefined", "JSON has no undefined"),
	MAGIC("None", "that is Python's notation"),
	MAGIC("True", "that is Python's notation"),
	MAGIC("False", "that is Python's notation"),
	MAGIC("'", "JSON has no single quotes"),
	MAGIC("//", "JSON has no comments"),
	MAGIC("/*", "JSON has no comments"),
	MAGIC("\xef\xbb\xbf", "that is a byte order mark"),
	MAGIC("\x00", "that is a NUL byte"),
};

/* Some of it, in printable ASCII. */
static void
quote(char *to, const char *data, size_t len)
{
	size_t		at = 0;
	size_t		i;

	for (i = 0; i < len && at + 4 <= QUOTE_MAX; i++)
	{
		unsigned char c = (unsigned char) data[i];

		if (c >= 0x20 && c <= 0x7e)
			to[at++] = (char) c;
		else
			at += (size_t) snprintf(to + at, 5, "\\x%02x", c);
	}
	snprintf(to + at, QUOTE_SIZE - at, "%s", i < len ? "..." : "");
}

void
message_reject_value(Message *message, const char *sqlstate, const char *name,
					 const char *what, const char *data, size_t len)
{
	char		quoted[QUOTE_SIZE];

	quote(quoted, data, len);
	snprintf(message->reason, sizeof(message->reason),
			 "\"%s\" %s: %s", name, what, quoted);
	message_reject(message, sqlstate, message->reason);
}

/* ------------------------------------------------------------------------
 * Not JSON
 * ------------------------------------------------------------------------
 */

static const char *
find_magic(const Magic *magic, size_t n, const char *data, size_t len)
{
	size_t		i;

	for (i = 0; i < n; i++)
	{
		if (len >= magic[i].len &&
			memcmp(data, magic[i].bytes, magic[i].len) == 0)
			return magic[i].what;
	}
	return NULL;
}

/* ASCII's characters with zeros between them, as in UTF-16 without a mark. */
static bool
is_utf16(const char *data, size_t len)
{
	int			zero;

	if (len < 4)
		return false;
	for (zero = 0; zero < 2; zero++)
	{
		if (data[zero] == 0 && data[zero + 2] == 0 &&
			strchr("{[\" \t\r\n", data[1 - zero]) != NULL &&
			data[1 - zero] != 0 && data[3 - zero] != 0)
			return true;
	}
	return false;
}

/*
 * The framings of schema registries: Confluent's is a byte 0 and the schema's
 * id, big-endian; that of AWS Glue is a byte 3, one for the compression (0 or
 * 5) and a UUID.
 */
static bool
guess_framing(const MessageInput *input, char *what, size_t size)
{
	const unsigned char *p = (const unsigned char *) input->value;

	if (input->value_len >= 5 && p[0] == 0)
	{
		JsonScanner scanner;
		JsonSpan	value;
		uint32_t	id = (uint32_t) p[1] << 24 | (uint32_t) p[2] << 16 |
		(uint32_t) p[3] << 8 | p[4];

		json_scan_init(&scanner, input->value + 5, input->value_len - 5);
		snprintf(what, size,
				 "%s with schema registry framing (magic byte 0, schema id %" PRIu32 ")",
				 json_scan_value(&scanner, &value) ?
				 "JSON Schema" : "Avro or Protobuf", id);
		return true;
	}
	if (input->value_len >= 18 && p[0] == 3 && (p[1] == 0 || p[1] == 5))
	{
		snprintf(what, size,
				 "Avro, Protobuf or JSON Schema with the framing of AWS Glue's schema registry");
		return true;
	}
	if (message_find_header(input, "__value_schema_id") != NULL)
	{
		snprintf(what, size,
				 "Avro or Protobuf of a schema registry (header __value_schema_id)");
		return true;
	}
	return false;
}

/* A comma that nothing follows? */
static bool
is_trailing_comma(const JsonScanner *scanner)
{
	const char *p = scanner->p;

	if (p == scanner->end || (*p != ']' && *p != '}'))
		return false;
	while (p > scanner->start && strchr(" \t\r\n", p[-1]) != NULL && p[-1] != 0)
		p--;
	return p > scanner->start && p[-1] == ',';
}

/* "expected a value at byte 6, found "NaN}" (JSON has no NaN)" */
static void
describe_fault(const JsonScanner *scanner, char *what, size_t size)
{
	size_t		left = (size_t) (scanner->end - scanner->p);
	const char *hint = find_magic(literals, sizeof(literals) / sizeof(literals[0]),
								  scanner->p, left);
	char		found[QUOTE_SIZE];
	bool		at_end = left == 0;

	if (hint == NULL && is_trailing_comma(scanner))
		hint = "JSON has no comma there";
	if (hint == NULL && !at_end && scanner->p == scanner->start &&
		((unsigned char) *scanner->p < 0x20 || (unsigned char) *scanner->p >= 0x7f))
		hint = "that is no text";
	quote(found, scanner->p, left < 16 ? left : 16);
	snprintf(what, size, "expected %s at byte %zu, found %s%s%s%s%s%s",
			 scanner->error != NULL ? scanner->error : "the end",
			 (size_t) (scanner->p - scanner->start) + 1,
			 at_end ? "the end" : "\"", at_end ? "" : found,
			 at_end ? "" : "\"", hint != NULL ? " (" : "",
			 hint != NULL ? hint : "", hint != NULL ? ")" : "");
}

void
message_reject_scan(Message *message, const MessageInput *input,
					const JsonScanner *scanner)
{
	const MessageHeader *type = message_content_type(input);
	const char *looks = " it looks like ";
	char		what[sizeof(message->reason)];
	char		content_type[QUOTE_SIZE] = "";
	const char *magic;

	if (scanner->error == json_too_deep)
	{
		snprintf(message->reason, sizeof(message->reason),
				 "the message is nested more than %d levels deep, at byte %zu",
				 JSON_MAX_DEPTH, (size_t) (scanner->p - scanner->start) + 1);
		message_reject(message, STATE_TOO_DEEP, message->reason);
		return;
	}

	magic = find_magic(magics, sizeof(magics) / sizeof(magics[0]),
					   input->value, input->value_len);
	if (magic == NULL && is_utf16(input->value, input->value_len))
		magic = "text in UTF-16, which JSON must not be in";
	if (magic != NULL)
		snprintf(what, sizeof(what), "%s", magic);
	else if (input->value_len == 0)
	{
		looks = " ";
		snprintf(what, sizeof(what), "it is empty");
	}
	else if (!guess_framing(input, what, sizeof(what)))
	{
		looks = " ";
		describe_fault(scanner, what, sizeof(what));
	}

	if (type != NULL &&
		!(type->value_len >= 16 &&
		  strncasecmp(type->value, "application/json", 16) == 0))
		quote(content_type, type->value, type->value_len);
	snprintf(message->reason, sizeof(message->reason),
			 "the message is not JSON:%s%.200s%s%s%s", looks, what,
			 content_type[0] != '\0' ? "; its content-type is \"" : "",
			 content_type, content_type[0] != '\0' ? "\"" : "");
	message_reject(message, STATE_INVALID_JSON, message->reason);
}

/* ------------------------------------------------------------------------
 * JSON, but no event
 * ------------------------------------------------------------------------
 */

void
message_reject_no_object(Message *message, const JsonSpan *value)
{
	const char *what = "a number";

	if (value->type == '[')
		what = "an array, while each event is a message of its own";
	else if (value->type == 't' || value->type == 'f')
		what = "a Boolean value";
	else if (value->type == '"')
	{
		const char *p = value->start + 1;

		while (*p == ' ')
			p++;
		what = (*p == '{' || *p == '[') ?
			"a string that holds JSON, as if it had been serialized twice" :
			"a string";
	}
	snprintf(message->reason, sizeof(message->reason),
			 "the message is JSON but not an object: %s", what);
	message_reject(message, STATE_INVALID_MESSAGE, message->reason);
}

/* Members of other programs' envelopes. */
enum
{
	SEEN_SCHEMA = 1,
	SEEN_PAYLOAD = 2,
	SEEN_BEFORE = 4,
	SEEN_AFTER = 8,
	SEEN_OP = 16,
	SEEN_MESSAGE_TYPE = 32,
	SEEN_MESSAGE = 64
};

static const struct
{
	const char *name;
	int			seen;
}			foreign_members[] = {
	{"\"schema\"", SEEN_SCHEMA},
	{"\"payload\"", SEEN_PAYLOAD},
	{"\"before\"", SEEN_BEFORE},
	{"\"after\"", SEEN_AFTER},
	{"\"op\"", SEEN_OP},
	{"\"messageType\"", SEEN_MESSAGE_TYPE},
	{"\"message\"", SEEN_MESSAGE},
};

static int
find_foreign_members(const MessageInput *input)
{
	JsonScanner scanner;
	JsonSpan	name;
	JsonSpan	value;
	bool		first = true;
	int			seen = 0;
	size_t		i;

	json_scan_init(&scanner, input->value, input->value_len);
	if (!json_scan_object(&scanner))
		return 0;
	while (json_scan_member(&scanner, &first, &name, &value))
	{
		for (i = 0; i < sizeof(foreign_members) / sizeof(foreign_members[0]); i++)
		{
			if (name.len == strlen(foreign_members[i].name) &&
				memcmp(name.start, foreign_members[i].name, name.len) == 0)
				seen |= foreign_members[i].seen;
		}
	}
	return seen;
}

void
message_reject_no_type(Message *message, const MessageInput *input)
{
	const MessageHeader *id = message_find_header(input, "id");
	int			seen = find_foreign_members(input);
	unsigned char uuid[16];
	const char *guess = NULL;

	if ((seen & SEEN_SCHEMA) && (seen & SEEN_PAYLOAD))
		guess = "this looks like Kafka Connect's JSON with schemas, which value.converter.schemas.enable=false turns off";
	else if ((seen & SEEN_OP) && (seen & (SEEN_BEFORE | SEEN_AFTER)))
		guess = "this looks like a change event of Debezium; events come from its outbox event router";
	else if ((seen & SEEN_MESSAGE_TYPE) && (seen & SEEN_MESSAGE))
		guess = "this looks like an envelope of MassTransit, which its raw JSON serializer leaves out";
	else if (message_find_header(input, "ce-type") != NULL)
		guess = "in Kafka, the attributes of a CloudEvent are in headers ce_type and so on, not ce-type";
	else if (id != NULL && message_parse_uuid(id->value, id->value_len, uuid))
		guess = "this looks like the payload of Debezium's outbox event router; have it add the type as header ce_type (table.fields.additional.placement=type:header:ce_type)";
	snprintf(message->reason, sizeof(message->reason),
			 "\"EventType\" is missing%s%s", guess != NULL ? ": " : "",
			 guess != NULL ? guess : "");
	message_reject(message, STATE_INVALID_MESSAGE, message->reason);
}
