/*-------------------------------------------------------------------------
 *
 * pieces.h
 *	  Where in a batch which transactions end: a map of fixed size.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * For pieces of a batch's transaction ids, the lowest and highest last seq of
 * the transactions in it, as a BRIN index has it for blocks of a table.  So a
 * search for last seqs can leave most of the ids out.  Part of plan.c.
 *
 * Plain C11, no postgres.h: tested without a server (test_plan).
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_PIECES_H
#define OUTBOX_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Transactions that follow each other in a segment. */
typedef struct Piece
{
	int			segment;
	uint64_t	low;			/* low <= xid < high; also ids of others
								 * between */
	uint64_t	high;
	int64_t		min_through;
	int64_t		max_through;
	int64_t		events;
} Piece;

typedef struct Pieces
{
	Piece	   *piece;
	size_t		n;
	int64_t		full;			/* events at which the next one begins */
	bool		closed;			/* the last one is not to be extended */
} Pieces;

/* About 50 kB.  full: see above, doubled when there are too many pieces. */
extern bool pieces_init(Pieces *pieces, size_t full);
extern void pieces_free(Pieces *pieces);
extern void pieces_clear(Pieces *pieces);

/* Note a transaction; by segment and, in it, ascending xid. */
extern void pieces_note(Pieces *pieces, int segment, uint64_t xid,
						int64_t through, int64_t events);

/* All are noted: order the pieces by min_through. */
extern void pieces_sort(Pieces *pieces);

#endif							/* OUTBOX_PIECES_H */
