/*-------------------------------------------------------------------------
 *
 * context.c
 *	  What an event carries of the transaction that makes it: trace context
 *	  and headers.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The trace context comes from the event itself, else from the setting
 * carshop_outbox.traceparent, else from a comment at the beginning or the end
 * of the client's statement, as SQLCommenter's libraries write it
 * (google.github.io/sqlcommenter/spec): key='value' pairs, URL-encoded, of which
 * a traceparent (W3C Trace Context, section 3.2) needs no encoding.
 *
 * What a comment says is looked up once per statement, since a statement may be
 * long and make many events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "errors.h"
#include "fmgr.h"
#include "mutants.h"
#include "outbox/admission.h"
#include "outbox/context.h"
#include "outbox/encoding.h"
#include "outbox/event.h"
#include "outbox/json_escapes.h"
#include "settings.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

/* The value of traceparent in a comment's text; false: there is none. */
static bool
find_in_comment(const char *at, const char *end, TextSlice *found)
{
	static const char member[] = "traceparent='";
	const size_t len = sizeof(member) - 1;

	for (; (size_t) (end - at) > len; at++)
	{
		const char *close;

		if (strncmp(at, member, len) != 0 ||
			isalnum((unsigned char) at[-1]) || at[-1] == '_')
			continue;
		close = memchr(at + len, '\'', end - at - len);
		if (close == NULL)
			return false;
		found->data = at + len;
		found->len = close - found->data;
		return settings_is_traceparent(found->data, found->len);
	}
	return false;
}

/* A traceparent in comments before or behind the statement (sqlcommenter). */
static bool
find_in_statement(const char *sql, TextSlice *found)
{
	const char *end = sql + strlen(sql);
	const char *at = sql;

	for (;;)
	{
		const char *close;

		while (isspace((unsigned char) *at))
			at++;
		if (at[0] != '/' || at[1] != '*')
			break;
		close = strstr(at + 2, "*/");
		if (close == NULL)
			return false;
		if (find_in_comment(at + 2, close, found))
			return true;
		at = close + 2;
	}

	while (end > at && (isspace((unsigned char) end[-1]) || end[-1] == ';'))
		end--;
	if (end - at < 4 || end[-1] != '/' || end[-2] != '*')
		return false;
	end -= 2;
	for (at = end - 1; at > sql; at--)
	{
		if (at[-1] == '/' && at[0] == '*')
			return find_in_comment(at + 1, end, found);
	}
	return false;
}

void
outbox_set_traceparent(OutboxEvent *event)
{
	static const char *statement = NULL;
	static TimestampTz statement_start = 0;
	static char value[TRACEPARENT_MAX_BYTES];
	static size_t value_len = 0;

	if (event->traceparent.data != NULL)
	{
		if (!settings_is_traceparent(event->traceparent.data, event->traceparent.len) &&
			!MUTANT("any_trace"))
			ereport(ERROR,
					(errcode(ERRCODE_OB_EVENT_REFUSED),
					 errmsg("traceparent of event \"%.*s\" is not one",
							(int) event->type.len, event->type.data),
					 errhint(TRACEPARENT_HINT)));
		return;
	}
	if (setting_traceparent && setting_traceparent[0] != '\0')
	{
		event->traceparent.data = setting_traceparent;
		event->traceparent.len = strlen(setting_traceparent);
		return;
	}
	if (debug_query_string == NULL)
		return;
	if (statement != debug_query_string ||
		statement_start != GetCurrentStatementStartTimestamp())
	{
		TextSlice	found;

		value_len = 0;
		if (find_in_statement(debug_query_string, &found))
		{
			memcpy(value, found.data, found.len);
			value_len = found.len;
		}
		statement = debug_query_string;
		statement_start = GetCurrentStatementStartTimestamp();
	}
	if (value_len > 0)
	{
		event->traceparent.data = value;
		event->traceparent.len = value_len;
	}
}

/* The statement that fails need not be of whoever has set them. */
static void
name_session_headers(void *arg)
{
	errcontext("headers of carshop_outbox.event_headers");
}

/*
 * carshop_outbox.event_headers as JSON; parsed again only when it has changed.
 * Its bytes are nobody's promise: a startup packet, a file and another
 * database's ALTER ROLE bring them unchecked.
 */
static Jsonb *
session_headers(void)
{
	static char *text = NULL;
	static Jsonb *headers = NULL;
	ErrorContextCallback callback;
	MemoryContext old;
	Jsonb	   *parsed;

	if (text != NULL && strcmp(text, setting_event_headers) == 0)
		return headers;
	if (!outbox_has_utf8_form(setting_event_headers, strlen(setting_event_headers)))
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("carshop_outbox.event_headers has no form in UTF-8"),
				 errhint("Set it in this session, in the session's encoding, or with ASCII characters only.")));
	if (!compat_is_json(setting_event_headers) ||
		json_escape_problem(setting_event_headers, strlen(setting_event_headers)))
		ereport(ERROR,
				(errcode(ERRCODE_OB_EVENT_REFUSED),
				 errmsg("carshop_outbox.event_headers is not valid JSON of texts"),
				 errdetail("It is: %s", setting_event_headers),
				 errhint("Set it to a JSON object of strings, for example {\"user\": \"ada\"}.")));
	parsed = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												CStringGetDatum(setting_event_headers)));
	callback.callback = name_session_headers;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	outbox_check_headers(parsed, ERRCODE_OB_EVENT_REFUSED);
	error_context_stack = callback.previous;

	old = MemoryContextSwitchTo(TopMemoryContext);
	if (text != NULL)
	{
		pfree(text);
		pfree(headers);
		text = NULL;
	}
	headers = memcpy(palloc(VARSIZE(parsed)), parsed, VARSIZE(parsed));
	text = pstrdup(setting_event_headers);
	MemoryContextSwitchTo(old);
	return headers;
}

void
outbox_add_session_headers(OutboxEvent *event)
{
	if (setting_event_headers == NULL || setting_event_headers[0] == '\0')
		return;
	if (event->headers == NULL)
		event->headers = session_headers();
	else
	{
		event->headers =
			DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
											   JsonbPGetDatum(event->headers),
											   JsonbPGetDatum(session_headers())));
		outbox_check_header_limits(event->headers, ERRCODE_OB_EVENT_REFUSED);
	}
}
