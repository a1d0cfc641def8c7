/*-------------------------------------------------------------------------
 *
 * dead_letter.h
 *	  report.dead_letter: what could not be read, and what a report refused.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * All functions run inside a transaction of the reporter, with SPI connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DEAD_LETTER_H
#define DEAD_LETTER_H

#include "postgres.h"

#include "report/batch.h"
#include "utils/tuplestore.h"

/*
 * A message that cannot be read; event->sqlstate and ->reason say why.  False:
 * it was one already, or was erased.
 */
extern bool dead_letter_add_message(const MessagePlace *place,
									const BatchEvent *event,
									const char *context);

/*
 * An event of the log that a report refused; published: what comes of it was, when
 * the report applied it before.
 */
extern void dead_letter_add_event(const char *report, int64 log_seq,
								  bool published, const ErrorData *error);

/* One that report.retry() asked to try again. */
typedef struct DeadLetter
{
	int64		id;
	char	   *topic;
	int			partition;
	int64		offset;
	char	   *report;			/* NULL: a message */
	int64		log_seq;		/* of a refused event */
	bool		published;		/* see dead_letter_add_event() */
	int64		timestamp_ms;
	char	   *key;			/* bytes; NULL: none */
	Size		key_len;
	char	   *value;
	Size		value_len;
	MessageHeader *headers;
	int			n_headers;
	bool		has_message_id;
	pg_uuid_t	message_id;
	char	   *cluster_id;		/* "" when not known */
} DeadLetter;

/*
 * The next one after this id, of those that can be tried now: not of a report
 * that is halted; report: only of the report of this number, see catch_up.h;
 * without: not of these reports (text[]).
 * NULL: there is none.  In the current memory context.
 */
extern DeadLetter *dead_letter_next(int64 after, const int64 *report,
									Datum without);

/*
 * Put a refused event into store, as the letter keeps it: for one that the event
 * log has no more.
 */
extern bool dead_letter_read_event(int64 id, Tuplestorestate *store);

/* It went well now. */
extern void dead_letter_remove(int64 id);

/* Of events that report.erase() has removed meanwhile. */
extern void dead_letter_drop_erased(void);

/*
 * It failed again.  again: it was no fault of the letter, and is tried once
 * more with the reason that stands there.
 */
extern void dead_letter_failed_again(int64 id, bool again,
									 const char *sqlstate, const char *message,
									 const char *context);

#endif							/* DEAD_LETTER_H */
