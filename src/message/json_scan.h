/*-------------------------------------------------------------------------
 *
 * json_scan.h
 *	  A strict scanner that finds the members of a JSON object in place.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11.  Messages are read with it and not with json-c for two reasons:
 * PostgreSQL must get the original text of a member (json-c keeps 64 bits of an
 * integer and rewrites what it prints), and what json-c takes differs between
 * its versions: strict mode takes single quotes, NaN and raw control characters,
 * and in 0.17 and 0.18 it refuses letters outside ASCII.  (The relay's own
 * progress record is written and read with json-c: relay/progress.c.)
 *
 *-------------------------------------------------------------------------
 */
#ifndef JSON_SCAN_H
#define JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

/* Deeper values are refused: PostgreSQL's jsonb recurses. */
#define JSON_MAX_DEPTH	512

/* What scanner->error is then. */
extern const char json_too_deep[];

/* One value or member name, as a range of the text it was found in. */
typedef struct JsonSpan
{
	const char *start;			/* a string's quotes are included */
	size_t		len;
	char		type;			/* one of { [ " 0 t f n */
	bool		escapes;		/* holds a backslash somewhere */
	bool		unstorable;		/* \u0000 or half a surrogate pair: valid JSON
								 * that PostgreSQL cannot store */
} JsonSpan;

typedef struct JsonScanner
{
	const char *start;
	const char *p;
	const char *end;
	const char *error;			/* what was expected; NULL: none */
} JsonScanner;

extern void json_scan_init(JsonScanner *scanner, const char *text, size_t len);

/* Skip white space; true when the text is used up. */
extern bool json_scan_at_end(JsonScanner *scanner);

/* Read one whole value.  False with scanner->error set when it is not JSON. */
extern bool json_scan_value(JsonScanner *scanner, JsonSpan *value);

/*
 * Members of an object, one by one: json_scan_object() must have answered
 * true (the text goes on with a brace); json_scan_member() answers false at
 * the closing brace or, with scanner->error set, where the text is not JSON.
 */
extern bool json_scan_object(JsonScanner *scanner);
extern bool json_scan_member(JsonScanner *scanner, bool *first, JsonSpan *name,
							 JsonSpan *value);

/*
 * The text of a string that was accepted, unescaped, as UTF-8, into a buffer of
 * span->len bytes; returns its length.  Where span->unstorable is set it has
 * NULs for \u0000 and U+FFFD for half a surrogate pair.
 */
extern size_t json_span_text(const JsonSpan *span, char *to);

/* Length of the valid UTF-8 sequence at p, 0 if there is none. */
extern int	json_utf8_length(const unsigned char *p, const unsigned char *end);

#endif							/* JSON_SCAN_H */
