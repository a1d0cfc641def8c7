/*-------------------------------------------------------------------------
 *
 * test_plan.c
 *	  Plans of batches: the order of whole transactions, from every place, with
 *	  room for few events; each event looked at a bounded number of times.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/plan.h"

#include <stdlib.h>
#include <string.h>

#include "tap.h"

#define SEGMENTS	3

/* Of the address sanitizer; its header is in a package of its own. */
extern size_t __sanitizer_get_current_allocated_bytes(void);

/* An event of the store that is played here. */
typedef struct Stored
{
	uint64_t	xid;
	int64_t		seq;
	int64_t		through;
	int			segment;
	uint32_t	block;			/* of the table now */
} Stored;

typedef struct Store
{
	Stored	   *events;
	size_t		n;
	Stored	   *by_xid[SEGMENTS];	/* the index of each segment */
	size_t		in[SEGMENTS];
	XidRange	ranges[64];
	size_t		n_ranges;
	int64_t		looks;			/* events that scans have handed out */
	int64_t		scans;
} Store;

static uint64_t state;

static uint32_t
random_below(uint32_t n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t) (state >> 33) % n;
}

static int
by_xid_seq(const void *a, const void *b)
{
	const Stored *left = a;
	const Stored *right = b;

	if (left->xid != right->xid)
		return left->xid < right->xid ? -1 : 1;
	return (left->seq > right->seq) - (left->seq < right->seq);
}

static int
in_order(const void *a, const void *b)
{
	const Stored *left = a;
	const Stored *right = b;

	if (left->through != right->through)
		return left->through < right->through ? -1 : 1;
	return (left->seq > right->seq) - (left->seq < right->seq);
}

/* Of events in any order, with xid, seq and segment. */
static void
store_finish(Store *store)
{
	qsort(store->events, store->n, sizeof(Stored), by_xid_seq);
	for (size_t i = store->n; i-- > 0;)
	{
		bool		last = i + 1 == store->n || store->events[i + 1].xid != store->events[i].xid;

		store->events[i].through = last ? store->events[i].seq : store->events[i + 1].through;
		store->events[i].block = (uint32_t) store->events[i].seq;
	}
	for (int s = 0; s < SEGMENTS; s++)
	{
		store->by_xid[s] = malloc(sizeof(Stored) * (store->n + 1));
		store->in[s] = 0;
		for (size_t i = 0; i < store->n; i++)
			if (store->events[i].segment == s)
				store->by_xid[s][store->in[s]++] = store->events[i];
	}
	qsort(store->events, store->n, sizeof(Stored), in_order);
	store->looks = store->scans = 0;
}

static void
store_free(Store *store)
{
	free(store->events);
	for (int s = 0; s < SEGMENTS; s++)
		free(store->by_xid[s]);
}

static void
scan(Store *store, Plan *plan, const PlanScan *wanted)
{
	const Stored *events = store->by_xid[wanted->segment];
	size_t		low = 0;
	size_t		high = store->in[wanted->segment];

	while (low < high)
	{
		size_t		middle = (low + high) / 2;
		bool		before = events[middle].xid < wanted->low ||
		(events[middle].xid == wanted->low && events[middle].seq <= wanted->after);

		if (before)
			low = middle + 1;
		else
			high = middle;
	}
	store->scans++;
	for (; low < store->in[wanted->segment] && events[low].xid < wanted->high; low++)
	{
		store->looks++;
		if (!plan_add(plan, events[low].xid, events[low].seq, events[low].block, 7))
			return;
	}
}

static void
fill(Store *store, Plan *plan)
{
	PlanScan	wanted;

	plan_begin(plan);
	while (plan_scan(plan, &wanted))
		scan(store, plan, &wanted);
}

static bool
in_ranges(const Store *store, uint64_t xid)
{
	for (size_t i = 0; i < store->n_ranges; i++)
		if (xid >= store->ranges[i].low && xid < store->ranges[i].high)
			return true;
	return false;
}

/* How many events are of the same transaction from here on. */
static int64_t
left_at(const Store *store, size_t at)
{
	int64_t		n = 1;

	while (at + n < store->n && store->events[at + n].xid == store->events[at].xid)
		n++;
	return n;
}

/*
 * Read all from a place (the event before index from) and compare; sometimes
 * stop and begin again there, as a restarted relay does, sometimes move the
 * tuples.  False: what was wrong stands in a diagnosis.
 */
static bool
read_all(Store *store, size_t budget, uint32_t restart, uint32_t move)
{
	BatchPlace	place = {0};
	Plan	   *plan = plan_make(store->ranges, store->n_ranges, SEGMENTS, budget, place);
	size_t		at = 0;

	for (;;)
	{
		PlannedEvent event;
		PlanStatus	status = plan_next(plan, &event);
		const Stored *expected;

		if (status == PLAN_FILL)
		{
			fill(store, plan);
			continue;
		}
		while (at < store->n && !in_ranges(store, store->events[at].xid))
			at++;
		if (status == PLAN_END)
			break;
		expected = &store->events[at];
		if (status != PLAN_EVENT || at == store->n || event.xid != expected->xid ||
			event.seq != expected->seq || event.through != expected->through ||
			event.segment != expected->segment || event.offset != 7)
		{
			diag("event %zu of %zu: status %d, seq %lld instead of %lld", at, store->n, status,
				 (long long) event.seq, (long long) (at < store->n ? expected->seq : 0));
			plan_free(plan);
			return false;
		}
		if (plan_left(plan) != left_at(store, at))
		{
			diag("event %zu: %lld left instead of %lld", at, (long long) plan_left(plan),
				 (long long) left_at(store, at));
			plan_free(plan);
			return false;
		}
		if (event.block != expected->block)
		{
			plan_forget(plan);	/* as batch.c finds out */
			continue;
		}
		plan_advance(plan);
		at++;
		if (restart > 0 && random_below(restart) == 0)
		{
			place.xid = event.xid;
			place.seq = event.seq;
			place.through = event.through;
			plan_free(plan);
			plan = plan_make(store->ranges, store->n_ranges, SEGMENTS, budget, place);
		}
		if (move > 0 && random_below(move) == 0)
		{
			uint32_t	by = random_below(1000);

			for (size_t i = 0; i < store->n; i++)
				store->events[i].block += by;
			for (int s = 0; s < SEGMENTS; s++)
				for (size_t i = 0; i < store->in[s]; i++)
					store->by_xid[s][i].block += by;
		}
	}
	plan_free(plan);
	if (at != store->n)
		diag("%zu events instead of %zu", at, store->n);
	return at == store->n;
}

/*
 * Transactions that begin and end in any order, some of them long, some large:
 * each takes seqs while it runs.  Some ids are of former batches.
 */
static void
random_store(Store *store, uint32_t n, uint32_t side_by_side, uint32_t length)
{
	uint64_t	running[64];
	uint32_t	rest[64];
	int			segment[64];
	uint64_t	xid = 100;
	int64_t		seq = random_below(1000);

	memset(store, 0, sizeof(*store));
	store->events = malloc(sizeof(Stored) * (n + 1));
	for (uint32_t i = 0; i < side_by_side; i++)
		rest[i] = 0;
	while (store->n < n)
	{
		uint32_t	i = random_below(side_by_side);

		if (rest[i] == 0)
		{
			running[i] = xid++;
			rest[i] = 1 + (random_below(10) == 0 ? random_below(length) : random_below(3));
			segment[i] = random_below(20) == 0 ? (int) random_below(SEGMENTS) : (int) (store->n * 2 / n);
		}
		store->events[store->n].xid = running[i];
		store->events[store->n].seq = seq += 1 + random_below(3);
		store->events[store->n].segment = segment[i];
		store->n++;
		rest[i]--;
	}
	for (uint64_t low = 100; low < xid && store->n_ranges < 60;)
	{
		uint64_t	high = low + 1 + random_below((uint32_t) (xid - 100));

		store->ranges[store->n_ranges].low = low;
		store->ranges[store->n_ranges++].high = high;
		low = high + random_below(3);
	}
	store_finish(store);
}

static void
test_histories(void)
{
	int			wrong = 0;
	int			tried = 0;

	for (unsigned seed = 1; seed <= 3000; seed++)
	{
		Store		store;

		state = seed;
		random_store(&store, 1 + random_below(400), 1 + random_below(12), 1 + random_below(120));
		tried++;
		if (!read_all(&store, 1024 + random_below(5000), seed % 3 == 0 ? 20 : 0, seed % 4 == 0 ? 15 : 0))
		{
			diag("seed %u", seed);
			wrong++;
		}
		store_free(&store);
	}
	ok(wrong == 0, "%d random batches are read in order, with restarts and moved tuples", tried);
}

/* Read all; returns looks per event, and in *bytes the plan's memory at most. */
static double
measure(Store *store, size_t budget, size_t *bytes)
{
	BatchPlace	place = {0};
	size_t		before = __sanitizer_get_current_allocated_bytes();
	Plan	   *plan = plan_make(store->ranges, store->n_ranges, SEGMENTS, budget, place);
	PlannedEvent event;
	PlanStatus	status;
	size_t		read = 0;
	size_t		right = 0;

	*bytes = 0;
	while ((status = plan_next(plan, &event)) == PLAN_EVENT || status == PLAN_FILL)
	{
		if (status == PLAN_FILL)
		{
			fill(store, plan);
			if (__sanitizer_get_current_allocated_bytes() - before > *bytes)
				*bytes = __sanitizer_get_current_allocated_bytes() - before;
			continue;
		}
		if (read < store->n && event.seq == store->events[read].seq)
			right++;
		plan_advance(plan);
		read++;
	}
	plan_free(plan);
	is_int(status, PLAN_END, "to the end");
	is_int((int64_t) right, (int64_t) store->n, "in order");
	is_int((int64_t) read, (int64_t) store->n, "all are read");
	return (double) store->looks / (double) store->n;
}

static void
fixed_store(Store *store, size_t n)
{
	memset(store, 0, sizeof(*store));
	store->events = calloc(n, sizeof(Stored));
	store->n = n;
	store->ranges[0].low = 1;
	store->ranges[0].high = UINT64_MAX;
	store->n_ranges = 1;
}

static void
test_cost(void)
{
	enum
	{
		N = 1000000,
		BUDGET = 560000
	};
	Store		store;
	size_t		bytes;
	double		looks;

	/* weeks of small transactions in one tick, one of which runs all the time */
	fixed_store(&store, N);
	for (size_t i = 0; i < N; i++)
	{
		store.events[i].seq = (int64_t) i + 1;
		store.events[i].xid = i % 1000 == 0 ? 5 : 10 + (i ^ 3);
	}
	store_finish(&store);
	looks = measure(&store, BUDGET, &bytes);
	ok(looks < 4, "a backlog of %d single events: each is looked at %.2f times", N, looks);
	ok(bytes < BUDGET * 1.72 + 70000, "%zu bytes for a budget of %d", bytes, BUDGET);
	ok(store.scans < 3 * N / (BUDGET / 56) * 20, "%lld scans", (long long) store.scans);
	store_free(&store);

	/* one giant, whose seqs have small ones between them */
	fixed_store(&store, N);
	for (size_t i = 0; i < N; i++)
	{
		store.events[i].seq = (int64_t) i + 1;
		store.events[i].xid = i % 100 == 7 ? 10 + i : 5;
	}
	store_finish(&store);
	looks = measure(&store, BUDGET, &bytes);
	ok(looks < 4, "a giant among small ones: %.2f times", looks);
	ok(bytes < BUDGET * 1.72 + 70000, "%zu bytes", bytes);
	store_free(&store);

	/* giants side by side, so that they end in turns */
	fixed_store(&store, N);
	for (size_t i = 0; i < N; i++)
	{
		store.events[i].seq = (int64_t) i + 1;
		store.events[i].xid = 10 + i / 200000 * 4 + random_below(4);
	}
	store_finish(&store);
	looks = measure(&store, BUDGET, &bytes);
	ok(looks < 6, "giants side by side: %.2f times", looks);
	store_free(&store);

	/* transactions that last for long: their ids say little about their end */
	fixed_store(&store, N);
	for (size_t i = 0; i < N; i++)
	{
		store.events[i].seq = (int64_t) i + 1;
		store.events[i].xid = 10 + i - (i % 7 == 0 ? random_below((uint32_t) (i < 20000 ? i + 1 : 20000)) : 0);
	}
	store_finish(&store);
	looks = measure(&store, BUDGET, &bytes);
	ok(looks < 8, "long ones: %.2f times", looks);
	store_free(&store);
}

/* What is not there any more is not passed over in silence. */
static void
test_lost(void)
{
	Store		store;
	BatchPlace	place = {0};
	Plan	   *plan;
	PlannedEvent event;
	PlanStatus	status;

	for (int giant = 0; giant < 2; giant++)
	{
		fixed_store(&store, 100);
		for (size_t i = 0; i < store.n; i++)
		{
			store.events[i].seq = (int64_t) i + 1;
			store.events[i].xid = giant ? 5 : 10 + i;
		}
		store_finish(&store);
		plan = plan_make(store.ranges, 1, SEGMENTS, 0, place);
		fill(&store, plan);
		store.in[0] = 0;		/* emptied */
		while ((status = plan_next(plan, &event)) == PLAN_EVENT || status == PLAN_FILL)
		{
			if (status == PLAN_FILL)
				fill(&store, plan);
			else
				plan_advance(plan);
		}
		is_int(status, PLAN_LOST, giant ? "lost in the middle of a transaction" : "lost between transactions");
		plan_free(plan);
		store_free(&store);
	}

	/* nothing at all */
	plan = plan_make(NULL, 0, SEGMENTS, 0, place);
	is_int(plan_next(plan, &event), PLAN_FILL, "an empty batch is looked at");
	fill(&store, plan);
	is_int(plan_next(plan, &event), PLAN_END, "and ends");
	plan_free(plan);
}

int
main(void)
{
	test_histories();
	test_cost();
	test_lost();
	return done_testing();
}
