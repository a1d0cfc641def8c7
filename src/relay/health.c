/*-------------------------------------------------------------------------
 *
 * health.c
 *	  What is wrong with publishing, since when, and what of it was said.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "relay/health.h"

#include <stdio.h>

static void
copy_text(char *to, const char *from)
{
	if (from != NULL && from[0] != '\0' && from != to)
		snprintf(to, HEALTH_TEXT, "%s", from);
}

void
health_trouble(RelayHealth *health, int kind, const char *message,
			   const char *remedy, const char *topic, int64_t now)
{
	if (!health->trouble)
	{
		health->trouble = true;
		health->since = now;
		health->message[0] = health->remedy[0] = health->topic[0] = '\0';
	}
	health->kind = kind;
	if (message != NULL && message[0] != '\0')
		snprintf(health->topic, sizeof(health->topic), "%s", topic != NULL ? topic : "");
	copy_text(health->message, message);
	copy_text(health->remedy, remedy);
	if (health->message[0] == '\0')
		copy_text(health->message, "Kafka does not answer");
}

void
health_fine(RelayHealth *health)
{
	health->trouble = false;
	health->message[0] = health->remedy[0] = health->topic[0] = '\0';
}

HealthNews
health_news(RelayHealth *health, bool lasting)
{
	if (!health->trouble)
	{
		if (health->n_said == 0)
			return NEWS_NONE;
		health->n_said = 0;
		return NEWS_FINE;
	}
	if (!lasting || health->n_said == HEALTH_KINDS)
		return NEWS_NONE;
	for (int i = 0; i < health->n_said; i++)
	{
		if (health->said[i] == health->kind)
			return NEWS_NONE;
	}
	health->said[health->n_said++] = health->kind;
	return NEWS_TROUBLE;
}
