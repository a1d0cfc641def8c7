/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  What facts about Kafka mean before the first event: rows with remedies.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11: no PostgreSQL, no librdkafka (test/unit/test_check.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef CHECK_ROWS_H
#define CHECK_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "kafka/kafka.h"

/* What a topic is for; in the order of the facts' topics. */
typedef struct CheckTopic
{
	char		name[250];
	bool		progress;		/* the relay's own */
	bool		state;			/* its events are the newest state of a key,
								 * so that compaction takes nothing away */
} CheckTopic;

typedef struct CheckWanted
{
	bool		reads;			/* report.check(): the topics are read */
	bool		create_topics;
	bool		require_verification;
	bool		born;			/* this lineage has published */
	bool		relay_runs;		/* the transactional.id is in use here, and
								 * ... */
	bool		relay_works;	/* ... nothing is wrong with that */
	int64_t		max_message_bytes;
	int			transaction_timeout_ms;
	int			partitions;		/* of topics to be made */
	int			replication;	/* likewise; < 0: the broker's default */
	char		cluster_id[128];	/* in which it has published; "": none */
	char		library[32];	/* version of librdkafka */
	bool		tells_rights;	/* kafka_tells_rights() */
	int			n_topics;
	const CheckTopic *topics;
} CheckWanted;

#define CHECK_TEXT	1024

/*
 * remedy "": none.  setting not "": the remedy is to set it to value, and remedy
 * is not used.
 */
typedef struct CheckRow
{
	int			place;			/* among rows of one level */
	const char *concern;
	const char *level;			/* ok, warn, fail */
	char		message[CHECK_TEXT];
	char		remedy[CHECK_TEXT];
	char		setting[64];
	char		value[32];
} CheckRow;

typedef void (*CheckTake) (void *arg, const CheckRow *row);

extern void check_rows(const KafkaFacts *facts, const CheckWanted *wanted,
					   CheckTake take, void *arg);

/* The one row there is when no handle can be made. */
extern void check_no_handle(const KafkaError *error, CheckTake take, void *arg);

#endif							/* CHECK_ROWS_H */
