/*-------------------------------------------------------------------------
 *
 * test_progress.c
 *	  The progress record survives a round trip; anything else is refused.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "relay/progress.h"

#include <stdlib.h>

#include "tap.h"

int
main(void)
{
	static const char *const bad[] = {
		"", "null", "[]", "{}", "{\"lineage\":1}", "x",
		"{\"lineage\":\"l\",\"home\":\"h\",\"instance\":\"i\",\"tick\":-1,\"nonce\":\"n\",\"complete\":true,\"seq\":0,\"through\":0,\"xid\":0}",
		"{\"lineage\":\"l\",\"home\":\"h\",\"instance\":\"i\",\"tick\":\"1\",\"nonce\":\"n\",\"complete\":true,\"seq\":0,\"through\":0,\"xid\":0}",
		"{\"lineage\":\"l\",\"home\":\"h\",\"instance\":\"i\",\"tick\":1,\"nonce\":\"n\",\"complete\":1,\"seq\":0,\"through\":0,\"xid\":0}",
		"{\"lineage\":\"\xff\",\"home\":\"h\",\"instance\":\"i\",\"tick\":1,\"nonce\":\"n\",\"complete\":true,\"seq\":0,\"through\":0,\"xid\":0}",
		"{\"lineage\":\"0123456789012345678901234567890123456789\",\"home\":\"h\",\"instance\":\"i\",\"tick\":1,\"nonce\":\"n\",\"complete\":true,\"seq\":0,\"through\":0,\"xid\":0}",
		"{\"lineage\":\"l\",\"home\":\"h\",\"instance\":\"i\",\"tick\":1,\"nonce\":\"n\",\"complete\":true,\"seq\":0,\"through\":0,\"xid\":0} x"
	};
	Progress	progress = {
		.lineage = "4dfef266-79b3-42a8-b4a5-17639cf7fa7f",
		.home = "7711191312769126783/1/16384/9986706/1795401636.598297067",
		.instance = "7fa99e1f-f2bf-4d2c-b161-021da98ab985",
		.tick = INT64_C(9007199254740993),
		.nonce = "3e66cf4f-9ff9-4da0-bf77-3cac968d9d38",
		.complete = false,
		.seq = 12,
		.through = 34,
		.xid = UINT64_C(5000000000),
		.snapshot = "5000000000:5000000007:5000000000,5000000003",
		.last_seq = 56,
		.partitions = "car-shop-reported-events=3"
	};
	Progress	read;
	char	   *text = progress_encode(&progress);

	ok(text != NULL && progress_decode(&read, text, strlen(text)), "a round trip");
	ok(memcmp(&progress, &read, sizeof(read)) == 0, "every member comes back");

	/*
	 * a letter outside ASCII and an escape: every version of json-c reads
	 * them
	 */
	free(text);
	memset(progress.partitions, 0, sizeof(progress.partitions));
	strcpy(progress.partitions, "Анна \"A\"=3");
	text = progress_encode(&progress);
	ok(progress_decode(&read, text, strlen(text)) &&
	   memcmp(&progress, &read, sizeof(read)) == 0, "letters outside ASCII beside an escape");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(!progress_decode(&read, bad[i], strlen(bad[i])), "refused: %.40s", bad[i]);
	for (size_t len = 0; len < strlen(text); len++)
		if (progress_decode(&read, text, len))
			ok(false, "cut at %zu is taken", len);
	free(text);
	return done_testing();
}
