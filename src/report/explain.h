/*-------------------------------------------------------------------------
 *
 * explain.h
 *	  report.explain: which events went into a row.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef EXPLAIN_H
#define EXPLAIN_H

#include "postgres.h"

#include "utils/jsonb.h"

/* The report, as report.definitions has it. */
typedef struct ExplainedReport
{
	const char *name;
	const char *kind;
	Jsonb	   *source;			/* NULL for kind "statement" */
	Oid			target;
	Oid			owner;
	int64		applied_seq;
	int64		start_seq;		/* made of events behind it */
} ExplainedReport;

/*
 * A query that answers the log_seq, in order, of those events of new_events
 * that went into the row.  It runs as the report's owner.
 */
typedef struct Explanation
{
	const char *query;
	int			n;				/* its parameters */
	Oid		   *types;
	Datum	   *values;
	char	   *nulls;			/* as SPI wants them */
} Explanation;

/*
 * One function per kind.  They are called with the rights and settings of the
 * report's owner (report_enter()), and with SPI connected; what they answer is
 * allocated in context.
 */
extern void explain_select(const ExplainedReport *report, Jsonb *key,
						   MemoryContext context, Explanation *explanation);
extern void explain_mirror(const ExplainedReport *report, Jsonb *key,
						   MemoryContext context, Explanation *explanation);

/* The member of an object; NULL: it has none. */
extern JsonbValue *explain_member(Jsonb *object, const char *name);

#endif							/* EXPLAIN_H */
