/*-------------------------------------------------------------------------
 *
 * removed.h
 *	  What has left the event log, and must not be counted again when its
 *	  message is read again.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * All functions run inside a transaction, with SPI connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef REMOVED_H
#define REMOVED_H

#include "postgres.h"

#include "report/event_log.h"
#include "storage/itemptr.h"
#include "utils/rel.h"

/* Take the marks of report.removed; asked for by removed_covers(). */
extern void removed_load(void);

/*
 * Is the event, which is not in the log, one that retention has removed?  (A
 * dead letter that is tried again never was in the log.)
 */
extern bool removed_covers(const LogSource *source, const BatchEvent *event);

/* Ids that report.erase() has removed.  NULL: there are none. */
typedef struct ErasedIds ErasedIds;
extern ErasedIds *erased_open(void);
extern bool erased_contains(ErasedIds *ids, const pg_uuid_t *id);
extern void erased_close(ErasedIds *ids);

/*
 * Delete a row of the event log.  False: somebody else has deleted it, or has
 * it locked (unless wait).
 */
extern bool removed_delete(Relation log, ItemPointer tid, bool wait);

#endif							/* REMOVED_H */
