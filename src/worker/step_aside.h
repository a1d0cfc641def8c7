/*-------------------------------------------------------------------------
 *
 * step_aside.h
 *	  Workers leave a database that a command needs for itself, and come back.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A session asks; the database's workers leave; nobody starts them again until
 * the session's transaction has ended; then the launcher looks at all databases
 * anew.  See step_aside.c for how, administration.c for which commands.
 *
 * Without shared memory (library not preloaded) and without workers (a standby)
 * every function here does nothing and answers at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_STEP_ASIDE_H
#define WORKER_STEP_ASIDE_H

#include "postgres.h"

#include "shared.h"

extern void step_aside_install(void);	/* from _PG_init, preloaded only */

/* ---- the session that runs the command ---- */

/*
 * Ask the workers of the database to leave, and wait for that, for
 * STEP_ASIDE_MOST_MS at most: whether they have is PostgreSQL's to find out.
 * The question stands until the transaction (or the subtransaction that asks)
 * ends, however it does.  May be cancelled.
 */
extern void step_aside_ask(Oid database);

/* When the transaction ends, the launcher looks which databases there are. */
extern void step_aside_look_again(void);

/* ---- workers ---- */

/* Is somebody asking for this database? */
extern bool step_aside_asked(Oid database);

/* shared_claim_worker(), or SHARED_ASIDE: the database is asked for. */
extern SharedClaim step_aside_claim(Oid database, char kind);

/*
 * A process beside a worker that has claimed the database, and ends it when it
 * leaves.  False: the database is asked for.
 */
extern bool step_aside_join(Oid database);

/* The other end of it, from before_shmem_exit. */
extern void step_aside_release(void);

/*
 * May a question end this process at its next CHECK_FOR_INTERRUPTS()?  So
 * while it connects and while SQL runs; elsewhere it looks by itself.
 */
extern void step_aside_interruptible(bool yes);

/* Does one end it now?  For a signal's handler. */
extern bool step_aside_interrupts(void);

/* ---- the launcher ---- */

/* This process is the launcher: its latch is set when there is news. */
extern void step_aside_attend(void);

/* Databases may have come, gone or changed since the last call. */
extern bool step_aside_news(void);

#endif							/* WORKER_STEP_ASIDE_H */
