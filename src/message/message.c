/*-------------------------------------------------------------------------
 *
 * message.c
 *	  Decoding one Kafka message into the fields of a domain event.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Three shapes are understood: the object that the car shop's services
 * exchange (three members, and three more that the relay adds), CloudEvents
 * structured mode, and CloudEvents binary mode (bare data, attributes in
 * ce_* headers), which is what a route of format 'payload' sends.
 *
 * The text is scanned once, by json_scan.c, and never rewritten; what its
 * members mean is in message_parts.c.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>
#include <strings.h>

#include "message/message_parts.h"

#define STRUCTURED_MODE	"application/cloudevents+json"

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

static bool
has_content_type(const MessageInput *input, const char *prefix)
{
	const MessageHeader *header = message_content_type(input);
	size_t		len = strlen(prefix);

	return header != NULL && header->value_len >= len &&
		strncasecmp(header->value, prefix, len) == 0;
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
		char	   *end = message_scratch_end(decoder);
		size_t		i;

		message_string(decoder, &name, &text);
		for (i = 0; i < sizeof(member_names) / sizeof(member_names[0]); i++)
		{
			const MemberName *known = &member_names[i];

			if (known->len == text.len &&
				(known->fold ?
				 strncasecmp(known->name, text.data, text.len) == 0 :
				 memcmp(known->name, text.data, text.len) == 0))
				*(JsonSpan *) ((char *) members + known->offset) = value;
		}
		message_scratch_reset(decoder, end);
	}
	return scanner->error == NULL;
}

/* The car shop's object. */
static void
decode_envelope(MessageDecoder *decoder, const MessageInput *input,
				const Members *members, Message *message)
{
	MessageText id;

	memset(&id, 0, sizeof(id));
	if (members->event_type.start == NULL)
	{
		message_reject_no_type(message, input);
		return;
	}
	if (!message_text(decoder, &members->event_type, "EventType", message,
					  &message->event_type) ||
		(members->description.type != 'n' &&
		 !message_text(decoder, &members->description, "EventDescription",
					   message, &message->description)) ||
		!message_time(&members->occurred_on, "OccuredOn", message) ||
		!message_any(decoder, &members->key, "Key", message,
					 &message->event_key) ||
		!message_data(&members->data, "Data", message))
		return;
	if (message->event_type.len == 0)
	{
		message_reject_member(message, STATE_INVALID_MESSAGE, "EventType", "is empty");
		return;
	}
	if (!message->has_id && members->event_id.type == '"')
	{
		message_string(decoder, &members->event_id, &id);
		message->has_id = message_parse_uuid(id.data, id.len, message->id);
	}
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
	message->description.data = message_scratch_end(decoder);
	message_scratch(decoder, message->event_type.data, message->event_type.len);
	message_scratch(decoder, " ", 1);
	message_scratch(decoder, message->event_key.data, message->event_key.len);
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
	if (message_is_present(&members->data_base64))
	{
		message_reject(message, STATE_INVALID_MESSAGE,
					   "CloudEvents with binary data (data_base64) are not supported");
		return;
	}
	if (!message_text(decoder, &members->type, "type", message,
					  &message->event_type) ||
		!message_text(decoder, &members->id, "id", message, &id) ||
		!message_text(decoder, &members->source, "source", message,
					  &message->ce_source) ||
		!message_any(decoder, &members->subject, "subject", message,
					 &message->event_key) ||
		!message_any(decoder, &members->ce_description, "description", message,
					 &message->description) ||
		!message_data(&members->ce_data, "data", message))
		return;
	if (message_is_present(&members->time) &&
		!message_time(&members->time, "time", message))
		return;
	if (message->event_type.len == 0 || id.len == 0)
	{
		message_reject_member(message, STATE_INVALID_MESSAGE,
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
	if (!message_header_text(input, "ce_type", message, &message->event_type) ||
		!message_header_text(input, "ce_subject", message, &message->event_key) ||
		!message_header_text(input, "ce_description", message,
							 &message->description) ||
		!message_header_text(input, "ce_time", message, &time))
		return;
	if (message->event_type.len == 0)
	{
		message_reject_member(message, STATE_INVALID_MESSAGE, "ce_type", "is empty");
		return;
	}
	if (time.data != NULL)
	{
		message->has_time = message_parse_time(time.data, time.len,
											   &message->occurred_on);
		if (!message->has_time)
		{
			message_reject_value(message, STATE_INVALID_TIME, "ce_time",
								 "is not an ISO 8601 date and time",
								 time.data, time.len);
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
			message_reject_scan(message, input, &scanner);
			return;
		}
		if (!message_data(&value, "data", message))
			return;
	}
	describe(decoder, message);
	message->kind = MESSAGE_EVENT;
}

/* What headers say about the id comes before what the value says. */
static bool
decode_header_id(const MessageInput *input, Message *message)
{
	const MessageHeader *header = message_find_header(input, "ce_id");

	/* An empty one would be the same id for all. */
	if (header != NULL && header->value_len > 0)
	{
		message->has_id = message_parse_uuid(header->value, header->value_len,
											 message->id);
		if (!message->has_id &&
			(!message_header_text(input, "ce_id", message, &message->ce_id) ||
			 !message_header_text(input, "ce_source", message, &message->ce_source)))
			return false;
	}
	if (!message->has_id)
	{
		header = message_find_header(input, "id");
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
	if (!message_reserve(decoder, input))
		return false;

	/* No broker has messages that large. */
	if (input->value_len >= 0x7fffffff)
	{
		message_reject(message, STATE_INVALID_MESSAGE, "the message is too large");
		return true;
	}
	if (input->n_headers > MESSAGE_MAX_HEADERS)
	{
		message_reject(message, STATE_INVALID_MESSAGE,
					   "the message has more than 256 headers");
		return true;
	}
	if (!decode_header_id(input, message))
		return true;

	if (!structured && message_find_header(input, "ce_type") != NULL)
		decode_binary(decoder, input, message);
	else if (input->value != NULL)
	{
		json_scan_init(&scanner, input->value, input->value_len);
		if (!json_scan_object(&scanner))
		{
			JsonSpan	value;

			if (!json_scan_value(&scanner, &value) ||
				!json_scan_at_end(&scanner))
				message_reject_scan(message, input, &scanner);
			else if (value.type != 'n')
				message_reject_no_object(message, &value);
		}
		else
		{
			memset(&members, 0, sizeof(members));
			if (!find_members(decoder, &scanner, &members) ||
				!json_scan_at_end(&scanner))
				message_reject_scan(message, input, &scanner);
			else if (structured ||
					 (members.specversion.start != NULL &&
					  members.event_type.start == NULL))
				decode_structured(decoder, &members, message);
			else
				decode_envelope(decoder, input, &members, message);
		}
	}

	if (message->kind == MESSAGE_EVENT)
	{
		/* The record's own key, where the value names none. */
		if (message->event_key.data == NULL && input->key != NULL &&
			message_valid_text(input->key, input->key_len))
		{
			message->event_key.data = input->key;
			message->event_key.len = input->key_len;
		}
		message_headers(decoder, input, message, &message->headers);
	}
	if (message_overrun(decoder))
		message_reject(message, STATE_INVALID_MESSAGE,
					   "the message needs more memory than was made ready for it");
	return true;
}
