/*-------------------------------------------------------------------------
 *
 * relations.c
 *	  Finding the relations of schema outbox.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The oids are looked up by name once per backend and again after any
 * invalidation of pg_class or pg_namespace, and only taken when the relation
 * is a member of the extension: a relation that was put under the same name
 * cannot catch events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "outbox/relations.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

typedef struct KnownRelation
{
	const char *name;
	Oid			oid;
} KnownRelation;

static KnownRelation known[] = {
	{"event_0", InvalidOid},
	{"event_1", InvalidOid},
	{"event_2", InvalidOid},
	{"event_seq", InvalidOid},
	{"tick", InvalidOid},
	{"tick_pkey", InvalidOid},
	{"event_0_xid_seq", InvalidOid},
	{"event_1_xid_seq", InvalidOid},
	{"event_2_xid_seq", InvalidOid},
	{"lineage", InvalidOid},
	{"backfill_progress", InvalidOid},
	{"event", InvalidOid}
};

static bool callbacks_registered = false;

/* Of an invalidation: which one does not matter, they are rare. */
static void
forget_all(Datum arg, int cacheid, uint32 hashvalue)
{
	for (int i = 0; i < lengthof(known); i++)
		known[i].oid = InvalidOid;
}

/* False for one of the same name that somebody has put in its place. */
static bool
belongs_to_extension(Oid relation, Oid extension)
{
	Oid			relid = relation;

	if (get_rel_relkind(relation) == RELKIND_INDEX)
	{
		/* an index belongs to what its table belongs to */
		relid = IndexGetRelation(relation, true);
	}
	return OidIsValid(relid) &&
		getExtensionOfObject(RelationRelationId, relid) == extension;
}

Oid
outbox_relation(const char *name)
{
	for (int i = 0; i < lengthof(known); i++)
	{
		Oid			namespace;
		Oid			extension;
		Oid			relation;

		if (strcmp(known[i].name, name) != 0)
			continue;
		if (OidIsValid(known[i].oid))
			return known[i].oid;

		if (!callbacks_registered)
		{
			CacheRegisterSyscacheCallback(RELOID, forget_all, (Datum) 0);
			CacheRegisterSyscacheCallback(NAMESPACEOID, forget_all, (Datum) 0);
			callbacks_registered = true;
		}
		extension = get_extension_oid("carshop_outbox", true);
		namespace = get_namespace_oid("outbox", true);
		relation = OidIsValid(namespace) ?
			get_relname_relid(name, namespace) : InvalidOid;
		if (!OidIsValid(extension) || !OidIsValid(relation) ||
			!belongs_to_extension(relation, extension))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("\"outbox.%s\" of extension carshop_outbox is missing", name),
					 errhint("Repair it with DROP EXTENSION carshop_outbox CASCADE and CREATE EXTENSION carshop_outbox.")));
		known[i].oid = relation;
		return relation;
	}
	elog(ERROR, "unknown relation outbox.%s", name);
	return InvalidOid;			/* not reached */
}

Oid
outbox_segment_relation(int segment)
{
	static const char *const names[OUTBOX_SEGMENTS] = {"event_0", "event_1", "event_2"};

	Assert(segment >= 0 && segment < OUTBOX_SEGMENTS);
	return outbox_relation(names[segment]);
}

Oid
outbox_segment_index(int segment)
{
	static const char *const names[OUTBOX_SEGMENTS] = {
		"event_0_xid_seq", "event_1_xid_seq", "event_2_xid_seq"
	};

	return outbox_relation(names[segment]);
}
