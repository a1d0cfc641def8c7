/*-------------------------------------------------------------------------
 *
 * snapshot.h
 *	  Snapshots of top-level transaction ids, and the difference of two.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11, no postgres.h: tested without a server.  The text form is the
 * one of PostgreSQL's pg_snapshot type, xmin:xmax:xip,xip, ...  A transaction
 * is finished in a snapshot when its id is below xmax and not in xip.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_SNAPSHOT_H
#define OUTBOX_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct TickSnapshot
{
	uint64_t	xmin;
	uint64_t	xmax;
	size_t		nxip;
	uint64_t   *xip;			/* ascending, malloc'd */
} TickSnapshot;

/* Transactions low <= xid < high. */
typedef struct XidRange
{
	uint64_t	low;
	uint64_t	high;
} XidRange;

/* False on malformed text or lack of memory; then snapshot holds nothing. */
extern bool snapshot_parse(TickSnapshot *snapshot, const char *text);
extern void snapshot_free(TickSnapshot *snapshot);

/* Everything before the first transaction: the snapshot of "tick 0". */
extern void snapshot_init_empty(TickSnapshot *snapshot);

extern bool snapshot_finished(const TickSnapshot *snapshot, uint64_t xid);

/*
 * The text of a snapshot that sees what this one sees of the transactions
 * before an id (UINT64_MAX: all), and nothing else.  False, and "", when there is
 * not enough room.
 */
extern bool snapshot_print(const TickSnapshot *snapshot, uint64_t before,
						   char *to, size_t size);

/*
 * The transactions that are finished in cur and were not in prev, as ascending
 * disjoint ranges: [prev.xmax, cur.xmax) without cur.xip, and those of
 * prev.xip that ended meanwhile.  Their number is linear in the two xip
 * lists, whatever lies between.  *ranges is malloc'd (NULL when there are
 * none); false on lack of memory or when cur is not later than prev.
 */
extern bool snapshot_difference(const TickSnapshot *prev,
								const TickSnapshot *cur,
								XidRange **ranges, size_t *n);

#endif							/* OUTBOX_SNAPSHOT_H */
