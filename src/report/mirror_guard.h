/*-------------------------------------------------------------------------
 *
 * mirror_guard.h
 *	  What keeps an old state from coming after a newer one.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIRROR_GUARD_H
#define MIRROR_GUARD_H

/*
 * Forget what a report's guard knows: its content is about to be made again
 * from an earlier place of the log (rebuild).  With SPI connected, as the owner
 * of the extension's tables.
 */
extern void mirror_guard_forget(const char *report);

/*
 * Nothing comes late and nothing is to be noted: who only looks back, for minutes
 * perhaps, has no row of a guard in hand that the reporter waits for.
 */
extern void mirror_guard_off(bool yes);

#endif							/* MIRROR_GUARD_H */
