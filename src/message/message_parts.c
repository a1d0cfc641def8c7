/*-------------------------------------------------------------------------
 *
 * message_parts.c
 *	  Parts of a message: members, headers, and why they are refused.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Strings that hold escapes are unescaped into scratch memory; others are taken
 * as they are.
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

#include "message/message_parts.h"

/*
 * What a header is written as, at most: JSON text with escapes, quotes, colon
 * and comma; and once more as it is, in a description made of attributes.
 */
#define HEADER_SIZE(len)	((len) * 7 + 16)

/* A time with every character written as an escape, and some that are zeros. */
#define TIME_MAX			512

struct MessageDecoder
{
	char	   *scratch;
	size_t		size;
	size_t		used;
	bool		overrun;		/* message_reserve() made too little room */
};

MessageDecoder *
message_decoder_new(void)
{
	return calloc(1, sizeof(MessageDecoder));
}

void
message_decoder_free(MessageDecoder *decoder)
{
	if (decoder == NULL)
		return;
	free(decoder->scratch);
	free(decoder);
}

/*
 * Room for everything that decoding this message can write: the texts of the
 * value, once unescaped and once in a description, and the headers.
 */
bool
message_reserve(MessageDecoder *decoder, const MessageInput *input)
{
	size_t		need = 2 * input->value_len + 64;
	int			i;

	for (i = 0; i < input->n_headers; i++)
		need += HEADER_SIZE(strlen(input->headers[i].name) +
							input->headers[i].value_len);

	decoder->used = 0;
	decoder->overrun = false;
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

void
message_scratch(MessageDecoder *decoder, const char *data, size_t len)
{
	/* Anybody's message must not write beyond it, whatever we overlooked. */
	if (len > decoder->size - decoder->used)
	{
		decoder->overrun = true;
		return;
	}
	memcpy(decoder->scratch + decoder->used, data, len);
	decoder->used += len;
}

bool
message_overrun(const MessageDecoder *decoder)
{
	return decoder->overrun;
}

void
message_reject(Message *message, const char *sqlstate, const char *reason)
{
	message->kind = MESSAGE_REJECT;
	memcpy(message->sqlstate, sqlstate, sizeof(message->sqlstate));
	if (reason != message->reason)
		snprintf(message->reason, sizeof(message->reason), "%s", reason);
}

void
message_reject_member(Message *message, const char *sqlstate, const char *name,
					  const char *what)
{
	snprintf(message->reason, sizeof(message->reason),
			 "\"%s\" %s", name, what);
	message_reject(message, sqlstate, message->reason);
}

char *
message_scratch_end(MessageDecoder *decoder)
{
	return decoder->scratch + decoder->used;
}

void
message_scratch_reset(MessageDecoder *decoder, char *end)
{
	decoder->used = (size_t) (end - decoder->scratch);
}

const MessageHeader *
message_find_header(const MessageInput *input, const char *name)
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

const MessageHeader *
message_content_type(const MessageInput *input)
{
	int			i;

	for (i = input->n_headers - 1; i >= 0; i--)
	{
		if (strcasecmp(input->headers[i].name, "content-type") == 0 &&
			input->headers[i].value != NULL)
			return &input->headers[i];
	}
	return NULL;
}

bool
message_valid_text(const char *data, size_t len)
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
bool
message_header_text(const MessageInput *input, const char *name, Message *message,
					MessageText *text)
{
	const MessageHeader *header = message_find_header(input, name);

	if (header == NULL)
		return true;
	if (!message_valid_text(header->value, header->value_len))
	{
		message_reject_member(message, STATE_UNSTORABLE, name,
							  "header is not UTF-8 text");
		return false;
	}
	text->data = header->value;
	text->len = header->value_len;
	return true;
}

/* ------------------------------------------------------------------------
 * Single members
 * ------------------------------------------------------------------------
 */

/* The text of a JSON string; span->type is '"' and the scanner accepted it. */
void
message_string(MessageDecoder *decoder, const JsonSpan *span, MessageText *text)
{
	if (!span->escapes)
	{
		text->data = span->start + 1;
		text->len = span->len - 2;
		return;
	}
	if (span->len > decoder->size - decoder->used)
	{
		decoder->overrun = true;
		text->data = "";
		text->len = 0;
		return;
	}
	text->data = decoder->scratch + decoder->used;
	text->len = json_span_text(span, decoder->scratch + decoder->used);
	decoder->used += text->len;
}

bool
message_is_present(const JsonSpan *span)
{
	return span->start != NULL && span->type != 'n';
}

/* A member that must be a non-empty string. */
bool
message_text(MessageDecoder *decoder, const JsonSpan *span, const char *name,
			 Message *message, MessageText *text)
{
	if (span->start == NULL)
	{
		message_reject_member(message, STATE_INVALID_MESSAGE, name, "is missing");
		return false;
	}
	if (span->type != '"')
	{
		message_reject_value(message, STATE_INVALID_MESSAGE, name, "is not a string",
							 span->start, span->len);
		return false;
	}
	if (span->unstorable)
	{
		message_reject_member(message, STATE_UNSTORABLE, name,
							  "holds \\u0000 or half a surrogate pair, which PostgreSQL cannot store");
		return false;
	}
	message_string(decoder, span, text);
	return true;
}

/* An optional member of any type: a string's text, or the JSON text. */
bool
message_any(MessageDecoder *decoder, const JsonSpan *span, const char *name,
			Message *message, MessageText *text)
{
	if (!message_is_present(span))
		return true;
	if (span->type == '"')
		return message_text(decoder, span, name, message, text);
	text->data = span->start;
	text->len = span->len;
	return true;
}

bool
message_time(const JsonSpan *span, const char *name, Message *message)
{
	if (span->start == NULL)
	{
		message_reject_member(message, STATE_INVALID_MESSAGE, name, "is missing");
		return false;
	}
	/* Escapes in a time ("\u002B" for the plus sign) are legal JSON. */
	if (span->type == '"')
	{
		char		plain[TIME_MAX];

		if (!span->escapes)
			message->has_time = message_parse_time(span->start + 1, span->len - 2,
												   &message->occurred_on);
		else if (span->len <= sizeof(plain))
			message->has_time = message_parse_time(plain, json_span_text(span, plain),
												   &message->occurred_on);
	}
	if (!message->has_time)
		message_reject_value(message, STATE_INVALID_TIME, name,
							 "is not an ISO 8601 date and time",
							 span->start, span->len);
	return message->has_time;
}

bool
message_data(const JsonSpan *span, const char *name, Message *message)
{
	if (!message_is_present(span))
		return true;
	if (span->unstorable)
	{
		message_reject_member(message, STATE_UNSTORABLE, name,
							  "holds \\u0000 or half a surrogate pair, which PostgreSQL cannot store");
		return false;
	}
	message->data.data = span->start;
	message->data.len = span->len;
	return true;
}

/* ------------------------------------------------------------------------
 * Headers
 * ------------------------------------------------------------------------
 */

/* As a JSON string; what is no text as \x and hexadecimal digits. */
static void
scratch_add_json(MessageDecoder *decoder, const char *data, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	bool		text = message_valid_text(data, len);
	size_t		i;

	message_scratch(decoder, "\"", 1);
	if (!text)
		message_scratch(decoder, "\\\\x", 3);	/* bytea's form */
	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) data[i];
		char		escape[6] = {'\\', 'u', '0', '0', 0, 0};

		if (!text)
		{
			message_scratch(decoder, &hex[c >> 4], 1);
			message_scratch(decoder, &hex[c & 15], 1);
		}
		else if (c == '"' || c == '\\')
		{
			message_scratch(decoder, "\\", 1);
			message_scratch(decoder, &data[i], 1);
		}
		else if (c < 0x20)
		{
			escape[4] = hex[c >> 4];
			escape[5] = hex[c & 15];
			message_scratch(decoder, escape, 6);
		}
		else
			message_scratch(decoder, &data[i], 1);
	}
	message_scratch(decoder, "\"", 1);
}

/*
 * All headers as one object.  The header "id" is left out where it only says
 * what the event's id says: that is the one header of every event the relay
 * sends, and repeating it would cost as much as the event's other columns.
 */
void
message_headers(MessageDecoder *decoder, const MessageInput *input,
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

		/*
		 * jsonb takes the last of equal names, also where that one has no
		 * value.
		 */
		if (header->value == NULL &&
			message_find_header(input, header->name) != NULL)
			continue;
		message_scratch(decoder, n++ == 0 ? "{" : ",", 1);
		scratch_add_json(decoder, header->name, strlen(header->name));
		message_scratch(decoder, ":", 1);
		if (header->value == NULL)
			message_scratch(decoder, "null", 4);
		else
			scratch_add_json(decoder, header->value, header->value_len);
	}
	if (n == 0 || decoder->overrun)
	{
		json->data = NULL;
		json->len = 0;
		return;
	}
	message_scratch(decoder, "}", 1);
	json->data = decoder->scratch + start;
	json->len = decoder->used - start;
}

bool
message_headers_json(MessageDecoder *decoder, const MessageInput *input,
					 MessageText *json)
{
	if (!message_reserve(decoder, input))
		return false;
	message_headers(decoder, input, NULL, json);
	return true;
}
