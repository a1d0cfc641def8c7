/*-------------------------------------------------------------------------
 *
 * json_escapes.c
 *	  Escapes that are valid JSON and yet stand for no text.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/json_escapes.h"

#include <string.h>

/* The four hexadecimal digits at text; -1: they are not there. */
static int
code_unit(const char *text, const char *end)
{
	int			unit = 0;

	if (end - text < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		char		c = text[i];

		unit <<= 4;
		if (c >= '0' && c <= '9')
			unit += c - '0';
		else if (c >= 'a' && c <= 'f')
			unit += c - 'a' + 10;
		else if (c >= 'A' && c <= 'F')
			unit += c - 'A' + 10;
		else
			return -1;
	}
	return unit;
}

const char *
json_escape_problem(const char *json, size_t len)
{
	const char *end = json + len;
	const char *at = json;

	while (at < end && (at = memchr(at, '\\', (size_t) (end - at))) != NULL)
	{
		int			unit;

		if (end - at < 2 || at[1] != 'u')
		{
			at += 2;			/* also over an escaped backslash */
			continue;
		}
		unit = code_unit(at + 2, end);
		at += 6;
		if (unit == 0)
			return "the escape \\u0000";
		if (unit >= 0xdc00 && unit <= 0xdfff)
			return "half of a surrogate pair";
		if (unit >= 0xd800 && unit <= 0xdbff)
		{
			int			low = end - at >= 6 && at[0] == '\\' && at[1] == 'u' ?
			code_unit(at + 2, end) : -1;

			if (low < 0xdc00 || low > 0xdfff)
				return "half of a surrogate pair";
			at += 6;
		}
	}
	return NULL;
}
