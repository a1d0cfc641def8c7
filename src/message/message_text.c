/*-------------------------------------------------------------------------
 *
 * message_text.c
 *	  Times and UUIDs as other programs write them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11, no locale, no time zone database.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "message/message.h"

#define MICROS_PER_SECOND	INT64_C(1000000)

/* Exactly n digits at *p; -1 if they are not there. */
static int
take_digits(const char **p, const char *end, int n)
{
	int			value = 0;
	int			i;

	if (end - *p < n)
		return -1;
	for (i = 0; i < n; i++)
	{
		char		c = (*p)[i];

		if (c < '0' || c > '9')
			return -1;
		value = value * 10 + (c - '0');
	}
	*p += n;
	return value;
}

/* Skip this character; false: it is not there. */
static bool
take_char(const char **p, const char *end, char c)
{
	if (*p == end || **p != c)
		return false;
	(*p)++;
	return true;
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar. */
static int64_t
days_from_civil(int year, int month, int day)
{
	int			y = year - (month <= 2);
	int			era = (y >= 0 ? y : y - 399) / 400;
	int			yoe = y - era * 400;
	int			doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	int			doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

	return (int64_t) era * 146097 + doe - 719468;
}

static int
days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
		return 29;
	return days[month - 1];
}

/*
 * Digits after the decimal point, rounded to microseconds: .NET writes seven.
 * The result may be a whole second.
 */
static bool
take_fraction(const char **p, const char *end, int64_t *micros)
{
	int			digits = 0;
	int64_t		value = 0;
	bool		up = false;

	while (*p < end && **p >= '0' && **p <= '9')
	{
		if (digits < 6)
			value = value * 10 + (**p - '0');
		else if (digits == 6)
			up = **p >= '5';
		digits++;
		(*p)++;
	}
	if (digits == 0)
		return false;
	for (; digits < 6; digits++)
		value *= 10;
	*micros = value + (up ? 1 : 0);
	return true;
}

/* "Z", "+02:00", "+0200", "+02" or nothing, which means UTC. */
static bool
take_offset(const char **p, const char *end, int64_t *seconds)
{
	int			sign;
	int			hours;
	int			minutes = 0;

	*seconds = 0;
	if (*p == end || take_char(p, end, 'Z') || take_char(p, end, 'z'))
		return true;
	if (take_char(p, end, '+'))
		sign = 1;
	else if (take_char(p, end, '-'))
		sign = -1;
	else
		return false;
	hours = take_digits(p, end, 2);
	if (hours < 0 || hours > 23)
		return false;
	if (*p < end)
	{
		(void) take_char(p, end, ':');
		minutes = take_digits(p, end, 2);
		if (minutes < 0 || minutes > 59)
			return false;
	}
	*seconds = sign * (int64_t) (hours * 3600 + minutes * 60);
	return true;
}

bool
message_parse_time(const char *text, size_t len, int64_t *micros)
{
	const char *p = text;
	const char *end = text + len;
	int			year;
	int			month;
	int			day;
	int			hour = 0;
	int			minute = 0;
	int			second = 0;
	int64_t		fraction = 0;
	int64_t		offset = 0;

	year = take_digits(&p, end, 4);
	if (year < 1 || !take_char(&p, end, '-'))
		return false;
	month = take_digits(&p, end, 2);
	if (month < 1 || month > 12 || !take_char(&p, end, '-'))
		return false;
	day = take_digits(&p, end, 2);
	if (day < 1 || day > days_in_month(year, month))
		return false;

	if (p < end)
	{
		if (!take_char(&p, end, 'T') && !take_char(&p, end, 't') &&
			!take_char(&p, end, ' '))
			return false;
		hour = take_digits(&p, end, 2);
		if (hour < 0 || hour > 23 || !take_char(&p, end, ':'))
			return false;
		minute = take_digits(&p, end, 2);
		if (minute < 0 || minute > 59)
			return false;
		if (take_char(&p, end, ':'))
		{
			second = take_digits(&p, end, 2);
			if (second < 0 || second > 59)
				return false;
			if ((take_char(&p, end, '.') || take_char(&p, end, ',')) &&
				!take_fraction(&p, end, &fraction))
				return false;
		}
		if (!take_offset(&p, end, &offset))
			return false;
	}
	if (p != end)
		return false;

	*micros = (days_from_civil(year, month, day) * 86400 +
			   hour * 3600 + minute * 60 + second - offset) *
		MICROS_PER_SECOND + fraction;
	return true;
}

/* Values of hexadecimal digits, plus one: a table is what every id is read by. */
static const unsigned char hex_digits[256] = {
	['0'] = 1,['1'] = 2,['2'] = 3,['3'] = 4,['4'] = 5,['5'] = 6,['6'] = 7,['7'] = 8,['8'] = 9,['9'] = 10,
	['a'] = 11,['b'] = 12,['c'] = 13,['d'] = 14,['e'] = 15,['f'] = 16,
	['A'] = 11,['B'] = 12,['C'] = 13,['D'] = 14,['E'] = 15,['F'] = 16
};

static int
hex_value(char c)
{
	return hex_digits[(unsigned char) c] - 1;
}

/* 8-4-4-4-12 or 32 hexadecimal digits, perhaps in braces, as .NET's "D", "N", "B". */
bool
message_parse_uuid(const char *text, size_t len, unsigned char uuid[16])
{
	bool		dashes;
	size_t		at = 0;
	int			i;

	if (len == 38 && text[0] == '{' && text[37] == '}')
	{
		text++;
		len = 36;
	}
	if (len != 36 && len != 32)
		return false;
	dashes = (len == 36);

	for (i = 0; i < 16; i++)
	{
		int			high;
		int			low;

		if (dashes && (i == 4 || i == 6 || i == 8 || i == 10) &&
			text[at++] != '-')
			return false;
		high = hex_value(text[at]);
		low = hex_value(text[at + 1]);
		if (high < 0 || low < 0)
			return false;
		uuid[i] = (unsigned char) (high << 4 | low);
		at += 2;
	}
	return true;
}
