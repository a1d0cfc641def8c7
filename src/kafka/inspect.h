/*-------------------------------------------------------------------------
 *
 * inspect.h
 *	  What a cluster, its brokers and topics are like, asked without a trace.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Part of kafka.h, whose rules hold here, too; nobody includes it by itself.
 *
 * Nothing that is asked changes anything in Kafka: no record is written, no
 * topic made, no offset stored, no producer fenced.  How that is so for each
 * question stands in inspect.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_INSPECT_H
#define KAFKA_INSPECT_H

/* How a question went; PENDING: not answered. */
typedef struct KafkaFinding
{
	bool		asked;
	KafkaOutcome outcome;
	KafkaError	error;			/* for everything but OK and PENDING */
} KafkaFinding;

/* What one has to be allowed to do with a topic. */
#define KAFKA_RIGHT_READ	0x1
#define KAFKA_RIGHT_WRITE	0x2

typedef struct KafkaTopicFacts
{
	/* the question */
	char		name[250];
	int			needs;			/* KAFKA_RIGHT_*: Read is tried */
	bool		create;			/* if it is not there: might it be made? */
	bool		compact;		/* ... with cleanup.policy=compact */
	int			create_partitions;
	int			create_replication; /* < 0: the broker's default */

	/* the answers */
	KafkaFinding found;			/* OK, or TROUBLE: a partition has no leader */
	bool		exists;
	int			partitions;
	int			replicas;		/* of the partition that has the fewest */
	int			in_sync;		/* likewise */
	KafkaFinding described;
	KafkaTopicSettings settings;
	KafkaFinding created;		/* OK: it could be made */
	KafkaFinding read;			/* OK: it can be read */
	bool		rights_known;	/* what the broker says of our rights: asked */
	int			rights;			/* from librdkafka 2.3 on */
} KafkaTopicFacts;

typedef struct KafkaBrokerFacts
{
	int			id;
	char		address[280];	/* advertised host and port */
	KafkaFinding described;		/* that it answers at all, too */
	KafkaVerification verification;

	/* its settings; 0 or "": not said */
	int64_t		transaction_max_ms;
	int64_t		max_message_bytes;
	int			default_replication;
	int			min_insync;
	bool		unclean;
	char		protocol[32];	/* inter.broker.protocol.version, before 4.0 */
} KafkaBrokerFacts;

#define KAFKA_MOST_BROKERS	64

typedef struct KafkaFacts
{
	char		bootstrap[400]; /* bootstrap.servers as they are used */
	KafkaFinding reached;		/* OK: a broker has answered */
	char		cluster_id[128];
	int			n_all_brokers;
	int			n_brokers;		/* of those that were looked at */
	KafkaBrokerFacts brokers[KAFKA_MOST_BROKERS];
	int			n_topics;
	KafkaTopicFacts *topics;
	KafkaFinding transactional; /* OK: the transactional.id may be used */
} KafkaFacts;

typedef struct KafkaInspection KafkaInspection;

typedef struct KafkaInspectOptions
{
	const char *transactional_id;	/* NULL: not tried */
	int			timeout_ms;		/* for all of it */
	KafkaLogFunc log;
	void	   *log_arg;
} KafkaInspectOptions;

/* Does this librdkafka tell what one is allowed to do? */
extern bool kafka_tells_rights(void);

/*
 * Begin.  topics has the questions, and is copied; props must outlive it.  NULL
 * with error filled: the properties make no handle.
 */
extern KafkaInspection *kafka_inspect_open(const KafkaProperties *props,
										   const KafkaInspectOptions *options,
										   const KafkaTopicFacts *topics,
										   int n_topics, KafkaError *error);

/* Go on for at most slice_ms.  True: all is answered, or the time is over. */
extern bool kafka_inspect_step(KafkaInspection *inspection, int slice_ms);

/* What is known by now. */
extern const KafkaFacts *kafka_inspect_facts(const KafkaInspection *inspection);

extern bool kafka_inspect_close(KafkaInspection *inspection);

#endif							/* KAFKA_INSPECT_H */
