/*-------------------------------------------------------------------------
 *
 * definitions.h
 *	  Defining a report from C: what report.define does, for the functions
 *	  that generate the statement.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef DEFINITIONS_H
#define DEFINITIONS_H

#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"

typedef struct ReportDefinition
{
	const char *name;
	const char *statement;		/* reads FROM new_events, writes target */
	Oid			target;			/* a table that the caller owns */
	const char *description;	/* NULL: keep the one it has */
	const char *kind;			/* report.definitions.kind */
	const char *source;			/* JSON: what the statement was made of; NULL:
								 * a person wrote it */
	int			timeout_ms;		/* of one execution; 0: keep the one it has,
								 * 60 s for a new one */
	bool		from_now;		/* a new one: not the events in the log */
} ReportDefinition;

/*
 * Checks the statement as the current user, who becomes the report's owner, and
 * defines or replaces the report.  Connects to SPI itself.  Errors: OB004, and
 * whatever the statement raises over no events.
 */
extern void report_define_as(const ReportDefinition *definition);

/* Arguments first and the next one of an SQL function: timeout, from_now. */
extern void report_define_options(FunctionCallInfo fcinfo, int first,
								  ReportDefinition *definition);

#define REPORT_TEMPORARY_HINT \
	"Give an ordinary table: the reporter is another session."

/* Raise OB004. */
extern void report_refuse(const char *message, const char *hint);

/* OB004, unless it is one command that reads new_events and writes target. */
extern void report_check_statement(SPIPlanPtr plan, const char *statement,
								   Oid target);

/* OIDs of the tables that such a statement writes, in WITH as well. */
extern List *report_written_tables(SPIPlanPtr plan);

/* OB004 and others, unless it is a table that the caller owns and that stays. */
extern void report_check_target(Oid target, Oid caller);

/* Errors of who may not change a report, and of a name that none has. */
extern void report_check_owner(const char *name, Oid owner, Oid caller);
extern void report_does_not_exist(const char *name);

#endif							/* DEFINITIONS_H */
