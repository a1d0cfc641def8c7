/*-------------------------------------------------------------------------
 *
 * test_properties.c
 *	  Parsing the operator's properties; no message repeats a value.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kafka/internal.h"
#include "tap.h"

#define SECRET "hunter2-Zx"

static char directory[] = "/tmp/test_properties.XXXXXX";

static bool
parse(KafkaProperties *props, const char *text, KafkaError *error)
{
	error->message[0] = '\0';
	return kafka_properties_parse(props, text, strlen(text), error);
}

/* The text is refused, with this message, and the secret is not in it. */
static void
refuses(const char *text, size_t len, const char *message)
{
	KafkaProperties *props = kafka_properties_new();
	KafkaError	error = {0};

	ok(!kafka_properties_parse(props, text, len, &error), "refused: %s",
	   message);
	is_text(error.message, message, "its message");
	ok(strstr(error.message, SECRET) == NULL, "the value is not repeated");
	kafka_properties_free(props);
}

static void
test_parse(void)
{
	KafkaProperties *props = kafka_properties_new();
	KafkaError	error;

	ok(parse(props, "", &error), "nothing");
	ok(parse(props, "# comment\n\n  \t\n   # another\n", &error), "comments");
	ok(parse(props, "client.id=a", &error), "no newline at the end");
	is_text(kafka_properties_get(props, "client.id"), "a", "value");
	ok(parse(props, "  client.id \t=  b c=d # e \r\nlinger.ms=5\r\n", &error),
	   "white space around key and value");
	is_text(kafka_properties_get(props, "client.id"), "b c=d # e",
			"only the first = splits, # inside a value is part of it");
	is_text(kafka_properties_get(props, "linger.ms"), "5",
			"a carriage return is white space");
	ok(parse(props, "client.id=later\nclient.id=latest\n", &error), "again");
	is_text(kafka_properties_get(props, "client.id"), "latest",
			"later values win");
	ok(kafka_properties_has(props, "linger.ms"), "has");
	ok(!kafka_properties_has(props, "batch.size"), "has not");
	ok(!kafka_properties_has(props, "no.such"), "has not what cannot be");
	ok(parse(props, "sasl.password=\n", &error), "an empty value");
	kafka_properties_free(props);
	kafka_properties_free(NULL);
}

static void
test_refusals(void)
{
	static const char zero[] = "client.id=a\nclient.id=" SECRET "\0b\n";
	static const char *const forbidden[] = {
		"plugin.library.paths", "sasl.kerberos.kinit.cmd",
		"ssl.engine.location", "ssl.providers", "internal.termination.signal",
		"enable.sasl.oauthbearer.unsecure.jwt", "test.mock.num.brokers",
		"transactional.id", "enable.idempotence", "acks",
		"request.required.acks", "isolation.level", "auto.offset.reset",
		"enable.auto.commit", "group.id", "log.queue",
		"log.connection.close", "socket.nagle.disable", "socket.max.fails",
		"delivery.report.only.error", "transaction.timeout.ms",
		"enable.partition.eof", "allow.auto.create.topics", "check.crcs",
		"queue.buffering.max.messages", "queue.buffering.max.kbytes",
		"partitioner", "opaque", "statistics.interval.ms", "log_level",
		NULL
	};
	int			i;

	refuses("client.id=a\n\n  " SECRET "\n", 16 + strlen(SECRET),
			"line 3: expected key=value");
	refuses("no.such.key=" SECRET, 12 + strlen(SECRET),
			"line 1: property \"no.such.key\" is unknown or not allowed");
	refuses(SECRET "=x", strlen(SECRET) + 2,
			"line 1: not the name of a property");
	refuses("=" SECRET, 1 + strlen(SECRET),
			"line 1: not the name of a property");
	refuses("security.protocol=" SECRET, 18 + strlen(SECRET),
			"line 1: value of property \"security.protocol\" is not accepted by this build of librdkafka");
	refuses("linger.ms=" SECRET, 10 + strlen(SECRET),
			"line 1: value of property \"linger.ms\" is not accepted by this build of librdkafka");
	refuses(zero, sizeof(zero) - 1, "line 2: contains a zero byte");

	for (i = 0; forbidden[i] != NULL; i++)
	{
		KafkaProperties *props = kafka_properties_new();
		KafkaError	error = {0};

		ok(!kafka_properties_set(props, forbidden[i], "1", &error),
		   "%s is not for the operator", forbidden[i]);
		ok(strstr(error.message, forbidden[i]) != NULL ||
		   strchr(forbidden[i], '.') == NULL, "the message names it");
		kafka_properties_free(props);
	}
}

static void
write_file(const char *path, const char *text, mode_t mode)
{
	FILE	   *file;

	/* a former file of mode 0400 cannot be written to, but replaced */
	unlink(path);
	file = fopen(path, "w");
	if (file == NULL)
	{
		ok(false, "could not write %s", path);
		return;
	}
	fputs(text, file);
	fclose(file);
	if (chmod(path, mode) != 0)
		ok(false, "could not change the mode of %s", path);
}

static bool
read_file(const char *path, KafkaError *error)
{
	KafkaProperties *props = kafka_properties_new();
	bool		read;

	error->message[0] = '\0';
	read = kafka_properties_read_file(props, path, error);
	if (read)
		is_text(kafka_properties_get(props, "sasl.password"), SECRET,
				"the file's value");
	kafka_properties_free(props);
	return read;
}

static void
test_file(void)
{
	static const char good[] = "# who we are\nsasl.password=" SECRET "\n";
	char		path[128];
	char		other[128];
	KafkaError	error;

	snprintf(path, sizeof(path), "%s/kafka.properties", directory);
	snprintf(other, sizeof(other), "%s/other", directory);

	write_file(path, good, 0600);
	ok(read_file(path, &error), "a private file is read");
	write_file(path, good, 0400);
	ok(read_file(path, &error), "and one that nobody may write");

	write_file(path, good, 0644);
	ok(!read_file(path, &error), "a file that others may read is refused");
	ok(strstr(error.message, "group or world access") != NULL, "and said why");
	write_file(path, good, 0640);
	ok(!read_file(path, &error), "so is one of ours that the group may read");

	write_file(path, "linger.ms=" SECRET "\n", 0600);
	ok(!read_file(path, &error), "a bad line is refused");
	ok(strncmp(error.message, "line 1: ", 8) == 0, "with its line");
	ok(strstr(error.message, SECRET) == NULL, "without its value");

	write_file(path, good, 0600);
	ok(symlink(path, other) == 0, "a symbolic link");
	ok(!read_file(other, &error), "is not followed");
	ok(strstr(error.message, "symbolic link") != NULL, "and said so");
	unlink(other);
	ok(mkfifo(other, 0600) == 0, "a FIFO");
	ok(!read_file(other, &error), "is refused without waiting for a writer");
	ok(strstr(error.message, "not a regular file") != NULL, "and said so");
	unlink(other);
	ok(!read_file(directory, &error), "a directory is refused");
	ok(!read_file(other, &error), "a missing file is refused");
	ok(strstr(error.message, strerror(ENOENT)) != NULL, "and said so");
	unlink(path);
}

/* What is allowed reaches the kind of handle it is meant for. */
static void
test_apply(void)
{
	KafkaProperties *props = kafka_properties_new();
	KafkaError	error = {0};
	rd_kafka_conf_t *conf;
	char		value[64];
	size_t		size = sizeof(value);

	ok(parse(props, "client.id=me\nlinger.ms=7\nclient.rack=r1\ndebug=eos\n",
			 &error), "properties for both kinds");
	conf = kafka_conf_new(props, RD_KAFKA_PRODUCER, &error);
	ok(conf != NULL, "a producer's configuration");
	ok(rd_kafka_conf_get(conf, "linger.ms", value, &size) == RD_KAFKA_CONF_OK,
	   "has linger.ms");
	is_int(strtol(value, NULL, 10), 7, "as set");
	size = sizeof(value);
	rd_kafka_conf_get(conf, "debug", value, &size);
	ok(strstr(value, "broker") != NULL && strstr(value, "eos") != NULL,
	   "debug is the operator's and ours");
	size = sizeof(value);
	rd_kafka_conf_get(conf, "log.connection.close", value, &size);
	is_text(value, "true", "connection failures are always told");
	rd_kafka_conf_destroy(conf);

	conf = kafka_conf_new(props, RD_KAFKA_CONSUMER, &error);
	size = sizeof(value);
	rd_kafka_conf_get(conf, "client.rack", value, &size);
	is_text(value, "r1", "a reader's rack");
	size = sizeof(value);
	rd_kafka_conf_get(conf, "client.id", value, &size);
	is_text(value, "me", "a reader's client.id");
	rd_kafka_conf_destroy(conf);
	kafka_properties_free(props);
}

/* The milliseconds after which a broker that hangs is given up. */
static int
answer_ms(const char *properties, int transaction_ms)
{
	KafkaProducerOptions options = {
		.transactional_id = "t",
		.transaction_timeout_ms = transaction_ms,
		.max_message_bytes = 1000000,
		.queue_bytes = 1 << 25,
		.queue_messages = 1000
	};
	KafkaProperties *props = kafka_properties_new();
	KafkaError	error = {0};
	rd_kafka_conf_t *conf;
	char		value[64] = "";
	size_t		size = sizeof(value);

	ok(parse(props, properties, &error), "properties: %s", properties);
	conf = kafka_producer_conf(props, &options, &error);
	ok(conf != NULL, "a producer's configuration");
	rd_kafka_conf_get(conf, "socket.timeout.ms", value, &size);
	rd_kafka_conf_destroy(conf);
	kafka_properties_free(props);
	return atoi(value);
}

static void
test_answer_time(void)
{
	is_int(answer_ms("", 30000), 10000, "well before the transaction is lost");
	is_int(answer_ms("", 4000), 4000, "never later than that");
	is_int(answer_ms("socket.timeout.ms=20000", 30000), 20000, "the operator's wins");
	is_int(answer_ms("socket.timeout.ms=60000", 30000), 30000, "as far as the library takes it");
}

/* What is allowed but not known to this library, or not built into it. */
static void
test_versions(void)
{
	static const char *const newer[] = {
		"https.ca.location", "https.ca.pem", "sasl.oauthbearer.assertion.file",
		"sasl.oauthbearer.assertion.private.key.pem", NULL
	};
	static const char *const oidc[] = {
		"sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret",
		"sasl.oauthbearer.scope", "sasl.oauthbearer.token.endpoint.url", NULL
	};
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		features[512];
	char		expected[256];
	size_t		size = sizeof(features);
	bool		has_oidc;
	int			i;

	rd_kafka_conf_get(conf, "builtin.features", features, &size);
	rd_kafka_conf_destroy(conf);
	has_oidc = strstr(features, "oidc") != NULL;
	for (i = 0; newer[i] != NULL; i++)
	{
		KafkaProperties *props = kafka_properties_new();
		KafkaError	error = {0};
		bool		known = rd_kafka_version() >= 0x020b00ff;

		ok(kafka_properties_set(props, newer[i], SECRET, &error) == known, "%s: as old as this library?", newer[i]);
		snprintf(expected, sizeof(expected), "librdkafka %s does not know property \"%s\", which came with version 2.11.0",
				 rd_kafka_version_str(), newer[i]);
		if (!known)
			is_text(error.message, expected, "says the version");
		is_int(error.code, known ? 0 : KAFKA_CODE_UNSUPPORTED, "and has a remedy");
		kafka_properties_free(props);
	}
	for (i = 0; oidc[i] != NULL; i++)
	{
		KafkaProperties *props = kafka_properties_new();
		KafkaError	error = {0};

		ok(kafka_properties_set(props, oidc[i], SECRET, &error) == has_oidc, "%s: built in?", oidc[i]);
		snprintf(expected, sizeof(expected), "librdkafka %s was built here without what property \"%s\" needs",
				 rd_kafka_version_str(), oidc[i]);
		if (!has_oidc)
			is_text(error.message, expected, "says that it is not");
		kafka_properties_free(props);
	}
}

/* Properties that only together make sense. */
static void
test_together(void)
{
	static const struct
	{
		const char *text;
		const char *message;	/* NULL: they fit */
	}			sets[] = {
		{"", NULL},
		{"sasl.mechanism=PLAIN\n", NULL},
		{"sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.file=/t\nsasl.oauthbearer.extensions=a=b\n", NULL},
		{"sasl.mechanisms=OAUTHBEARER\nsasl.oauthbearer.token.file=/t\n", NULL},
		{"sasl.mechanism=OAUTHBEARER\n", "property \"sasl.mechanism\" = OAUTHBEARER needs \"sasl.oauthbearer.token.file\" or \"sasl.oauthbearer.method\" = oidc"},
		{"sasl.oauthbearer.token.file=/t\n", "property \"sasl.oauthbearer.token.file\" needs \"sasl.mechanism\" = OAUTHBEARER"},
		{NULL, NULL}
	};

	for (int i = 0; sets[i].text != NULL; i++)
	{
		KafkaProperties *props = kafka_properties_new();
		KafkaError	error = {0};
		rd_kafka_conf_t *conf;

		ok(parse(props, sets[i].text, &error), "parsed: %s", error.message);
		ok(kafka_properties_check(props, &error) == (sets[i].message == NULL), "fits or not");
		is_text(error.message, sets[i].message != NULL ? sets[i].message : "", "and says so");
		/* what is ours is not handed on: a library without OIDC takes it */
		conf = kafka_conf_new(props, RD_KAFKA_CONSUMER, &error);
		ok(conf != NULL, "a configuration is made of it: %s", error.message);
		if (conf != NULL)
			rd_kafka_conf_destroy(conf);
		kafka_properties_free(props);
	}
}

/* A certificate in a line: \n between its lines, in such properties only. */
static void
test_pem(void)
{
	KafkaProperties *props = kafka_properties_new();
	KafkaError	error = {0};

	ok(parse(props, "ssl.ca.pem=-----BEGIN\\nab\\n-----END\\n\nsasl.password=a\\nb\n", &error), "parsed");
	is_text(kafka_properties_get(props, "ssl.ca.pem"), "-----BEGIN\nab\n-----END\n", "lines");
	is_text(kafka_properties_get(props, "sasl.password"), "a\\nb", "a password is taken as it is");
	kafka_properties_free(props);
}

int
main(void)
{
	test_versions();
	test_together();
	test_pem();
	test_parse();
	test_refusals();
	test_apply();
	test_answer_time();
	if (mkdtemp(directory) == NULL)
		ok(false, "could not make a directory");
	else
	{
		test_file();
		rmdir(directory);
	}
	return done_testing();
}
