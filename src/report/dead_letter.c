/*-------------------------------------------------------------------------
 *
 * dead_letter.c
 *	  report.dead_letter: what could not be read, and what a report refused.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "report/dead_letter.h"
#include "report/sql_plan.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

static SqlPlan add_message = {
	"INSERT INTO report.dead_letter (topic, partition, kafka_offset, sqlstate,"
	" message, context, key, value, headers, kafka_timestamp)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,"
	" pg_catalog.to_timestamp($10 / 1000.0::pg_catalog.float8))",
	10,
	{TEXTOID, INT4OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID, BYTEAOID,
	JSONBOID, INT8OID},
	NULL
};

static SqlPlan add_event = {
	"INSERT INTO report.dead_letter (topic, partition, kafka_offset, report,"
	" sqlstate, message, context, value, headers, log_seq)"
	" SELECT e.topic, e.partition, e.kafka_offset, $1, $3, $4, $5,"
	" pg_catalog.convert_to(pg_catalog.row_to_json(e)::pg_catalog.text, 'UTF8'),"
	" e.headers, e.log_seq"
	" FROM report.reported_events e WHERE e.log_seq = $2",
	5,
	{TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID},
	NULL
};

static SqlPlan get_retries = {
	"SELECT d.id, d.topic, d.partition, d.kafka_offset, d.report, d.log_seq,"
	" (pg_catalog.date_part('epoch', d.kafka_timestamp) * 1000)::pg_catalog.int8,"
	" d.key, d.value,"
	" ARRAY(SELECT pg_catalog.convert_to(h.key, 'UTF8')"
	"   FROM pg_catalog.jsonb_each_text(d.headers) h ORDER BY h.key),"
	" ARRAY(SELECT pg_catalog.convert_to(COALESCE(h.value, ''), 'UTF8')"
	"   FROM pg_catalog.jsonb_each_text(d.headers) h ORDER BY h.key),"
	" COALESCE(p.cluster_id, ''), d.attempts"
	" FROM report.dead_letter d"
	" LEFT JOIN report.progress p USING (topic, partition)"
	" WHERE d.retry ORDER BY d.id LIMIT 100"
	" FOR NO KEY UPDATE OF d SKIP LOCKED",
	0, {0}, NULL
};

static SqlPlan remove_letter = {
	"DELETE FROM report.dead_letter WHERE id = $1", 1, {INT8OID}, NULL
};

static SqlPlan failed_again = {
	"UPDATE report.dead_letter SET retry = false, attempts = attempts + 1,"
	" at = pg_catalog.now(), sqlstate = COALESCE($2, sqlstate),"
	" message = COALESCE($3, message), context = COALESCE($4, context)"
	" WHERE id = $1",
	4, {INT8OID, TEXTOID, TEXTOID, TEXTOID}, NULL
};

static SqlPlan replace_letter = {
	"UPDATE report.dead_letter SET attempts = $4 + 1"
	" WHERE topic = $1 AND partition = $2 AND kafka_offset = $3"
	" AND report IS NULL AND NOT retry",
	4, {TEXTOID, INT4OID, INT8OID, INT4OID}, NULL
};

static Datum
text_or_null(const char *text, char *null)
{
	*null = (text == NULL) ? 'n' : ' ';
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

static Datum
bytes_or_null(const char *data, Size len, char *null)
{
	*null = (data == NULL) ? 'n' : ' ';
	return data == NULL ? (Datum) 0 :
		PointerGetDatum(cstring_to_text_with_len(data, (int) len));
}

static bool
is_ascii(const MessageText *text)
{
	for (size_t i = 0; i < text->len; i++)
	{
		if (IS_HIGHBIT_SET(text->data[i]))
			return false;
	}
	return true;
}

/*
 * Headers as jsonb; what the database cannot hold is left out, for a dead
 * letter must never fail to be written.
 */
static Datum
headers_or_null(const BatchEvent *event, char *null)
{
	*null = (event->headers.data == NULL ||
			 (GetDatabaseEncoding() != PG_UTF8 &&
			  !is_ascii(&event->headers))) ? 'n' : ' ';
	if (*null == 'n')
		return (Datum) 0;
	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(pnstrdup(event->headers.data,
														event->headers.len)));
}

void
dead_letter_add_message(const char *topic, int partition,
						const BatchEvent *event, const char *context)
{
	Datum		values[10];
	char		nulls[10];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(topic);
	values[1] = Int32GetDatum(partition);
	values[2] = Int64GetDatum(event->offset);
	values[3] = CStringGetTextDatum(event->sqlstate);
	values[4] = CStringGetTextDatum(event->reason);
	values[5] = text_or_null(context, &nulls[5]);
	values[6] = bytes_or_null(event->key, event->key_len, &nulls[6]);
	values[7] = bytes_or_null(event->value, event->value_len, &nulls[7]);
	values[8] = headers_or_null(event, &nulls[8]);
	values[9] = Int64GetDatum(event->timestamp_ms);
	if (event->timestamp_ms < 0)
		nulls[9] = 'n';
	sql_plan_execute(&add_message, values, nulls);
}

void
dead_letter_add_event(const char *report, int64 log_seq,
					  const ErrorData *error)
{
	Datum		values[5];
	char		nulls[5];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(report);
	values[1] = Int64GetDatum(log_seq);
	values[2] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[3] = CStringGetTextDatum(error->message);
	values[4] = text_or_null(error->context, &nulls[4]);
	sql_plan_execute(&add_event, values, nulls);
}

/* A bytea column as bytes in the current context. */
static char *
bytes_value(uint64 row, int column, Size *len)
{
	bool		isnull;
	Datum		value = sql_value(row, column, &isnull);
	bytea	   *bytes;
	char	   *copy;

	*len = 0;
	if (isnull)
		return NULL;
	bytes = DatumGetByteaPP(value);
	*len = VARSIZE_ANY_EXHDR(bytes);
	copy = palloc(*len + 1);
	memcpy(copy, VARDATA_ANY(bytes), *len);
	copy[*len] = '\0';
	return copy;
}

static void
read_headers(uint64 row, DeadLetter *letter)
{
	Datum	   *names;
	Datum	   *values;
	int			n_values;

	deconstruct_array(DatumGetArrayTypeP(sql_value(row, 10, NULL)), BYTEAOID,
					  -1, false, TYPALIGN_INT, &names, NULL,
					  &letter->n_headers);
	deconstruct_array(DatumGetArrayTypeP(sql_value(row, 11, NULL)), BYTEAOID,
					  -1, false, TYPALIGN_INT, &values, NULL, &n_values);
	letter->headers = palloc0(sizeof(MessageHeader) *
							  Max(letter->n_headers, 1));
	for (int i = 0; i < letter->n_headers; i++)
	{
		bytea	   *value = DatumGetByteaPP(values[i]);

		letter->headers[i].name = TextDatumGetCString(names[i]);
		letter->headers[i].value = VARDATA_ANY(value);
		letter->headers[i].value_len = VARSIZE_ANY_EXHDR(value);
	}
}

DeadLetter *
dead_letter_retries(int *n)
{
	DeadLetter *letters;
	bool		isnull;

	*n = (int) sql_plan_execute(&get_retries, NULL, NULL);
	letters = palloc0(sizeof(DeadLetter) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		DeadLetter *letter = &letters[i];

		letter->id = DatumGetInt64(sql_value(i, 1, NULL));
		letter->topic = sql_string(i, 2);
		letter->partition = DatumGetInt32(sql_value(i, 3, NULL));
		letter->offset = DatumGetInt64(sql_value(i, 4, NULL));
		letter->report = sql_string(i, 5);
		letter->log_seq = DatumGetInt64(sql_value(i, 6, NULL));
		letter->timestamp_ms = DatumGetInt64(sql_value(i, 7, &isnull));
		if (isnull)
			letter->timestamp_ms = -1;
		letter->key = bytes_value(i, 8, &letter->key_len);
		letter->value = bytes_value(i, 9, &letter->value_len);
		read_headers(i, letter);
		letter->cluster_id = sql_string(i, 12);
		letter->attempts = DatumGetInt32(sql_value(i, 13, NULL));
	}
	return letters;
}

void
dead_letter_remove(int64 id)
{
	Datum		value = Int64GetDatum(id);

	sql_plan_execute(&remove_letter, &value, NULL);
}

void
dead_letter_failed_again(int64 id, const ErrorData *error)
{
	Datum		values[4];
	char		nulls[4] = {' ', 'n', 'n', 'n'};

	memset(values, 0, sizeof(values));
	values[0] = Int64GetDatum(id);
	if (error != NULL)
	{
		values[1] = text_or_null(unpack_sql_state(error->sqlerrcode),
								 &nulls[1]);
		values[2] = text_or_null(error->message, &nulls[2]);
		values[3] = text_or_null(error->context, &nulls[3]);
	}
	sql_plan_execute(&failed_again, values, nulls);
}

void
dead_letter_replace(const DeadLetter *letter)
{
	Datum		values[4];

	dead_letter_remove(letter->id);
	values[0] = CStringGetTextDatum(letter->topic);
	values[1] = Int32GetDatum(letter->partition);
	values[2] = Int64GetDatum(letter->offset);
	values[3] = Int32GetDatum(letter->attempts);
	sql_plan_execute(&replace_letter, values, NULL);
}
