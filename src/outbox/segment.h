/*-------------------------------------------------------------------------
 *
 * segment.h
 *	  Segments of the event store: which one is current, and which one a
 *	  transaction writes into.
 *
 * Copyright (c) 2026, carshop_outbox contributors
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

/*
 * Open the segment into which the running transaction writes, with ROW
 * EXCLUSIVE; the caller keeps the lock when it closes the relation.  The
 * transaction's first call chooses the current segment, all later ones give
 * the same, so the events of one transaction never stand in two segments.
 */
extern Relation segment_open(void);

/* Callbacks at the end of (sub)transactions; from _PG_init. */
extern void segment_install(void);

#endif							/* OUTBOX_SEGMENT_H */
