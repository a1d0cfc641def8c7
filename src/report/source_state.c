/*-------------------------------------------------------------------------
 *
 * source_state.c
 *	  Words for what reading is at.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/source.h"

const char *
source_partition_state(const Source *source, const SourcePartition *partition)
{
	if (partition->position.lost)
		return "stopped";
	if (!partition->there || source->state != SOURCE_READING)
		return "waiting";
	if (!partition->settled)
		return "reading";
	return source_is_held(partition) ? "held" : "current";
}

const char *
source_state_name(const Source *source)
{
	bool		any = false;
	bool		held = false;

	if (source->state == SOURCE_STOPPED)
		return "stopped";
	if (source->state == SOURCE_WAITING)
		return "waiting for Kafka";
	for (int i = 0; i < source->n; i++)
	{
		const SourcePartition *partition = &source->partitions[i];

		if (!partition->there || partition->position.lost)
			continue;
		any = true;
		if (!partition->settled)
			return "reading";
		held |= source_is_held(partition);
	}
	if (!any)
		return "reading";
	return held ? "held by an open transaction" : "current";
}
