/*-------------------------------------------------------------------------
 *
 * reporter.c
 *	  The background worker that reads Kafka into the report tables.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * One turn of its loop:
 *	 1. look at what people have changed (started, stopped, defined, seek);
 *	 2. see to the Kafka handle, the topics and the assignment;
 *	 3. take the messages that wait;
 *	 4. one transaction: offsets (compare-and-set), event log, reports;
 *	 5. one transaction: a range of the event log for reports that are behind;
 *	 6. one transaction: old events leave the log, if it is their time;
 *	 7. show offsets under the group, once they are flushed;
 *	 8. wait, for messages, a wake-up or the next thing due.
 *
 * Offsets and rows stand in one transaction, so its commit need not wait for
 * the disk: what a crash takes back is read again.  Kafka trouble is lived
 * through; an SQL error ends the process with code 1, and the postmaster
 * starts it again.
 *
 * Memory: a context for the turn, one for the batch, and the source's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fault.h"
#include "miscadmin.h"
#include "mutants.h"
#include "report/catch_up.h"
#include "report/dead_letter.h"
#include "report/event_log.h"
#include "report/log_tidy.h"
#include "report/progress.h"
#include "report/removed.h"
#include "report/reports.h"
#include "report/retry.h"
#include "report/show.h"
#include "report/source.h"
#include "settings.h"
#include "shared.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* What COMMIT PREPARED or a direct change has done is found after this time. */
#define LOOK_AT_TABLES_MS	60000
#define LOOK_AT_ERASED_MS	10000

/*
 * At the ends, these are looked at again after this time: an open transaction
 * that holds messages back does not make itself known.
 */
#define LOOK_AT_ENDS_MS		2000

/* Positions without events (control records) are stored after this time. */
#define STORE_POSITION_MS	1000

typedef struct Reporter
{
	MemoryContext turn;
	Source	   *source;
	EventBatch *batch;
	ReporterReport *report;
	bool		shown;			/* the state, in pg_stat_activity */
	int			reading;		/* as progress_reading() says */
	int64		head;			/* newest log_seq given */
	TimestampTz look_at;		/* when to look at the tables; 0: at once */
	TimestampTz dirty_since;	/* a position is not stored; 0: all are */
	TimestampTz reset_at;		/* last stat_reset() seen */
	uint32		settings_of;	/* worker_reloads() that the source is of */
	char	   *fingerprint;	/* of its Kafka handle, see worker.h */
} Reporter;

static Reporter reporter;

static bool
close_handles(void)
{
	catch_up_end();
	return reporter.source == NULL || source_close(reporter.source);
}

/*
 * A transaction whose commit need not be durable: what a crash takes is read
 * again.
 */
static void
begin(const char *activity)
{
	worker_begin(activity);
	reporter.shown = reporter.shown && activity == NULL;
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

static void
commit(void)
{
	worker_commit();
	MemoryContextSwitchTo(reporter.turn);
}

/* Of two waits in ms; negative: for ever. */
static long
sooner(long a, long b)
{
	if (a < 0)
		return b;
	return b < 0 ? a : Min(a, b);
}

/* ------------------------------------------------------------------------
 * What others may have changed
 * ------------------------------------------------------------------------
 */

/* Not whenever somebody wakes us: it looks at all dead letters. */
static void
drop_erased(void)
{
	static TimestampTz next_at = 0;
	TimestampTz now = worker_steady_now();

	if (next_at > now)
		return;
	next_at = TimestampTzPlusMilliseconds(now, LOOK_AT_ERASED_MS);
	dead_letter_drop_erased();
}

/*
 * What people have changed: reading or not, offsets, reports, dead letters to
 * retry.
 */
static void
look_at_tables(void)
{
	long		retry_ms = -1;

	begin("looking at report.instance");
	reporter.reading = progress_reading();
	if (reporter.reading == 1)
	{
		source_load(reporter.source);
		removed_load();
		reporter.head = Max(reporter.head, event_log_head());
		drop_erased();
		retry_ms = retry_dead_letters(&reporter.head);
		reports_catch_up(reporter.head, setting_report_batch_events);
	}
	commit();
	reporter.look_at = TimestampTzPlusMilliseconds(worker_steady_now(),
												   sooner(LOOK_AT_TABLES_MS, retry_ms));
}

/* ------------------------------------------------------------------------
 * Storing
 * ------------------------------------------------------------------------
 */

/* One transaction: offsets, event log, all reports. */
static void
store_batch(void)
{
	Source	   *source = reporter.source;
	EventBatch *batch = reporter.batch;
	LogSource  *logs = palloc0(sizeof(LogSource) * Max(source->n, 1));
	int64		after = reporter.head;
	int64		head = after;

	for (int i = 0; i < source->n; i++)
		logs[i] = source->partitions[i].log;
	source_mark(source, batch);
	begin("applying events");

	/*
	 * First the offsets: if somebody has moved one (report.seek), nothing of
	 * this batch may be stored.  The upper bound of log_seq is good enough.
	 */
	if (!source_store(source, after + batch->n))
	{
		AbortCurrentTransaction();
		MemoryContextSwitchTo(reporter.turn);
		for (int i = 0; i < source->n; i++)
			source->partitions[i].position.stored = PG_INT64_MIN;
		source->assign_needed = true;	/* nothing is proven by it, either */
		reporter.look_at = 0;
		return;
	}

	if (MUTANT("offsets_apart"))
	{
		commit();
		begin("applying events");
	}
	FAULT_POINT("offsets_stored");
	if (batch->n > 0)
	{
		Tuplestorestate *store = NULL;

		reports_load(true);
		if (reports_want(after))
			store = tuplestore_begin_heap(false, false,
										  setting_worker_memory / 4);
		event_log_store(batch, logs, store, &head);
		FAULT_POINT("log_stored");
		if (head > after)
			reports_apply(store, head - after, after, head);
		if (store != NULL)
			tuplestore_end(store);
	}
	FAULT_POINT("reports_applied");
	commit();
	FAULT_POINT("batch_committed");

	batch_latency(batch, head - after, &reporter.report->latency);
	reporter.head = head;
	for (int i = 0; i < source->n; i++)
		source->partitions[i].log = logs[i];
	source_stored(source);
	show_note_commit();
}

/*
 * A partition that cannot be read on: said in the tables, for report.seek().
 */
static void
store_lost(void)
{
	begin("noting a lost range");
	source_store_lost(reporter.source);
	commit();
}

/* ------------------------------------------------------------------------
 * Telling
 * ------------------------------------------------------------------------
 */

/* report.stat_reset() was called since the last look. */
static void
reset_counters(void)
{
	TimestampTz asked = shared_stat_reset_at(MyDatabaseId, 'p');

	if (asked <= reporter.reset_at)
		return;
	reporter.reset_at = asked;
	memset(&reporter.report->latency, 0, sizeof(reporter.report->latency));
	for (int i = 0; i < reporter.source->n; i++)
	{
		PartitionReport *stats = &reporter.source->partitions[i].stats;

		stats->events_applied = 0;
		stats->duplicates = 0;
		stats->skipped = 0;
		stats->dead_letters = 0;
	}
}

/* What the status views show from now on. */
static void
tell(const char *state)
{
	ReporterReport *report = reporter.report;
	Source	   *source = reporter.source;
	bool		changed = strcmp(report->state, state) != 0;

	reset_counters();
	if (changed)
		strlcpy(report->state, state, sizeof(report->state));
	if (changed || !reporter.shown)
		worker_show_state(state);
	reporter.shown = true;
	if (changed)
		report->since = GetCurrentTimestamp();
	report->proven = reporter.reading == 1 ? source_proven_at(source) : 0;

	memset(&report->trouble, 0, sizeof(report->trouble));
	if (reporter.reading == 1)
		report->trouble = source->trouble;
	if (report->trouble.message[0] == '\0')
		show_trouble(&report->trouble);

	report->catch_up_processes = catch_up_processes();
	report->in_turns = reporter.reading == 1 ? reports_in_turns() : 0;
	report->n_partitions = 0;
	for (int i = 0; i < source->n && i < SHARED_MAX_PARTITIONS; i++)
	{
		SourcePartition *partition = &source->partitions[i];
		PartitionReport *stats = &partition->stats;

		strlcpy(stats->state, source_partition_state(source, partition),
				sizeof(stats->state));
		stats->kafka_offset = partition->position.next;
		report->partitions[report->n_partitions++] = *stats;
	}
	shared_report_reporter(report);
}

/* ------------------------------------------------------------------------
 * The loop
 * ------------------------------------------------------------------------
 */

/* 0: it is over; else rounded up, so that nobody wakes too early. */
static long
ms_until(TimestampTz at)
{
	TimestampTz now = worker_steady_now();

	return at <= now ? 0 : TimestampDifferenceMilliseconds(now, at) + 1;
}

/* It is opened again when something is to be read. */
static void
close_handle(void)
{
	if (!source_close(reporter.source))
		worker_leave_handle();
	show_forget();
}

/* Reading goes on with another handle, where it stands. */
static void
replace_handle(void)
{
	close_handle();
	reporter.source->state = SOURCE_WAITING;
	reporter.source->look_at = 0;
}

/* Kafka's side of a turn.  True: messages may be taken. */
static bool
see_to_source(void)
{
	Source	   *source = reporter.source;

	/* Nothing is done, nor fetched, before a person may have acted. */
	if (source->state == SOURCE_STOPPED)
		return false;
	if (source->handle_failed && ms_until(source->look_at) == 0)
		replace_handle();
	if (!source_open(source, show_group()))
		return false;
	if (source->state != SOURCE_STOPPED && ms_until(source->look_at) == 0 &&
		source_look(source))
	{
		begin("adding partitions");
		source_add(source);
		source_load(source);
		commit();
		(void) source_look(source);
	}
	if (source->state == SOURCE_STOPPED)
	{
		/* Its descriptor would wake us for what nobody takes. */
		close_handle();
		return false;
	}
	source_assign(source);
	return true;
}

/* Take and store what waits.  True: there may be more at once. */
static bool
take_messages(void)
{
	Source	   *source = reporter.source;
	bool		more;

	batch_reset(reporter.batch);
	more = source_collect(source, reporter.batch, setting_report_batch_events,
						  (Size) setting_worker_memory * 1024 / 4);
	if (!source_is_dirty(source))
		reporter.dirty_since = 0;
	else if (reporter.dirty_since == 0)
		reporter.dirty_since = worker_steady_now();

	if (reporter.batch->n > 0 ||
		(reporter.dirty_since != 0 &&
		 ms_until(TimestampTzPlusMilliseconds(reporter.dirty_since,
											  STORE_POSITION_MS)) == 0))
	{
		store_batch();
		reporter.dirty_since = 0;
	}
	if (source_has_lost(source))
		store_lost();
	return more;
}

/* Old events leave the log, a few at a time.  Answers when to go on. */
static long
tidy_log(void)
{
	TimestampTz proven = source_proven_at(reporter.source);

	if (log_tidy_due(proven) == 0)
	{
		begin("removing old events");
		log_tidy_step();
		commit();
	}
	return log_tidy_due(proven);
}

/* One turn while reading.  Answers how long to wait before the next. */
static long
read_turn(void)
{
	Source	   *source = reporter.source;
	long		wait_ms = ms_until(reporter.look_at);

	if (see_to_source())
	{
		if (take_messages())
			wait_ms = 0;
		if (source_wants_check(source))
			wait_ms = 0;
		if (source_progress(source) != SOURCE_BEHIND)
			wait_ms = sooner(wait_ms, LOOK_AT_ENDS_MS);
		wait_ms = sooner(wait_ms, source_assign_due(source));
		wait_ms = sooner(wait_ms, ms_until(source->look_at));
		if (reporter.dirty_since != 0)
			wait_ms = sooner(wait_ms,
							 ms_until(TimestampTzPlusMilliseconds(reporter.dirty_since,
																  STORE_POSITION_MS)));
		wait_ms = sooner(wait_ms, show_step(source));
	}

	if (reports_next_attempt() == 0)
	{
		begin("catching up");
		reports_catch_up(reporter.head, setting_report_batch_events);
		commit();
	}
	wait_ms = sooner(wait_ms, tidy_log());
	return sooner(wait_ms, reports_next_attempt());
}

/* What the Kafka handles are made of; kept until the next one. */
static char *
fingerprint(void)
{
	char	   *digest = worker_kafka_fingerprint();
	char	   *kept = MemoryContextStrdup(TopMemoryContext, digest);

	pfree(digest);
	return kept;
}

/*
 * Settings have been read again, or files were replaced.  If they make another
 * Kafka handle, reading starts anew where it stands; so it does where a person
 * had to mend something.  Otherwise only topics and tables are looked at.
 */
static void
take_settings(void)
{
	char	   *now;
	bool		same;

	if (reporter.settings_of == worker_reloads())
	{
		if (worker_kafka_files_replaced(false))
			replace_handle();
		return;
	}
	reporter.settings_of = worker_reloads();
	now = fingerprint();
	same = strcmp(now, reporter.fingerprint) == 0 &&
		!worker_kafka_files_replaced(true);
	pfree(reporter.fingerprint);
	reporter.fingerprint = now;

	reporter.look_at = 0;
	reporter.source->look_at = 0;
	if (!same || reporter.source->state == SOURCE_STOPPED)
		replace_handle();
}

/*
 * One turn of the loop; returns how long to wait in ms, negative: until
 * woken.
 */
static long
turn(void)
{
	Source	   *source = reporter.source;
	bool		woken = shared_take_reporter_wake();
	long		wait_ms;

	take_settings();
	if (woken || ms_until(reporter.look_at) == 0)
	{
		look_at_tables();
		/* Who has woken us may want to know that all is read: prove it. */
		if (woken)
			source_check_ends(source);
		if (source->state == SOURCE_STOPPED)
		{
			source->state = SOURCE_WAITING;
			source->look_at = 0;
		}
	}

	if (reporter.reading == 1)
	{
		wait_ms = read_turn();
		source_note_ends(source);
		tell(source_state_name(source));
		return wait_ms;
	}

	close_handle();
	catch_up_end();
	source_note_ends(source);
	tell(reporter.reading < 0 ? "not started" : "stopped by report.stop()");
	return ms_until(reporter.look_at);
}

/*
 * What the process before this one has said: a setting of ALTER DATABASE that
 * changes takes another process, and the numbers go on.
 */
static ReporterReport *
former_report(void)
{
	ReporterReport *report = MemoryContextAllocZero(TopMemoryContext,
													sizeof(ReporterReport));
	int			pid;

	(void) shared_get_reporter(MyDatabaseId, &pid, report);
	return report;
}

void
carshop_reporter_main(Datum arg)
{
	ReporterReport *former;

	worker_start(WORKER_REPORTER, arg);

	reporter.turn = AllocSetContextCreate(TopMemoryContext,
										  "carshop_outbox turn",
										  ALLOCSET_DEFAULT_SIZES);
	former = former_report();
	reporter.source = source_create(TopMemoryContext, former);
	reporter.batch = batch_create(TopMemoryContext);
	reporter.report = MemoryContextAllocZero(TopMemoryContext,
											 sizeof(ReporterReport));
	reporter.report->latency = former->latency;
	reporter.reset_at = GetCurrentTimestamp();
	worker_on_exit(close_handles);
	strlcpy(reporter.report->state, "waiting for the extension",
			sizeof(reporter.report->state));
	shared_report_reporter(reporter.report);
	worker_wait_for_extension();
	reporter.settings_of = worker_reloads();
	reporter.fingerprint = fingerprint();

	for (;;)
	{
		long		wait_ms;
		int			fd = -1;

		MemoryContextSwitchTo(reporter.turn);
		MemoryContextReset(reporter.turn);
		wait_ms = turn();
		if (reporter.reading == 1 && worker_kafka_files_due() >= 0)
			wait_ms = sooner(wait_ms, (long) ((worker_kafka_files_due() + 999) / 1000));
		if (reporter.source->reader != NULL)
			fd = kafka_reader_fd(reporter.source->reader);

		/*
		 * The latch may have been reset since the flag was set: whoever waits
		 * in a transaction (for a lock, in a report's function) does that.
		 */
		if (shared_reporter_wake_waits())
			wait_ms = 0;
		(void) worker_wait(fd, wait_ms);
	}
}
