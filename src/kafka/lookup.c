/*-------------------------------------------------------------------------
 *
 * lookup.c
 *	  Asking brokers for topics without making the worker wait.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A metadata request of the application is the one call of the library that
 * can neither be resumed nor be answered by an event: it blocks, and each call
 * starts afresh, so one that always waits for less than a round trip never
 * succeeds.  Hence each question has a short-lived thread of its own, which
 * waits for as long as the distance takes; the worker looks in slices whether
 * the answer is there.  Questions about different topics run beside each other
 * and know nothing of each other.
 *
 * A thread waits in pieces that grow, only so that closing the handle can end
 * it in time: one piece is never longer than LONGEST_PIECE_MS, which is well
 * below the time that closing may take.  The piece that sufficed last is the
 * first one of the next question, so a distance is learned once per handle.
 *
 * Threads: the functions here run in the worker's, except ask() and, while a
 * handle is closed, kafka_lookups_join.  A look-up's mutex guards what both
 * sides touch.  ask() has all signals blocked, see kafka_thread_start.
 *
 * Memory: malloc; freed when the answer is fetched or by kafka_lookups_join.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kafka/internal.h"

#define FIRST_PIECE_MS 500
#define LONGEST_PIECE_MS 2000

/*
 * An answer that nobody fetched for this long is not given any more: who asks
 * then wants to know what is true now.
 */
#define KEEP_ANSWER_MS 3000

/* Beyond this number a question waits until another one is answered. */
#define MOST_LOOKUPS 16

struct KafkaLookup
{
	KafkaLookup *next;
	pthread_t	thread;

	/* set before the thread starts */
	rd_kafka_t *rk;
	rd_kafka_topic_t *rkt;		/* NULL: all that the handle knows */
	int			fd;				/* written to when the answer is there */
	int			piece_ms;
	int			max_ms;

	/* under the mutex */
	pthread_mutex_t mutex;
	pthread_cond_t answered_cond;
	bool		stop;			/* the handle is being closed */
	bool		answered;
	int64_t		answered_ms;
	KafkaLookupAnswer answer;

	char		topic[];
};

/* ------------------------------------------------------------------------
 * The thread
 * ------------------------------------------------------------------------
 */
static bool
is_stopped(KafkaLookup *lookup)
{
	bool		stop;

	pthread_mutex_lock(&lookup->mutex);
	stop = lookup->stop;
	pthread_mutex_unlock(&lookup->mutex);
	return stop;
}

/* No broker has answered: the only case in which asking on is of use. */
static bool
is_silence(rd_kafka_resp_err_t code)
{
	return code == RD_KAFKA_RESP_ERR__TIMED_OUT ||
		code == RD_KAFKA_RESP_ERR__TRANSPORT;
}

/*
 * A thread's body: asks until there is an answer, each time with more
 * patience.
 */
static void *
ask(void *arg)
{
	static const uint64_t one = 1;
	KafkaLookup *lookup = arg;
	KafkaLookupAnswer answer = {.metadata = NULL};
	int64_t		started = kafka_now_ms();
	int			piece_ms = lookup->piece_ms;
	int			fd = lookup->fd;

	for (;;)
	{
		answer.piece_ms = piece_ms;
		answer.code = rd_kafka_metadata(lookup->rk, 0, lookup->rkt,
										&answer.metadata, piece_ms);
		if (!is_silence(answer.code) || is_stopped(lookup) ||
			kafka_now_ms() - started >= lookup->max_ms)
			break;
		piece_ms *= 2;
		if (piece_ms > LONGEST_PIECE_MS)
			piece_ms = LONGEST_PIECE_MS;
	}

	pthread_mutex_lock(&lookup->mutex);
	lookup->answer = answer;
	lookup->answered = true;
	lookup->answered_ms = kafka_now_ms();
	pthread_cond_signal(&lookup->answered_cond);
	pthread_mutex_unlock(&lookup->mutex);

	/*
	 * The worker may wait for the handle's descriptor.  It joins this thread
	 * before the descriptor is closed.
	 */
	if (write(fd, &one, sizeof(one)) < 0)
		return NULL;			/* full: then it is readable anyway */
	return NULL;
}

/* ------------------------------------------------------------------------
 * The worker's side
 * ------------------------------------------------------------------------
 */

/* Waits for the thread, which is short once it has answered. */
static void
end_lookup(KafkaLookup *lookup)
{
	pthread_join(lookup->thread, NULL);
	if (lookup->answer.metadata != NULL)
		rd_kafka_metadata_destroy(lookup->answer.metadata);
	if (lookup->rkt != NULL)
		rd_kafka_topic_destroy(lookup->rkt);
	pthread_cond_destroy(&lookup->answered_cond);
	pthread_mutex_destroy(&lookup->mutex);
	free(lookup);
}

static bool
is_old(KafkaLookup *lookup)
{
	bool		old;

	pthread_mutex_lock(&lookup->mutex);
	old = lookup->answered &&
		kafka_now_ms() - lookup->answered_ms > KEEP_ANSWER_MS;
	pthread_mutex_unlock(&lookup->mutex);
	return old;
}

/* The look-up of the topic, NULL if there is none; forgets old answers. */
static KafkaLookup *
find_lookup(KafkaClient *client, const char *topic, int *n)
{
	KafkaLookup **link = &client->lookups;
	KafkaLookup *found = NULL;

	*n = 0;
	while (*link != NULL)
	{
		KafkaLookup *lookup = *link;

		if (is_old(lookup))
		{
			*link = lookup->next;
			end_lookup(lookup);
			continue;
		}
		if (strcmp(lookup->topic, topic) == 0)
			found = lookup;
		(*n)++;
		link = &lookup->next;
	}
	return found;
}

/* As long as the last answer took, so that a far broker is asked once. */
static int
first_piece(const KafkaClient *client)
{
	if (client->lookup_ms < FIRST_PIECE_MS)
		return FIRST_PIECE_MS;
	return client->lookup_ms;
}

/* NULL: there are no more threads to be had. */
static KafkaLookup *
start_lookup(KafkaClient *client, rd_kafka_topic_t *rkt, const char *topic,
			 int max_ms)
{
	size_t		size = strlen(topic) + 1;
	KafkaLookup *lookup = kafka_malloc(sizeof(KafkaLookup) + size);

	memset(lookup, 0, sizeof(*lookup));
	memcpy(lookup->topic, topic, size);
	lookup->rk = client->rk;
	lookup->rkt = rkt;
	lookup->fd = client->fd;
	lookup->piece_ms = first_piece(client);
	lookup->max_ms = max_ms;
	pthread_mutex_init(&lookup->mutex, NULL);
	kafka_cond_init(&lookup->answered_cond);
	if (!kafka_thread_start(&lookup->thread, ask, lookup))
	{
		pthread_cond_destroy(&lookup->answered_cond);
		pthread_mutex_destroy(&lookup->mutex);
		free(lookup);
		return NULL;
	}
	lookup->next = client->lookups;
	client->lookups = lookup;
	return lookup;
}

/* True when the answer is there. */
static bool
wait_for_answer(KafkaLookup *lookup, int slice_ms)
{
	struct timespec deadline = kafka_deadline(slice_ms);
	bool		answered;

	pthread_mutex_lock(&lookup->mutex);
	while (!lookup->answered)
	{
		if (pthread_cond_timedwait(&lookup->answered_cond, &lookup->mutex,
								   &deadline) == ETIMEDOUT)
			break;
	}
	answered = lookup->answered;
	pthread_mutex_unlock(&lookup->mutex);
	return answered;
}

/* Out of the list, with its answer. */
static void
take_answer(KafkaClient *client, KafkaLookup *lookup, KafkaLookupAnswer *answer)
{
	KafkaLookup **link = &client->lookups;

	while (*link != lookup)
		link = &(*link)->next;
	*link = lookup->next;

	*answer = lookup->answer;
	lookup->answer.metadata = NULL; /* the caller's now */
	client->lookup_ms = answer->piece_ms;
	end_lookup(lookup);
}

KafkaLookupState
kafka_lookup(KafkaClient *client, const char *topic, int slice_ms, int max_ms,
			 KafkaLookupAnswer *answer)
{
	int			n;
	KafkaLookup *lookup = find_lookup(client, topic, &n);

	if (lookup == NULL && n < MOST_LOOKUPS)
	{
		bool		one = strcmp(topic, KAFKA_LOOKUP_KNOWN) != 0;
		rd_kafka_topic_t *rkt = one ? rd_kafka_topic_new(client->rk, topic, NULL) : NULL;

		if (one && rkt == NULL)
			return KAFKA_LOOKUP_BAD_NAME;
		lookup = start_lookup(client, rkt, topic, max_ms);
		if (lookup == NULL)
		{
			if (one)
				rd_kafka_topic_destroy(rkt);
			return KAFKA_LOOKUP_NO_THREAD;
		}
	}
	if (lookup == NULL || !wait_for_answer(lookup, slice_ms))
		return KAFKA_LOOKUP_PENDING;
	take_answer(client, lookup, answer);
	return KAFKA_LOOKUP_ANSWERED;
}

/* ------------------------------------------------------------------------
 * Closing
 * ------------------------------------------------------------------------
 */
void
kafka_lookups_stop(KafkaLookup *lookups)
{
	for (; lookups != NULL; lookups = lookups->next)
	{
		pthread_mutex_lock(&lookups->mutex);
		lookups->stop = true;
		pthread_mutex_unlock(&lookups->mutex);
	}
}

void
kafka_lookups_join(KafkaLookup *lookups)
{
	while (lookups != NULL)
	{
		KafkaLookup *next = lookups->next;

		end_lookup(lookups);
		lookups = next;
	}
}
