/*-------------------------------------------------------------------------
 *
 * source.h
 *	  What the reporter reads from: topics, their partitions, the Kafka handle.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Outside of transactions, except where said.  One source per process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SOURCE_H
#define SOURCE_H

#include "postgres.h"

#include "kafka/kafka.h"
#include "report/batch.h"
#include "report/event_log.h"
#include "report/progress.h"
#include "shared.h"

typedef struct SourcePartition
{
	Position	position;
	bool		there;			/* the broker knows it */
	bool		checking;		/* the newest message is read again first */
	bool		at_end;			/* all that may be read has been */
	bool		settled;		/* it was at its end, and nothing has come
								 * since; while it is asked again, too */
	bool		reached;		/* all that stood there when it was assigned */
	int64		target;			/* the high watermark at the first end that
								 * was met since then; -1: none was */
	bool		failed;			/* what comes of it is not taken before it is
								 * assigned anew */
	TimestampTz failing_since;	/* reading fails at this place; 0: it does not */
	int64		held_at;		/* offset of held_since */
	bool		lost_stored;	/* its row says that it has stopped */
	bool		refused;		/* the broker gives nothing of it, and says so
								 * once: until it does */
	LogSource	log;			/* counts of the batch under way */
	PartitionReport stats;
} SourcePartition;

typedef enum SourceState
{
	SOURCE_READING,
	SOURCE_WAITING,				/* for a broker or a topic: trouble says which */
	SOURCE_STOPPED				/* until a person has acted */
} SourceState;

typedef struct Source
{
	MemoryContext context;
	KafkaReader *reader;		/* NULL: closed */
	KafkaItem	item;			/* released before the reader is closed */
	char		cluster_id[64]; /* "": not known yet */
	SourcePartition *partitions;
	int			n;
	int			last_found;		/* where source_find() looks first */
	SourceState state;
	SharedTrouble trouble;
	TimestampTz look_at;		/* when to ask for topics again; 0: at once */
	int			attempts;		/* of asking, in vain */
	int64		seen_at_look;	/* sum of the positions at the last look */
	int			missing;		/* answers that a topic is gone, in a row */
	bool		unreachable;	/* no broker answered lately */
	List	   *found;			/* Positions without a row yet; see
								 * source_look() */
	bool		assign_needed;
	TimestampTz assign_at;		/* needed at this time; 0: it is not */
	bool		handle_failed;	/* another handle is needed */
	TimestampTz assigned_at;
	TimestampTz check_at;		/* source_check_ends() was called */
	const ReporterReport *former;	/* what the process before this one has
									 * counted */
} Source;

/* former is kept. */
extern Source *source_create(MemoryContext parent,
							 const ReporterReport *former);

/* Open the Kafka handle if it is closed.  False: trouble says why not. */
extern bool source_open(Source *source, const char *group_id);

/* False: it did not end in time. */
extern bool source_close(Source *source);

/*
 * Take the rows of report.progress (in a transaction).  What differs from
 * what is known was changed by somebody: it counts, and is assigned anew.
 */
extern void source_load(Source *source);

/*
 * Ask the brokers for the topics of the setting report_topics.  True: there
 * are partitions without a row yet, which source_add() makes in a transaction;
 * then comes source_load().  What is found lives in the current memory context.
 */
extern bool source_look(Source *source);
extern void source_add(Source *source);

/* For source_read.c: trouble, and asking again soon. */
extern void source_trouble(Source *source, SourceState state,
						   const char *message, const char *remedy);
extern void source_look_later(Source *source);
extern SourcePartition *source_find(Source *source, const char *topic,
									int partition);

/* Assign what is there and not lost, if that has changed. */
extern void source_assign(Source *source);

/* Prove again, once all is read, that it is: see source_proven_at(). */
extern void source_check_ends(Source *source);
extern bool source_wants_check(const Source *source);

/* In how many ms source_assign() has work; -1: it has none. */
extern long source_assign_due(const Source *source);

/* Assign anew, but not at once: what made it necessary may last. */
extern void source_assign_later(Source *source, long ms);

/*
 * Add what waits to the batch, as far as it has room.  True: more may wait.
 */
extern bool source_collect(Source *source, EventBatch *batch, int max_events,
						   Size max_bytes);

/*
 * A time so that everything that stood in the topics then, up to the high
 * watermarks, has been read.  0: not so.
 */
extern TimestampTz source_proven_at(const Source *source);

/*
 * Where reading stands: behind, at the ends, or at the ends of what may be read
 * while somebody's open transaction holds the rest back.
 */
typedef enum SourceProgress
{
	SOURCE_BEHIND,
	SOURCE_CURRENT,
	SOURCE_HELD
} SourceProgress;

extern SourceProgress source_progress(const Source *source);
extern bool source_is_held(const SourcePartition *partition);

/* Take the high watermarks as last fetched, and what is held back by whom. */
extern void source_note_ends(Source *source);

/* Remember the newest messages of the batch as the last ones read. */
extern void source_mark(Source *source, const EventBatch *batch);

/* Is there a position to be stored?  Store them; false: somebody moved one. */
extern bool source_is_dirty(const Source *source);
extern bool source_store(Source *source, int64 log_seq);
extern void source_stored(Source *source);

/* Store, in a transaction, which partitions have stopped, if any did. */
extern bool source_has_lost(const Source *source);
extern void source_store_lost(Source *source);

/* Words for report.stat_reporter and report.status. */
extern const char *source_partition_state(const Source *source,
										  const SourcePartition *partition);
extern const char *source_state_name(const Source *source);

#endif							/* SOURCE_H */
