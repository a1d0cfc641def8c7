/*-------------------------------------------------------------------------
 *
 * library.c
 *	  Which librdkafka is this, and what is wrong with it?
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The table holds what we cannot work around and what touches a promise; the
 * whole list, with what we do about each, is in doc/LIBRDKAFKA.md.  Source: the
 * library's CHANGELOG.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "kafka/internal.h"

/* librdkafka 4689: the length at which it happens depends on other strings */
#define CLIENT_ID_MOST	64

typedef struct Fault
{
	uint32_t	first;			/* version that has it first, and ... */
	uint32_t	mended;			/* ... that does not have it any more, as
								 * 0xMMmmrr */
	const char *what;			/* a sentence */
} Fault;

static const Fault faults[] = {
	{0x020a00, 0x020a01,
	"After an outage of all brokers it may ask the first addresses for ever and never return to the brokers that it knows (librdkafka 5086)."},
};

const char *
kafka_library_version(void)
{
	return rd_kafka_version_str();
}

/* 0xMMmmrrxx: the last two digits are release candidates, and ff for a release. */
uint32_t
kafka_library_number(void)
{
	return (uint32_t) rd_kafka_version() >> 8;
}

const char *
kafka_library_fault(uint32_t version)
{
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
	{
		if (version >= faults[i].first && version < faults[i].mended)
			return faults[i].what;
	}
	return NULL;
}

bool
kafka_library_may_set(uint32_t version, const char *key, const char *value, KafkaError *error)
{
	const char *why = NULL;

	if (version < 0x020101 && strcmp(key, "client.rack") == 0)
		why = "before version 2.1.1 can crash the server with it";
	else if (version < 0x020500 && strcmp(key, "client.id") == 0 &&
			 strlen(value) > CLIENT_ID_MOST)
		why = "before version 2.5.0 can crash the server with one longer than 64 bytes";
	if (why == NULL)
		return true;
	kafka_error_set(error, KAFKA_CODE_UNSUPPORTED, "property \"%s\": librdkafka %s",
					key, why);
	return false;
}
