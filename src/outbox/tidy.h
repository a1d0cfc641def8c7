/*-------------------------------------------------------------------------
 *
 * tidy.h
 *	  What is in Kafka leaves the outbox: segments are switched, settled and
 *	  emptied, ticks are rotated.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * For the relay alone, in a transaction of its own for each call, which may be
 * committed without waiting for the disk or a standby: what a crash or a failover
 * takes back is done again.  No lock is waited for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_TIDY_H
#define OUTBOX_TIDY_H

#include <stdint.h>

#define TIDY_NEVER		(-1)	/* not before something else is published */
#define TIDY_BLOCKED	(-2)	/* somebody holds a lock: later */

/*
 * One step, if one is due.  confirmed: the newest tick that is known to be in
 * Kafka for this lineage, by the one who publishes.  Answers in how many
 * milliseconds there may be another step (0: now), or one of the above.
 */
extern int64_t tidy_step(const char *lineage, int64_t confirmed);

#endif							/* OUTBOX_TIDY_H */
