/*-------------------------------------------------------------------------
 *
 * segment.h
 *	  The relations of the event store, and which segment is current.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_SEGMENT_H
#define OUTBOX_SEGMENT_H

#include "postgres.h"

#include "utils/relcache.h"

/* Columns of a segment, in their order. */
enum
{
	EVENT_SEQ,
	EVENT_XID,
	EVENT_OCCURRED_AT,
	EVENT_ID,
	EVENT_TYPE,
	EVENT_AGGREGATETYPE,
	EVENT_AGGREGATEID,
	EVENT_PAYLOAD,
	EVENT_DESCRIPTION,
	EVENT_TOPIC,
	EVENT_HEADERS,
	EVENT_TRACEPARENT,
	EVENT_FORMAT,
	EVENT_VALUE,
	EVENT_COLUMNS
};

#define OUTBOX_SEGMENTS		3

/* The oid of an object of ours in schema outbox; raises an error if it is gone. */
extern Oid	outbox_relation(const char *name);
extern Oid	outbox_segment_relation(int segment);

/* Open the current segment with ROW EXCLUSIVE; keep the lock when closing. */
extern Relation segment_open_current(void);

/* The (xid, seq) index of a segment. */
extern Oid	outbox_segment_index(int segment);

#endif							/* OUTBOX_SEGMENT_H */
