/*-------------------------------------------------------------------------
 *
 * partition.c
 *	  The partition for a key, as the Java client chooses it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Threads: any; there is no state.
 *
 *-------------------------------------------------------------------------
 */
#include "kafka/internal.h"

/* Austin Appleby's murmur2 with the seed and the reading order of Java's. */
uint32_t
kafka_murmur2(const void *key, size_t len)
{
	const unsigned char *p = key;
	const uint32_t m = 0x5bd1e995;
	uint32_t	h = 0x9747b28c ^ (uint32_t) len;

	for (; len >= 4; len -= 4, p += 4)
	{
		uint32_t	k = (uint32_t) p[0] | (uint32_t) p[1] << 8 |
		(uint32_t) p[2] << 16 | (uint32_t) p[3] << 24;

		k *= m;
		k ^= k >> 24;
		k *= m;
		h *= m;
		h ^= k;
	}
	if (len >= 3)
		h ^= (uint32_t) p[2] << 16;
	if (len >= 2)
		h ^= (uint32_t) p[1] << 8;
	if (len >= 1)
	{
		h ^= (uint32_t) p[0];
		h *= m;
	}
	h ^= h >> 13;
	h *= m;
	h ^= h >> 15;
	return h;
}

int
kafka_partition_for_key(const void *key, size_t key_len, int partitions)
{
	if (partitions <= 1)
		return 0;
	return (int) ((kafka_murmur2(key, key_len) & 0x7fffffff) %
				  (uint32_t) partitions);
}
