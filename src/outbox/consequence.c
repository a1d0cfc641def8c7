/*-------------------------------------------------------------------------
 *
 * consequence.c
 *	  Events that a report's statement writes: what caused them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Whatever writes an event (outbox.emit, a route on a table that the statement
 * writes, INSERT INTO outbox.event, a trigger) comes through outbox_insert(),
 * and so by here.
 *
 * Memory: a frame for each report that runs (one, unless its statement defines
 * another one), in TopTransactionContext; an aborted level's frames go with it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "errors.h"
#include "fmgr.h"
#include "mutants.h"
#include "outbox/admission.h"
#include "outbox/consequence.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

typedef struct Frame
{
	struct Frame *outer;
	SubTransactionId level;
	bool		publishes;
	ConsequenceFunction describe;	/* NULL: nothing is known */
	void	   *arg;
} Frame;

static Frame *innermost = NULL;

static void
forget_frame(void)
{
	Frame	   *frame = innermost;

	innermost = frame->outer;
	pfree(frame);
}

void
outbox_report_begins(void)
{
	Frame	   *frame = MemoryContextAllocZero(TopTransactionContext, sizeof(Frame));

	frame->outer = innermost;
	frame->level = GetCurrentSubTransactionId();
	innermost = frame;
}

void
outbox_report_ended(void)
{
	Assert(innermost != NULL);
	forget_frame();
}

void
outbox_report_describes(ConsequenceFunction function, void *arg)
{
	innermost->describe = function;
	innermost->arg = arg;
}

void
outbox_report_publishes(void)
{
	innermost->publishes = true;
}

bool
outbox_report_runs(void)
{
	return innermost != NULL;
}

bool
outbox_report_is_silent(void)
{
	return innermost != NULL && !innermost->publishes && !MUTANT("loud_rebuild");
}

static void
add_headers(OutboxEvent *event, const char *chain)
{
	StringInfoData text;
	Jsonb	   *headers;

	initStringInfo(&text);
	appendStringInfoChar(&text, '{');
	if (event->has_cause)
		appendStringInfo(&text, "\"" HEADER_CAUSED_BY "\": \"%s\"",
						 DatumGetCString(DirectFunctionCall1(uuid_out,
															 UUIDPGetDatum(&event->caused_by))));
	if (chain != NULL)
		appendStringInfo(&text, "%s\"" HEADER_CAUSED_BY_REPORT "\": \"%s\"",
						 event->has_cause ? ", " : "", chain);
	appendStringInfoChar(&text, '}');
	headers = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text.data)));
	if (event->headers != NULL)
		headers = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
													 JsonbPGetDatum(event->headers),
													 JsonbPGetDatum(headers)));
	event->headers = headers;
	outbox_check_header_limits(headers, ERRCODE_OB_EVENT_REFUSED);
}

void
outbox_add_consequence(OutboxEvent *event)
{
	Consequence consequence = {0};

	if (innermost != NULL && innermost->describe != NULL)
		innermost->describe(innermost->arg, event, &consequence);
	if (consequence.has_id && !event->has_id)
	{
		event->has_id = true;
		event->id = consequence.id;
	}
	if (event->traceparent.data == NULL && consequence.traceparent != NULL &&
		settings_is_traceparent(consequence.traceparent, strlen(consequence.traceparent)))
	{
		event->traceparent.data = consequence.traceparent;
		event->traceparent.len = strlen(consequence.traceparent);
	}
	if (event->has_cause || consequence.chain != NULL)
		add_headers(event, consequence.chain);
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId level,
					  SubTransactionId outer, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (innermost != NULL && innermost->level >= level)
		forget_frame();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	/* its memory goes with the transaction's */
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		innermost = NULL;
}

void
consequence_install(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}
