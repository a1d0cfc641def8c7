/*-------------------------------------------------------------------------
 *
 * position.c
 *	  What PostgreSQL knows of the relay's position.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fault.h"
#include "mutants.h"
#include "outbox/tidy.h"
#include "relay/position.h"
#include "settings.h"
#include "shared.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "worker/worker.h"

void
position_flush(void)
{
	worker_begin("flushing");
	if (SPI_execute("SELECT pg_catalog.pg_logical_emit_message(true, 'carshop_outbox', '')",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not write a WAL message");
	worker_commit();
}

/* ------------------------------------------------------------------------
 * The lineage's row
 * ------------------------------------------------------------------------
 */

/* The row into the result; runs inside a transaction. */
static void
read_row(RelayPosition *position, RelayResult *result)
{
	lineage_read(&position->lineage);
	result->outcome = KAFKA_OK;
	result->lineage = position->lineage.lineage;
	result->claimed = position->lineage.claimed;
	result->paused = position->lineage.paused;
	result->start_tick = position->lineage.start_tick;
}

/* Keep the newest tick at hand; true if it is another one than before. */
static void
read_ticks(RelayPosition *position, RelayResult *result)
{
	tick_free(&position->newest);
	tick_newest(&position->newest);
	result->newest_tick = position->newest.tick_id;
	result->confirmed = Max(Max(position->newest.confirmed_tick,
								position->lineage.confirmed_tick),
							position->lineage.start_tick);
}

/* --- dead letters --- */

static int
compare_seq(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/*
 * Which events to leave out, sorted; malloc'd, since they outlive
 * transactions.
 */
static void
load_dead_letters(RelayPosition *position)
{
	if (SPI_execute("SELECT seq FROM outbox.dead_letter", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read outbox.dead_letter");
	free(position->dead_letters);
	position->n_dead_letters = 0;
	position->dead_letters = malloc(sizeof(int64) * (SPI_processed + 1));
	if (position->dead_letters == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		position->dead_letters[position->n_dead_letters++] =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
										SPI_tuptable->tupdesc, 1, &isnull));
	}
	qsort(position->dead_letters, position->n_dead_letters, sizeof(int64),
		  compare_seq);
}

bool
position_is_dead(const RelayPosition *position, int64 seq)
{
	return position->n_dead_letters > 0 &&
		bsearch(&seq, position->dead_letters, position->n_dead_letters,
				sizeof(int64), compare_seq) != NULL;
}

/* --- actions --- */

void
position_open(RelayPosition *position, RelayResult *result)
{
	char	   *home;

	worker_begin(NULL);
	read_row(position, result);
	read_ticks(position, result);
	strlcpy(position->opened, position->lineage.lineage, sizeof(position->opened));
	home = home_text();
	strlcpy(position->home, home, sizeof(position->home));
	load_dead_letters(position);
	worker_commit();
	FAULT_POINT("opened");
}

void
position_look(RelayPosition *position, RelayResult *result)
{
	worker_begin(NULL);
	read_row(position, result);
	worker_commit();
}

void
position_record_birth(RelayPosition *position, const char *cluster,
					  const char *progress_topic, RelayResult *result)
{
	worker_begin("recording the lineage");
	lineage_record_birth(position->opened, cluster, progress_topic, position->home);
	read_row(position, result);
	FAULT_POINT("birth_recorded");
	worker_commit();
}

void
position_compare(RelayPosition *position, const RelayAction *action,
				 RelayResult *result)
{
	const Progress *record = action->record;
	const char *home;
	Tick		tick;

	worker_begin("comparing progress");
	read_row(position, result);
	read_ticks(position, result);
	home = record != NULL ? record->home : position->lineage.home;
	if (home[0] == '\0')
		result->home_same = true;	/* nothing was published yet */
	else
	{
		HomeRelation relation = home_compare(position->home, home);

		result->home_same = relation == HOME_SAME;
		result->home_descends = relation == HOME_ANCESTOR;
	}
	if (record != NULL)
	{
		result->lineage_matches = strcmp(record->lineage, position->lineage.lineage) == 0;
		if (record->tick > position->newest.tick_id)
			result->tick_known = false;
		else if (tick_find(record->tick, &tick))
		{
			result->tick_known = record->tick == 0 || strcmp(tick.nonce, record->nonce) == 0;
			tick_free(&tick);
		}
		else if (tick_next(0, &tick))
		{
			/* before those that are kept: known once, and behind */
			result->tick_known = record->tick < tick.tick_id;
			tick_free(&tick);
		}
	}
	if (action->other != NULL)
		result->other_home_same =
			home_compare(position->home, action->other->home) == HOME_SAME;
	worker_commit();
}

void
position_record_home(RelayPosition *position, RelayResult *result)
{
	worker_begin("recording the lineage's home");
	lineage_record_home(position->opened, position->home);
	read_row(position, result);
	FAULT_POINT("home_recorded");
	worker_commit();
}

void
position_record_confirmed(RelayPosition *position, const RelayAction *action,
						  RelayResult *result)
{
	worker_begin("recording what is confirmed");
	result->recorded = lineage_try_record_confirmed(position->opened, action->confirmed);
	read_row(position, result);
	FAULT_POINT("confirmed_recorded");
	worker_commit();
}

void
position_tidy(RelayPosition *position, const RelayAction *action,
			  RelayResult *result)
{
	worker_begin("tidying the outbox");
	result->tidy_ms = tidy_step(position->opened, action->confirmed);
	worker_commit_lazily();
	FAULT_POINT("tidy_committed");
}

/* ------------------------------------------------------------------------
 * Ticks
 * ------------------------------------------------------------------------
 */

/* Does this database have prepared transactions? */
static bool
prepared_exist(void)
{
	bool		exist;

	worker_begin(NULL);
	exist = SPI_execute("SELECT 1 FROM pg_catalog.pg_prepared_xacts"
						" WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
						" LIMIT 1", true, 1) == SPI_OK_SELECT && SPI_processed > 0;
	worker_commit();
	return exist;
}

void
position_make_tick(RelayPosition *position, const RelayAction *action,
				   RelayResult *result)
{
	Tick		tick;
	int64		confirmed;
	bool		same;

	result->ticket = shared_published_request();

	/*
	 * Before the tick's snapshot: what is not prepared any more at this
	 * moment is visible in it, or was undone.
	 */
	if (position->may_poll)
	{
		shared_clear_prepared();
		position->may_poll = prepared_exist();
	}

	worker_begin("making a tick");
	tick_lock();
	read_row(position, result);
	same = strcmp(position->opened, position->lineage.lineage) == 0;
	if (position->newest.tick_id == 0 || !same)
		read_ticks(position, result);

	/* what was confirmed for a former lineage is not for this one */
	confirmed = Max(position->newest.confirmed_tick, position->lineage.start_tick);
	if (same)
		confirmed = Max(confirmed, action->confirmed);
	if (tick_make(&position->newest, confirmed, &tick))
	{
		tick_free(&position->newest);
		position->newest = tick;
	}
	result->newest_tick = position->newest.tick_id;

	FAULT_POINT("tick_made");

	/* durable, also on synchronous standbys, before anything of it is sent */
	if (MUTANT("lazy_tick"))
		worker_commit_lazily();
	else
		worker_commit();
	FAULT_POINT("tick_committed");
}

/* ------------------------------------------------------------------------
 * Dead letters
 * ------------------------------------------------------------------------
 */

/*
 * The event is kept with its reason, all of it if it can be read: its segment
 * will be emptied.
 */
static void
insert_dead_letter(const RelayRefusal *refusal, const char *reason, bool whole)
{
	Oid			types[3] = {INT8OID, INT8OID, TEXTOID};
	Datum		values[3];
	char	   *query;

	query = psprintf("INSERT INTO outbox.dead_letter (seq, xid, tick_id, id, type, key, topic, reason%s)"
					 " SELECT seq, xid, $2, id, type, aggregateid, COALESCE(topic,"
					 " pg_catalog.current_setting('carshop_outbox.topic')), $3%s"
					 " FROM outbox.event WHERE seq OPERATOR(pg_catalog.=) $1"
					 " ON CONFLICT (seq) DO UPDATE SET reason = EXCLUDED.reason,"
					 " attempts = dead_letter.attempts OPERATOR(pg_catalog.+) 1",
					 whole ? ", occurred_at, aggregatetype, payload, description, own_topic, headers, traceparent, format, value" : "",
					 whole ? ", occurred_at, aggregatetype, payload, description, topic, headers, traceparent, format, value" : "");
	values[0] = Int64GetDatum(refusal->seq);
	values[1] = Int64GetDatum(refusal->tick);
	values[2] = CStringGetTextDatum(reason);
	if (SPI_execute_with_args(query, 3, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not store a dead letter");
}

static void
store_dead_letter(const RelayRefusal *refusal, const char *reason)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		insert_dead_letter(refusal, reason, true);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		/* what stands in the table cannot be read, which may be its reason */
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		CurrentResourceOwner = owner;
		insert_dead_letter(refusal, reason, false);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
}

void
position_dead_letter(RelayPosition *position, const RelayAction *action,
					 RelayResult *result)
{
	const RelayRefusal *refusal = action->refusal;
	char	   *reason;

	worker_begin("storing a dead letter");
	reason = pstrdup(refusal->reason);
	for (char *at = reason; *at != '\0'; at++)
	{
		/* a library's words: must be text in every encoding */
		if ((unsigned char) *at > 126)
			*at = '?';
	}
	store_dead_letter(refusal, reason);
	load_dead_letters(position);
	FAULT_POINT("letter_stored");
	worker_commit();
	result->outcome = KAFKA_OK;
	ereport(LOG,
			(errmsg("event " INT64_FORMAT " is a dead letter: %s",
					refusal->seq, refusal->reason),
			 errhint("See outbox.dead_letters.")));
}
