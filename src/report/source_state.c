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
	if (!partition->at_end)
		return "reading";
	return source_is_held(partition) ? "held" : "current";
}

const char *
source_state_name(const Source *source)
{
	if (source->state == SOURCE_STOPPED)
		return "stopped";
	if (source->state == SOURCE_WAITING)
		return "waiting for Kafka";
	switch (source_progress(source))
	{
		case SOURCE_CURRENT:
			return "current";
		case SOURCE_HELD:
			return "held by an open transaction";
		case SOURCE_BEHIND:
			break;
	}
	return "reading";
}
