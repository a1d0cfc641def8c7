/*-------------------------------------------------------------------------
 *
 * test_partition.c
 *	  The partition for a key is the one that the Java client chooses.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The hashes are those of Kafka's own test (UtilsTest.testMurmur2).
 *
 *-------------------------------------------------------------------------
 */
#include "kafka/internal.h"
#include "tap.h"

typedef struct Vector
{
	const char *key;
	int32_t		hash;
} Vector;

static const Vector vectors[] = {
	{"21", -973932308},
	{"foobar", -790332482},
	{"a-little-bit-long-string", -985981536},
	{"a-little-bit-longer-string", -1486304829},
	{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
	{"abc", 479470107}
};

int
main(void)
{
	static const unsigned char binary[] = {0xff, 0x00, 0x80, 0x7f, 0xfe};
	size_t		i;

	for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
	{
		const Vector *vector = &vectors[i];
		size_t		len = strlen(vector->key);

		is_int((int32_t) kafka_murmur2(vector->key, len), vector->hash,
			   vector->key);
		is_int(kafka_partition_for_key(vector->key, len, 12),
			   (vector->hash & 0x7fffffff) % 12, "in 12 partitions");
		is_int(kafka_partition_for_key(vector->key, len, 1), 0,
			   "in one partition");

		/* librdkafka's own, which is another implementation. */
		is_int(kafka_partition_for_key(vector->key, len, 7),
			   rd_kafka_msg_partitioner_murmur2(NULL, vector->key, len, 7,
												NULL, NULL),
			   "as librdkafka says");
	}
	is_int(kafka_partition_for_key(binary, sizeof(binary), 64),
		   rd_kafka_msg_partitioner_murmur2(NULL, binary, sizeof(binary), 64,
											NULL, NULL),
		   "bytes over 127");
	is_int(kafka_partition_for_key("", 0, 64),
		   rd_kafka_msg_partitioner_murmur2(NULL, "", 0, 64, NULL, NULL),
		   "the empty key");
	return done_testing();
}
