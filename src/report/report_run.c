/*-------------------------------------------------------------------------
 *
 * report_run.c
 *	  Executing a report's statement with the rights of its owner.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The statement, and whatever it calls (triggers, constraints, defaults and
 * output functions of its target), is code that a role chose.  It runs as that
 * role, as REFRESH MATERIALIZED VIEW runs its query: under restricted
 * operation, in a GUC nest level of its own, with a timer of its own; session
 * advisory locks that it leaves behind are released.  Deferred triggers cannot
 * be queued under restricted operation, so nothing of the role is left to be
 * executed at the commit, which is the worker's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "outbox/consequence.h"
#include "report/event_log.h"
#include "report/publish.h"
#include "report/report_run.h"
#include "report/reports.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "worker/subtransaction.h"
#include "worker/worker.h"

static Relation
register_store(Tuplestorestate *store, int64 n, EphemeralNamedRelation *registered)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	Relation	log;
	int			rc;

	/*
	 * Its descriptor is looked up whenever the statement is analyzed, planned
	 * or executed, without taking a lock, and used when the relation has been
	 * given up again (ENRMetadataGetTupDesc): a transition table's relation
	 * is locked and held open by the command that fires the trigger, this one
	 * by us.
	 */
	log = table_open(event_log_relid(), AccessShareLock);
	enr->md.name = NEW_EVENTS;
	enr->md.reliddesc = RelationGetRelid(log);
	enr->md.tupdesc = NULL;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = (double) n;
	enr->reldata = store;
	rc = SPI_register_relation(enr);
	if (rc != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register " NEW_EVENTS ": %s",
			 SPI_result_code_string(rc));
	*registered = enr;
	return log;
}

Relation
report_register_events(Tuplestorestate *store, int64 n)
{
	EphemeralNamedRelation ignored;

	return register_store(store, n, &ignored);
}

/* Until the GUC nest level ends. */
static void
set_lock_timeout(int64 ms)
{
	(void) set_config_option("lock_timeout", psprintf(INT64_FORMAT, ms),
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
report_pin_settings(void)
{
	session_pin_settings();
	(void) set_config_option("search_path", REPORT_SEARCH_PATH,
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* The rights; the settings are the worker's (worker/pins.c). */
static void
begin_scope(ReportScope *scope, Oid owner)
{
	GetUserIdAndSecContext(&scope->user, &scope->security);
	scope->guc_level = NewGUCNestLevel();
	SetUserIdAndSecContext(owner, scope->security |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	outbox_report_begins();
}

void
report_enter(ReportScope *scope, Oid owner)
{
	begin_scope(scope, owner);
	report_pin_settings();
}

void
report_leave(ReportScope *scope)
{
	outbox_report_ended();
	SetUserIdAndSecContext(scope->user, scope->security);
	AtEOXact_GUC(false, scope->guc_level);
}

/* Batches of about the same size share a plan: steps of eight. */
static int
plan_class(int64 n)
{
	int			class = 0;

	while (n >= 8 && class < REPORT_PLAN_CLASSES - 1)
	{
		n /= 8;
		class++;
	}
	return class;
}

/*
 * A plan is kept per size class, made with a true row count: one made for a
 * single row takes a nested loop, minutes for twenty thousand.
 */
static SPIPlanPtr
plan_for(ReportRun *run, int64 n)
{
	SPIPlanPtr *plan = &run->plans->plans[plan_class(n)];

	if (*plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(run->statement, 0, NULL);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "could not prepare the report's statement: %s",
				 SPI_result_code_string(SPI_result));
		*plan = prepared;
	}
	return *plan;
}

/* Milliseconds that an execution which begins now may take, one at least. */
static int64
time_left(const ReportRun *run)
{
	int64		ms = run->timeout_ms;

	if (run->deadline != DT_NOEND)
		ms = Min(ms, TimestampDifferenceMilliseconds(worker_steady_now(),
													 run->deadline));
	return Max(ms, 1);
}

static void
execute(ReportRun *run, Tuplestorestate *store, int64 n)
{
	ReportPlans *plans = run->plans;
	Publishing *publishing = NULL;
	int			rc;

	if (plans->report != NULL)
		publishing = publish_describe(plans->report, plans->publishes, store);
	if (!run->in_session)
		enable_timeout_after(STATEMENT_TIMEOUT, (int) time_left(run));
	rc = SPI_execute_plan(plan_for(run, n), NULL, NULL, false, 0);
	if (rc < 0)
		elog(ERROR, "could not execute the report's statement: %s",
			 SPI_result_code_string(rc));
	if (SPI_tuptable != NULL)
		SPI_freetuptable(SPI_tuptable);
	if (!run->in_session)
		disable_timeout(STATEMENT_TIMEOUT, false);
	CHECK_FOR_INTERRUPTS();		/* a cancel of the last moment is the
								 * statement's, not ours */
	run->runs++;
	run->unclear = publishing != NULL && publish_is_unclear(publishing);
	if (run->unclear)
		elog(ERROR, "the events of report \"%s\" are given in parts", plans->report);
}

/* Which piece has met a key last. */
typedef struct MetKey
{
	uint64		hash;			/* of the key */
	int64		piece;
} MetKey;

/*
 * Does this piece have an event of the key already?  Keys of one hash count as one,
 * and so do events without a key.
 */
static bool
meets_again(HTAB *keys, TupleTableSlot *slot, int64 piece)
{
	MetKey	   *met;
	uint64		hash = 0;
	bool		isnull;
	bool		found;
	Datum		key = slot_getattr(slot, EVENT_KEY_ATTRIBUTE, &isnull);

	if (!isnull)
	{
		text	   *bytes = DatumGetTextPP(key);

		hash = DatumGetUInt64(hash_any_extended((unsigned char *) VARDATA_ANY(bytes),
												VARSIZE_ANY_EXHDR(bytes), 0));
	}
	met = hash_search(keys, &hash, HASH_ENTER, &found);
	found = found && met->piece == piece;
	met->piece = piece;
	return found;
}

static HTAB *
make_keys(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(MetKey);
	ctl.hcxt = CurrentMemoryContext;
	return hash_create("keys of a batch", 256, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Events of a batch that are executed together. */
typedef struct Piece
{
	Tuplestorestate *store;		/* NULL: none */
	int64		n;
	int64		last_seq;
} Piece;

/*
 * A store is made for each execution: every scan leaves a read pointer behind in
 * the store that it has read.
 */
static void
add_to_piece(Piece *piece, TupleTableSlot *slot)
{
	if (piece->store == NULL)
	{
		piece->store = tuplestore_begin_heap(false, false, 64);
		piece->n = 0;
	}
	tuplestore_puttupleslot(piece->store, slot);
	piece->last_seq = event_log_seq(slot);
	piece->n++;
}

static void
execute_piece(ReportRun *run, EphemeralNamedRelation enr, Piece *piece)
{
	enr->reldata = piece->store;
	enr->md.enrtuples = (double) piece->n;
	run->last_seq = piece->last_seq;
	execute(run, piece->store, piece->n);
	tuplestore_end(piece->store);
	piece->store = NULL;
	run->done += piece->n;
}

/* Piece by piece, in order.  False: time was up on the way. */
static bool
execute_pieces(ReportRun *run, EphemeralNamedRelation enr, TupleDesc desc,
			   Tuplestorestate *store)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	HTAB	   *keys = run->singly ? NULL : make_keys();
	Piece		piece = {0};

	tuplestore_select_read_pointer(store, 0);
	tuplestore_rescan(store);
	while (tuplestore_gettupleslot(store, true, false, slot))
	{
		bool		cut = keys == NULL || meets_again(keys, slot, run->runs);

		if (cut && piece.store != NULL)
		{
			execute_piece(run, enr, &piece);
			if (worker_steady_now() >= run->deadline)
			{
				ExecDropSingleTupleTableSlot(slot);
				return false;
			}
			if (keys != NULL)
				(void) meets_again(keys, slot, run->runs);
		}
		add_to_piece(&piece, slot);
	}
	if (piece.store != NULL)
		execute_piece(run, enr, &piece);
	ExecDropSingleTupleTableSlot(slot);
	return true;
}

/* All of a store, in pieces if need be.  False: time was up on the way. */
static bool
execute_store(ReportRun *run, EphemeralNamedRelation enr, TupleDesc desc,
			  Tuplestorestate *store, int64 n)
{
	if (run->singly || run->in_pieces)
		return execute_pieces(run, enr, desc, store);
	enr->reldata = store;
	enr->md.enrtuples = (double) n;
	execute(run, store, n);
	return true;
}

/* Copies of the first n events of a store; *last is the last one's number. */
static Tuplestorestate *
first_events(Tuplestorestate *store, int64 n, TupleDesc desc, int64 *last)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	Piece		piece = {0};

	tuplestore_select_read_pointer(store, 0);
	tuplestore_rescan(store);
	for (int64 i = 0; i < n; i++)
	{
		if (!tuplestore_gettupleslot(store, true, false, slot))
			elog(ERROR, "a batch of events has ended too early");
		add_to_piece(&piece, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	*last = piece.last_seq;
	return piece.store;
}

/*
 * The statement on its events, as its owner; called within a subtransaction.
 */
static void
run_task(void *arg)
{
	ReportRun  *run = arg;
	bool		cut = run->singly || run->in_pieces;
	bool		complete = true;
	Tuplestorestate *store = run->store;
	Tuplestorestate *given;
	EphemeralNamedRelation enr;
	ReportScope scope;
	Relation	log;
	int64		n = run->n;
	int64		last = 0;
	int			rc;

	rc = SPI_connect();
	if (rc != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed: %s", SPI_result_code_string(rc));
	log = register_store(store, n, &enr);
	if (cut)
		store = first_events(store, n, RelationGetDescr(log), &last);

	/* without what the report has caused itself, which may be all of it */
	given = store;
	if (run->plans->report != NULL && !run->clean)
		given = publish_withhold(run->plans->report, store, &n);

	if (run->in_session)
		report_enter(&scope, run->owner);
	else
	{
		begin_scope(&scope, run->owner);
		set_lock_timeout(run->deadline == DT_NOEND ? REPORT_LOCK_TIMEOUT_MS :
						 Min(REPORT_LOCK_TIMEOUT_MS, time_left(run) / 4 + 1));
	}
	if (run->plans->in_parts)
	{
		PublishParts *parts = publish_begin_parts(given);
		Tuplestorestate *part;

		while (complete && (part = publish_next_part(parts, &n)) != NULL)
		{
			complete = execute_store(run, enr, RelationGetDescr(log), part, n);
			tuplestore_end(part);
		}
	}
	else if (n > 0)
		complete = execute_store(run, enr, RelationGetDescr(log), given, n);
	if (complete)
	{
		run->done = run->n;
		run->last_seq = last;
	}
	report_leave(&scope);
	if (given != store)
		tuplestore_end(given);
	if (store != run->store)
		tuplestore_end(store);
	SPI_finish();
	table_close(log, NoLock);
}

/*
 * In parts from then on, when that turns out to be needed: events that came through
 * different reports, and one that is written without saying of which it comes.
 */
static bool
try_run(ReportRun *run, ErrorData **error)
{
	run->done = 0;
	run->runs = 0;
	run->unclear = false;
	if (subtransaction_try(run_task, run, error))
		return true;
	if (!run->unclear)
		return false;
	FreeErrorData(*error);
	run->plans->in_parts = true;
	run->done = 0;
	run->runs = 0;
	run->unclear = false;
	return subtransaction_try(run_task, run, error);
}

bool
report_run(ReportRun *run, ErrorData **error)
{
	bool		done;

	if (run->in_session)
		return try_run(run, error);

	/*
	 * Timers cancel, which workers ignore.  Here a cancel ends only the
	 * statement, so that is also what pg_cancel_backend() can do to us.
	 */
	worker_cancellable(true);
	done = try_run(run, error);
	if (get_timeout_active(STATEMENT_TIMEOUT))
		disable_timeout(STATEMENT_TIMEOUT, false);
	worker_cancellable(false);
	LockReleaseSession(USER_LOCKMETHOD);
	return done;
}

void
report_forget_plans(ReportPlans *plans)
{
	for (int i = 0; i < REPORT_PLAN_CLASSES; i++)
	{
		if (plans->plans[i] != NULL)
			SPI_freeplan(plans->plans[i]);
		plans->plans[i] = NULL;
	}
}

const char *
report_owner_trouble(Oid owner, Oid target)
{
	HeapTuple	tuple;
	Oid			target_owner;
	bool		unlogged;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		return "the role that defined it is gone";
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(target));
	if (!HeapTupleIsValid(tuple))
		return "its target table is gone";
	target_owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	unlogged = ((Form_pg_class) GETSTRUCT(tuple))->relpersistence == RELPERSISTENCE_UNLOGGED;
	ReleaseSysCache(tuple);
	if (target_owner != owner)
		return "the role that defined it does not own its target table any more";
	if (unlogged)
		return "its target table is unlogged, so a crash would empty it: make it LOGGED, and if there was a crash rebuild the report";
	return NULL;
}
