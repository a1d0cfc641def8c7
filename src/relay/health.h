/*-------------------------------------------------------------------------
 *
 * health.h
 *	  What is wrong with publishing, since when, and what of it was said.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11, part of the relay's state machine.  A spell of trouble begins
 * with its first failure and ends when publishing is known to work, not when a
 * step of a new attempt has succeeded: otherwise log and status would swing
 * between "does not exist" and "publishing again" for as long as it lasts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_HEALTH_H
#define RELAY_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#define HEALTH_TEXT		512
#define HEALTH_TOPIC	250
#define HEALTH_KINDS	8		/* said in one spell at most */

typedef struct RelayHealth
{
	bool		trouble;
	int			kind;			/* tells one trouble from another */
	char		message[HEALTH_TEXT];
	char		remedy[HEALTH_TEXT];
	char		topic[HEALTH_TOPIC];	/* whose trouble it is; "": not one
										 * topic's */
	int64_t		since;			/* microseconds; the spell's beginning */
	int			said[HEALTH_KINDS]; /* kinds that the log has already */
	int			n_said;
} RelayHealth;

typedef enum HealthNews
{
	NEWS_NONE,
	NEWS_TROUBLE,				/* message and remedy are to be logged */
	NEWS_FINE					/* the spell that was logged is over */
} HealthNews;

/*
 * Something failed.  An empty message or remedy keeps what is there.  topic may
 * be NULL.
 */
extern void health_trouble(RelayHealth *health, int kind, const char *message,
						   const char *remedy, const char *topic, int64_t now);
extern void health_fine(RelayHealth *health);

/*
 * What the log should be told now: each kind of trouble once in a spell, and
 * only when it lasts, since one uncertain transaction is daily business.
 */
extern HealthNews health_news(RelayHealth *health, bool lasting);

#endif							/* RELAY_HEALTH_H */
