/*-------------------------------------------------------------------------
 *
 * frames.c
 *	  Buffers of bytes under way, and the frames at their heads.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "frames.h"

void
die(const char *what)
{
	fprintf(stderr, "kafka_proxy: %s: %s\n", what, strerror(errno));
	exit(1);
}

size_t
buffer_len(const Buffer *buffer)
{
	return buffer->end - buffer->start;
}

void
buffer_add(Buffer *buffer, const char *data, size_t len)
{
	if (buffer->start > 0 && buffer->end + len > buffer->size)
	{
		memmove(buffer->data, buffer->data + buffer->start, buffer_len(buffer));
		buffer->end -= buffer->start;
		buffer->start = 0;
	}
	if (buffer->end + len > buffer->size)
	{
		buffer->size = (buffer->end + len) * 2;
		buffer->data = realloc(buffer->data, buffer->size);
		if (buffer->data == NULL)
			die("out of memory");
	}
	memcpy(buffer->data + buffer->end, data, len);
	buffer->end += len;
}

void
buffer_add_later(Buffer *buffer, const char *data, size_t len, int64_t due)
{
	Chunk	   *chunk;

	buffer_add(buffer, data, len);
	/* nothing overtakes what is under way */
	if (buffer->last != NULL && due < buffer->last->due)
		due = buffer->last->due;
	chunk = calloc(1, sizeof(Chunk));
	if (chunk == NULL)
		die("out of memory");
	chunk->due = due;
	chunk->len = len;
	buffer->held += len;
	if (buffer->last != NULL)
		buffer->last->next = chunk;
	else
		buffer->first = chunk;
	buffer->last = chunk;
}

void
buffer_release(Buffer *buffer, int64_t now)
{
	while (buffer->first != NULL && buffer->first->due <= now)
	{
		Chunk	   *gone = buffer->first;

		buffer->first = gone->next;
		if (buffer->first == NULL)
			buffer->last = NULL;
		buffer->held -= gone->len;
		free(gone);
	}
}

size_t
buffer_ready(const Buffer *buffer)
{
	return buffer_len(buffer) - buffer->held;
}

int64_t
buffer_due(const Buffer *buffer)
{
	return buffer->first != NULL ? buffer->first->due : INT64_MAX;
}

void
buffer_take(Buffer *buffer, size_t len)
{
	buffer->start += len;
	if (buffer->start == buffer->end)
		buffer->start = buffer->end = 0;
}

void
buffer_free(Buffer *buffer)
{
	buffer_release(buffer, INT64_MAX);
	free(buffer->data);
	memset(buffer, 0, sizeof(*buffer));
}

bool
buffer_read(Buffer *buffer, int fd)
{
	char		chunk[65536];
	ssize_t		n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);

	if (n > 0)
		buffer_add(buffer, chunk, (size_t) n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

bool
buffer_write(Buffer *buffer, int fd)
{
	ssize_t		n;

	if (buffer_ready(buffer) == 0)
		return true;
	n = send(fd, buffer->data + buffer->start, buffer_ready(buffer),
			 MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		buffer_take(buffer, (size_t) n);
	return n >= 0 || errno == EAGAIN || errno == EINTR;
}

int16_t
get_int16(const char *at)
{
	uint16_t	value;

	memcpy(&value, at, sizeof(value));
	return (int16_t) ntohs(value);
}

int32_t
get_int32(const char *at)
{
	uint32_t	value;

	memcpy(&value, at, sizeof(value));
	return (int32_t) ntohl(value);
}

const char *
frame_at_head(const Buffer *buffer, size_t least, size_t *len, bool *broken)
{
	const char *head = buffer->data + buffer->start;
	int32_t		size;

	*broken = false;
	if (buffer_len(buffer) < 4)
		return NULL;
	size = get_int32(head);
	if (size < (int32_t) least || size > FRAME_LIMIT)
	{
		*broken = true;
		return NULL;
	}
	*len = (size_t) size + 4;
	return buffer_len(buffer) >= *len ? head : NULL;
}
