/*-------------------------------------------------------------------------
 *
 * check.c
 *	  The session's side of outbox.check() and report.check(): start the
 *	  process that looks at Kafka, and take its rows.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * check.h says why it is another process.  The session waits at its latch only,
 * for a bounded time, and may be cancelled at any moment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "check/check.h"
#include "compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "outbox/lineage.h"
#include "postmaster/bgworker.h"
#include "settings.h"
#include "shared.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(outbox_inspect_kafka);

/* For the process to start, and to send its rows. */
#define GRACE_MS		5000
#define LONGEST_MS		(10 * 60 * 1000)

/* Columns: place, and the texts of a message. */
#define COLUMNS			(1 + CHECK_TEXTS)

/* Arguments of outbox.inspect_kafka. */
enum
{
	ARG_READS,
	ARG_TOPICS,
	ARG_STATE,
	ARG_LINEAGE,
	ARG_CLUSTER,
	ARG_PROGRESS,
	ARG_TIMEOUT
};

/* ------------------------------------------------------------------------
 * The request
 * ------------------------------------------------------------------------
 */
static void
add_topic(CheckRequest *request, const char *name, bool progress, bool state)
{
	CheckTopic *topic = &request->topics[request->wanted.n_topics++];

	strlcpy(topic->name, name, sizeof(topic->name));
	topic->progress = progress;
	topic->state = state;
}

static void
describe_relay(CheckWanted *wanted)
{
	static const char *const works[] = {"idle", "publishing", "paused"};
	RelayReport report;
	int			pid = 0;

	(void) shared_get_relay(MyDatabaseId, &pid, &report);
	wanted->relay_runs = pid != 0;
	for (int i = 0; pid != 0 && i < lengthof(works); i++)
	{
		if (strcmp(report.state, works[i]) == 0 && report.trouble.message[0] == '\0')
			wanted->relay_works = true;
	}
}

/* The lineage's own topic: as recorded, or as it would be called. */
static char *
progress_topic(FunctionCallInfo fcinfo)
{
	Lineage		lineage = {0};

	if (!PG_ARGISNULL(ARG_PROGRESS))
		return text_to_cstring(PG_GETARG_TEXT_PP(ARG_PROGRESS));
	strlcpy(lineage.lineage, text_to_cstring(PG_GETARG_TEXT_PP(ARG_LINEAGE)),
			sizeof(lineage.lineage));
	return lineage_progress_topic(&lineage);
}

static CheckRequest *
make_request(FunctionCallInfo fcinfo, int timeout_ms, Size *size)
{
	Datum	   *names;
	Datum	   *states;
	int			n;
	int			n_states;
	CheckRequest *request;
	CheckWanted *wanted;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(ARG_TOPICS), TEXTOID, -1, false,
					  TYPALIGN_INT, &names, NULL, &n);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(ARG_STATE), BOOLOID, 1, true,
					  TYPALIGN_CHAR, &states, NULL, &n_states);
	if (n != n_states)
		elog(ERROR, "%d topics with %d states", n, n_states);
	*size = offsetof(CheckRequest, topics) + sizeof(CheckTopic) * (n + 1);
	request = palloc0(*size);
	request->timeout_ms = timeout_ms;
	wanted = &request->wanted;
	wanted->reads = PG_GETARG_BOOL(ARG_READS);
	wanted->create_topics = setting_create_topics;
	wanted->require_verification = setting_delivery == DELIVERY_EXACTLY_ONCE &&
		setting_broker_verification == BROKER_VERIFICATION_REQUIRE;
	wanted->max_message_bytes = setting_max_message_bytes;
	wanted->transaction_timeout_ms = setting_transaction_timeout;
	wanted->partitions = setting_topic_partitions;
	wanted->replication = setting_topic_replication_factor;
	wanted->tells_rights = kafka_tells_rights();
	strlcpy(wanted->library, kafka_library_version(), sizeof(wanted->library));
	if (!wanted->reads)
	{
		wanted->born = !PG_ARGISNULL(ARG_CLUSTER);
		if (wanted->born)
			strlcpy(wanted->cluster_id, text_to_cstring(PG_GETARG_TEXT_PP(ARG_CLUSTER)),
					sizeof(wanted->cluster_id));
		describe_relay(wanted);
		add_topic(request, progress_topic(fcinfo), true, false);
	}
	for (int i = 0; i < n; i++)
		add_topic(request, TextDatumGetCString(names[i]), false, DatumGetBool(states[i]));
	return request;
}

/* ------------------------------------------------------------------------
 * The process
 * ------------------------------------------------------------------------
 */
typedef struct Looker
{
	dsm_segment *segment;
	BackgroundWorkerHandle *worker;
	shm_mq_handle *queue;
} Looker;

static void *
put(shm_toc * toc, uint64 key, const void *bytes, Size size)
{
	void	   *chunk = shm_toc_allocate(toc, size);

	if (bytes != NULL)
		memcpy(chunk, bytes, size);
	shm_toc_insert(toc, key, chunk);
	return chunk;
}

static dsm_segment *
make_segment(const CheckRequest *request, Size request_size, shm_mq * *queue)
{
	shm_toc_estimator estimator;
	dsm_segment *segment;
	shm_toc    *toc;
	Size		size;

	shm_toc_initialize_estimator(&estimator);
	shm_toc_estimate_chunk(&estimator, request_size);
	shm_toc_estimate_chunk(&estimator, CHECK_QUEUE_BYTES);
	shm_toc_estimate_chunk(&estimator, strlen(setting_brokers) + 1);
	shm_toc_estimate_chunk(&estimator, strlen(setting_kafka_config_file) + 1);
	shm_toc_estimate_keys(&estimator, 4);
	size = shm_toc_estimate(&estimator);
	segment = dsm_create(size, 0);
	toc = shm_toc_create(CHECK_MAGIC, dsm_segment_address(segment), size);
	(void) put(toc, CHECK_KEY_REQUEST, request, request_size);
	(void) put(toc, CHECK_KEY_BROKERS, setting_brokers, strlen(setting_brokers) + 1);
	(void) put(toc, CHECK_KEY_FILE, setting_kafka_config_file,
			   strlen(setting_kafka_config_file) + 1);
	*queue = shm_mq_create(put(toc, CHECK_KEY_QUEUE, NULL, CHECK_QUEUE_BYTES),
						   CHECK_QUEUE_BYTES);
	shm_mq_set_receiver(*queue, MyProc);
	return segment;
}

/* False: the server has no background worker left. */
static bool
start_looker(Looker *looker, const CheckRequest *request, Size request_size)
{
	BackgroundWorker worker = {0};
	shm_mq	   *queue;

	looker->segment = make_segment(request, request_size, &queue);
	snprintf(worker.bgw_name, BGW_MAXLEN, "carshop_outbox check");
	snprintf(worker.bgw_type, BGW_MAXLEN, "carshop_outbox check");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "carshop_outbox", sizeof(worker.bgw_library_name));
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "carshop_check_main");
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(looker->segment));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &looker->worker))
	{
		dsm_detach(looker->segment);
		return false;
	}
	looker->queue = shm_mq_attach(queue, looker->segment, looker->worker);
	return true;
}

/* On an error, a cancel, or the end of this process. */
static void
stop_looker(int code, Datum arg)
{
	Looker	   *looker = (Looker *) DatumGetPointer(arg);

	TerminateBackgroundWorker(looker->worker);
}

/* ------------------------------------------------------------------------
 * Its rows
 * ------------------------------------------------------------------------
 */
static void
put_row(ReturnSetInfo *rsinfo, int place, const char *texts[CHECK_TEXTS])
{
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {0};

	values[0] = Int32GetDatum(place);
	for (int i = 0; i < CHECK_TEXTS; i++)
	{
		nulls[i + 1] = texts[i][0] == '\0';
		values[i + 1] = nulls[i + 1] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_failure(ReturnSetInfo *rsinfo, const char *concern, const char *message,
			const char *remedy)
{
	const char *texts[CHECK_TEXTS] = {concern, "fail", message, remedy, "", ""};

	put_row(rsinfo, 10, texts);
}

/* False: it was the last message. */
static bool
take_message(ReturnSetInfo *rsinfo, const char *message, Size len)
{
	const char *texts[CHECK_TEXTS];
	const char *at = message + sizeof(int);
	int			place;

	memcpy(&place, message, sizeof(int));
	if (place == CHECK_DONE)
		return false;
	for (int i = 0; i < CHECK_TEXTS; i++)
	{
		texts[i] = at;
		at += strlen(at) + 1;
	}
	Assert(at == message + len);
	put_row(rsinfo, place, texts);
	return true;
}

/* All rows, or one that says why there are no more. */
static void
take_rows(ReturnSetInfo *rsinfo, Looker *looker, TimestampTz end)
{
	static uint32 wait_event = 0;

	for (;;)
	{
		Size		len;
		void	   *message;
		long		left;

		switch (shm_mq_receive(looker->queue, &len, &message, true))
		{
			case SHM_MQ_SUCCESS:
				if (!take_message(rsinfo, message, len))
					return;
				continue;
			case SHM_MQ_DETACHED:
				put_failure(rsinfo, "kafka", "The process that looks at Kafka has ended before it was done.",
							"See the server's log.");
				return;
			case SHM_MQ_WOULD_BLOCK:
				break;
		}
		left = TimestampDifferenceMilliseconds(worker_steady_now(), end);
		if (left <= 0)
		{
			put_failure(rsinfo, "kafka", "The process that looks at Kafka has not answered in time.",
						"See the server's log, or call it with a longer timeout.");
			TerminateBackgroundWorker(looker->worker);
			return;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, compat_wait_event(&wait_event, "CarshopCheck"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static int
timeout_ms(Interval *timeout)
{
	TimestampTz now = worker_steady_now();
	TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															  TimestampTzGetDatum(now),
															  IntervalPGetDatum(timeout)));

	if (end <= now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must be greater than zero")));
	return (int) Min(TimestampDifferenceMilliseconds(now, end), LONGEST_MS);
}

/* outbox.inspect_kafka(...): see sql/check.sql */
Datum
outbox_inspect_kafka(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			time_ms = timeout_ms(PG_GETARG_INTERVAL_P(ARG_TIMEOUT));
	Looker		looker = {0};
	Size		size;
	CheckRequest *request = make_request(fcinfo, time_ms, &size);

	InitMaterializedSRF(fcinfo, 0);
	if (!start_looker(&looker, request, size))
	{
		put_failure(rsinfo, "worker processes",
					"Kafka was not asked: all background workers that the server may have (max_worker_processes) are in use.",
					psprintf("ALTER SYSTEM SET max_worker_processes = %d; -- then restart the server",
							 max_worker_processes + 4));
		return (Datum) 0;
	}
	PG_ENSURE_ERROR_CLEANUP(stop_looker, PointerGetDatum(&looker));
	{
		take_rows(rsinfo, &looker,
				  TimestampTzPlusMilliseconds(worker_steady_now(), time_ms + GRACE_MS));
	}
	PG_END_ENSURE_ERROR_CLEANUP(stop_looker, PointerGetDatum(&looker));
	dsm_detach(looker.segment);
	return (Datum) 0;
}
