/*-------------------------------------------------------------------------
 *
 * inspect_internal.h
 *	  What inspect.c and attempts.c share.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_INSPECT_INTERNAL_H
#define KAFKA_INSPECT_INTERNAL_H

#include "kafka/internal.h"

typedef struct TopicQuestions
{
	uintptr_t	describe;		/* numbers of requests, 0: none */
	uintptr_t	create;
	uintptr_t	rights;
} TopicQuestions;

struct KafkaInspection
{
	KafkaClient *client;
	KafkaReader *reader;
	KafkaProducer *producer;	/* for the transactional.id */
	KafkaProperties const *props;
	KafkaLogFunc log;
	void	   *log_arg;
	char	   *transactional_id;
	int64_t		started;
	int64_t		deadline;
	bool		reading;		/* partitions are assigned */
	KafkaFacts	facts;
	TopicQuestions *questions;
	uintptr_t	broker_questions[KAFKA_MOST_BROKERS];
	char		broker_trouble[KAFKA_MOST_BROKERS][300];
	int			broker_codes[KAFKA_MOST_BROKERS];
};

static inline void
kafka_finding_ask(KafkaFinding *finding)
{
	finding->asked = true;
	finding->outcome = KAFKA_PENDING;
}

static inline bool
kafka_finding_is_open(const KafkaFinding *finding)
{
	return finding->asked && finding->outcome == KAFKA_PENDING;
}

/* Once it is known of all topics which exist. */
extern void kafka_inspect_try_reading(KafkaInspection *inspection);

/*
 * Does each broker refuse the timeout that is tried?  False: not known yet, too.
 */
extern bool kafka_inspect_may_try_transactional(const KafkaFacts *facts);
extern void kafka_inspect_try_transactional(KafkaInspection *inspection);

#endif							/* KAFKA_INSPECT_INTERNAL_H */
