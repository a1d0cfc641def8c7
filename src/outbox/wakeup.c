/*-------------------------------------------------------------------------
 *
 * wakeup.c
 *	  Waking the relay when a transaction with events commits.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A transaction callback sets the relay's latch after the commit has become
 * visible (ProcArrayEndTransaction precedes CallXactCallbacks, xact.c), so the
 * relay that it wakes sees the events.  No NOTIFY: that takes a cluster-wide
 * lock at commit and forbids PREPARE TRANSACTION.
 *
 * COMMIT PREPARED may come from any session, long after the writer's.  The
 * utility hook marks the session that runs it, and the same callback wakes the
 * relay of its database when that command's own transaction ends.  Whether the
 * prepared transaction held events is not known there; a wake-up for nothing
 * costs one look at an index.
 *
 * outbox.park() and unpark() make the relay read anew which topics are parked.
 *
 * CREATE and ALTER EXTENSION wake both workers: they may wait for just that, or
 * have to leave.  Of which extension does not matter, since one can bring ours
 * along.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "mutants.h"
#include "outbox/wakeup.h"
#include "outbox/writer.h"
#include "shared.h"
#include "tcop/utility.h"

static bool wanted = false;
static bool extension_changed = false;
static bool parking_changed = false;
static ProcessUtility_hook_type prev_process_utility = NULL;

void
wakeup_at_commit(void)
{
	wanted = true;
}

void
wakeup_note_parking(void)
{
	parking_changed = true;
}

/* Must not raise an error once the transaction is over. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			/* whoever commits it would not know */
			if (parking_changed)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has called outbox.park() or outbox.unpark()"),
						 errhint("Call it in a transaction of its own.")));
			break;
		case XACT_EVENT_COMMIT:
			if (parking_changed)
				shared_note_parking(MyDatabaseId);
			if (extension_changed)
				shared_note_extension(MyDatabaseId);
			else if (wanted && !MUTANT("lost_wake"))
				shared_wake_relay(MyDatabaseId);
			wanted = extension_changed = parking_changed = false;
			break;
		case XACT_EVENT_PREPARE:
			/* nothing is visible yet; arm the relay's fallback timer */
			if (wanted)
				shared_note_prepared(MyDatabaseId);
			wanted = extension_changed = parking_changed = false;
			break;
		case XACT_EVENT_ABORT:
			wanted = extension_changed = parking_changed = false;
			break;
		default:
			break;
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString,
				bool readOnlyTree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *queryEnv,
				DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *parsetree = pstmt->utilityStmt;
	bool		commit_prepared = IsA(parsetree, TransactionStmt) &&
	((TransactionStmt *) parsetree)->kind == TRANS_STMT_COMMIT_PREPARED;
	bool		extension = IsA(parsetree, CreateExtensionStmt) ||
	IsA(parsetree, AlterExtensionStmt);

	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context,
							 params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
	if (commit_prepared)
		wanted = true;
	if (extension)
		extension_changed = true;
	writer_statement_ended();	/* COPY fires triggers, too */
}

void
wakeup_install(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
