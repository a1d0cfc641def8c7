/*-------------------------------------------------------------------------
 *
 * test_backoff.c
 *	  Delays grow from the first to the longest and never beyond.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "worker/backoff.h"

#include <limits.h>

#include "tap.h"

int
main(void)
{
	bool		grows = true;

	is_int(backoff_ms(0, 100, 10000), 100, "the first");
	is_int(backoff_ms(1, 100, 10000), 200, "the second is twice as long");
	is_int(backoff_ms(6, 100, 10000), 6400, "the last below the longest");
	is_int(backoff_ms(7, 100, 10000), 10000, "the longest, where doubling would pass it");
	is_int(backoff_ms(INT_MAX, 100, 10000), 10000, "as many attempts as there are numbers");
	is_int(backoff_ms(-1, 100, 10000), 100, "fewer attempts than none are none");
	is_int(backoff_ms(0, 100, 50), 50, "a first above the longest is the longest");
	is_int(backoff_ms(5, 50, 50), 50, "first and longest are one");
	is_int(backoff_ms(INT_MAX, 1, INT64_MAX), INT64_MAX, "the longest that a number holds");
	for (int i = 0; i < 200; i++)
		grows = grows && backoff_ms(i, 3, INT64_MAX) <= backoff_ms(i + 1, 3, INT64_MAX);
	ok(grows, "a later one is never shorter");
	return done_testing();
}
