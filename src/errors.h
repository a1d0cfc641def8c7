/*-------------------------------------------------------------------------
 *
 * errors.h
 *	  Every SQLSTATE of our own: class OB.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * For what no standard SQLSTATE fits.  People match them in EXCEPTION blocks
 * and monitoring counts them: a code never changes what it means.
 * Include postgres.h first.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ERRORS_H
#define ERRORS_H

/*
 * A route (a capture trigger) that could not work, or a command that would
 * break one.  Raised by outbox.capture and by ALTER, DROP and CREATE TRIGGER.
 */
#define ERRCODE_OB_ROUTE_REFUSED	MAKE_SQLSTATE('O', 'B', '0', '0', '1')

/*
 * An event that Kafka would not take or that has no form on the wire: size,
 * key, topic, headers, encoding.  Raised by the statement that writes it.
 */
#define ERRCODE_OB_EVENT_REFUSED	MAKE_SQLSTATE('O', 'B', '0', '0', '2')

/*
 * PostgreSQL and Kafka contradict each other (a copy, a restored backup, a
 * topic that was lost): a person must decide.  Kept for it: today workers say
 * so in outbox.status and report.status, and no statement raises it.
 */
#define ERRCODE_OB_DIVERGENCE		MAKE_SQLSTATE('O', 'B', '0', '0', '3')

/* A report whose statement or target is not possible.  Raised by report.define. */
#define ERRCODE_OB_REPORT_REFUSED	MAKE_SQLSTATE('O', 'B', '0', '0', '4')

/* A function that waits for a worker of this database, and none is running. */
#define ERRCODE_OB_NO_WORKER		MAKE_SQLSTATE('O', 'B', '0', '0', '5')

#endif							/* ERRORS_H */
