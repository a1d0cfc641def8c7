/*-------------------------------------------------------------------------
 *
 * fuzz_message.c
 *	  Whatever stands in a Kafka message: what the decoder makes of it keeps its
 *	  promises.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * libFuzzer calls LLVMFuzzerTestOneInput(); packet.h says how bytes become a
 * message.  Beside what the sanitizers see (every text is read, and the message
 * lies in memory of its exact size), this must hold:
 *
 *	- each message is an event, skipped, or refused with a known SQLSTATE and a
 *	  reason in printable ASCII
 *	- a second decoder, of its own memory, says the same
 *	- texts are UTF-8 without NUL; data and headers are what jsonb takes
 *	- what PostgreSQL's parser takes for JSON is not refused as if it were none,
 *	  and what is skipped is a tombstone or null
 *	- an id is chosen, the same each time
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message/event_id.h"
#include "message/json_scan.h"
#include "message/message.h"
#include "oracle.h"
#include "packet.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);

#define MUST(holds) \
	do { if (!(holds)) broken(#holds, __LINE__); } while (0)

typedef struct Packet
{
	MessageInput input;
	MessageHeader headers[PACKET_MAX_HEADERS];
	void	   *owned[2 * PACKET_MAX_HEADERS + 2];
	int			n_owned;
} Packet;

static const Message *seen;		/* for broken() */

static void
broken(const char *what, int line)
{
	fprintf(stderr, "fuzz_message.c:%d: this does not hold: %s\n", line, what);
	if (seen != NULL)
		fprintf(stderr, "kind %d, %s: %s\n", seen->kind, seen->sqlstate, seen->reason);
	abort();
}

/* ------------------------------------------------------------------------
 * From bytes to a message
 * ------------------------------------------------------------------------
 */

static size_t
take_number(const uint8_t * *p, const uint8_t * end, int bytes)
{
	size_t		value = 0;

	for (int i = 0; i < bytes && *p < end; i++)
		value |= (size_t) *(*p)++ << (8 * i);
	return value;
}

/* In memory of its exact size. */
static char *
take_bytes(Packet *packet, const uint8_t * *p, const uint8_t * end, size_t *len,
		   bool terminate)
{
	char	   *copy;

	if (*len > (size_t) (end - *p))
		*len = (size_t) (end - *p);
	copy = malloc(*len + (terminate ? 1 : 0) + (*len == 0));
	if (copy == NULL)
		abort();
	memcpy(copy, *p, *len);
	if (terminate)
		copy[*len] = '\0';
	*p += *len;
	packet->owned[packet->n_owned++] = copy;
	return copy;
}

static void
unpack(Packet *packet, const uint8_t * data, size_t size)
{
	const		uint8_t *p = data;
	const		uint8_t *end = data + size;
	size_t		flags = take_number(&p, end, 1);
	int			n = (int) take_number(&p, end, 1);
	size_t		len;

	packet->n_owned = 0;
	memset(&packet->input, 0, sizeof(packet->input));
	/* Few, as each costs time; or more than are allowed. */
	n = (n == 0xff) ? MESSAGE_MAX_HEADERS + 1 : n % 16;
	for (int i = 0; i < n; i++)
	{
		MessageHeader *header = &packet->headers[i];
		size_t		number = take_number(&p, end, 1);

		memset(header, 0, sizeof(*header));
		if (number == PACKET_NAMED)
		{
			len = take_number(&p, end, 1);
			header->name = take_bytes(packet, &p, end, &len, true);
		}
		else
			header->name = packet_names[number % PACKET_NAMES];
		len = take_number(&p, end, 2);
		if (len != PACKET_NULL)
		{
			header->value = take_bytes(packet, &p, end, &len, false);
			header->value_len = len;
		}
	}
	packet->input.headers = packet->headers;
	packet->input.n_headers = n;
	if (flags & PACKET_KEY)
	{
		len = take_number(&p, end, 1);
		packet->input.key = take_bytes(packet, &p, end, &len, false);
		packet->input.key_len = len;
	}
	if (flags & PACKET_VALUE)
	{
		len = (size_t) (end - p);
		packet->input.value = take_bytes(packet, &p, end, &len, false);
		packet->input.value_len = len;
	}
}

/* ------------------------------------------------------------------------
 * What must hold
 * ------------------------------------------------------------------------
 */

static bool
is_text(const char *data, size_t len)
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

static bool
good_text(const MessageText *text)
{
	return text->data == NULL ? text->len == 0 : is_text(text->data, text->len);
}

static bool
good_json(const MessageText *text)
{
	return good_text(text) &&
		(text->data == NULL || oracle_json(text->data, text->len, true));
}

static bool
same_text(const MessageText *a, const MessageText *b)
{
	return (a->data == NULL) == (b->data == NULL) && a->len == b->len &&
		(a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static bool
same_message(const Message *a, const Message *b)
{
	return a->kind == b->kind && strcmp(a->reason, b->reason) == 0 &&
		strcmp(a->sqlstate, b->sqlstate) == 0 &&
		same_text(&a->event_type, &b->event_type) &&
		same_text(&a->description, &b->description) &&
		same_text(&a->event_key, &b->event_key) &&
		same_text(&a->data, &b->data) && same_text(&a->headers, &b->headers) &&
		a->has_time == b->has_time && a->occurred_on == b->occurred_on &&
		a->has_id == b->has_id && memcmp(a->id, b->id, sizeof(a->id)) == 0 &&
		same_text(&a->ce_id, &b->ce_id) && same_text(&a->ce_source, &b->ce_source);
}

static void
check_event(const MessageInput *input, const Message *message)
{
	const int64_t micros = INT64_C(1000000);
	MessagePlace place = {"cluster", "topic", 1, 42, INT64_C(1795379223512), NULL};
	unsigned char ids[2][16];

	MUST(message->reason[0] == '\0' && message->sqlstate[0] == '\0');
	MUST(message->event_type.len > 0 && good_text(&message->event_type));
	MUST(good_text(&message->description));
	MUST(good_text(&message->event_key));
	MUST(good_text(&message->ce_id) && good_text(&message->ce_source));
	MUST(good_json(&message->data));
	MUST(good_json(&message->headers));
	MUST(message->headers.data == NULL || message->headers.data[0] == '{');
	/* The years 1 to 9999, by an offset of a day at most. */
	MUST(!message->has_time ||
		 (message->occurred_on >= INT64_C(-62135683200) * micros &&
		  message->occurred_on <= INT64_C(253402387200) * micros));
	MUST(!message->has_id || message->ce_id.data == NULL);
	for (int i = 0; i < 2; i++)
		event_id_choose(message, input, &place, ids[i]);
	MUST(memcmp(ids[0], ids[1], 16) == 0);
}

static void
check_reject(MessageDecoder *decoder, const MessageInput *input,
			 const Message *message)
{
	static const char *const states[] = {"22032", "22023", "22007", "22P05", "54001"};
	bool		known = false;
	MessageText headers;
	int			nested = 0;

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		known |= strcmp(message->sqlstate, states[i]) == 0;
	MUST(known);
	MUST(message->reason[0] != '\0' &&
		 memchr(message->reason, '\0', sizeof(message->reason)) != NULL);
	/* What message_reserve() makes is enough. */
	MUST(strncmp(message->reason, "the message needs more memory", 29) != 0);
	for (const char *p = message->reason; *p != '\0'; p++)
		MUST(*p >= 0x20 && *p <= 0x7e);

	for (size_t i = 0; i < input->value_len; i++)
		nested += input->value[i] == '[' || input->value[i] == '{';
	MUST(strcmp(message->sqlstate, "22032") != 0 || nested >= JSON_MAX_DEPTH ||
		 !is_text(input->value, input->value_len) ||
		 !oracle_json(input->value, input->value_len, false));

	MUST(message_headers_json(decoder, input, &headers));
	MUST(good_json(&headers));
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	static MessageDecoder *used = NULL;
	static Packet packet;
	MessageDecoder *fresh = message_decoder_new();
	Message		message;
	Message		again;

	if (used == NULL)
		used = message_decoder_new();
	if (used == NULL || fresh == NULL)
		abort();
	seen = NULL;
	unpack(&packet, data, size);
	MUST(message_decode(used, &packet.input, &message));
	seen = &message;
	MUST(message_decode(fresh, &packet.input, &again));
	MUST(same_message(&message, &again));

	switch (message.kind)
	{
		case MESSAGE_EVENT:
			check_event(&packet.input, &message);
			break;
		case MESSAGE_SKIP:
			MUST(packet.input.value == NULL ||
				 oracle_json(packet.input.value, packet.input.value_len, true));
			MUST(message.reason[0] == '\0');
			break;
		case MESSAGE_REJECT:
			check_reject(fresh, &packet.input, &message);
			break;
		default:
			MUST(!"a kind that there is");
	}

	for (int i = 0; i < packet.n_owned; i++)
		free(packet.owned[i]);
	message_decoder_free(fresh);
	return 0;
}
