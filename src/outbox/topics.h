/*-------------------------------------------------------------------------
 *
 * topics.h
 *	  Which topics an event may go to.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * All of these need a transaction: they look at catalogs and at outbox.lineage.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_TOPICS_H
#define OUTBOX_TOPICS_H

#include "postgres.h"

/*
 * Is it a topic for a relay's progress?  These are all names that begin with
 * carshop-outbox-progress, those that carshop_outbox.progress_topic makes with
 * any lineage and any database of this server, and the one that this database's
 * lineage has recorded.  Events there would destroy what makes publishing
 * exactly once, so the relay asks as well, for the default topic.
 */
extern bool outbox_is_progress_topic(const char *topic);

/* Does Kafka take the name, and is it not a progress topic? */
extern bool outbox_is_topic_name(const char *topic);

/* An error of this SQLSTATE (a route's or an event's) unless it is so. */
extern void outbox_check_topic_name(const char *topic, int sqlstate);

/*
 * OB002 unless an application may name the topic: the default one, those that
 * routes of this database name without columns, and what matches
 * carshop_outbox.allowed_topics.
 */
extern void outbox_check_topic_permitted(const char *topic);

#endif							/* OUTBOX_TOPICS_H */
