/*-------------------------------------------------------------------------
 *
 * relay.c
 *	  The relay worker: asks the state machine what to do, does it, tells.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * What happens between COMMIT and Kafka reads downwards:
 *
 *	  relay.c		the loop: asks the machine, performs, reports
 *	  machine.c		what to do next; judge.c: what came of it; setback.c: what if
 *					nothing did; health.c, pace.c, counters.c
 *	  position.c	what PostgreSQL knows: the lineage's row, ticks, dead letters
 *	  link.c		what Kafka knows: handles, topics, the progress record
 *	  publish.c		one Kafka transaction: from batches of events ...
 *	  send.c		... to records of the client
 *	  watch.c		what becomes of the topics meanwhile
 *
 * The loop sleeps in worker_wait() and nowhere else (relay_link_read_progress
 * waits there too).  An SQL error ends the process; the launcher starts it
 * again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "errors.h"
#include "miscadmin.h"
#include "mutants.h"
#include "outbox/encoding.h"
#include "outbox/standby.h"
#include "relay/link.h"
#include "relay/machine.h"
#include "relay/position.h"
#include "relay/publish.h"
#include "settings.h"
#include "shared.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "worker/worker.h"

typedef struct Relay
{
	RelayMachine machine;
	RelayLink	link;
	RelayPosition position;
	Publisher	publisher;
	StandbyWatch standbys;
	RelayReport report;
	uint32		reloads;		/* worker_reloads() as seen last */
	uint32		parkings;		/* shared_parking_changes() as seen last */
	char	   *handle_settings;	/* what the handle was made of */
	TimestampTz reset_seen;		/* outbox.stat_reset() */
	uint64		answered;		/* ticket told to outbox.wait_published */
	char		shown[32];		/* state in pg_stat_activity */
} Relay;

static Relay *running = NULL;	/* for the clean-up at exit */

static bool
close_handles(void)
{
	Relay	   *relay = running;

	running = NULL;
	return relay == NULL || relay_link_close(&relay->link);
}

/* ------------------------------------------------------------------------
 * Performing
 * ------------------------------------------------------------------------
 */
static RelayLimits
limits_from_settings(void)
{
	RelayLimits limits = {0};

	limits.max_events = setting_max_transaction_events;

	/* a transaction may reach twice the limit, and is held in memory */
	limits.max_bytes = (int64) Min(setting_max_transaction_bytes,
								   setting_worker_memory / 2) * 1024;
	limits.transaction_timeout_ms = setting_transaction_timeout;
	limits.poll_interval_ms = setting_poll_interval;
	limits.linger_ms = setting_linger;
	limits.standbys = setting_publish_after_standby;
	limits.transactions = setting_delivery == DELIVERY_EXACTLY_ONCE;
	limits.require_verification = limits.transactions &&
		setting_broker_verification == BROKER_VERIFICATION_REQUIRE;
	return limits;
}

/* What is named for the lineage and the database. */
static void
name_things(Relay *relay)
{
	Sender	   *sender = &relay->publisher.sender;
	char	   *source;

	worker_begin(NULL);
	relay_link_name(&relay->link, &relay->position.lineage);
	source = MemoryContextStrdup(TopMemoryContext,
								 outbox_event_source(relay->position.lineage.lineage));
	if (sender->event_source != NULL)
		pfree(sender->event_source);
	sender->event_source = source;
	worker_commit();
}

/* Look who we are, then open the handles for that. */
static void
open_all(Relay *relay, RelayResult *result)
{
	position_open(&relay->position, result);
	name_things(relay);
	publisher_reset(&relay->publisher);
	relay_link_open(&relay->link, result);
}

static void
close_all(Relay *relay)
{
	publisher_reset(&relay->publisher);
	if (!relay_link_close(&relay->link))
		worker_leave_handle();
}

/* ACT_CHECK, and what of it the status shows even when nothing is wrong. */
static void
check(Relay *relay, RelayResult *result)
{
	relay_link_check(&relay->link, &relay->position.lineage, result);
	if (result->outcome != KAFKA_OK)
		return;
	watch_record(&relay->link);
	relay->report.broker_warning[0] = '\0';
	if (relay->link.verification == KAFKA_VERIFICATION_UNKNOWN)
		strlcpy(relay->report.broker_warning,
				"The broker's settings may not be read: whether it verifies partitions in transactions is unknown.",
				sizeof(relay->report.broker_warning));
	else if (result->does_not_verify && !relay->machine.limits.require_verification)
		strlcpy(relay->report.broker_warning,
				"The broker does not say that it verifies partitions in transactions.",
				sizeof(relay->report.broker_warning));
}

/* Do what the machine has decided, and say what came of it. */
static void
perform(Relay *relay, const RelayAction *action, RelayResult *result)
{
	RelayLink  *link = &relay->link;
	RelayPosition *position = &relay->position;

	switch (action->kind)
	{
		case ACT_OPEN:
			open_all(relay, result);
			break;
		case ACT_CLOSE:
			close_all(relay);
			break;
		case ACT_CHECK:
			check(relay, result);
			break;
		case ACT_CREATE_PROGRESS_TOPIC:
			relay_link_create_progress_topic(link, result);
			break;
		case ACT_RECORD_BIRTH:
			position_record_birth(position, relay_link_cluster(link),
								  link->progress_topic, result);
			break;
		case ACT_READ_PROGRESS:
			relay_link_read_progress(link, position->opened, action->stable, result);
			break;
		case ACT_COMPARE:
			position_compare(position, action, result);
			break;
		case ACT_INIT:
			relay_link_init(link, result);
			break;
		case ACT_MAKE_TICK:
			position_make_tick(position, action, result);
			relay->report.tick = position->newest.tick_id;
			break;
		case ACT_PREPARE_TOPIC:
			relay_link_prepare_topic(link, result);
			if (result->outcome != KAFKA_PENDING)
				watch_record(link);
			break;
		case ACT_PUBLISH:
			publisher_publish(&relay->publisher, action, result);
			break;
		case ACT_COMMIT:
			publisher_commit(&relay->publisher, action, result);
			break;
		case ACT_RECORD_HOME:
			position_record_home(position, result);
			break;
		case ACT_RECORD_CONFIRMED:
			position_record_confirmed(position, action, result);
			break;
		case ACT_TIDY:
			position_tidy(position, action, result);
			break;
		case ACT_UNPARK:
			position_unpark(position, action, result);
			relay->report.tick = position->newest.tick_id;
			break;
		case ACT_DEAD_LETTER:
			position_dead_letter(position, action, result);
			break;
		case ACT_LOOK:
			position_look(position, result);
			break;
		case ACT_WAIT:
			break;
	}
}

/* ------------------------------------------------------------------------
 * Telling
 * ------------------------------------------------------------------------
 */
static void
tell_log(Relay *relay)
{
	RelayHealth *health = &relay->machine.health;

	switch (relay_machine_news(&relay->machine, worker_now_us()))
	{
		case NEWS_TROUBLE:
			worker_log_change(relay->machine.state == RELAY_STOPPED ?
							  ERRCODE_OB_DIVERGENCE : ERRCODE_WARNING,
							  health->message, health->remedy);
			break;
		case NEWS_FINE:
			worker_log_change(0, "publishing again", NULL);
			break;
		case NEWS_NONE:
			break;
	}
}

/* The machine's health for the status; since when it lasts stays. */
static void
tell_trouble(Relay *relay)
{
	const RelayHealth *health = &relay->machine.health;
	RelayReport *report = &relay->report;
	SharedTrouble *trouble = &report->trouble;

	if (!health->trouble || MUTANT("rosy_status"))
	{
		memset(trouble, 0, sizeof(*trouble));
		return;
	}
	if (trouble->message[0] == '\0')
		trouble->at = GetCurrentTimestamp();
	if (strncmp(trouble->message, health->message, SHARED_TEXT - 1) != 0)
	{
		strlcpy(trouble->message, health->message, SHARED_TEXT);
		strlcpy(report->last_error, health->message, SHARED_TEXT);
		report->last_error_at = GetCurrentTimestamp();
	}
	strlcpy(trouble->remedy, health->remedy, SHARED_TEXT);
	/* a relay's own topic is nothing that could be parked */
	if (relay_link_reserved(&relay->link, health->topic))
		trouble->topic[0] = '\0';
	else
		strlcpy(trouble->topic, health->topic, SHARED_TOPIC);
}

/* What the log and the status views show. */
static void
tell(Relay *relay)
{
	RelayMachine *machine = &relay->machine;
	RelayReport *report = &relay->report;
	RelayShown	shown = relay_machine_shown(machine);
	const char *state = relay_shown_name(shown);

	tell_log(relay);
	tell_trouble(relay);
	if (strcmp(report->state, state) != 0)
	{
		strlcpy(report->state, state, sizeof(report->state));
		report->since = GetCurrentTimestamp();
	}
	strlcpy(report->lineage, machine->lineage, sizeof(report->lineage));
	report->stopped = machine->state == RELAY_STOPPED;
	report->confirmed_tick = machine->confirmed;
	report->events_published = machine->events_published;
	report->bytes_published = relay->publisher.bytes_published;
	report->transactions = machine->transactions;
	report->errors = machine->errors;
	report->last_transaction_ms = machine->last_transaction_ms;
	report->settle_ms = machine->pace.settle_us / 1000;
	counters_state(&report->counters, shown, worker_now_us());
	shared_report_relay(report);
	if (strcmp(relay->shown, state) != 0)
	{
		strlcpy(relay->shown, state, sizeof(relay->shown));
		worker_show_state(state);
	}
	if (relay->answered != machine->answered)
	{
		relay->answered = machine->answered;
		shared_set_published(relay->answered);
	}
}

/* outbox.stat_reset() was called since the last look. */
static void
reset_statistics(Relay *relay)
{
	TimestampTz at = shared_stat_reset_at(MyDatabaseId, 'r');

	if (at == relay->reset_seen)
		return;
	relay->reset_seen = at;
	relay->machine.events_published = 0;
	relay->machine.transactions = 0;
	relay->machine.errors = 0;
	relay->publisher.bytes_published = 0;
	relay->report.last_error[0] = '\0';
	relay->report.last_error_at = 0;
	memset(&relay->report.counters, 0, sizeof(relay->report.counters));
	relay->report.counters.state = -1;
}

/* ------------------------------------------------------------------------
 * The loop
 * ------------------------------------------------------------------------
 */

/* Settings were read again: the handle is replaced if it would be another. */
static void
take_reload(Relay *relay, RelayInput *input)
{
	RelayLimits limits = limits_from_settings();
	char	   *now;

	relay->reloads = worker_reloads();
	/* what was not wanted before has not been looked at */
	input->restart = limits.require_verification &&
		!relay->machine.limits.require_verification;
	relay_machine_set_limits(&relay->machine, &limits);
	relay->link.verification_known = false;
	now = worker_kafka_fingerprint();
	input->restart |= worker_kafka_files_replaced(true);
	if (relay->handle_settings == NULL || strcmp(now, relay->handle_settings) != 0)
	{
		input->restart = true;
		if (relay->handle_settings != NULL)
			pfree(relay->handle_settings);
		relay->handle_settings = MemoryContextStrdup(TopMemoryContext, now);
	}
	else if (relay->machine.open)
		name_things(relay);
	/* who repairs something reloads to have it tried, and seen, at once */
	watch_all_due(&relay->link);
	input->retry = true;
}

/* What has happened meanwhile: signals, wake-ups, reloads, Kafka's events. */
static void
look_around(Relay *relay, RelayInput *input)
{
	RelayLink  *link = &relay->link;
	TimestampTz woken_at;

	(void) worker_check();
	if (link->producer != NULL)
		kafka_producer_poll(link->producer);
	if (link->plain != NULL)
		kafka_producer_poll(link->plain);
	input->wake = shared_take_wake(&woken_at);
	if (input->wake && relay->position.woken_at == 0)
		relay->position.woken_at = woken_at;
	input->tainted = link->producer != NULL && link->plain == NULL &&
		kafka_producer_tainted(link->producer);
	if (shared_prepared_noted())
		relay->position.may_poll = true;
	input->may_poll = relay->position.may_poll;
	if (relay->reloads != worker_reloads())
		take_reload(relay, input);
	input->restart |= worker_kafka_files_replaced(false);
	if (relay->parkings != shared_parking_changes())
	{
		relay->parkings = shared_parking_changes();
		input->restart = true;
	}
	reset_statistics(relay);
	input->hold = setting_publish_after_standby > 0;
	input->safe_tick = standby_safe_tick(&relay->standbys, relay->position.newest.tick_id);
	input->now = worker_now_us();
}

/* How long to wait, in microseconds; -1: for ever. */
static int64
time_to_wait(const RelayAction *action)
{
	int64		due = worker_kafka_files_due();
	int64		wait;

	if (action->wait_until < 0)
		return due;
	wait = Max(action->wait_until - worker_now_us(), 0);
	return due < 0 ? wait : Min(wait, due);
}

/* One turn of the loop. */
static void
turn(Relay *relay)
{
	RelayInput	input = {0};
	RelayResult result = {0};
	RelayAction action;

	look_around(relay, &input);
	relay_machine_next(&relay->machine, &input, &action);
	if (action.kind == ACT_WAIT)
	{
		tell(relay);
		(void) worker_wait_exactly(relay->link.producer != NULL ?
								   kafka_producer_fd(relay_link_sender(&relay->link)) : -1,
								   time_to_wait(&action));
		return;
	}
	perform(relay, &action, &result);
	counters_failure(&relay->report.counters, result.outcome);
	relay->shown[0] = '\0';		/* its transactions have shown what they do */
	relay_machine_done(&relay->machine, &action, &result, worker_now_us());
	tell(relay);
}

/* Numbers go on where the former process of this relay has left them. */
static void
take_counters(Relay *relay)
{
	RelayReport former;
	RelayReport *report = &relay->report;
	int			pid;

	(void) shared_get_relay(MyDatabaseId, &pid, &former);
	relay->reset_seen = shared_stat_reset_at(MyDatabaseId, 'r');
	relay->machine.events_published = former.events_published;
	relay->machine.transactions = former.transactions;
	relay->machine.errors = former.errors;
	relay->publisher.bytes_published = former.bytes_published;
	strlcpy(report->last_error, former.last_error, SHARED_TEXT);
	report->last_error_at = former.last_error_at;
	report->counters = former.counters;
	report->counters.state = -1;
	relay->publisher.counters = &report->counters;
}

static Relay *
make_relay(void)
{
	Relay	   *relay = MemoryContextAllocZero(TopMemoryContext, sizeof(Relay));
	RelayLimits limits = limits_from_settings();
	char	   *uuid;

	relay->publisher.link = &relay->link;
	relay->publisher.position = &relay->position;
	relay->publisher.sender.link = &relay->link;
	uuid = DatumGetCString(DirectFunctionCall1(uuid_out,
											   DirectFunctionCall1(gen_random_uuid, (Datum) 0)));
	strlcpy(relay->publisher.instance, uuid, sizeof(relay->publisher.instance));
	relay_machine_init(&relay->machine, &limits);
	take_counters(relay);
	relay->report.since = GetCurrentTimestamp();
	relay->handle_settings = MemoryContextStrdup(TopMemoryContext,
												 worker_kafka_fingerprint());
	relay->reloads = worker_reloads();
	relay->parkings = shared_parking_changes();
	relay->position.may_poll = true;	/* look once for prepared transactions */
	return relay;
}

void
carshop_relay_main(Datum arg)
{
	Relay	   *relay;
	MemoryContext loop_context;

	worker_start(WORKER_RELAY, arg);
	worker_wait_for_extension();

	loop_context = AllocSetContextCreate(TopMemoryContext, "carshop_outbox relay",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(loop_context);
	relay = make_relay();
	running = relay;
	worker_on_exit(close_handles);
	position_flush();
	for (;;)
	{
		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);
		turn(relay);
	}
}
