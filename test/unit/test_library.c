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

#include "kafka/kafka.h"
#include "tap.h"

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
	return done_testing();
}
