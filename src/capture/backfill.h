/*-------------------------------------------------------------------------
 *
 * backfill.h
 *	  What the parts of outbox.backfill share (backfill.c).
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef CAPTURE_BACKFILL_H
#define CAPTURE_BACKFILL_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/relcache.h"
#include "utils/reltrigger.h"
#include "utils/timestamp.h"

typedef struct Backfill
{
	Oid			source;
	char	   *event_type;
	char	   *condition;		/* NULL: none */
	int			batch;
	Oid			owner;			/* of the table */

	int64		id;				/* in outbox.backfill_progress */
	int64		place;			/* in the list */
	int64		done;			/* rows */
	int64		total;
	char	   *name;			/* of the table, for messages */
	TimestampTz told_at;
	int64		told;			/* done, as it was told then */
} Backfill;

/* Whom we act as, and whom to become again. */
typedef struct Role
{
	Oid			user;
	int			security;
	int			settings;		/* GUC nest level */
} Role;

/* ---- backfill_sql.c: the route and the table in SQL ---- */

/*
 * The enabled trigger of the route on insert, a copy in the current context.
 * Raises OB001.
 */
extern const Trigger *backfill_trigger(Relation rel, const char *event_type);

/*
 * FROM more, the table under the name NEW, WHERE the route's condition and the
 * caller's hold.
 */
extern void backfill_append_from(StringInfo sql, const Backfill *b, Relation rel,
								 const char *more);

/* A row's key as the text of an array of texts, and its comparison with one. */
extern void backfill_append_key(StringInfo sql, Relation rel, Relation pkey);
extern void backfill_append_match(StringInfo sql, Relation rel, Relation pkey);

/* ---- backfill_list.c: whose rights, the list of rows, the progress ---- */

extern Oid	backfill_owner(Oid relation);
extern void backfill_become(Oid role, Role *former);
extern void backfill_become_again(const Role *former);

/*
 * One of the constant statements on the extension's own tables, as their owner.
 * Answers the number of rows, which stand in SPI_tuptable.
 */
extern uint64 backfill_ours(const char *sql, int n, Oid *types, Datum *values,
							const char *nulls);

/* A value of the first row of that result. */
extern Datum backfill_answer(int column, bool *isnull);

/* Go on with an unfinished backfill of this route, or note the rows and begin. */
extern void backfill_begin(Backfill *b);

/*
 * Lock the progress to the end of the transaction, and read it.  False: somebody
 * has finished it.
 */
extern bool backfill_lock(Backfill *b);

/* n rows were dealt with: take their places (an array) off the list. */
extern void backfill_cross_off(Backfill *b, Datum places, int64 n);

extern void backfill_remove(const Backfill *b);

#endif							/* CAPTURE_BACKFILL_H */
