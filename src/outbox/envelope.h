/*-------------------------------------------------------------------------
 *
 * envelope.h
 *	  From an event to what goes onto the wire (README, "What goes onto
 *	  the wire").
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11, no postgres.h.  Texts are UTF-8 and need not end in NUL; a NULL
 * pointer means the value is absent.  The result lives in a buffer that the
 * caller keeps and reuses.  All sizes are in bytes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_ENVELOPE_H
#define OUTBOX_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum EventFormat
{
	FORMAT_ENVELOPE,
	FORMAT_PAYLOAD,
	FORMAT_CLOUDEVENTS,
	FORMAT_RAW
} EventFormat;

typedef struct TextSlice
{
	const char *data;			/* NULL: absent */
	size_t		len;
} TextSlice;

typedef struct WireEvent
{
	unsigned char id[16];		/* UUID */
	int64_t		occurred_at;	/* microseconds since 1970-01-01 UTC */
	EventFormat format;
	TextSlice	type;
	TextSlice	description;
	TextSlice	key;
	TextSlice	payload;		/* JSON text; absent: null */
	TextSlice	value;			/* FORMAT_RAW: the bytes */
	const char *source;			/* CloudEvents source */
} WireEvent;

typedef struct WireBuffer
{
	char	   *data;
	size_t		len;
	size_t		size;
	bool		failed;			/* out of memory: data is not complete */
} WireBuffer;

/* A header of a message. */
typedef struct WireHeader
{
	const char *name;			/* NUL-terminated */
	const void *value;
	size_t		value_len;
} WireHeader;

/* The most headers that wire_headers makes: the event's id, traceparent, ce_*. */
#define WIRE_FORMAT_HEADERS		9

/* What an event may bring along itself: number, bytes of names and values. */
#define OUTBOX_MAX_HEADERS		64
#define OUTBOX_MAX_HEADER_BYTES	65536

/*
 * Frees the data; the buffer can be used again.  failed stays: it can be
 * asked afterwards, until wire_value begins anew.
 */
extern void wire_buffer_free(WireBuffer *buffer);

/* 36 characters and a NUL. */
extern void wire_uuid_text(const unsigned char id[16], char *text);

/* 2026-11-22T20:27:03.512756+00:00 and a NUL: at least 40 bytes. */
extern void wire_time_text(int64_t micros, char *text);

/* JSON text without white space between its tokens. */
extern void wire_append_compact_json(WireBuffer *buffer, const char *json,
									 size_t len);

/* A JSON string, quotes included. */
extern void wire_append_json_string(WireBuffer *buffer, const char *text,
									size_t len);

/*
 * Text as part of a URI (RFC 3986): whatever may not stand there is written as
 * %XX, byte by byte.  reference: the text is a URI reference already, so what
 * separates its parts, and %, stays; otherwise it is one name within a URI.
 */
extern void wire_append_uri(WireBuffer *buffer, const char *text, size_t len,
							bool reference);

/*
 * The message's value into buffer (emptied first).  False: the message has no
 * value (a tombstone).  Check buffer->failed.
 */
extern bool wire_value(WireBuffer *buffer, const WireEvent *event);

/*
 * The headers that are not the event's own, into WIRE_FORMAT_HEADERS places;
 * answers how many.  They point into event, traceparent (absent: none) and
 * texts, which must live as long.
 */
typedef struct WireHeaderTexts
{
	char		id[40];
	char		time[40];
} WireHeaderTexts;

extern int	wire_headers(const WireEvent *event, TextSlice traceparent,
						 WireHeader *headers, WireHeaderTexts *texts);

/*
 * What a message takes at most on its way to Kafka, as a record batch of its
 * own (format 2, kafka.apache.org/documentation/#recordbatch): this is what a
 * broker compares with max.message.bytes.  The batch's header has 61 bytes; the
 * record adds its length, attributes, differences of time and offset and the
 * lengths of key, value and headers (36 at most), a header two lengths (10).
 * n_headers counts all headers, header_bytes their names and values; an absent
 * key or value has length 0.  Compression makes it less, never more.
 */
extern size_t wire_record_bytes(size_t key_len, size_t value_len,
								int n_headers, size_t header_bytes);

/* "envelope" … "raw"; false when the word is unknown. */
extern bool wire_format_parse(const char *word, size_t len,
							  EventFormat *format);

/* The word of a format, as wire_format_parse takes it. */
extern const char *wire_format_word(EventFormat format);

#endif							/* OUTBOX_ENVELOPE_H */
