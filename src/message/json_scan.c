/*-------------------------------------------------------------------------
 *
 * json_scan.c
 *	  A strict scanner that finds the members of a JSON object in place.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * RFC 8259 to the letter, valid UTF-8 only.  No allocation, no recursion:
 * the nesting of an untrusted message costs one byte per level.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "message/json_scan.h"

const char	json_too_deep[] = "fewer nested levels";

static int	hex_value(char c);
static bool scan_string(JsonScanner *scanner, JsonSpan *span);
static bool scan_number(JsonScanner *scanner);
static bool scan_word(JsonScanner *scanner, const char *word);
static bool scan_colon(JsonScanner *scanner);
static void skip_space(JsonScanner *scanner);
static bool fail(JsonScanner *scanner, const char *expected);

void
json_scan_init(JsonScanner *scanner, const char *text, size_t len)
{
	scanner->start = text;
	scanner->p = text;
	scanner->end = text + len;
	scanner->error = NULL;
}

bool
json_scan_at_end(JsonScanner *scanner)
{
	skip_space(scanner);
	return scanner->p == scanner->end;
}

bool
json_scan_object(JsonScanner *scanner)
{
	skip_space(scanner);
	if (scanner->p == scanner->end || *scanner->p != '{')
		return false;
	scanner->p++;
	return true;
}

bool
json_scan_member(JsonScanner *scanner, bool *first, JsonSpan *name,
				 JsonSpan *value)
{
	skip_space(scanner);
	if (scanner->p == scanner->end)
		return fail(scanner, "a member or a closing brace");
	if (*scanner->p == '}')
	{
		scanner->p++;
		return false;
	}
	if (!*first)
	{
		if (*scanner->p != ',')
			return fail(scanner, "a comma or a closing brace");
		scanner->p++;
		skip_space(scanner);
	}
	*first = false;

	memset(name, 0, sizeof(*name));
	name->type = '"';
	name->start = scanner->p;
	if (!scan_string(scanner, name))
		return false;
	name->len = (size_t) (scanner->p - name->start);
	return scan_colon(scanner) && json_scan_value(scanner, value);
}

bool
json_scan_value(JsonScanner *scanner, JsonSpan *value)
{
	char		stack[JSON_MAX_DEPTH];
	int			depth = 0;

	skip_space(scanner);
	memset(value, 0, sizeof(*value));
	value->start = scanner->p;

	for (;;)
	{
		bool		complete = true;

		skip_space(scanner);
		if (scanner->p == scanner->end)
			return fail(scanner, "a value");
		if (value->type == 0)
			value->type = (*scanner->p == '-' ||
						   (*scanner->p >= '0' && *scanner->p <= '9')) ?
				'0' : *scanner->p;

		switch (*scanner->p)
		{
			case '{':
			case '[':
				if (depth == JSON_MAX_DEPTH)
					return fail(scanner, json_too_deep);
				stack[depth++] = (*scanner->p == '{') ? '}' : ']';
				scanner->p++;
				skip_space(scanner);
				if (scanner->p < scanner->end &&
					*scanner->p == stack[depth - 1])
				{
					scanner->p++;
					depth--;
					break;
				}
				if (stack[depth - 1] == '}' &&
					!(scan_string(scanner, value) && scan_colon(scanner)))
					return false;
				complete = false;
				break;
			case '"':
				if (!scan_string(scanner, value))
					return false;
				break;
			case 't':
				if (!scan_word(scanner, "true"))
					return false;
				break;
			case 'f':
				if (!scan_word(scanner, "false"))
					return false;
				break;
			case 'n':
				if (!scan_word(scanner, "null"))
					return false;
				break;
			default:
				if (!scan_number(scanner))
					return false;
				break;
		}

		/* After a complete value: its containers may be complete as well. */
		while (complete && depth > 0)
		{
			skip_space(scanner);
			if (scanner->p == scanner->end)
				return fail(scanner, "a comma or a closing bracket");
			if (*scanner->p == stack[depth - 1])
			{
				scanner->p++;
				depth--;
				continue;
			}
			if (*scanner->p != ',')
				return fail(scanner, "a comma or a closing bracket");
			scanner->p++;
			skip_space(scanner);
			if (stack[depth - 1] == '}' &&
				!(scan_string(scanner, value) && scan_colon(scanner)))
				return false;
			complete = false;
		}
		if (complete)
			break;
	}

	value->len = (size_t) (scanner->p - value->start);
	return true;
}

int
json_utf8_length(const unsigned char *p, const unsigned char *end)
{
	int			len;
	unsigned char low = 0x80;
	unsigned char high = 0xBF;
	int			i;

	if (p >= end)
		return 0;
	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xC2 && p[0] <= 0xDF)
		len = 2;
	else if (p[0] >= 0xE0 && p[0] <= 0xEF)
	{
		len = 3;
		if (p[0] == 0xE0)
			low = 0xA0;			/* overlong */
		else if (p[0] == 0xED)
			high = 0x9F;		/* surrogates */
	}
	else if (p[0] >= 0xF0 && p[0] <= 0xF4)
	{
		len = 4;
		if (p[0] == 0xF0)
			low = 0x90;			/* overlong */
		else if (p[0] == 0xF4)
			high = 0x8F;		/* above U+10FFFF */
	}
	else
		return 0;

	if (end - p < len || p[1] < low || p[1] > high)
		return 0;
	for (i = 2; i < len; i++)
	{
		if (p[i] < 0x80 || p[i] > 0xBF)
			return 0;
	}
	return len;
}

/* Note what would have been right here; always false. */
static bool
fail(JsonScanner *scanner, const char *expected)
{
	scanner->error = expected;
	return false;
}

static void
skip_space(JsonScanner *scanner)
{
	while (scanner->p < scanner->end &&
		   (*scanner->p == ' ' || *scanner->p == '\n' ||
			*scanner->p == '\r' || *scanner->p == '\t'))
		scanner->p++;
}

static bool
scan_colon(JsonScanner *scanner)
{
	skip_space(scanner);
	if (scanner->p == scanner->end || *scanner->p != ':')
		return fail(scanner, "a colon");
	scanner->p++;
	return true;
}

static bool
scan_word(JsonScanner *scanner, const char *word)
{
	size_t		len = strlen(word);

	if ((size_t) (scanner->end - scanner->p) < len ||
		memcmp(scanner->p, word, len) != 0)
		return fail(scanner, "a value");
	scanner->p += len;
	return true;
}

static bool
scan_digits(JsonScanner *scanner)
{
	const char *first = scanner->p;

	while (scanner->p < scanner->end &&
		   *scanner->p >= '0' && *scanner->p <= '9')
		scanner->p++;
	return scanner->p > first;
}

static bool
scan_number(JsonScanner *scanner)
{
	if (scanner->p < scanner->end && *scanner->p == '-')
		scanner->p++;
	if (scanner->p < scanner->end && *scanner->p == '0')
		scanner->p++;
	else if (!scan_digits(scanner))
		return fail(scanner, "a value");
	if (scanner->p < scanner->end && *scanner->p == '.')
	{
		scanner->p++;
		if (!scan_digits(scanner))
			return fail(scanner, "a digit");
	}
	if (scanner->p < scanner->end &&
		(*scanner->p == 'e' || *scanner->p == 'E'))
	{
		scanner->p++;
		if (scanner->p < scanner->end &&
			(*scanner->p == '+' || *scanner->p == '-'))
			scanner->p++;
		if (!scan_digits(scanner))
			return fail(scanner, "a digit");
	}
	return true;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The four digits after \u, -1 if they are not there. */
static int
scan_unicode(JsonScanner *scanner)
{
	int			code = 0;
	int			i;

	if (scanner->end - scanner->p < 4)
		return -1;
	for (i = 0; i < 4; i++)
	{
		int			digit = hex_value(scanner->p[i]);

		if (digit < 0)
			return -1;
		code = code * 16 + digit;
	}
	scanner->p += 4;
	return code;
}

/* After a backslash.  Marks what PostgreSQL cannot store. */
static bool
scan_escape(JsonScanner *scanner, JsonSpan *span)
{
	int			code;

	if (scanner->p == scanner->end)
		return fail(scanner, "an escape sequence");
	if (*scanner->p != 'u')
	{
		if (*scanner->p == '\0' || strchr("\"\\/bfnrt", *scanner->p) == NULL)
			return fail(scanner, "an escape sequence");
		scanner->p++;
		return true;
	}

	scanner->p++;
	code = scan_unicode(scanner);
	if (code < 0)
		return fail(scanner, "four hexadecimal digits");
	if (code == 0)
		span->unstorable = true;
	else if (code >= 0xD800 && code <= 0xDBFF)
	{
		if (scanner->end - scanner->p >= 2 &&
			scanner->p[0] == '\\' && scanner->p[1] == 'u')
		{
			scanner->p += 2;
			code = scan_unicode(scanner);
			if (code < 0)
				return fail(scanner, "four hexadecimal digits");
			if (code < 0xDC00 || code > 0xDFFF)
				span->unstorable = true;
		}
		else
			span->unstorable = true;
	}
	else if (code >= 0xDC00 && code <= 0xDFFF)
		span->unstorable = true;
	return true;
}

/* Reads a string; its flags are added to span, which may be a whole value. */
static bool
scan_string(JsonScanner *scanner, JsonSpan *span)
{
	if (scanner->p == scanner->end || *scanner->p != '"')
		return fail(scanner, "a string in double quotes");
	scanner->p++;

	while (scanner->p < scanner->end)
	{
		unsigned char c = (unsigned char) *scanner->p;

		if (c == '"')
		{
			scanner->p++;
			return true;
		}
		if (c == '\\')
		{
			span->escapes = true;
			scanner->p++;
			if (!scan_escape(scanner, span))
				return false;
		}
		else if (c < 0x20)
			return fail(scanner, "an escaped control character");
		else if (c < 0x80)
			scanner->p++;
		else
		{
			int			len = json_utf8_length((const unsigned char *) scanner->p,
											   (const unsigned char *) scanner->end);

			if (len == 0)
				return fail(scanner, "valid UTF-8");
			scanner->p += len;
		}
	}
	return fail(scanner, "the end of a string");
}

/* ------------------------------------------------------------------------
 * Unescaping
 * ------------------------------------------------------------------------
 */

/* One character as UTF-8; returns behind it. */
static char *
put_utf8(char *to, unsigned int code)
{
	if (code < 0x80)
		*to++ = (char) code;
	else if (code < 0x800)
	{
		*to++ = (char) (0xC0 | code >> 6);
		*to++ = (char) (0x80 | (code & 0x3F));
	}
	else if (code < 0x10000)
	{
		*to++ = (char) (0xE0 | code >> 12);
		*to++ = (char) (0x80 | (code >> 6 & 0x3F));
		*to++ = (char) (0x80 | (code & 0x3F));
	}
	else
	{
		*to++ = (char) (0xF0 | code >> 18);
		*to++ = (char) (0x80 | (code >> 12 & 0x3F));
		*to++ = (char) (0x80 | (code >> 6 & 0x3F));
		*to++ = (char) (0x80 | (code & 0x3F));
	}
	return to;
}

/* The four digits, which have been accepted. */
static unsigned int
unicode_at(const char *digits)
{
	unsigned int code = 0;

	for (int i = 0; i < 4; i++)
		code = code * 16 + (unsigned int) hex_value(digits[i]);
	return code;
}

/* The escape at *from (behind the backslash), which is skipped. */
static char *
put_escape(char *to, const char **from)
{
	static const char letters[] = "bfnrt";
	static const char meanings[] = "\b\f\n\r\t";
	char		c = *(*from)++;
	const char *letter = strchr(letters, c);
	unsigned int code;

	if (c != 'u')
	{
		*to++ = letter != NULL ? meanings[letter - letters] : c;
		return to;
	}
	code = unicode_at(*from);
	*from += 4;
	if (code >= 0xD800 && code <= 0xDFFF)
	{
		unsigned int low = 0;

		if (code <= 0xDBFF && (*from)[0] == '\\' && (*from)[1] == 'u')
			low = unicode_at(*from + 2);
		if (low < 0xDC00 || low > 0xDFFF)
			return put_utf8(to, 0xFFFD);
		*from += 6;
		code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
	}
	return put_utf8(to, code);
}

size_t
json_span_text(const JsonSpan *span, char *to)
{
	const char *from = span->start + 1;
	const char *end = span->start + span->len - 1;
	char	   *start = to;

	while (from < end)
	{
		if (*from == '\\')
		{
			from++;
			to = put_escape(to, &from);
		}
		else
			*to++ = *from++;
	}
	return (size_t) (to - start);
}
