/*-------------------------------------------------------------------------
 *
 * segment.c
 *	  The relations of the event store, and which segment is current.
 *
 * The oids are looked up by name once per backend and again after any
 * invalidation of pg_class or pg_namespace, and only taken when the relation
 * is a member of the extension: a relation that was put under the same name
 * cannot catch events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "executor/tuptable.h"
#include "mutants.h"
#include "outbox/segment.h"
#include "settings.h"
#include "shared.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(outbox_segment_switched);

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

static void
forget_all(Datum arg, int cacheid, uint32 hashvalue)
{
	for (int i = 0; i < lengthof(known); i++)
		known[i].oid = InvalidOid;
}

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

/*
 * Which segment is current, as committed last: read with the newest snapshot,
 * never the transaction's (a REPEATABLE READ transaction would still choose a
 * former segment).
 */
static int
read_current_segment(void)
{
	Relation	rel = table_open(outbox_relation("lineage"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			segment = 0;

	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		AttrNumber	attno = get_attnum(RelationGetRelid(rel), "current_segment");
		bool		isnull;

		segment = DatumGetInt16(slot_getattr(slot, attno, &isnull));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return segment;
}

static int
current_segment(void)
{
	int			segment = shared_current_segment();

	if (segment < 0)
	{
		segment = read_current_segment();
		shared_set_current_segment(segment, true);
	}
	return segment;
}

/*
 * Rotation rests on locks: who holds ROW EXCLUSIVE on a segment writes into
 * it, so ACCESS EXCLUSIVE NOWAIT on a former segment proves that all its
 * writers have ended.  Between choosing and locking the current segment may
 * have moved: look again after the lock is there.
 */
Relation
segment_open_current(void)
{
	for (;;)
	{
		int			segment = current_segment();
		Relation	rel = table_open(outbox_segment_relation(segment),
									 RowExclusiveLock);

		if (current_segment() == segment || MUTANT("no_second_look"))
			return rel;
		table_close(rel, RowExclusiveLock);
	}
}

/* ---- the next segment ---- */

static int	switched_to = -1;
static bool switch_registered = false;

/* Writers look at shared memory, so it changes when the change is committed. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && switched_to >= 0)
		shared_set_current_segment(switched_to, false);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		switched_to = -1;
}

/*
 * outbox.segment_switched(smallint): this transaction has made it current in
 * outbox.lineage.  Transactions that have written into the former one keep
 * their lock on it.
 */
Datum
outbox_segment_switched(PG_FUNCTION_ARGS)
{
	if (!switch_registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		switch_registered = true;
	}
	switched_to = PG_GETARG_INT16(0);
	PG_RETURN_VOID();
}
