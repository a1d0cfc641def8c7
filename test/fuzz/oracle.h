/*-------------------------------------------------------------------------
 *
 * oracle.h
 *	  What PostgreSQL's own parser says of a JSON text.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <stdbool.h>
#include <stddef.h>

/* Is it JSON for type json (escapes: also for jsonb, which must store them)? */
extern bool oracle_json(const char *text, size_t len, bool escapes);

#endif							/* ORACLE_H */
