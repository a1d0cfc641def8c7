/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  The order in which the events of a batch are read, with a fixed budget.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/plan.h"

#include <stdlib.h>
#include <string.h>

#include "invariant.h"
#include "outbox/pieces.h"

#define FIRST_ROOM		256
#define LEAST_BUDGET	1024

typedef struct Entry
{
	int64_t		seq;
	uint32_t	block;
	uint16_t	offset;
} Entry;

/* A transaction of which entries are kept. */
typedef struct Run
{
	uint64_t	xid;
	int64_t		through;		/* last seq of the transaction */
	int64_t		left;			/* events behind those that are kept */
	uint32_t	start;			/* in entries */
	uint32_t	count;
	int			segment;
} Run;

typedef enum Pass
{
	PASS_FIRST,					/* all; makes the pieces */
	PASS_PIECES,				/* those that can hold what comes next */
	PASS_RESUME					/* the transaction in which place stands */
} Pass;

struct Plan
{
	XidRange   *ranges;
	size_t		n_ranges;
	int			segments;

	BatchPlace	place;
	int64_t		place_left;		/* events behind it in its transaction; -1:
								 * not known before the first pass */
	int			place_segment;

	int64_t		total;			/* events that the first pass saw from its
								 * place on */
	int64_t		read;			/* of these */

	/* what is kept */
	size_t		budget;			/* bytes of entries and runs in use */
	Entry	   *entries;
	size_t		n_entries;
	size_t		entry_room;
	Run		   *runs;
	size_t		n_runs;
	size_t		run_room;
	bool		more;			/* transactions with a higher through than
								 * bound */
	int64_t		bound;			/* are not kept */
	bool		filled;
	bool		no_memory;

	/* being read */
	size_t		run;
	size_t		entry;

	/* the pass */
	Pass		pass;
	int			scan_segment;	/* PASS_FIRST */
	size_t		scan_piece;		/* PASS_PIECES */
	size_t		scan_range;		/* both */
	bool		resumed;		/* PASS_RESUME: its one scan is handed out */
	int			segment;		/* of the scan under way */

	/* the transaction being added */
	bool		open;
	bool		unwanted;		/* comes behind bound */
	Run			growing;
	int64_t		rest;			/* its events behind place */

	Pieces		pieces;
};

Plan *
plan_make(const XidRange *ranges, size_t n, int segments, size_t budget,
		  BatchPlace from)
{
	Plan	   *plan = calloc(1, sizeof(Plan));

	if (plan == NULL)
		return NULL;
	plan->ranges = malloc(sizeof(XidRange) * (n + 1));
	plan->budget = budget < LEAST_BUDGET ? LEAST_BUDGET : budget;
	if (plan->ranges == NULL ||
		!pieces_init(&plan->pieces, plan->budget / sizeof(Entry) / 16))
	{
		plan_free(plan);
		return NULL;
	}
	if (n > 0)
		memcpy(plan->ranges, ranges, sizeof(XidRange) * n);
	plan->n_ranges = n;
	plan->segments = segments;
	plan->place = from;
	plan->place_left = -1;
	return plan;
}

void
plan_free(Plan *plan)
{
	free(plan->ranges);
	pieces_free(&plan->pieces);
	free(plan->entries);
	free(plan->runs);
	free(plan);
}

/* Room for one more; an array grows up to most elements. */
static bool
make_room(Plan *plan, void **array, size_t *room, size_t used, size_t size,
		  size_t most)
{
	size_t		wanted = *room == 0 ? FIRST_ROOM : *room * 2;
	void	   *grown;

	if (used < *room)
		return true;
	if (wanted > most)
		wanted = most;
	Invariant(used < wanted);
	grown = realloc(*array, wanted * size);
	if (grown == NULL)
	{
		plan->no_memory = true;
		return false;
	}
	*array = grown;
	*room = wanted;
	return true;
}

/* ------------------------------------------------------------------------
 * What is kept
 * ------------------------------------------------------------------------
 */
static int
by_through(const void *a, const void *b)
{
	const Run  *left = a;
	const Run  *right = b;

	return (left->through > right->through) - (left->through < right->through);
}

static int
by_start(const void *a, const void *b)
{
	const Run  *left = a;
	const Run  *right = b;

	return (left->start > right->start) - (left->start < right->start);
}

static void
move_down(Plan *plan, Run *run, size_t *used)
{
	memmove(plan->entries + *used, plan->entries + run->start,
			sizeof(Entry) * run->count);
	run->start = (uint32_t) *used;
	*used += run->count;
}

/* What a transaction takes of the budget. */
static size_t
run_bytes(const Run *run)
{
	return run->count * sizeof(Entry) + sizeof(Run);
}

/*
 * No room: keep the one that is being added, which has half of it at most, and
 * the transactions with the lowest last seq, in three quarters together.  If
 * the first one alone is too large its first part is kept.
 */
static void
prune(Plan *plan)
{
	size_t		room = plan->budget / 4 * 3 - run_bytes(&plan->growing);
	size_t		used = 0;
	size_t		n = 0;

	Invariant(plan->n_runs > 0);
	qsort(plan->runs, plan->n_runs, sizeof(Run), by_through);
	while (n < plan->n_runs && used + run_bytes(&plan->runs[n]) <= room)
	{
		used += run_bytes(&plan->runs[n++]);
		if (plan->runs[n - 1].left > 0)
			break;				/* nothing is read behind a part */
	}
	if (n == 0)
	{
		uint32_t	part = (uint32_t) ((room - sizeof(Run)) / sizeof(Entry));

		plan->runs[0].left += plan->runs[0].count - part;
		plan->runs[0].count = part;
		n = 1;
	}
	plan->n_runs = n;
	Invariant(!plan->more || plan->runs[n - 1].through <= plan->bound);
	plan->bound = plan->runs[n - 1].through;
	plan->more = true;

	used = 0;
	qsort(plan->runs, n, sizeof(Run), by_start);
	for (size_t i = 0; i < n; i++)
		move_down(plan, &plan->runs[i], &used);
	move_down(plan, &plan->growing, &used);
	plan->n_entries = used;
}

/* The transaction that is being added cannot be among those that are kept. */
static void
drop_growing(Plan *plan)
{
	plan->n_entries = plan->growing.start;
	plan->growing.count = 0;
	plan->unwanted = true;
}

/* All of a transaction is seen. */
static void
close_run(Plan *plan)
{
	Run		   *run = &plan->growing;

	if (!plan->open)
		return;
	plan->open = false;
	if (plan->pass == PASS_RESUME)
	{
		/* known from the first pass; this one may have ended early */
		run->through = plan->place.through;
		plan->rest = plan->place_left;
	}
	if (plan->pass == PASS_FIRST)
	{
		pieces_note(&plan->pieces, run->segment, run->xid, run->through, plan->rest);
		if (run->through >= plan->place.through)
			plan->total += plan->rest;
	}
	if (plan->more && run->through > plan->bound)
		drop_growing(plan);
	if (run->through < plan->place.through)
		drop_growing(plan);		/* read before */
	if (run->count == 0)
		return;
	run->left = plan->rest > run->count ? plan->rest - run->count : 0;
	if (make_room(plan, (void **) &plan->runs, &plan->run_room, plan->n_runs, sizeof(Run), plan->budget / (sizeof(Entry) + sizeof(Run)) + 1))
		plan->runs[plan->n_runs++] = *run;
}

bool
plan_add(Plan *plan, uint64_t xid, int64_t seq, uint32_t block, uint16_t offset)
{
	Entry	   *entry;

	if (plan->no_memory)
		return false;
	if (!plan->open || plan->growing.xid != xid || plan->growing.segment != plan->segment)
	{
		close_run(plan);
		memset(&plan->growing, 0, sizeof(plan->growing));
		plan->growing.xid = xid;
		plan->growing.segment = plan->segment;
		plan->growing.start = (uint32_t) plan->n_entries;
		plan->rest = 0;
		plan->unwanted = false;
		plan->open = true;
	}
	Invariant(seq > plan->growing.through);
	plan->growing.through = seq;
	if (xid == plan->place.xid && seq <= plan->place.seq)
		return true;
	plan->rest++;
	if (plan->unwanted)
		return true;
	if (run_bytes(&plan->growing) >= plan->budget / 2)
		return plan->pass != PASS_RESUME;	/* else its rest is known */
	if ((plan->n_entries + 1) * sizeof(Entry) + (plan->n_runs + 1) * sizeof(Run) > plan->budget)
		prune(plan);
	if (plan->more && seq > plan->bound)
	{
		drop_growing(plan);
		return true;
	}
	if (!make_room(plan, (void **) &plan->entries, &plan->entry_room,
				   plan->n_entries, sizeof(Entry), plan->budget / sizeof(Entry)))
		return false;
	entry = &plan->entries[plan->n_entries++];
	entry->seq = seq;
	entry->block = block;
	entry->offset = offset;
	plan->growing.count++;
	return true;
}

/* ------------------------------------------------------------------------
 * Passes
 * ------------------------------------------------------------------------
 */
void
plan_begin(Plan *plan)
{
	plan->pass = plan->place_left < 0 ? PASS_FIRST :
		plan->place_left > 0 ? PASS_RESUME : PASS_PIECES;
	if (plan->pass == PASS_FIRST)
	{
		/* one that was not finished, by an error in a scan, leaves nothing */
		pieces_clear(&plan->pieces);
		plan->total = 0;
	}
	plan->n_entries = 0;
	plan->n_runs = 0;
	plan->more = false;
	plan->bound = 0;
	plan->filled = false;
	plan->run = 0;
	plan->entry = 0;
	plan->scan_segment = 0;
	plan->scan_piece = 0;
	plan->scan_range = 0;
	plan->resumed = false;
	plan->open = false;
}

static void
finish_pass(Plan *plan)
{
	close_run(plan);
	if (plan->pass == PASS_FIRST)
	{
		pieces_sort(&plan->pieces);
		plan->place_left = 0;
	}
	else if (plan->pass == PASS_RESUME)
	{
		plan->more = true;		/* what comes behind it */
	}
	if (plan->n_runs > 1)
		qsort(plan->runs, plan->n_runs, sizeof(Run), by_through);
	for (size_t i = 0; i + 1 < plan->n_runs; i++)
	{
		if (plan->runs[i].left > 0)
		{
			plan->n_runs = i + 1;
			plan->more = true;
		}
	}
	plan->filled = true;
}

static bool
scan_all(Plan *plan, PlanScan *scan)
{
	if (plan->scan_range == plan->n_ranges)
	{
		plan->scan_range = 0;
		plan->scan_segment++;
	}
	if (plan->scan_segment >= plan->segments || plan->n_ranges == 0)
		return false;
	scan->segment = plan->scan_segment;
	scan->low = plan->ranges[plan->scan_range].low;
	scan->high = plan->ranges[plan->scan_range].high;
	plan->scan_range++;
	return true;
}

/* The part of a piece in the next range: pieces reach over what is between. */
static bool
scan_pieces(Plan *plan, PlanScan *scan)
{
	for (; plan->scan_piece < plan->pieces.n; plan->scan_piece++, plan->scan_range = 0)
	{
		const Piece *piece = &plan->pieces.piece[plan->scan_piece];

		if (piece->max_through < plan->place.through ||
			(piece->max_through == plan->place.through &&
			 plan->place.seq == plan->place.through) ||
			(plan->more && piece->min_through > plan->bound))
			continue;
		while (plan->scan_range < plan->n_ranges)
		{
			const XidRange *range = &plan->ranges[plan->scan_range++];

			if (range->high <= piece->low || range->low >= piece->high)
				continue;
			scan->segment = piece->segment;
			scan->low = range->low > piece->low ? range->low : piece->low;
			scan->high = range->high < piece->high ? range->high : piece->high;
			return true;
		}
	}
	return false;
}

bool
plan_scan(Plan *plan, PlanScan *scan)
{
	bool		found = false;

	if (plan->no_memory)
		return false;
	memset(scan, 0, sizeof(*scan));
	switch (plan->pass)
	{
		case PASS_FIRST:
			found = scan_all(plan, scan);
			break;
		case PASS_PIECES:
			found = scan_pieces(plan, scan);
			break;
		case PASS_RESUME:
			found = !plan->resumed;
			plan->resumed = true;
			scan->segment = plan->place_segment;
			scan->low = plan->place.xid;
			scan->high = plan->place.xid + 1;
			scan->after = plan->place.seq;
			break;
	}
	plan->segment = scan->segment;
	if (!found)
		finish_pass(plan);
	return found;
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */
PlanStatus
plan_next(Plan *plan, PlannedEvent *event)
{
	const Run  *run;
	const Entry *entry;

	if (plan->no_memory)
		return PLAN_NO_MEMORY;
	if (!plan->filled)
		return PLAN_FILL;
	if (plan->run < plan->n_runs && plan->entry == plan->runs[plan->run].count &&
		plan->runs[plan->run].left == 0)
	{
		plan->run++;
		plan->entry = 0;
	}
	if (plan->run == plan->n_runs)
	{
		/* of the transaction in which it stands nothing was found */
		if (plan->place_left > 0)
			return PLAN_LOST;
		if (plan->more)
			return PLAN_FILL;
		return plan->read == plan->total ? PLAN_END : PLAN_LOST;
	}
	run = &plan->runs[plan->run];
	if (plan->entry == run->count)
		return PLAN_FILL;		/* the rest of it */
	entry = &plan->entries[run->start + plan->entry];
	event->xid = run->xid;
	event->through = run->through;
	event->segment = run->segment;
	event->seq = entry->seq;
	event->block = entry->block;
	event->offset = entry->offset;
	return PLAN_EVENT;
}

int64_t
plan_left(const Plan *plan)
{
	const Run  *run = &plan->runs[plan->run];

	Invariant(plan->filled && plan->run < plan->n_runs);
	return run->count - plan->entry + run->left;
}

void
plan_advance(Plan *plan)
{
	const Run  *run = &plan->runs[plan->run];

	Invariant(plan->filled && plan->entry < run->count);
	Invariant(run->through > plan->place.through ||
			  (run->xid == plan->place.xid &&
			   plan->entries[run->start + plan->entry].seq > plan->place.seq));
	plan->place.through = run->through;
	plan->place.seq = plan->entries[run->start + plan->entry].seq;
	plan->place.xid = run->xid;
	plan->place_left = plan_left(plan) - 1;
	plan->place_segment = run->segment;
	plan->entry++;
	plan->read++;
	Invariant(plan->place_left > 0 || plan->place.seq == plan->place.through);
}

void
plan_forget(Plan *plan)
{
	plan->filled = false;
}
