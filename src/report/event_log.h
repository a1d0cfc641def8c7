/*-------------------------------------------------------------------------
 *
 * event_log.h
 *	  report.reported_events: storing a batch once per event id, and reading
 *	  ranges of it for reports that catch up.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * All functions run inside a transaction of the reporter, with SPI connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENT_LOG_H
#define EVENT_LOG_H

#include "postgres.h"

#include "report/batch.h"
#include "utils/tuplestore.h"

/* A partition, as far as the event log must know it. */
typedef struct LogSource
{
	const char *cluster_id;
	const char *topic;
	int			partition;
	int64		applied;		/* counted up: events stored */
	int64		duplicates;		/* events whose id was there already */
	int64		rejected;		/* messages put into the dead letters */
} LogSource;

/* The newest log_seq that was ever given to an event. */
extern int64 event_log_head(void);

/*
 * Store the batch: new events go into the table and into store, with log_seq
 * from *head upwards; messages that cannot be read go to the dead letters.
 */
extern void event_log_store(EventBatch *batch, LogSource *sources,
							Tuplestorestate *store, int64 *head);

/*
 * Put the events with after < log_seq <= upto into store, in order, at most
 * limit of them.  Answers how many; *last is the log_seq of the last one.
 */
extern int64 event_log_read(int64 after, int64 upto, int64 limit,
							Tuplestorestate *store, int64 *last);

extern Oid	event_log_relid(void);

/* The newest log_seq that stands in the log, as this transaction sees it. */
extern int64 event_log_end(void);

/* Its column event_key. */
#define EVENT_KEY_ATTRIBUTE	5

/* log_seq of an event that one of these functions has put into a store. */
extern int64 event_log_seq(TupleTableSlot *slot);

#endif							/* EVENT_LOG_H */
