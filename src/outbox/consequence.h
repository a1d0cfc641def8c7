/*-------------------------------------------------------------------------
 *
 * consequence.h
 *	  Events that a report's statement writes: what caused them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The reporter says here that a report's statement runs, and the outbox asks
 * what is to be written then.  Only one process does both: nothing is shared.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_CONSEQUENCE_H
#define OUTBOX_CONSEQUENCE_H

#include "postgres.h"

#include "outbox/event.h"

/*
 * The id of the causing event, and the reports that it came through, the
 * newest last.
 */
#define HEADER_CAUSED_BY		"caused-by"
#define HEADER_CAUSED_BY_REPORT	"caused-by-report"

/* What the report knows of an event that is being written. */
typedef struct Consequence
{
	const char *chain;			/* of HEADER_CAUSED_BY_REPORT: needs no escape
								 * in JSON; NULL: none */
	const char *traceparent;	/* of the causing event; NULL: none */
	bool		has_id;
	pg_uuid_t	id;				/* the same whenever the report makes it */
} Consequence;

typedef void (*ConsequenceFunction) (void *arg, const OutboxEvent *event,
									 Consequence *consequence);

/*
 * From here on, in this (sub)transaction, a report's statement runs.  What it
 * writes is not written, unless outbox_report_publishes() says otherwise: who
 * only looks at a report, or makes it anew, publishes nothing.  Ends with
 * outbox_report_ended() or with the (sub)transaction when that is aborted.
 */
extern void outbox_report_begins(void);
extern void outbox_report_ended(void);

/* What is known of its events, and whether they are written. */
extern void outbox_report_describes(ConsequenceFunction function, void *arg);
extern void outbox_report_publishes(void);

/* Does a report's statement run, and are its events not written? */
extern bool outbox_report_runs(void);
extern bool outbox_report_is_silent(void);

/*
 * Add the headers, id and trace context that a consequence has; nothing for an
 * event that no report writes and that names no cause.
 */
extern void outbox_add_consequence(OutboxEvent *event);

extern void consequence_install(void);

#endif							/* OUTBOX_CONSEQUENCE_H */
