/*-------------------------------------------------------------------------
 *
 * pins.h
 *	  An event's bytes depend on the row and the route only, never on the
 *	  session: the settings that output functions look at, pinned.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef CAPTURE_PINS_H
#define CAPTURE_PINS_H

/*
 * Pin those of the settings PIN_* (route.h) that differ from our values.
 * Returns a GUC nest level for pins_restore, 0 when nothing had to change.
 * After an error the transaction's own clean-up restores them.
 */
extern int	pins_set(int pins);
extern void pins_restore(int level);

#endif							/* CAPTURE_PINS_H */
