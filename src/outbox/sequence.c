/*-------------------------------------------------------------------------
 *
 * sequence.c
 *	  Drawing seq from outbox.event_seq.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Not by nextval: that would become the session's lastval(), by which clients ask
 * for the id of the row that they have just inserted (PDO::lastInsertId() among
 * them), and they would get ours.  So this does what nextval does to the page of
 * a sequence (sequence.c of PostgreSQL), and nothing to the session: both may be
 * used on one sequence.  A cache that somebody has given to it is ignored: numbers
 * that are drawn ahead break the order per key.
 *
 * As there, a WAL record says where the sequence would be after some more draws,
 * which are then free; after a checkpoint there must be a new one, since replay
 * begins behind the former.  It is a generic record with the page's image, which
 * is short: a sequence has one row.
 *
 * Locking: ROW EXCLUSIVE on the sequence to the end of the transaction, against
 * ALTER SEQUENCE and DROP; the page's content lock while a number is drawn.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/generic_xlog.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "mutants.h"
#include "outbox/relations.h"
#include "outbox/sequence.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

/* Numbers that one WAL record allows: what a crash may leave out, as SEQ_LOG_VALS. */
#define LOGGED_AHEAD	32

static Form_pg_sequence_data
sequence_row(Page page)
{
	HeapTupleData tuple;

	tuple.t_data = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	return (Form_pg_sequence_data) GETSTRUCT(&tuple);
}

/* Log the page as it will be when the last of the free numbers is drawn. */
static void
log_ahead(Relation rel, Buffer buffer, int64 last)
{
	GenericXLogState *state = GenericXLogStart(rel);
	Form_pg_sequence_data row =
	sequence_row(GenericXLogRegisterBuffer(state, buffer, GENERIC_XLOG_FULL_IMAGE));

	row->last_value = last;
	row->log_cnt = 0;
	row->is_called = true;
	GenericXLogFinish(state);
}

static int64
draw(void)
{
	Relation	rel;
	Buffer		buffer;
	Form_pg_sequence_data row;
	int64		next;
	int64		ahead;

	if (MUTANT("lastval"))
		return nextval_internal(outbox_relation("event_seq"), false);
	rel = relation_open(outbox_relation("event_seq"), RowExclusiveLock);
	if (rel->rd_rel->relkind != RELKIND_SEQUENCE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"outbox.event_seq\" is not a sequence")));
	buffer = ReadBuffer(rel, 0);
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	row = sequence_row(BufferGetPage(buffer));
	if (row->last_value > PG_INT64_MAX - 1 - LOGGED_AHEAD)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("sequence outbox.event_seq has come to its end"),
				 errhint("It can only have been set there: set it back to the newest event's seq with setval().")));
	next = row->last_value + (row->is_called ? 1 : 0);
	ahead = row->log_cnt - 1;
	if (!row->is_called || ahead < 0 ||
		PageGetLSN(BufferGetPage(buffer)) <= GetRedoRecPtr())
	{
		ahead = LOGGED_AHEAD;
		log_ahead(rel, buffer, next + ahead);
	}
	START_CRIT_SECTION();
	row->last_value = next;
	row->log_cnt = ahead;
	row->is_called = true;
	MarkBufferDirty(buffer);
	END_CRIT_SECTION();
	UnlockReleaseBuffer(buffer);
	relation_close(rel, NoLock);
	return next;
}

int64
sequence_draw(void)
{
#ifdef MUTANTS
	static int64 first = 0;
	static int	left = 0;

	if (MUTANT("cached_seq"))
	{
		for (int i = 0; left == 0 && i < 20; i++)
		{
			int64		seq = draw();

			if (i == 0)
				first = seq;
		}
		left = left == 0 ? 20 : left;
		return first + 20 - left--;
	}
#endif
	return draw();
}
