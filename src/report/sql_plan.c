/*-------------------------------------------------------------------------
 *
 * sql_plan.c
 *	  A statement of our own, prepared at its first use and kept.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/sql_plan.h"

uint64
sql_plan_execute(SqlPlan *plan, Datum *values, const char *nulls)
{
	int			rc;

	if (plan->plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(plan->sql, plan->nargs,
										   plan->types);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "could not prepare \"%s\": %s", plan->sql,
				 SPI_result_code_string(SPI_result));
		plan->plan = prepared;
	}

	rc = SPI_execute_plan(plan->plan, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "could not execute \"%s\": %s", plan->sql,
			 SPI_result_code_string(rc));
	return SPI_processed;
}

Datum
sql_value(uint64 row, int column, bool *isnull)
{
	bool		ignored;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 column, isnull != NULL ? isnull : &ignored);
}

char *
sql_string(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						column);
}
