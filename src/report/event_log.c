/*-------------------------------------------------------------------------
 *
 * event_log.c
 *	  report.reported_events: storing a batch once per event id, and reading
 *	  ranges of it for reports that catch up.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The table is written with the table access method and its indexes directly,
 * many rows at a time, as COPY does: an INSERT … ON CONFLICT through the
 * executor costs about twice as much.  There is one writer, the reporter, so a
 * look into the primary key before the insert is enough; should somebody else
 * write the same id at the same moment, the unique index refuses it, the
 * transaction ends and the batch is read again.
 *
 * What an event says may be more than a type or an index can hold.  So events
 * are stored in subtransactions: one that cannot be becomes a dead letter, and
 * the reporter goes on.
 *
 * Triggers, CHECK constraints and policies that somebody adds to the table are
 * not executed: nothing but this extension's own code runs here.
 *
 * Memory: everything lives in the transaction's context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "report/dead_letter.h"
#include "report/event_log.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "worker/subtransaction.h"

/* Rows handed to the table at once; COPY's number. */
#define ROWS_AT_ONCE	1000

/* The columns, in the order in which the install script makes them. */
enum
{
	COL_ID,
	COL_EVENT_TYPE,
	COL_DESCRIPTION,
	COL_OCCURRED_ON,
	COL_EVENT_KEY,
	COL_DATA,
	COL_HEADERS,
	COL_TOPIC,
	COL_PARTITION,
	COL_KAFKA_OFFSET,
	COL_RECEIVED_AT,
	COL_LOG_SEQ,
	N_COLUMNS
};

static const char *const column_names[N_COLUMNS] = {
	"id", "event_type", "event_description", "occurred_on", "event_key",
	"data", "headers", "topic", "partition", "kafka_offset", "received_at",
	"log_seq"
};

/* State of one event_log_store(). */
typedef struct StoreState
{
	EventBatch *batch;
	LogSource  *sources;
	Tuplestorestate *store;
	Relation	rel;
	ResultRelInfo *info;
	EState	   *estate;
	IndexScanDesc probe;		/* into the primary key */
	TupleTableSlot *found;
	HTAB	   *seen;			/* ids of this batch; NULL for a batch of one */
	TupleTableSlot **slots;
	BatchEvent **pending;		/* the events in slots */
	int			n_slots;
	Datum	   *topics;			/* per source */
	MemoryContext values;		/* of the rows in slots */
	int64		head;
} StoreState;

Oid
event_log_relid(void)
{
	Oid			schema = get_namespace_oid("report", false);
	Oid			relid = get_relname_relid("reported_events", schema);

	if (!OidIsValid(relid))
		elog(ERROR, "report.reported_events does not exist");
	return relid;
}

/*
 * The transaction's snapshot is a copy of its beginning: what was stored since,
 * by an earlier call, is not in it until it is told so.
 */
static Snapshot
snapshot_of_now(void)
{
	UpdateActiveSnapshotCommandId();
	return GetActiveSnapshot();
}

/* The event log, checked: its columns are filled by number. */
static Relation
open_log(LOCKMODE mode)
{
	Relation	rel = table_open(event_log_relid(), mode);
	TupleDesc	desc = RelationGetDescr(rel);

	/* Columns may have been added behind ours, nothing else. */
	for (int i = 0; i < N_COLUMNS; i++)
	{
		if (desc->natts < N_COLUMNS ||
			TupleDescAttr(desc, i)->attisdropped ||
			strcmp(NameStr(TupleDescAttr(desc, i)->attname),
				   column_names[i]) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("report.reported_events does not have the columns that carshop_outbox made"),
					 errhint("Undo the change of the table.")));
	}
	return rel;
}

/* The index whose one leading column is the given one. */
static Oid
find_index(Relation rel, int column)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;
	Oid			found = InvalidOid;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indisunique && index->rd_index->indisvalid &&
			index->rd_index->indkey.values[0] == column + 1 &&
			index->rd_index->indnkeyatts == 1)
			found = RelationGetRelid(index);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	if (!OidIsValid(found))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("report.reported_events lacks the unique index on \"%s\"",
						column_names[column])));
	return found;
}

int64
event_log_head(void)
{
	bool		isnull;

	/*
	 * Old events may have been removed, so what else remembers a log_seq is
	 * asked as well.
	 */
	if (SPI_execute("SELECT GREATEST("
					"(SELECT pg_catalog.max(log_seq) FROM report.reported_events),"
					"(SELECT pg_catalog.max(last_log_seq) FROM report.progress),"
					"(SELECT pg_catalog.max(applied_seq) FROM report.applied), 0)",
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the end of the event log");
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/* ------------------------------------------------------------------------
 * From a message to a row
 * ------------------------------------------------------------------------
 */

static Datum
make_text(const MessageText *text)
{
	if (GetDatabaseEncoding() == PG_UTF8 ||
		GetDatabaseEncoding() == PG_SQL_ASCII)
		return PointerGetDatum(cstring_to_text_with_len(text->data,
														(int) text->len));
	/* pg_any_to_server() wants a terminator that a slice does not have. */
	return CStringGetTextDatum(pg_any_to_server(pnstrdup(text->data, text->len),
												(int) text->len, PG_UTF8));
}

static Datum
make_jsonb(const MessageText *text)
{
	char	   *json = pnstrdup(text->data, text->len);
	Datum		result;

	if (GetDatabaseEncoding() != PG_UTF8 &&
		GetDatabaseEncoding() != PG_SQL_ASCII)
		json = pg_any_to_server(json, (int) text->len, PG_UTF8);
	result = DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
	pfree(json);
	return result;
}

/* May fail for this one event: encoding, numbers out of jsonb's range. */
static void
fill_slot(StoreState *state, TupleTableSlot *slot, BatchEvent *event,
		  int64 log_seq)
{
	LogSource  *source = &state->sources[event->source];
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;
	int			natts = slot->tts_tupleDescriptor->natts;

	ExecClearTuple(slot);
	memset(nulls, false, natts * sizeof(bool));
	for (int i = N_COLUMNS; i < natts; i++)
		nulls[i] = true;

	values[COL_ID] = UUIDPGetDatum(&event->id);
	values[COL_EVENT_TYPE] = make_text(&event->event_type);
	nulls[COL_DESCRIPTION] = event->description.data == NULL;
	if (event->description.data != NULL)
		values[COL_DESCRIPTION] = make_text(&event->description);
	values[COL_OCCURRED_ON] = TimestampTzGetDatum(event->occurred_on);
	nulls[COL_EVENT_KEY] = event->event_key.data == NULL;
	if (event->event_key.data != NULL)
		values[COL_EVENT_KEY] = make_text(&event->event_key);
	nulls[COL_DATA] = event->data.data == NULL;
	if (event->data.data != NULL)
		values[COL_DATA] = make_jsonb(&event->data);
	nulls[COL_HEADERS] = event->headers.data == NULL;
	if (event->headers.data != NULL)
		values[COL_HEADERS] = make_jsonb(&event->headers);
	values[COL_TOPIC] = state->topics[event->source];
	values[COL_PARTITION] = Int32GetDatum(source->partition);
	values[COL_KAFKA_OFFSET] = Int64GetDatum(event->offset);
	values[COL_RECEIVED_AT] =
		TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[COL_LOG_SEQ] = Int64GetDatum(log_seq);
	ExecStoreVirtualTuple(slot);
}

/*
 * Into the dead letters instead; context: what cannot be stored of it.  One
 * that is read again (report.seek) is there already, one that is tried again
 * stays where it is.
 */
static void
reject(StoreState *state, BatchEvent *event, const char *context)
{
	LogSource  *source = &state->sources[event->source];
	MessagePlace place = {source->cluster_id, source->topic,
	source->partition, event->offset, event->timestamp_ms, NULL};

	if (event->letter != 0)
		dead_letter_failed_again(event->letter, false, event->sqlstate,
								 event->reason, context);
	else if (!dead_letter_add_message(&place, event, context))
	{
		source->duplicates++;
		return;
	}
	source->rejected++;
}

/* ------------------------------------------------------------------------
 * Storing
 * ------------------------------------------------------------------------
 */

/* Is there an event of this id (stored in an earlier batch)? */
static bool
is_stored(StoreState *state, const pg_uuid_t *id)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(id));
	index_rescan(state->probe, &key, 1, NULL, 0);
	return index_getnext_slot(state->probe, ForwardScanDirection,
							  state->found);
}

/*
 * Insert the pending events, numbered from the head on, and index them; may
 * raise an error of a value.
 */
static void
insert_pending(void *arg)
{
	StoreState *state = arg;

	for (int i = 0; i < state->n_slots; i++)
		fill_slot(state, state->slots[i], state->pending[i],
				  state->head + i + 1);
	table_multi_insert(state->rel, state->slots, state->n_slots,
					   GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < state->n_slots; i++)
	{
		TupleTableSlot *slot = state->slots[i];

		slot->tts_tableOid = RelationGetRelid(state->rel);
		list_free(compat_insert_index_tuples(state->info, slot, state->estate));
		ResetPerTupleExprContext(state->estate);
	}
}

/* They are in the table: keep them for the reports. */
static void
keep_inserted(StoreState *state)
{
	for (int i = 0; i < state->n_slots; i++)
	{
		tuplestore_puttupleslot(state->store, state->slots[i]);
		state->sources[state->pending[i]->source].applied++;
	}
	state->head += state->n_slots;
}

/*
 * By SQLSTATE: does the error come from what the event says?  If not, another
 * try may go well, or a person has to act: nobody's event is put aside for it.
 */
static bool
is_of_event(int sqlerrcode)
{
	const char *state = unpack_sql_state(sqlerrcode);
	static const char *const others[] = {"40", "53", "55", "57", "58"};

	for (Size i = 0; i < lengthof(others); i++)
	{
		if (strncmp(state, others[i], 2) == 0)
			return false;
	}

	/* Somebody has stored the same id just now: the batch is read again. */
	return sqlerrcode != ERRCODE_UNIQUE_VIOLATION &&
		sqlerrcode != ERRCODE_DATA_CORRUPTED &&
		sqlerrcode != ERRCODE_INDEX_CORRUPTED;
}

/*
 * Each event alone, to find out whose fault it was: a value that the database
 * cannot hold, or one that an index cannot (a key longer than a page).
 */
static void
insert_singly(StoreState *state)
{
	for (int i = 0; i < state->n_slots; i++)
	{
		BatchEvent *event = state->pending[i];
		StoreState	single = *state;
		ErrorData  *error;

		single.slots = &state->slots[i];
		single.pending = &state->pending[i];
		single.n_slots = 1;
		if (subtransaction_try(insert_pending, &single, &error))
		{
			keep_inserted(&single);
			state->head = single.head;
			continue;
		}
		if (!is_of_event(error->sqlerrcode))
			ReThrowError(error);
		batch_reject(state->batch, event, error->sqlerrcode, error->message);
		reject(state, event, error->context);
		FreeErrorData(error);
	}
}

/*
 * Store the pending events.  The usual case is one subtransaction for all of
 * them.
 */
static void
flush_slots(StoreState *state)
{
	MemoryContext old;
	ErrorData  *error;

	if (state->n_slots == 0)
		return;
	old = MemoryContextSwitchTo(state->values);
	if (subtransaction_try(insert_pending, state, &error))
		keep_inserted(state);
	else
	{
		FreeErrorData(error);
		insert_singly(state);
	}
	state->n_slots = 0;
	MemoryContextSwitchTo(old);
	MemoryContextReset(state->values);
}

/*
 * Open the log, its indexes and the slots; sources count what becomes of
 * events.
 */
static void
begin_store(StoreState *state, EventBatch *batch, LogSource *sources,
			int n_sources)
{
	int			room = Min(batch->n, ROWS_AT_ONCE);
	Relation	index;

	state->rel = open_log(RowExclusiveLock);
	state->estate = CreateExecutorState();
	state->info = makeNode(ResultRelInfo);
	InitResultRelInfo(state->info, state->rel, 1, NULL, 0);
	ExecOpenIndices(state->info, false);

	index = index_open(find_index(state->rel, COL_ID), AccessShareLock);
	state->probe = compat_index_beginscan(state->rel, index,
										  snapshot_of_now(), 1);
	state->found = table_slot_create(state->rel, NULL);

	if (batch->n > 1)
	{
		HASHCTL		ctl;

		memset(&ctl, 0, sizeof(ctl));
		ctl.keysize = UUID_LEN;
		ctl.entrysize = UUID_LEN;
		ctl.hcxt = CurrentMemoryContext;
		state->seen = hash_create("ids of a batch", batch->n, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}

	state->topics = palloc(sizeof(Datum) * n_sources);
	for (int i = 0; i < n_sources; i++)
		state->topics[i] = CStringGetTextDatum(sources[i].topic);
	state->values = AllocSetContextCreate(CurrentMemoryContext,
										  "carshop_outbox rows",
										  ALLOCSET_DEFAULT_SIZES);
	state->pending = palloc(sizeof(BatchEvent *) * room);
	state->slots = palloc(sizeof(TupleTableSlot *) * room);
	for (int i = 0; i < room; i++)
		state->slots[i] = table_slot_create(state->rel, NULL);
}

static void
end_store(StoreState *state, int room)
{
	Relation	index = state->probe->indexRelation;

	for (int i = 0; i < room; i++)
		ExecDropSingleTupleTableSlot(state->slots[i]);
	index_endscan(state->probe);
	ExecDropSingleTupleTableSlot(state->found);
	index_close(index, AccessShareLock);
	ExecCloseIndices(state->info);
	FreeExecutorState(state->estate);
	table_close(state->rel, NoLock);
}

void
event_log_store(EventBatch *batch, LogSource *sources, Tuplestorestate *store,
				int64 *head)
{
	StoreState	state;
	int			n_sources = 0;

	if (batch->n == 0)
		return;
	for (int i = 0; i < batch->n; i++)
		n_sources = Max(n_sources, batch->events[i].source + 1);

	memset(&state, 0, sizeof(state));
	state.batch = batch;
	state.sources = sources;
	state.store = store;
	state.head = *head;
	begin_store(&state, batch, sources, n_sources);

	for (int i = 0; i < batch->n; i++)
	{
		BatchEvent *event = &batch->events[i];
		bool		known = false;

		if (event->rejected)
		{
			reject(&state, event, NULL);
			continue;
		}
		if (state.seen != NULL)
			(void) hash_search(state.seen, event->id.data, HASH_ENTER, &known);
		if (known || is_stored(&state, &event->id))
		{
			sources[event->source].duplicates++;
			continue;
		}
		state.pending[state.n_slots++] = event;
		if (state.n_slots == ROWS_AT_ONCE)
		{
			flush_slots(&state);
			CHECK_FOR_INTERRUPTS();
		}
	}
	flush_slots(&state);
	end_store(&state, Min(batch->n, ROWS_AT_ONCE));
	CommandCounterIncrement();
	*head = state.head;
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

int64
event_log_read(int64 after, int64 upto, int64 limit, Tuplestorestate *store,
			   int64 *last)
{
	Relation	rel = open_log(AccessShareLock);
	Relation	index = index_open(find_index(rel, COL_LOG_SEQ),
								   AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan;
	ScanKeyData keys[2];
	int64		n = 0;

	/* By the index directly: a planned query may flip to a sort one day. */
	ScanKeyInit(&keys[0], 1, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(after));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(upto));
	scan = compat_index_beginscan(rel, index, snapshot_of_now(), 2);
	index_rescan(scan, keys, 2, NULL, 0);

	*last = after;
	while (n < limit &&
		   index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		tuplestore_puttupleslot(store, slot);
		*last = DatumGetInt64(slot_getattr(slot, COL_LOG_SEQ + 1, &isnull));
		n++;
	}

	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return n;
}
