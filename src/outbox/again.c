/*-------------------------------------------------------------------------
 *
 * again.c
 *	  outbox.write_again(): an event that was written before, once more.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Not through the view outbox.event: that adds the session's trace context and
 * headers, checks topics by the rights of now, and keeps the header "replayed"
 * for us.  Sizes and texts are checked as ever.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "errors.h"
#include "fmgr.h"
#include "outbox/event.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(outbox_write_again);

static TextSlice
text_argument(FunctionCallInfo fcinfo, int n)
{
	TextSlice	slice = {0};

	if (!PG_ARGISNULL(n))
	{
		text	   *packed = PG_GETARG_TEXT_PP(n);

		slice.data = VARDATA_ANY(packed);
		slice.len = VARSIZE_ANY_EXHDR(packed);
	}
	return slice;
}

/*
 * outbox.write_again(id, occurred_at, type, aggregatetype, aggregateid, payload,
 * description, topic, headers, traceparent, format, value) returns seq.
 */
Datum
outbox_write_again(PG_FUNCTION_ARGS)
{
	OutboxEvent event = {0};
	TextSlice	format = text_argument(fcinfo, 10);

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || format.data == NULL ||
		!wire_format_parse(format.data, format.len, &event.format) ||
		(event.format == FORMAT_RAW) == PG_ARGISNULL(11))
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("this event cannot have been written before"),
				 errhint("Use outbox.emit() or INSERT INTO outbox.event for a new one.")));
	event.again = true;
	event.has_id = true;
	event.id = *PG_GETARG_UUID_P(0);
	event.occurred_at = PG_GETARG_TIMESTAMPTZ(1);
	event.type = text_argument(fcinfo, 2);
	event.aggregatetype = text_argument(fcinfo, 3);
	event.key = text_argument(fcinfo, 4);
	event.payload = text_argument(fcinfo, 5);
	event.description = text_argument(fcinfo, 6);
	event.topic = text_argument(fcinfo, 7);
	event.headers = PG_ARGISNULL(8) ? NULL : PG_GETARG_JSONB_P(8);
	event.traceparent = text_argument(fcinfo, 9);
	event.value = PG_ARGISNULL(11) ? NULL : PG_GETARG_BYTEA_PP(11);
	event.may_wait = true;		/* called by statements only */
	outbox_insert(&event);
	PG_RETURN_INT64(event.seq);
}
