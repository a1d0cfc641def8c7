/*-------------------------------------------------------------------------
 *
 * context.h
 *	  What an event carries of the transaction that makes it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_CONTEXT_H
#define OUTBOX_CONTEXT_H

#include "postgres.h"

#include "outbox/event.h"

/* Trace context of the session or statement, unless the event has one.  OB002. */
extern void outbox_set_traceparent(OutboxEvent *event);

/* Add the headers of carshop_outbox.event_headers; they win.  OB002. */
extern void outbox_add_session_headers(OutboxEvent *event);

#endif							/* OUTBOX_CONTEXT_H */
