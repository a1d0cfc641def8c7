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

#include "report/batch.h"
#include "report/dead_letter.h"
#include "report/event_log.h"
#include "report/reports.h"
#include "report/retry.h"
#include "utils/memutils.h"

/* A stored event that one report has refused. */
static void
retry_event(const DeadLetter *letter)
{
	ErrorData  *error;

	if (reports_retry(letter->report, letter->log_seq, &error))
		dead_letter_remove(letter->id);
	else
		dead_letter_failed_again(letter->id, error);
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

	batch_reset(batch);
	if (batch_add(batch, 0, &input, &place) != MESSAGE_SKIP)
		event_log_store(batch, &source, store, head);
	tuplestore_end(store);
	if (source.rejected > 0)
		dead_letter_replace(letter);
	else
		dead_letter_remove(letter->id);
}

bool
retry_dead_letters(int64 *head)
{
	static EventBatch *batch = NULL;
	DeadLetter *letters;
	int			n;

	letters = dead_letter_retries(&n);
	if (n == 0)
		return false;
	if (batch == NULL)
		batch = batch_create(TopMemoryContext);
	reports_load();
	for (int i = 0; i < n; i++)
	{
		if (letters[i].report != NULL)
			retry_event(&letters[i]);
		else
			retry_message(batch, &letters[i], head);
	}
	batch_reset(batch);
	return true;
}
