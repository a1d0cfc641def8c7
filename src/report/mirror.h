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
#include "utils/jsonb.h"
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
	bool	   *exact;			/* equal values are the same: not citext */
	char	   *key_names;		/* a text[] of them, as an SQL literal */
} MirrorTarget;

/*
 * The statement of the report, and the query that answers, in order, the log_seq
 * of the events of new_events that write or end the row whose key is $1, a JSON
 * object with the columns of the primary key.
 */
extern char *mirror_statement(const char *report, const MirrorTarget *target,
							  const MirrorSource *source);
extern char *mirror_explain_query(const MirrorTarget *target,
								  const MirrorSource *source);

/* What a mirror takes, as report.definitions.source has it. */
extern void mirror_read_source(Jsonb *json, MirrorSource *source);

/* Look at a table, open to the end of the transaction; OB004: it cannot be mirrored. */
extern MirrorTarget *mirror_target(Oid relid);

/* Its columns; what some of them mean stands in mirror_target.c. */
extern const char *mirror_column_name(const MirrorTarget *target, int attno);
extern bool mirror_has_column(const MirrorTarget *target, const char *name);
extern bool mirror_is_key(const MirrorTarget *target, AttrNumber attno);
extern bool mirror_is_updated(const MirrorTarget *target, AttrNumber attno);
extern bool mirror_is_filled(const MirrorTarget *target, AttrNumber attno);
extern char *mirror_default(const MirrorTarget *target, AttrNumber attno);

/* A text[] as an SQL literal. */
extern char *mirror_array_literal(ArrayType *array);

#endif							/* MIRROR_H */
