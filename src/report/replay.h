/*-------------------------------------------------------------------------
 *
 * replay.h
 *	  Giving a part of the event log to a report's statement once more, in
 *	  somebody's session.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef REPLAY_H
#define REPLAY_H

#include "postgres.h"

#include "report/report_run.h"
#include "utils/snapshot.h"

/* A report, as far as a replay must know it. */
typedef struct ReplayReport
{
	char	   *name;
	char	   *statement;
	Oid			target;
	Oid			owner;
	int64		applied_seq;
	int64		start_seq;		/* it applies what comes after this */
} ReplayReport;

typedef struct Replay
{
	const ReplayReport *report;
	const char *statement;		/* the report's, or one made of it */
	ReportPlans plans;
	int64		after;			/* log_seq that it has come to */
	int64		range;			/* events to try next; 0: as many as allowed */
	int64		events;			/* given to the statement, or refused */
	int64		runs;
	int64		refused;
	int64		in_a_row;		/* refused since one was applied */
	bool		in_pieces;		/* it has met two events of a key */

	/* An event is refused, or a range is done; NULL: nobody wants to know. */
	void		(*on_refused) (struct Replay *replay, int64 log_seq,
							   const ErrorData *error);
	void		(*on_progress) (struct Replay *replay);
} Replay;

/*
 * Read the definition; without the right to change it, or without such a
 * report, it is an error.  lock: nobody, the reporter included, can change or
 * run it before the end of the transaction.  With SPI connected, as the owner
 * of the extension's tables; caller: who has asked; context: of the result.
 */
extern ReplayReport *replay_load(const char *name, Oid caller, bool lock,
								 MemoryContext context);

/*
 * The snapshot decides what stands in the log: its last log_seq, and the number
 * of events after one.  With SPI connected, as the owner of the extension's
 * tables.
 */
extern void replay_measure(Snapshot snapshot, int64 after, int64 *last,
						   int64 *n);

/*
 * From this log_seq on nothing has been removed, as the snapshot shows it.  As
 * the owner of the extension's tables.
 */
extern int64 replay_complete_from(Snapshot snapshot);

/*
 * Apply what comes after replay->after, up to upto.  An event at whose fault
 * the statement fails is found and left out; any other failure is raised.
 */
extern void replay_upto(Replay *replay, Snapshot snapshot, int64 upto);

#endif							/* REPLAY_H */
