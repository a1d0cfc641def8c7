/*-------------------------------------------------------------------------
 *
 * lineage.h
 *	  Who publishes: the lineage's row, and where this server is at home.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_LINEAGE_H
#define OUTBOX_LINEAGE_H

#include "postgres.h"

#include "storage/lockdefs.h"

typedef struct Lineage
{
	char		lineage[37];
	char		cluster_id[128];	/* "": nothing published yet */
	char		progress_topic[256];	/* "": not made yet */
	char		home[160];		/* that published last; "": none */
	int64		start_tick;
	int64		confirmed_tick; /* recorded when the relay came to rest */
	bool		claimed;
	bool		paused;

	/*
	 * While another home than ours published last: transactions before this
	 * one were its, with ticks up to this one.  They are a part of what it
	 * has written, as far as that has come here.
	 */
	bool		inherits;
	uint64		inherited_xid;
	int64		inherited_tick;
} Lineage;

/* Relation of another home to ours. */
typedef enum HomeRelation
{
	HOME_SAME,
	HOME_ANCESTOR,				/* the other is on a timeline we descend from */
	HOME_LATER,					/* a later timeline of the same system: it was
								 * promoted */
	HOME_OTHER					/* a copy, a move, another server */
} HomeRelation;

/*
 * This server's home: system identifier, timeline, database oid, and inode
 * and birth time of PG_VERSION in the data directory.  palloc'd.
 */
extern char *home_text(void);
extern HomeRelation home_compare(const char *mine, const char *other);

/* These run inside a transaction of the relay's. */
extern void lineage_read(Lineage *lineage);

/*
 * The lineage's topic exists in this cluster now: publishing may begin.  This
 * and what follows changes the row only while it is of this lineage.
 */
extern void lineage_record_birth(const char *lineage, const char *cluster_id,
								 const char *progress_topic, const char *home);

/*
 * This home has found what another one has left.  The first that it finds stays,
 * until a home has published.
 */
extern void lineage_record_inherited(const char *lineage, uint64 xid, int64 tick);

/*
 * What of this database is in Kafka, as a pg_snapshot: outbox.start_lineage()
 * begins from there.  NULL: it knows by itself.
 */
extern void lineage_record_published(const char *lineage, const char *snapshot);

/* The record in Kafka names this home now; outbox.claim() has taken effect. */
extern void lineage_record_home(const char *lineage, const char *home);

/*
 * Lock the table and its row to the end of the transaction; false if somebody
 * would have to be waited for.
 */
extern bool lineage_try_lock(LOCKMODE mode);

/*
 * All up to that tick is in Kafka.  False, and nothing is written, while somebody
 * else holds the row (it is only a hint and not worth waiting for), and when it
 * is of another lineage.  True: it stays so until the transaction ends.
 */
extern bool lineage_try_record_confirmed(const char *lineage, int64 tick);

/* Expand {lineage} and {database} in carshop_outbox.progress_topic. palloc'd. */
extern char *lineage_progress_topic(const Lineage *lineage);

#endif							/* OUTBOX_LINEAGE_H */
