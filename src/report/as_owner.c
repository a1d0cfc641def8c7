/*-------------------------------------------------------------------------
 *
 * as_owner.c
 *	  SQL functions acting on the extension's own tables, for callers who have
 *	  no rights on them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Their own file keeps the one place with raised rights easy to review.  The
 * statements executed there are constants of this library; no trigger, rule or
 * constraint on the tables belongs to anybody but their owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "report/as_owner.h"
#include "report/event_log.h"
#include "shared.h"
#include "utils/syscache.h"

static bool wake_wanted = false;
static bool callback_registered = false;

void
as_owner_begin(AsOwner *scope)
{
	HeapTuple	tuple;
	Oid			owner;

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(event_log_relid()));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for report.reported_events");
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	GetUserIdAndSecContext(&scope->user, &scope->security);
	SetUserIdAndSecContext(owner, scope->security |
						   SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
as_owner_end(AsOwner *scope)
{
	SPI_finish();
	SetUserIdAndSecContext(scope->user, scope->security);
}

/*
 * By then the change is visible; too late to abort, so nothing here may fail.
 * COMMIT PREPARED does not come by: the reporter's slow timer finds it.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (!wake_wanted)
		return;
	if (event == XACT_EVENT_COMMIT)
		shared_wake_reporter(MyDatabaseId);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		wake_wanted = false;
}

void
wake_reporter_at_commit(void)
{
	if (!callback_registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		callback_registered = true;
	}
	wake_wanted = true;
}
