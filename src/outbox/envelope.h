/*-------------------------------------------------------------------------
 *
 * envelope.h
 *	  From an event to what goes onto the wire (README, "What goes onto
 *	  the wire").
 *
 * Plain C11, no postgres.h.  Texts are UTF-8 and need not end in NUL; a NULL
 * pointer means the value is absent.  The result lives in a buffer that the
 * caller keeps and reuses.
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
 * The message's value into buffer (emptied first).  False: the message has no
 * value (a tombstone).  Check buffer->failed.
 */
extern bool wire_value(WireBuffer *buffer, const WireEvent *event);

/* "envelope" … "raw"; false when the word is unknown. */
extern bool wire_format_parse(const char *word, size_t len,
							  EventFormat *format);

#endif							/* OUTBOX_ENVELOPE_H */
