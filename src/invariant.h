/*-------------------------------------------------------------------------
 *
 * invariant.h
 *	  What must hold whatever comes in, stated in plain C sources.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Checked in the unit tests and in builds for a PostgreSQL that was configured
 * with --enable-cassert; nothing otherwise: a production server does not end
 * for it.  Sources with postgres.h use PostgreSQL's own Assert().
 *
 *-------------------------------------------------------------------------
 */
#ifndef INVARIANT_H
#define INVARIANT_H

#ifdef CHECK_INVARIANTS
#include <stdio.h>
#include <stdlib.h>
#define Invariant(condition) \
	((condition) ? (void) 0 : \
	 (fprintf(stderr, "%s:%d: invariant failed: %s\n", __FILE__, __LINE__, #condition), \
	  abort()))
#else
#define Invariant(condition)	((void) 0)
#endif

#endif							/* INVARIANT_H */
