/*-------------------------------------------------------------------------
 *
 * event.h
 *	  Writing an event into the outbox: the one insert routine.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_EVENT_H
#define OUTBOX_EVENT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "outbox/envelope.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* occurred_at: OUTBOX_FIRST_TIME <= occurred_at < OUTBOX_END_OF_TIME */
#define OUTBOX_FIRST_TIME	INT64CONST(-63082281600000000)	/* year 1 */
#define OUTBOX_END_OF_TIME	INT64CONST(252455616000000000)	/* year 10000 */

/*
 * An event to be written.  Texts are in the database's encoding, need not end
 * in NUL and may be absent (data == NULL).
 */
typedef struct OutboxEvent
{
	bool		has_id;			/* the writer gave one */
	pg_uuid_t	id;				/* filled by outbox_insert otherwise */
	bool		has_cause;		/* the writer named the event that caused it */
	pg_uuid_t	caused_by;
	int64		seq;			/* filled by outbox_insert; 0: not written */
	uint64		xid;			/* the same: the writer's top transaction */
	TimestampTz occurred_at;
	EventFormat format;
	TextSlice	type;
	TextSlice	aggregatetype;
	TextSlice	key;
	TextSlice	payload;		/* valid JSON */
	TextSlice	description;
	TextSlice	topic;
	TextSlice	traceparent;
	Jsonb	   *headers;		/* NULL: none */
	bytea	   *value;			/* NULL: none */
	bool		again;			/* written before: nothing of the session is
								 * added, and its header may say so */
	bool		may_wait;		/* see writer_put */
	bool		own_json;		/* payload holds JSON texts of the writer's */

	/*
	 * Called when a text is refused: may raise a better error than a general
	 * one.  NULL: nobody knows better.
	 */
	void		(*explain) (void *arg);
	void	   *explain_arg;
} OutboxEvent;

/*
 * Write the event in the current transaction: assigns the top transaction id,
 * locks the current segment (ROW EXCLUSIVE, to the end of the transaction),
 * draws seq, inserts, and asks for the relay's wake-up at commit.  Needs no
 * right of the current user.  Raises OB002 for what could not be published.
 * While a report is only looked at or made anew (consequence.h) the event is
 * checked and gets its id, and that is all.
 */
extern void outbox_insert(OutboxEvent *event);

#endif							/* OUTBOX_EVENT_H */
