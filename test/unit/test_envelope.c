/*-------------------------------------------------------------------------
 *
 * test_envelope.c
 *	  The bytes of a message, as README ("What goes onto the wire") has them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/envelope.h"

#include <stdio.h>
#include <stdlib.h>

#include "tap.h"

static TextSlice
slice(const char *text)
{
	TextSlice	made = {text, text ? strlen(text) : 0};

	return made;
}

static void
value_is(WireEvent *event, const char *expected, const char *name)
{
	WireBuffer	buffer = {0};
	char	   *got;

	ok(wire_value(&buffer, event), "%s: has a value", name);
	got = strndup(buffer.data ? buffer.data : "", buffer.len);
	is_text(got, expected, name);
	free(got);
	wire_buffer_free(&buffer);
}

static WireEvent
car_sold(void)
{
	WireEvent	event = {0};

	for (int i = 0; i < 16; i++)
		event.id[i] = (unsigned char) (i * 17);
	event.occurred_at = INT64_C(1795379223512756);
	event.format = FORMAT_ENVELOPE;
	event.type = slice("CarSold");
	event.description = slice("CarSold 7");
	event.key = slice("7");
	event.payload = slice("{\"Name\": \"a\\\" b\", \"LegPower\" : 3,\n \"x\":[1 ,2]}");
	event.source = "urn:carshop-outbox:l:shop";
	return event;
}

static void
test_time(int64_t micros, const char *expected)
{
	char		text[40];

	wire_time_text(micros, text);
	is_text(text, expected, expected);
}

static void
uri_is(const char *text, bool reference, const char *expected)
{
	WireBuffer	buffer = {0};
	char	   *got;

	wire_append_uri(&buffer, text, strlen(text), reference);
	got = strndup(buffer.data ? buffer.data : "", buffer.len);
	is_text(got, expected, expected);
	free(got);
	wire_buffer_free(&buffer);
}

/* Names and values of the headers of an event, joined. */
static void
headers_are(const WireEvent *event, const char *traceparent, const char *expected)
{
	WireHeader	headers[WIRE_FORMAT_HEADERS];
	WireHeaderTexts texts;
	char		all[1024] = "";
	int			n = wire_headers(event, slice(traceparent), headers, &texts);

	for (int i = 0; i < n; i++)
	{
		size_t		used = strlen(all);

		snprintf(all + used, sizeof(all) - used, "%s=%.*s;", headers[i].name,
				 (int) headers[i].value_len, (const char *) headers[i].value);
	}
	is_text(all, expected, expected);
	ok(n <= WIRE_FORMAT_HEADERS, "%d headers have their place", n);
}

static void
test_headers(void)
{
	WireEvent	event = car_sold();

	headers_are(&event, NULL, "id=00112233-4455-6677-8899-aabbccddeeff;");
	event.format = FORMAT_RAW;
	headers_are(&event, "00-a", "id=00112233-4455-6677-8899-aabbccddeeff;traceparent=00-a;");
	event.format = FORMAT_CLOUDEVENTS;
	headers_are(&event, NULL, "id=00112233-4455-6677-8899-aabbccddeeff;content-type=application/cloudevents+json;");
	event.format = FORMAT_PAYLOAD;
	headers_are(&event, "00-a",
				"id=00112233-4455-6677-8899-aabbccddeeff;traceparent=00-a;ce_specversion=1.0;"
				"ce_id=00112233-4455-6677-8899-aabbccddeeff;ce_source=urn:carshop-outbox:l:shop;ce_type=CarSold;"
				"ce_time=2026-11-22T20:27:03.512756+00:00;ce_subject=7;content-type=application/json;");
	event.key = slice("");
	headers_are(&event, NULL,
				"id=00112233-4455-6677-8899-aabbccddeeff;ce_specversion=1.0;"
				"ce_id=00112233-4455-6677-8899-aabbccddeeff;ce_source=urn:carshop-outbox:l:shop;ce_type=CarSold;"
				"ce_time=2026-11-22T20:27:03.512756+00:00;content-type=application/json;");
}

/* Bytes of a zigzag varint of a length, as format 2 of record batches has them. */
static size_t
varint_bytes(size_t length)
{
	size_t		bytes = 1;

	for (uint64_t rest = (uint64_t) length * 2; rest >= 128; rest >>= 7)
		bytes++;
	return bytes;
}

/* The size must cover the true record, whatever its lengths, and not by much. */
static void
test_record_bytes(void)
{
	static const size_t lengths[] = {0, 1, 63, 64, 8191, 8192, 1000000, 64 * 1024 * 1024};
	const int	n = sizeof(lengths) / sizeof(lengths[0]);
	bool		covers = true;
	bool		close = true;

	for (int k = 0; k < n; k++)
		for (int v = 0; v < n; v++)
			for (int headers = 0; headers <= OUTBOX_MAX_HEADERS; headers += 16)
			{
				size_t		name = 5;
				size_t		value = 100;
				size_t		header_bytes = (size_t) headers * (name + value);
				size_t		body = 1 + 10 + 5 + varint_bytes(lengths[k]) + lengths[k] +
				varint_bytes(lengths[v]) + lengths[v] + varint_bytes((size_t) headers) +
				(size_t) headers * (varint_bytes(name) + varint_bytes(value)) + header_bytes;
				size_t		truth = 61 + varint_bytes(body) + body;
				size_t		said = wire_record_bytes(lengths[k], lengths[v], headers, header_bytes);

				covers = covers && said >= truth;
				close = close && said - truth <= 20 + 8 * (size_t) headers;
			}
	ok(covers, "no record is larger than said");
	ok(close, "and none much smaller");
	ok(wire_record_bytes(1, 2, 3, 4) == 61 + 36 + 1 + 2 + 30 + 4, "the parts of a record's size");
}

int
main(void)
{
	WireEvent	event = car_sold();
	WireBuffer	buffer = {0};
	EventFormat format;

	value_is(&event,
			 "{\"EventType\":\"CarSold\",\"EventDescription\":\"CarSold 7\","
			 "\"OccuredOn\":\"2026-11-22T20:27:03.512756+00:00\","
			 "\"EventId\":\"00112233-4455-6677-8899-aabbccddeeff\",\"Key\":\"7\","
			 "\"Data\":{\"Name\":\"a\\\" b\",\"LegPower\":3,\"x\":[1,2]}}",
			 "envelope");

	event.key = slice(NULL);
	event.payload = slice(NULL);
	event.description = slice("tab\t quote\" back\\ line\n \x01 \xc3\xa4");
	value_is(&event,
			 "{\"EventType\":\"CarSold\",\"EventDescription\":"
			 "\"tab\\t quote\\\" back\\\\ line\\n \\u0001 \xc3\xa4\","
			 "\"OccuredOn\":\"2026-11-22T20:27:03.512756+00:00\","
			 "\"EventId\":\"00112233-4455-6677-8899-aabbccddeeff\",\"Key\":null,"
			 "\"Data\":null}",
			 "envelope without key and data, with characters to escape");

	event.format = FORMAT_PAYLOAD;
	ok(!wire_value(&buffer, &event), "payload without data is a tombstone");
	event.payload = slice("{\"a\" : 1.10, \"a\":2}");
	value_is(&event, "{\"a\":1.10,\"a\":2}", "payload keeps numbers and duplicates");

	event = car_sold();
	event.format = FORMAT_CLOUDEVENTS;
	event.payload = slice("{}");
	value_is(&event,
			 "{\"specversion\":\"1.0\",\"id\":\"00112233-4455-6677-8899-aabbccddeeff\","
			 "\"source\":\"urn:carshop-outbox:l:shop\",\"type\":\"CarSold\","
			 "\"time\":\"2026-11-22T20:27:03.512756+00:00\",\"subject\":\"7\","
			 "\"datacontenttype\":\"application/json\",\"data\":{}}",
			 "cloudevents");

	event.format = FORMAT_RAW;
	event.value = slice("\x01\x02 raw");
	value_is(&event, "\x01\x02 raw", "raw bytes");

	test_time(0, "1970-01-01T00:00:00.000000+00:00");
	test_time(-1, "1969-12-31T23:59:59.999999+00:00");
	test_time(INT64_C(951782400000000), "2000-02-29T00:00:00.000000+00:00");
	test_time(INT64_C(4107542399999999), "2100-02-28T23:59:59.999999+00:00");
	test_time(INT64_C(4107542400000000), "2100-03-01T00:00:00.000000+00:00");
	test_time(INT64_C(-62135596800000000), "0001-01-01T00:00:00.000000+00:00");
	test_time(INT64_C(253402300799999999), "9999-12-31T23:59:59.999999+00:00");

	ok(wire_format_parse("payload", 7, &format) && format == FORMAT_PAYLOAD,
	   "a known format");
	ok(!wire_format_parse("payloads", 8, &format) && !wire_format_parse("pay", 3, &format),
	   "unknown formats");
	for (int i = FORMAT_ENVELOPE; i <= FORMAT_RAW; i++)
	{
		const char *word = wire_format_word((EventFormat) i);

		ok(wire_format_parse(word, strlen(word), &format) && format == (EventFormat) i,
		   "format %s there and back", word);
	}
	wire_buffer_free(&buffer);

	/*
	 * a text that no memory holds: the failure is seen when it is asked for
	 * late, too
	 */
	wire_append_json_string(&buffer, "", SIZE_MAX / 8);
	ok(buffer.failed, "out of memory is noted");
	wire_buffer_free(&buffer);
	ok(buffer.failed && buffer.data == NULL, "also after the buffer is freed");
	event = car_sold();
	value_is(&event, "{\"EventType\":\"CarSold\",\"EventDescription\":\"CarSold 7\","
			 "\"OccuredOn\":\"2026-11-22T20:27:03.512756+00:00\","
			 "\"EventId\":\"00112233-4455-6677-8899-aabbccddeeff\",\"Key\":\"7\","
			 "\"Data\":{\"Name\":\"a\\\" b\",\"LegPower\":3,\"x\":[1,2]}}", "an envelope");
	ok(wire_value(&buffer, &event) && !buffer.failed, "and the buffer serves the next message");
	wire_buffer_free(&buffer);

	test_headers();
	test_record_bytes();
	uri_is("shop", false, "shop");
	uri_is("Kfz Caf\xc3\xa9/\xff%", false, "Kfz%20Caf%C3%A9%2F%FF%25");
	uri_is("https://shop.example/a?b=%20#c", true, "https://shop.example/a?b=%20#c");
	uri_is("/\xc3\xa4 <\"{}|\\^`>\n", true, "/%C3%A4%20%3C%22%7B%7D%7C%5C%5E%60%3E%0A");
	return done_testing();
}
