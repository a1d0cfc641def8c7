/*-------------------------------------------------------------------------
 *
 * backoff.c
 *	  How long to wait before something that has failed is tried again.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "worker/backoff.h"

int64_t
backoff_ms(int attempts, int64_t first, int64_t most)
{
	int64_t		delay = first;

	while (attempts-- > 0 && delay < most)
		delay = delay > most / 2 ? most : delay * 2;
	return delay < most ? delay : most;
}
