/*-------------------------------------------------------------------------
 *
 * sql_plan.h
 *	  A statement of our own, prepared at its first use and kept.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef SQL_PLAN_H
#define SQL_PLAN_H

#include "postgres.h"

#include "executor/spi.h"

#define SQL_PLAN_ARGS	12

typedef struct SqlPlan
{
	const char *sql;			/* every name qualified */
	int			nargs;
	Oid			types[SQL_PLAN_ARGS];
	SPIPlanPtr	plan;			/* NULL before the first use */
} SqlPlan;

/*
 * Execute with SPI connected; nulls as SPI wants them, or NULL.  Answers
 * SPI_processed; rows are in SPI_tuptable.
 */
extern uint64 sql_plan_execute(SqlPlan *plan, Datum *values,
							   const char *nulls);

/* Column n (from 1) of row i of the last result; isnull may be NULL. */
extern Datum sql_value(uint64 row, int column, bool *isnull);

/* The same as a palloc'd string, NULL for null. */
extern char *sql_string(uint64 row, int column);

#endif							/* SQL_PLAN_H */
