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
#include "worker/subtransaction.h"
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

/* --- what another home has left --- */

/*
 * A server that was promoted or restored goes on with the numbers of another one,
 * transaction ids and ticks, which that one may have used, too, for what never
 * came here.  So before it makes a tick of its own it writes down how far the
 * other one's go.  Of this life of the server the first writer is known, if it
 * has begun with recovery from elsewhere; else the newest tick has to do.
 */
static void
note_heir(RelayPosition *position)
{
	Lineage		lineage;
	TickSnapshot now;
	Tick		tick;
	uint64		bound;
	char	   *home;

	if (position->heir_noted)
		return;
	worker_begin(NULL);
	lineage_read(&lineage);
	home = home_text();
	if (lineage.home[0] != '\0' && !lineage.inherits &&
		home_compare(home, lineage.home) != HOME_SAME)
	{
		tick_newest(&tick);
		bound = tick.snapshot.xmax;
		if (shared_began_elsewhere())
		{
			uint64		first;

			if (!tick_snapshot_now(&now))
				ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
			/* who has not written yet runs now, or begins later */
			first = shared_first_writer();
			bound = Max(bound, first == 0 ? now.xmin : Min(first, now.xmin));
			snapshot_free(&now);
		}
		lineage_record_inherited(lineage.lineage, bound, tick.tick_id);
		tick_free(&tick);
	}
	worker_commit();
	position->heir_noted = true;
}

/* The highest seq of events before that transaction, nearly; 0: there is none. */
static int64
last_seq_before(uint64 xid)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];
	bool		isnull;
	Datum		last;

	values[0] = CStringGetTextDatum(psprintf(UINT64_FORMAT, xid));
	if (SPI_execute_with_args("SELECT pg_catalog.max(e.seq) FROM (SELECT seq FROM outbox.event"
							  " WHERE xid OPERATOR(pg_catalog.<) $1::pg_catalog.xid8"
							  " ORDER BY xid DESC LIMIT 1000) e",
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read outbox.event");
	last = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? 0 : DatumGetInt64(last);
}

/*
 * Kafka holds more than this database knows.  What of it is here all the same:
 * of the transactions that came from the one who published, those that its newest
 * tick saw.  That tick's snapshot stands in the record; without it the newest tick
 * that came here has to do.
 */
static void
find_published(RelayPosition *position, const Progress *record, RelayResult *result)
{
	const Lineage *lineage = &position->lineage;
	char		published[PROGRESS_SNAPSHOT] = "";

	if (record != NULL && !result->tick_known && result->lineage_matches &&
		lineage->inherits && !MUTANT("inherit_none") && record->tick > lineage->inherited_tick &&
		(result->home_descends || strcmp(record->home, lineage->home) == 0))
	{
		TickSnapshot snapshot;
		Tick		tick;

		if (snapshot_parse(&snapshot, record->snapshot))
		{
			(void) snapshot_print(&snapshot, MUTANT("inherit_all") ? UINT64_MAX : lineage->inherited_xid,
								  published, sizeof(published));
			snapshot_free(&snapshot);
		}
		else if (tick_find(lineage->inherited_tick, &tick))
		{
			(void) snapshot_print(&tick.snapshot, UINT64_MAX, published, sizeof(published));
			tick_free(&tick);
		}
		result->common_known = true;
		result->common_tick = lineage->inherited_tick;
		result->common_seq = last_seq_before(lineage->inherited_xid);
	}
	/* 0: nothing was ticked yet, and that is no pg_snapshot */
	lineage_record_published(position->opened,
							 published[0] != '\0' && published[0] != '0' ? published : NULL);
}

/* --- actions --- */

void
position_open(RelayPosition *position, RelayResult *result)
{
	char	   *home;

	note_heir(position);
	worker_begin(NULL);
	read_row(position, result);
	read_ticks(position, result);
	strlcpy(position->opened, position->lineage.lineage, sizeof(position->opened));
	home = home_text();
	strlcpy(position->home, home, sizeof(position->home));
	load_dead_letters(position);
	parked_load(&position->parked);
	result->leaving = position->parked.leaving != NULL;
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
		result->home_later = relation == HOME_LATER;
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
	find_published(position, record, result);
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
	TimestampTz since = position->woken_at;

	/* who commits from now on may come too late for this tick */
	position->woken_at = 0;
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

	note_heir(position);
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
	if (tick_make(&position->newest, confirmed, false, since, &tick))
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
 * Parked topics
 * ------------------------------------------------------------------------
 */

/* In a tick's snapshot, as a list; beyond it an ordinary tick is made first. */
#define UNPARK_LEAST_BETWEEN	1000

typedef struct WriteAgain
{
	const char *topic;
	int64		events;
} WriteAgain;

static void
write_again(void *arg)
{
	WriteAgain *work = arg;

	work->events = parked_write_again(work->topic);
}

/* What cannot be written leaves the topic parked. */
static bool
try_write_again(const char *topic, int64 *events)
{
	WriteAgain	work = {topic, 0};
	ErrorData  *error;

	if (!subtransaction_try(write_again, &work, &error))
	{
		parked_stays(topic, psprintf("it could not be unparked: %s", error->message));
		FreeErrorData(error);
		return false;
	}
	*events = work.events;
	return true;
}

void
position_unpark(RelayPosition *position, const RelayAction *action,
				RelayResult *result)
{
	static uint64 most_between = UNPARK_LEAST_BETWEEN;
	Tick		tick = {0};
	char		topic[KAFKA_TOPIC_SIZE] = "";
	int64		events = -1;
	bool		made = false;

	worker_begin("unparking a topic");
	tick_lock();
	read_row(position, result);
	read_ticks(position, result);
	parked_load(&position->parked);
	if (position->parked.leaving != NULL &&
		position->newest.tick_id == action->confirmed &&
		lineage_try_record_confirmed(position->opened, action->confirmed))
	{
		strlcpy(topic, position->parked.leaving, sizeof(topic));
		if (!tick_is_near(&position->newest, most_between))
		{
			/* under load each look may be late: be content with more */
			most_between *= 2;
			made = tick_make(&position->newest, action->confirmed, true, 0, &tick);
		}
		else if (try_write_again(topic, &events))
		{
			most_between = UNPARK_LEAST_BETWEEN;
			if (!MUTANT("any_order"))
				made = tick_make_own(&position->newest, action->confirmed, &tick);
		}
		parked_load(&position->parked);
	}
	result->leaving = position->parked.leaving != NULL;

	/* durable, as every tick */
	worker_commit();
	if (made)
	{
		tick_free(&position->newest);
		position->newest = tick;
	}
	result->newest_tick = position->newest.tick_id;
	if (events >= 0)
		ereport(LOG,
				(errmsg("topic \"%s\" is not parked any more: " INT64_FORMAT " event(s) are published now",
						topic, events)));
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

typedef struct Letter
{
	const RelayRefusal *refusal;
	const char *reason;
} Letter;

static void
insert_whole(void *arg)
{
	const Letter *letter = arg;

	insert_dead_letter(letter->refusal, letter->reason, true);
}

/*
 * Without the event if that cannot be read, which may be its reason: damage (class
 * XX), data that is none (22), a value too large to be written once more (54).  Any
 * other trouble, a full disk, say, has nothing to do with it and passes.
 */
static void
store_dead_letter(const RelayRefusal *refusal, const char *reason)
{
	Letter		letter = {refusal, reason};
	ErrorData  *error;
	int			class;

	if (subtransaction_try(insert_whole, &letter, &error))
		return;
	class = ERRCODE_TO_CATEGORY(error->sqlerrcode);
	if (class != ERRCODE_TO_CATEGORY(ERRCODE_INTERNAL_ERROR) &&
		class != ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION) &&
		class != ERRCODE_TO_CATEGORY(ERRCODE_PROGRAM_LIMIT_EXCEEDED))
		ReThrowError(error);
	FreeErrorData(error);
	insert_dead_letter(refusal, reason, false);
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
