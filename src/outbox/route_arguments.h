/*-------------------------------------------------------------------------
 *
 * route_arguments.h
 *	  The name=value arguments of a capture trigger, as stored in pg_trigger.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_ROUTE_ARGUMENTS_H
#define OUTBOX_ROUTE_ARGUMENTS_H

#include "postgres.h"

#include "access/htup.h"
#include "utils/relcache.h"

/* The oid of outbox.capture_row(); missing_ok: InvalidOid when it is gone. */
extern Oid	outbox_capture_function(bool missing_ok);

/* If argument is "name=...", the part behind the sign, else NULL. */
extern const char *route_argument_value(const char *argument, const char *name);

/* One argument of a pg_trigger row, palloc'd; NULL if it is not given. */
extern char *route_argument(Relation pg_trigger, HeapTuple tuple,
							const char *name);

#endif							/* OUTBOX_ROUTE_ARGUMENTS_H */
