/*-------------------------------------------------------------------------
 *
 * test_json_escapes.c
 *	  Escapes that are valid JSON and yet stand for no text.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/json_escapes.h"

#include <string.h>

#include "tap.h"

static void
is_fine(const char *json)
{
	ok(json_escape_problem(json, strlen(json)) == NULL, "fine: %s", json);
}

static void
is_refused(const char *json)
{
	ok(json_escape_problem(json, strlen(json)) != NULL, "refused: %s", json);
}

int
main(void)
{
	is_fine("");
	is_fine("{\"a\":\"b\"}");
	is_fine("\"\\u00e4\\n\\\\\"");
	is_fine("\"\\ud83d\\ude00\"");
	is_fine("\"\\uD83D\\uDE00 \\uD83D\\uDE00\"");
	is_fine("\"\\\\u0000\"");
	is_fine("\"\\\\\\\\ud800\"");
	is_refused("\"\\u0000\"");
	is_refused("{\"\\u0000\":1}");
	is_refused("\"\\\\\\u0000\"");
	is_refused("\"\\ud800\"");
	is_refused("\"\\ud83dx\\ude00\"");
	is_refused("\"\\ud83d\\n\"");
	is_refused("\"\\ude00\"");
	is_refused("\"\\ud83d\\ud83d\\ude00\"");
	/* a text that ends within an escape is not JSON, and read no further */
	ok(json_escape_problem("\"\\ud83d\\ude00", 9) != NULL, "cut behind the first half");
	ok(json_escape_problem("\\", 1) == NULL, "a backslash at the end");
	ok(json_escape_problem("\\u00", 4) == NULL, "digits missing at the end");
	return done_testing();
}
