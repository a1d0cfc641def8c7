/*-------------------------------------------------------------------------
 *
 * replication.c
 *	  The extension's tables and logical replication.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * outbox.ignore_replication is attached to each of our tables as a REPLICA
 * trigger, which fires only where session_replication_role is replica: in the
 * workers of a subscription (worker.c and tablesync.c of PostgreSQL).  A
 * publication FOR ALL TABLES brings the publisher's outbox and reports along;
 * here they are left out, row by row.  A TRUNCATE cannot be left out by a
 * trigger, and would take this server's own events, so it is refused.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "mutants.h"
#include "settings.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(outbox_ignore_replication);

Datum
outbox_ignore_replication(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("outbox.ignore_replication can only be called as a BEFORE trigger")));
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a replicated TRUNCATE must not empty table \"%s\" of extension carshop_outbox",
						RelationGetRelationName(trigger->tg_relation)),
				 errhint("On the publisher, list the tables of the publication instead of FOR ALL TABLES, or publish no truncates: ALTER PUBLICATION ... SET (publish = 'insert, update, delete').")));
	if (MUTANT("replicated_rows"))
		return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
							   trigger->tg_newtuple : trigger->tg_trigtuple);
	return PointerGetDatum(NULL);	/* skips the row */
}
