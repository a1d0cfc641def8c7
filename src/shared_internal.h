/*-------------------------------------------------------------------------
 *
 * shared_internal.h
 *	  What shared.c and shared_reports.c share; the locking stands in shared.c.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARED_INTERNAL_H
#define SHARED_INTERNAL_H

#include "shared.h"

#include "port/atomics.h"
#include "storage/lwlock.h"

typedef struct Owner
{
	int			pid;			/* 0: none */
	int			pgprocno;		/* of the living owner */
	bool		left;			/* the last one was asked to leave */
} Owner;

typedef struct DatabaseSlot
{
	Oid			database;		/* InvalidOid: free */
	Owner		relay;
	Owner		reporter;
	pg_atomic_uint32 relay_wake;
	pg_atomic_uint32 reporter_wake;
	pg_atomic_uint64 relay_woken_at;	/* TimestampTz: when relay_wake was
										 * set */
	pg_atomic_uint32 prepared;
	pg_atomic_uint32 extension_changes;
	pg_atomic_uint32 parking_changes;
	pg_atomic_uint64 segment;	/* outbox/segment.c's; 0: not known */
	pg_atomic_uint64 published_request;
	pg_atomic_uint64 published_answer;
	TimestampTz relay_reset_at;
	TimestampTz reporter_reset_at;
	RelayReport relay_report;
	ReporterReport reporter_report;
} DatabaseSlot;

typedef struct SharedState
{
	LWLock	   *lock;
	LWLock	   *reports_lock;
	bool		began_elsewhere;
	pg_atomic_uint64 first_writer;	/* 0: nobody yet */
	RebuildReport rebuilds[SHARED_MAX_REBUILDS];	/* reports_lock */
	int			n_slots;
	DatabaseSlot slots[FLEXIBLE_ARRAY_MEMBER];
} SharedState;

extern SharedState *shared;		/* NULL: no shared memory */

/*
 * The slot of our own database, taking one if wanted.  NULL when all are taken
 * (then the database cannot have workers; capture goes on), when it has none, or
 * without shared memory.
 */
extern DatabaseSlot *shared_find_slot(Oid database, bool make);

/* Set the flag and the latch of a worker; raises no error. */
extern void shared_wake(DatabaseSlot *slot, char kind);

#endif							/* SHARED_INTERNAL_H */
