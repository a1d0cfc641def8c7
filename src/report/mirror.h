/*-------------------------------------------------------------------------
 *
 * mirror.h
 *	  Mirrors: reports that keep the newest state per key in a table.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIRROR_H
#define MIRROR_H

#include "postgres.h"

#include "utils/array.h"
#include "utils/relcache.h"

/* What a mirror takes; the arrays are text[] without nulls, NULL: not given. */
typedef struct MirrorSource
{
	ArrayType  *event_types;
	ArrayType  *delete_types;
	const char *topic;
} MirrorSource;

/* The table of a mirror, as far as its statement needs it. */
typedef struct MirrorTarget
{
	Relation	rel;
	char	   *name;			/* qualified and quoted */
	int			n_keys;
	AttrNumber *keys;			/* of the primary key, in its order */
	char	  **equal;			/* their operators, as SQL */
	char	   *key_names;		/* a text[] of them, as an SQL literal */
} MirrorTarget;

/*
 * The statement of the report, and the query that answers the events of
 * new_events that write or end the row whose key is $1, a JSON object.
 */
extern char *mirror_statement(const char *report, const MirrorTarget *target,
							  const MirrorSource *source);
extern char *mirror_explain_query(const MirrorTarget *target,
								  const MirrorSource *source);

/* Look at a table, open to the end of the transaction; OB004: it cannot be mirrored. */
extern MirrorTarget *mirror_target(Oid relid);

#endif							/* MIRROR_H */
