/*-------------------------------------------------------------------------
 *
 * pieces.c
 *	  Where in a batch which transactions end: a map of fixed size.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "invariant.h"

#define MAX_PIECES		1024

bool
pieces_init(Pieces *pieces, size_t full)
{
	memset(pieces, 0, sizeof(*pieces));
	pieces->piece = malloc(sizeof(Piece) * MAX_PIECES);
	pieces->full = (int64_t) full;
	return pieces->piece != NULL;
}

void
pieces_free(Pieces *pieces)
{
	free(pieces->piece);
	pieces->piece = NULL;
}

void
pieces_clear(Pieces *pieces)
{
	pieces->n = 0;
	pieces->closed = false;
}

static void
extend(Piece *piece, const Piece *by)
{
	piece->high = by->high;
	piece->events += by->events;
	if (by->min_through < piece->min_through)
		piece->min_through = by->min_through;
	if (by->max_through > piece->max_through)
		piece->max_through = by->max_through;
}

/* Make room: join neighbours of one segment in pairs, small ones first. */
static void
merge(Pieces *pieces)
{
	do
	{
		size_t		n = 0;

		pieces->full *= 2;
		for (size_t i = 0; i < pieces->n; i++)
		{
			Piece		piece = pieces->piece[i];
			const Piece *next = &pieces->piece[i + 1];

			if (i + 1 < pieces->n && next->segment == piece.segment &&
				piece.events + next->events <= pieces->full)
			{
				extend(&piece, next);
				i++;
			}
			pieces->piece[n++] = piece;
		}
		pieces->n = n;
	} while (pieces->n > MAX_PIECES * 3 / 4);
}

void
pieces_note(Pieces *pieces, int segment, uint64_t xid, int64_t through,
			int64_t events)
{
	Piece		noted = {segment, xid, xid + 1, through, through, events};
	bool		large = events >= pieces->full;
	Piece	   *last = pieces->n > 0 ? &pieces->piece[pieces->n - 1] : NULL;

	/* a large one stands alone: nobody reads it for another's sake */
	if (last == NULL || last->segment != segment || pieces->closed || large ||
		last->events >= pieces->full)
	{
		if (pieces->n == MAX_PIECES)
			merge(pieces);
		pieces->piece[pieces->n++] = noted;
	}
	else
	{
		Invariant(xid >= last->high);
		extend(last, &noted);
	}
	pieces->closed = large;
}

static int
by_min_through(const void *a, const void *b)
{
	const Piece *left = a;
	const Piece *right = b;

	return (left->min_through > right->min_through) -
		(left->min_through < right->min_through);
}

void
pieces_sort(Pieces *pieces)
{
	qsort(pieces->piece, pieces->n, sizeof(Piece), by_min_through);
}
