/*-------------------------------------------------------------------------
 *
 * topics.c
 *	  Which topics an event may go to.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The topics that routes name are kept for the session: reading pg_trigger for
 * every event would cost more than the event.  There is no cache of pg_trigger
 * to listen to, but whoever makes, changes or drops a trigger invalidates the
 * relation cache's entry of its table, so the list is thrown away at any such
 * message.  Another session's route is seen by the next transaction, or earlier.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_trigger.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "errors.h"
#include "mutants.h"
#include "outbox/relations.h"
#include "outbox/route_arguments.h"
#include "outbox/topics.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define PROGRESS_PREFIX	"carshop-outbox-progress"
#define TOPIC_BYTES		249		/* Kafka's limit */
#define UUID_TEXT_BYTES	36

/* ---- the relays' own topics ---- */

static bool
begins_with_uuid(const char *text)
{
	for (int i = 0; i < UUID_TEXT_BYTES; i++)
	{
		bool		hyphen = i == 8 || i == 13 || i == 18 || i == 23;

		if (hyphen ? text[i] != '-' : !isxdigit((unsigned char) text[i]))
			return false;
	}
	return true;
}

/* Can the setting's text make this topic, for some lineage and database? */
static bool
can_make(const char *setting, const char *topic)
{
	if (*setting == '\0')
		return *topic == '\0';
	if (strncmp(setting, "{lineage}", strlen("{lineage}")) == 0)
		return begins_with_uuid(topic) &&
			can_make(setting + strlen("{lineage}"), topic + UUID_TEXT_BYTES);
	if (strncmp(setting, "{database}", strlen("{database}")) == 0)
	{
		for (int len = 1; len < NAMEDATALEN && topic[len - 1] != '\0'; len++)
		{
			if (can_make(setting + strlen("{database}"), topic + len) &&
				OidIsValid(get_database_oid(pnstrdup(topic, len), true)))
				return true;
		}
		return false;
	}
	return *setting == *topic && can_make(setting + 1, topic + 1);
}

/*
 * The progress topic in outbox.lineage, where it stays when the setting
 * changes; "": none yet.  Read once per statement, with the newest snapshot, and
 * without any right of the current user.
 */
static const char *
recorded_progress_topic(void)
{
	static char topic[TOPIC_BYTES + 1];
	static TimestampTz read_at = 0;
	Relation	rel;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (read_at != 0 && read_at == GetCurrentStatementStartTimestamp())
		return topic;
	topic[0] = '\0';
	rel = table_open(outbox_relation("lineage"), AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = compat_table_beginscan(rel, snapshot);
	slot = table_slot_create(rel, NULL);
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, get_attnum(RelationGetRelid(rel), "progress_topic"),
										 &isnull);

		if (!isnull)
			strlcpy(topic, TextDatumGetCString(value), sizeof(topic));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	read_at = GetCurrentStatementStartTimestamp();
	return topic;
}

bool
outbox_is_progress_topic(const char *topic)
{
	return strncmp(topic, PROGRESS_PREFIX, strlen(PROGRESS_PREFIX)) == 0 ||
		can_make(setting_progress_topic, topic) ||
		strcmp(topic, recorded_progress_topic()) == 0;
}

/* By Kafka's rules (Topic.validate). */
static bool
is_legal(const char *topic)
{
	size_t		len = strlen(topic);
	bool		legal = len >= 1 && len <= TOPIC_BYTES &&
	strcmp(topic, ".") != 0 && strcmp(topic, "..") != 0;

	for (const char *at = topic; legal && *at; at++)
		legal = isalnum((unsigned char) *at) ?
			(unsigned char) *at < 128 : strchr("._-", *at) != NULL;
	return legal;
}

bool
outbox_is_topic_name(const char *topic)
{
	return is_legal(topic) && !outbox_is_progress_topic(topic);
}

void
outbox_check_topic_name(const char *topic, int sqlstate)
{
	if (!is_legal(topic))
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("\"%s\" is not a legal topic name", topic),
				 errhint("Kafka takes 1 to 249 letters, digits, dots, underscores and hyphens.")));
	if (outbox_is_progress_topic(topic))
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("topic \"%s\" is reserved for the relay's progress", topic),
				 errhint("Choose a name that does not begin with %s and is not made by carshop_outbox.progress_topic.",
						 PROGRESS_PREFIX)));
}

/* ---- the topics that an application may name ---- */

/* Does a pattern of carshop_outbox.allowed_topics (only * is special) match? */
static bool
pattern_matches(const char *pattern, const char *text)
{
	const char *star = NULL;
	const char *retry = NULL;

	while (*text)
	{
		if (*pattern == '*')
		{
			star = ++pattern;
			retry = text;
		}
		else if (*pattern == *text)
		{
			pattern++;
			text++;
		}
		else if (star != NULL)
		{
			pattern = star;
			text = ++retry;
		}
		else
			return false;
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

/* A topic that Kafka takes fits; a longer text is nobody's topic. */
typedef struct RouteTopic
{
	char		name[TOPIC_BYTES + 1];
} RouteTopic;

static HTAB *route_topics = NULL;
static MemoryContext route_topics_context = NULL;
static uint64 changes = 1;		/* of any table, seen by this session */
static uint64 changes_read = 0; /* those that the list knows of */

/* Any table: which one has a route is not known here. */
static void
table_changed(Datum arg, Oid table)
{
	if (!MUTANT("stale_topics"))
		changes++;
}

/* Read pg_trigger: which topics do routes name? */
static void
read_route_topics(void)
{
	/*
	 * after an error the former list stays, which is out of date and known to
	 * be
	 */
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "carshop_outbox topics",
												  ALLOCSET_SMALL_SIZES);
	HASHCTL		info = {.keysize = sizeof(RouteTopic),
		.entrysize = sizeof(RouteTopic),
	.hcxt = context};
	HTAB	   *topics = hash_create("carshop_outbox topics of routes", 32, &info,
									 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	uint64		before = changes;	/* what changes meanwhile may not be in
									 * the list */
	Oid			function = outbox_capture_function(false);
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		char	   *topic;

		if (((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid != function)
			continue;
		topic = route_argument(rel, tuple, "topic");
		if (topic != NULL && strlen(topic) <= TOPIC_BYTES)
			(void) hash_search(topics, topic, HASH_ENTER, NULL);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (route_topics_context != NULL)
		MemoryContextDelete(route_topics_context);
	MemoryContextSetParent(context, CacheMemoryContext);
	route_topics_context = context;
	route_topics = topics;
	changes_read = before;
}

/* Is it the fixed topic of one of this database's routes? */
static bool
topic_of_a_route(const char *topic)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
		registered = true;
	}
	if (changes_read != changes)
		read_route_topics();
	return hash_search(route_topics, topic, HASH_FIND, NULL) != NULL;
}

void
outbox_check_topic_permitted(const char *topic)
{
	ListCell   *lc;

	if (strcmp(topic, setting_topic) == 0 || MUTANT("any_topic"))
		return;
	foreach(lc, settings_split(setting_allowed_topics))
	{
		if (pattern_matches(lfirst(lc), topic))
			return;
	}
	if (topic_of_a_route(topic))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OB_EVENT_REFUSED),
			 errmsg("topic \"%s\" is not allowed", topic),
			 errdetail("Allowed are the default topic, those of routes, and carshop_outbox.allowed_topics."),
			 errhint("An administrator can add it: ALTER DATABASE ... SET carshop_outbox.allowed_topics = '%s'.", topic)));
}
