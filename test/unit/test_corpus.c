/*-------------------------------------------------------------------------
 *
 * test_corpus.c
 *	  What becomes of each message of test/corpus.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include <glob.h>

#include "../corpus/corpus.h"
#include "tap.h"

static MessageDecoder *decoder;
static int	n_messages = 0;

static void
check_text(const MessageText *text, const char *expected, const char *field,
		   const char *name)
{
	size_t		len = expected != NULL ? strlen(expected) : 0;

	if (expected != NULL && strcmp(expected, "*") == 0)
	{
		ok(text->data != NULL, "%s: some %s", name, field);
		return;
	}
	if (!ok((text->data == NULL) == (expected == NULL) && text->len == len &&
			(len == 0 || memcmp(text->data, expected, len) == 0), "%s: its %s", name, field))
		diag("got \"%.*s\", expected %s", (int) text->len, text->data != NULL ? text->data : "(none)",
			 expected != NULL ? expected : "(none)");
}

static void
check_event(const CorpusMessage *expected, const Message *message)
{
	const CorpusFields *fields = &expected->fields;
	int64_t		micros = 0;
	unsigned char id[16];

	check_text(&message->event_type, fields->type, "type", expected->name);
	check_text(&message->description, fields->description, "description", expected->name);
	check_text(&message->event_key, fields->key, "key", expected->name);
	check_text(&message->data, fields->data, "data", expected->name);
	check_text(&message->headers, fields->headers, "headers", expected->name);
	ok(message->has_time == (fields->time != NULL), "%s: has a time or none", expected->name);
	if (fields->time != NULL)
	{
		/* The year 10000 is beyond what is read, not beyond what is rounded. */
		if (strcmp(fields->time, "10000-01-01 00:00:00.000000") == 0)
			micros = INT64_C(253402300800) * 1000000;
		else if (!message_parse_time(fields->time, strlen(fields->time), &micros))
			corpus_die("no time: %s", fields->time);
		is_int(message->occurred_on, micros, "and the right one");
	}
	ok(message->has_id == (fields->id != NULL), "%s: has an id or none", expected->name);
	if (fields->id != NULL)
	{
		if (!message_parse_uuid(fields->id, strlen(fields->id), id))
			corpus_die("no id: %s", fields->id);
		ok(memcmp(message->id, id, sizeof(id)) == 0, "and the right one");
	}
}

static void
check_message(const CorpusMessage *expected)
{
	MessageInput input;
	Message		message;
	char		fate;
	char	   *value = NULL;

	/* In memory of its exact size: the sanitizer sees a byte too far. */
	memset(&input, 0, sizeof(input));
	if (expected->value.data != NULL)
	{
		value = malloc(expected->value.len > 0 ? expected->value.len : 1);
		memcpy(value, expected->value.data, expected->value.len);
	}
	input.value = value;
	input.value_len = expected->value.len;
	input.key = expected->key.data;
	input.key_len = expected->key.len;
	input.headers = expected->headers;
	input.n_headers = expected->n_headers;
	if (!message_decode(decoder, &input, &message))
		corpus_die("out of memory");
	n_messages++;

	fate = message.kind == MESSAGE_EVENT ? 'e' : message.kind == MESSAGE_SKIP ? 's' : 'r';
	if (!ok(fate == expected->fate, "%s: its fate", expected->name))
		diag("got '%c' %s %s", fate, message.sqlstate, message.reason);
	else if (fate == 'e')
		check_event(expected, &message);
	else if (fate == 'r')
	{
		is_text(message.sqlstate, expected->sqlstate, "its SQLSTATE");
		ok(strstr(message.reason, expected->reason) != NULL, "its reason: %s", message.reason);
	}
	free(value);
}

int
main(void)
{
	glob_t		files;

	decoder = message_decoder_new();
	if (glob("test/corpus/*.txt", 0, NULL, &files) != 0)
	{
		ok(false, "there is a corpus");
		return done_testing();
	}
	for (size_t i = 0; i < files.gl_pathc; i++)
		corpus_read(files.gl_pathv[i], check_message);
	globfree(&files);
	ok(n_messages >= 200, "%d messages", n_messages);
	message_decoder_free(decoder);
	return done_testing();
}
