/*-------------------------------------------------------------------------
 *
 * rows_internal.h
 *	  What rows.c and topic_rows.c share.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef CHECK_ROWS_INTERNAL_H
#define CHECK_ROWS_INTERNAL_H

#include "check/rows.h"

typedef struct Check
{
	const KafkaFacts *facts;
	const CheckWanted *wanted;
	CheckTake	take;
	void	   *arg;
	CheckRow	row;			/* that is being made */
} Check;

extern void check_begin(Check *check, int place, const char *concern);
extern void check_say(Check *check, const char *level, const char *format, ...) __attribute__((format(printf, 3, 4)));
extern void check_remedy(Check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern void check_set_remedy(Check *check, const char *setting, const char *format, ...) __attribute__((format(printf, 3, 4)));
extern void check_end(Check *check);

/* The row says the error, with its remedy. */
extern void check_fail(Check *check, const KafkaError *error, const char *what);

/* All that is to be said of a topic. */
extern void check_topic(Check *check, const KafkaTopicFacts *facts, const CheckTopic *topic);

#endif							/* CHECK_ROWS_INTERNAL_H */
