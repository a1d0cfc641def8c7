/*-------------------------------------------------------------------------
 *
 * envelope.c
 *	  From an event to what goes onto the wire.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * json-c is not used here: the payload is JSON already and is passed through
 * once, so its numbers and duplicate members stay as they are, and building
 * an object tree per event would cost more than all the rest.
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/envelope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MICROS_PER_SECOND	INT64_C(1000000)
#define SECONDS_PER_DAY		INT64_C(86400)

#define BATCH_OVERHEAD		61
#define RECORD_OVERHEAD		36
#define HEADER_OVERHEAD		10

/* In the order of EventFormat. */
static const char *const format_words[] = {"envelope", "payload", "cloudevents", "raw"};
#define N_FORMATS	((int) (sizeof(format_words) / sizeof(format_words[0])))

void
wire_buffer_free(WireBuffer *buffer)
{
	free(buffer->data);
	buffer->data = NULL;
	buffer->len = 0;
	buffer->size = 0;
}

static bool
reserve(WireBuffer *buffer, size_t more)
{
	size_t		size;
	char	   *grown;

	if (buffer->failed)
		return false;
	if (buffer->size - buffer->len >= more)
		return true;
	if (more > SIZE_MAX / 4 || buffer->len > SIZE_MAX / 4)
	{
		buffer->failed = true;
		return false;
	}
	size = buffer->size ? buffer->size * 2 : 1024;
	while (size - buffer->len < more)
		size *= 2;
	grown = realloc(buffer->data, size);
	if (grown == NULL)
	{
		buffer->failed = true;
		return false;
	}
	buffer->data = grown;
	buffer->size = size;
	return true;
}

static void
append(WireBuffer *buffer, const char *data, size_t len)
{
	if (len == 0 || !reserve(buffer, len))
		return;
	memcpy(buffer->data + buffer->len, data, len);
	buffer->len += len;
}

#define append_literal(buffer, literal) \
	append(buffer, literal, sizeof(literal) - 1)

void
wire_append_json_string(WireBuffer *buffer, const char *text, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	char	   *out;

	/* each byte becomes six at most */
	if (!reserve(buffer, len * 6 + 2))
		return;
	out = buffer->data + buffer->len;
	*out++ = '"';
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c >= 0x20 && c != '"' && c != '\\')
		{
			*out++ = (char) c;
			continue;
		}
		*out++ = '\\';
		switch (c)
		{
			case '"':
			case '\\':
				*out++ = (char) c;
				break;
			case '\b':
				*out++ = 'b';
				break;
			case '\f':
				*out++ = 'f';
				break;
			case '\n':
				*out++ = 'n';
				break;
			case '\r':
				*out++ = 'r';
				break;
			case '\t':
				*out++ = 't';
				break;
			default:
				*out++ = 'u';
				*out++ = '0';
				*out++ = '0';
				*out++ = hex[c >> 4];
				*out++ = hex[c & 15];
		}
	}
	*out++ = '"';
	buffer->len = (size_t) (out - buffer->data);
}

void
wire_append_compact_json(WireBuffer *buffer, const char *json, size_t len)
{
	bool		in_string = false;
	char	   *out;

	if (!reserve(buffer, len))
		return;
	out = buffer->data + buffer->len;
	for (size_t i = 0; i < len; i++)
	{
		char		c = json[i];

		if (in_string)
		{
			*out++ = c;
			if (c == '\\' && i + 1 < len)
				*out++ = json[++i];
			else if (c == '"')
				in_string = false;
		}
		else if (c != ' ' && c != '\n' && c != '\t' && c != '\r')
		{
			*out++ = c;
			if (c == '"')
				in_string = true;
		}
	}
	buffer->len = (size_t) (out - buffer->data);
}

void
wire_append_uri(WireBuffer *buffer, const char *text, size_t len, bool reference)
{
	static const char hex[] = "0123456789ABCDEF";
	char	   *out;

	if (len == 0 || !reserve(buffer, len * 3))
		return;
	out = buffer->data + buffer->len;
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			(c != '\0' && strchr("-._~", c) != NULL) ||
			(reference && c != '\0' && strchr("!$&'()*+,;=:@/?#[]%", c) != NULL))
		{
			*out++ = (char) c;
			continue;
		}
		*out++ = '%';
		*out++ = hex[c >> 4];
		*out++ = hex[c & 15];
	}
	buffer->len = (size_t) (out - buffer->data);
}

void
wire_uuid_text(const unsigned char id[16], char *text)
{
	static const char hex[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*text++ = '-';
		*text++ = hex[id[i] >> 4];
		*text++ = hex[id[i] & 15];
	}
	*text = '\0';
}

/*
 * Days since 1970-01-01 to year, month, day of the proleptic Gregorian
 * calendar: counting in eras of 400 years from 0000-03-01, so that the leap
 * day is the last day of a year (H. Hinnant, "chrono-compatible low-level date
 * algorithms").
 */
static void
civil_from_days(int64_t days, int64_t *year, int *month, int *day)
{
	int64_t		era;
	int64_t		of_era;
	int64_t		year_of_era;
	int64_t		of_year;
	int64_t		shifted;

	days += 719468;
	era = (days >= 0 ? days : days - 146096) / 146097;
	of_era = days - era * 146097;
	year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	shifted = (5 * of_year + 2) / 153;
	*day = (int) (of_year - (153 * shifted + 2) / 5 + 1);
	*month = (int) (shifted < 10 ? shifted + 3 : shifted - 9);
	*year = year_of_era + era * 400 + (*month <= 2 ? 1 : 0);
}

static char *
put_digits(char *at, int64_t number, int digits)
{
	for (int i = digits - 1; i >= 0; i--)
	{
		at[i] = (char) ('0' + number % 10);
		number /= 10;
	}
	return at + digits;
}

void
wire_time_text(int64_t micros, char *text)
{
	int64_t		seconds = micros / MICROS_PER_SECOND;
	int64_t		fraction = micros % MICROS_PER_SECOND;
	int64_t		days;
	int64_t		rest;
	int64_t		year;
	int			month;
	int			day;

	if (fraction < 0)
	{
		fraction += MICROS_PER_SECOND;
		seconds--;
	}
	days = seconds / SECONDS_PER_DAY;
	rest = seconds % SECONDS_PER_DAY;
	if (rest < 0)
	{
		rest += SECONDS_PER_DAY;
		days--;
	}
	civil_from_days(days, &year, &month, &day);

	/* the writer refuses times outside the years 1 to 9999 */
	text = put_digits(text, year, 4);
	*text++ = '-';
	text = put_digits(text, month, 2);
	*text++ = '-';
	text = put_digits(text, day, 2);
	*text++ = 'T';
	text = put_digits(text, rest / 3600, 2);
	*text++ = ':';
	text = put_digits(text, rest / 60 % 60, 2);
	*text++ = ':';
	text = put_digits(text, rest % 60, 2);
	*text++ = '.';
	text = put_digits(text, fraction, 6);
	memcpy(text, "+00:00", 7);
}

static void
append_payload(WireBuffer *buffer, const WireEvent *event)
{
	if (event->payload.data == NULL)
		append_literal(buffer, "null");
	else
		wire_append_compact_json(buffer, event->payload.data,
								 event->payload.len);
}

static void
append_string_or_null(WireBuffer *buffer, const TextSlice *text)
{
	if (text->data == NULL)
		append_literal(buffer, "null");
	else
		wire_append_json_string(buffer, text->data, text->len);
}

static void
append_envelope(WireBuffer *buffer, const WireEvent *event)
{
	char		text[40];

	append_literal(buffer, "{\"EventType\":");
	append_string_or_null(buffer, &event->type);
	append_literal(buffer, ",\"EventDescription\":");
	append_string_or_null(buffer, &event->description);
	append_literal(buffer, ",\"OccuredOn\":\"");
	wire_time_text(event->occurred_at, text);
	append(buffer, text, strlen(text));
	append_literal(buffer, "\",\"EventId\":\"");
	wire_uuid_text(event->id, text);
	append(buffer, text, 36);
	append_literal(buffer, "\",\"Key\":");
	append_string_or_null(buffer, &event->key);
	append_literal(buffer, ",\"Data\":");
	append_payload(buffer, event);
	append_literal(buffer, "}");
}

/* CloudEvents 1.0, JSON format, structured mode. */
static void
append_cloudevents(WireBuffer *buffer, const WireEvent *event)
{
	char		text[40];

	append_literal(buffer, "{\"specversion\":\"1.0\",\"id\":\"");
	wire_uuid_text(event->id, text);
	append(buffer, text, 36);
	append_literal(buffer, "\",\"source\":");
	wire_append_json_string(buffer, event->source, strlen(event->source));
	append_literal(buffer, ",\"type\":");
	append_string_or_null(buffer, &event->type);
	append_literal(buffer, ",\"time\":\"");
	wire_time_text(event->occurred_at, text);
	append(buffer, text, strlen(text));
	append_literal(buffer, "\"");
	if (event->key.data != NULL && event->key.len > 0)
	{
		append_literal(buffer, ",\"subject\":");
		wire_append_json_string(buffer, event->key.data, event->key.len);
	}
	append_literal(buffer, ",\"datacontenttype\":\"application/json\",\"data\":");
	append_payload(buffer, event);
	append_literal(buffer, "}");
}

bool
wire_value(WireBuffer *buffer, const WireEvent *event)
{
	buffer->len = 0;
	buffer->failed = false;
	switch (event->format)
	{
		case FORMAT_ENVELOPE:
			append_envelope(buffer, event);
			return true;
		case FORMAT_CLOUDEVENTS:
			append_cloudevents(buffer, event);
			return true;
		case FORMAT_PAYLOAD:
			if (event->payload.data == NULL)
				return false;
			append_payload(buffer, event);
			return true;
		case FORMAT_RAW:
			if (event->value.data == NULL)
				return false;
			append(buffer, event->value.data, event->value.len);
			return true;
	}
	return false;
}

static void
add_header(WireHeader *headers, int *n, const char *name, const void *value, size_t len)
{
	headers[*n].name = name;
	headers[*n].value = value;
	headers[*n].value_len = len;
	(*n)++;
}

static void
add_text_header(WireHeader *headers, int *n, const char *name, const char *text)
{
	add_header(headers, n, name, text, strlen(text));
}

int
wire_headers(const WireEvent *event, TextSlice traceparent, WireHeader *headers,
			 WireHeaderTexts *texts)
{
	int			n = 0;

	wire_uuid_text(event->id, texts->id);
	add_text_header(headers, &n, "id", texts->id);
	if (traceparent.data != NULL)
		add_header(headers, &n, "traceparent", traceparent.data, traceparent.len);
	if (event->format == FORMAT_PAYLOAD)
	{
		wire_time_text(event->occurred_at, texts->time);
		add_text_header(headers, &n, "ce_specversion", "1.0");
		add_text_header(headers, &n, "ce_id", texts->id);
		add_text_header(headers, &n, "ce_source", event->source);
		add_header(headers, &n, "ce_type", event->type.data, event->type.len);
		add_text_header(headers, &n, "ce_time", texts->time);
		if (event->key.data != NULL && event->key.len > 0)
			add_header(headers, &n, "ce_subject", event->key.data, event->key.len);
		add_text_header(headers, &n, "content-type", "application/json");
	}
	else if (event->format == FORMAT_CLOUDEVENTS)
		add_text_header(headers, &n, "content-type", "application/cloudevents+json");
	return n;
}

size_t
wire_record_bytes(size_t key_len, size_t value_len, int n_headers, size_t header_bytes)
{
	return BATCH_OVERHEAD + RECORD_OVERHEAD + key_len + value_len +
		(size_t) n_headers * HEADER_OVERHEAD + header_bytes;
}

bool
wire_format_parse(const char *word, size_t len, EventFormat *format)
{
	for (int i = 0; i < N_FORMATS; i++)
	{
		if (strlen(format_words[i]) == len && memcmp(format_words[i], word, len) == 0)
		{
			*format = (EventFormat) i;
			return true;
		}
	}
	return false;
}

const char *
wire_format_word(EventFormat format)
{
	return format_words[format];
}
