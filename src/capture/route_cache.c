/*-------------------------------------------------------------------------
 *
 * route_cache.c
 *	  Compiled routes, kept for the life of the session.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Compiling a route (its templates, its columns' types and output functions)
 * costs more than an event, so a transaction of one row must not do it anew.
 * An entry is dropped when the relation cache says that its table, or the root
 * of the partition tree that it belongs to, has changed; a change of a trigger
 * is one of its table.  While a trigger runs, the statement's lock keeps both
 * as they are; but a user's function that is called for a column may change
 * other things, so an entry that is dropped keeps its memory to the end of
 * the transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "capture/route.h"
#include "mutants.h"
#include "settings.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* A trigger of a user's own making may be for several operations. */
typedef struct RouteKey
{
	Oid			trigger;
	RouteOperation operation;
} RouteKey;

typedef struct CachedRoute
{
	RouteKey	key;
	Oid			table;
	bool		valid;
	Route	   *route;
	MemoryContext context;		/* of the route */
} CachedRoute;

static HTAB *routes = NULL;

/* A relation cache invalidation; InvalidOid: of everything. */
static void
table_changed(Datum arg, Oid table)
{
	HASH_SEQ_STATUS status;
	CachedRoute *entry;

	if (MUTANT("stale_routes"))
		return;
	hash_seq_init(&status, routes);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (!OidIsValid(table) || entry->table == table || entry->route->root == table)
			entry->valid = false;
	}
}

/*
 * Forget what is not valid any more.  It may be in use further up the stack, so
 * its memory stays to the end of the transaction.
 */
static void
drop_invalid(void)
{
	HASH_SEQ_STATUS status;
	CachedRoute *entry;

	hash_seq_init(&status, routes);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->valid)
			continue;
		MemoryContextSetParent(entry->context, TopTransactionContext);
		(void) hash_search(routes, &entry->key, HASH_REMOVE, NULL);
	}
}

static void
make_cache(void)
{
	HASHCTL		info = {.keysize = sizeof(RouteKey),
		.entrysize = sizeof(CachedRoute),
	.hcxt = CacheMemoryContext};

	routes = hash_create("carshop_outbox routes", 32, &info,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
}

Route *
route_of_trigger(Relation rel, const Trigger *trigger,
				 RouteOperation operation)
{
	RouteKey	key = {trigger->tgoid, operation};
	CachedRoute *entry;
	MemoryContext context;
	MemoryContext old;
	Route	   *route;

	if (routes == NULL)
		make_cache();
	entry = hash_search(routes, &key, HASH_FIND, NULL);
	if (entry != NULL && entry->valid)
		return entry->route;

	/* an error leaves nothing behind: the context is the caller's until then */
	context = AllocSetContextCreate(CurrentMemoryContext,
									"carshop_outbox route",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	route = route_compile(rel, operation, trigger->tgnargs, trigger->tgargs);
	MemoryContextSwitchTo(old);

	drop_invalid();
	entry = hash_search(routes, &key, HASH_ENTER, NULL);
	MemoryContextSetParent(context, CacheMemoryContext);
	entry->table = RelationGetRelid(rel);
	entry->route = route;
	entry->context = context;
	entry->valid = true;
	return route;
}
