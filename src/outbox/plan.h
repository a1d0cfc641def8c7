/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  The order in which the events of a batch are read, with a fixed budget.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Order.  Within a batch whole transactions follow each other, ordered by
 * their last seq, and inside a transaction events are ordered by seq.  For
 * changes under a common lock this is the order of commit: the second writer
 * draws its seq after the first one has committed, hence after all of the
 * first one's seqs.  Sorting single events by seq would be right for a key as
 * well, but then a batch could not be cut without tearing transactions apart.
 *
 * Events are found by transaction id and needed by last seq.  The two differ by
 * what runs side by side, which is little beside a large batch, but one
 * transaction may have run for hours.  So a plan is filled in passes, each of
 * which keeps the lowest transactions for which there is room:
 *
 * - The first pass sees everything and notes, for pieces of the transaction
 *	 ids, the lowest and highest last seq in it (as a BRIN index does for
 *	 blocks).  A later pass reads only the pieces that can hold what it looks
 *	 for.  So each event is looked at about three times, whatever the batch's size.
 * - Of a transaction that alone exceeds half the room the first part is kept,
 *	 and later passes go on in it where the former one ended.
 *
 * The caller scans; the plan says what, takes what was found, and gives it back
 * in order:
 *
 *		while ((status = plan_next(plan, &event)) != PLAN_END)
 *			if (status == PLAN_FILL)
 *			{
 *				plan_begin(plan);
 *				while (plan_scan(plan, &scan))
 *					for each event of scan, by (xid, seq), while it says so
 *						plan_add(plan, ...);
 *			}
 *			else
 *			{
 *				read the event;
 *				plan_advance(plan);
 *			}
 *
 * What the scans find must be the same in each pass, except for the tuple ids
 * (see plan_forget).  A transaction's events stand in one segment.
 *
 * Plain C11, no postgres.h: tested without a server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_PLAN_H
#define OUTBOX_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outbox/snapshot.h"

/*
 * A place in a batch: xid = the transaction read last, through = its last seq,
 * seq = its last event read.  seq == through means that the transaction is
 * complete.  All zero is the beginning.
 */
typedef struct BatchPlace
{
	int64_t		through;
	int64_t		seq;
	uint64_t	xid;
} BatchPlace;

typedef struct PlannedEvent
{
	uint64_t	xid;
	int64_t		seq;
	int64_t		through;		/* last seq of its transaction */
	int			segment;
	uint32_t	block;			/* tuple id */
	uint16_t	offset;
} PlannedEvent;

/* What to read: events of low <= xid < high, of low only those behind after. */
typedef struct PlanScan
{
	int			segment;
	uint64_t	low;
	uint64_t	high;
	int64_t		after;			/* 0: all */
} PlanScan;

typedef enum PlanStatus
{
	PLAN_EVENT,					/* stands on an event */
	PLAN_END,					/* all are read */
	PLAN_FILL,					/* a pass is needed */
	PLAN_LOST,					/* fewer events than the first pass saw */
	PLAN_NO_MEMORY
} PlanStatus;

typedef struct Plan Plan;

/*
 * The events of these transactions (ascending, disjoint; copied) in segments 0
 * to segments - 1 from a place on, with a budget in bytes (1024 at least): an
 * event takes 16, its transaction 40.  (What is allocated may be 1.7 times the
 * budget, and 64 kB.)  NULL: no memory.
 */
extern Plan *plan_make(const XidRange *ranges, size_t n, int segments,
					   size_t budget, BatchPlace from);
extern void plan_free(Plan *plan);

/* Begin a pass. */
extern void plan_begin(Plan *plan);

/* What to scan next; false: the pass is complete. */
extern bool plan_scan(Plan *plan, PlanScan *scan);

/* An event that the scan has found.  False: the rest of it is not needed. */
extern bool plan_add(Plan *plan, uint64_t xid, int64_t seq, uint32_t block,
					 uint16_t offset);

/* Which event comes next, if known.  The same until plan_advance. */
extern PlanStatus plan_next(Plan *plan, PlannedEvent *event);

/* Events still to be read of its transaction, itself included. */
extern int64_t plan_left(const Plan *plan);

/* It is read. */
extern void plan_advance(Plan *plan);

/* The tuple ids may have changed: the next event is looked for again. */
extern void plan_forget(Plan *plan);

#endif							/* OUTBOX_PLAN_H */
