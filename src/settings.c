/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Every setting of the extension.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * "File" settings are PGC_SIGHUP.  "File, ALTER DATABASE" settings are
 * PGC_SUSET: the file acts on reload, ALTER DATABASE when a worker connects
 * again.  Hardly anything is decided here: a value is checked where its meaning
 * is known, so that a bad one stops one worker with a clear text and not the
 * whole server's reload.
 *
 *-------------------------------------------------------------------------
 */
#include "mutants.h"
#include "settings.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

char	   *setting_shop_databases = NULL;
char	   *setting_report_databases = NULL;
int			setting_max_databases = 64;
char	   *setting_brokers = NULL;
char	   *setting_kafka_config_file = NULL;
char	   *setting_topic = NULL;
bool		setting_create_topics = true;
int			setting_topic_partitions = 1;
int			setting_topic_replication_factor = -1;
char	   *setting_progress_topic = NULL;
char	   *setting_allowed_topics = NULL;
int			setting_delivery = DELIVERY_EXACTLY_ONCE;
int			setting_broker_verification = BROKER_VERIFICATION_REQUIRE;
int			setting_compression = 3;
int			setting_max_message_bytes = 1000000;
int			setting_max_transaction_events = 50000;
int			setting_max_transaction_bytes = 32 * 1024;
int			setting_transaction_timeout = 30000;
int			setting_linger = 0;
int			setting_retention = 86400;
int			setting_poll_interval = 1000;
int			setting_publish_after_standby = 0;
char	   *setting_report_topics = NULL;
char	   *setting_group_id = NULL;
int			setting_report_batch_events = 20000;
int			setting_report_max_failures = 1000;
int			setting_report_retention = 0;
int			setting_worker_memory = 64 * 1024;
char	   *setting_event_source = NULL;
bool		setting_capture = true;
char	   *setting_traceparent = NULL;
char	   *setting_event_headers = NULL;
#ifdef MUTANTS
char	   *setting_mutant = NULL;
#endif

static const struct config_enum_entry delivery_options[] = {
	{"exactly_once", DELIVERY_EXACTLY_ONCE, false},
	{"at_least_once", DELIVERY_AT_LEAST_ONCE, false},
	{NULL, 0, false}
};

static const struct config_enum_entry verification_options[] = {
	{"require", BROKER_VERIFICATION_REQUIRE, false},
	{"warn", BROKER_VERIFICATION_WARN, false},
	{NULL, 0, false}
};

static const struct config_enum_entry compression_options[] = {
	{"none", 0, false},
	{"gzip", 1, false},
	{"snappy", 2, false},
	{"lz4", 3, false},
	{"zstd", 4, false},
	{NULL, 0, false}
};

/* n lower-case hexadecimal digits, not all of them zero unless zero is allowed. */
static bool
hex_field(const char *text, int n, bool zero)
{
	bool		all_zero = true;

	for (int i = 0; i < n; i++)
	{
		if (!(text[i] >= '0' && text[i] <= '9') && !(text[i] >= 'a' && text[i] <= 'f'))
			return false;
		all_zero = all_zero && text[i] == '0';
	}
	return zero || !all_zero;
}

/*
 * Later versions may go on behind the fields of version 00.  What follows is
 * left open by the standard, but it is an HTTP header's: visible ASCII, which is
 * the same in every encoding.
 */
bool
settings_is_traceparent(const char *text, size_t len)
{
	if (len > TRACEPARENT_MAX_BYTES)
		return false;
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	return len >= 55 &&
		hex_field(text, 2, true) && strncmp(text, "ff", 2) != 0 && text[2] == '-' &&
		hex_field(text + 3, 32, false) && text[35] == '-' &&
		hex_field(text + 36, 16, false) && text[52] == '-' &&
		hex_field(text + 53, 2, true) &&
		(len == 55 || (strncmp(text, "00", 2) != 0 && text[55] == '-'));
}

static bool
check_traceparent(char **value, void **extra, GucSource source)
{
	if ((*value)[0] == '\0' || settings_is_traceparent(*value, strlen(*value)))
		return true;
	GUC_check_errdetail("It is not a traceparent of W3C Trace Context.");
	GUC_check_errhint(TRACEPARENT_HINT);
	return false;
}

static void
define_string(const char *name, const char *text, char **variable,
			  const char *value, GucContext context, int flags)
{
	DefineCustomStringVariable(name, text, NULL, variable, value, context,
							   flags, NULL, NULL, NULL);
}

static void
define_int(const char *name, const char *text, int *variable, int value,
		   int low, int high, int unit)
{
	DefineCustomIntVariable(name, text, NULL, variable, value, low, high,
							PGC_SUSET, unit, NULL, NULL, NULL);
}

void
settings_define(void)
{
	/* who works where */
	define_string("carshop_outbox.shop_databases",
				  "Databases whose events are published (comma list).",
				  &setting_shop_databases, "", PGC_SIGHUP, GUC_LIST_INPUT);
	define_string("carshop_outbox.report_databases",
				  "Databases that read topics into report tables (comma list).",
				  &setting_report_databases, "", PGC_SIGHUP, GUC_LIST_INPUT);

	/*
	 * Sizes shared memory.  A library that was not preloaded has none and may
	 * not define PGC_POSTMASTER settings; the file's value means nothing
	 * then.
	 */
	DefineCustomIntVariable("carshop_outbox.max_databases",
							"Most databases that use the extension at the same time.",
							NULL, &setting_max_databases, 64, 1, 10000,
							process_shared_preload_libraries_in_progress ?
							PGC_POSTMASTER : PGC_SIGHUP, 0, NULL, NULL, NULL);

	/* the connection */
	define_string("carshop_outbox.brokers",
				  "Kafka's bootstrap servers (host:port, comma list).",
				  &setting_brokers, "localhost:9092", PGC_SUSET, 0);
	define_string("carshop_outbox.kafka_config_file",
				  "File with librdkafka properties (TLS, SASL).",
				  &setting_kafka_config_file, "", PGC_SUSET,
				  GUC_SUPERUSER_ONLY);

	/* topics */
	define_string("carshop_outbox.topic",
				  "Topic of routes that name none.",
				  &setting_topic, "car-shop-reported-events", PGC_SUSET, 0);
	DefineCustomBoolVariable("carshop_outbox.create_topics",
							 "The relay creates missing topics.", NULL,
							 &setting_create_topics, true, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	define_int("carshop_outbox.topic_partitions",
			   "Partitions of topics that the relay creates.",
			   &setting_topic_partitions, 1, 1, 10000, 0);
	define_int("carshop_outbox.topic_replication_factor",
			   "Replication factor of topics that the relay creates (-1: the broker's default).",
			   &setting_topic_replication_factor, -1, -1, SHRT_MAX, 0);
	define_string("carshop_outbox.progress_topic",
				  "The relay's own topic and transactional.id ({lineage}, {database} are replaced).",
				  &setting_progress_topic, "carshop-outbox-progress-{lineage}",
				  PGC_SUSET, 0);
	define_string("carshop_outbox.allowed_topics",
				  "Patterns of further topics that emit and INSERT may name (comma list, * matches any text).",
				  &setting_allowed_topics, "", PGC_SUSET, 0);

	/* publishing */
	DefineCustomEnumVariable("carshop_outbox.delivery",
							 "Exactly once, or at least once with less latency.",
							 NULL, &setting_delivery, DELIVERY_EXACTLY_ONCE,
							 delivery_options, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("carshop_outbox.broker_verification",
							 "Brokers that do not verify partitions in transactions: publish nothing, or only warn.",
							 "Kafka verifies since 3.6 (KIP-890).  Other brokers with Kafka's protocol may not know the configuration, and need none.",
							 &setting_broker_verification,
							 BROKER_VERIFICATION_REQUIRE, verification_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("carshop_outbox.compression",
							 "Compression of messages.", NULL,
							 &setting_compression, 3, compression_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	define_int("carshop_outbox.max_message_bytes",
			   "Events larger than this are refused when they are written.",
			   &setting_max_message_bytes, 1000000, 1000, 64 * 1024 * 1024,
			   GUC_UNIT_BYTE);
	define_int("carshop_outbox.max_transaction_events",
			   "Most events in one Kafka transaction.",
			   &setting_max_transaction_events, 50000, 1, 1000000, 0);
	define_int("carshop_outbox.max_transaction_bytes",
			   "Most bytes in one Kafka transaction.",
			   &setting_max_transaction_bytes, 32 * 1024, 64, 1024 * 1024,
			   GUC_UNIT_KB);
	define_int("carshop_outbox.transaction_timeout",
			   "Kafka's limit for an open transaction.",
			   &setting_transaction_timeout, 30000, 1000, 900000, GUC_UNIT_MS);
	define_int("carshop_outbox.linger",
			   "Collect events at least this long before publishing.",
			   &setting_linger, 0, 0, 60000, GUC_UNIT_MS);
	define_int("carshop_outbox.retention",
			   "How long confirmed events stay for replay.",
			   &setting_retention, 86400, 0, INT_MAX / 2, GUC_UNIT_S);
	define_int("carshop_outbox.poll_interval",
			   "Fallback timer; wake-ups do the normal work.",
			   &setting_poll_interval, 1000, 10, 3600000, GUC_UNIT_MS);

	define_int("carshop_outbox.publish_after_standby",
			   "Publish what so many standbys have on disk (0: wait for none).",
			   &setting_publish_after_standby, 0, 0, 100, 0);

	/* reading */
	define_string("carshop_outbox.report_topics",
				  "Topics that the reporter reads (comma list).",
				  &setting_report_topics, "car-shop-reported-events",
				  PGC_SUSET, 0);
	define_string("carshop_outbox.group_id",
				  "Consumer group under which the reporter's offsets are shown in Kafka.",
				  &setting_group_id, "", PGC_SUSET, 0);
	define_int("carshop_outbox.report_batch_events",
			   "Most events applied to report tables in one transaction.",
			   &setting_report_batch_events, 20000, 1, 1000000, 0);
	define_int("carshop_outbox.report_max_failures",
			   "So many refused events in a row stop a report (0: none do).",
			   &setting_report_max_failures, 1000, 0, INT_MAX, 0);
	define_int("carshop_outbox.report_retention",
			   "Age at which rows of report.reported_events are removed (0 keeps them).",
			   &setting_report_retention, 0, 0, INT_MAX / 2, GUC_UNIT_S);

	/* both workers */
	define_int("carshop_outbox.worker_memory",
			   "Cap for messages held in memory by each worker.",
			   &setting_worker_memory, 64 * 1024, 8 * 1024, 16 * 1024 * 1024,
			   GUC_UNIT_KB);
	define_string("carshop_outbox.event_source",
				  "CloudEvents source; empty: urn:carshop-outbox:<lineage>:<database>.",
				  &setting_event_source, "", PGC_SUSET, 0);

	/* sessions */
	DefineCustomBoolVariable("carshop_outbox.capture",
							 "Off: changes of this session make no events.",
							 NULL, &setting_capture, true, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomStringVariable("carshop_outbox.traceparent",
							   "W3C trace context put on events of this transaction.",
							   NULL, &setting_traceparent, "", PGC_USERSET, 0,
							   check_traceparent, NULL, NULL);
	define_string("carshop_outbox.event_headers",
				  "JSON object of strings added to events of this transaction.",
				  &setting_event_headers, "", PGC_USERSET, 0);

#ifdef MUTANTS
	define_string("carshop_outbox.mutant", "The promise that is broken on purpose.",
				  &setting_mutant, "", PGC_SUSET, 0);
#endif
	MarkGUCPrefixReserved("carshop_outbox");
}

const char *
settings_compression_name(void)
{
	return compression_options[setting_compression].name;
}

/* A name in double quotes, at its beginning; answers the byte behind it. */
static const char *
take_quoted(const char *at, char *name)
{
	for (at++; *at; at++)
	{
		if (*at == '"' && *++at != '"')
			break;
		*name++ = *at;
	}
	*name = '\0';
	return at;
}

/* Identifiers may be quoted as in other list settings; case counts in any case. */
List *
settings_split(const char *value)
{
	List	   *items = NIL;
	const char *at = value ? value : "";

	for (;;)
	{
		char	   *item;
		int			len;

		while (*at == ',' || isspace((unsigned char) *at))
			at++;
		if (*at == '\0')
			return items;
		item = pstrdup(at);
		if (*at == '"')
			at = take_quoted(at, item);
		else
		{
			len = strcspn(at, ",");
			at += len;
			while (len > 0 && isspace((unsigned char) item[len - 1]))
				len--;
			item[len] = '\0';
		}
		if (item[0] != '\0')
			items = lappend(items, item);
		at += strcspn(at, ",");
	}
}
