/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  report.progress and report.instance: where reading stands, and whether
 *	  this database reads at all.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * All functions run inside a transaction of the reporter, with SPI connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "postgres.h"

#include "utils/uuid.h"

#define TOPIC_SIZE	250			/* Kafka's limit is 249 */

/* One partition; what stands in its row, and what is known beyond it. */
typedef struct Position
{
	char		topic[TOPIC_SIZE];
	int			partition;
	int64		stored;			/* next_offset in the table */
	int64		next;			/* next to read: messages up to here are read,
								 * or about to be stored */
	char		cluster_id[64]; /* "": not known */
	int64		last_offset;	/* newest message read, -1: none known */
	pg_uuid_t	last_mark;		/* its digest */
	bool		lost;			/* reading has stopped */
	char		lost_reason[256];
} Position;

/* -1: never started here, 0: stopped, 1: reading. */
extern int	progress_reading(void);

/* All rows, palloc'd in the current context. */
extern Position *progress_load(int *n);

/* A partition that is new to us: it will be read from its beginning. */
extern void progress_add(const char *topic, int partition);

/*
 * Move the row from stored to next (compare-and-set).  False: somebody else
 * has moved it, so what was read must not be stored.
 */
extern bool progress_store(const Position *position, const char *cluster_id,
						   int64 log_seq);

/* Stop reading the partition for a reason that a person must judge. */
extern void progress_lose(const Position *position);

#endif							/* PROGRESS_H */
