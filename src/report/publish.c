/*-------------------------------------------------------------------------
 *
 * publish.c
 *	  Reports whose statement writes events: what caused them, and that a
 *	  report is not given what it has caused itself.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Exactly once needs nothing of this: events are rows of the reporter's
 * transaction like all others, and a tick publishes only what is on the disk.
 *
 * The header caused-by-report names the reports that an event came through, the
 * newest last: their names and identities (report.definitions.identity, which
 * tells apart two databases' reports of one name, and which a dump, a copy and
 * a failover keep).  An event that names its cause, a new event of this run,
 * goes on with that one's chain, and its id is a digest of what it is: a
 * database that went back in time and reads Kafka again makes the same ids, and
 * so does a rebuild.  An event without that, such as a route's, could come of
 * any event of the run.  A union of their chains would keep it from reports that
 * ought to have it, so where the chains differ the run is undone and the
 * statement is given the events in parts of one chain each.
 *
 * Memory: of the run, see publish_describe().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "errors.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "mutants.h"
#include "outbox/consequence.h"
#include "report/as_owner.h"
#include "report/event_log.h"
#include "report/publish.h"
#include "report/sql_plan.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/uuid.h"

/* So often may an event come through a report that allows loops. */
#define MOST_ROUNDS		16

/* What the labels and commas of a chain are made of: no JSON escapes, ASCII. */
#define LABEL_CHARACTERS \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.%@"

/* An event of the run, by its id. */
typedef struct Cause
{
	pg_uuid_t	id;
	const char *chain;			/* NULL: none */
	const char *traceparent;	/* NULL: none */
} Cause;

/* How often the run has made an event of this digest. */
typedef struct Made
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	int64		times;
} Made;

struct Publishing
{
	const char *report;
	Tuplestorestate *store;
	MemoryContext context;
	bool		known;			/* what follows is filled */
	pg_uuid_t	identity;
	bool		loops;
	char	   *label;
	HTAB	   *causes;
	HTAB	   *made;
	char	   *first;			/* chain of what comes of the first event */
	char	   *alone;			/* chain of what comes of one without a chain */
	bool		mixed;			/* events have different chains */
	bool		publishes;
	bool		unclear;		/* which of them an event has got */
};

/* ------------------------------------------------------------------------
 * Who the report is
 * ------------------------------------------------------------------------
 */

/* NAME@IDENTITY, in LABEL_CHARACTERS whatever the name is made of. */
static char *
make_label(const char *name, const pg_uuid_t *identity)
{
	StringInfoData label;

	initStringInfo(&label);
	for (; *name != '\0'; name++)
	{
		if (*name == '%' || *name == '@' || strchr(LABEL_CHARACTERS, *name) == NULL)
			appendStringInfo(&label, "%%%02X", (unsigned char) *name);
		else
			appendStringInfoChar(&label, *name);
	}
	appendStringInfo(&label, "@%s",
					 DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(identity))));
	return label.data;
}

/*
 * Looked up when it is needed first, perhaps in the middle of the statement:
 * the search_path is its owner's then, so operators are qualified as well.
 */
static void
know_report(Publishing *publishing)
{
	static SqlPlan get_report = {
		"SELECT identity, loops FROM report.definitions"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		1, {TEXTOID}, NULL
	};
	Datum		value = CStringGetTextDatum(publishing->report);
	MemoryContext old;
	AsOwner		scope;

	as_owner_begin(&scope);
	if (sql_plan_execute(&get_report, &value, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("report \"%s\" does not exist", publishing->report)));
	publishing->identity = *DatumGetUUIDP(sql_value(0, 1, NULL));
	publishing->loops = DatumGetBool(sql_value(0, 2, NULL));
	as_owner_end(&scope);

	old = MemoryContextSwitchTo(publishing->context);
	publishing->label = make_label(publishing->report, &publishing->identity);
	MemoryContextSwitchTo(old);
	publishing->known = true;
}

/* ------------------------------------------------------------------------
 * Chains
 * ------------------------------------------------------------------------
 */

/* A header's text as a palloc'd string; NULL: there is none. */
static char *
header(Jsonb *headers, const char *name)
{
	JsonbValue *value;

	if (!JB_ROOT_IS_OBJECT(headers))
		return NULL;
	value = getKeyJsonValueFromContainer(&headers->root, name, strlen(name), NULL);
	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* Another program's header of this name counts for nothing. */
static char *
chain_of(Jsonb *headers)
{
	char	   *chain = header(headers, HEADER_CAUSED_BY_REPORT);

	if (chain == NULL || chain[0] == '\0' ||
		chain[strspn(chain, LABEL_CHARACTERS ",")] != '\0')
		return NULL;
	return chain;
}

/* How often the label stands in the chain. */
static int
count_label(const char *chain, const char *label)
{
	size_t		len = strlen(label);
	int			n = 0;

	while (chain != NULL)
	{
		if (strncmp(chain, label, len) == 0 &&
			(chain[len] == '\0' || chain[len] == ','))
			n++;
		chain = strchr(chain, ',');
		if (chain != NULL)
			chain++;
	}
	return n;
}

/* The chain of what the report makes of an event that has this one. */
static char *
extend(const Publishing *publishing, const char *chain)
{
	if (chain == NULL)
		return pstrdup(publishing->label);
	return psprintf("%s,%s", chain, publishing->label);
}

/* NULL is a chain, too: that of events which no report has caused. */
static bool
same_chain(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* ------------------------------------------------------------------------
 * The events of a run
 * ------------------------------------------------------------------------
 */

/* Go through the store, beside whoever else reads it. */
typedef struct StoreScan
{
	Tuplestorestate *store;
	int			pointer;
	TupleTableSlot *slot;
	AttrNumber	id;				/* columns */
	AttrNumber	headers;
	MemoryContext each;			/* for what is looked at of an event */
} StoreScan;

static void
begin_scan(StoreScan *scan, Tuplestorestate *store)
{
	Relation	log = table_open(event_log_relid(), AccessShareLock);

	scan->store = store;
	scan->pointer = tuplestore_alloc_read_pointer(store, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(store, scan->pointer);
	tuplestore_rescan(store);
	scan->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(log)),
										  &TTSOpsMinimalTuple);
	scan->id = get_attnum(RelationGetRelid(log), "id");
	scan->headers = get_attnum(RelationGetRelid(log), "headers");
	scan->each = AllocSetContextCreate(CurrentMemoryContext,
									   "carshop_outbox headers",
									   ALLOCSET_SMALL_SIZES);
	table_close(log, AccessShareLock);
}

/* False: at the end.  *headers is NULL where there are none, and of scan->each. */
static bool
next_event(StoreScan *scan, Jsonb **headers)
{
	MemoryContext old;
	Datum		value;
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	MemoryContextReset(scan->each);
	tuplestore_select_read_pointer(scan->store, scan->pointer);
	if (!tuplestore_gettupleslot(scan->store, true, false, scan->slot))
		return false;
	value = slot_getattr(scan->slot, scan->headers, &isnull);
	old = MemoryContextSwitchTo(scan->each);
	*headers = isnull ? NULL : DatumGetJsonbP(value);
	MemoryContextSwitchTo(old);
	return true;
}

static void
end_scan(StoreScan *scan)
{
	ExecDropSingleTupleTableSlot(scan->slot);
	MemoryContextDelete(scan->each);
}

/* Note the events of the run: an event that is written may name one. */
static void
know_causes(Publishing *publishing)
{
	HASHCTL		info = {.keysize = UUID_LEN,
		.entrysize = sizeof(Cause),
	.hcxt = publishing->context};
	MemoryContext old = MemoryContextSwitchTo(publishing->context);
	HTAB	   *causes = hash_create("causing events", 256, &info,
									 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	const char *first = NULL;
	bool		any = false;
	StoreScan	scan;
	Jsonb	   *headers;

	begin_scan(&scan, publishing->store);
	while (next_event(&scan, &headers))
	{
		bool		isnull;
		Datum		id = slot_getattr(scan.slot, scan.id, &isnull);
		Cause	   *cause = hash_search(causes, DatumGetUUIDP(id), HASH_ENTER, NULL);

		cause->chain = headers ? chain_of(headers) : NULL;
		cause->traceparent = headers ? header(headers, "traceparent") : NULL;
		if (!any)
			first = cause->chain;
		else if (!same_chain(first, cause->chain))
			publishing->mixed = true;
		any = true;
	}
	end_scan(&scan);
	publishing->alone = extend(publishing, NULL);
	publishing->first = extend(publishing, first);
	publishing->causes = causes;
	MemoryContextSwitchTo(old);
}

/* ------------------------------------------------------------------------
 * What the outbox asks
 * ------------------------------------------------------------------------
 */

static void
digest_update(pg_cryptohash_ctx * context, const void *data, size_t len)
{
	if (pg_cryptohash_update(context, data, len) < 0)
		elog(ERROR, "could not compute SHA256: %s", pg_cryptohash_error(context));
}

/* With its length: two texts are never taken for two others. */
static void
digest_text(pg_cryptohash_ctx * context, const TextSlice *text)
{
	uint64		len = text->len;

	digest_update(context, &len, sizeof(len));
	digest_update(context, text->data, text->len);
}

static void
make_digest(Publishing *publishing, const OutboxEvent *event, int64 times,
			uint8 *digest)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);

	if (pg_cryptohash_init(context) < 0)
		elog(ERROR, "could not compute SHA256: %s", pg_cryptohash_error(context));
	digest_update(context, publishing->identity.data, UUID_LEN);
	digest_update(context, event->caused_by.data, UUID_LEN);
	digest_text(context, &event->type);
	digest_text(context, &event->key);
	digest_text(context, &event->topic);
	digest_update(context, &times, sizeof(times));
	if (pg_cryptohash_final(context, digest, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute SHA256: %s", pg_cryptohash_error(context));
	pg_cryptohash_free(context);
}

/*
 * A UUID of version 8 (RFC 9562) out of report, cause, type, key and topic, and
 * how many such events the run has made before.
 */
static void
make_id(Publishing *publishing, const OutboxEvent *event, pg_uuid_t *id)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	Made	   *made;
	bool		found;

	if (publishing->made == NULL)
	{
		HASHCTL		info = {.keysize = PG_SHA256_DIGEST_LENGTH,
			.entrysize = sizeof(Made),
		.hcxt = publishing->context};

		publishing->made = hash_create("events made", 256, &info,
									   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	make_digest(publishing, event, 0, digest);
	made = hash_search(publishing->made, digest, HASH_ENTER, &found);
	made->times = found ? made->times + 1 : 0;
	if (made->times > 0)
		make_digest(publishing, event, made->times, digest);
	memcpy(id->data, digest, UUID_LEN);
	id->data[6] = (id->data[6] & 0x0f) | 0x80;
	id->data[8] = (id->data[8] & 0x3f) | 0x80;
}

static void
describe(void *arg, const OutboxEvent *event, Consequence *consequence)
{
	Publishing *publishing = arg;
	Cause	   *cause = NULL;

	if (!publishing->known)
		know_report(publishing);
	if (publishing->causes == NULL)
		know_causes(publishing);
	if (event->has_cause)
		cause = hash_search(publishing->causes, &event->caused_by, HASH_FIND, NULL);
	if (cause == NULL)
	{
		consequence->chain = publishing->first;
		if (publishing->mixed && publishing->publishes)
			publishing->unclear = true;
	}
	else
	{
		consequence->chain = cause->chain == NULL ? publishing->alone :
			extend(publishing, cause->chain);
		consequence->traceparent = cause->traceparent;
		consequence->has_id = true;
		make_id(publishing, event, &consequence->id);
	}
	if (count_label(consequence->chain, publishing->label) > MOST_ROUNDS)
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("event \"%.*s\" has come through report \"%s\" %d times",
						(int) event->type.len, event->type.data,
						publishing->report, MOST_ROUNDS),
				 errhint("Let the report's statement leave out what need not go round once more, or SELECT report.allow_loops(%s, false).",
						 quote_literal_cstr(publishing->report))));
}

Publishing *
publish_describe(const char *report, bool publishes, Tuplestorestate *store)
{
	Publishing *publishing = palloc0(sizeof(Publishing));

	publishing->report = report;
	publishing->store = store;
	publishing->context = CurrentMemoryContext;
	publishing->publishes = publishes;
	outbox_report_describes(describe, publishing);
	if (publishes)
		outbox_report_publishes();
	return publishing;
}

bool
publish_is_unclear(const Publishing *publishing)
{
	return publishing->unclear && !MUTANT("mixed_causes");
}

/* ------------------------------------------------------------------------
 * What a report is not given
 * ------------------------------------------------------------------------
 */

/* Has the report caused the event, and does it not want it back? */
static bool
is_own(Publishing *publishing, const StoreScan *scan, Jsonb *headers)
{
	MemoryContext old = MemoryContextSwitchTo(scan->each);
	char	   *chain = headers != NULL ? chain_of(headers) : NULL;
	bool		own = false;

	if (chain != NULL)
	{
		if (!publishing->known)
			know_report(publishing);
		own = !publishing->loops && count_label(chain, publishing->label) > 0;
	}
	MemoryContextSwitchTo(old);
	return own && !MUTANT("loops");
}

/* Of n events, all but those that the report has caused. */
static Tuplestorestate *
without_own(Publishing *publishing, Tuplestorestate *store, int64 *n)
{
	Tuplestorestate *given = tuplestore_begin_heap(false, false,
												   setting_worker_memory / 4);
	StoreScan	scan;
	Jsonb	   *headers;

	*n = 0;
	begin_scan(&scan, store);
	while (next_event(&scan, &headers))
	{
		if (is_own(publishing, &scan, headers))
			continue;
		tuplestore_puttupleslot(given, scan.slot);
		++*n;
	}
	end_scan(&scan);
	return given;
}

bool
publish_is_clean(Tuplestorestate *store)
{
	StoreScan	scan;
	Jsonb	   *headers;
	bool		found = false;

	begin_scan(&scan, store);
	while (!found && next_event(&scan, &headers))
		found = headers != NULL && header(headers, HEADER_CAUSED_BY_REPORT) != NULL;
	end_scan(&scan);
	return !found;
}

Tuplestorestate *
publish_withhold(const char *report, Tuplestorestate *store, int64 *n)
{
	Publishing	publishing = {.report = report, .context = CurrentMemoryContext};
	StoreScan	scan;
	Jsonb	   *headers;
	bool		found = false;

	begin_scan(&scan, store);
	while (!found && next_event(&scan, &headers))
		found = is_own(&publishing, &scan, headers);
	end_scan(&scan);
	return found ? without_own(&publishing, store, n) : store;
}

/* ------------------------------------------------------------------------
 * Parts
 * ------------------------------------------------------------------------
 */

struct PublishParts
{
	StoreScan	scan;
	Jsonb	   *headers;		/* of the event that stands in the slot */
	bool		more;			/* there is one */
};

PublishParts *
publish_begin_parts(Tuplestorestate *store)
{
	PublishParts *parts = palloc(sizeof(PublishParts));

	begin_scan(&parts->scan, store);
	parts->more = next_event(&parts->scan, &parts->headers);
	return parts;
}

Tuplestorestate *
publish_next_part(PublishParts *parts, int64 *n)
{
	Tuplestorestate *part;
	char	   *chain;

	if (!parts->more)
	{
		end_scan(&parts->scan);
		return NULL;
	}
	part = tuplestore_begin_heap(false, false, setting_worker_memory / 4);
	chain = parts->headers != NULL ? chain_of(parts->headers) : NULL;
	*n = 0;
	do
	{
		tuplestore_puttupleslot(part, parts->scan.slot);
		++*n;
		parts->more = next_event(&parts->scan, &parts->headers);
	} while (parts->more &&
			 same_chain(chain, parts->headers != NULL ? chain_of(parts->headers) : NULL));
	return part;
}
