/*-------------------------------------------------------------------------
 *
 * select.h
 *	  Reports that are a SELECT: what the query says, and what is generated
 *	  from it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef SELECT_H
#define SELECT_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* How a batch's value of a column joins the one that the table has. */
typedef enum SelectMerge
{
	MERGE_KEY,					/* it finds the row */
	MERGE_SUM,
	MERGE_LEAST,
	MERGE_GREATEST,
	MERGE_AND,
	MERGE_OR,
	MERGE_NEWEST,				/* goes by the column of number seq */
	MERGE_NEWEST_SEQ			/* the log_seq that a MERGE_NEWEST is of */
} SelectMerge;

/* A column of the table that is kept. */
typedef struct SelectState
{
	char	   *name;
	Node	   *value;			/* in the query: a key or an aggregate */
	SelectMerge merge;
	int			seq;			/* MERGE_NEWEST: number of its
								 * MERGE_NEWEST_SEQ, from 0 */
	SortGroupClause *group;		/* MERGE_KEY: of GROUP BY */
} SelectState;

/* A column of the query. */
typedef struct SelectOutput
{
	char	   *name;
	Node	   *expression;		/* of the table's columns: Vars of relation 1 */
} SelectOutput;

typedef struct SelectReport
{
	const char *text;			/* the query, as it was written */
	Query	   *query;			/* analyzed */
	int			events;			/* range table index of new_events */
	List	   *states;			/* SelectState */
	List	   *outputs;		/* SelectOutput */
	bool		plain;			/* the table's columns are the query's; else a
								 * view stands between */
} SelectReport;

/*
 * Analyze a query as the current user, with the current search_path, which
 * must be a report's (report_enter()).  Raises OB004, with a place in the
 * query, when it cannot be kept up to date batch by batch.
 */
extern SelectReport *select_analyze(const char *text);

/*
 * The events' log_seq as an entry of a list, resjunk without a name, and what
 * sorts or groups by it.
 */
extern TargetEntry * select_log_seq(const SelectReport *report, int resno,
									char *name, SortGroupClause * *by);

/* What is generated; table and view are quoted and qualified names. */
extern char *select_make_table(const SelectReport *report, const char *table);
extern char *select_make_view(const SelectReport *report, const char *view,
							  Oid table);
extern char *select_make_statement(const SelectReport *report,
								   const char *table);

/*
 * Reads log_seq of the events in new_events whose row has the key; $n is the
 * n-th key's value in the order of states, except those that isnull names.
 */
extern char *select_make_explanation(const SelectReport *report,
									 const bool *isnull);

#endif							/* SELECT_H */
