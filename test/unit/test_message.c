/*-------------------------------------------------------------------------
 *
 * test_message.c
 *	  What the reporter takes for an event, and what it refuses and why.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "message/event_id.h"
#include "message/message.h"

#include <stdlib.h>

#include "message/json_scan.h"
#include "tap.h"

#define THREE "\"EventType\":\"CarSold\",\"EventDescription\":\"d\",\"OccuredOn\":\"2026-11-22T20:27:03.512756+00:00\""

static MessageDecoder *decoder;
static Message message;
static MessageInput input;
static char *copy = NULL;

/* In memory of its exact size: the sanitizer sees a byte too far. */
static MessageKind
decode_bytes(const char *value, size_t len, const MessageHeader *headers,
			 int n_headers)
{
	free(copy);
	copy = NULL;
	memset(&input, 0, sizeof(input));
	if (value != NULL)
	{
		copy = malloc(len > 0 ? len : 1);
		memcpy(copy, value, len);
	}
	input.value = copy;
	input.value_len = len;
	input.headers = headers;
	input.n_headers = n_headers;
	if (!message_decode(decoder, &input, &message))
		abort();
	return message.kind;
}

static MessageKind
decode(const char *value)
{
	return decode_bytes(value, value != NULL ? strlen(value) : 0, NULL, 0);
}

static const char *
text_of(const MessageText *text)
{
	static char buffers[4][4096];
	static int	next = 0;
	char	   *buffer = buffers[next++ % 4];

	if (text->data == NULL)
		return NULL;
	snprintf(buffer, sizeof(buffers[0]), "%.*s", (int) text->len, text->data);
	return buffer;
}

static const char *
uuid_text(const unsigned char id[16])
{
	static char buffer[40];
	int			at = 0;

	for (int i = 0; i < 16; i++)
		at += snprintf(buffer + at, sizeof(buffer) - (size_t) at,
					   "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id[i]);
	return buffer;
}

static void
check_time(const char *text, int64_t expected)
{
	int64_t		micros = -1;

	ok(message_parse_time(text, strlen(text), &micros), "a time: %s", text);
	is_int(micros, expected, "and the right one");
}

static void
test_times(void)
{
	static const char *const bad[] = {
		"", "2026", "2026-11-22T", "2026-11-22T20", "2026-13-01T00:00:00", "2026-02-29T00:00:00",
		"2026-11-22T24:00:00", "2026-11-22T20:60:00", "2026-11-22T20:27:60", "2026-11-22T20:27:03.",
		"2026-11-22T20:27:03.5x", "2026-11-22T20:27:03+", "2026-11-22T20:27:03+25:00",
		"2026-11-22T20:27:03+01:", "0000-01-01T00:00:00", "22.11.2026 20:27", " 2026-11-22T20:27:03", "2026-11-22T20:27:03 ",
		"/Date(1795379223512)/", "2026-11-22T20:27:03Z+01:00", "now"
	};
	const int64_t base = INT64_C(1795379223) * 1000000; /* 2026-11-22T20:27:03Z */

	check_time("2026-11-22T20:27:03.512756+00:00", base + 512756);
	check_time("2026-11-22T20:27:03Z", base);
	check_time("2026-11-22T20:27:03", base);
	check_time("2026-11-22t20:27:03z", base);
	check_time("2026-11-22 20:27:03", base);
	check_time("2026-11-22T20:27:03.5", base + 500000);
	check_time("2026-11-22T20:27:03.5127564Z", base + 512756);
	check_time("2026-11-22T20:27:03.5127565Z", base + 512757);
	check_time("2026-11-22T20:27:02.9999999Z", base);
	check_time("2026-11-22T21:57:03+01:30", base);
	check_time("2026-11-22T15:27:03-0500", base);
	check_time("2026-11-22T22:27:03+02", base);
	check_time("2026-11-22T20:27Z", base - 3000000);
	check_time("2026-11-22", (base / 1000000 - 73623) * 1000000);
	check_time("2024-02-29T00:00:00Z", INT64_C(1709164800) * 1000000);
	check_time("1970-01-01T00:00:00Z", 0);
	check_time("2025-12-31T23:59:59.9999999Z", INT64_C(1767225600) * 1000000);
	check_time("0001-01-01T00:00:00", INT64_C(-62135596800) * 1000000);
	check_time("9999-12-31T23:59:59.9999999", INT64_C(253402300800) * 1000000);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		int64_t		micros;

		ok(!message_parse_time(bad[i], strlen(bad[i]), &micros), "no time: \"%s\"", bad[i]);
	}
}

static void
test_envelope(void)
{
	is_int(decode("{" THREE "}"), MESSAGE_EVENT, "three members are an event");
	is_text(text_of(&message.event_type), "CarSold", "its type");
	is_text(text_of(&message.description), "d", "its description");
	is_int(message.occurred_on, INT64_C(1795379223512756), "its time");
	ok(!message.has_id && message.ce_id.data == NULL, "no id");
	ok(message.event_key.data == NULL && message.data.data == NULL && message.headers.data == NULL,
	   "no key, data, headers");

	is_int(decode("{\"EventType\":\"A\",\"EventDescription\":null,\"OccuredOn\":\"2026-11-22\"}"), MESSAGE_EVENT, "a null description");
	ok(message.description.data == NULL, "is none");

	is_int(decode("{" THREE ",\"EventId\":\"01998A5E-0000-7000-8000-000000000001\",\"Key\":\"7\",\"Data\":{\"a\": 1.10, \"b\":[1,2]},\"More\":1}"),
		   MESSAGE_EVENT, "six members and one more are an event");
	is_text(uuid_text(message.id), "01998a5e-0000-7000-8000-000000000001", "the id");
	is_text(text_of(&message.event_key), "7", "the key");
	is_text(text_of(&message.data), "{\"a\": 1.10, \"b\":[1,2]}", "the data is the original text");
	is_int(decode("{" THREE ",\"Data\":123456789012345678901234567890.10}"), MESSAGE_EVENT, "a large number");
	is_text(text_of(&message.data), "123456789012345678901234567890.10", "keeps its digits");
	is_int(decode("{" THREE ",\"Data\":null,\"Key\":null,\"EventId\":null}"), MESSAGE_EVENT, "nulls");
	ok(message.data.data == NULL && message.event_key.data == NULL && !message.has_id, "are none");
	is_int(decode("{" THREE ",\"Key\":7}"), MESSAGE_EVENT, "a number as key");
	is_text(text_of(&message.event_key), "7", "is its text");

	is_int(decode(" \n{\"eventtype\":\"A\",\"EVENTDESCRIPTION\":\"B\",\"occurredon\":\"2026-11-22T20:27:03\"} \t"),
		   MESSAGE_EVENT, "names are compared without case, OccurredOn is taken");
	is_int(decode("{\"\\u0045ventType\":\"A\\u0027\\n\\ud83d\\ude97\",\"EventDescription\":\"\\\"\\\\\\/\",\"OccuredOn\":\"2026-11-22T20:27:03\\u002B00:00\"}"),
		   MESSAGE_EVENT, "escapes everywhere");
	is_text(text_of(&message.event_type), "A'\n\xf0\x9f\x9a\x97", "are decoded");
	is_text(text_of(&message.description), "\"\\/", "all of them");
	is_int(message.occurred_on, INT64_C(1795379223000000), "in the time, too");
	is_int(decode("{" THREE ",\"EventType\":\"Last\"}"), MESSAGE_EVENT, "of equal names");
	is_text(text_of(&message.event_type), "Last", "the last wins, as in .NET");
	is_int(decode("{" THREE ",\"EventId\":\"7\"}"), MESSAGE_EVENT, "an EventId that is no UUID");
	ok(!message.has_id, "is no id");

	is_int(decode(NULL), MESSAGE_SKIP, "a tombstone is skipped");
	is_int(decode("null"), MESSAGE_SKIP, "JSON null is skipped");
	is_int(decode(" null\n"), MESSAGE_SKIP, "with white space as well");
}

static void
check_reject(const char *value, size_t len, const char *sqlstate, const char *reason)
{
	is_int(decode_bytes(value, len, NULL, 0), MESSAGE_REJECT, reason);
	is_text(message.sqlstate, sqlstate, "its SQLSTATE");
	ok(strstr(message.reason, reason) != NULL, "its reason: %s", message.reason);
}

#define REJECT(value, sqlstate, reason) check_reject(value, sizeof(value) - 1, sqlstate, reason)

static void
test_rejects(void)
{
	REJECT("", "22032", "it is empty");
	REJECT("not json", "22032", "is not JSON: expected a value at byte 1");
	REJECT("{" THREE "} x", "22032", "is not JSON: expected the end at byte 95");
	REJECT("{" THREE, "22032", "is not JSON");
	REJECT("[]", "22023", "not an object");
	REJECT("7", "22023", "not an object");
	REJECT("{'EventType':1}", "22032", "a string in double quotes");
	REJECT("{\"a\":NaN}", "22032", "a value");
	REJECT("{\"a\":01}", "22032", "a comma or a closing brace");
	REJECT("{\"a\":1.}", "22032", "a digit");
	REJECT("{\"a\":1e}", "22032", "a digit");
	REJECT("{\"a\":-}", "22032", "a value");
	REJECT("{\"a\":1,}", "22032", "a string in double quotes");
	REJECT("{\"a\" 1}", "22032", "a colon");
	REJECT("{\"a\":\"\n\"}", "22032", "an escaped control character");
	REJECT("{\"a\":\"\\x\"}", "22032", "an escape sequence");
	REJECT("{\"a\":\"\\u12\"}", "22032", "four hexadecimal digits");
	REJECT("{\"a\":\"\xc0\x80\"}", "22032", "valid UTF-8");
	REJECT("{\"a\":\"\xed\xa0\x80\"}", "22032", "valid UTF-8");
	REJECT("{\"a\":\"\xf4\x90\x80\x80\"}", "22032", "valid UTF-8");
	REJECT("{\"a\":\"\xff\"}", "22032", "valid UTF-8");
	REJECT("{\"a\":\"\0\"}", "22032", "an escaped control character");
	REJECT("{\"a\":[1,2}", "22032", "a comma or a closing bracket");
	REJECT("\xef\xbb\xbf{}", "22032", "a byte order mark");
	REJECT("{}", "22023", "\"EventType\" is missing");
	REJECT("{\"EventType\":\"\",\"EventDescription\":\"\",\"OccuredOn\":\"2026-11-22\"}", "22023", "\"EventType\" is empty");
	REJECT("{\"EventType\":1,\"EventDescription\":\"\",\"OccuredOn\":\"2026-11-22\"}", "22023", "\"EventType\" is not a string");
	REJECT("{\"EventType\":\"a\",\"OccuredOn\":\"2026-11-22\"}", "22023", "\"EventDescription\" is missing");
	REJECT("{\"EventType\":\"a\",\"EventDescription\":1,\"OccuredOn\":\"2026-11-22\"}", "22023", "is not a string");
	REJECT("{\"EventType\":null,\"EventDescription\":\"\",\"OccuredOn\":\"2026-11-22\"}", "22023", "is not a string");
	REJECT("{\"EventType\":\"a\",\"EventDescription\":\"b\"}", "22023", "\"OccuredOn\" is missing");
	REJECT("{\"EventType\":\"a\",\"EventDescription\":\"b\",\"OccuredOn\":\"today\"}", "22007", "\"OccuredOn\" is not an ISO 8601");
	REJECT("{\"EventType\":\"a\",\"EventDescription\":\"b\",\"OccuredOn\":5}", "22007", "\"OccuredOn\" is not an ISO 8601");
	REJECT("{\"EventType\":\"a\\u0000\",\"EventDescription\":\"b\",\"OccuredOn\":\"2026-11-22\"}", "22P05", "cannot store");
	REJECT("{" THREE ",\"Data\":{\"a\":\"\\u0000\"}}", "22P05", "\"Data\" holds");
	REJECT("{" THREE ",\"Data\":\"\\ud800\"}", "22P05", "\"Data\" holds");
	REJECT("{" THREE ",\"Key\":\"\\udc00\"}", "22P05", "\"Key\" holds");
	is_int(decode("{" THREE ",\"Other\":\"\\u0000\"}"), MESSAGE_EVENT, "what is not kept may hold \\u0000");
}

static void
test_depth(void)
{
	char	   *text = malloc(8192);
	size_t		head;

	for (int depth = 510; depth <= 514; depth++)
	{
		head = (size_t) sprintf(text, "{" THREE ",\"Data\":");
		memset(text + head, '[', (size_t) depth);
		memset(text + head + depth, ']', (size_t) depth);
		text[head + 2 * (size_t) depth] = '}';
		is_int(decode_bytes(text, head + 2 * (size_t) depth + 1, NULL, 0),
			   depth <= JSON_MAX_DEPTH ? MESSAGE_EVENT : MESSAGE_REJECT, "nesting has a limit");
	}
	ok(strstr(message.reason, "more than 512 levels") != NULL, "and says so");
	free(text);
}

/* None of them vanishes: the last one is the event's id here. */
static void
test_many_headers(void)
{
	MessageHeader headers[MESSAGE_MAX_HEADERS + 1];
	static const char plain[] = "{" THREE "}";
	MessageHeader id = {"id", "01998a5e-0000-7000-8000-00000000000a", 36};

	for (int i = 0; i < MESSAGE_MAX_HEADERS; i++)
		headers[i] = (MessageHeader)
	{
		"x", "y", 1
	};
	headers[MESSAGE_MAX_HEADERS - 1] = id;
	is_int(decode_bytes(plain, sizeof(plain) - 1, headers, MESSAGE_MAX_HEADERS), MESSAGE_EVENT,
		   "as many headers as are read");
	ok(message.has_id, "and the last one counts");
	headers[MESSAGE_MAX_HEADERS] = id;
	is_int(decode_bytes(plain, sizeof(plain) - 1, headers, MESSAGE_MAX_HEADERS + 1), MESSAGE_REJECT,
		   "one more is refused");
	is_text(message.sqlstate, "22023", "its SQLSTATE");
	ok(strstr(message.reason, "more than 256 headers") != NULL, "its reason: %s", message.reason);
}

#define HEADER(name, value) {name, value, sizeof(value) - 1}

static void
test_cloudevents(void)
{
	static const MessageHeader structured[] = {HEADER("content-type", "application/cloudevents+json; charset=utf-8")};
	static const MessageHeader binary[] = {
		HEADER("ce_specversion", "1.0"), HEADER("ce_id", "01998a5e-0000-7000-8000-000000000009"),
		HEADER("ce_source", "urn:shop"), HEADER("ce_type", "CarAdded"),
		HEADER("ce_time", "2026-11-22T20:27:03Z"), HEADER("ce_subject", "7"),
		HEADER("content-type", "application/json"), HEADER("id", "01998a5e-0000-7000-8000-000000000009"),
		HEADER("tr\"ace", "a\\b\x01"), HEADER("bin", "\xff\x00")
	};
	static const MessageHeader foreign[] = {HEADER("ce_type", "X"), HEADER("ce_id", "42"), HEADER("ce_source", "urn:a")};
	static const MessageHeader empty[] = {HEADER("ce_type", "X"), HEADER("ce_id", "")};
	static const MessageHeader no_text[] = {HEADER("ce_type", "\xff"), HEADER("ce_id", "42")};
	static const char event[] = "{\"specversion\":\"1.0\",\"type\":\"CarAdded\",\"id\":\"01998a5e-0000-7000-8000-000000000008\",\"source\":\"urn:shop\",\"time\":\"2026-11-22T20:27:03Z\",\"subject\":\"7\",\"data\":{\"Number\":7}}";
	static const char bare[] = "{\"Number\": 7}";

	is_int(decode_bytes(event, sizeof(event) - 1, structured, 1), MESSAGE_EVENT, "structured mode");
	is_text(text_of(&message.event_type), "CarAdded", "its type");
	is_text(text_of(&message.description), "CarAdded 7", "its description");
	is_text(text_of(&message.event_key), "7", "its key");
	is_text(text_of(&message.data), "{\"Number\":7}", "its data");
	is_text(uuid_text(message.id), "01998a5e-0000-7000-8000-000000000008", "its id");
	is_int(decode(event), MESSAGE_EVENT, "structured mode is known by its members, too");
	is_int(decode("{\"specversion\":\"1.0\",\"type\":\"A\",\"id\":\"42\",\"source\":\"s\"}"), MESSAGE_EVENT, "the least of it");
	ok(!message.has_id && !message.has_time, "no UUID, no time");
	is_text(text_of(&message.ce_id), "42", "but an id");
	is_text(text_of(&message.description), "A", "and a description");
	is_int(decode("{\"specversion\":\"1.0\",\"type\":\"A\",\"id\":\"42\"}"), MESSAGE_REJECT, "source is required");
	is_int(decode("{\"specversion\":\"1.0\",\"type\":\"A\",\"id\":\"42\",\"source\":\"s\",\"data_base64\":\"AA==\"}"), MESSAGE_REJECT, "binary data is refused");

	is_int(decode_bytes(bare, sizeof(bare) - 1, binary, 10), MESSAGE_EVENT, "binary mode");
	is_text(text_of(&message.event_type), "CarAdded", "its type");
	is_text(text_of(&message.data), bare, "its data");
	is_text(uuid_text(message.id), "01998a5e-0000-7000-8000-000000000009", "its id");
	is_text(text_of(&message.headers),
			"{\"ce_specversion\":\"1.0\",\"ce_id\":\"01998a5e-0000-7000-8000-000000000009\",\"ce_source\":\"urn:shop\",\"ce_type\":\"CarAdded\",\"ce_time\":\"2026-11-22T20:27:03Z\",\"ce_subject\":\"7\",\"content-type\":\"application/json\",\"tr\\\"ace\":\"a\\\\b\\u0001\",\"bin\":\"\\\\xff00\"}",
			"headers as JSON, without the id that repeats");
	is_int(decode_bytes(NULL, 0, binary, 10), MESSAGE_EVENT, "a tombstone with attributes is an event");
	ok(message.data.data == NULL, "without data");
	is_int(decode_bytes("x", 1, binary, 10), MESSAGE_REJECT, "data that is not JSON is refused");
	is_int(decode_bytes("{}", 2, foreign, 3), MESSAGE_EVENT, "a foreign id");
	is_text(text_of(&message.ce_id), "42", "stands");
	is_text(text_of(&message.ce_source), "urn:a", "with its source");
	is_int(decode_bytes("{}", 2, empty, 2), MESSAGE_EVENT, "an empty ce_id");
	ok(!message.has_id && message.ce_id.data == NULL, "is none: all such events would be one");
	is_int(decode_bytes("{}", 2, no_text, 2), MESSAGE_REJECT, "an attribute that is no text is refused");
}

/* What is written for a message never needs more room than was made for it. */
static void
test_room(void)
{
	static char controls[2000];
	const char *const values[] = {NULL, "1", "{" THREE "}"};
	MessageHeader headers[3] = {
		{"ce_type", controls, sizeof(controls)}, {"ce_subject", controls, sizeof(controls)},
		{"ce_description", controls, 0}
	};

	memset(controls, 1, sizeof(controls));
	for (int i = 0; i < 3; i++)
	{
		for (int n = 1; n <= 3; n++)
		{
			/*
			 * another decoder each time: the buffer of one that is used is
			 * large
			 */
			message_decoder_free(decoder);
			decoder = message_decoder_new();
			is_int(decode_bytes(values[i], values[i] != NULL ? strlen(values[i]) : 0, headers, n),
				   MESSAGE_EVENT, "an event of control characters");
			is_int((int64_t) message.event_type.len, sizeof(controls), "its type");
		}
	}
}

static void
test_ids(void)
{
	static const MessageHeader id[] = {HEADER("id", "01998a5e-0000-7000-8000-00000000000a")};
	static const MessageHeader both[] = {HEADER("ce_id", "01998a5e-0000-7000-8000-00000000000b"), HEADER("id", "01998a5e-0000-7000-8000-00000000000a")};
	static const char event[] = "{" THREE ",\"EventId\":\"01998a5e-0000-7000-8000-00000000000c\"}";
	static const char plain[] = "{" THREE "}";
	MessagePlace place = {"cluster", "topic", 1, 42, 1795379223512, NULL};
	unsigned char first[16];
	unsigned char second[16];

	decode_bytes(event, sizeof(event) - 1, both, 2);
	event_id_choose(&message, &input, &place, first);
	is_text(uuid_text(first), "01998a5e-0000-7000-8000-00000000000b", "ce_id comes first");
	decode_bytes(event, sizeof(event) - 1, id, 1);
	event_id_choose(&message, &input, &place, first);
	is_text(uuid_text(first), "01998a5e-0000-7000-8000-00000000000a", "then the header id");
	decode(event);
	event_id_choose(&message, &input, &place, first);
	is_text(uuid_text(first), "01998a5e-0000-7000-8000-00000000000c", "then EventId");

	decode("{\"specversion\":\"1.0\",\"type\":\"A\",\"id\":\"42\",\"source\":\"s\"}");
	event_id_choose(&message, &input, &place, first);
	is_text(uuid_text(first), "0ca01029-c7ee-520a-881b-c44f13eaa64f", "then source and id");
	place.offset++;
	event_id_choose(&message, &input, &place, second);
	ok(memcmp(first, second, 16) == 0, "wherever it stands");

	decode(plain);
	event_id_choose(&message, &input, &place, first);
	is_text(uuid_text(first), "481661bc-df1a-58e9-b27d-f68a5f2e39f1", "then place and content");
	ok((first[6] & 0xf0) == 0x50 && (first[8] & 0xc0) == 0x80, "a UUID of version 5");
	place.offset++;
	event_id_choose(&message, &input, &place, second);
	ok(memcmp(first, second, 16) != 0, "another offset, another id");
	place.offset--;
	input.key = "k";
	input.key_len = 1;
	event_id_choose(&message, &input, &place, second);
	ok(memcmp(first, second, 16) != 0, "another key, another id");
	place.known_id = first;
	place.cluster_id = "";
	event_id_choose(&message, &input, &place, second);
	ok(memcmp(first, second, 16) == 0, "the id that it had when it was read stays");
	decode(event);
	event_id_choose(&message, &input, &place, second);
	is_text(uuid_text(second), "01998a5e-0000-7000-8000-00000000000c", "unless it names one");
}

/* Strings that hold escapes beside letters of every length. */
static void
test_escapes(void)
{
	static const struct
	{
		const char *json;
		const char *text;
	}			cases[] = {
		{"Анна \\\"A\\\"", "Анна \"A\""},
		{"\\\\ \\/ \\b\\f\\n\\r\\t", "\\ / \b\f\n\r\t"},
		{"\\u0041\\u00e9\\u20AC\\ud83d\\ude97", "Aé€🚗"},
		{"é\\u00e9é", "ééé"},
		{"\\uD800\\uDC00\\uDBFF\\uDFFF", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
		{"\\u007f\\u0080\\u07ff\\u0800\\uffff", "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf"}
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char		json[256];

		snprintf(json, sizeof(json), "{\"EventType\":\"%s\",\"EventDescription\":\"%s\",\"OccuredOn\":\"2026-11-23T10:00:00Z\",\"Key\":\"%s\",\"Data\":{}}",
				 cases[i].json, cases[i].json, cases[i].json);
		is_int(decode(json), MESSAGE_EVENT, "escapes are read");
		is_text(text_of(&message.event_type), cases[i].text, "in EventType");
		is_text(text_of(&message.description), cases[i].text, "in EventDescription");
		is_text(text_of(&message.event_key), cases[i].text, "in Key");
	}
}

/* Every cut and every changed byte of a message: no crash, no byte too far. */
static void
test_robust(void)
{
	static const char event[] = "{" THREE ",\"EventId\":\"01998a5e-0000-7000-8000-00000000000c\",\"Key\":\"\\u00e9\xc3\xa9\",\"Data\":{\"a\":[1.5e-3,true,null,{\"b\":\"\\ud83d\\ude97\"}]}}";
	char		changed[sizeof(event)];
	int			events = 0;

	for (size_t len = 0; len < sizeof(event) - 1; len++)
		events += decode_bytes(event, len, NULL, 0) == MESSAGE_EVENT;
	is_int(events, 0, "no cut message is an event");
	for (size_t at = 0; at < sizeof(event) - 1; at++)
	{
		for (int byte = 0; byte < 256; byte++)
		{
			memcpy(changed, event, sizeof(event));
			changed[at] = (char) byte;
			events += decode_bytes(changed, sizeof(event) - 1, NULL, 0) == MESSAGE_EVENT;
		}
	}
	ok(events > 1000, "%d changed ones are", events);
}

int
main(void)
{
	decoder = message_decoder_new();
	test_times();
	test_envelope();
	test_rejects();
	test_depth();
	test_many_headers();
	test_cloudevents();
	test_room();
	test_ids();
	test_escapes();
	test_robust();
	free(copy);
	message_decoder_free(decoder);
	return done_testing();
}
