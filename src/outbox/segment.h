/*-------------------------------------------------------------------------
 *
 * segment.h
 *	  The segments of the event store.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_SEGMENT_H
#define OUTBOX_SEGMENT_H

#include "postgres.h"

#include "utils/relcache.h"

/* Open the current segment with ROW EXCLUSIVE; keep the lock when closing. */
extern Relation segment_open_current(void);

/* The (xid, seq) index of a segment. */
extern Oid	outbox_segment_index(int segment);

#endif							/* OUTBOX_SEGMENT_H */
