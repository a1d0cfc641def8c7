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
#include <librdkafka/rdkafka.h>

#include "kafka/kafka.h"

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
