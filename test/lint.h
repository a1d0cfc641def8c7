/*-------------------------------------------------------------------------
 *
 * lint.h
 *	  What cppcheck must know of headers that it does not read (test/lint).
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>

/* does not return */
#define ereport(elevel, ...) \
	do { \
		if ((elevel) != WARNING && (elevel) != LOG && (elevel) != NOTICE) \
			abort(); \
	} while (0)
#define fail(...) abort()
#define die(...) abort()
