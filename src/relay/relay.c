/*-------------------------------------------------------------------------
 *
 * relay.c
 *	  The relay worker: asks the state machine what to do, does it, tells.
 *
 * The protocol is in machine.c; here is only the loop around it.  The loop
 * sleeps in worker_wait() and nowhere else (relay_read_progress waits there
 * too).  An SQL error ends the process; the launcher starts it again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "relay/relay.h"
#include "settings.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "worker/worker.h"

#define WAIT_FOR_EXTENSION_MS	5000

static Relay *running = NULL;	/* for the clean-up at exit */

static bool
close_handles(void)
{
	Relay	   *relay = running;
	bool		ended = true;

	running = NULL;
	if (relay == NULL)
		return true;
	if (relay->last_read != NULL)
		ended = kafka_last_close(relay->last_read) && ended;
	relay->last_read = NULL;
	if (relay->plain != NULL)
		ended = kafka_producer_close(relay->plain) && ended;
	relay->plain = NULL;
	if (relay->producer != NULL)
		ended = kafka_producer_close(relay->producer) && ended;
	relay->producer = NULL;
	return ended;
}

static int64
now_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

static RelayLimits
limits_from_settings(void)
{
	RelayLimits limits = {0};

	limits.max_events = setting_max_transaction_events;
	limits.max_bytes = (int64) setting_max_transaction_bytes * 1024;
	limits.transaction_timeout_ms = setting_transaction_timeout;
	limits.poll_interval_ms = setting_poll_interval;
	limits.linger_ms = setting_linger;
	limits.transactions = setting_delivery == DELIVERY_EXACTLY_ONCE;
	limits.require_verification = limits.transactions;
	return limits;
}

static void
perform(Relay *relay, RelayAction action, RelayResult *result)
{
	switch (action)
	{
		case ACT_OPEN:
			relay_open(relay, result);
			break;
		case ACT_CLOSE:
			relay_close(relay);
			break;
		case ACT_CHECK:
			relay_check(relay, result);
			break;
		case ACT_CREATE_PROGRESS_TOPIC:
			relay_create_progress_topic(relay, result);
			break;
		case ACT_RECORD_BIRTH:
			relay_record_birth(relay, result);
			break;
		case ACT_READ_PROGRESS:
			relay_read_progress(relay, result);
			break;
		case ACT_COMPARE:
			relay_compare(relay, result);
			break;
		case ACT_INIT:
			relay_init(relay, result);
			break;
		case ACT_MAKE_TICK:
			relay_make_tick(relay, result);
			break;
		case ACT_PREPARE_TOPIC:
			relay_prepare_topic(relay, result);
			break;
		case ACT_PUBLISH:
			relay_publish(relay, result);
			break;
		case ACT_COMMIT:
			relay_commit(relay, result);
			break;
		case ACT_DEAD_LETTER:
			relay_dead_letter(relay, result);
			break;
		case ACT_WAIT:
			break;
	}
}

/* Log once per change, and what the status views show. */
static void
tell(Relay *relay)
{
	static bool in_trouble = false;
	static char shown[32] = "";
	RelayMachine *machine = &relay->machine;
	RelayReport *report = &relay->report;
	const char *state = relay_state_name(machine);

	if (machine->state == RELAY_STOPPED)
	{
		worker_log_change(true, machine->stop_reason, machine->stop_remedy);
		in_trouble = true;
		strlcpy(report->trouble.message, machine->stop_reason, SHARED_TEXT);
		strlcpy(report->trouble.remedy, machine->stop_remedy, SHARED_TEXT);
	}
	else if (machine->trouble[0] != '\0' && machine->state != RELAY_READY)
	{
		/* one uncertain transaction is daily business; two tries in a row are not */
		if (!in_trouble && (machine->attempts > 1 || machine->deadline != 0))
		{
			worker_log_change(true, machine->trouble,
							  "Check Kafka and carshop_outbox.brokers; events are kept and will be published.");
			in_trouble = true;
		}
		strlcpy(report->trouble.message, machine->trouble, SHARED_TEXT);
		strlcpy(report->trouble.remedy,
				"Check Kafka and carshop_outbox.brokers; events are kept and will be published.",
				SHARED_TEXT);
		if (strncmp(report->last_error, machine->trouble, SHARED_TEXT - 1) != 0)
		{
			strlcpy(report->last_error, machine->trouble, SHARED_TEXT);
			report->last_error_at = GetCurrentTimestamp();
		}
	}
	else if (machine->state == RELAY_READY)
	{
		if (in_trouble)
			worker_log_change(false, "publishing again", NULL);
		in_trouble = false;
		report->trouble.message[0] = '\0';
		report->trouble.remedy[0] = '\0';
	}

	if (strcmp(report->state, state) != 0)
	{
		strlcpy(report->state, state, sizeof(report->state));
		report->since = GetCurrentTimestamp();
	}
	report->stopped = machine->state == RELAY_STOPPED;
	report->confirmed_tick = relay->confirmed;
	report->events_published = machine->events_published;
	report->transactions = machine->transactions;
	report->errors = machine->errors;
	report->last_transaction_ms = machine->last_transaction_ms;
	report->settle_ms = machine->pace.settle_us / 1000;
	shared_report_relay(report);
	if (strcmp(shown, state) != 0)
	{
		strlcpy(shown, state, sizeof(shown));
		worker_show_state(state);
	}
}

static void
reset_statistics(Relay *relay, TimestampTz *seen)
{
	TimestampTz at = shared_stat_reset_at(MyDatabaseId, 'r');

	if (at == *seen)
		return;
	*seen = at;
	relay->machine.events_published = 0;
	relay->machine.transactions = 0;
	relay->machine.errors = 0;
	relay->report.bytes_published = 0;
	relay->report.last_error[0] = '\0';
	relay->report.last_error_at = 0;
}

/*
 * In a stopped state only a person's act helps: outbox.claim or
 * outbox.start_lineage have changed the lineage's row.
 */
static bool
lineage_touched(Relay *relay)
{
	Lineage		lineage;

	worker_begin(NULL);
	lineage_read(&lineage);
	worker_commit();
	return strcmp(lineage.lineage, relay->lineage.lineage) != 0 ||
		lineage.claimed != relay->lineage.claimed;
}

/*
 * What earlier processes have ticked is in the table, but its wait for a
 * synchronous standby may have been cut short by their end: one more
 * synchronous commit waits for all that came before it.
 */
static void
commit_synchronously(void)
{
	worker_begin("flushing");
	if (SPI_execute("SELECT pg_catalog.pg_logical_emit_message(true, 'carshop_outbox', '')",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not write a WAL message");
	worker_commit();
}

static Relay *
make_relay(void)
{
	Relay	   *relay = calloc(1, sizeof(Relay));
	RelayLimits limits = limits_from_settings();
	char	   *uuid;

	if (relay == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	uuid = DatumGetCString(DirectFunctionCall1(uuid_out,
											   DirectFunctionCall1(gen_random_uuid, (Datum) 0)));
	strlcpy(relay->instance, uuid, sizeof(relay->instance));
	relay_machine_init(&relay->machine, &limits);
	relay->report.since = GetCurrentTimestamp();
	return relay;
}

/* One turn of the loop. */
static void
turn(Relay *relay, uint32 *reloads, TimestampTz *reset_seen)
{
	RelayInput	input = {0};
	RelayResult result = {0};
	RelayAction action;
	int64		wait_until;

	(void) worker_check();
	if (relay->producer != NULL)
		kafka_producer_poll(relay->producer);
	if (relay->plain != NULL)
		kafka_producer_poll(relay->plain);
	input.now = now_us();
	input.wake = shared_take_wake();
	input.tainted = relay->producer != NULL && relay->plain == NULL &&
		kafka_producer_tainted(relay->producer);
	if (shared_prepared_noted())
		relay->may_poll = true;
	input.may_poll = relay->may_poll;
	if (*reloads != worker_reloads())
	{
		RelayLimits limits = limits_from_settings();

		*reloads = worker_reloads();
		relay_machine_set_limits(&relay->machine, &limits);
		relay->verification_known = false;
		input.reload = true;
	}
	else if (relay->machine.state == RELAY_STOPPED && input.wake)
		input.reload = lineage_touched(relay);
	reset_statistics(relay, reset_seen);

	action = relay_machine_next(&relay->machine, &input, &wait_until);
	if (action == ACT_WAIT)
	{
		if (relay_machine_idle(&relay->machine) && relay->ticket_seen != 0)
			shared_set_published(relay->ticket_seen);
		tell(relay);
		(void) worker_wait_exactly(relay->producer != NULL ?
								   kafka_producer_fd(relay_sender(relay)) : -1,
								   wait_until < 0 ? -1 :
								   Max(wait_until - now_us(), 0));
		return;
	}
	result.outcome = DONE_OK;
	perform(relay, action, &result);
	relay_machine_done(&relay->machine, action, &result, now_us());
	tell(relay);
}

void
carshop_relay_main(Datum arg)
{
	Relay	   *relay;
	uint32		reloads = 0;
	TimestampTz reset_seen = 0;
	MemoryContext loop_context;

	worker_start(WORKER_RELAY, arg);
	while (!worker_extension_ready())
	{
		worker_show_state("waiting for CREATE EXTENSION carshop_outbox");
		(void) worker_wait(-1, WAIT_FOR_EXTENSION_MS);
	}

	relay = make_relay();
	running = relay;
	worker_on_exit(close_handles);
	commit_synchronously();
	reloads = worker_reloads();
	relay->may_poll = true;		/* look once for prepared transactions */

	loop_context = AllocSetContextCreate(TopMemoryContext, "carshop_outbox relay",
										 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);
		turn(relay, &reloads, &reset_seen);
	}
}
