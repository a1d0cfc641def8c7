/*-------------------------------------------------------------------------
 *
 * standby.h
 *	  Which ticks do standbys have? (carshop_outbox.publish_after_standby)
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_STANDBY_H
#define OUTBOX_STANDBY_H

#include "postgres.h"

#include "access/xlogdefs.h"

#define STANDBY_TICKS	8

/* Zeroed: nothing is known. */
typedef struct StandbyWatch
{
	/* not confirmed yet, ascending; each is on disk here before its place */
	int64		ticks[STANDBY_TICKS];
	XLogRecPtr	lsns[STANDBY_TICKS];
	int			n;
	int64		noted;			/* newest tick seen */
	int64		safe;			/* newest tick that enough of them have */
} StandbyWatch;

/*
 * The newest tick that enough standbys have on disk, of those up to newest, which
 * is on disk here.
 */
extern int64 standby_safe_tick(StandbyWatch *watch, int64 newest);

#endif							/* OUTBOX_STANDBY_H */
