/*-------------------------------------------------------------------------
 *
 * test_check.c
 *	  What outbox.check() and report.check() say of facts about Kafka: each
 *	  concern in order, and each in its bad states, alone.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>

#include "check/rows.h"
#include "tap.h"

#define PROGRESS	0
#define EVENTS		1

static KafkaFacts facts;
static KafkaTopicFacts topics[2];
static CheckTopic roles[2];
static CheckWanted wanted;

static CheckRow rows[100];
static int	n_rows;

static void
take(void *arg, const CheckRow *row)
{
	rows[n_rows++] = *row;
}

/* A topic as it should be. */
static void
good_topic(int i, const char *name)
{
	KafkaTopicFacts *topic = &topics[i];

	memset(topic, 0, sizeof(*topic));
	memset(&roles[i], 0, sizeof(roles[i]));
	snprintf(topic->name, sizeof(topic->name), "%s", name);
	snprintf(roles[i].name, sizeof(roles[i].name), "%s", name);
	topic->needs = KAFKA_RIGHT_WRITE;
	topic->create = true;
	topic->create_partitions = 1;
	topic->create_replication = -1;
	topic->found.asked = topic->described.asked = true;
	topic->exists = true;
	topic->partitions = 1;
	topic->replicas = topic->in_sync = 3;
	topic->settings.max_message_bytes = 1048588;
	topic->settings.min_insync = 2;
	topic->settings.deletes = true;
	topic->rights_known = true;
	topic->rights = topic->needs;
}

/* A cluster of three brokers and a relay that has not begun: nothing to say. */
static void
all_good(void)
{
	memset(&facts, 0, sizeof(facts));
	memset(&wanted, 0, sizeof(wanted));
	snprintf(facts.bootstrap, sizeof(facts.bootstrap), "kafka:9092");
	snprintf(facts.cluster_id, sizeof(facts.cluster_id), "abc");
	facts.reached.asked = facts.transactional.asked = true;
	facts.n_brokers = facts.n_all_brokers = 3;
	for (int i = 0; i < 3; i++)
	{
		KafkaBrokerFacts *broker = &facts.brokers[i];

		broker->id = i + 1;
		snprintf(broker->address, sizeof(broker->address), "kafka-%d:9092", i + 1);
		broker->described.asked = true;
		broker->verification = KAFKA_VERIFIES;
		broker->transaction_max_ms = 900000;
		broker->max_message_bytes = 1048588;
		broker->default_replication = 3;
		broker->min_insync = 2;
	}
	good_topic(PROGRESS, "progress");
	roles[PROGRESS].progress = true;
	topics[PROGRESS].needs = topics[PROGRESS].rights = KAFKA_RIGHT_READ | KAFKA_RIGHT_WRITE;
	topics[PROGRESS].read.asked = true;
	topics[PROGRESS].compact = true;
	topics[PROGRESS].settings.compacts = true;
	topics[PROGRESS].settings.deletes = false;
	good_topic(EVENTS, "events");
	facts.topics = topics;
	facts.n_topics = 2;
	wanted.topics = roles;
	wanted.n_topics = 2;
	wanted.create_topics = true;
	wanted.require_verification = true;
	wanted.max_message_bytes = 1000000;
	wanted.transaction_timeout_ms = 30000;
	wanted.replication = -1;
	wanted.tells_rights = true;
	snprintf(wanted.library, sizeof(wanted.library), "2.12.0");
}

/* As if it had never been made. */
static void
not_there(int i)
{
	KafkaTopicFacts *topic = &topics[i];

	topic->exists = topic->rights_known = false;
	topic->partitions = topic->replicas = topic->in_sync = topic->rights = 0;
	memset(&topic->settings, 0, sizeof(topic->settings));
	topic->described.asked = topic->read.asked = false;
	topic->created.asked = topic->create;
}

static void
run(void)
{
	n_rows = 0;
	check_rows(&facts, &wanted, take, NULL);
}

static int
not_ok(void)
{
	int			n = 0;

	for (int i = 0; i < n_rows; i++)
		n += strcmp(rows[i].level, "ok") != 0;
	return n;
}

static const CheckRow *
find(const char *concern, const char *words)
{
	for (int i = 0; i < n_rows; i++)
	{
		if (strcmp(rows[i].concern, concern) == 0 && strstr(rows[i].message, words) != NULL)
			return &rows[i];
	}
	return NULL;
}

/* One thing is wrong: it is said once, with what mends it, and nothing else is. */
static void
says(const char *concern, const char *level, const char *words, const char *remedy)
{
	const CheckRow *row;

	run();
	row = find(concern, words);
	if (!ok(row != NULL, "%s: %s", concern, words))
	{
		for (int i = 0; i < n_rows; i++)
			printf("#   %s %s: %s\n", rows[i].concern, rows[i].level, rows[i].message);
		return;
	}
	is_text(row->level, level, "its level");
	if (remedy != NULL)
	{
		if (!ok(strstr(row->remedy, remedy) != NULL || strstr(row->value, remedy) != NULL, "its remedy: %s", remedy))
			printf("#   %s, %s = %s\n", row->remedy, row->setting, row->value);
	}
	is_int(not_ok(), strcmp(level, "ok") != 0, "and nothing else is wrong");
}

static void
fail_with(KafkaFinding *finding, KafkaOutcome outcome, int code, const char *text)
{
	finding->asked = true;
	finding->outcome = outcome;
	finding->error.code = code;
	snprintf(finding->error.message, sizeof(finding->error.message), "%s", text);
}

static void
test_cluster(void)
{
	all_good();
	run();
	is_int(not_ok(), 0, "a good cluster");
	is_int(n_rows, 14, "says so for each concern");

	fail_with(&facts.reached, KAFKA_UNREACHABLE, -195, "kafka:9092: Connection refused");
	says("kafka", "fail", "Connection refused", "Start Kafka");
	is_int(n_rows, 1, "and nothing of what cannot be known");

	all_good();
	snprintf(wanted.cluster_id, sizeof(wanted.cluster_id), "xyz");
	says("kafka", "fail", "has published to cluster \"xyz\"", "SELECT outbox.start_lineage();");

	all_good();
	fail_with(&facts.brokers[1].described, KAFKA_UNREACHABLE, -195, "Connection refused");
	facts.brokers[1].verification = KAFKA_VERIFICATION_UNKNOWN;
	says("brokers", "fail", "Broker 2 at kafka-2:9092 cannot be reached: Connection refused", "advertised.listeners");

	all_good();
	facts.brokers[2].verification = KAFKA_DOES_NOT_VERIFY;
	says("verification", "fail", "Broker 3", "kafka-configs --bootstrap-server kafka:9092 --alter --entity-type brokers --entity-default");
	wanted.require_verification = false;
	says("verification", "warn", "Broker 3", NULL);
	all_good();
	facts.brokers[0].verification = KAFKA_VERIFICATION_UNKNOWN;
	fail_with(&facts.brokers[0].described, KAFKA_TROUBLE, 31, "Cluster authorization failed");
	says("verification", "warn", "may not be read", "--operation DescribeConfigs --cluster");

	all_good();
	facts.brokers[1].transaction_max_ms = 10000;
	says("transactions", "fail", "10000 ms", "10000ms");
}

static void
test_transactional_id(void)
{
	all_good();
	facts.transactional.asked = false;
	says("transactional id", "warn", "\"progress\" may be used is not known", "--list --transactional-id progress");
	wanted.relay_runs = true;
	says("transactional id", "warn", "for the relay to say", "outbox.status");
	wanted.relay_works = true;
	says("transactional id", "ok", "The relay uses", NULL);
	all_good();
	fail_with(&facts.transactional, KAFKA_TROUBLE, 53, "Transactional Id authorization failed");
	says("transactional id", "fail", "authorization failed", "Write and Describe on the transactional id");
}

static void
test_topics(void)
{
	all_good();
	not_there(EVENTS);
	topics[EVENTS].rights_known = false;
	says("rights", "warn", "not known before it exists", "kafka-acls --bootstrap-server kafka:9092 --list --topic events");
	ok(find("topic", "the relay may make it") != NULL, "a topic that may be made");
	ok(find("replication", "will have 3 replicas") != NULL, "of the brokers' defaults");

	fail_with(&topics[EVENTS].created, KAFKA_TROUBLE, 29, "Topic authorization failed");
	says("topic", "fail", "could not be made: Topic authorization failed", "Create");

	topics[EVENTS].create = topics[EVENTS].created.asked = false;
	topics[EVENTS].create_replication = 3;
	says("topic", "fail", "create_topics is off", "kafka-topics --bootstrap-server kafka:9092 --create --topic events --partitions 1 --replication-factor 3");

	all_good();
	fail_with(&topics[EVENTS].found, KAFKA_TROUBLE, 29, "topic \"events\": Topic authorization failed");
	topics[EVENTS].exists = false;
	says("topic", "fail", "Topic authorization failed", "Write and Describe");

	all_good();
	topics[PROGRESS].partitions = 2;
	says("topic", "fail", "must have one partition", "kafka-topics --bootstrap-server kafka:9092 --delete --topic progress");

	all_good();
	wanted.born = true;
	topics[PROGRESS].create = false;
	not_there(PROGRESS);
	says("topic", "fail", "has recorded what it has published", "outbox.status");
}

static void
test_durability(void)
{
	all_good();
	topics[EVENTS].replicas = topics[EVENTS].in_sync = topics[EVENTS].settings.min_insync = 1;
	says("replication", "warn", "has one replica", "kafka-reassign-partitions");
	facts.n_brokers = facts.n_all_brokers = 1;
	says("replication", "warn", "has one replica", "three brokers or more");

	all_good();
	topics[EVENTS].settings.min_insync = 1;
	says("replication", "warn", "min.insync.replicas = 1", "--entity-name events --add-config min.insync.replicas=2");
	topics[EVENTS].replicas = topics[EVENTS].in_sync = 2;
	says("replication", "warn", "min.insync.replicas = 1", "three replicas");

	all_good();
	topics[EVENTS].in_sync = 1;
	says("replication", "fail", "1 replica(s) in sync", "Start the brokers that are down");
	topics[EVENTS].replicas = 1;
	says("replication", "fail", "1 replica(s) in sync", "min.insync.replicas=1");

	all_good();
	topics[EVENTS].settings.unclean = true;
	says("replication", "warn", "unclean.leader.election.enable = true", "unclean.leader.election.enable=false");

	all_good();
	fail_with(&topics[EVENTS].described, KAFKA_TROUBLE, 29, "Topic authorization failed");
	memset(&topics[EVENTS].settings, 0, sizeof(topics[EVENTS].settings));
	says("cleanup", "warn", "could not be read (Topic authorization failed)", "DescribeConfigs --topic events");

	/* a topic that is to be made */
	all_good();
	wanted.tells_rights = topics[EVENTS].rights_known = true;
	not_there(EVENTS);
	topics[EVENTS].rights_known = true;
	topics[EVENTS].rights = KAFKA_RIGHT_WRITE;
	for (int i = 0; i < 3; i++)
		facts.brokers[i].default_replication = 1;
	says("replication", "fail", "will have 1 replica(s)", NULL);
	for (int i = 0; i < 3; i++)
		facts.brokers[i].min_insync = 1;
	says("replication", "warn", "will have one replica", "3");
	topics[EVENTS].create_replication = 3;
	for (int i = 0; i < 3; i++)
		facts.brokers[i].min_insync = 2;
	says("replication", "ok", "will have 3 replicas", NULL);
	for (int i = 0; i < 3; i++)
		facts.brokers[i].min_insync = 1;
	says("replication", "warn", "min.insync.replicas = 1", "--entity-type brokers --entity-default");
}

static void
test_records(void)
{
	all_good();
	topics[EVENTS].settings.max_message_bytes = 100000;
	says("message size", "warn", "takes 100000 bytes", "max.message.bytes=1001024");
	/* exactly enough */
	topics[EVENTS].settings.max_message_bytes = 1001024;
	says("message size", "ok", "takes 1001024 bytes", NULL);

	all_good();
	topics[EVENTS].settings.compacts = true;
	says("cleanup", "warn", "Kafka refuses events without a key", "cleanup.policy=delete");
	roles[EVENTS].state = true;
	says("cleanup", "ok", "newest state of a key", NULL);

	all_good();
	topics[PROGRESS].settings.deletes = true;
	says("cleanup", "fail", "publishing would stop one day", "cleanup.policy=compact");
	topics[PROGRESS].settings.deletes = topics[PROGRESS].settings.compacts = false;
	says("cleanup", "fail", "publishing would stop one day", "cleanup.policy=compact");
}

static void
test_rights(void)
{
	all_good();
	topics[EVENTS].rights = KAFKA_RIGHT_READ;
	says("rights", "fail", "may not write to topic \"events\"", "--allow-principal User:NAME --operation Write --topic events");
	all_good();
	topics[PROGRESS].rights = 0;
	says("rights", "fail", "may not read nor write to topic \"progress\"", "--operation Read --operation Write --topic progress");
	all_good();
	topics[EVENTS].rights_known = wanted.tells_rights = false;
	topics[EVENTS].rights = 0;
	snprintf(wanted.library, sizeof(wanted.library), "2.0.2");
	says("rights", "warn", "not known with this librdkafka (2.0.2)", "kafka-acls");
	all_good();
	fail_with(&topics[PROGRESS].read, KAFKA_TROUBLE, 29, "topic \"progress\": Topic authorization failed");
	says("rights", "fail", "Topic authorization failed", "Read");
}

static void
test_reading(void)
{
	KafkaError	error = {.code = 0};

	all_good();
	wanted.reads = true;
	wanted.n_topics = facts.n_topics = 1;
	good_topic(0, "events");
	topics[0].needs = topics[0].rights = KAFKA_RIGHT_READ;
	topics[0].read.asked = true;
	/* nothing of what only a publisher needs */
	topics[0].settings.unclean = true;
	run();
	is_int(not_ok(), 0, "a reader's topic");
	is_int(n_rows, 4, "kafka, brokers, topic, rights");
	not_there(0);
	topics[0].create = topics[0].created.asked = false;
	says("topic", "warn", "the reporter waits for it", "kafka-topics --bootstrap-server kafka:9092 --create --topic events");

	n_rows = 0;
	snprintf(error.message, sizeof(error.message), "no such file");
	check_no_handle(&error, take, NULL);
	ok(n_rows == 1 && strcmp(rows[0].level, "fail") == 0 && strcmp(rows[0].message, "no such file") == 0, "no handle: that is all");
}

int
main(void)
{
	test_cluster();
	test_transactional_id();
	test_topics();
	test_durability();
	test_records();
	test_rights();
	test_reading();
	return done_testing();
}
