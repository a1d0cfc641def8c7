/*-------------------------------------------------------------------------
 *
 * corpus.h
 *	  Reads the files of foreign messages (README.md), for programs of the tests.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A program calls corpus_read() for each file with a function that gets each
 * message; what it gets is gone afterwards.  What is wrong with a file ends the
 * program: a message that is not understood must not be left out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CORPUS_H
#define CORPUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message/message.h"

#define CORPUS_USUAL	"\"EventType\":\"CarSold\",\"EventDescription\":\"d\",\"OccuredOn\":\"2026-11-22T20:27:03.512756+00:00\""
#define CORPUS_HEADERS	(MESSAGE_MAX_HEADERS + 1)

/* Text or bytes that grow; data is never NULL once something was added. */
typedef struct CorpusBytes
{
	char	   *data;
	size_t		len;
	size_t		room;
} CorpusBytes;

/* What an event must say; NULL: none, "*": anything. */
typedef struct CorpusFields
{
	char	   *type;
	char	   *description;
	char	   *time;			/* as to_char() would print it */
	char	   *key;
	char	   *data;
	char	   *headers;
	char	   *id;
} CorpusFields;

typedef struct CorpusMessage
{
	char	   *name;
	CorpusBytes value;
	CorpusBytes key;
	MessageHeader headers[CORPUS_HEADERS];
	int			n_headers;
	char		fate;			/* 'e'vent, 's'kip, 'r'eject; 0: not known yet */
	char	   *sqlstate;
	char	   *reason;
	CorpusFields fields;
} CorpusMessage;

typedef void (*CorpusHandler) (const CorpusMessage *message);

/* Where we are, for complaints. */
static const char *corpus_file;
static int	corpus_line;

__attribute__((format(printf, 1, 2), noreturn, unused))
static void
corpus_die(const char *format, ...)
{
	va_list		args;

	fprintf(stderr, "%s:%d: ", corpus_file, corpus_line);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

static char *
corpus_copy(const char *text)
{
	char	   *copy = strdup(text);

	if (copy == NULL)
		corpus_die("out of memory");
	return copy;
}

static void
corpus_add(CorpusBytes *bytes, const char *data, size_t len)
{
	if (bytes->len + len + 1 > bytes->room)
	{
		bytes->room = 2 * bytes->room + len + 1;
		bytes->data = realloc(bytes->data, bytes->room);
		if (bytes->data == NULL)
			corpus_die("out of memory");
	}
	memcpy(bytes->data + bytes->len, data, len);
	bytes->len += len;
	bytes->data[bytes->len] = '\0';
}

static void
corpus_add_text(CorpusBytes *bytes, const char *text)
{
	static const char usual[] = "$usual";
	const char *at;

	while ((at = strstr(text, usual)) != NULL)
	{
		corpus_add(bytes, text, (size_t) (at - text));
		corpus_add(bytes, CORPUS_USUAL, sizeof(CORPUS_USUAL) - 1);
		text = at + sizeof(usual) - 1;
	}
	corpus_add(bytes, text, strlen(text));
}

static void
corpus_add_hex(CorpusBytes *bytes, const char *digits)
{
	int			n;
	unsigned int value;

	corpus_add(bytes, "", 0);
	while (sscanf(digits, " %2x%n", &value, &n) == 1)
	{
		char		byte = (char) value;

		corpus_add(bytes, &byte, 1);
		digits += n;
	}
	if (*digits != '\0')
		corpus_die("\"%s\" is not hexadecimal", digits);
}

/* The number at *text, which is skipped together with a space. */
static long
corpus_number(char **text)
{
	char	   *end;
	long		value = strtol(*text, &end, 10);

	if (end == *text || *end != ' ' || value < 1)
		corpus_die("a number and a text should be here: \"%s\"", *text);
	*text = end + 1;
	return value;
}

/* What a line adds; kind is the word's end: "", "-hex" or "-repeat". */
static void
corpus_add_line(CorpusBytes *bytes, const char *kind, char *rest)
{
	if (strcmp(kind, "") == 0)
		corpus_add_text(bytes, rest);
	else if (strcmp(kind, "-hex") == 0)
		corpus_add_hex(bytes, rest);
	else if (strcmp(kind, "-repeat") == 0)
	{
		for (long n = corpus_number(&rest); n > 0; n--)
			corpus_add(bytes, rest, strlen(rest));
	}
	else
		corpus_die("there is no \"%s\"", kind);
}

static void
corpus_header(CorpusMessage *message, const char *kind, char *rest)
{
	long		n = strcmp(kind, "-many") == 0 ? corpus_number(&rest) : 1;
	char	   *colon = strcmp(kind, "-null") == 0 ? NULL : strstr(rest, ":");
	char	   *text = "";

	if (strcmp(kind, "-null") != 0)
	{
		if (colon == NULL)
			corpus_die("a header is NAME: TEXT");
		*colon = '\0';
		text = colon[1] == ' ' ? colon + 2 : colon + 1;
	}
	for (; n > 0; n--)
	{
		MessageHeader *header = &message->headers[message->n_headers++];
		CorpusBytes value = {NULL, 0, 0};

		if (message->n_headers > CORPUS_HEADERS)
			corpus_die("too many headers");
		if (colon != NULL)
			corpus_add_line(&value, strcmp(kind, "-many") == 0 ? "" : kind, text);
		header->name = corpus_copy(rest);
		header->value = value.data;
		header->value_len = value.len;
	}
}

/* Set a field; false: there is no such one. */
static bool
corpus_field(CorpusFields *fields, const char *word, const char *rest)
{
	struct
	{
		const char *word;
		char	  **field;
	}			known[] = {
		{"type", &fields->type}, {"description", &fields->description},
		{"time", &fields->time}, {"key-is", &fields->key},
		{"data", &fields->data}, {"headers", &fields->headers},
		{"id", &fields->id}
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		if (strcmp(word, known[i].word) != 0)
			continue;
		free(*known[i].field);
		*known[i].field = strcmp(rest, "none") == 0 ? NULL : corpus_copy(rest);
		return true;
	}
	return false;
}

static void
corpus_fate(CorpusMessage *message, const char *word, char *rest)
{
	if (message->fate != 0)
		corpus_die("\"%s\" has two fates", message->name);
	message->fate = word[0];
	if (message->fate == 'r')
	{
		if (strlen(rest) < 7 || rest[5] != ' ')
			corpus_die("a SQLSTATE and a text should be here");
		rest[5] = '\0';
		message->sqlstate = corpus_copy(rest);
		message->reason = corpus_copy(rest + 6);
	}
}

static void
corpus_take_line(CorpusMessage *message, char *word, char *rest)
{
	static const char *const parts[] = {"value", "key", "header"};

	for (int i = 0; i < 3; i++)
	{
		size_t		len = strlen(parts[i]);

		if (strncmp(word, parts[i], len) != 0 || strcmp(word, "key-is") == 0 ||
			(word[len] != '\0' && word[len] != '-'))
			continue;
		if (message->fate != 0)
			corpus_die("the fate of \"%s\" stands before its end", message->name);
		if (i == 2)
			corpus_header(message, word + len, rest);
		else
			corpus_add_line(i == 0 ? &message->value : &message->key, word + len, rest);
		return;
	}
	if (strcmp(word, "event") == 0 || strcmp(word, "skip") == 0 || strcmp(word, "reject") == 0)
		corpus_fate(message, word, rest);
	else if (message->fate == 'e' && strcmp(word, "database") == 0)
		;						/* for those who have one */
	else if (message->fate != 'e' || !corpus_field(&message->fields, word, rest))
		corpus_die("what is \"%s\"?", word);
}

static void
corpus_begin(CorpusMessage *message, const char *name)
{
	memset(message, 0, sizeof(*message));
	message->name = corpus_copy(name);
	message->fields.type = corpus_copy("CarSold");
	message->fields.description = corpus_copy("d");
	message->fields.time = corpus_copy("2026-11-22 20:27:03.512756");
}

static void
corpus_end(CorpusMessage *message, CorpusHandler handler)
{
	CorpusFields *fields = &message->fields;
	char	   *texts[] = {
		message->name, message->value.data, message->key.data, message->sqlstate, message->reason, fields->type,
		fields->description, fields->time, fields->key, fields->data, fields->headers, fields->id
	};

	if (message->name == NULL)
		return;
	if (message->fate == 0)
		corpus_die("\"%s\" has no fate", message->name);
	handler(message);
	for (int i = 0; i < message->n_headers; i++)
	{
		free((void *) message->headers[i].name);
		free((void *) message->headers[i].value);
	}
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		free(texts[i]);
}

static void
corpus_read(const char *path, CorpusHandler handler)
{
	FILE	   *file = fopen(path, "r");
	CorpusMessage *message = calloc(1, sizeof(CorpusMessage));
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		len;

	corpus_file = path;
	corpus_line = 0;
	if (file == NULL || message == NULL)
		corpus_die("cannot be read");
	while ((len = getline(&line, &size, file)) >= 0)
	{
		char	   *rest;

		corpus_line++;
		if (len > 0 && line[len - 1] == '\n')
			line[len - 1] = '\0';
		if (line[0] == '\0' || line[0] == '#')
			continue;
		rest = strchr(line, ' ');
		if (rest != NULL)
			*rest++ = '\0';
		if (strcmp(line, "=") == 0 && rest != NULL)
		{
			corpus_end(message, handler);
			corpus_begin(message, rest);
		}
		else if (message->name != NULL)
			corpus_take_line(message, line, rest != NULL ? rest : line + strlen(line));
		else
			corpus_die("a message begins with \"= NAME\"");
	}
	corpus_end(message, handler);
	free(message);
	free(line);
	fclose(file);
}

#endif							/* CORPUS_H */
