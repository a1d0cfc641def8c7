/*-------------------------------------------------------------------------
 *
 * test_envelope.c
 *	  The bytes of a message, as README ("What goes onto the wire") has them.
 *
 *-------------------------------------------------------------------------
 */
#include "outbox/envelope.h"

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
	wire_buffer_free(&buffer);
	return done_testing();
}
