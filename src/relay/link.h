/*-------------------------------------------------------------------------
 *
 * link.h
 *	  The relay's link to Kafka: its handles, the topics that it knows, and
 *	  the actions of the state machine that ask Kafka and nobody else.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Each action fills a result and may answer PENDING: it is then called again,
 * after the worker has looked at its interrupts.  No transaction is open while
 * Kafka is asked.  What a result's texts point to lives until the next action.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_LINK_H
#define RELAY_LINK_H

#include "postgres.h"

#include "kafka/kafka.h"
#include "outbox/lineage.h"
#include "relay/machine.h"
#include "relay/watch.h"

/* How long one action may ask Kafka before it looks at its interrupts. */
#define RELAY_SLICE_MS	50

/* A topic of events as this handle knows it. */
typedef struct RelayTopic
{
	char		name[KAFKA_TOPIC_SIZE];
	int			partitions;		/* 0: not looked up with this handle */
	int64_t		max_bytes;		/* its max.message.bytes; 0: not known */
	TopicWatch	watch;
} RelayTopic;

typedef struct RelayLink
{
	KafkaProperties *properties;
	KafkaProducer *producer;	/* transactional: fences, also when it does
								 * not publish */
	KafkaProducer *plain;		/* delivery = at_least_once: publishes */
	KafkaLastRead *last_read;
	char		progress_topic[256];	/* also the transactional.id */
	size_t		batch_bytes;	/* of the handles; 0: the default */
	bool		verification_known; /* for this cluster */
	KafkaVerification verification;

	RelayTopic *topics;			/* kept when the handle is replaced */
	int			n_topics;
	bool		default_reserved;	/* carshop_outbox.topic is a progress
									 * topic */
	char		wanted[KAFKA_TOPIC_SIZE];	/* for relay_link_prepare_topic */
	KafkaError	error;			/* of the last action */
} RelayLink;

/* The handle that events are sent with. */
static inline KafkaProducer *
relay_link_sender(RelayLink *link)
{
	return link->plain != NULL ? link->plain : link->producer;
}

/*
 * Names that follow from the lineage's row (which has one, or would get it) and
 * from the settings.  Needs a transaction.
 */
extern void relay_link_name(RelayLink *link, const Lineage *lineage);

extern void relay_link_open(RelayLink *link, RelayResult *result);

/* False: a handle did not end in time and was left behind. */
extern bool relay_link_close(RelayLink *link);

/* same_cluster and born are judged by the lineage's row. */
extern void relay_link_check(RelayLink *link, const Lineage *lineage,
							 RelayResult *result);
extern void relay_link_create_progress_topic(RelayLink *link,
											 RelayResult *result);

/* The cluster's id, "" when it is not known yet. */
extern const char *relay_link_cluster(RelayLink *link);

/*
 * Read the newest progress record of the lineage, and of another lineage if
 * that one is newer still.  stable: wait until no transaction is open on it.
 */
extern void relay_link_read_progress(RelayLink *link, const char *lineage,
									 bool stable, RelayResult *result);
extern void relay_link_init(RelayLink *link, RelayResult *result);

/* Look up the topic named in wanted, and make it where that is allowed. */
extern void relay_link_prepare_topic(RelayLink *link, RelayResult *result);

/* May no events go there, because a relay keeps its progress in it? */
extern bool relay_link_reserved(const RelayLink *link, const char *topic);

/* What is known of a topic; partitions is 0 when it must be prepared first. */
extern RelayTopic *relay_link_topic(RelayLink *link, const char *name);

/* An outcome and its words into a result; error must live as long as it. */
extern void relay_answer(RelayResult *result, KafkaOutcome outcome,
						 const KafkaError *error);

#endif							/* RELAY_LINK_H */
