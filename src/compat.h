/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  The only place that knows versions of PostgreSQL and librdkafka.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Each shim has the shape of the newest version's interface and names the
 * release that changed it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef COMPAT_H
#define COMPAT_H

#ifdef PG_VERSION_NUM

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 200000
#error "carshop_outbox supports PostgreSQL 15 to 19"
#endif

#define PG16_GE (PG_VERSION_NUM >= 160000)
#define PG17_GE (PG_VERSION_NUM >= 170000)
#define PG18_GE (PG_VERSION_NUM >= 180000)
#define PG19_GE (PG_VERSION_NUM >= 190000)

/* 19 gave signal handlers a second argument, and SIG_IGN a form of its own */
#if PG19_GE
#define compat_ignore_signal(signal) pqsignal(signal, PG_SIG_IGN)
#else
#define compat_ignore_signal(signal) pqsignal(signal, SIG_IGN)
#endif

/* 19 tells, too, whether they are volatile; with NULL it need not */
#if PG19_GE
#define compat_domain_has_constraints(type) DomainHasConstraints(type, NULL)
#else
#define compat_domain_has_constraints(type) DomainHasConstraints(type)
#endif

/* 16 added missing_ok */
#if PG16_GE
#define compat_build_attrmap(in, out) \
	build_attrmap_by_name_if_req(in, out, false)
#else
#define compat_build_attrmap(in, out) \
	build_attrmap_by_name_if_req(in, out)
#endif

/* 16 added onlySummarizing, 19 made all of them flags */
#if PG19_GE
#define compat_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples(info, estate, 0, slot, NIL, NULL)
#elif PG16_GE
#define compat_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL, false)
#else
#define compat_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL)
#endif

/* 19 put options into the place of changingPart */
#if PG19_GE
#define compat_tuple_delete(rel, tid, snapshot, wait, tmfd) \
	table_tuple_delete(rel, tid, GetCurrentCommandId(true), 0, snapshot, \
					   InvalidSnapshot, wait, tmfd)
#else
#define compat_tuple_delete(rel, tid, snapshot, wait, tmfd) \
	table_tuple_delete(rel, tid, GetCurrentCommandId(true), snapshot, \
					   InvalidSnapshot, wait, tmfd, false)
#endif

/* 18 added instrument, 19 flags */
#if PG19_GE
#define compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0, SO_NONE)
#elif PG18_GE
#define compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 19 added flags */
#if PG19_GE
#define compat_table_beginscan(rel, snapshot) \
	table_beginscan(rel, snapshot, 0, NULL, SO_NONE)
#else
#define compat_table_beginscan(rel, snapshot) \
	table_beginscan(rel, snapshot, 0, NULL)
#endif

/* 16 renamed it */
#if PG16_GE
#define compat_new_file(rel) \
	RelationSetNewRelfilenumber(rel, (rel)->rd_rel->relpersistence)
#else
#define compat_new_file(rel) \
	RelationSetNewRelfilenode(rel, (rel)->rd_rel->relpersistence)
#endif

/* The indexes of a table and of its TOAST table.  17 wants to know the command. */
#if PG17_GE
#define compat_reindex_table(relid) \
	((void) reindex_relation(NULL, relid, REINDEX_REL_PROCESS_TOAST, &(ReindexParams) {0}))
#else
#define compat_reindex_table(relid) \
	((void) reindex_relation(relid, REINDEX_REL_PROCESS_TOAST, &(ReindexParams) {0}))
#endif

/* 17 lets extensions name what they wait for; looked up once per place */
#include "utils/wait_event.h"
#if PG17_GE
static inline uint32
compat_wait_event(uint32 *known, const char *name)
{
	if (*known == 0)
		*known = WaitEventExtensionNew(name);
	return *known;
}
#else
static inline uint32
compat_wait_event(uint32 *known, const char *name)
{
	return PG_WAIT_EXTENSION;
}
#endif

/*
 * Is this a walsender of logical replication?  16 says so itself; it always holds
 * a slot, and nobody but a logical one a slot of a database.
 */
#if PG16_GE
#define compat_is_logical(walsnd, pid_) \
	((walsnd)->kind == REPLICATION_KIND_LOGICAL)
#else
#include "replication/slot.h"
static inline bool
compat_is_logical_pid(pid_t pid)
{
	bool		found = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !found; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		SpinLockAcquire(&slot->mutex);
		found = slot->in_use && slot->active_pid == pid && SlotIsLogical(slot);
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return found;
}
#define compat_is_logical(walsnd, pid_) compat_is_logical_pid(pid_)
#endif

/* 18 lets a library say its name and version: pg_get_loaded_modules() */
#if PG18_GE
#define COMPAT_MODULE_MAGIC(name_, version_) \
	PG_MODULE_MAGIC_EXT(.name = name_, .version = version_)
#else
#define COMPAT_MODULE_MAGIC(name_, version_) PG_MODULE_MAGIC
#endif

/* 16 replaced the check of each kind of object by one for all */
#if PG16_GE
#define compat_owns_relation(relation, role) \
	object_ownercheck(RelationRelationId, relation, role)
#else
#define compat_owns_relation(relation, role) \
	pg_class_ownercheck(relation, role)
#endif

#if PG16_GE
#define compat_owns_database(database, role) \
	object_ownercheck(DatabaseRelationId, database, role)
#else
#define compat_owns_database(database, role) \
	pg_database_ownercheck(database, role)
#endif

/*
 * Is it JSON?  Without an error, so that the caller can say what it is about.
 * 17 lets the caller bring the lexer.
 */
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
static inline bool
compat_is_json(const char *text)
{
#if PG17_GE
	JsonLexContext *lex = makeJsonLexContextCstringLen(NULL, text, strlen(text),
													   GetDatabaseEncoding(), false);
#else
	JsonLexContext *lex = makeJsonLexContextCstringLen((char *) text, strlen(text),
													   GetDatabaseEncoding(), false);
#endif

	return pg_parse_json(lex, &nullSemAction) == JSON_SUCCESS;
}

/* 18 added virtual generated columns; triggers do not see their values */
#if PG18_GE
#include "rewrite/rewriteHandler.h"
#define compat_is_virtual(att) \
	((att)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#define compat_virtual_expression(rel, attno) \
	build_generation_expression(rel, attno)
#else
#define compat_is_virtual(att) false
#define compat_virtual_expression(rel, attno) NULL
#endif

/* 18 has C11's word, which stands in front */
#if PG18_GE
#define compat_noreturn pg_noreturn
#else
#define compat_noreturn pg_attribute_noreturn()
#endif

/* 19 keeps the value that is under construction in a struct with its result */
#include "utils/jsonb.h"
#if PG19_GE
typedef JsonbInState CompatJsonb;
#define compat_push_jsonb(state, token, value) pushJsonbValue(state, token, value)
#else
typedef struct CompatJsonb
{
	JsonbParseState *parse;
	JsonbValue *result;
} CompatJsonb;
#define compat_push_jsonb(state, token, value) \
	((state)->result = pushJsonbValue(&(state)->parse, token, value))
#endif

/* 18 made columns of a relation of the expressions of GROUP BY */
#if PG18_GE
#include "optimizer/optimizer.h"
#define compat_ungrouped(query, list) \
	((query)->hasGroupRTE ? (List *) flatten_group_exprs(NULL, query, (Node *) (list)) : (list))
#else
#define compat_ungrouped(query, list) (list)
#endif

#endif							/* PG_VERSION_NUM */

#ifdef RD_KAFKA_VERSION

/* 2.3 added DescribeTopics: what one is allowed to do, and the topic's id */
#define RDK23_GE (RD_KAFKA_VERSION >= 0x020300ff)

#endif							/* RD_KAFKA_VERSION */

#endif							/* COMPAT_H */
