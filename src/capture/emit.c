/*-------------------------------------------------------------------------
 *
 * emit.c
 *	  outbox.emit: an event that no row stands for.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "errors.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "mutants.h"
#include "outbox/admission.h"
#include "outbox/consequence.h"
#include "outbox/event.h"
#include "settings.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(outbox_emit);

/*
 * What tells our key locks from all other advisory locks: SQL's functions put
 * 1 or 2 there, and nothing else lets a role choose it, so only who may call
 * emit can make other emitters wait.  It is pg_locks.objsubid.  For the rest
 * these are advisory locks like others: the deadlock detector, PREPARE
 * TRANSACTION and pg_locks treat them so, and since they are the transaction's
 * and not the session's, pg_advisory_unlock_all does not release them.  (The
 * lock of an OBJECT would do as well, but there any classid is a catalog's to
 * whoever reads pg_locks.)
 */
#define EMIT_LOCK_KIND	0x6f62	/* "ob" */

static void
text_argument(FunctionCallInfo fcinfo, int n, TextSlice *slice)
{
	if (!PG_ARGISNULL(n))
	{
		text	   *value = PG_GETARG_TEXT_PP(n);

		slice->data = VARDATA_ANY(value);
		slice->len = VARSIZE_ANY_EXHDR(value);
	}
}

/*
 * Emitters of one key in one order: the lock is held to the end of the
 * transaction and taken before seq is drawn.  Keys of equal hash share it,
 * which costs waiting and nothing else.
 */
static void
lock_event_key(const TextSlice *key)
{
	LOCKTAG		tag;
	uint64		hash = DatumGetUInt64(hash_any_extended((const unsigned char *) key->data,
														key->len, 0));

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 EMIT_LOCK_KIND);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

Datum
outbox_emit(PG_FUNCTION_ARGS)
{
	OutboxEvent event = {0};
	TextSlice	format = {0};
	pg_uuid_t  *id;

	text_argument(fcinfo, 0, &event.type);
	if (!PG_ARGISNULL(1))
	{
		Jsonb	   *payload = PG_GETARG_JSONB_P(1);

		event.payload.data = JsonbToCString(NULL, &payload->root, VARSIZE(payload));
		event.payload.len = strlen(event.payload.data);
	}
	text_argument(fcinfo, 2, &event.key);
	text_argument(fcinfo, 3, &event.description);
	text_argument(fcinfo, 4, &event.topic);
	text_argument(fcinfo, 5, &event.aggregatetype);
	if (!PG_ARGISNULL(6))
		event.headers = PG_GETARG_JSONB_P(6);
	text_argument(fcinfo, 7, &format);
	event.occurred_at = PG_ARGISNULL(8) ? GetCurrentTimestamp() :
		PG_GETARG_TIMESTAMPTZ(8);
	if (!PG_ARGISNULL(9))
		event.value = PG_GETARG_BYTEA_PP(9);

	if (!PG_ARGISNULL(10) && PG_GETARG_BOOL(10) && !MUTANT("no_key_lock"))
	{
		if (event.key.data == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OB_EVENT_REFUSED),
					 errmsg("lock_key needs a key"),
					 errhint("Emitters of one key are put into an order by it: give key => ... as well.")));
		if (!outbox_report_is_silent())
			lock_event_key(&event.key);
	}
	/* objects of a former version have an argument less */
	if (PG_NARGS() > 11 && !PG_ARGISNULL(11))
	{
		event.has_cause = true;
		event.caused_by = *PG_GETARG_UUID_P(11);
	}
	/* a report has a statement, which may make thousands */
	event.may_wait = outbox_report_runs();
	outbox_complete_event(&event, &format);
	outbox_insert(&event);

	id = palloc(sizeof(pg_uuid_t));
	*id = event.id;
	PG_RETURN_UUID_P(id);
}
