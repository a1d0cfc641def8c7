/*-------------------------------------------------------------------------
 *
 * test_snapshot.c
 *	  Differences of snapshots: no transaction lost, none twice.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/snapshot.h"

#include <stdlib.h>

#include "tap.h"

static void
test_parse(void)
{
	static const char *const bad[] = {
		"", "10", "10:20", "20:10:", "10:20:9", "10:20:20", "10:20:12,11",
		"10:20:12,12", "10:20:x", "10:20:12,", "-1:20:", "10:20:12 ,13",
		"99999999999999999999:99999999999999999999:"
	};
	TickSnapshot snapshot;

	ok(snapshot_parse(&snapshot, "10:20:10,14,19"), "a snapshot is read");
	is_int((int64_t) snapshot.xmin, 10, "xmin");
	is_int((int64_t) snapshot.xmax, 20, "xmax");
	is_int((int64_t) snapshot.nxip, 3, "transactions in progress");
	ok(snapshot_finished(&snapshot, 9) && snapshot_finished(&snapshot, 11) &&
	   snapshot_finished(&snapshot, 18), "finished transactions");
	ok(!snapshot_finished(&snapshot, 10) && !snapshot_finished(&snapshot, 19) &&
	   !snapshot_finished(&snapshot, 20), "unfinished transactions");
	snapshot_free(&snapshot);
	ok(snapshot_parse(&snapshot, "5:5:"), "an empty list is read");
	snapshot_free(&snapshot);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(!snapshot_parse(&snapshot, bad[i]), "refused: \"%s\"", bad[i]);
}

static bool
in_ranges(const XidRange *ranges, size_t n, uint64_t xid)
{
	for (size_t i = 0; i < n; i++)
		if (xid >= ranges[i].low && xid < ranges[i].high)
			return true;
	return false;
}

/*
 * A random history of transactions, ticked at random moments: each one stands
 * in exactly one difference, and that is the first tick after its end.
 */
static void
test_history(unsigned seed)
{
	enum
	{
		N = 200
	};
	bool		running[N] = {false};
	int			seen[N] = {0};
	uint64_t	next = 1;
	TickSnapshot prev;
	bool		ascending = true;
	bool		exact = true;

	srand(seed);
	snapshot_init_empty(&prev);
	for (int step = 0; step < 2000; step++)
	{
		int			what = rand() % 4;

		if (what == 0 && next < N)
			running[next++] = true;
		else if (what < 3)
			running[rand() % N] = false;
		else
		{
			char		text[8192];
			int			used;
			uint64_t	xmin = next;
			bool		first = true;
			TickSnapshot cur;
			XidRange   *ranges;
			size_t		n;

			for (uint64_t xid = next - 1; xid > 0; xid--)
				if (running[xid])
					xmin = xid;
			used = sprintf(text, "%" PRIu64 ":%" PRIu64 ":", xmin, next);
			for (uint64_t xid = 1; xid < next; xid++)
			{
				if (!running[xid])
					continue;
				used += sprintf(text + used, "%s%" PRIu64, first ? "" : ",", xid);
				first = false;
			}
			if (!snapshot_parse(&cur, text) ||
				!snapshot_difference(&prev, &cur, &ranges, &n))
			{
				ok(false, "seed %u: snapshot %s", seed, text);
				return;
			}
			for (size_t i = 1; i < n; i++)
				ascending &= ranges[i - 1].high <= ranges[i].low;
			for (uint64_t xid = 1; xid < N; xid++)
			{
				bool		expected = snapshot_finished(&cur, xid) &&
				!snapshot_finished(&prev, xid);

				if (in_ranges(ranges, n, xid))
					seen[xid]++;
				exact &= in_ranges(ranges, n, xid) == expected;
			}
			free(ranges);
			snapshot_free(&prev);
			prev = cur;
		}
	}
	for (int i = 0; i < N; i++)
		exact &= seen[i] <= 1;
	ok(ascending, "seed %u: ranges ascend", seed);
	ok(exact, "seed %u: each transaction in the first tick after its end, once", seed);
	snapshot_free(&prev);
}

/* What is left of a snapshot when later transactions are somebody else's. */
static void
test_cut(void)
{
	static const char *const cuts[][3] = {
		{"10:20:12,15", "18", "10:18:12,15"},
		{"10:20:12,15", "15", "10:15:12"},
		{"10:20:12,15", "20", "10:20:12,15"},
		{"10:20:12,15", "99", "10:20:12,15"},
		{"10:20:12,15", "10", "10:10:"},
		{"10:20:12,15", "3", "3:3:"},
	};

	TickSnapshot snapshot;
	char		text[64];

	for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
	{
		ok(snapshot_parse(&snapshot, cuts[i][0]) &&
		   snapshot_print(&snapshot, strtoull(cuts[i][1], NULL, 10), text, sizeof(text)), "there is room");
		is_text(text, cuts[i][2], "what is left");
		snapshot_free(&snapshot);
	}
	(void) snapshot_parse(&snapshot, "10:20:12,15");
	ok(snapshot_print(&snapshot, UINT64_MAX, text, sizeof("10:20:12,15")), "just enough room");
	is_text(text, "10:20:12,15", "all of it");
	for (size_t size = 1; size < sizeof("10:20:12,15"); size++)
		ok(!snapshot_print(&snapshot, UINT64_MAX, text, size) && text[0] == '\0', "%zu bytes are not enough", size);
	snapshot_free(&snapshot);
}

int
main(void)
{
	TickSnapshot older;
	TickSnapshot newer;
	XidRange   *ranges;
	size_t		n;

	test_parse();
	test_cut();
	for (unsigned seed = 1; seed <= 20; seed++)
		test_history(seed);

	(void) snapshot_parse(&older, "10:10:");
	(void) snapshot_parse(&newer, "20:20:");
	ok(!snapshot_difference(&newer, &older, &ranges, &n),
	   "a snapshot that is not later is refused");
	ok(snapshot_difference(&older, &older, &ranges, &n) && n == 0 && ranges == NULL,
	   "nothing between a snapshot and itself");
	snapshot_free(&older);
	snapshot_free(&newer);
	return done_testing();
}
