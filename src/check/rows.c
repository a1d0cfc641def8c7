/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  What facts about Kafka mean before the first event: the cluster.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Each concern has at least one row, that says what is in order or what is not;
 * what could not be found out is a warning, with the way to find out.  Topics are
 * topic_rows.c's.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "check/rows_internal.h"

/* ------------------------------------------------------------------------
 * Making rows
 * ------------------------------------------------------------------------
 */
void
check_begin(Check *check, int place, const char *concern)
{
	memset(&check->row, 0, sizeof(check->row));
	check->row.place = place;
	check->row.concern = concern;
	check->row.level = "ok";
}

void
check_say(Check *check, const char *level, const char *format, ...)
{
	va_list		args;

	check->row.level = level;
	va_start(args, format);
	vsnprintf(check->row.message, sizeof(check->row.message), format, args);
	va_end(args);
}

void
check_remedy(Check *check, const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(check->row.remedy, sizeof(check->row.remedy), format, args);
	va_end(args);
}

void
check_set_remedy(Check *check, const char *setting, const char *format, ...)
{
	va_list		args;

	snprintf(check->row.setting, sizeof(check->row.setting), "carshop_outbox.%s", setting);
	va_start(args, format);
	vsnprintf(check->row.value, sizeof(check->row.value), format, args);
	va_end(args);
}

void
check_end(Check *check)
{
	check->take(check->arg, &check->row);
}

void
check_fail(Check *check, const KafkaError *error, const char *what)
{
	check_say(check, "fail", "%s%s", what, error->message);
	check_remedy(check, "%s", kafka_remedy(error));
}

/* ------------------------------------------------------------------------
 * The cluster
 * ------------------------------------------------------------------------
 */

/* True: a broker has answered. */
static bool
kafka_row(Check *check)
{
	const KafkaFacts *facts = check->facts;
	const CheckWanted *wanted = check->wanted;
	const char *protocol = facts->n_brokers > 0 ? facts->brokers[0].protocol : "";

	check_begin(check, 10, "kafka");
	if (facts->reached.outcome != KAFKA_OK)
		check_fail(check, &facts->reached.error, "");
	else if (wanted->cluster_id[0] != '\0' &&
			 strcmp(wanted->cluster_id, facts->cluster_id) != 0)
	{
		check_say(check, "fail", "This is Kafka cluster \"%s\", and the database has published to cluster \"%s\".",
				  facts->cluster_id, wanted->cluster_id);
		check_remedy(check, "Correct carshop_outbox.brokers; or, to publish to another cluster from now on: SELECT outbox.start_lineage();");
	}
	else
		check_say(check, "ok", "Kafka answers: cluster \"%s\", %d broker(s)%s%s.",
				  facts->cluster_id, facts->n_all_brokers,
				  protocol[0] != '\0' ? ", protocol " : "", protocol);
	check_end(check);
	return facts->reached.outcome == KAFKA_OK;
}

/* Brokers are reached under the names that they advertise, each by itself. */
static void
brokers_rows(Check *check)
{
	const KafkaFacts *facts = check->facts;
	char		names[CHECK_TEXT / 2] = "";
	bool		missing = false;

	for (int i = 0; i < facts->n_brokers; i++)
	{
		const KafkaBrokerFacts *broker = &facts->brokers[i];
		size_t		len = strlen(names);

		snprintf(names + len, sizeof(names) - len, "%s%d at %s", i > 0 ? ", " : "",
				 broker->id, broker->address);
		if (broker->described.outcome != KAFKA_UNREACHABLE)
			continue;
		missing = true;
		check_begin(check, 11, "brokers");
		check_say(check, "fail", "Broker %d at %s cannot be reached: %s", broker->id,
				  broker->address, broker->described.error.message);
		check_remedy(check, "%s", kafka_remedy(&broker->described.error));
		check_end(check);
	}
	if (missing)
		return;
	check_begin(check, 11, "brokers");
	check_say(check, "ok", "Each broker can be reached: %s%s.", names,
			  facts->n_brokers < facts->n_all_brokers ? "; the others were not tried" : "");
	check_end(check);
}

static void
verification_row(Check *check)
{
	const KafkaFacts *facts = check->facts;
	int			unknown = -1;
	int			silent = -1;
	int			answered = 0;

	for (int i = 0; i < facts->n_brokers; i++)
	{
		const KafkaBrokerFacts *broker = &facts->brokers[i];

		if (broker->described.outcome == KAFKA_UNREACHABLE)
			continue;
		answered++;
		if (broker->verification == KAFKA_DOES_NOT_VERIFY)
			silent = i;
		else if (broker->verification == KAFKA_VERIFICATION_UNKNOWN)
			unknown = i;
	}
	if (answered == 0)
		return;					/* the row of the brokers says it */
	check_begin(check, 12, "verification");
	if (silent >= 0)
	{
		check_say(check, check->wanted->require_verification ? "fail" : "warn",
				  "Broker %d does not say that it verifies partitions in transactions: a request that comes late could end another transaction than its own.",
				  facts->brokers[silent].id);
		check_remedy(check, "kafka-configs --bootstrap-server %s --alter --entity-type brokers --entity-default --add-config transaction.partition.verification.enable=true # Kafka 3.6 or newer; for others with its protocol: carshop_outbox.broker_verification = warn",
					 facts->bootstrap);
	}
	else if (unknown >= 0)
	{
		check_say(check, "warn", "The settings of the brokers may not be read: whether they verify partitions in transactions, and for how long a transaction may be open, is not known.");
		check_remedy(check, "kafka-acls --bootstrap-server %s --add --allow-principal User:NAME --operation DescribeConfigs --cluster",
					 facts->bootstrap);
	}
	else
		check_say(check, "ok", "The brokers verify partitions in transactions.");
	check_end(check);
}

static void
transactions_row(Check *check)
{
	const KafkaFacts *facts = check->facts;
	int64_t		least = 0;

	for (int i = 0; i < facts->n_brokers; i++)
	{
		int64_t		limit = facts->brokers[i].transaction_max_ms;

		if (limit > 0 && (least == 0 || limit < least))
			least = limit;
	}
	if (least == 0)
		return;					/* not known: see verification */
	check_begin(check, 13, "transactions");
	if (check->wanted->transaction_timeout_ms > least)
	{
		check_say(check, "fail", "The brokers allow a transaction to be open for %lld ms (transaction.max.timeout.ms), and carshop_outbox.transaction_timeout is %d ms.",
				  (long long) least, check->wanted->transaction_timeout_ms);
		check_set_remedy(check, "transaction_timeout", "%lldms", (long long) least);
	}
	else
		check_say(check, "ok", "A transaction may be open for %d ms; the brokers allow %lld ms.",
				  check->wanted->transaction_timeout_ms, (long long) least);
	check_end(check);
}

static const char *
progress_topic(const CheckWanted *wanted)
{
	for (int i = 0; i < wanted->n_topics; i++)
	{
		if (wanted->topics[i].progress)
			return wanted->topics[i].name;
	}
	return "";
}

static void
transactional_id_row(Check *check)
{
	const KafkaFinding *finding = &check->facts->transactional;
	const CheckWanted *wanted = check->wanted;
	const char *name = progress_topic(wanted);

	check_begin(check, 14, "transactional id");
	if (wanted->relay_runs)
	{
		/* nobody but the relay may touch it */
		check_say(check, wanted->relay_works ? "ok" : "warn",
				  wanted->relay_works ? "The relay uses transactional id \"%s\"." :
				  "Whether transactional id \"%s\" may be used is for the relay to say, which is not ready.", name);
		if (!wanted->relay_works)
			check_remedy(check, "SELECT * FROM outbox.status;");
	}
	else if (!finding->asked)
	{
		check_say(check, "warn", "Whether transactional id \"%s\" may be used is not known: without the brokers' settings it cannot be tried safely.", name);
		check_remedy(check, "kafka-acls --bootstrap-server %s --list --transactional-id %s",
					 check->facts->bootstrap, name);
	}
	else if (finding->outcome == KAFKA_OK)
		check_say(check, "ok", "Transactional id \"%s\" may be used.", name);
	else
		check_fail(check, &finding->error, "Transactions cannot be used: ");
	check_end(check);
}

void
check_rows(const KafkaFacts *facts, const CheckWanted *wanted, CheckTake take,
		   void *arg)
{
	Check		check = {.facts = facts, .wanted = wanted, .take = take, .arg = arg};

	if (!kafka_row(&check))
		return;
	brokers_rows(&check);
	if (!wanted->reads)
	{
		verification_row(&check);
		transactions_row(&check);
		transactional_id_row(&check);
	}
	for (int i = 0; i < facts->n_topics; i++)
		check_topic(&check, &facts->topics[i], &wanted->topics[i]);
}

void
check_no_handle(const KafkaError *error, CheckTake take, void *arg)
{
	Check		check = {.take = take, .arg = arg};

	check_begin(&check, 10, "kafka");
	check_fail(&check, error, "");
	check_end(&check);
}
