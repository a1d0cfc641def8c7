/*-------------------------------------------------------------------------
 *
 * message.h
 *	  Decoding one Kafka message into the fields of a domain event.
 *
 * Plain C11: no postgres.h, no librdkafka, so that it runs in unit tests and
 * under a fuzzer.  What is accepted stands in INTERFACE, section 3.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
	char		reason[256];
	char		sqlstate[6];

	MessageText event_type;
	MessageText description;
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
