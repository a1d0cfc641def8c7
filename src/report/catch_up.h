/*-------------------------------------------------------------------------
 *
 * catch_up.h
 *	  Processes for reports that would hold up the others.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The reporter gives every report a short time in the live path.  One that
 * needs more, or has a long way to go, gets a process of its own, which ends
 * when there is nothing left to apply.  Both lock the report's row, so it does
 * not matter when both are at it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CATCH_UP_H
#define CATCH_UP_H

#include "postgres.h"

/* Library entry point of the process; its argument is the database's oid. */
extern PGDLLEXPORT void carshop_catch_up_main(Datum arg);

/*
 * The reporter: see that a process works for the report of this number, and
 * wake it.  False: the server has none to give.
 */
extern bool catch_up_want(int64 report);

/* The reporter: how many work, or are about to. */
extern int	catch_up_processes(void);

/* The reporter: the processes are to end (it does so itself, or has stopped). */
extern void catch_up_end(void);

#endif							/* CATCH_UP_H */
