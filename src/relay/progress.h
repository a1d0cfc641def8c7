/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  The progress record: how far the relay has come, kept in Kafka inside
 *	  the same transaction as the events.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11 (json-c).  Anybody with rights on the topic may write anything
 * there, so decoding trusts nothing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_PROGRESS_H
#define RELAY_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_PARTITION_COUNTS 512
#define PROGRESS_SNAPSHOT		2048

typedef struct Progress
{
	char		lineage[40];
	char		home[160];
	char		instance[40];	/* one life of a relay */
	int64_t		tick;			/* all before it is published */
	char		nonce[40];		/* of that tick; "" for tick 0 */

	/*
	 * Place inside the tick: the last event published, its transaction and
	 * that transaction's last seq.  complete: the whole tick is published.
	 */
	bool		complete;
	int64_t		seq;
	int64_t		through;
	uint64_t	xid;

	/*
	 * For a server that lacks the ticks: the snapshot of the newest tick that
	 * is published as a whole ("" when it is too long), and the highest seq
	 * published.
	 */
	char		snapshot[PROGRESS_SNAPSHOT];
	int64_t		last_seq;

	/* topic=count, ... as used in this transaction; for the reader's eyes */
	char		partitions[PROGRESS_PARTITION_COUNTS];
} Progress;

/* JSON text, malloc'd; NULL when out of memory. */
extern char *progress_encode(const Progress *progress);

/* False when the text is not a progress record. */
extern bool progress_decode(Progress *progress, const char *text, size_t len);

#endif							/* RELAY_PROGRESS_H */
