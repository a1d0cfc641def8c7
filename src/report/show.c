/*-------------------------------------------------------------------------
 *
 * show.c
 *	  Offsets shown under a Kafka group, for the usual lag tools.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * At most once a second the stored positions are noted with the place of
 * their commit in the WAL; when that is flushed, they are written to the
 * group, with our identity as metadata.  A group that belongs to another
 * service is never written: that service would skip events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "commands/dbcommands.h"
#include "fault.h"
#include "miscadmin.h"
#include "mutants.h"
#include "report/show.h"
#include "settings.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define SHOW_EVERY_MS	1000
#define FLUSH_LOOK_MS	100
#define REFUSED_MS		60000	/* a refusing group is asked again after this */

typedef enum ShowState
{
	SHOW_NOTHING,				/* to do */
	SHOW_FLUSH,					/* wait until noted positions are flushed */
	SHOW_ASKED					/* the brokers are at it */
} ShowState;

static ShowState state = SHOW_NOTHING;
static bool wanted = false;		/* positions have changed since noted */
static XLogRecPtr committed = InvalidXLogRecPtr;	/* end of the newest
													 * commit; invalid: not
													 * ours */
static XLogRecPtr noted;		/* end of the commit of the noted ones */
static KafkaPosition *positions = NULL;
static char (*topics)[TOPIC_SIZE] = NULL;
static int	n_positions = 0;
static TimestampTz next_at = 0;
static SharedTrouble refusal;

const char *
show_group(void)
{
	static char group[NAMEDATALEN + 64];

	if (setting_group_id[0] != '\0')
		return setting_group_id;
	if (group[0] == '\0')
	{
		char	   *name;

		worker_begin(NULL);
		name = get_database_name(MyDatabaseId);
		snprintf(group, sizeof(group), "carshop-report-" UINT64_FORMAT "-%s",
				 GetSystemIdentifier(), name != NULL ? name : "");
		worker_commit();
	}
	return group;
}

void
show_note_commit(void)
{
	committed = XactLastCommitEnd;
	wanted = true;
}

void
show_forget(void)
{
	state = SHOW_NOTHING;
	wanted = true;
	committed = InvalidXLogRecPtr;
	memset(&refusal, 0, sizeof(refusal));
}

void
show_trouble(SharedTrouble *trouble)
{
	*trouble = refusal;
}

/*
 * The end of what was written into the WAL: not behind the header of a page that
 * nothing was written on, for that is not flushed.
 */
static XLogRecPtr
end_of_wal(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();
	uint32		on_page = (uint32) (end % XLOG_BLCKSZ);
	bool		first_page = XLogSegmentOffset(end, wal_segment_size) < XLOG_BLCKSZ;

	if (on_page == (first_page ? SizeOfXLogLongPHD : SizeOfXLogShortPHD))
		end -= on_page;
	return end;
}

/* Keep what is committed now; it is shown when it is durable. */
static void
note_positions(Source *source)
{
	n_positions = 0;
	if (positions != NULL)
	{
		pfree(positions);
		pfree(topics);
	}
	positions = MemoryContextAlloc(TopMemoryContext,
								   sizeof(KafkaPosition) * Max(source->n, 1));
	topics = MemoryContextAlloc(TopMemoryContext,
								TOPIC_SIZE * Max(source->n, 1));
	for (int i = 0; i < source->n; i++)
	{
		Position   *position = &source->partitions[i].position;

		/* one place that is not there, and the broker refuses them all */
		if (position->stored < 0 || position->lost ||
			!source->partitions[i].there)
			continue;
		strlcpy(topics[n_positions], position->topic, TOPIC_SIZE);
		positions[n_positions].topic = topics[n_positions];
		positions[n_positions].partition = position->partition;
		positions[n_positions].offset = position->stored;
		n_positions++;
	}

	/*
	 * What another process has stored, or a session by report.seek(), need
	 * not be flushed either: it stands before the end of the WAL.
	 */
	noted = XLogRecPtrIsInvalid(committed) ? end_of_wal() : committed;
	wanted = false;
}

/* Offsets are not shown: said in the status, and once in the log. */
static void
refuse(const KafkaError *error, const char *remedy)
{
	bool		known = refusal.message[0] != '\0' &&
	strcmp(refusal.remedy, remedy) == 0;

	strlcpy(refusal.message, error->message, sizeof(refusal.message));
	strlcpy(refusal.remedy, remedy, sizeof(refusal.remedy));
	if (refusal.at == 0)
		refusal.at = GetCurrentTimestamp();
	if (!known)
		worker_log_change(ERRCODE_WARNING, error->message, remedy);
}

/* Write the positions into the group, if it is nobody else's. */
static long
ask(Source *source)
{
	static char identity[64];
	KafkaOutcome outcome;
	KafkaError	error;

	if (identity[0] == '\0')
		snprintf(identity, sizeof(identity),
				 "carshop_outbox " UINT64_FORMAT "/%u",
				 GetSystemIdentifier(), MyDatabaseId);

	memset(&error, 0, sizeof(error));
	outcome = kafka_reader_show_offsets(source->reader, positions,
										n_positions, identity, &error);
	if (outcome == KAFKA_PENDING)
	{
		state = SHOW_ASKED;
		return -1;				/* the descriptor tells */
	}
	state = SHOW_NOTHING;
	next_at = TimestampTzPlusMilliseconds(worker_steady_now(),
										  outcome == KAFKA_REFUSED ?
										  REFUSED_MS : SHOW_EVERY_MS);
	if (outcome == KAFKA_REFUSED)
		refuse(&error, "Choose another carshop_outbox.group_id; reading goes on without it.");
	else if (outcome == KAFKA_TROUBLE)
		refuse(&error, kafka_remedy(&error));
	else if (outcome == KAFKA_OK)
		memset(&refusal, 0, sizeof(refusal));
	if (outcome != KAFKA_OK)
		wanted = true;
	/* a commit may have come while the request was under way */
	return wanted ? TimestampDifferenceMilliseconds(worker_steady_now(), next_at) + 1 : -1;
}

long
show_step(Source *source)
{
	TimestampTz now = worker_steady_now();

	if (state == SHOW_ASKED)
		return ask(source);
	if (state == SHOW_NOTHING)
	{
		if (!wanted || source->state != SOURCE_READING || source->n == 0)
			return -1;
		if (now < next_at)
			return TimestampDifferenceMilliseconds(now, next_at) + 1;
		note_positions(source);
		state = SHOW_FLUSH;
	}
	if (GetFlushRecPtr(NULL) < noted && !MUTANT("eager_group"))
		return FLUSH_LOOK_MS;
	FAULT_POINT("offsets_flushed");
	return ask(source);
}
