/*-------------------------------------------------------------------------
 *
 * event_id.c
 *	  The id of an event: the key under which it is counted once.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * SHA-1 is here because UUIDv5 is defined by it, not for secrecy.  PostgreSQL
 * has one too, but behind its memory contexts and OpenSSL's start-up cost; a
 * message without an id needs it once, in a file that tests can link alone.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "message/event_id.h"

typedef struct Sha1
{
	uint32_t	state[5];
	uint64_t	len;
	unsigned char block[64];
	size_t		used;
} Sha1;

/* Namespaces: random, fixed for ever. */
static const unsigned char source_namespace[16] = {
	0x6f, 0x0b, 0x1c, 0x52, 0x3e, 0x0d, 0x4d, 0x7b,
	0x9a, 0x44, 0x0e, 0x2b, 0x5d, 0xc7, 0x18, 0x93
};
static const unsigned char place_namespace[16] = {
	0xb1, 0x97, 0x24, 0xe8, 0x5c, 0xa6, 0x40, 0x1f,
	0x8d, 0x3b, 0x72, 0xf5, 0x06, 0x9e, 0xd1, 0x4a
};

static uint32_t
rotate_left(uint32_t value, int bits)
{
	return value << bits | value >> (32 - bits);
}

static void
sha1_block(Sha1 *sha, const unsigned char *block)
{
	uint32_t	w[80];
	uint32_t	a = sha->state[0];
	uint32_t	b = sha->state[1];
	uint32_t	c = sha->state[2];
	uint32_t	d = sha->state[3];
	uint32_t	e = sha->state[4];
	int			i;

	for (i = 0; i < 16; i++)
		w[i] = (uint32_t) block[i * 4] << 24 |
			(uint32_t) block[i * 4 + 1] << 16 |
			(uint32_t) block[i * 4 + 2] << 8 | block[i * 4 + 3];
	for (; i < 80; i++)
		w[i] = rotate_left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);

	for (i = 0; i < 80; i++)
	{
		uint32_t	f;
		uint32_t	k;
		uint32_t	next;

		if (i < 20)
		{
			f = (b & c) | (~b & d);
			k = 0x5A827999;
		}
		else if (i < 40)
		{
			f = b ^ c ^ d;
			k = 0x6ED9EBA1;
		}
		else if (i < 60)
		{
			f = (b & c) | (b & d) | (c & d);
			k = 0x8F1BBCDC;
		}
		else
		{
			f = b ^ c ^ d;
			k = 0xCA62C1D6;
		}
		next = rotate_left(a, 5) + f + e + k + w[i];
		e = d;
		d = c;
		c = rotate_left(b, 30);
		b = a;
		a = next;
	}
	sha->state[0] += a;
	sha->state[1] += b;
	sha->state[2] += c;
	sha->state[3] += d;
	sha->state[4] += e;
}

static void
sha1_start(Sha1 *sha)
{
	static const uint32_t initial[5] = {
		0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0
	};

	memset(sha, 0, sizeof(*sha));
	memcpy(sha->state, initial, sizeof(initial));
}

static void
sha1_add(Sha1 *sha, const void *data, size_t len)
{
	const unsigned char *p = data;

	sha->len += len;
	while (len > 0)
	{
		size_t		room = sizeof(sha->block) - sha->used;
		size_t		n = len < room ? len : room;

		memcpy(sha->block + sha->used, p, n);
		sha->used += n;
		p += n;
		len -= n;
		if (sha->used == sizeof(sha->block))
		{
			sha1_block(sha, sha->block);
			sha->used = 0;
		}
	}
}

static void
put_be64(unsigned char *out, uint64_t value)
{
	int			i;

	for (i = 0; i < 8; i++)
		out[i] = (unsigned char) (value >> (56 - 8 * i));
}

static void
sha1_finish(Sha1 *sha, unsigned char digest[20])
{
	unsigned char length[8];
	int			i;

	put_be64(length, sha->len * 8);
	sha1_add(sha, "\x80", 1);
	while (sha->used != 56)
		sha1_add(sha, "", 1);	/* one zero byte */
	sha1_add(sha, length, 8);
	for (i = 0; i < 20; i++)
		digest[i] = (unsigned char) (sha->state[i / 4] >> (24 - 8 * (i % 4)));
}

/* ------------------------------------------------------------------------
 * Names made of fields
 * ------------------------------------------------------------------------
 */

static void
add_field(Sha1 *sha, const void *data, size_t len)
{
	unsigned char length[8];

	put_be64(length, len);
	sha1_add(sha, length, sizeof(length));
	if (len > 0)
		sha1_add(sha, data, len);
}

static void
add_number(Sha1 *sha, int64_t value)
{
	unsigned char bytes[8];

	put_be64(bytes, (uint64_t) value);
	add_field(sha, bytes, sizeof(bytes));
}

static void
finish_uuid5(Sha1 *sha, unsigned char id[16])
{
	unsigned char digest[20];

	sha1_finish(sha, digest);
	memcpy(id, digest, 16);
	id[6] = (unsigned char) ((id[6] & 0x0f) | 0x50);	/* version 5 */
	id[8] = (unsigned char) ((id[8] & 0x3f) | 0x80);	/* RFC 9562 variant */
}

void
event_id_of_place(const MessageInput *input, const MessagePlace *place,
				  unsigned char id[16])
{
	Sha1		content;
	Sha1		sha;
	unsigned char hash[20];

	sha1_start(&content);
	add_field(&content, input->key, input->key != NULL ? input->key_len : 0);
	add_field(&content, input->value,
			  input->value != NULL ? input->value_len : 0);
	sha1_finish(&content, hash);

	sha1_start(&sha);
	sha1_add(&sha, place_namespace, sizeof(place_namespace));
	add_field(&sha, place->cluster_id, strlen(place->cluster_id));
	add_field(&sha, place->topic, strlen(place->topic));
	add_number(&sha, place->partition);
	add_number(&sha, place->offset);
	add_number(&sha, place->timestamp_ms);
	add_field(&sha, hash, sizeof(hash));
	finish_uuid5(&sha, id);
}

void
event_id_choose(const Message *message, const MessageInput *input,
				const MessagePlace *place, unsigned char id[16])
{
	Sha1		sha;

	if (message->has_id)
		memcpy(id, message->id, 16);
	else if (message->ce_id.data != NULL)
	{
		sha1_start(&sha);
		sha1_add(&sha, source_namespace, sizeof(source_namespace));
		add_field(&sha, message->ce_source.data, message->ce_source.len);
		add_field(&sha, message->ce_id.data, message->ce_id.len);
		finish_uuid5(&sha, id);
	}
	else if (place->known_id != NULL)
		memcpy(id, place->known_id, 16);
	else
		event_id_of_place(input, place, id);
}
