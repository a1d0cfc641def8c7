/*-------------------------------------------------------------------------
 *
 * topic_rows.c
 *	  What facts about Kafka mean before the first event: a topic.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A topic that is not there yet is judged by what it would be made of: our
 * settings and the brokers' defaults.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "check/rows_internal.h"

/* A record has a head, and so has its batch; both count for the broker. */
#define HEAD_BYTES		1024

/* For cleanup.policy and the numbers of replicas. */
#define CONFIGURE		"kafka-configs --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config "

/* What a topic is, or would be, made of; 0: not known. */
typedef struct Durability
{
	int			replicas;
	int			min_insync;
	bool		unclean;
} Durability;

/* ------------------------------------------------------------------------
 * Is it there, and right?
 * ------------------------------------------------------------------------
 */

/* The command that makes the topic by hand. */
static void
make_it(Check *check, const KafkaTopicFacts *topic, const char *before)
{
	char		replication[64] = "";

	if (topic->create_replication > 0)
		snprintf(replication, sizeof(replication), " --replication-factor %d",
				 topic->create_replication);
	check_remedy(check, "%skafka-topics --bootstrap-server %s --create --topic %s --partitions %d%s%s",
				 before, check->facts->bootstrap, topic->name,
				 topic->create_partitions, replication,
				 topic->compact ? " --config cleanup.policy=compact" : "");
}

static void
missing_row(Check *check, const KafkaTopicFacts *topic, const CheckTopic *role)
{
	const CheckWanted *wanted = check->wanted;

	if (wanted->reads)
	{
		check_say(check, "warn", "Topic \"%s\" does not exist yet: the reporter waits for it.", topic->name);
		make_it(check, topic, "");
	}
	else if (role->progress && wanted->born)
	{
		check_say(check, "fail", "Topic \"%s\" does not exist, in which this database has recorded what it has published.", topic->name);
		check_remedy(check, "SELECT * FROM outbox.status;");
	}
	else if (!topic->create)
	{
		check_say(check, "fail", "Topic \"%s\" does not exist, and carshop_outbox.create_topics is off.", topic->name);
		make_it(check, topic, "");
	}
	else if (topic->created.outcome == KAFKA_OK)
		check_say(check, "ok", "Topic \"%s\" does not exist; the relay may make it.", topic->name);
	else
	{
		check_say(check, "fail", "Topic \"%s\" does not exist and could not be made: %s",
				  topic->name, topic->created.error.message);
		check_remedy(check, "%s", kafka_remedy(&topic->created.error));
	}
}

static void
topic_row(Check *check, const KafkaTopicFacts *topic, const CheckTopic *role)
{
	check_begin(check, 20, "topic");
	if (topic->found.outcome != KAFKA_OK)
		check_fail(check, &topic->found.error, "");
	else if (!topic->exists)
		missing_row(check, topic, role);
	else if (role->progress && topic->partitions != 1)
	{
		check_say(check, "fail", "Topic \"%s\" is for the relay's progress and must have one partition; it has %d.",
				  topic->name, topic->partitions);
		check_remedy(check, "Name another one with carshop_outbox.progress_topic, or before anything is published: kafka-topics --bootstrap-server %s --delete --topic %s",
					 check->facts->bootstrap, topic->name);
	}
	else
		check_say(check, "ok", "Topic \"%s\" has %d partition(s).", topic->name, topic->partitions);
	check_end(check);
}

/* ------------------------------------------------------------------------
 * Can what Kafka has acknowledged be lost?
 * ------------------------------------------------------------------------
 */
static Durability
durability_of(const Check *check, const KafkaTopicFacts *topic)
{
	Durability	durability = {0};
	const KafkaBrokerFacts *broker = check->facts->brokers;

	if (topic->exists)
	{
		durability.replicas = topic->replicas;
		durability.min_insync = topic->settings.min_insync;
		durability.unclean = topic->settings.unclean;
		return durability;
	}
	if (check->facts->n_brokers > 0)
	{
		durability.replicas = broker->default_replication;
		durability.min_insync = broker->min_insync;
		durability.unclean = broker->unclean;
	}
	if (topic->create_replication > 0)
		durability.replicas = topic->create_replication;
	return durability;
}

/* More replicas, as far as there are brokers. */
static void
more_replicas(Check *check, const KafkaTopicFacts *topic)
{
	if (check->facts->n_all_brokers < 3)
		check_remedy(check, "Use a Kafka cluster of three brokers or more for events that must not be lost.");
	else if (topic->exists)
		check_remedy(check, "Give the topic three replicas with kafka-reassign-partitions, then: " CONFIGURE "min.insync.replicas=2",
					 check->facts->bootstrap, topic->name);
	else
		check_set_remedy(check, "topic_replication_factor", "3");
}

static void
replication_rows(Check *check, const KafkaTopicFacts *topic)
{
	const char *kafka = check->facts->bootstrap;
	const char *has = topic->exists ? "has" : "will have";
	Durability	is = durability_of(check, topic);

	check_begin(check, 21, "replication");
	if (is.replicas == 0)
	{
		check_say(check, "warn", "How many replicas topic \"%s\" will have is not known: the brokers' settings may not be read.", topic->name);
		check_set_remedy(check, "topic_replication_factor", "3");
	}
	else if (is.min_insync > is.replicas || (topic->exists && is.min_insync > topic->in_sync))
	{
		check_say(check, "fail", "Topic \"%s\" %s %d replica(s) in sync and min.insync.replicas = %d: Kafka does not take events.",
				  topic->name, has, topic->exists ? topic->in_sync : is.replicas, is.min_insync);
		check_remedy(check, "Start the brokers that are down, or: " CONFIGURE "min.insync.replicas=%d",
					 kafka, topic->name, is.replicas > 2 ? is.replicas - 1 : 1);
	}
	else if (is.replicas == 1)
	{
		check_say(check, "warn", "Topic \"%s\" %s one replica: acknowledged events can be lost with one broker.", topic->name, has);
		more_replicas(check, topic);
	}
	else if (is.min_insync == 0)
		return;					/* not known: the row of cleanup says so */
	else if (is.min_insync == 1)
	{
		check_say(check, "warn", "Topic \"%s\" %s %d replicas and min.insync.replicas = 1: acknowledged events can be lost with one broker.", topic->name, has, is.replicas);
		if (is.replicas < 3)
			more_replicas(check, topic);
		else if (topic->exists)
			check_remedy(check, CONFIGURE "min.insync.replicas=2", kafka, topic->name);
		else
			check_remedy(check, "kafka-configs --bootstrap-server %s --alter --entity-type brokers --entity-default --add-config min.insync.replicas=2", kafka);
	}
	else
		check_say(check, "ok", "Topic \"%s\" %s %d replicas, and %d of them have an event before it counts as published.", topic->name, has, is.replicas, is.min_insync);
	check_end(check);

	if (!is.unclean)
		return;
	check_begin(check, 21, "replication");
	check_say(check, "warn", "A replica of topic \"%s\" that lags behind may become leader (unclean.leader.election.enable = true): acknowledged events can be lost.", topic->name);
	if (topic->exists)
		check_remedy(check, CONFIGURE "unclean.leader.election.enable=false", kafka, topic->name);
	else
		check_remedy(check, "kafka-configs --bootstrap-server %s --alter --entity-type brokers --entity-default --add-config unclean.leader.election.enable=false", kafka);
	check_end(check);
}

/* ------------------------------------------------------------------------
 * Does it take what we send?
 * ------------------------------------------------------------------------
 */
static void
limit_row(Check *check, const KafkaTopicFacts *topic)
{
	int64_t		wanted = check->wanted->max_message_bytes + HEAD_BYTES;
	int64_t		limit = topic->exists ? topic->settings.max_message_bytes :
	check->facts->n_brokers > 0 ? check->facts->brokers[0].max_message_bytes : 0;

	if (limit == 0)
		return;					/* not known: the row of cleanup says so */
	check_begin(check, 22, "message size");
	if (limit >= wanted)
		check_say(check, "ok", "Topic \"%s\" takes %lld bytes, which every event fits into.", topic->name, (long long) limit);
	else
	{
		check_say(check, "warn", "Topic \"%s\" takes %lld bytes (%s), and carshop_outbox.max_message_bytes lets events of %lld bytes through: larger ones become dead letters.",
				  topic->name, (long long) limit,
				  topic->exists ? "max.message.bytes" : "the brokers' message.max.bytes",
				  (long long) check->wanted->max_message_bytes);
		if (topic->exists)
			check_remedy(check, CONFIGURE "max.message.bytes=%lld", check->facts->bootstrap, topic->name, (long long) wanted);
		else
			check_set_remedy(check, "max_message_bytes", "%lld", (long long) (limit > 2 * HEAD_BYTES ? limit - HEAD_BYTES : HEAD_BYTES));
	}
	check_end(check);
}

static void
cleanup_row(Check *check, const KafkaTopicFacts *topic, const CheckTopic *role)
{
	const KafkaTopicSettings *settings = &topic->settings;

	if (!topic->exists)
		return;
	check_begin(check, 23, "cleanup");
	if (topic->described.outcome != KAFKA_OK)
	{
		check_say(check, "warn", "The settings of topic \"%s\" could not be read (%s): whether it is compacted, how many replicas must have an event and which sizes it takes is not known.",
				  topic->name, topic->described.error.message);
		check_remedy(check, "kafka-acls --bootstrap-server %s --add --allow-principal User:NAME --operation DescribeConfigs --topic %s", check->facts->bootstrap, topic->name);
	}
	else if (role->progress && (!settings->compacts || settings->deletes))
	{
		check_say(check, "fail", "Topic \"%s\" is for the relay's progress, and Kafka deletes old records there: publishing would stop one day.", topic->name);
		check_remedy(check, CONFIGURE "cleanup.policy=compact", check->facts->bootstrap, topic->name);
	}
	else if (!role->progress && settings->compacts && !role->state)
	{
		check_say(check, "warn", "Topic \"%s\" is compacted: Kafka refuses events without a key there, and of those with the same key it keeps the newest only.", topic->name);
		check_remedy(check, CONFIGURE "cleanup.policy=delete", check->facts->bootstrap, topic->name);
	}
	else
		check_say(check, "ok", role->progress ? "Topic \"%s\" is compacted, as the relay's progress needs." :
				  settings->compacts ? "Topic \"%s\" is compacted, and all that goes there is the newest state of a key." :
				  "Topic \"%s\" is not compacted.", topic->name);
	check_end(check);
}

/* ------------------------------------------------------------------------
 * May we?
 * ------------------------------------------------------------------------
 */
static void
rights_row(Check *check, const KafkaTopicFacts *topic)
{
	const CheckWanted *wanted = check->wanted;
	const char *kafka = check->facts->bootstrap;
	int			lacks = topic->rights_known ? topic->needs & ~topic->rights : 0;

	check_begin(check, 24, "rights");
	if (topic->read.asked && topic->read.outcome != KAFKA_OK && lacks == 0)
		check_fail(check, &topic->read.error, topic->read.outcome == KAFKA_UNREACHABLE ?
				   "The topic could not be read: " : "");
	else if (lacks != 0)
	{
		check_say(check, "fail", "The Kafka user may not %s topic \"%s\".",
				  lacks == KAFKA_RIGHT_READ ? "read" : lacks == KAFKA_RIGHT_WRITE ? "write to" : "read nor write to",
				  topic->name);
		check_remedy(check, "kafka-acls --bootstrap-server %s --add --allow-principal User:NAME%s%s --topic %s", kafka,
					 lacks & KAFKA_RIGHT_READ ? " --operation Read" : "",
					 lacks & KAFKA_RIGHT_WRITE ? " --operation Write" : "", topic->name);
	}
	else if ((topic->needs & KAFKA_RIGHT_WRITE) && !topic->rights_known)
	{
		if (!wanted->tells_rights)
			check_say(check, "warn", "Whether the Kafka user may write to topic \"%s\" is not known with this librdkafka (%s); 2.3 and newer ones can ask.",
					  topic->name, wanted->library);
		else
			check_say(check, "warn", "Whether the Kafka user may write to topic \"%s\" is not known%s.",
					  topic->name, topic->exists ? "" : " before it exists");
		check_remedy(check, "kafka-acls --bootstrap-server %s --list --topic %s", kafka, topic->name);
	}
	else if (!topic->exists)
		return;					/* a reader's: there is nothing to be read */
	else
		check_say(check, "ok", "The Kafka user may %s topic \"%s\".",
				  topic->needs == KAFKA_RIGHT_READ ? "read" : topic->needs == KAFKA_RIGHT_WRITE ? "write to" : "read and write to",
				  topic->name);
	check_end(check);
}

void
check_topic(Check *check, const KafkaTopicFacts *facts, const CheckTopic *topic)
{
	const CheckWanted *wanted = check->wanted;
	bool		will_exist = facts->exists || facts->created.outcome == KAFKA_OK;

	topic_row(check, facts, topic);
	/* of what cannot be looked at there is nothing more to say */
	if (facts->found.outcome != KAFKA_OK && !facts->exists)
		return;
	if (!facts->exists && (wanted->reads || !facts->created.asked || !will_exist))
		return;
	if (!wanted->reads)
	{
		replication_rows(check, facts);
		if (!topic->progress)
			limit_row(check, facts);
		cleanup_row(check, facts, topic);
	}
	rights_row(check, facts);
}
