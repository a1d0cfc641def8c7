/*-------------------------------------------------------------------------
 *
 * message.h
 *	  Decoding one Kafka message into the fields of a domain event.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11: knows neither PostgreSQL nor librdkafka, so that it runs in unit
 * tests and under a fuzzer, and allocates nothing but the decoder.
 *
 * THE ACCEPTED LANGUAGE
 *
 * A value is JSON as RFC 8259 has it, in valid UTF-8, nested at most
 * JSON_MAX_DEPTH deep, with white space around it at most.  What is looser
 * (single quotes, NaN, comments, a byte order mark, trailing commas, raw
 * control characters) is not JSON.  Of members with equal names the last one
 * counts, as in jsonb; so does the last header of a name that has a value.
 * Escapes in names and values are decoded before anything is compared.
 *
 * Which of four shapes a message has is decided in this order:
 *
 *	1. CloudEvents structured mode, named: the header content-type begins with
 *	   "application/cloudevents+json" (without regard to case).
 *	2. CloudEvents binary mode: there is a header ce_type.
 *	3. CloudEvents structured mode, unnamed: an object with a member
 *	   "specversion" and none that is called EventType.
 *	4. The car shop's envelope: any other object.
 *
 * Envelope.  Member names are compared without case (ASCII):
 *
 *	EventType			a string, not empty
 *	EventDescription	a string, may be empty; or null: the event has none
 *	OccuredOn			a time, also spelled OccurredOn
 *	EventId				optional; counts where it is a string that is a UUID
 *	Key					optional; a string's text, or any other JSON as its text
 *	Data				optional; any JSON, kept as it was written
 *
 * Structured mode.  Attribute names are compared exactly: type, id and source
 * are strings (type and id not empty); time, subject, description and data are
 * optional; data_base64 is refused.
 *
 * Binary mode.  Attributes are the headers ce_type (not empty), ce_id,
 * ce_source, ce_subject, ce_time, ce_description, in UTF-8.  The value is data
 * alone; a record without a value is an event without data (a delete).
 *
 * A CloudEvent without a time has none (has_time is false: the caller takes the
 * record's timestamp), and one without a description is described as "type",
 * or "type subject".  A null stands for a member that is not there, but not for
 * one that must be (the description apart).  An empty ce_id is none.  An event that names no key has the record's key, where
 * that is text.  Other members are ignored.  All headers are kept.
 *
 * A time is YYYY-MM-DD, or that with "T", "t" or a space and hh:mm, hh:mm:ss or
 * hh:mm:ss.fff with one fractional digit or more, of which .NET writes seven:
 * rounded to microseconds.  Then "Z", "+hh:mm", "+hhmm", "+hh" or the like with a
 * minus; nothing means UTC.  There are no leap seconds and no 24:00.
 *
 * Skipped (MESSAGE_SKIP): a record without a value and the value null, unless
 * binary mode makes it an event.
 *
 * Everything else is refused (MESSAGE_REJECT), with a reason for people and the
 * SQLSTATE that PostgreSQL has for the same fault, and becomes a dead letter:
 *
 *	22032	not JSON
 *	22023	JSON, but no event: no object, a member that is missing, empty or of
 *			the wrong type, binary data, a message too large, more headers
 *			than MESSAGE_MAX_HEADERS (the first of them are kept with it)
 *	22007	a time that is none
 *	22P05	text that PostgreSQL cannot store: \u0000, half a surrogate pair, or an
 *			attribute that is not UTF-8.  Where it is not kept it does no harm
 *	54001	nested more than JSON_MAX_DEPTH levels deep
 *
 * The reason also says what the message looks like (message_guess.c).
 *
 * The event's id is chosen from what is left in Message by event_id.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A message with more headers is refused, as keeping some of them would change
 * what it says.  Whoever hands over messages may leave out those beyond the
 * first one too many.
 */
#define MESSAGE_MAX_HEADERS	256

typedef struct MessageHeader
{
	const char *name;
	const void *value;			/* NULL: a header without value */
	size_t		value_len;
} MessageHeader;

typedef struct MessageInput
{
	const char *value;			/* NULL: a tombstone */
	size_t		value_len;
	const void *key;			/* NULL: no key */
	size_t		key_len;
	const MessageHeader *headers;
	int			n_headers;
} MessageInput;

/* UTF-8 text, not NUL-terminated; data is NULL when there is none. */
typedef struct MessageText
{
	const char *data;
	size_t		len;
} MessageText;

typedef enum MessageKind
{
	MESSAGE_EVENT,
	MESSAGE_SKIP,				/* tombstone or JSON null */
	MESSAGE_REJECT				/* reason and sqlstate say why */
} MessageKind;

typedef struct Message
{
	MessageKind kind;
	char		reason[320];	/* in ASCII */
	char		sqlstate[6];

	MessageText event_type;
	MessageText description;	/* none: null */
	MessageText event_key;
	MessageText data;			/* JSON text exactly as it was sent */
	MessageText headers;		/* JSON object of strings; none if empty */

	bool		has_time;
	int64_t		occurred_on;	/* microseconds since 1970-01-01 UTC */

	/* What the id rule (event_id.h) chooses from. */
	bool		has_id;
	unsigned char id[16];
	MessageText ce_id;			/* a CloudEvents id that is no UUID */
	MessageText ce_source;
} Message;

typedef struct MessageDecoder MessageDecoder;

extern MessageDecoder *message_decoder_new(void);
extern void message_decoder_free(MessageDecoder *decoder);

/*
 * Decode one message.  The texts of the result point into the input or into
 * the decoder and stay valid until its next use.  False: out of memory.
 */
extern bool message_decode(MessageDecoder *decoder, const MessageInput *input,
						   Message *message);

/* The headers alone, for a message that is kept in the dead letters. */
extern bool message_headers_json(MessageDecoder *decoder,
								 const MessageInput *input, MessageText *json);

/* Helpers, exposed for tests. */
extern bool message_parse_time(const char *text, size_t len, int64_t *micros);
extern bool message_parse_uuid(const char *text, size_t len,
							   unsigned char uuid[16]);

#endif							/* MESSAGE_H */
