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

/* A message that cannot be read; event->sqlstate and ->reason say why. */
extern void dead_letter_add_message(const char *topic, int partition,
									const BatchEvent *event,
									const char *context);

/* An event of the log that a report refused. */
extern void dead_letter_add_event(const char *report, int64 log_seq,
								  const ErrorData *error);

/* Letters that report.retry() asked to try again, in order of their ids. */
typedef struct DeadLetter
{
	int64		id;
	char	   *topic;
	int			partition;
	int64		offset;
	char	   *report;			/* NULL: a message */
	int64		log_seq;		/* of a refused event */
	int64		timestamp_ms;
	char	   *key;			/* bytes; NULL: none */
	Size		key_len;
	char	   *value;
	Size		value_len;
	MessageHeader *headers;
	int			n_headers;
	char	   *cluster_id;		/* "" when not known */
	int			attempts;
} DeadLetter;

extern DeadLetter *dead_letter_retries(int *n);

/* It went well now. */
extern void dead_letter_remove(int64 id);

/* It failed again; error NULL: with the reason that stands there. */
extern void dead_letter_failed_again(int64 id, const ErrorData *error);

/* A message that was tried again got a new letter: it inherits the attempts. */
extern void dead_letter_replace(const DeadLetter *letter);

#endif							/* DEAD_LETTER_H */
