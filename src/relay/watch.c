/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  What becomes of the topics that the relay publishes to.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * outbox.note_topic() decides what a difference means; here is only seen to it
 * that it is called when there is one, so that an undisturbed relay writes
 * nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "relay/link.h"
#include "relay/watch.h"
#include "utils/builtins.h"
#include "worker/worker.h"

#define LOOK_EVERY_US	(INT64CONST(180) * 1000000)

void
watch_note(TopicWatch *watch, const KafkaTopicInfo *info, int64_t now_us)
{
	watch->due = false;
	watch->looked_at = now_us;
	if (!info->exists)
	{
		watch->news = watch->missing = true;
		watch->info.exists = false;
		return;
	}
	if (watch->info.exists && memcmp(&watch->info, info, sizeof(*info)) == 0)
		return;
	watch->news = true;
	watch->info = *info;
}

bool
watch_is_due(const TopicWatch *watch, int64_t now_us)
{
	return watch->due ||
		(watch->looked_at != 0 && now_us - watch->looked_at > LOOK_EVERY_US);
}

void
watch_all_due(RelayLink *link)
{
	for (int i = 0; i < link->n_topics; i++)
		link->topics[i].watch.due = true;
	if (relay_link_sender(link) != NULL)
		kafka_producer_ask_anew(relay_link_sender(link));
}

static void
record(const RelayTopic *topic)
{
	const TopicWatch *watch = &topic->watch;
	const KafkaTopicInfo *info = &watch->info;
	Oid			types[] = {TEXTOID, BOOLOID, INT4OID, INT4OID, INT4OID, BOOLOID, BOOLOID};
	Datum		values[] = {
		CStringGetTextDatum(topic->name), BoolGetDatum(watch->missing),
		Int32GetDatum(info->partitions), Int32GetDatum(info->replicas),
		Int32GetDatum(info->settings.min_insync), BoolGetDatum(info->settings.compacts),
		BoolGetDatum(info->settings.unclean)
	};
	char		nulls[] = "       ";

	if (!info->exists)
		memset(nulls + 2, 'n', 5);
	else if (!info->described)
		memset(nulls + 4, 'n', 3);
	if (SPI_execute_with_args("SELECT outbox.note_topic($1, $2, $3, $4, $5, $6, $7)",
							  lengthof(types), types, values, nulls, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not write outbox.topic");
}

void
watch_record(RelayLink *link)
{
	bool		begun = false;

	for (int i = 0; i < link->n_topics; i++)
	{
		RelayTopic *topic = &link->topics[i];

		if (!topic->watch.news)
			continue;
		/* the relay's own is watched by its protocol */
		if (strcmp(topic->name, link->progress_topic) != 0)
		{
			if (!begun)
				worker_begin("writing down what topics are like");
			begun = true;
			record(topic);
		}
		/* what is missing is said once, when it is seen again or not */
		topic->watch.news = topic->watch.missing = false;
	}
	if (begun)
		worker_commit_lazily();
}
