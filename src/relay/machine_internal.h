/*-------------------------------------------------------------------------
 *
 * machine_internal.h
 *	  What machine.c (what next), judge.c (what came of it) and setback.c
 *	  (what if nothing did) share.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_MACHINE_INTERNAL_H
#define RELAY_MACHINE_INTERNAL_H

#include "fault.h"
#include "invariant.h"
#include "relay/machine.h"

/* Times are in microseconds, the settings in milliseconds. */
#define MS(n)			((int64_t) (n) * 1000)

#define TROUBLE_AFTER	MS(2000)	/* a silence that long is told */
#define RECORD_AFTER	MS(IN_HASTE(1000, 200)) /* idle that long: write down
												 * what is confirmed */

#define UNPARK_AGAIN	MS(1000)	/* when somebody was in the way */

#define TIDY_AFTER		MS(IN_HASTE(5000, 200)) /* after a publication, at the
												 * latest */
#define TIDY_BACKOFF_FIRST MS(IN_HASTE(1000, 50))
#define TIDY_BACKOFF_MOST MS(60000)

#define FENCED_MOST		5		/* times in ten minutes: then it stops */
#define LOOK_PAUSE		MS(100) /* between two looks while stopped */

/*
 * Kinds of trouble of our own; librdkafka's codes are small numbers, those of
 * src/kafka begin at 20000, and reasons for a stop have their own range.
 */
enum
{
	KIND_CONNECTING = 10000,
	KIND_SILENT,				/* an action gets no answer in time */
	KIND_FENCED,
	KIND_DOUBT,					/* a contradiction that is looked at again */
	KIND_OWN_RECORD,			/* the progress record was refused */
	KIND_VERIFICATION,
	KIND_STANDBY,				/* standbys do not have what is to be
								 * published */
	KIND_STOPPED = 100000		/* and above: one for each reason */
};

#define REMEDY_CONNECTION \
	"Check that the brokers in carshop_outbox.brokers run and can be reached from this server; events are kept and will be published."

/* What holds between any two calls, see invariant.h. */
extern void machine_check(const RelayMachine *machine);

extern void machine_close_and_retry(RelayMachine *machine, int64_t at);
extern int64_t machine_confirmed_by(const Progress *place);
extern void machine_take_ticket(RelayMachine *machine, uint64_t ticket,
								int64_t tick);
extern void machine_answer_tickets(RelayMachine *machine);

/* A contradiction: only a person can tell.  The handle goes, nothing is fenced. */
extern void machine_stop(RelayMachine *machine, const char *reason,
						 const char *remedy, int64_t now);

/* Back to CLOSED by result->outcome, with a pause that grows. */
extern void machine_fail(RelayMachine *machine, const RelayResult *result,
						 int64_t now);

/* What one broker denies may be there all the same: look again. */
extern void machine_doubtful(RelayMachine *machine, const char *reason,
							 int64_t now);

/* The same, and stop when it stays so.  reason is static: it tells doubts apart. */
extern void machine_doubt(RelayMachine *machine, const char *reason,
						  const char *remedy, int64_t now);

/* An action is not finished, or did not succeed. */
extern void machine_pending(RelayMachine *machine, RelayActionKind kind,
							const RelayResult *result, int64_t now);
extern void machine_not_done(RelayMachine *machine, RelayActionKind kind,
							 const RelayResult *result, int64_t now);

#endif							/* RELAY_MACHINE_INTERNAL_H */
