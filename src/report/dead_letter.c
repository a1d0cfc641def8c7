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
	" message, context, key, value, headers, kafka_timestamp, message_id)"
	" SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11"
	" WHERE NOT EXISTS (SELECT FROM report.erased e WHERE e.id = $11)"
	" ON CONFLICT (message_id) WHERE report IS NULL DO NOTHING",
	11,
	{TEXTOID, INT4OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID, BYTEAOID,
	JSONBOID, TIMESTAMPTZOID, UUIDOID},
	NULL
};

static SqlPlan add_event = {
	"INSERT INTO report.dead_letter (topic, partition, kafka_offset, report,"
	" sqlstate, message, context, value, headers, log_seq, published)"
	" SELECT e.topic, e.partition, e.kafka_offset, $1, $3, $4, $5,"
	" pg_catalog.convert_to(pg_catalog.row_to_json(e)::pg_catalog.text, 'UTF8'),"
	" e.headers, e.log_seq, $6"
	" FROM report.reported_events e WHERE e.log_seq = $2",
	6,
	{TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID},
	NULL
};

/* What is no text stands in headers as \x and digits (message_parts.c). */
#define HEADER_BYTES(text) \
	"CASE WHEN " text " ~ '^\\\\x([0-9a-f]{2})*$'" \
	" THEN pg_catalog.decode(pg_catalog.substr(" text ", 3), 'hex')" \
	" ELSE pg_catalog.convert_to(" text ", 'UTF8') END"

static SqlPlan get_next = {
	"SELECT d.id, d.topic, d.partition, d.kafka_offset, d.report, d.log_seq,"
	" d.kafka_timestamp, d.key, d.value,"
	" ARRAY(SELECT " HEADER_BYTES("h.key")
	"   FROM pg_catalog.jsonb_each_text(d.headers) h ORDER BY h.key),"
	" ARRAY(SELECT " HEADER_BYTES("h.value")
	"   FROM pg_catalog.jsonb_each_text(d.headers) h ORDER BY h.key),"
	" d.message_id, COALESCE(p.cluster_id, ''), d.published"
	" FROM report.dead_letter d"
	" LEFT JOIN report.progress p USING (topic, partition)"
	" WHERE d.retry AND d.id > $1 AND (d.report IS NULL OR EXISTS"
	"   (SELECT FROM report.definitions f JOIN report.applied a USING (name)"
	"    WHERE f.name = d.report AND f.enabled AND NOT a.failed))"
	" AND ($2 IS NULL OR pg_catalog.hashtextextended(d.report, 0) = $2)"
	" AND (d.report IS NULL OR d.report <> ALL ($3))"
	" ORDER BY d.id LIMIT 1 FOR NO KEY UPDATE OF d SKIP LOCKED",
	3, {INT8OID, INT8OID, TEXTARRAYOID}, NULL
};

static SqlPlan remove_letter = {
	"DELETE FROM report.dead_letter WHERE id = $1", 1, {INT8OID}, NULL
};

static SqlPlan failed_again = {
	"UPDATE report.dead_letter SET retry = $5, attempts = attempts + 1,"
	" at = pg_catalog.now(), sqlstate = COALESCE($2, sqlstate),"
	" message = COALESCE($3, message),"
	" context = CASE WHEN $2 IS NULL THEN context ELSE $4 END"
	" WHERE id = $1",
	5, {INT8OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID}, NULL
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

bool
dead_letter_add_message(const MessagePlace *place, const BatchEvent *event,
						const char *context)
{
	MessageInput input;
	TimestampTz at = 0;
	pg_uuid_t	id;
	Datum		values[11];
	char		nulls[11];

	memset(&input, 0, sizeof(input));
	input.value = event->value;
	input.value_len = event->value_len;
	input.key = event->key;
	input.key_len = event->key_len;
	event_id_of_place(&input, place, id.data);

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(place->topic);
	values[1] = Int32GetDatum(place->partition);
	values[2] = Int64GetDatum(event->offset);
	values[3] = CStringGetTextDatum(event->sqlstate);
	values[4] = CStringGetTextDatum(event->reason);
	values[5] = text_or_null(context, &nulls[5]);
	values[6] = bytes_or_null(event->key, event->key_len, &nulls[6]);
	values[7] = bytes_or_null(event->value, event->value_len, &nulls[7]);
	values[8] = headers_or_null(event, &nulls[8]);
	if (!batch_timestamp(event->timestamp_ms, &at))
		nulls[9] = 'n';
	values[9] = TimestampTzGetDatum(at);
	values[10] = UUIDPGetDatum(&id);
	return sql_plan_execute(&add_message, values, nulls) == 1;
}

void
dead_letter_add_event(const char *report, int64 log_seq, bool published,
					  const ErrorData *error)
{
	Datum		values[6];
	char		nulls[6];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(report);
	values[1] = Int64GetDatum(log_seq);
	values[2] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[3] = CStringGetTextDatum(error->message);
	values[4] = text_or_null(error->context, &nulls[4]);
	values[5] = BoolGetDatum(published);
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
	bool	   *nulls;
	int			n_values;

	/* Copies: the row is given back before they are used. */
	deconstruct_array(DatumGetArrayTypePCopy(sql_value(row, 10, NULL)), BYTEAOID,
					  -1, false, TYPALIGN_INT, &names, NULL,
					  &letter->n_headers);
	deconstruct_array(DatumGetArrayTypePCopy(sql_value(row, 11, NULL)), BYTEAOID,
					  -1, false, TYPALIGN_INT, &values, &nulls, &n_values);
	letter->headers = palloc0(sizeof(MessageHeader) *
							  Max(letter->n_headers, 1));
	for (int i = 0; i < letter->n_headers; i++)
	{
		letter->headers[i].name = TextDatumGetCString(names[i]);
		if (nulls[i])
			continue;			/* a header without value */
		letter->headers[i].value = VARDATA_ANY(DatumGetByteaPP(values[i]));
		letter->headers[i].value_len =
			VARSIZE_ANY_EXHDR(DatumGetByteaPP(values[i]));
	}
}

DeadLetter *
dead_letter_next(int64 after, const int64 *report, Datum without)
{
	Datum		values[3];
	Datum		value;
	DeadLetter *letter;
	bool		isnull;

	values[0] = Int64GetDatum(after);
	values[1] = Int64GetDatum(report != NULL ? *report : 0);
	values[2] = without;
	if (sql_plan_execute(&get_next, values, report != NULL ? "   " : " n ") == 0)
		return NULL;
	letter = palloc0(sizeof(DeadLetter));
	letter->id = DatumGetInt64(sql_value(0, 1, NULL));
	letter->topic = sql_string(0, 2);
	letter->partition = DatumGetInt32(sql_value(0, 3, NULL));
	letter->offset = DatumGetInt64(sql_value(0, 4, NULL));
	letter->report = sql_string(0, 5);
	letter->log_seq = DatumGetInt64(sql_value(0, 6, NULL));
	letter->timestamp_ms =
		batch_unix_ms(DatumGetTimestampTz(sql_value(0, 7, &isnull)));
	if (isnull)
		letter->timestamp_ms = -1;
	letter->key = bytes_value(0, 8, &letter->key_len);
	letter->value = bytes_value(0, 9, &letter->value_len);
	read_headers(0, letter);
	letter->has_message_id = true;
	value = sql_value(0, 12, &isnull);
	if (isnull)
		letter->has_message_id = false;
	else
		letter->message_id = *DatumGetUUIDP(value);
	letter->cluster_id = sql_string(0, 13);
	letter->published = DatumGetBool(sql_value(0, 14, NULL));
	SPI_freetuptable(SPI_tuptable);
	return letter;
}

void
dead_letter_remove(int64 id)
{
	Datum		value = Int64GetDatum(id);

	sql_plan_execute(&remove_letter, &value, NULL);
}

bool
dead_letter_read_event(int64 id, Tuplestorestate *store)
{
	static SqlPlan read = {
		"SELECT e.* FROM report.dead_letter d, LATERAL"
		" pg_catalog.jsonb_populate_record(NULL::report.reported_events,"
		" pg_catalog.convert_from(d.value, 'UTF8')::pg_catalog.jsonb) e"
		" WHERE d.id = $1 AND d.report IS NOT NULL",
		1, {INT8OID}, NULL
	};
	Datum		value = Int64GetDatum(id);

	if (sql_plan_execute(&read, &value, NULL) == 0)
		return false;
	tuplestore_puttuple(store, SPI_tuptable->vals[0]);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

/*
 * report.erase() did not see a letter that was being written: the reporter, or a
 * rebuild, had read the event before.  Such a letter's event is not in the log.
 */
void
dead_letter_drop_erased(void)
{
	static SqlPlan any = {"SELECT FROM report.erased LIMIT 1", 0, {0}, NULL};
	static SqlPlan drop = {
		"WITH gone AS MATERIALIZED ("
		"   SELECT d.id, (pg_catalog.convert_from(d.value, 'UTF8')::pg_catalog.jsonb"
		"     ->> 'id')::pg_catalog.uuid AS event"
		"   FROM report.dead_letter d WHERE d.report IS NOT NULL AND NOT EXISTS"
		"     (SELECT FROM report.reported_events e WHERE e.log_seq = d.log_seq)"
		"   FOR UPDATE OF d SKIP LOCKED)"
		" DELETE FROM report.dead_letter d USING gone g, report.erased e"
		" WHERE d.id = g.id AND e.id = g.event",
		0, {0}, NULL
	};

	if (sql_plan_execute(&any, NULL, NULL) > 0)
		sql_plan_execute(&drop, NULL, NULL);
}

void
dead_letter_failed_again(int64 id, bool again, const char *sqlstate,
						 const char *message, const char *context)
{
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};

	values[0] = Int64GetDatum(id);
	values[1] = text_or_null(sqlstate, &nulls[1]);
	values[2] = text_or_null(message, &nulls[2]);
	values[3] = text_or_null(context, &nulls[3]);
	values[4] = BoolGetDatum(again);
	sql_plan_execute(&failed_again, values, nulls);
}
