/*-------------------------------------------------------------------------
 *
 * condition.h
 *	  The condition of a route as SQL.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef CAPTURE_CONDITION_H
#define CAPTURE_CONDITION_H

#include "postgres.h"

/*
 * A trigger's WHEN (pg_trigger.tgqual) as SQL over OLD and NEW, palloc'd.
 */
extern char *condition_text(const char *qual, Oid table);

#endif							/* CAPTURE_CONDITION_H */
