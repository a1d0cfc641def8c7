/*-------------------------------------------------------------------------
 *
 * smoke_faults.c
 *	  What src/kafka says when something is refused, late or not there,
 *	  against a real broker: smoke_faults bootstrap-servers
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * See smoke.h.  The broker must look for transactions that are too old more
 * often than every few seconds (transaction.abort.timed.out.transaction.
 * cleanup.interval.ms).
 *
 *-------------------------------------------------------------------------
 */
#include "smoke.h"

/* The topics, and the progress of before. */
static void
make_topics(void)
{
	KafkaConfigEntry compact[] = {{"cleanup.policy", "compact"}};
	KafkaConfigEntry small[] = {{"max.message.bytes", "1000000"}};
	KafkaProducer *producer = open_producer(transactional_id);
	KafkaError	error = {0};

	is_int(create(producer, events_topic, 3, small, 1), KAFKA_OK,
		   "topic of events created");
	is_int(create(producer, progress_topic, 1, compact, 1), KAFKA_OK,
		   "progress topic created");
	is_int(init(producer), KAFKA_OK, "init");
	kafka_producer_begin(producer, &error);
	send(producer, progress_topic, 0, "relay", "progress 4", 10, 1);
	is_int(commit(producer), KAFKA_OK, "a first record");
	ok(kafka_producer_close(producer), "closes");
}

static void
check_refusal(void)
{
	size_t		size = 1500000;
	char	   *large = malloc(4 * size);
	KafkaProducer *producer = open_producer(transactional_id);
	KafkaError	error = {0};
	KafkaTopicInfo info;
	size_t		i;

	/* Not compressible, or the topic's limit would not be met. */
	srandom(1);
	for (i = 0; i < 4 * size; i++)
		large[i] = (char) random();

	is_int(init(producer), KAFKA_OK, "init");
	look_up(producer, events_topic, &info);
	kafka_producer_begin(producer, &error);
	send(producer, events_topic, 0, "key", "small", 5, 41);
	send(producer, events_topic, 1, "key", large, size, 42);
	is_int(commit(producer), KAFKA_REFUSED,
		   "a record over the topic's limit is refused");
	is_int(kafka_producer_refused_tag(producer), 42, "and named by its tag");
	ok(kafka_producer_close(producer), "the refused producer closes");

	producer = open_producer(transactional_id);
	is_int(init(producer), KAFKA_OK, "init");
	look_up(producer, events_topic, &info);
	kafka_producer_begin(producer, &error);
	send(producer, events_topic, 0, "key", "small", 5, 41);
	is_int(send(producer, events_topic, 1, "key", large, 4 * size, 43),
		   KAFKA_REFUSED, "a record over the client's limit is refused locally");
	is_int(commit(producer), KAFKA_REFUSED, "and so is the commit");
	is_int(kafka_producer_refused_tag(producer), 43, "with its tag");
	ok(kafka_producer_close(producer), "closes with an open transaction");
	free(large);
}

/*
 * The server's clock, and the topic's limits for it, are no event's fault.  The
 * broker measures its own marker of the aborted transaction by the same limit,
 * so that this transactional.id is of no use afterwards.
 */
static void
check_timestamps(void)
{
	KafkaConfigEntry narrow[] = {{"message.timestamp.before.max.ms", "0"}};
	KafkaProducer *producer;
	KafkaError	error = {0};
	char		topic[80];
	char		name[700];

	snprintf(topic, sizeof(topic), "%s-clock", events_topic);
	producer = open_producer(topic);
	is_int(create(producer, topic, 1, narrow, 1), KAFKA_OK,
		   "a topic that wants a clock without any difference");
	is_int(init(producer), KAFKA_OK, "init");
	kafka_producer_begin(producer, &error);
	send(producer, topic, 0, "key", "late", 4, 51);
	is_int(commit(producer), KAFKA_TROUBLE, "a timestamp is no event's fault");
	is_int(kafka_producer_refused_tag(producer), 0, "none is named");
	ok(strstr(kafka_remedy(&commit_error), "clock") != NULL,
	   "the remedy speaks of clocks");
	ok(kafka_producer_close(producer), "closes");

	producer = open_producer(transactional_id);
	is_int(init(producer), KAFKA_OK, "init");
	kafka_producer_begin(producer, &error);
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	is_int(send(producer, name, 0, "key", "x", 1, 52), KAFKA_TROUBLE,
		   "nor is the name of a topic");
	is_int(commit(producer), KAFKA_TROUBLE, "and the batch is not committed");
	is_int(kafka_producer_refused_tag(producer), 0, "none is named");
	ok(kafka_producer_close(producer), "closes");
}

/* A broker that aborts a transaction for its time fences it off. */
static void
check_time_out(void)
{
	KafkaProducer *producer = open_producer_timeout(transactional_id, 1000);
	KafkaLastRecord record;
	KafkaError	error = {0};
	KafkaTopicInfo info;

	is_int(init(producer), KAFKA_OK, "init with a short time");
	look_up(producer, progress_topic, &info);
	kafka_producer_begin(producer, &error);
	send(producer, progress_topic, 0, "relay", "too late", 8, 1);
	is_int(kafka_producer_flush(producer, 5000, &error), KAFKA_OK,
		   "delivered, not committed");
	is_int(read_last(progress_topic, "relay", true, MAX_TURNS, &record),
		   KAFKA_OK, "the broker aborts the transaction for its time");
	is_text(record.value, "progress 4", "and its record is not there");
	free(record.value);
	is_int(commit(producer), KAFKA_UNCERTAIN, "which is not taken for a fence");
	ok(commit_error.timed_out, "but told as what it is");
	ok(kafka_producer_close(producer), "closes");

	producer = open_producer(transactional_id);
	is_int(init(producer), KAFKA_OK, "the next handle");
	look_up(producer, progress_topic, &info);
	kafka_producer_begin(producer, &error);
	send(producer, progress_topic, 0, "relay", "progress 5", 10, 1);
	is_int(commit(producer), KAFKA_OK, "commits");
	ok(kafka_producer_close(producer), "closes");
}

/* "There is no record" and "there is no topic" are different answers. */
static void
check_no_topic(void)
{
	KafkaLastRecord record = {.topic_exists = true, .found = true};

	is_int(read_last("smoke-no-such-topic", "relay", true, MAX_TURNS, &record),
		   KAFKA_OK, "the last record of a missing topic is asked for");
	ok(!record.topic_exists && !record.found && record.value == NULL,
	   "the topic does not exist, and says so");
}

/* Several look-ups at once, each called for one short slice in turn. */
static void
check_look_ups_in_turns(void)
{
	enum
	{
	TOPICS = 20};
	KafkaProducer *producer = open_producer(NULL);
	KafkaError	error = {0};
	int			answered[TOPICS] = {0};
	int			missing = TOPICS;
	int64_t		longest = 0;
	int64_t		deadline = now_us() + 30000000;

	while (missing > 0 && now_us() < deadline)
	{
		int			i;

		for (i = 0; i < TOPICS; i++)
		{
			KafkaTopicInfo info;
			int64_t		started = now_us();
			char		topic[100];

			if (answered[i])
				continue;
			/* the first three exist */
			snprintf(topic, sizeof(topic), "%s-%d", events_topic, i);
			if (i == 0)
				strcpy(topic, progress_topic);
			else if (i == 1)
				strcpy(topic, events_topic);
			else if (i == 2)
				snprintf(topic, sizeof(topic), "%s-clock", events_topic);
			if (kafka_producer_topic(producer, topic, 1, 5000, &info,
									 &error) == KAFKA_OK)
			{
				answered[i] = 1;
				missing--;
				if (info.exists != (i < 3))
					ok(false, "existence of topic %s", topic);
			}
			if (now_us() - started > longest)
				longest = now_us() - started;
		}
	}
	is_int(missing, 0, "20 topics are looked up in turns, in slices of 1 ms");
	printf("# the longest call took %.1f ms\n", (double) longest / 1000);
	ok(kafka_producer_close(producer), "closes");
}

/*
 * A record with headers to a partition that does not exist, as after a topic was
 * made anew with fewer: the library must not free the headers twice.
 */
static void
check_no_partition(void)
{
	KafkaHeader header = {"id", "7", 1};
	KafkaRecord record = {
		.topic = events_topic, .partition = 99, .value = "v", .value_len = 1,
		.headers = &header, .n_headers = 1, .tag = 1
	};
	KafkaProducer *producer = open_producer(transactional_id);
	KafkaError	error = {0};
	KafkaTopicInfo info;
	KafkaOutcome outcome;

	init(producer);
	look_up(producer, events_topic, &info);
	kafka_producer_begin(producer, &error);
	outcome = kafka_producer_send(producer, &record, &error);
	ok(outcome != KAFKA_OK && outcome != KAFKA_REFUSED,
	   "a partition that does not exist is no event's fault: %s", error.message);
	ok(commit(producer) != KAFKA_OK, "and nothing is committed");
	ok(kafka_producer_close(producer), "closes");
}

/* Closing while nobody answers and a question is under way. */
static void
check_close_unanswered(void)
{
	KafkaProducerOptions options = {
		.transaction_timeout_ms = 30000,
		.queue_bytes = 1024 * 1024,
		.queue_messages = 1000
	};
	KafkaProperties *props = kafka_properties_new();
	KafkaTopicInfo info;
	KafkaError	error = {0};
	KafkaProducer *producer;

	kafka_properties_set(props, "bootstrap.servers", "127.0.0.1:1", &error);
	producer = kafka_producer_open(props, &options, &error);
	kafka_properties_free(props);
	is_int(kafka_producer_topic(producer, "somewhere", 10, 5000, &info,
								&error), KAFKA_PENDING,
		   "nobody answers");
	ok(kafka_producer_close(producer), "closes all the same");
}

int
main(int argc, char **argv)
{
	if (argc != 2)
	{
		fprintf(stderr, "usage: smoke_faults bootstrap-servers\n");
		return 2;
	}
	smoke_names(argv[1]);
	make_topics();
	check_refusal();
	check_timestamps();
	check_time_out();
	check_no_topic();
	check_look_ups_in_turns();
	check_no_partition();
	check_close_unanswered();
	return done_testing();
}
