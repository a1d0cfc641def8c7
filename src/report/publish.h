/*-------------------------------------------------------------------------
 *
 * publish.h
 *	  Reports whose statement writes events: what caused them, and that a
 *	  report is not given what it has caused itself.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * All functions run inside a transaction with SPI connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PUBLISH_H
#define PUBLISH_H

#include "postgres.h"

#include "utils/tuplestore.h"

/*
 * The events of store that the report is to be given: store itself, or another
 * one, which the caller ends, without what the report has caused.  *n is how
 * many.
 */
extern Tuplestorestate *publish_withhold(const char *report,
										 Tuplestorestate *store, int64 *n);

/* No report has caused any event of the store: every report is given all of it. */
extern bool publish_is_clean(Tuplestorestate *store);

/*
 * After report_enter(): tell the outbox what is known of events that the
 * statement will write while it runs over store.  Without publishes they get
 * their ids and are not written.  All is forgotten with the memory context.
 */
typedef struct Publishing Publishing;

extern Publishing *publish_describe(const char *report, bool publishes,
									Tuplestorestate *store);

/*
 * The run was over events that came through different reports, and has written
 * an event that could be of any of them: undo it, and give the statement the
 * events in parts.
 */
extern bool publish_is_unclear(const Publishing *publishing);

/*
 * The parts of store, in its order, whose events came through the same reports;
 * NULL: that was the last one.  The caller ends each.
 */
typedef struct PublishParts PublishParts;

extern PublishParts *publish_begin_parts(Tuplestorestate *store);
extern Tuplestorestate *publish_next_part(PublishParts *parts, int64 *n);

#endif							/* PUBLISH_H */
