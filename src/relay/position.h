/*-------------------------------------------------------------------------
 *
 * position.h
 *	  What PostgreSQL knows of the relay's position: the lineage's row, ticks,
 *	  dead letters; and the actions of the state machine that ask it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Each function runs transactions of its own.  An SQL error ends the worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_POSITION_H
#define RELAY_POSITION_H

#include "postgres.h"

#include "outbox/lineage.h"
#include "outbox/parked.h"
#include "outbox/tick.h"
#include "relay/machine.h"

typedef struct RelayPosition
{
	Lineage		lineage;		/* as read last */
	char		opened[40];		/* the lineage that the machine works for */
	char		home[160];
	Tick		newest;			/* newest tick in PostgreSQL */
	bool		heir_noted;		/* what another home has left is written down */
	bool		may_poll;		/* prepared transactions exist, or may */
	int64	   *dead_letters;	/* seqs that are skipped, ascending */
	int			n_dead_letters;
	ParkedTopics parked;
	TimestampTz woken_at;		/* by the first commit that no tick covers
								 * yet; 0: none is known */
} RelayPosition;

/*
 * What earlier processes have ticked is in the table, but its wait for a
 * synchronous standby may have been cut short by their end: one more
 * synchronous commit waits for all that came before it.
 */
extern void position_flush(void);

/* The row as it is now, and what is to be skipped. */
extern void position_open(RelayPosition *position, RelayResult *result);
extern void position_look(RelayPosition *position, RelayResult *result);
extern void position_record_birth(RelayPosition *position, const char *cluster,
								  const char *progress_topic,
								  RelayResult *result);
extern void position_compare(RelayPosition *position, const RelayAction *action,
							 RelayResult *result);
extern void position_record_home(RelayPosition *position, RelayResult *result);
extern void position_record_confirmed(RelayPosition *position,
									  const RelayAction *action,
									  RelayResult *result);

/* One step of what becomes of published events; see outbox/tidy.h. */
extern void position_tidy(RelayPosition *position, const RelayAction *action,
						  RelayResult *result);

/*
 * Make a tick if events may have become visible.  Returns when it is durable,
 * also on the synchronous standbys.
 */
extern void position_make_tick(RelayPosition *position,
							   const RelayAction *action, RelayResult *result);

/*
 * All that is aside of a parked topic becomes a tick of its own behind
 * action->confirmed, which must be the newest one and be in Kafka.  If somebody is
 * in the way, nothing is done.
 */
extern void position_unpark(RelayPosition *position, const RelayAction *action,
							RelayResult *result);

/* The event stays in the outbox, is listed with its reason, and is skipped. */
extern void position_dead_letter(RelayPosition *position,
								 const RelayAction *action, RelayResult *result);
extern bool position_is_dead(const RelayPosition *position, int64 seq);

#endif							/* RELAY_POSITION_H */
