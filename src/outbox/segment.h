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

/*
 * The current segment: as writers see it (shared memory), and as the table has
 * it.  Between the commit of a switch and its callback the two differ.
 */
extern int	segment_current(void);
extern int	segment_current_committed(void);

/*
 * outbox.switch_segment() for the relay, in a transaction with SPI: false when
 * the next segment is not empty, or somebody holds a lock that would have to be
 * waited for.
 */
extern bool segment_try_switch(void);

/* Callbacks at the end of (sub)transactions; from _PG_init. */
extern void segment_install(void);

#endif							/* OUTBOX_SEGMENT_H */
