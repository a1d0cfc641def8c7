/*-------------------------------------------------------------------------
 *
 * log_tidy.h
 *	  Removing old events from the event log (carshop_outbox.report_retention).
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOG_TIDY_H
#define LOG_TIDY_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * In how many ms there is something to do; -1: not before something changes.
 * proven: source_proven_at(); 0: there may be messages that were never read,
 * and which removed_covers() could take for removed ones.
 */
extern long log_tidy_due(TimestampTz proven);

/* Do a part of it, in a transaction of its own, with SPI connected. */
extern void log_tidy_step(void);

#endif							/* LOG_TIDY_H */
