/*-------------------------------------------------------------------------
 *
 * smoke_kafka.c
 *	  src/kafka against a real broker: smoke_kafka bootstrap-servers
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Makes topics with names of its own (process id and time), never touches
 * others, prints TAP.
 *
 *-------------------------------------------------------------------------
 */
#include <dirent.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "smoke.h"

static void
check_last(const char *topic, const char *key, bool stable,
		   const char *expected)
{
	KafkaLastRecord record;

	is_int(read_last(topic, key, stable, MAX_TURNS, &record), KAFKA_OK,
		   stable ? "stable read is complete" : "advisory read is complete");
	ok(record.topic_exists, "the topic exists");
	if (expected == NULL)
		ok(!record.found, "there is no record for the key");
	else
		is_text(record.value, expected, "the newest record is read");
	free(record.value);
	free(record.other_value);
}

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */
static void
check_topics(KafkaProducer *producer)
{
	KafkaConfigEntry compact[] = {{"cleanup.policy", "compact"}};
	KafkaConfigEntry small[] = {{"max.message.bytes", "1000000"}};
	KafkaConfigEntry wrong[] = {{"no.such.setting", "x"}};
	KafkaTopicInfo info;
	KafkaVerification verification = KAFKA_VERIFICATION_UNKNOWN;
	KafkaOutcome outcome = KAFKA_PENDING;
	KafkaError	error = {0};
	int			turn;

	is_int(look_up(producer, events_topic, &info), KAFKA_OK,
		   "a missing topic is looked up");
	ok(!info.exists, "a missing topic does not exist, nor does asking make it");
	is_int(look_up(producer, events_topic, &info), KAFKA_OK, "and again");
	ok(!info.exists, "still missing");

	is_int(create(producer, events_topic, 3, small, 1), KAFKA_OK,
		   "topic of events created");
	is_int(create(producer, events_topic, 3, small, 1), KAFKA_OK,
		   "creating it twice is no error");
	is_int(create(producer, progress_topic, 1, compact, 1), KAFKA_OK,
		   "progress topic created");
	is_int(create(producer, "smoke-wrong", 1, wrong, 1), KAFKA_MISCONFIGURED,
		   "a wrong topic setting is a matter for a person");

	is_int(look_up(producer, events_topic, &info), KAFKA_OK,
		   "topic of events looked up");
	ok(info.exists && info.partitions == 3, "it has 3 partitions");
	is_int(info.settings.max_message_bytes, 1000000, "and its own limit of a message");
	is_int(look_up(producer, progress_topic, &info), KAFKA_OK,
		   "progress topic looked up");
	ok(info.exists && info.partitions == 1, "it has 1 partition");
	is_int(info.settings.max_message_bytes, 1048588, "and the default limit");
	is_int(look_up(producer, "not a topic name", &info), KAFKA_MISCONFIGURED,
		   "an illegal topic name is misconfigured");

	for (turn = 0; turn < MAX_TURNS && outcome == KAFKA_PENDING; turn++)
		outcome = kafka_admin_verification(producer, SLICE_MS, &verification,
										   &error);
	is_int(outcome, KAFKA_OK, "the broker is asked for verification");
	is_int(verification, KAFKA_VERIFIES, "the broker verifies");

	ok(kafka_producer_cluster_id(producer) != NULL &&
	   kafka_producer_cluster_id(producer)[0] != '\0', "the cluster has an id");
}

/* A thread of the library that took a signal would take it from PostgreSQL. */
static void
check_signals(void)
{
	DIR		   *tasks = opendir("/proc/self/task");
	struct dirent *task;
	int			threads = 0;
	int			open_threads = 0;

	while ((task = readdir(tasks)) != NULL)
	{
		char		path[300];
		char		line[256];
		FILE	   *status;

		if (task->d_name[0] == '.' || atoi(task->d_name) == (int) getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status",
				 task->d_name);
		status = fopen(path, "r");
		if (status == NULL)
			continue;
		threads++;
		while (fgets(line, sizeof(line), status) != NULL)
		{
			unsigned long long blocked;

			/* SIGKILL and SIGSTOP cannot be, glibc keeps 32 and 33. */
			if (sscanf(line, "SigBlk: %llx", &blocked) == 1 &&
				(blocked | 0x180040100ULL) != 0xffffffffffffffffULL)
				open_threads++;
		}
		fclose(status);
	}
	closedir(tasks);
	ok(threads > 0 && open_threads == 0,
	   "all %d threads of the library block every signal", threads);
}

static void
check_transactions(KafkaProducer *producer)
{
	KafkaError	error = {0};
	char		text[64];
	int			i;
	int			n;

	for (n = 1; n <= 3; n++)
	{
		int64_t		started = now_us();

		is_int(kafka_producer_begin(producer, &error), KAFKA_OK, "begin");
		for (i = 0; i < 100; i++)
		{
			snprintf(text, sizeof(text), "event %d.%d", n, i);
			if (send(producer, events_topic, i % 3, "key", text, strlen(text),
					 (uint64_t) i) != KAFKA_OK)
				ok(false, "send");
		}
		send(producer, events_topic, 0, "gone", NULL, 0, 100);
		send(producer, events_topic, 0, "empty", "", 0, 101);
		snprintf(text, sizeof(text), "progress %d", n);
		send(producer, progress_topic, 0, "relay", text, strlen(text), 102);
		is_int(commit(producer), KAFKA_OK, "commit");
		printf("# transaction in %.1f ms\n",
			   (double) (now_us() - started) / 1000);
		ok(!kafka_producer_tainted(producer), "not tainted");
	}
}

/* The last transaction stays open until another producer aborts it. */
static void
leave_open(KafkaProducer *producer)
{
	KafkaError	error = {0};
	KafkaLastRecord record;
	int			turn;

	is_int(kafka_producer_begin(producer, &error), KAFKA_OK, "begin");
	send(producer, events_topic, 0, "key", "aborted", 7, 1);
	send(producer, progress_topic, 0, "relay", "aborted", 7, 2);
	is_int(kafka_producer_flush(producer, 5000, &error), KAFKA_OK,
		   "delivered, not committed");
	for (turn = 0; turn < 3; turn++)
		kafka_producer_poll(producer);

	check_last(progress_topic, "relay", false, "progress 3");
	is_int(read_last(progress_topic, "relay", true, 5, &record),
		   KAFKA_PENDING, "stable read waits while a transaction is open");
}

static void
check_fencing(KafkaProducer *old)
{
	KafkaProducer *new = open_producer(transactional_id);
	KafkaError	error = {0};
	KafkaTopicInfo info;

	is_int(init(new), KAFKA_OK, "a second producer of the same id starts");
	check_last(progress_topic, "relay", true, "progress 3");
	check_last(progress_topic, "nobody", true, NULL);
	is_int(commit(old), KAFKA_FENCED, "the first is fenced at its commit");
	ok(!commit_error.timed_out, "which has nothing to do with its time");
	ok(kafka_producer_close(old), "the fenced producer closes");

	look_up(new, progress_topic, &info);
	is_int(kafka_producer_begin(new, &error), KAFKA_OK, "begin");
	send(new, progress_topic, 0, "relay", "progress 4", 10, 1);
	is_int(commit(new), KAFKA_OK, "the second commits");
	ok(kafka_producer_close(new), "the second producer closes");
	check_last(progress_topic, "relay", true, "progress 4");
}

static void
check_idempotent(void)
{
	KafkaProducer *producer = open_producer(NULL);
	KafkaError	error = {0};
	KafkaTopicInfo info;
	KafkaOutcome outcome = KAFKA_PENDING;
	int			turn;

	is_int(init(producer), KAFKA_OK, "init without transactions");
	look_up(producer, events_topic, &info);
	is_int(kafka_producer_begin(producer, &error), KAFKA_OK, "begin");
	send(producer, events_topic, 2, NULL, "no key", 6, 1);
	for (turn = 0; turn < MAX_TURNS && outcome == KAFKA_PENDING; turn++)
		outcome = kafka_producer_flush(producer, SLICE_MS, &error);
	is_int(outcome, KAFKA_OK, "flush");
	ok(kafka_producer_close(producer), "closes");
}

static void
wait_readable(int fd)
{
	struct pollfd wait = {fd, POLLIN, 0};

	if (poll(&wait, 1, 5000) == 0)
		ok(false, "nothing came within 5 s");
}

static void
check_message(const KafkaItem *item, int *tombstones, int *empties,
			  int *aborted)
{
	KafkaHeader header;

	if (item->value == NULL)
		(*tombstones)++;
	else if (item->value_len == 0)
		(*empties)++;
	else if (item->value_len == 7 && memcmp(item->value, "aborted", 7) == 0)
		(*aborted)++;
	if (!kafka_item_header(item, 0, &header) ||
		strcmp(header.name, "id") != 0 || header.value_len != 16 ||
		kafka_item_header(item, 1, &header))
		ok(false, "header of offset %lld", (long long) item->offset);
	if (item->timestamp_ms <= 0)
		ok(false, "timestamp");
}

static int
read_all(KafkaReader *reader, KafkaPosition *positions)
{
	int			ends = 0;
	int			messages = 0;
	int			tombstones = 0;
	int			empties = 0;
	int			aborted = 0;

	while (ends < 3)
	{
		KafkaItem	item;

		kafka_reader_next(reader, &item);
		if (item.kind == KAFKA_ITEM_NONE)
			wait_readable(kafka_reader_fd(reader));
		else if (item.kind == KAFKA_ITEM_MESSAGE)
		{
			messages++;
			check_message(&item, &tombstones, &empties, &aborted);
		}
		else if (item.kind == KAFKA_ITEM_END)
		{
			ends++;
			positions[item.partition].offset = item.offset;
		}
		else
			ok(false, "item %d: %s", item.kind, item.error.message);
		kafka_reader_release(&item);
	}
	is_int(tombstones, 3, "3 tombstones");
	is_int(empties, 3, "3 empty values");
	is_int(aborted, 0, "nothing of an aborted transaction");
	return messages;
}

static KafkaOutcome
show(KafkaReader *reader, const KafkaPosition *positions, int n,
	 const char *metadata)
{
	KafkaError	error = {0};
	KafkaOutcome outcome;
	KafkaItem	item;

	for (;;)
	{
		outcome = kafka_reader_show_offsets(reader, positions, n, metadata,
											&error);
		if (outcome != KAFKA_PENDING)
			break;
		wait_readable(kafka_reader_fd(reader));
		kafka_reader_next(reader, &item);
		kafka_reader_release(&item);
	}
	if (outcome != KAFKA_OK)
		printf("# show: %s: %s\n", kafka_outcome_name(outcome), error.message);
	return outcome;
}

static void
check_lost(KafkaReader *reader)
{
	KafkaPosition beyond = {events_topic, 0, 1000000};
	KafkaError	error = {0};
	KafkaItem	item;

	is_int(kafka_reader_assign(reader, &beyond, 1, &error), KAFKA_OK,
		   "assigned beyond the end");
	for (;;)
	{
		kafka_reader_next(reader, &item);
		if (item.kind != KAFKA_ITEM_NONE)
			break;
		wait_readable(kafka_reader_fd(reader));
	}
	is_int(item.kind, KAFKA_ITEM_LOST, "an offset out of range is lost");
	printf("# %s\n", item.error.message);
	kafka_reader_release(&item);
}

static void
check_reader(void)
{
	KafkaReaderOptions options = {
		.group_id = group_id,
		.queue_bytes = 32 * 1024 * 1024,
		.log = show_log
	};
	KafkaPosition positions[3];
	KafkaProperties *props = properties();
	KafkaError	error = {0};
	KafkaReader *reader = kafka_reader_open(props, &options, &error);
	int			i;

	kafka_properties_free(props);
	for (i = 0; i < 3; i++)
	{
		positions[i].topic = events_topic;
		positions[i].partition = i;
		positions[i].offset = KAFKA_OFFSET_BEGINNING;
	}
	is_int(kafka_reader_assign(reader, positions, 3, &error), KAFKA_OK,
		   "assigned");
	is_int(read_all(reader, positions), 3 * 102 + 1, "every committed record");
	ok(kafka_reader_high_watermark(reader, events_topic, 0) ==
	   positions[0].offset, "the end is the high watermark");

	is_int(show(reader, positions, 3, "ours"), KAFKA_OK, "offsets are shown");
	is_int(show(reader, positions, 3, "ours"), KAFKA_OK, "and once more");
	is_int(show(reader, positions, 3, "another"), KAFKA_REFUSED,
		   "offsets that are not ours are never written over");

	for (i = 0; i < 3; i++)
		positions[i].offset = KAFKA_OFFSET_BEGINNING;
	is_int(kafka_reader_assign(reader, positions, 3, &error), KAFKA_OK,
		   "assigned again from the beginning");
	is_int(read_all(reader, positions), 3 * 102 + 1, "the same records again");
	check_lost(reader);
	ok(kafka_reader_close(reader), "the reader closes");
}

int
main(int argc, char **argv)
{
	KafkaProducer *producer;

	if (argc != 2)
	{
		fprintf(stderr, "usage: smoke_kafka bootstrap-servers\n");
		return 2;
	}
	smoke_names(argv[1]);

	producer = open_producer(transactional_id);
	ok(producer != NULL, "producer opened");
	check_topics(producer);
	is_int(init(producer), KAFKA_OK, "init");
	ok(!kafka_producer_tainted(producer), "not tainted after init");
	check_last(progress_topic, "relay", true, NULL);
	check_transactions(producer);
	check_signals();
	check_last(progress_topic, "relay", false, "progress 3");
	leave_open(producer);
	check_fencing(producer);
	check_idempotent();
	check_reader();
	return done_testing();
}
