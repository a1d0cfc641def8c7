/*-------------------------------------------------------------------------
 *
 * source.c
 *	  What the reporter reads from: topics, their partitions, the Kafka handle.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Nothing is ever skipped silently (I13 in doc/ARCHITECTURE.md).  A partition whose offset is
 * out of range stops.  Before reading goes on after a start, the newest
 * message read before is read once more and compared with its digest: a topic
 * that was made anew, and is longer than our offset already, is found by that.
 * A cluster with another id stops everything.
 *
 * Memory: the partitions live in the source's context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/source.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* Topics are asked for again after this time, for new partitions. */
#define LOOK_AGAIN_MS		30000

/* The longest time until a missing topic or broker is asked for again. */
#define LOOK_LATER_MS		2000

/* A question to the brokers: how long between interrupts, and in all. */
#define LOOK_SLICE_MS		100
#define LOOK_MAX_MS			2000

/*
 * A topic that was there is believed to be gone after so many answers in a
 * row: a broker that lags behind says the same.  Reading goes on meanwhile.
 */
#define MISSING_ANSWERS		5

/* A partition that may not be read is tried again after this time. */
#define REFUSED_AGAIN_MS	10000

Source *
source_create(MemoryContext parent, const ReporterReport *former)
{
	Source	   *source = MemoryContextAllocZero(parent, sizeof(Source));

	source->context = AllocSetContextCreate(parent, "carshop_outbox source",
											ALLOCSET_DEFAULT_SIZES);
	source->state = SOURCE_WAITING;
	source->former = former;
	return source;
}

void
source_trouble(Source *source, SourceState state, const char *message,
			   const char *remedy)
{
	bool		known;

	/* the library words one outage in many ways: the remedy tells them apart */
	known = source->trouble.message[0] != '\0' &&
		strcmp(source->trouble.remedy, remedy != NULL ? remedy : "") == 0;
	source->state = state;
	strlcpy(source->trouble.message, message,
			sizeof(source->trouble.message));
	strlcpy(source->trouble.remedy, remedy != NULL ? remedy : "",
			sizeof(source->trouble.remedy));
	source->trouble.at = GetCurrentTimestamp();
	if (!known)
		worker_log_change(ERRCODE_WARNING, message, remedy);
}

/* Read the newest messages again before going on. */
static void
check_again(Source *source, const char *topic, bool there)
{
	for (int i = 0; i < source->n; i++)
	{
		SourcePartition *partition = &source->partitions[i];

		if (topic != NULL && strcmp(partition->position.topic, topic) != 0)
			continue;
		if (!there && !partition->there)
			continue;			/* known to be gone */
		partition->there = partition->there && there;
		partition->checking = partition->position.last_offset >= 0;
		partition->at_end = partition->settled = false;
		source->assign_needed = true;
	}
}

/* Kafka answers again; logged once. */
static void
clear_trouble(Source *source)
{
	/*
	 * The library tells an end once.  Those that were told before the trouble
	 * do not count any more: ask anew.  And a topic may have been made anew
	 * meanwhile.
	 */
	if (source->state != SOURCE_READING)
		check_again(source, NULL, true);
	source->state = SOURCE_READING;
	if (source->trouble.message[0] == '\0')
		return;
	memset(&source->trouble, 0, sizeof(source->trouble));
	worker_log_change(0, "the trouble is over, reading goes on", NULL);
}

/* Ask again after a while that grows. */
void
source_look_later(Source *source)
{
	Backoff		backoff;
	long		ms;

	backoff.attempts = source->attempts;
	ms = Min(backoff_next_ms(&backoff), LOOK_LATER_MS);
	source->attempts = backoff.attempts;
	source->look_at = TimestampTzPlusMilliseconds(worker_steady_now(), ms);
}

/* ------------------------------------------------------------------------
 * The handle
 * ------------------------------------------------------------------------
 */

bool
source_open(Source *source, const char *group_id)
{
	KafkaReaderOptions options;
	KafkaProperties *props;
	KafkaError	error;

	if (source->reader != NULL)
		return true;

	memset(&error, 0, sizeof(error));
	memset(&options, 0, sizeof(options));
	options.group_id = group_id;
	options.queue_bytes = (size_t) setting_worker_memory * 1024 / 4;
	options.log = worker_kafka_log;

	props = worker_kafka_properties(&error);
	if (props != NULL)
	{
		source->reader = kafka_reader_open(props, &options, &error);
		kafka_properties_free(props);
	}
	if (source->reader == NULL)
	{
		source_trouble(source, SOURCE_STOPPED, error.message,
					   kafka_remedy(&error));
		return false;
	}
	/* what it was stopped for, if it was, is mended: a file, a setting */
	source->state = SOURCE_WAITING;
	source->cluster_id[0] = '\0';
	source->look_at = 0;
	source->attempts = 0;
	source->assign_needed = true;
	source->assign_at = 0;
	source->handle_failed = false;
	for (int i = 0; i < source->n; i++)
	{
		source->partitions[i].there = false;
		source->partitions[i].at_end = source->partitions[i].settled = false;
		source->partitions[i].checking =
			source->partitions[i].position.last_offset >= 0;
	}
	return true;
}

bool
source_close(Source *source)
{
	KafkaReader *reader = source->reader;

	if (reader == NULL)
		return true;
	kafka_reader_release(&source->item);
	source->reader = NULL;
	for (int i = 0; i < source->n; i++)
		source->partitions[i].at_end = source->partitions[i].settled =
			source->partitions[i].reached = false;
	return kafka_reader_close(reader);
}

/* ------------------------------------------------------------------------
 * Partitions
 * ------------------------------------------------------------------------
 */

SourcePartition *
source_find(Source *source, const char *topic, int partition)
{
	/* Messages come in runs of one partition. */
	for (int i = 0; i < source->n; i++)
	{
		int			at = (source->last_found + i) % source->n;
		Position   *position = &source->partitions[at].position;

		if (position->partition == partition &&
			strcmp(position->topic, topic) == 0)
		{
			source->last_found = at;
			return &source->partitions[at];
		}
	}
	return NULL;
}

static bool
is_wanted(List *topics, const char *topic)
{
	ListCell   *cell;

	foreach(cell, topics)
	{
		if (strcmp(lfirst(cell), topic) == 0)
			return true;
	}
	return false;
}

/* What the process before this one has counted; NULL: nothing. */
static const PartitionReport *
former_stats(const Source *source, const Position *position)
{
	for (int i = 0; i < source->former->n_partitions; i++)
	{
		const PartitionReport *stats = &source->former->partitions[i];

		if (stats->partition == position->partition &&
			strcmp(stats->topic, position->topic) == 0)
			return stats;
	}
	return NULL;
}

/* A partition as it begins, at a stored position; counting goes on. */
static void
start_partition(SourcePartition *partition, const Position *position,
				const PartitionReport *counted)
{
	PartitionReport *stats = &partition->stats;

	memset(partition, 0, sizeof(*partition));
	partition->position = *position;
	partition->checking = position->last_offset >= 0;
	partition->lost_stored = position->lost;
	partition->target = -1;
	partition->failed = true;	/* what still waits is of another place */
	if (counted != NULL)
	{
		stats->events_applied = counted->events_applied;
		stats->duplicates = counted->duplicates;
		stats->skipped = counted->skipped;
		stats->dead_letters = counted->dead_letters;
		stats->last_applied_at = counted->last_applied_at;
	}
	strlcpy(stats->topic, position->topic, sizeof(stats->topic));
	stats->partition = position->partition;
	stats->high_watermark = -1;
	stats->stable_offset = -1;
}

void
source_load(Source *source)
{
	List	   *topics = settings_split(setting_report_topics);
	SourcePartition *fresh;
	Position   *rows;
	int			n_rows;
	int			n = 0;

	rows = progress_load(&n_rows);
	fresh = MemoryContextAllocZero(source->context,
								   sizeof(SourcePartition) * Max(n_rows, 1));
	for (int i = 0; i < n_rows; i++)
	{
		SourcePartition *known = source_find(source, rows[i].topic,
											 rows[i].partition);

		if (!is_wanted(topics, rows[i].topic))
			continue;
		if (known != NULL && known->position.stored == rows[i].stored &&
			known->position.lost == rows[i].lost &&
			(rows[i].cluster_id[0] == '\0') ==
			(known->position.cluster_id[0] == '\0'))
			fresh[n] = *known;
		else
		{
			start_partition(&fresh[n], &rows[i], known != NULL ?
							&known->stats : former_stats(source, &rows[i]));
			if (known != NULL)
				fresh[n].there = known->there;
			source->assign_needed = true;
		}
		n++;
	}
	if (n != source->n)
		source->assign_needed = true;
	if (source->partitions != NULL)
		pfree(source->partitions);
	source->partitions = fresh;
	source->n = n;
	source->last_found = 0;
	for (int i = 0; i < n; i++)
	{
		fresh[i].log.cluster_id = source->cluster_id;
		fresh[i].log.topic = fresh[i].position.topic;
		fresh[i].log.partition = fresh[i].position.partition;
	}
}

/* Other brokers than those that the offsets belong to? */
static bool
check_cluster(Source *source)
{
	const char *id = kafka_reader_cluster_id(source->reader);

	if (id == NULL)
		return true;
	strlcpy(source->cluster_id, id, sizeof(source->cluster_id));
	for (int i = 0; i < source->n; i++)
	{
		Position   *position = &source->partitions[i].position;

		if (position->cluster_id[0] == '\0' ||
			strcmp(position->cluster_id, source->cluster_id) == 0)
			continue;
		source_trouble(source, SOURCE_STOPPED,
					   psprintf("the brokers belong to Kafka cluster \"%s\", the stored offsets to cluster \"%s\"",
								source->cluster_id, position->cluster_id),
					   psprintf("correct carshop_outbox.brokers, or say where to go on in the new cluster: SELECT report.seek(topic, partition, -2) FROM report.progress WHERE cluster_id = %s;",
								quote_literal_cstr(position->cluster_id)));
		return false;
	}
	return true;
}

/* One topic, with the worker's interrupts served in between. */
static KafkaOutcome
look_up(Source *source, const char *topic, KafkaTopicInfo *info,
		KafkaError *error)
{
	KafkaOutcome outcome;

	for (;;)
	{
		outcome = kafka_reader_topic(source->reader, topic, LOOK_SLICE_MS,
									 LOOK_MAX_MS, info, error);
		if (outcome != KAFKA_PENDING)
			return outcome;
		if (worker_check() != 0)
			return KAFKA_PENDING;	/* settings have changed */
	}
}

/* A topic that the brokers know has this many partitions. */
static bool
note_topic(Source *source, const char *topic, int partitions)
{
	bool		unknown = false;

	for (int i = 0; i < partitions; i++)
	{
		SourcePartition *partition = source_find(source, topic, i);

		if (partition == NULL)
		{
			Position   *position = palloc0(sizeof(Position));

			strlcpy(position->topic, topic, TOPIC_SIZE);
			position->partition = i;
			source->found = lappend(source->found, position);
			unknown = true;
		}
		else if (!partition->there)
		{
			partition->there = true;
			source->assign_needed = true;
		}
	}

	/* Kafka adds partitions and never takes one away. */
	for (int i = 0; i < source->n; i++)
	{
		SourcePartition *partition = &source->partitions[i];

		if (partition->there && partition->position.partition >= partitions &&
			strcmp(partition->position.topic, topic) == 0)
		{
			partition->there = false;
			check_again(source, topic, true);
		}
	}
	return unknown;
}

/*
 * One broker does not know the topic.  True if that is to be believed: nothing
 * was read of it here, or it has been said several times.
 */
static bool
is_missing(Source *source, const char *topic)
{
	bool		was_there = false;

	for (int i = 0; i < source->n; i++)
	{
		if (source->partitions[i].there &&
			strcmp(source->partitions[i].position.topic, topic) == 0)
			was_there = true;
	}
	return !was_there || ++source->missing >= MISSING_ANSWERS;
}

/* The topics are there, but not all may or can be read. */
static bool
is_refused(const Source *source)
{
	for (int i = 0; i < source->n; i++)
	{
		/*
		 * one that is not there any more is asked for no more, and never
		 * mends
		 */
		if (!source->partitions[i].there)
			continue;
		if (source->partitions[i].refused ||
			(source->partitions[i].failing_since != 0 &&
			 !source->partitions[i].position.lost))
			return true;
	}
	return false;
}

/*
 * A topic that is made anew, and filled up to where we stand, makes no other
 * difference: while nothing comes, it is looked at now and then.
 */
static void
check_quiet(Source *source)
{
	int64		sum = 0;

	for (int i = 0; i < source->n; i++)
		sum += source->partitions[i].position.next;
	if (sum == source->seen_at_look && source_progress(source) != SOURCE_BEHIND)
	{
		check_again(source, NULL, true);
		for (int i = 0; i < source->n; i++)
			source->partitions[i].settled = source->partitions[i].there;
	}
	source->seen_at_look = sum;
}

bool
source_look(Source *source)
{
	List	   *topics = settings_split(setting_report_topics);
	KafkaOutcome worst = KAFKA_OK;
	bool		unknown = false;
	bool		doubtful = false;
	char		message[SHARED_TEXT] = "";
	char		remedy[SHARED_TEXT] = "";
	ListCell   *cell;

	source->found = NIL;
	foreach(cell, topics)
	{
		const char *topic = lfirst(cell);
		KafkaTopicInfo info;
		KafkaError	error;
		KafkaOutcome outcome;

		memset(&error, 0, sizeof(error));
		outcome = look_up(source, topic, &info, &error);
		if (outcome == KAFKA_OK && !info.exists && !is_missing(source, topic))
		{
			doubtful = true;
			continue;
		}
		if (outcome == KAFKA_OK && !info.exists)
		{
			outcome = KAFKA_TROUBLE;
			snprintf(error.message, sizeof(error.message),
					 "topic \"%s\" does not exist", topic);
			snprintf(remedy, sizeof(remedy),
					 "Publish an event or create the topic; reading starts by itself then.");
			check_again(source, topic, false);
		}
		if (outcome == KAFKA_OK)
			unknown |= note_topic(source, topic, info.partitions);
		else
		{
			if (message[0] == '\0')
				strlcpy(message, error.message, sizeof(message));
			if (remedy[0] == '\0')
				strlcpy(remedy, kafka_remedy(&error), sizeof(remedy));
			worst = outcome;
		}
		if (outcome == KAFKA_UNREACHABLE || outcome == KAFKA_PENDING)
			break;
	}
	if (topics == NIL)
	{
		strlcpy(message, "carshop_outbox.report_topics names no topic",
				sizeof(message));
		strlcpy(remedy, "Name the topics to read: ALTER SYSTEM SET carshop_outbox.report_topics = '...'; SELECT pg_reload_conf();",
				sizeof(remedy));
		worst = KAFKA_TROUBLE;
	}

	if (worst != KAFKA_PENDING && worst != KAFKA_UNREACHABLE &&
		!check_cluster(source))
		return false;
	if (worst == KAFKA_OK && source->unreachable)
	{
		check_again(source, NULL, true);
		source->unreachable = false;
	}
	if (worst == KAFKA_OK && (doubtful || is_refused(source)))
	{
		/* That it may be read again is not told, unless there is more. */
		if (is_refused(source))
			source_assign_later(source, REFUSED_AGAIN_MS);
		source_look_later(source);
		return unknown;
	}
	if (worst == KAFKA_OK)
	{
		source->missing = 0;
		clear_trouble(source);
		check_quiet(source);
		source->attempts = 0;
		source->look_at = TimestampTzPlusMilliseconds(worker_steady_now(),
													  LOOK_AGAIN_MS);
		return unknown;
	}
	if (worst == KAFKA_UNREACHABLE)
	{
		source->unreachable = true;
		for (int i = 0; i < source->n; i++)
			source->partitions[i].at_end = source->partitions[i].settled = false;
	}
	if (worst != KAFKA_PENDING)
		source_trouble(source, SOURCE_WAITING, message, remedy);
	source_look_later(source);
	return unknown;
}

/* In a transaction: rows for the partitions that source_look() has found. */
void
source_add(Source *source)
{
	ListCell   *cell;

	foreach(cell, source->found)
	{
		Position   *position = lfirst(cell);

		progress_add(position->topic, position->partition);
	}
	source->look_at = 0;
}

bool
source_has_lost(const Source *source)
{
	for (int i = 0; i < source->n; i++)
	{
		if (source->partitions[i].position.lost &&
			!source->partitions[i].lost_stored)
			return true;
	}
	return false;
}

void
source_store_lost(Source *source)
{
	for (int i = 0; i < source->n; i++)
	{
		SourcePartition *partition = &source->partitions[i];

		if (partition->position.lost && !partition->lost_stored)
			progress_lose(&partition->position);
		partition->lost_stored = partition->position.lost;
	}
}
