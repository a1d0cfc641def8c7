/*-------------------------------------------------------------------------
 *
 * event_store.c
 *	  report.reported_events: storing a batch once per event id.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The table is written with the table access method and its indexes directly,
 * many rows at a time, as COPY does: an INSERT … ON CONFLICT through the
 * executor costs about twice as much.  There is one writer, the reporter, so a
 * look into the primary key before the insert is enough (known_ids.c); should
 * somebody else write the same id at the same moment, the unique index refuses
 * it, the transaction ends and the batch is read again.
 *
 * One index after the other takes all rows, not one row after the other: the
 * page that the next entry goes to, and the code, are in the processor's cache
 * then.
 *
 * What an event says may be more than a type or an index can hold.  So events
 * are stored in subtransactions: one that cannot be becomes a dead letter, and
 * the reporter goes on.
 *
 * Triggers, CHECK constraints and policies that somebody adds to the table are
 * not executed: nothing but this extension's own code runs here.
 *
 * Memory: everything lives in the transaction's context, but what the rows
 * inserted at once are made of has a context that keeps its first block for the
 * next ones: memory that is given back and taken again for each thousand rows
 * costs more than decoding them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "mutants.h"
#include "report/dead_letter.h"
#include "report/event_log_internal.h"
#include "report/known_ids.h"
#include "report/removed.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "worker/subtransaction.h"

/*
 * Rows handed to the table at once: COPY's number, and so many bytes of
 * messages at most, besides one message.
 */
#define ROWS_AT_ONCE	1000
#define BYTES_AT_ONCE	(512 * 1024)

/* Room for what rows of so many bytes are made of. */
#define ROWS_BLOCK		(1024 * 1024)

/* State of one event_log_store(). */
typedef struct StoreState
{
	EventBatch *batch;
	LogSource  *sources;
	Tuplestorestate *store;		/* NULL: nobody wants them */
	Relation	rel;
	ResultRelInfo *info;
	ResultRelInfo *of_index;	/* the same, each with one of its indexes */
	EState	   *estate;
	ErasedIds  *erased;			/* NULL: none */
	TupleTableSlot **slots;
	BatchEvent **pending;		/* the events in slots */
	int			n_slots;
	Size		n_bytes;		/* of the messages in slots */
	Datum	   *topics;			/* per source */
	MemoryContext values;		/* of the rows in slots */
	int64		head;
} StoreState;

static MemoryContext rows_context = NULL;

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

/* Index the inserted rows. */
static void
index_rows(StoreState *state)
{
	for (int i = 0; i < state->info->ri_NumIndices; i++)
	{
		for (int row = 0; row < state->n_slots; row++)
		{
			list_free(compat_insert_index_tuples(&state->of_index[i],
												 state->slots[row],
												 state->estate));
			ResetPerTupleExprContext(state->estate);
		}
	}
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
		state->slots[i]->tts_tableOid = RelationGetRelid(state->rel);
	index_rows(state);
}

/* They are in the table: keep them for the reports. */
static void
keep_inserted(StoreState *state)
{
	for (int i = 0; i < state->n_slots; i++)
	{
		if (state->store != NULL)
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
	state->n_bytes = 0;
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

	state->rel = event_log_open(RowExclusiveLock);
	state->estate = CreateExecutorState();
	state->info = makeNode(ResultRelInfo);
	InitResultRelInfo(state->info, state->rel, 1, NULL, 0);
	ExecOpenIndices(state->info, false);
	state->erased = erased_open();
	state->of_index = palloc(sizeof(ResultRelInfo) *
							 Max(state->info->ri_NumIndices, 1));
	for (int i = 0; i < state->info->ri_NumIndices; i++)
	{
		ResultRelInfo *info = &state->of_index[i];

		*info = *state->info;
		info->ri_NumIndices = 1;
		info->ri_IndexRelationDescs += i;
		info->ri_IndexRelationInfo += i;
	}

	state->topics = palloc(sizeof(Datum) * n_sources);
	for (int i = 0; i < n_sources; i++)
		state->topics[i] = CStringGetTextDatum(sources[i].topic);
	if (rows_context == NULL)
		rows_context = AllocSetContextCreate(TopMemoryContext,
											 "carshop_outbox rows",
											 ROWS_BLOCK, ROWS_BLOCK,
											 ALLOCSET_DEFAULT_MAXSIZE);
	state->values = rows_context;
	state->pending = palloc(sizeof(BatchEvent *) * room);
	state->slots = palloc(sizeof(TupleTableSlot *) * room);
	for (int i = 0; i < room; i++)
		state->slots[i] = table_slot_create(state->rel, NULL);
}

static void
end_store(StoreState *state, int room)
{
	for (int i = 0; i < room; i++)
		ExecDropSingleTupleTableSlot(state->slots[i]);
	erased_close(state->erased);
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
	bool	   *known;

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
	known = known_ids_find(batch, state.rel, event_log_index(state.rel, COL_ID),
						   event_log_snapshot());

	for (int i = 0; i < batch->n; i++)
	{
		BatchEvent *event = &batch->events[i];

		if (event->rejected)
		{
			if (MUTANT("bad_message"))
				elog(ERROR, "a message cannot be read");
			reject(&state, event, NULL);
			continue;
		}
		if (known[i] || removed_covers(&sources[event->source], event) ||
			erased_contains(state.erased, &event->id))
		{
			sources[event->source].duplicates++;
			continue;
		}
		state.pending[state.n_slots++] = event;
		state.n_bytes += event->value_len + event->headers.len;
		if (state.n_slots == ROWS_AT_ONCE || state.n_bytes >= BYTES_AT_ONCE)
		{
			flush_slots(&state);
			CHECK_FOR_INTERRUPTS();
		}
	}
	flush_slots(&state);
	end_store(&state, Min(batch->n, ROWS_AT_ONCE));
	pfree(known);
	CommandCounterIncrement();
	*head = state.head;
}
