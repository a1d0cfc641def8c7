/*-------------------------------------------------------------------------
 *
 * parked.c
 *	  Topics whose events go aside, and those events.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The relay alone reads batches and so knows the order in which events would be
 * published: it numbers what goes aside, and nobody else writes there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "errors.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mutants.h"
#include "outbox/parked.h"
#include "outbox/segment.h"
#include "outbox/topics.h"
#include "outbox/wakeup.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(outbox_parking_changed);

/* outbox.parking_changed(topic text) */
Datum
outbox_parking_changed(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("topic must not be NULL")));
	outbox_check_topic_name(text_to_cstring(PG_GETARG_TEXT_PP(0)),
							ERRCODE_OB_EVENT_REFUSED);
	wakeup_note_parking();
	PG_RETURN_VOID();
}

static char *
keep_text(const char *text)
{
	char	   *kept = strdup(text);

	if (kept == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return kept;
}

static void
forget(ParkedTopics *parked)
{
	for (int i = 0; i < parked->n; i++)
		free(parked->names[i]);
	free(parked->names);
	free(parked->leaving);
	memset(parked, 0, sizeof(*parked));
}

void
parked_load(ParkedTopics *parked)
{
	forget(parked);
	/* not read only: sees what this transaction has changed */
	if (SPI_execute("SELECT topic, leaving FROM outbox.parked_topic ORDER BY since, topic",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read outbox.parked_topic");
	parked->names = calloc(SPI_processed + 1, sizeof(char *));
	if (parked->names == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		char	   *name = SPI_getvalue(row, desc, 1);
		bool		isnull;

		parked->names[parked->n] = keep_text(name);
		parked->n++;
		if (parked->leaving == NULL && DatumGetBool(SPI_getbinval(row, desc, 2, &isnull)))
			parked->leaving = keep_text(name);
	}
}

bool
parked_has(const ParkedTopics *parked, const char *topic)
{
	for (int i = 0; i < parked->n; i++)
	{
		if (strcmp(parked->names[i], topic) == 0)
			return true;
	}
	return false;
}

/* By values and not by a query of outbox.event, whose plan would flip. */
void
parked_put(const char *topic, TupleTableSlot *row)
{
	static SPIPlanPtr plan = NULL;
	Datum		values[EVENT_COLUMNS + 1];
	char		nulls[EVENT_COLUMNS + 2];

	if (MUTANT("aside_lost"))
		return;
	if (plan == NULL)
	{
		TupleDesc	desc = row->tts_tupleDescriptor;
		Oid			types[EVENT_COLUMNS + 1] = {TEXTOID};
		StringInfoData query;
		SPIPlanPtr	made;

		initStringInfo(&query);
		appendStringInfoString(&query, "INSERT INTO outbox.parked_event SELECT $1,"
							   " COALESCE((SELECT p.place FROM outbox.parked_event p"
							   " WHERE p.parked_topic OPERATOR(pg_catalog.=) $1"
							   " ORDER BY p.place DESC LIMIT 1) OPERATOR(pg_catalog.+) 1, 1)");
		for (int i = 0; i < EVENT_COLUMNS; i++)
		{
			types[i + 1] = TupleDescAttr(desc, i)->atttypid;
			appendStringInfo(&query, ", $%d", i + 2);
		}
		appendStringInfoString(&query, " ON CONFLICT (seq) DO NOTHING");
		made = SPI_prepare(query.data, lengthof(types), types);
		if (made == NULL || SPI_keepplan(made) != 0)
			elog(ERROR, "could not prepare \"%s\"", query.data);
		plan = made;
	}
	slot_getallattrs(row);
	values[0] = CStringGetTextDatum(topic);
	nulls[0] = ' ';
	for (int i = 0; i < EVENT_COLUMNS; i++)
	{
		values[i + 1] = row->tts_values[i];
		nulls[i + 1] = row->tts_isnull[i] ? 'n' : ' ';
	}
	nulls[EVENT_COLUMNS + 1] = '\0';
	if (SPI_execute_plan(plan, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write outbox.parked_event");
	pfree(DatumGetPointer(values[0]));
}

static int64
run(const char *query, const char *topic, int expected)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];
	bool		isnull;

	values[0] = CStringGetTextDatum(topic);
	if (SPI_execute_with_args(query, 1, types, values, NULL, false, 0) != expected)
		elog(ERROR, "could not run \"%s\"", query);
	return expected != SPI_OK_SELECT ? (int64) SPI_processed :
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

int64
parked_write_again(const char *topic)
{
	int64		written = run("SELECT pg_catalog.count(outbox.write_again(e.id, e.occurred_at, e.type,"
							  " e.aggregatetype, e.aggregateid, e.payload, e.description, e.topic,"
							  " e.headers, e.traceparent, e.format, e.value))"
							  " FROM (SELECT * FROM outbox.parked_event"
							  " WHERE parked_topic OPERATOR(pg_catalog.=) $1 ORDER BY place) e",
							  topic, SPI_OK_SELECT);

	(void) run("DELETE FROM outbox.parked_event WHERE parked_topic OPERATOR(pg_catalog.=) $1",
			   topic, SPI_OK_DELETE);
	(void) run("DELETE FROM outbox.parked_topic WHERE topic OPERATOR(pg_catalog.=) $1",
			   topic, SPI_OK_DELETE);
	return written;
}

void
parked_stays(const char *topic, const char *reason)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];

	values[0] = CStringGetTextDatum(topic);
	values[1] = CStringGetTextDatum(reason);
	if (SPI_execute_with_args("UPDATE outbox.parked_topic SET leaving = false, reason = $2"
							  " WHERE topic OPERATOR(pg_catalog.=) $1",
							  2, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update outbox.parked_topic");
}
