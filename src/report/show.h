/*-------------------------------------------------------------------------
 *
 * show.h
 *	  Offsets shown under a Kafka group, for the usual lag tools.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * They are never read back: what counts stands in report.progress.  They
 * follow what is flushed, so a group never claims more than a crash leaves.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHOW_H
#define SHOW_H

#include "postgres.h"

#include "report/source.h"

/* The group: the setting, or a name made for this server and database. */
extern const char *show_group(void);

/* A transaction with offsets has just committed. */
extern void show_note_commit(void);

/* Do what is due; answers the time in ms until the next step, -1: none. */
extern long show_step(Source *source);

/* The handle was closed. */
extern void show_forget(void);

/* Why offsets are not shown, if so. */
extern void show_trouble(SharedTrouble *trouble);

#endif							/* SHOW_H */
