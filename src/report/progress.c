/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  report.progress and report.instance: where reading stands, and whether
 *	  this database reads at all.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "report/progress.h"
#include "report/sql_plan.h"
#include "utils/builtins.h"

static SqlPlan get_reading = {
	"SELECT reading FROM report.instance", 0, {0}, NULL
};

static SqlPlan get_positions = {
	"SELECT topic, partition, next_offset, cluster_id, last_offset, last_mark,"
	" lost FROM report.progress ORDER BY topic, partition",
	0, {0}, NULL
};

static SqlPlan add_position = {
	"INSERT INTO report.progress (topic, partition, next_offset)"
	" VALUES ($1, $2, -2) ON CONFLICT (topic, partition) DO NOTHING",
	2, {TEXTOID, INT4OID}, NULL
};

static SqlPlan store_position = {
	"UPDATE report.progress SET next_offset = $4, cluster_id = $5,"
	" last_offset = $6, last_mark = $7,"
	" last_log_seq = GREATEST(last_log_seq, $8), changed_at = pg_catalog.now()"
	" WHERE topic = $1 AND partition = $2 AND next_offset = $3"
	" AND lost IS NULL",
	8,
	{TEXTOID, INT4OID, INT8OID, INT8OID, TEXTOID, INT8OID, UUIDOID, INT8OID},
	NULL
};

static SqlPlan lose_position = {
	"UPDATE report.progress SET lost = $4, changed_at = pg_catalog.now()"
	" WHERE topic = $1 AND partition = $2 AND next_offset = $3",
	4, {TEXTOID, INT4OID, INT8OID, TEXTOID}, NULL
};

int
progress_reading(void)
{
	if (sql_plan_execute(&get_reading, NULL, NULL) == 0)
		return -1;
	return DatumGetBool(sql_value(0, 1, NULL)) ? 1 : 0;
}

Position   *
progress_load(int *n)
{
	Position   *positions;
	MemoryContext context = CurrentMemoryContext;

	*n = (int) sql_plan_execute(&get_positions, NULL, NULL);
	positions = MemoryContextAllocZero(context,
									   sizeof(Position) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		Position   *position = &positions[i];
		char	   *cluster_id = sql_string(i, 4);
		char	   *lost = sql_string(i, 7);
		bool		no_offset;
		bool		no_mark;
		Datum		mark;

		strlcpy(position->topic, sql_string(i, 1), TOPIC_SIZE);
		position->partition = DatumGetInt32(sql_value(i, 2, NULL));
		position->stored = DatumGetInt64(sql_value(i, 3, NULL));
		position->next = position->stored;
		if (cluster_id != NULL)
			strlcpy(position->cluster_id, cluster_id,
					sizeof(position->cluster_id));
		position->last_offset = DatumGetInt64(sql_value(i, 5, &no_offset));
		mark = sql_value(i, 6, &no_mark);
		if (no_offset || no_mark)
			position->last_offset = -1;
		else
			position->last_mark = *DatumGetUUIDP(mark);
		position->lost = lost != NULL;
		if (lost != NULL)
			strlcpy(position->lost_reason, lost,
					sizeof(position->lost_reason));
	}
	return positions;
}

void
progress_add(const char *topic, int partition)
{
	Datum		values[2];

	values[0] = CStringGetTextDatum(topic);
	values[1] = Int32GetDatum(partition);
	sql_plan_execute(&add_position, values, NULL);
}

bool
progress_store(const Position *position, const char *cluster_id,
			   int64 log_seq)
{
	Datum		values[8];
	char		nulls[8];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(position->topic);
	values[1] = Int32GetDatum(position->partition);
	values[2] = Int64GetDatum(position->stored);
	values[3] = Int64GetDatum(position->next);
	values[4] = CStringGetTextDatum(cluster_id);
	values[5] = Int64GetDatum(position->last_offset);
	values[6] = UUIDPGetDatum(&position->last_mark);
	values[7] = Int64GetDatum(log_seq);
	if (cluster_id[0] == '\0')
		nulls[4] = 'n';
	if (position->last_offset < 0)
		nulls[5] = nulls[6] = 'n';
	return sql_plan_execute(&store_position, values, nulls) == 1;
}

void
progress_lose(const Position *position)
{
	Datum		values[4];

	values[0] = CStringGetTextDatum(position->topic);
	values[1] = Int32GetDatum(position->partition);
	values[2] = Int64GetDatum(position->stored);
	values[3] = CStringGetTextDatum(position->lost_reason);
	sql_plan_execute(&lose_position, values, NULL);
}
