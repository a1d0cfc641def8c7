/*-------------------------------------------------------------------------
 *
 * event_log_internal.h
 *	  What event_log.c and event_store.c share.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENT_LOG_INTERNAL_H
#define EVENT_LOG_INTERNAL_H

#include "report/event_log.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* The columns, in the order in which the install script makes them. */
enum
{
	COL_ID,
	COL_EVENT_TYPE,
	COL_DESCRIPTION,
	COL_OCCURRED_ON,
	COL_EVENT_KEY,
	COL_DATA,
	COL_HEADERS,
	COL_TOPIC,
	COL_PARTITION,
	COL_KAFKA_OFFSET,
	COL_RECEIVED_AT,
	COL_LOG_SEQ,
	N_COLUMNS
};

/* The event log, checked: its columns are filled by number. */
extern Relation event_log_open(LOCKMODE mode);

/* The unique index whose one column is the given one. */
extern Oid	event_log_index(Relation rel, int column);

/* The active snapshot, which sees what this transaction has done until now. */
extern Snapshot event_log_snapshot(void);

#endif							/* EVENT_LOG_INTERNAL_H */
