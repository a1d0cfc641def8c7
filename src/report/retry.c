/*-------------------------------------------------------------------------
 *
 * retry.c
 *	  Dead letters that report.retry() asked to try again.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A message is decoded again and, if it can be read now, goes to the end of
 * the event log, from where the reports take it.  An event that a report
 * refused is given to that report alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/objectaddress.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "report/batch.h"
#include "report/dead_letter.h"
#include "report/event_log.h"
#include "report/reports.h"
#include "report/retry.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* So many in one transaction, and for no longer: other reports wait meanwhile. */
#define LETTERS_AT_ONCE	100
#define MOST_MS			1000

/* What can only be tried later is tried again after this time. */
#define RETRY_LATER_MS	1000

/* A stored event that one report has refused.  False: later. */
static bool
retry_event(const DeadLetter *letter)
{
	ErrorData  *error;

	switch (reports_retry(letter, &error))
	{
		case RETRY_DONE:
			dead_letter_remove(letter->id);
			return true;
		case RETRY_REFUSED:
			dead_letter_failed_again(letter->id, false,
									 unpack_sql_state(error->sqlerrcode),
									 error->message, error->context);
			return true;
		case RETRY_LATER:
			break;
	}
	return false;
}

/* A message that could not be stored: decoded and stored as if it came now. */
static void
retry_message(EventBatch *batch, const DeadLetter *letter, int64 *head)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, 64);
	MessageInput input;
	MessagePlace place;
	LogSource	source;

	memset(&source, 0, sizeof(source));
	source.cluster_id = letter->cluster_id;
	source.topic = letter->topic;
	source.partition = letter->partition;
	input.value = letter->value;
	input.value_len = letter->value_len;
	input.key = letter->key;
	input.key_len = letter->key_len;
	input.headers = letter->headers;
	input.n_headers = letter->n_headers;
	place.cluster_id = letter->cluster_id;
	place.topic = letter->topic;
	place.partition = letter->partition;
	place.offset = letter->offset;
	place.timestamp_ms = letter->timestamp_ms;
	place.known_id = letter->has_message_id ? letter->message_id.data : NULL;

	batch_reset(batch);
	if (batch_add(batch, 0, &input, &place) != MESSAGE_SKIP)
	{
		batch->events[0].letter = letter->id;
		event_log_store(batch, &source, store, head);
	}
	tuplestore_end(store);
	if (source.rejected == 0)
		dead_letter_remove(letter->id);
}

long
retry_dead_letters(int64 *head)
{
	static EventBatch *batch = NULL;
	TimestampTz started = worker_steady_now();
	MemoryContext context;
	MemoryContext old;
	int64		id = 0;
	List	   *busy = NIL;		/* reports that take none now */
	int64		number;
	bool		only = reports_served(&number);
	bool		ended = false;
	int			n = 0;

	/* One at a time: each may be as large as Kafka lets a message be. */
	context = AllocSetContextCreate(CurrentMemoryContext,
									"carshop_outbox dead letter",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	while (n < LETTERS_AT_ONCE &&
		   !TimestampDifferenceExceeds(started, worker_steady_now(), MOST_MS))
	{
		DeadLetter *letter = dead_letter_next(id, only ? &number : NULL,
											  PointerGetDatum(strlist_to_textarray(busy)));

		ended = letter == NULL;
		if (ended)
			break;
		if (batch == NULL)
			batch = batch_create(TopMemoryContext);
		if (n == 0 && busy == NIL)
			reports_load(false);
		id = letter->id;
		if (letter->report != NULL && !retry_event(letter))
		{
			MemoryContextSwitchTo(old);
			busy = lappend(busy, pstrdup(letter->report));
			MemoryContextSwitchTo(context);
		}
		else
		{
			if (letter->report == NULL)
				retry_message(batch, letter, head);
			n++;
		}
		batch_reset(batch);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	if (!ended && n > 0)
		return 0;				/* there may be more */
	return busy != NIL ? RETRY_LATER_MS : -1;
}
