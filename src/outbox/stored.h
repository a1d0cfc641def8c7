/*-------------------------------------------------------------------------
 *
 * stored.h
 *	  Reading an event from its row.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_STORED_H
#define OUTBOX_STORED_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "outbox/envelope.h"

/* One header of an event, in UTF-8. */
typedef struct EventHeader
{
	const char *name;			/* NUL-terminated */
	const char *value;
	size_t		value_len;
} EventHeader;

/* An event as read; texts in UTF-8. */
typedef struct StoredEvent
{
	int64		seq;
	int64		through;		/* last seq of its transaction */
	uint64		xid;
	WireEvent	wire;			/* source is left to the caller */
	const char *topic;			/* NULL: the default */
	const char *traceparent;	/* NULL: none */
	int			n_headers;
	const EventHeader *headers;
	const char *problem;		/* why the rest could not be read; NULL: it
								 * could */
} StoredEvent;

/*
 * Read all but through from the row of a segment.  What no admission would have
 * let in (a superuser's insert, a former version) becomes a
 * problem and not an error: an error would come again at each attempt.  Texts
 * are palloc'd or point into the row.
 */
extern void stored_event_read(TupleTableSlot *row, StoredEvent *event);

#endif							/* OUTBOX_STORED_H */
