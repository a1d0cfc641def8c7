/*-------------------------------------------------------------------------
 *
 * show.c
 *	  Showing a reader's offsets under a consumer group, for lag tools.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Offsets written into a group that a service uses would make that service
 * skip events.  So the offsets that are there are asked for first: they must be
 * none, or carry our metadata.  A group with live members refuses the write of
 * somebody who is none of them, by the broker's own rule; so between question
 * and write nothing can go wrong either.
 *
 * Not by the library's admin requests: those that go to a group's coordinator
 * use freed memory when the connection breaks at the wrong moment, and abort
 * the process, which restarts the whole server ("eonce->refcnt > 0", librdkafka
 * 4605 and 5397, every version up to 2.14; seen twice when brokers were killed
 * under load).  And not by the reader's own handle: a commit that waits for a
 * coordinator holds up every change of its assignment.  Hence a handle of its
 * own, which is assigned nothing, and a thread for each question, because asking
 * for a group's offsets blocks.
 *
 * Threads: the functions here run in the worker's, except run().  The mutex
 * guards what both sides touch.  run() has all signals blocked, see
 * kafka_thread_start; it waits in pieces, so that closing can end it in time.
 *
 * Memory: malloc.
 *
 *-------------------------------------------------------------------------
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kafka/internal.h"

#define PIECE_MS 500			/* of waiting, while it grows: */
#define LONGEST_PIECE_MS 1000	/* closing waits for the piece */
#define MOST_MS 10000			/* then the question has failed */

struct KafkaShow
{
	KafkaClient *client;		/* the group's handle */
	int			fd;				/* the reader's, written to when there is an
								 * answer */
	char	   *group_id;
	bool		asked;			/* a thread runs, or has ended and is not
								 * joined */
	pthread_t	thread;

	/* the thread's, while it runs */
	char	   *metadata;
	rd_kafka_topic_partition_list_t *offsets;
	KafkaOutcome outcome;
	KafkaError	error;

	pthread_mutex_t mutex;
	bool		stop;			/* under the mutex: the handle is being closed */
	bool		answered;		/* the same */
};

/* ------------------------------------------------------------------------
 * The thread
 * ------------------------------------------------------------------------
 */
static bool
is_stopped(KafkaShow *show)
{
	bool		stop;

	pthread_mutex_lock(&show->mutex);
	stop = show->stop;
	pthread_mutex_unlock(&show->mutex);
	return stop;
}

static void
fail(KafkaShow *show, rd_kafka_resp_err_t code)
{
	const char *text = rd_kafka_err2str(code);

	show->outcome = kafka_outcome_of(code);

	/* The broker's way to say that the group has members, and we are none. */
	if (code == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID ||
		code == RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION ||
		code == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS)
	{
		show->outcome = KAFKA_REFUSED;
		text = "it has live members: it belongs to another service";
	}

	/*
	 * A topic that may not be read is no fault of the group: its reader
	 * tells.
	 */
	if (show->outcome == KAFKA_OK || code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
		show->outcome = KAFKA_UNCERTAIN;
	kafka_error_set(&show->error, code, "group \"%s\": %s", show->group_id, text);
}

/* Offsets of ours carry the database's identity as metadata. */
static bool
is_ours(const KafkaShow *show, const rd_kafka_topic_partition_t *there)
{
	size_t		len = strlen(show->metadata);

	return there->metadata_size == len &&
		memcmp(there->metadata, show->metadata, len) == 0;
}

/* What is there is none, or ours.  False: it was said why not. */
static bool
may_write(KafkaShow *show, const rd_kafka_topic_partition_list_t *there)
{
	for (int i = 0; i < there->cnt; i++)
	{
		const rd_kafka_topic_partition_t *entry = &there->elems[i];

		if (entry->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			fail(show, entry->err);
			return false;
		}
		if (entry->offset >= 0 && !is_ours(show, entry))
		{
			show->outcome = KAFKA_REFUSED;
			kafka_error_set(&show->error, 0,
							"group \"%s\" has offsets of another service (topic \"%s\" partition %d)",
							show->group_id, entry->topic, (int) entry->partition);
			return false;
		}
	}
	return true;
}

/* Step 1: whose offsets are in it? */
static bool
ask_offsets(KafkaShow *show)
{
	rd_kafka_topic_partition_list_t *there = rd_kafka_topic_partition_list_new(show->offsets->cnt);
	int64_t		started = kafka_now_ms();
	int			piece_ms = PIECE_MS;
	rd_kafka_resp_err_t code;
	bool		may = false;

	for (int i = 0; i < show->offsets->cnt; i++)
		rd_kafka_topic_partition_list_add(there, show->offsets->elems[i].topic,
										  show->offsets->elems[i].partition);
	for (;;)
	{
		code = rd_kafka_committed(show->client->rk, there, piece_ms);
		if ((code != RD_KAFKA_RESP_ERR__TIMED_OUT && code != RD_KAFKA_RESP_ERR__TRANSPORT &&
			 code != RD_KAFKA_RESP_ERR__WAIT_COORD) ||
			is_stopped(show) || kafka_now_ms() - started >= MOST_MS)
			break;
		piece_ms = piece_ms * 2 < LONGEST_PIECE_MS ? piece_ms * 2 : LONGEST_PIECE_MS;
	}
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail(show, code);
	else
		may = may_write(show, there);
	rd_kafka_topic_partition_list_destroy(there);
	return may;
}

/* Step 2: it is free or ours. */
static void
write_offsets(KafkaShow *show)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(show->client->rk);
	int64_t		started = kafka_now_ms();
	rd_kafka_event_t *event = NULL;
	rd_kafka_resp_err_t code;

	code = rd_kafka_commit_queue(show->client->rk, show->offsets, queue, NULL, NULL);
	while (code == RD_KAFKA_RESP_ERR_NO_ERROR && event == NULL)
	{
		event = rd_kafka_queue_poll(queue, PIECE_MS);
		if (event == NULL && (is_stopped(show) || kafka_now_ms() - started >= MOST_MS))
			code = RD_KAFKA_RESP_ERR__TIMED_OUT;
	}
	if (event != NULL)
	{
		const rd_kafka_topic_partition_list_t *written = rd_kafka_event_topic_partition_list(event);

		code = rd_kafka_event_error(event);
		for (int i = 0; code == RD_KAFKA_RESP_ERR_NO_ERROR && written != NULL && i < written->cnt; i++)
			code = written->elems[i].err;
		rd_kafka_event_destroy(event);
	}
	rd_kafka_queue_destroy(queue);
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		show->outcome = KAFKA_OK;
	else
		fail(show, code);
}

static void *
run(void *arg)
{
	static const uint64_t one = 1;
	KafkaShow  *show = arg;
	int			fd = show->fd;

	if (ask_offsets(show) && !is_stopped(show))
		write_offsets(show);
	pthread_mutex_lock(&show->mutex);
	show->answered = true;
	pthread_mutex_unlock(&show->mutex);

	/* the reader's descriptor is closed after this thread is joined */
	if (write(fd, &one, sizeof(one)) < 0)
		return NULL;			/* full: then it is readable anyway */
	return NULL;
}

/* ------------------------------------------------------------------------
 * The worker's side
 * ------------------------------------------------------------------------
 */
static rd_kafka_conf_t *
show_conf(const KafkaProperties *props, const char *group_id, KafkaError *error)
{
	rd_kafka_conf_t *conf = kafka_conf_new(props, RD_KAFKA_CONSUMER, error);

	if (conf == NULL)
		return NULL;

	/* nobody subscribes: the session's time is how long a commit may wait */
	if (kafka_conf_set(conf, "group.id", group_id, error) &&
		kafka_conf_set(conf, "session.timeout.ms", "2000", error) &&
		kafka_conf_set(conf, "heartbeat.interval.ms", "1000", error) &&
		kafka_conf_set(conf, "enable.auto.commit", "false", error) &&
		kafka_conf_set(conf, "enable.auto.offset.store", "false", error))
		return conf;
	rd_kafka_conf_destroy(conf);
	return NULL;
}

KafkaShow  *
kafka_show_open(const KafkaProperties *props, const char *group_id, int fd,
				KafkaError *error)
{
	rd_kafka_conf_t *conf = show_conf(props, group_id, error);
	KafkaClient *client;
	KafkaShow  *show;

	if (conf == NULL)
		return NULL;
	client = kafka_client_open(conf, RD_KAFKA_CONSUMER, RD_KAFKA_EVENT_OFFSET_COMMIT,
							   props, NULL, NULL, error);
	if (client == NULL)
		return NULL;
	show = kafka_malloc(sizeof(KafkaShow));
	memset(show, 0, sizeof(*show));
	show->client = client;
	show->fd = fd;
	show->group_id = kafka_strdup(group_id);
	pthread_mutex_init(&show->mutex, NULL);
	return show;
}

/* The thread has answered, or has been told to stop. */
static void
end_question(KafkaShow *show)
{
	pthread_join(show->thread, NULL);
	rd_kafka_topic_partition_list_destroy(show->offsets);
	free(show->metadata);
	show->offsets = NULL;
	show->metadata = NULL;
	show->asked = show->answered = false;
}

bool
kafka_show_close(KafkaShow *show)
{
	bool		ended;

	if (show == NULL)
		return true;
	pthread_mutex_lock(&show->mutex);
	show->stop = true;
	pthread_mutex_unlock(&show->mutex);
	if (show->asked)
		end_question(show);
	ended = kafka_client_close(show->client, KAFKA_WORK_NONE);
	pthread_mutex_destroy(&show->mutex);
	free(show->group_id);
	free(show);
	return ended;
}

static rd_kafka_topic_partition_list_t *
offsets_to_write(const KafkaPosition *positions, int n, const char *metadata)
{
	rd_kafka_topic_partition_list_t *list;
	size_t		len = strlen(metadata);
	int			i;

	list = rd_kafka_topic_partition_list_new(n);
	for (i = 0; i < n; i++)
	{
		rd_kafka_topic_partition_t *entry;

		/* Nothing read yet: nothing to show. */
		if (positions[i].offset < 0)
			continue;
		entry = rd_kafka_topic_partition_list_add(list, positions[i].topic,
												  positions[i].partition);
		entry->offset = positions[i].offset;
		/* The list frees it with free(). */
		entry->metadata = kafka_strdup(metadata);
		entry->metadata_size = len;
	}
	return list;
}

/* What the group's handle has to say is only looked at. */
void
kafka_show_serve(KafkaShow *show)
{
	rd_kafka_event_t *event;

	while ((event = kafka_client_next(show->client, 0)) != NULL)
	{
		(void) kafka_client_handle(show->client, event);
		rd_kafka_event_destroy(event);
	}
}

KafkaOutcome
kafka_show_step(KafkaShow *show, const KafkaPosition *positions, int n,
				const char *metadata, KafkaError *error)
{
	KafkaOutcome outcome;
	bool		answered;

	kafka_show_serve(show);
	if (!show->asked)
	{
		show->offsets = offsets_to_write(positions, n, metadata);
		if (show->offsets->cnt == 0)
		{
			rd_kafka_topic_partition_list_destroy(show->offsets);
			show->offsets = NULL;
			return KAFKA_OK;
		}
		show->metadata = kafka_strdup(metadata);
		show->outcome = KAFKA_UNCERTAIN;
		kafka_error_set(&show->error, 0, "%s", "");
		if (!kafka_thread_start(&show->thread, run, show))
		{
			rd_kafka_topic_partition_list_destroy(show->offsets);
			free(show->metadata);
			show->offsets = NULL;
			show->metadata = NULL;
			kafka_error_set(error, 0, "the system gives no thread");
			return KAFKA_UNCERTAIN;
		}
		show->asked = true;
	}
	pthread_mutex_lock(&show->mutex);
	answered = show->answered;
	pthread_mutex_unlock(&show->mutex);
	if (!answered)
		return KAFKA_PENDING;

	outcome = show->outcome;
	if (outcome != KAFKA_OK && error != NULL)
		*error = show->error;
	end_question(show);
	return outcome;
}
