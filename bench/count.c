/*-------------------------------------------------------------------------
 *
 * count.c
 *	  Reads a topic from its beginning with read_committed until it has seen so
 *	  many events of one type, and says when.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Usage: count -b BROKERS -n EVENTS [-t TOPIC] [-e EVENT_TYPE] [-T SECONDS]
 *
 * Prints "ready" when it reads, and at the end
 *	 result first EPOCH_SECONDS	wall clock time at which the first one arrived
 *	 result last EPOCH_SECONDS	and the last one
 *	 result bytes NUMBER		of their values, on average
 * Exit code 1: they did not arrive within SECONDS (120).
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

int
main(int argc, char **argv)
{
	const char *brokers = NULL;
	const char *topic = "car-shop-reported-events";
	const char *event_type = "CarAdded";
	int64_t		wanted = 0;
	double		patience = 120;
	char		begin[128];
	size_t		begin_len;
	int64_t		seen = 0;
	int64_t		bytes = 0;
	int64_t		deadline;
	rd_kafka_t *reader;
	struct timespec first = {0};
	struct timespec last;
	int			option;

	while ((option = getopt(argc, argv, "b:n:t:e:T:")) != -1)
	{
		if (option == 'b')
			brokers = optarg;
		else if (option == 'n')
			wanted = atoll(optarg);
		else if (option == 't')
			topic = optarg;
		else if (option == 'e')
			event_type = optarg;
		else if (option == 'T')
			patience = atof(optarg);
		else
			return 2;
	}
	if (brokers == NULL || wanted < 1)
	{
		fprintf(stderr, "usage: count -b BROKERS -n EVENTS\n");
		return 2;
	}
	snprintf(begin, sizeof(begin), "{\"EventType\":\"%s\"", event_type);
	begin_len = strlen(begin);

	reader = reader_open(brokers, topic, true);
	puts("ready");
	fflush(stdout);
	deadline = now_us() + (int64_t) (patience * 1e6);
	while (seen < wanted)
	{
		rd_kafka_message_t *message = reader_next(reader, 100);

		if (now_us() > deadline)
			fail("only %lld of %lld events have arrived", (long long) seen, (long long) wanted);
		if (message == NULL)
			continue;
		if (message->len > begin_len && memcmp(message->payload, begin, begin_len) == 0)
		{
			if (seen++ == 0)
				clock_gettime(CLOCK_REALTIME, &first);
			bytes += (int64_t) message->len;
		}
		rd_kafka_message_destroy(message);
	}
	clock_gettime(CLOCK_REALTIME, &last);
	printf("result first %lld.%06ld\n", (long long) first.tv_sec, first.tv_nsec / 1000);
	printf("result last %lld.%06ld\n", (long long) last.tv_sec, last.tv_nsec / 1000);
	printf("result bytes %lld\n", (long long) (bytes / seen));
	rd_kafka_consumer_close(reader);
	rd_kafka_destroy(reader);
	return 0;
}
