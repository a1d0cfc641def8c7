/*-------------------------------------------------------------------------
 *
 * check.h
 *	  outbox.check() and report.check(): what passes between the session that
 *	  asks and the process that looks.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Kafka is not asked by the session itself.  A client of Kafka has threads that
 * take signals if they are not kept from it, can fail to end, and can take the
 * process with it: all of that belongs into a process that is there for nothing
 * else, holds no lock, is connected to no database, and may be left by _exit().
 * So the session starts a background worker, which looks once, sends its rows
 * through a shared queue, and ends.  It ends as well when the session is
 * cancelled, or gone, or when the time is over.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CHECK_CHECK_H
#define CHECK_CHECK_H

#include "postgres.h"

#include "check/rows.h"

#define CHECK_MAGIC		0x636b6f62

/* Keys of the shared segment's parts. */
#define CHECK_KEY_REQUEST	0
#define CHECK_KEY_QUEUE		1
#define CHECK_KEY_BROKERS	2	/* a text */
#define CHECK_KEY_FILE		3	/* a text */

#define CHECK_QUEUE_BYTES	65536

typedef struct CheckRequest
{
	CheckWanted wanted;			/* without topics, which follow */
	int			timeout_ms;
	CheckTopic	topics[FLEXIBLE_ARRAY_MEMBER];
} CheckRequest;

/*
 * A message in the queue: the place, and after it six texts, each with its zero
 * byte: concern, level, message, remedy, setting, value.  The last message has
 * CHECK_DONE for its place, and nothing else.
 */
#define CHECK_TEXTS		6
#define CHECK_DONE		(-1)

extern PGDLLEXPORT void carshop_check_main(Datum arg);

#endif							/* CHECK_CHECK_H */
