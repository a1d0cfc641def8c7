/*-------------------------------------------------------------------------
 *
 * backoff.h
 *	  How long to wait before something that has failed is tried again.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11: the relay's state machine uses it as well.  No randomness here:
 * who wants jitter adds it to the answer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_BACKOFF_H
#define WORKER_BACKOFF_H

#include <stdint.h>

/*
 * The delay after that many failures in a row before this one: first, then
 * twice as long each time, up to most.  first and most are positive; a number
 * of attempts below 0 counts as 0, one however large never overflows.
 */
extern int64_t backoff_ms(int attempts, int64_t first, int64_t most);

#endif							/* WORKER_BACKOFF_H */
