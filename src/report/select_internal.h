/*-------------------------------------------------------------------------
 *
 * select_internal.h
 *	  Reports that are a SELECT: what select_check.c does for select_query.c.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef SELECT_INTERNAL_H
#define SELECT_INTERNAL_H

#include "compat.h"
#include "report/select.h"

/* OB004 at a byte of the query (-1: nowhere). */
compat_noreturn extern void select_refuse(const char *text, int location,
										  const char *message, const char *hint);

/* One SELECT, without the clauses that cannot be kept up to date. */
extern RawStmt * select_parse(const char *text);

/* Sets report->events. */
extern void select_check_reads(SelectReport *report);

/* Functions of the list: no window functions, no sets. */
extern void select_check_functions(SelectReport *report);

/* What is kept in the table: nothing of the moment; when report->states is filled. */
extern void select_check_moments(const SelectReport *report);

/* Columns must be able to hold NULL. */
extern void select_check_types(const SelectReport *report);

#endif							/* SELECT_INTERNAL_H */
