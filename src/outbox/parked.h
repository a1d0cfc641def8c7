/*-------------------------------------------------------------------------
 *
 * parked.h
 *	  Topics whose events go aside, and those events.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * For the relay.  All but parked_has run inside a transaction of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_PARKED_H
#define OUTBOX_PARKED_H

#include "postgres.h"

#include "executor/tuptable.h"

/* What outbox.parked_topic says; malloc'd parts, since it outlives transactions. */
typedef struct ParkedTopics
{
	char	  **names;
	int			n;
	char	   *leaving;		/* one that outbox.unpark() was called for;
								 * NULL: none */
} ParkedTopics;

/* Read it again. */
extern void parked_load(ParkedTopics *parked);
extern bool parked_has(const ParkedTopics *parked, const char *topic);

/*
 * An event of a parked topic goes aside: the row as it stands in its segment.  One
 * that has gone aside before stays as it is.  To be committed before Kafka's
 * progress passes the event.
 */
extern void parked_put(const char *topic, TupleTableSlot *row);

/*
 * All that is aside of a topic is written again, in its order, by this
 * transaction, and the topic is not parked any more.  Answers how many events.
 */
extern int64 parked_write_again(const char *topic);

/* That has failed: the topic stays parked, with the reason. */
extern void parked_stays(const char *topic, const char *reason);

#endif							/* OUTBOX_PARKED_H */
