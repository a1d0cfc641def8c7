/*-------------------------------------------------------------------------
 *
 * known_ids.c
 *	  Which events of a batch have an id that is known already.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The ids are sorted, so equal ones stand beside each other, and are looked
 * for in the index in that order.  One look finds the smallest entry that is
 * not below an id: no id below that entry is in the table.  Ids that were made
 * in rising order (UUID version 7) need one look for all of a batch, and so do
 * those of a topic that is read again, whose entries stand beside each other
 * as well.  Where ids fall anywhere (version 4) such a look costs more than
 * one for the id alone, because the index hands over all entries of a page;
 * when that has been seen, each is looked for alone.
 *
 * Entries of rows that are gone bound the ids as well as others do.  Only one
 * that equals an id has to be looked up in the table.
 *
 * Memory: the current context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "catalog/pg_index.h"
#include "compat.h"
#include "port/pg_bswap.h"
#include "report/known_ids.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/uuid.h"

/* Entries to pass by, at most, before the index is searched anew. */
#define MAX_STEPS	16

/* Looks in a row that found the place of one id only. */
#define MAX_WASTED	4

/* A batch so small is not worth a look for all. */
#define MIN_TOGETHER	8

/* An id as two numbers, and which event has it. */
typedef struct IdPlace
{
	uint64		high;
	uint64		low;
	int			event;
} IdPlace;

static inline int
compare_ids(const IdPlace *a, const IdPlace *b)
{
	if (a->high != b->high)
		return a->high < b->high ? -1 : 1;
	if (a->low != b->low)
		return a->low < b->low ? -1 : 1;
	return 0;
}

static inline int
compare_places(const IdPlace *a, const IdPlace *b)
{
	int			order = compare_ids(a, b);

	return order != 0 ? order : a->event - b->event;
}

#define ST_SORT sort_places
#define ST_ELEMENT_TYPE IdPlace
#define ST_COMPARE(a, b) compare_places(a, b)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* Where we stand in the index. */
typedef struct Cursor
{
	IndexScanDesc scan;
	TupleTableSlot *slot;
	IdPlace		at;				/* the entry's id */
	bool		started;
	bool		ended;			/* there is no entry any more */
	bool		singly;			/* each id is looked for alone */
	int			answered;		/* ids since the last look */
	int			wasted;
} Cursor;

static void
set_id(IdPlace *place, const pg_uuid_t *id)
{
	memcpy(&place->high, id->data, sizeof(uint64));
	memcpy(&place->low, id->data + sizeof(uint64), sizeof(uint64));
	place->high = pg_ntoh64(place->high);
	place->low = pg_ntoh64(place->low);
}

/* To the next entry. */
static void
step(Cursor *cursor)
{
	bool		isnull;
	Datum		id;

	cursor->ended = index_getnext_tid(cursor->scan, ForwardScanDirection) == NULL;
	if (cursor->ended)
		return;
	id = index_getattr(cursor->scan->xs_itup, 1, cursor->scan->xs_itupdesc,
					   &isnull);
	set_id(&cursor->at, DatumGetUUIDP(id));
}

/* To the first entry that is not below the id (or that equals it). */
static void
look(Cursor *cursor, const pg_uuid_t *id)
{
	ScanKeyData key;

	if (cursor->singly)
		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ,
					UUIDPGetDatum(id));
	else
		ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_UUID_GE,
					UUIDPGetDatum(id));
	index_rescan(cursor->scan, &key, 1, NULL, 0);
	cursor->started = true;
	cursor->answered = 0;
	step(cursor);
}

/* Stand at the first entry that is not below the id; ids come in order. */
static void
go_to(Cursor *cursor, const IdPlace *place, const pg_uuid_t *id)
{
	for (int i = 0; i < MAX_STEPS && cursor->started && !cursor->singly; i++)
	{
		if (cursor->ended || compare_ids(&cursor->at, place) >= 0)
			return;
		step(cursor);
	}
	if (cursor->started && !cursor->singly)
	{
		cursor->wasted = cursor->answered > 1 ? 0 : cursor->wasted + 1;
		cursor->singly = cursor->wasted >= MAX_WASTED;
	}
	look(cursor, id);
}

/* Is there a row of this id that the snapshot sees? */
static bool
is_stored(Cursor *cursor, const IdPlace *place, const pg_uuid_t *id)
{
	go_to(cursor, place, id);
	cursor->answered++;
	while (!cursor->ended && compare_ids(&cursor->at, place) == 0)
	{
		if (index_fetch_heap(cursor->scan, cursor->slot))
			return true;
		step(cursor);
	}
	return false;
}

bool *
known_ids_find(const EventBatch *batch, Relation rel, Oid index_oid,
			   Snapshot snapshot)
{
	bool	   *known = palloc0(batch->n * sizeof(bool));
	IdPlace    *places = MemoryContextAllocHuge(CurrentMemoryContext,
												batch->n * sizeof(IdPlace));
	Relation	index = index_open(index_oid, AccessShareLock);
	Cursor		cursor;
	int			n = 0;

	for (int i = 0; i < batch->n; i++)
	{
		if (batch->events[i].rejected)
			continue;
		set_id(&places[n], &batch->events[i].id);
		places[n++].event = i;
	}
	sort_places(places, n);

	memset(&cursor, 0, sizeof(cursor));
	/* in the order in which uuids compare, unless somebody made another index */
	cursor.singly = n < MIN_TOGETHER ||
		(index->rd_indoption[0] & INDOPTION_DESC) != 0;
	cursor.slot = table_slot_create(rel, NULL);
	cursor.scan = compat_index_beginscan(rel, index, snapshot, 1);
	cursor.scan->xs_want_itup = true;
	for (int i = 0; i < n; i++)
	{
		int			event = places[i].event;

		known[event] =
			(i > 0 && compare_ids(&places[i - 1], &places[i]) == 0) ||
			is_stored(&cursor, &places[i], &batch->events[event].id);
	}

	index_endscan(cursor.scan);
	ExecDropSingleTupleTableSlot(cursor.slot);
	index_close(index, AccessShareLock);
	pfree(places);
	return known;
}
