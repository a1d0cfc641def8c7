/*-------------------------------------------------------------------------
 *
 * test_library.c
 *	  The version of librdkafka, and which versions are warned of.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>

#include "kafka/internal.h"
#include "tap.h"

/* Properties with which a version crashes are refused, and only there. */
static void
test_properties(void)
{
	KafkaError	error = {0};
	char		long_id[100];

	memset(long_id, 'c', sizeof(long_id) - 1);
	long_id[sizeof(long_id) - 1] = '\0';
	ok(!kafka_library_may_set(0x020002, "client.rack", "a", &error), "client.rack, 2.0.2");
	is_text(error.message, "property \"client.rack\": librdkafka before version 2.1.1 can crash the server with it",
			"the reason");
	ok(kafka_library_may_set(0x020101, "client.rack", "a", &error), "client.rack, 2.1.1");
	ok(kafka_library_may_set(0x020002, "client.id", "short", &error), "client.id, 2.0.2");
	ok(!kafka_library_may_set(0x020002, "client.id", long_id, &error), "a long one, 2.0.2");
	ok(kafka_library_may_set(0x020500, "client.id", long_id, &error), "a long one, 2.5.0");
	ok(kafka_library_may_set(0x020002, "linger.ms", "5", &error), "another property");
}

int
main(void)
{
	char		text[32];
	uint32_t	number = kafka_library_number();
	static const uint32_t fine[] = {
		0x020002, 0x020100, 0x020300, 0x020800, 0x020a01, 0x020b00, 0x020c00, 0x020e02
	};

	snprintf(text, sizeof(text), "%u.%u.%u", number >> 16, number >> 8 & 0xff,
			 number & 0xff);
	ok(strncmp(kafka_library_version(), text, strlen(text)) == 0,
	   "number and text agree: %s", text);
	ok(kafka_library_fault(0x020a00) != NULL, "2.10.0 is warned of");
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		ok(kafka_library_fault(fine[i]) == NULL, "%06x is not", fine[i]);
	test_properties();
	return done_testing();
}
