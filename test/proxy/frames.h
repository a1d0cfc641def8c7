/*-------------------------------------------------------------------------
 *
 * frames.h
 *	  Buffers of bytes under way, and the frames at their heads.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_LIMIT		(256 * 1024 * 1024)

/* Bytes at the end of a buffer that are under way until then. */
typedef struct Chunk
{
	int64_t		due;			/* ms of the monotonic clock */
	size_t		len;
	struct Chunk *next;
} Chunk;

typedef struct Buffer
{
	char	   *data;
	size_t		start;			/* first byte not consumed */
	size_t		end;
	size_t		size;
	size_t		held;			/* of them under way: the chunks' sum */
	Chunk	   *first;
	Chunk	   *last;
} Buffer;

extern void die(const char *what);

extern size_t buffer_len(const Buffer *buffer);
extern void buffer_add(Buffer *buffer, const char *data, size_t len);

/* Add bytes that buffer_write leaves alone until buffer_release at that time. */
extern void buffer_add_later(Buffer *buffer, const char *data, size_t len,
							 int64_t due);
extern void buffer_release(Buffer *buffer, int64_t now);

/* How many bytes buffer_write may write; when more are due, or INT64_MAX. */
extern size_t buffer_ready(const Buffer *buffer);
extern int64_t buffer_due(const Buffer *buffer);

extern void buffer_take(Buffer *buffer, size_t len);
extern void buffer_free(Buffer *buffer);

/* False when the other side has closed. */
extern bool buffer_read(Buffer *buffer, int fd);
extern bool buffer_write(Buffer *buffer, int fd);

extern int16_t get_int16(const char *at);
extern int32_t get_int32(const char *at);

/*
 * The whole frame at the head of a buffer, with its length; NULL when it has
 * not arrived completely.  A size that is no frame's sets *broken.
 */
extern const char *frame_at_head(const Buffer *buffer, size_t least,
								 size_t *len, bool *broken);

#endif							/* FRAMES_H */
