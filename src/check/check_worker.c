/*-------------------------------------------------------------------------
 *
 * check_worker.c
 *	  The process that looks at Kafka for outbox.check() and report.check().
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * check.h says why there is one.  It looks at interrupts every SLICE_MS.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check/check.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"
#include "worker/worker.h"

#define SLICE_MS		50

static KafkaInspection *inspection = NULL;

static bool
close_inspection(void)
{
	KafkaInspection *closing = inspection;

	inspection = NULL;
	return kafka_inspect_close(closing);
}

/* Nobody wants to know any more. */
static void
leave_if_told(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 0,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	if (ShutdownRequestPending)
		proc_exit(0);
}

static void
send_bytes(shm_mq_handle * queue, const char *bytes, Size len)
{
	if (shm_mq_send(queue, len, bytes, false, true) != SHM_MQ_SUCCESS)
		proc_exit(0);			/* the session is gone */
}

static void
send_row(void *arg, const CheckRow *row)
{
	const char *texts[CHECK_TEXTS] = {row->concern, row->level, row->message,
	row->remedy, row->setting, row->value};
	char		message[sizeof(int) + sizeof(CheckRow) + 128];
	Size		len = sizeof(int);

	memcpy(message, &row->place, sizeof(int));
	for (int i = 0; i < CHECK_TEXTS; i++)
	{
		Size		size = strlen(texts[i]) + 1;

		memcpy(message + len, texts[i], size);
		len += size;
	}
	send_bytes(arg, message, len);
}

/* What is asked about each topic. */
static KafkaTopicFacts *
questions(const CheckRequest *request)
{
	const CheckWanted *wanted = &request->wanted;
	KafkaTopicFacts *topics = palloc0(sizeof(KafkaTopicFacts) * Max(wanted->n_topics, 1));

	for (int i = 0; i < wanted->n_topics; i++)
	{
		const CheckTopic *role = &request->topics[i];

		strlcpy(topics[i].name, role->name, sizeof(topics[i].name));
		topics[i].needs = wanted->reads ? KAFKA_RIGHT_READ :
			role->progress ? KAFKA_RIGHT_READ | KAFKA_RIGHT_WRITE : KAFKA_RIGHT_WRITE;
		topics[i].create = !wanted->reads && wanted->create_topics &&
			!(role->progress && wanted->born);
		topics[i].compact = role->progress;
		topics[i].create_partitions = role->progress ? 1 : wanted->partitions;
		topics[i].create_replication = wanted->replication;
	}
	return topics;
}

static const char *
transactional_id(const CheckRequest *request)
{
	const CheckWanted *wanted = &request->wanted;

	/* a relay's own must not be touched while it may be at work */
	if (wanted->reads || wanted->relay_runs)
		return NULL;
	for (int i = 0; i < wanted->n_topics; i++)
	{
		if (request->topics[i].progress)
			return request->topics[i].name;
	}
	return NULL;
}

static void
look(const CheckRequest *request, shm_mq_handle * queue)
{
	CheckWanted wanted = request->wanted;
	KafkaInspectOptions options = {
		.transactional_id = transactional_id(request),
		.timeout_ms = request->timeout_ms,
		.log = worker_kafka_log
	};
	KafkaError	error = {0};
	KafkaProperties *props = worker_kafka_properties(&error);

	wanted.topics = request->topics;
	if (props != NULL)
		inspection = kafka_inspect_open(props, &options, questions(request),
										wanted.n_topics, &error);
	if (inspection == NULL)
	{
		check_no_handle(&error, send_row, queue);
		return;
	}
	while (!kafka_inspect_step(inspection, SLICE_MS))
		leave_if_told();
	check_rows(kafka_inspect_facts(inspection), &wanted, send_row, queue);
}

void
carshop_check_main(Datum arg)
{
	const int	done = CHECK_DONE;
	dsm_segment *segment;
	shm_toc    *toc;
	shm_mq	   *queue;
	shm_mq_handle *sender;

	worker_start_alone();
	worker_on_exit(close_inspection);
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "carshop_outbox check");
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		proc_exit(0);			/* the session is gone */
	toc = shm_toc_attach(CHECK_MAGIC, dsm_segment_address(segment));
	if (toc == NULL)
		elog(ERROR, "bad magic number in the shared segment of a check");
	queue = shm_toc_lookup(toc, CHECK_KEY_QUEUE, false);
	shm_mq_set_sender(queue, MyProc);
	sender = shm_mq_attach(queue, segment, NULL);

	/* the session's: ALTER DATABASE may have set them */
	SetConfigOption("carshop_outbox.brokers",
					shm_toc_lookup(toc, CHECK_KEY_BROKERS, false), PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("carshop_outbox.kafka_config_file",
					shm_toc_lookup(toc, CHECK_KEY_FILE, false), PGC_SUSET, PGC_S_OVERRIDE);
	look(shm_toc_lookup(toc, CHECK_KEY_REQUEST, false), sender);

	/* the session need not wait for the client's end */
	send_bytes(sender, (const char *) &done, sizeof(done));
	shm_mq_detach(sender);
	proc_exit(0);
}
