/*-------------------------------------------------------------------------
 *
 * show.c
 *	  Showing a reader's offsets under a consumer group, for lag tools.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Offsets written into a group that a service uses would make that service
 * skip events.  So three questions, one after the other: has the group live
 * members, do the offsets that are there carry our metadata, and only then
 * the write.  Between question and write a service may still appear; then the
 * broker itself refuses the write, because it comes from no member.
 *
 * All three are admin requests, not the consumer's own commit: a commit that
 * waits for a coordinator holds up every change of the assignment.
 *
 * Thread: the worker's.  Memory: malloc, freed by kafka_show_forget.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

#define REQUEST_TIMEOUT_MS 10000

void
kafka_show_forget(KafkaShow *show)
{
	free(show->group_id);
	free(show->metadata);
	if (show->offsets != NULL)
		rd_kafka_topic_partition_list_destroy(show->offsets);
	show->group_id = NULL;
	show->metadata = NULL;
	show->offsets = NULL;
	show->stage = SHOW_IDLE;
}

static void
finish(KafkaShow *show, KafkaOutcome outcome)
{
	show->stage = SHOW_DONE;
	show->outcome = outcome;
}

static void
finish_with_code(KafkaShow *show, rd_kafka_resp_err_t code, const char *text)
{
	KafkaOutcome outcome = kafka_outcome_of(code);

	/* The broker's way to say that the group has members, and we are none. */
	if (code == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID ||
		code == RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION ||
		code == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS)
	{
		outcome = KAFKA_REFUSED;
		text = "it has live members: it belongs to another service";
	}

	/*
	 * A topic that may not be read is no fault of the group: its reader
	 * tells.
	 */
	if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
		outcome = KAFKA_UNCERTAIN;
	kafka_error_set(&show->error, code, "group \"%s\": %s", show->group_id,
					text != NULL ? text : rd_kafka_err2str(code));
	finish(show, outcome == KAFKA_OK ? KAFKA_UNCERTAIN : outcome);
}

/* ------------------------------------------------------------------------
 * Requests
 * ------------------------------------------------------------------------
 */
static rd_kafka_AdminOptions_t *
request_options(KafkaShow *show, KafkaClient *client,
				rd_kafka_admin_op_t kind)
{
	rd_kafka_AdminOptions_t *options;
	char		ignored[256];

	options = rd_kafka_AdminOptions_new(client->rk, kind);
	rd_kafka_AdminOptions_set_request_timeout(options, REQUEST_TIMEOUT_MS,
											  ignored, sizeof(ignored));
	rd_kafka_AdminOptions_set_opaque(options, (void *) ++show->number);
	return options;
}

/* Step 1: has the group live members? */
static void
ask_members(KafkaShow *show, KafkaClient *client)
{
	const char *group_id = show->group_id;
	rd_kafka_AdminOptions_t *options;

	options = request_options(show, client,
							  RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS);
	rd_kafka_DescribeConsumerGroups(client->rk, &group_id, 1, options,
									client->queue);
	rd_kafka_AdminOptions_destroy(options);
	show->stage = SHOW_MEMBERS;
}

/* Step 2: whose offsets are in it? */
static void
ask_offsets(KafkaShow *show, KafkaClient *client)
{
	rd_kafka_ListConsumerGroupOffsets_t *request;
	rd_kafka_AdminOptions_t *options;

	options = request_options(show, client,
							  RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);
	request = rd_kafka_ListConsumerGroupOffsets_new(show->group_id,
													show->offsets);
	rd_kafka_ListConsumerGroupOffsets(client->rk, &request, 1, options,
									  client->queue);
	rd_kafka_ListConsumerGroupOffsets_destroy(request);
	rd_kafka_AdminOptions_destroy(options);
	show->stage = SHOW_OFFSETS;
}

/* Step 3: it is free or ours. */
static void
write_offsets(KafkaShow *show, KafkaClient *client)
{
	rd_kafka_AlterConsumerGroupOffsets_t *request;
	rd_kafka_AdminOptions_t *options;

	options = request_options(show, client,
							  RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS);
	request = rd_kafka_AlterConsumerGroupOffsets_new(show->group_id,
													 show->offsets);
	rd_kafka_AlterConsumerGroupOffsets(client->rk, &request, 1, options,
									   client->queue);
	rd_kafka_AlterConsumerGroupOffsets_destroy(request);
	rd_kafka_AdminOptions_destroy(options);
	show->stage = SHOW_WRITE;
}

/* ------------------------------------------------------------------------
 * Answers
 * ------------------------------------------------------------------------
 */
static void
take_members(KafkaShow *show, KafkaClient *client, rd_kafka_event_t *event)
{
	const rd_kafka_DescribeConsumerGroups_result_t *result;
	const rd_kafka_ConsumerGroupDescription_t **groups;
	const rd_kafka_error_t *failed;
	size_t		members;
	size_t		n = 0;

	result = rd_kafka_event_DescribeConsumerGroups_result(event);
	groups = rd_kafka_DescribeConsumerGroups_result_groups(result, &n);
	if (n != 1)
	{
		finish_with_code(show, RD_KAFKA_RESP_ERR_UNKNOWN, "no answer");
		return;
	}
	failed = rd_kafka_ConsumerGroupDescription_error(groups[0]);
	if (failed != NULL &&
		rd_kafka_error_code(failed) != RD_KAFKA_RESP_ERR_NO_ERROR &&
		rd_kafka_error_code(failed) != RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND)
	{
		finish_with_code(show, rd_kafka_error_code(failed),
						 rd_kafka_error_string(failed));
		return;
	}
	members = rd_kafka_ConsumerGroupDescription_member_count(groups[0]);
	if (members > 0)
	{
		kafka_error_set(&show->error, 0,
						"group \"%s\" has %zu live members: it belongs to another service",
						show->group_id, members);
		finish(show, KAFKA_REFUSED);
		return;
	}
	ask_offsets(show, client);
}

/* The partitions of an answer about one group, or NULL after finishing. */
static const rd_kafka_topic_partition_list_t *
group_partitions(KafkaShow *show, const rd_kafka_group_result_t **groups,
				 size_t n)
{
	const rd_kafka_error_t *failed;

	if (n != 1)
	{
		finish_with_code(show, RD_KAFKA_RESP_ERR_UNKNOWN, "no answer");
		return NULL;
	}
	failed = rd_kafka_group_result_error(groups[0]);
	if (failed != NULL)
	{
		finish_with_code(show, rd_kafka_error_code(failed),
						 rd_kafka_error_string(failed));
		return NULL;
	}
	return rd_kafka_group_result_partitions(groups[0]);
}

/* Offsets of ours carry the database's identity as metadata. */
static bool
is_ours(const KafkaShow *show, const rd_kafka_topic_partition_t *there)
{
	size_t		len = strlen(show->metadata);

	return there->metadata_size == len &&
		memcmp(there->metadata, show->metadata, len) == 0;
}

static void
take_offsets(KafkaShow *show, KafkaClient *client, rd_kafka_event_t *event)
{
	const rd_kafka_topic_partition_list_t *list;
	const rd_kafka_group_result_t **groups;
	size_t		n = 0;
	int			i;

	groups = rd_kafka_ListConsumerGroupOffsets_result_groups(
															 rd_kafka_event_ListConsumerGroupOffsets_result(event), &n);
	list = group_partitions(show, groups, n);
	if (list == NULL)
		return;
	for (i = 0; i < list->cnt; i++)
	{
		const rd_kafka_topic_partition_t *there = &list->elems[i];

		if (there->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			finish_with_code(show, there->err, NULL);
			return;
		}
		if (there->offset >= 0 && !is_ours(show, there))
		{
			kafka_error_set(&show->error, 0,
							"group \"%s\" has offsets of another service (topic \"%s\" partition %d)",
							show->group_id, there->topic,
							(int) there->partition);
			finish(show, KAFKA_REFUSED);
			return;
		}
	}
	write_offsets(show, client);
}

static void
take_written(KafkaShow *show, rd_kafka_event_t *event)
{
	const rd_kafka_topic_partition_list_t *list;
	const rd_kafka_group_result_t **groups;
	size_t		n = 0;
	int			i;

	groups = rd_kafka_AlterConsumerGroupOffsets_result_groups(
															  rd_kafka_event_AlterConsumerGroupOffsets_result(event), &n);
	list = group_partitions(show, groups, n);
	if (list == NULL)
		return;
	for (i = 0; i < list->cnt; i++)
	{
		if (list->elems[i].err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			finish_with_code(show, list->elems[i].err, NULL);
			return;
		}
	}
	finish(show, KAFKA_OK);
}

bool
kafka_show_handle(KafkaShow *show, KafkaClient *client,
				  rd_kafka_event_t *event)
{
	rd_kafka_event_type_t type = rd_kafka_event_type(event);
	ShowStage	awaited;

	switch (type)
	{
		case RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT:
			awaited = SHOW_MEMBERS;
			break;
		case RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT:
			awaited = SHOW_OFFSETS;
			break;
		case RD_KAFKA_EVENT_ALTERCONSUMERGROUPOFFSETS_RESULT:
			awaited = SHOW_WRITE;
			break;
		default:
			return false;
	}
	if (show->stage != awaited ||
		(uintptr_t) rd_kafka_event_opaque(event) != show->number)
		return true;

	if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR)
		finish_with_code(show, rd_kafka_event_error(event),
						 rd_kafka_event_error_string(event));
	else if (awaited == SHOW_MEMBERS)
		take_members(show, client, event);
	else if (awaited == SHOW_OFFSETS)
		take_offsets(show, client, event);
	else
		take_written(show, event);
	return true;
}

/* ------------------------------------------------------------------------
 * Starting and fetching
 * ------------------------------------------------------------------------
 */
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

KafkaOutcome
kafka_show_step(KafkaShow *show, KafkaClient *client, const char *group_id,
				const KafkaPosition *positions, int n, const char *metadata,
				KafkaError *error)
{
	KafkaOutcome outcome;

	if (show->stage == SHOW_IDLE)
	{
		show->offsets = offsets_to_write(positions, n, metadata);
		show->group_id = kafka_strdup(group_id);
		show->metadata = kafka_strdup(metadata);
		if (show->offsets->cnt == 0)
			finish(show, KAFKA_OK);
		else
			ask_members(show, client);
	}
	if (show->stage != SHOW_DONE)
		return KAFKA_PENDING;

	outcome = show->outcome;
	if (outcome != KAFKA_OK && error != NULL)
		*error = show->error;
	kafka_show_forget(show);
	return outcome;
}
