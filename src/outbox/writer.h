/*-------------------------------------------------------------------------
 *
 * writer.h
 *	  Putting events into the current segment, many at a time.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A page of events inserted at once costs one buffer lookup, one lock and one
 * WAL record instead of one per event (heap_multi_insert, as COPY does), and
 * the segment and its index are opened once.  So what the capture trigger
 * writes waits in memory until its statement ends; a statement of one row
 * pays nothing for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_WRITER_H
#define OUTBOX_WRITER_H

#include "postgres.h"

/*
 * Draw seq and keep or insert the event's row (EVENT_COLUMNS values; seq is
 * filled here).  The segment is locked (ROW EXCLUSIVE, to the end of the
 * transaction) before seq is drawn.  may_wait: the row may stay in memory until
 * the statement that runs now has ended; it is never kept over the end of a
 * subtransaction or transaction.
 */
extern void writer_put(Datum *values, bool *isnull, bool may_wait);

/* Callbacks and hooks that insert what waits; from _PG_init. */
extern void writer_install(void);

/* A statement has ended: insert what waits.  For utility statements (COPY). */
extern void writer_statement_ended(void);

#endif							/* OUTBOX_WRITER_H */
