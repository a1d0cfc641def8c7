/*-------------------------------------------------------------------------
 *
 * publish.c
 *	  Reading batches from the outbox and sending them to Kafka.
 *
 * One Kafka transaction carries events of one or several ticks and one
 * progress record.  It is cut between transactions of the database, so that
 * none is torn; only one that alone exceeds a limit is cut inside.  Bytes are
 * known only while reading: a transaction of the database that begins below
 * max_transaction_bytes is finished up to twice that.
 *
 * Events are sent while the reading transaction is open: sending only
 * enqueues.  Nothing here waits for the network with a snapshot held.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "relay/relay.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"
#include "worker/worker.h"

#define SLICE_MS	50

/* --- ticks --- */

void
relay_make_tick(Relay *relay, RelayResult *result)
{
	Lineage		lineage;
	Tick		tick;
	int64		newest;
	int64		confirmed;

	relay->ticket_seen = shared_published_request();
	if (relay->may_poll)
		shared_clear_prepared();

	worker_begin("making a tick");
	lineage_read(&lineage);
	result->outcome = DONE_OK;
	result->paused = lineage.paused;
	result->lineage_changed = relay->lineage.lineage[0] != '\0' &&
		(strcmp(lineage.lineage, relay->lineage.lineage) != 0 ||
		 (lineage.claimed && !relay->lineage.claimed));
	if (relay->newest.tick_id == 0 || result->lineage_changed)
	{
		tick_limits(&newest, &confirmed);
		tick_free(&relay->newest);
		if (!tick_find(newest, &relay->newest))
			elog(ERROR, "tick " INT64_FORMAT " has vanished", newest);
		relay->confirmed = Max(confirmed, lineage.start_tick);
	}
	if (tick_make(&relay->newest, relay->confirmed, &tick))
	{
		tick_free(&relay->newest);
		relay->newest = tick;
	}
	result->newest_tick = relay->newest.tick_id;

	if (relay->may_poll)
	{
		relay->may_poll = SPI_execute("SELECT 1 FROM pg_catalog.pg_prepared_xacts"
									  " WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
									  " LIMIT 1", true, 1) == SPI_OK_SELECT &&
			SPI_processed > 0;
	}

	/* durable, also on synchronous standbys, before anything of it is sent */
	worker_commit();
	relay->report.tick = relay->newest.tick_id;
}

/* --- dead letters --- */

static int
compare_seq(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

void
relay_load_dead_letters(Relay *relay)
{
	worker_begin(NULL);
	if (SPI_execute("SELECT seq FROM outbox.dead_letter", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read outbox.dead_letter");
	free(relay->dead_letters);
	relay->n_dead_letters = (int) SPI_processed;
	relay->dead_letters = malloc(sizeof(int64) * (SPI_processed + 1));
	if (relay->dead_letters == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	for (int i = 0; i < relay->n_dead_letters; i++)
	{
		bool		isnull;

		relay->dead_letters[i] =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
										SPI_tuptable->tupdesc, 1, &isnull));
	}
	worker_commit();
	qsort(relay->dead_letters, relay->n_dead_letters, sizeof(int64), compare_seq);
	relay->report.dead_letters = relay->n_dead_letters;
}

static bool
is_dead(Relay *relay, int64 seq)
{
	return relay->n_dead_letters > 0 &&
		bsearch(&seq, relay->dead_letters, relay->n_dead_letters,
				sizeof(int64), compare_seq) != NULL;
}

/* --- reading --- */

void
relay_drop_batch(Relay *relay)
{
	if (relay->batch != NULL)
	{
		batch_close(relay->batch);
		relay->batch = NULL;
	}
	tick_free(&relay->batch_tick);
	tick_free(&relay->batch_prev);
}

/* Open the batch in which place stands, or the one after it.  False: none. */
static bool
open_batch(Relay *relay, const Progress *place)
{
	BatchPlace	from = {0};
	bool		found;

	if (relay->batch != NULL)
		return true;
	if (place->complete)
		found = tick_next(place->tick, &relay->batch_tick);
	else
	{
		from.through = place->through;
		from.seq = place->seq;
		from.xid = place->xid;
		found = tick_find(place->tick, &relay->batch_tick);
	}
	if (!found)
		return false;
	if (!tick_find(relay->batch_tick.tick_id - 1, &relay->batch_prev))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("tick " INT64_FORMAT " is missing", relay->batch_tick.tick_id - 1)));
	relay->batch = batch_open(&relay->batch_prev, &relay->batch_tick, from);
	return true;
}

static void
set_place(Relay *relay, Progress *place, const StoredEvent *event)
{
	place->tick = relay->batch_tick.tick_id;
	strlcpy(place->nonce, relay->batch_tick.nonce, sizeof(place->nonce));
	place->complete = event == NULL;
	place->seq = event ? event->seq : 0;
	place->through = event ? event->through : 0;
	place->xid = event ? event->xid : 0;
}

/* --- sending --- */

/* What sending has come to, for one Kafka transaction. */
typedef struct Sending
{
	int64		events;
	int64		bytes;
	bool		begun;
	bool		need_topic;
	bool		torn;			/* stopped inside a transaction for a topic */
	bool		full;			/* a limit is reached */
	int64		deadline_us;
	Progress	place;
	KafkaOutcome outcome;
	KafkaError	error;
} Sending;

static int64
now_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/*
 * Send the next transaction of the database.  False: stop here, for the reason
 * that stands in sending.
 */
static bool
send_transaction(Relay *relay, Sending *sending, int64 n)
{
	RelayMachine *machine = &relay->machine;
	bool		alone = sending->events == 0;
	StoredEvent event;

	for (int64 i = 0; i < n; i++)
	{
		RelayTopic *topic;

		if (alone && sending->events >= machine->pace.events)
			return false;		/* larger than one Kafka transaction may be */
		if (sending->bytes >= machine->pace.bytes * 2)
			return false;
		if (!batch_next(relay->batch, &event))
			return true;
		if (is_dead(relay, event.seq))
		{
			set_place(relay, &sending->place, &event);
			continue;
		}
		topic = relay_topic(relay, event.topic ? event.topic : setting_topic);
		if (topic->partitions == 0)
		{
			strlcpy(relay->wanted_topic, topic->name, sizeof(relay->wanted_topic));
			sending->need_topic = true;
			sending->torn = i > 0 && sending->events > 0;
			return false;
		}
		if (!sending->begun)
		{
			sending->outcome = kafka_producer_begin(relay_sender(relay),
													&sending->error);
			if (sending->outcome != KAFKA_OK)
				return false;
			sending->begun = true;
		}
		sending->outcome = relay_send_event(relay, &event, topic, &sending->bytes,
											&sending->error);
		if (sending->outcome != KAFKA_OK)
		{
			if (sending->outcome == KAFKA_REFUSED)
			{
				/* this very event is refused: judged when it stands alone */
				sending->events++;
				relay->last_seq = event.seq;
				set_place(relay, &sending->place, &event);
			}
			return false;
		}
		sending->events++;
		relay->last_seq = event.seq;
		set_place(relay, &sending->place, &event);
		if ((sending->events & 1023) == 0)
			kafka_producer_poll(relay_sender(relay));
	}
	return true;
}

static void
send_batches(Relay *relay, Sending *sending)
{
	RelayMachine *machine = &relay->machine;

	while (open_batch(relay, &sending->place))
	{
		int64		n = batch_next_transaction(relay->batch);

		CHECK_FOR_INTERRUPTS();
		if (n == 0)
		{
			set_place(relay, &sending->place, NULL);
			relay_drop_batch(relay);
			continue;
		}
		if (sending->events > 0 &&
			(sending->events + n > machine->pace.events ||
			 sending->bytes >= machine->pace.bytes ||
			 now_us() > sending->deadline_us))
			return;
		if (!send_transaction(relay, sending, n))
			return;
	}
}

void
relay_publish(Relay *relay, RelayResult *result)
{
	Sending		sending = {0};

	sending.place = relay->machine.place;
	sending.deadline_us = now_us() + (int64) setting_transaction_timeout * 1000 / 3;
	worker_begin("publishing");
	send_batches(relay, &sending);
	if (relay->batch != NULL)
		batch_pause(relay->batch);
	worker_commit();

	result->events = sending.events;
	result->reached = sending.place;
	if (sending.outcome == KAFKA_OK && sending.events > 0 && !sending.torn)
	{
#ifdef MUTANT_NO_PROGRESS
		sending.outcome = relay_send_held(relay, &sending.error);
#else
		sending.outcome = relay->plain != NULL ?
			relay_send_held(relay, &sending.error) :
			relay_send_progress(relay, &result->reached, &sending.error);
#endif
	}
	relay_drop_held(relay);
	result->need_topic = sending.need_topic;
	result->torn = sending.torn;
	if (sending.need_topic || sending.outcome != KAFKA_OK)
		relay_drop_batch(relay);	/* an event was read and not sent */
	result->outcome = relay_outcome(sending.outcome == KAFKA_PENDING ?
									KAFKA_UNCERTAIN : sending.outcome);
	if (sending.outcome != KAFKA_OK)
	{
		strlcpy(relay->last_trouble, sending.error.message,
				sizeof(relay->last_trouble));
		result->message = relay->last_trouble;
	}
	relay->bytes_published = sending.bytes;
}

#ifdef MUTANT_NO_PROGRESS
/*
 * A deliberately broken build for the tests (test/t/052): the progress record
 * follows in a transaction of its own.
 */
static KafkaOutcome
mutant_progress(Relay *relay, KafkaError *error)
{
	KafkaOutcome outcome = kafka_producer_begin(relay->producer, error);

	if (outcome == KAFKA_OK)
		outcome = relay_send_progress(relay, &relay->machine.pending, error);
	if (outcome != KAFKA_OK)
		return outcome;
	while ((outcome = kafka_producer_commit(relay->producer, SLICE_MS,
											error)) == KAFKA_PENDING)
		(void) worker_check();
	return outcome;
}
#endif

/*
 * delivery = at_least_once: the progress record follows when the whole batch
 * is delivered, so what a crash leaves undecided is published again.
 */
static KafkaOutcome
deliver(Relay *relay, KafkaError *error)
{
	KafkaOutcome outcome = kafka_producer_flush(relay->plain, SLICE_MS, error);

	if (outcome != KAFKA_OK)
		return outcome;
	if (!relay->progress_sent)
	{
		outcome = relay_send_progress(relay, &relay->machine.pending, error);
		if (outcome != KAFKA_OK)
			return outcome;
		relay->progress_sent = true;
		return KAFKA_PENDING;
	}
	relay->progress_sent = false;
	return KAFKA_OK;
}

void
relay_commit(Relay *relay, RelayResult *result)
{
	KafkaError	error = {0};
	KafkaOutcome outcome;

	if (relay->plain != NULL)
		outcome = deliver(relay, &error);
	else
		outcome = kafka_producer_commit(relay->producer, SLICE_MS, &error);
#ifdef MUTANT_NO_PROGRESS
	if (outcome == KAFKA_OK)
		outcome = mutant_progress(relay, &error);
#endif
	result->outcome = relay_outcome(outcome);
	if (outcome != KAFKA_OK)
	{
		strlcpy(relay->last_trouble,
				outcome == KAFKA_PENDING ?
				kafka_producer_last_trouble(relay_sender(relay)) : error.message,
				sizeof(relay->last_trouble));
		result->message = relay->last_trouble;
		return;
	}
	result->early = kafka_producer_early(relay->producer) != relay->early;
	relay->early = kafka_producer_early(relay->producer);
	relay->report.bytes_published += relay->bytes_published;
	relay->confirmed = relay->machine.pending.complete ?
		relay->machine.pending.tick : relay->machine.pending.tick - 1;
}

/*
 * The one event of the refused transaction: stored, and skipped from now on.
 * It stays in the outbox.
 */
void
relay_dead_letter(Relay *relay, RelayResult *result)
{
	Oid			types[3] = {INT8OID, INT8OID, TEXTOID};
	Datum		values[3];

	worker_begin("storing a dead letter");
	values[0] = Int64GetDatum(relay->last_seq);
	values[1] = Int64GetDatum(relay->machine.pending.tick);
	values[2] = CStringGetTextDatum(relay->machine.trouble);
	if (SPI_execute_with_args("INSERT INTO outbox.dead_letter (seq, tick_id, id, type, key, topic, reason)"
							  " SELECT seq, $2, id, type, aggregateid, COALESCE(topic,"
							  " pg_catalog.current_setting('carshop_outbox.topic')), $3"
							  " FROM outbox.event WHERE seq OPERATOR(pg_catalog.=) $1"
							  " ON CONFLICT (seq) DO UPDATE SET reason = EXCLUDED.reason,"
							  " attempts = dead_letter.attempts OPERATOR(pg_catalog.+) 1",
							  3, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not store a dead letter");
	worker_commit();
	result->outcome = DONE_OK;
	ereport(LOG,
			(errmsg("Kafka refuses event " INT64_FORMAT " for good: %s",
					relay->last_seq, relay->machine.trouble),
			 errhint("See outbox.dead_letters.")));
}
