/*-------------------------------------------------------------------------
 *
 * virtual.h
 *	  Values of virtual generated columns (PostgreSQL 18 on).
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A tuple holds null in their place, and what triggers get are tuples.  An event
 * has what a SELECT would show, so we compute them, as the writer.  Their
 * expressions call nothing but immutable built-in functions, so neither rights
 * nor settings play a part; an error in one (a division by zero) fails the
 * writer's statement, as a stored generated column would have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CAPTURE_VIRTUAL_H
#define CAPTURE_VIRTUAL_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "nodes/bitmapset.h"
#include "utils/relcache.h"

typedef struct VirtualColumns VirtualColumns;

/*
 * A table's virtual columns among the wanted ones, compiled in the current
 * memory context; NULL: there is none.  Valid as long as the table does not
 * change.
 */
extern VirtualColumns *virtual_columns(Relation rel, const Bitmapset *wanted);

/*
 * Compute them for a row, whose columns are desc's: into values and isnull.
 * columns may be NULL.  Results are palloc'd in the current memory context.
 */
extern void virtual_compute(VirtualColumns *columns, TupleDesc desc,
							Datum *values, bool *isnull);

#endif							/* CAPTURE_VIRTUAL_H */
