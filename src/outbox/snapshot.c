/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *	  Snapshots of top-level transaction ids, and the difference of two.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The idea is PgQ's: a batch is what became visible between two snapshots.
 * Nothing waits for a long transaction, nothing is skipped, and the contents
 * of a batch never change (reference: pgq, batch_event_sql).
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
snapshot_init_empty(TickSnapshot *snapshot)
{
	memset(snapshot, 0, sizeof(*snapshot));
}

void
snapshot_free(TickSnapshot *snapshot)
{
	free(snapshot->xip);
	memset(snapshot, 0, sizeof(*snapshot));
}

/* Digits, then the end character, which is skipped; '\0': whatever follows. */
static bool
parse_xid(const char **at, char end, uint64_t *xid)
{
	char	   *stop;

	if (**at < '0' || **at > '9')
		return false;
	errno = 0;
	*xid = strtoull(*at, &stop, 10);
	if (errno != 0 || (end != '\0' && *stop != end))
		return false;
	*at = end != '\0' ? stop + 1 : stop;
	return true;
}

bool
snapshot_parse(TickSnapshot *snapshot, const char *text)
{
	const char *at = text;
	size_t		room = 0;

	snapshot_init_empty(snapshot);
	if (!parse_xid(&at, ':', &snapshot->xmin) ||
		!parse_xid(&at, ':', &snapshot->xmax) ||
		snapshot->xmin > snapshot->xmax)
		goto bad;

	while (*at != '\0')
	{
		uint64_t	xid;

		if (!parse_xid(&at, '\0', &xid))
			goto bad;
		if (*at == ',' && at[1] != '\0')
			at++;
		else if (*at != '\0')
			goto bad;
		if (xid < snapshot->xmin || xid >= snapshot->xmax ||
			(snapshot->nxip > 0 && xid <= snapshot->xip[snapshot->nxip - 1]))
			goto bad;
		if (snapshot->nxip == room)
		{
			uint64_t   *grown;

			room = room ? room * 2 : 16;
			grown = realloc(snapshot->xip, room * sizeof(uint64_t));
			if (grown == NULL)
				goto bad;
			snapshot->xip = grown;
		}
		snapshot->xip[snapshot->nxip++] = xid;
	}
	return true;

bad:
	snapshot_free(snapshot);
	return false;
}

/* Is it in xip? */
static bool
in_progress(const TickSnapshot *snapshot, uint64_t xid)
{
	size_t		low = 0;
	size_t		high = snapshot->nxip;

	while (low < high)
	{
		size_t		mid = low + (high - low) / 2;

		if (snapshot->xip[mid] == xid)
			return true;
		if (snapshot->xip[mid] < xid)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

bool
snapshot_finished(const TickSnapshot *snapshot, uint64_t xid)
{
	return xid < snapshot->xmax && !in_progress(snapshot, xid);
}

bool
snapshot_print(const TickSnapshot *snapshot, uint64_t before, char *to, size_t size)
{
	uint64_t	xmax = before < snapshot->xmax ? before : snapshot->xmax;
	size_t		used;

	used = (size_t) snprintf(to, size, "%" PRIu64 ":%" PRIu64 ":",
							 xmax < snapshot->xmin ? xmax : snapshot->xmin, xmax);
	for (size_t i = 0; i < snapshot->nxip && snapshot->xip[i] < xmax && used < size; i++)
		used += (size_t) snprintf(to + used, size - used, "%s%" PRIu64,
								  i > 0 ? "," : "", snapshot->xip[i]);
	if (used < size)
		return true;
	if (size > 0)
		*to = '\0';
	return false;
}

bool
snapshot_difference(const TickSnapshot *prev, const TickSnapshot *cur,
					XidRange **ranges, size_t *n)
{
	XidRange   *out;
	size_t		used = 0;
	uint64_t	low;

	*ranges = NULL;
	*n = 0;
	if (cur->xmax < prev->xmax)
		return false;

	out = malloc((prev->nxip + cur->nxip + 1) * sizeof(XidRange));
	if (out == NULL)
		return false;

	/* what was in progress then and is not any more */
	for (size_t i = 0; i < prev->nxip; i++)
	{
		uint64_t	xid = prev->xip[i];

		if (in_progress(cur, xid))
			continue;
		out[used].low = xid;
		out[used].high = xid + 1;
		used++;
	}

	/* what began since, without what is in progress now */
	low = prev->xmax;
	for (size_t i = 0; i < cur->nxip; i++)
	{
		uint64_t	xid = cur->xip[i];

		if (xid < low)
			continue;
		if (xid > low)
		{
			out[used].low = low;
			out[used].high = xid;
			used++;
		}
		low = xid + 1;
	}
	if (low < cur->xmax)
	{
		out[used].low = low;
		out[used].high = cur->xmax;
		used++;
	}

	if (used == 0)
	{
		free(out);
		return true;
	}
	*ranges = out;
	*n = used;
	return true;
}
