/*-------------------------------------------------------------------------
 *
 * watch.h
 *	  What becomes of the topics that the relay publishes to.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Somebody may change a topic while events go there: give it more partitions,
 * delete it and make it anew, have it compacted, take replicas away.  The relay
 * looks when it connects, and every few minutes at the first event of a
 * transaction to the topic (also after a reload, which is how one has it look at
 * once); an idle one asks nothing.  What it sees stands in outbox.topic, which is
 * written when something has changed, and is what outbox.status speaks of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_WATCH_H
#define RELAY_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "kafka/kafka.h"

struct RelayLink;

typedef struct TopicWatch
{
	int64_t		looked_at;		/* microseconds; 0: not yet */
	bool		due;			/* whatever looked_at says */
	bool		news;			/* to be recorded: */
	bool		missing;		/* it was looked for and not there, and since */
	KafkaTopicInfo info;		/* ... it is as this says */
} TopicWatch;

/* What a look has found. */
extern void watch_note(TopicWatch *watch, const KafkaTopicInfo *info, int64_t now_us);

/* Is it time for another? */
extern bool watch_is_due(const TopicWatch *watch, int64_t now_us);
extern void watch_all_due(struct RelayLink *link);

/* Write down what is new, in a transaction of its own. */
extern void watch_record(struct RelayLink *link);

#endif							/* RELAY_WATCH_H */
