/*-------------------------------------------------------------------------
 *
 * wakeup.h
 *	  Waking the relay when a transaction with events commits.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_WAKEUP_H
#define OUTBOX_WAKEUP_H

#include "postgres.h"

/* Wake the relay when this transaction commits. */
extern void wakeup_at_commit(void);

/*
 * Let the relay read again which topics are parked when this transaction
 * commits, which cannot be prepared.
 */
extern void wakeup_note_parking(void);
extern void wakeup_install(void);	/* callbacks and hook; from _PG_init */

#endif							/* OUTBOX_WAKEUP_H */
