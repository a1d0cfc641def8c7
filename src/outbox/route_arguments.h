/*-------------------------------------------------------------------------
 *
 * route_arguments.h
 *	  The name=value arguments of a capture trigger, as stored in pg_trigger.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_ROUTE_ARGUMENTS_H
#define OUTBOX_ROUTE_ARGUMENTS_H

#include "postgres.h"

#include "access/htup.h"
#include "utils/relcache.h"

/* If argument is "name=...", the part behind the sign, else NULL. */
extern const char *route_argument_value(const char *argument, const char *name);

/* One argument of a pg_trigger row, palloc'd; NULL if it is not given. */
extern char *route_argument(Relation pg_trigger, HeapTuple tuple,
							const char *name);

#endif							/* OUTBOX_ROUTE_ARGUMENTS_H */
