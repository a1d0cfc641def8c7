/*-------------------------------------------------------------------------
 *
 * properties.c
 *	  What the operator may say about the connection to Kafka.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * An allow-list, not a deny-list: librdkafka has properties that load a
 * library (plugin.library.paths, ssl.providers, ssl.engine.location) or run a shell command
 * (sasl.kerberos.kinit.cmd), and new ones come
 * with every release.  What correctness needs is set later by the producer and
 * the reader and is not on the list; nor is what makes tokens that nobody has
 * signed (enable.sasl.oauthbearer.unsecure.jwt).
 *
 * Values may be secrets.  Messages therefore name the key and the line only
 * (librdkafka's own error text repeats some values), a line that is not
 * "key=value" is not repeated at all, and memory is wiped before it is freed.
 *
 * Thread: the caller's.  Memory: malloc, owned by KafkaProperties.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

#define FOR_PRODUCER 1
#define FOR_READER 2
#define FOR_BOTH (FOR_PRODUCER | FOR_READER)
#define IS_PATH 4				/* names a file, which is watched */
#define IS_PEM 8				/* lines, written with \n between them */
#define IS_OURS 16				/* not for the library */

typedef struct AllowedProperty
{
	const char *key;
	int			flags;
	const char *since;			/* librdkafka's version; NULL: 2.0 or older */
} AllowedProperty;

static const AllowedProperty allowed_properties[] = {
	{"bootstrap.servers", FOR_BOTH, NULL},
	{"client.id", FOR_BOTH, NULL},
	{"client.rack", FOR_READER, NULL},
	{"client.dns.lookup", FOR_BOTH, "2.2.0"},
	{"broker.address.family", FOR_BOTH, NULL},
	{"broker.address.ttl", FOR_BOTH, NULL},
	{"security.protocol", FOR_BOTH, NULL},
	{"sasl.mechanism", FOR_BOTH, NULL},
	{"sasl.mechanisms", FOR_BOTH, NULL},
	{"sasl.username", FOR_BOTH, NULL},
	{"sasl.password", FOR_BOTH, NULL},
	{"sasl.kerberos.service.name", FOR_BOTH, NULL},
	{"sasl.kerberos.principal", FOR_BOTH, NULL},
	{"sasl.kerberos.keytab", FOR_BOTH | IS_PATH, NULL},
	{"sasl.kerberos.min.time.before.relogin", FOR_BOTH, NULL},
	{KAFKA_TOKEN_FILE, FOR_BOTH | IS_PATH | IS_OURS, NULL},
	{KAFKA_TOKEN_EXTENSIONS, FOR_BOTH, NULL},
	{"sasl.oauthbearer.method", FOR_BOTH, NULL},
	{"sasl.oauthbearer.client.id", FOR_BOTH, NULL},
	{"sasl.oauthbearer.client.secret", FOR_BOTH, NULL},
	{"sasl.oauthbearer.scope", FOR_BOTH, NULL},
	{"sasl.oauthbearer.token.endpoint.url", FOR_BOTH, NULL},
	{"sasl.oauthbearer.client.credentials.client.id", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.client.credentials.client.secret", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.grant.type", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.assertion.algorithm", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.assertion.private.key.file", FOR_BOTH | IS_PATH, "2.11.0"},
	{"sasl.oauthbearer.assertion.private.key.passphrase", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.assertion.private.key.pem", FOR_BOTH | IS_PEM, "2.11.0"},
	{"sasl.oauthbearer.assertion.file", FOR_BOTH | IS_PATH, "2.11.0"},
	{"sasl.oauthbearer.assertion.claim.aud", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.assertion.claim.exp.seconds", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.assertion.claim.iss", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.assertion.claim.jti.include", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.assertion.claim.nbf.seconds", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.assertion.claim.sub", FOR_BOTH, "2.11.0"},
	{"sasl.oauthbearer.assertion.jwt.template.file", FOR_BOTH | IS_PATH, "2.11.0"},
	{"sasl.oauthbearer.metadata.authentication.type", FOR_BOTH, "2.12.0"},
	{"sasl.oauthbearer.sub.claim.name", FOR_BOTH, "2.14.0"},
	{"https.ca.location", FOR_BOTH | IS_PATH, "2.11.0"},
	{"https.ca.pem", FOR_BOTH | IS_PEM, "2.11.0"},
	{"ssl.ca.location", FOR_BOTH | IS_PATH, NULL},
	{"ssl.ca.pem", FOR_BOTH | IS_PEM, NULL},
	{"ssl.crl.location", FOR_BOTH | IS_PATH, NULL},
	{"ssl.certificate.location", FOR_BOTH | IS_PATH, NULL},
	{"ssl.certificate.pem", FOR_BOTH | IS_PEM, NULL},
	{"ssl.key.location", FOR_BOTH | IS_PATH, NULL},
	{"ssl.key.pem", FOR_BOTH | IS_PEM, NULL},
	{"ssl.key.password", FOR_BOTH, NULL},
	{"ssl.keystore.location", FOR_BOTH | IS_PATH, NULL},
	{"ssl.keystore.password", FOR_BOTH, NULL},
	{"ssl.endpoint.identification.algorithm", FOR_BOTH, NULL},
	{"ssl.cipher.suites", FOR_BOTH, NULL},
	{"ssl.curves.list", FOR_BOTH, NULL},
	{"ssl.sigalgs.list", FOR_BOTH, NULL},
	{"enable.ssl.certificate.verification", FOR_BOTH, NULL},
	{"socket.timeout.ms", FOR_BOTH, NULL},
	{"socket.connection.setup.timeout.ms", FOR_BOTH, NULL},
	{"socket.send.buffer.bytes", FOR_BOTH, NULL},
	{"socket.receive.buffer.bytes", FOR_BOTH, NULL},
	{"socket.keepalive.enable", FOR_BOTH, NULL},
	{"reconnect.backoff.ms", FOR_BOTH, NULL},
	{"reconnect.backoff.max.ms", FOR_BOTH, NULL},
	{"compression.codec", FOR_PRODUCER, NULL},
	{"compression.type", FOR_PRODUCER, NULL},
	{"compression.level", FOR_PRODUCER, NULL},
	{"linger.ms", FOR_PRODUCER, NULL},
	{"batch.size", FOR_PRODUCER, NULL},
	{"batch.num.messages", FOR_PRODUCER, NULL},
	{"message.max.bytes", FOR_BOTH, NULL},
	{"debug", FOR_BOTH, NULL},
	{NULL, 0, NULL}
};

typedef struct Property
{
	const AllowedProperty *allowed;
	char	   *value;
} Property;

struct KafkaProperties
{
	Property   *items;
	size_t		n;
};

/* ------------------------------------------------------------------------
 * Making and freeing
 * ------------------------------------------------------------------------
 */
KafkaProperties *
kafka_properties_new(void)
{
	KafkaProperties *props = kafka_malloc(sizeof(KafkaProperties));

	memset(props, 0, sizeof(*props));
	return props;
}

void
kafka_wipe_and_free(char *text, size_t len)
{
	explicit_bzero(text, len);
	free(text);
}

void
kafka_properties_free(KafkaProperties *props)
{
	size_t		i;

	if (props == NULL)
		return;
	for (i = 0; i < props->n; i++)
		kafka_wipe_and_free(props->items[i].value, strlen(props->items[i].value));
	free(props->items);
	free(props);
}

/* ------------------------------------------------------------------------
 * Setting and getting
 * ------------------------------------------------------------------------
 */
static const AllowedProperty *
find_allowed(const char *key)
{
	const AllowedProperty *allowed;

	for (allowed = allowed_properties; allowed->key != NULL; allowed++)
	{
		if (strcmp(allowed->key, key) == 0)
			return allowed;
	}
	return NULL;
}

/*
 * May the text be repeated in a message?  Only if it looks like the name of a
 * property: what stands before "=" on a mistyped line can be a secret.
 */
static bool
looks_like_key(const char *key)
{
	size_t		len = strlen(key);

	return len > 0 && len <= 64 &&
		strchr(key, '.') != NULL &&
		strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789._") == len;
}

/*
 * Let librdkafka judge the value now, while the line is known.  The probe is
 * thrown away (it wipes what it holds of secrets); its error text is not
 * shown, since it repeats the values of some properties.
 */
static bool
judge_value(const AllowedProperty *allowed, const char *value,
			const char *where, KafkaError *error)
{
	const char *version = rd_kafka_version_str();
	rd_kafka_conf_t *probe = rd_kafka_conf_new();
	char		reason[512] = "";
	rd_kafka_conf_res_t answer;
	bool		not_built;

	answer = rd_kafka_conf_set(probe, allowed->key, value, reason,
							   sizeof(reason));
	not_built = strstr(reason, "not supported in this build") != NULL;
	explicit_bzero(reason, sizeof(reason));
	rd_kafka_conf_destroy(probe);

	if (answer == RD_KAFKA_CONF_OK)
		return true;
	if (answer == RD_KAFKA_CONF_UNKNOWN)
		kafka_error_set(error, KAFKA_CODE_UNSUPPORTED,
						"%slibrdkafka %s does not know property \"%s\", which came with version %s",
						where, version, allowed->key,
						allowed->since != NULL ? allowed->since : "2.0");
	else if (not_built)
		kafka_error_set(error, KAFKA_CODE_UNSUPPORTED,
						"%slibrdkafka %s was built here without what property \"%s\" needs",
						where, version, allowed->key);
	else
		kafka_error_set(error, KAFKA_CODE_PROPERTY,
						"%svalue of property \"%s\" is not accepted by this build of librdkafka",
						where, allowed->key);
	return false;
}

/* Is the value to be judged by the library, and now? */
static bool
is_for_library(const AllowedProperty *allowed)
{
	/* with a token from a file the extensions are ours, too */
	return (allowed->flags & IS_OURS) == 0 &&
		strcmp(allowed->key, KAFKA_TOKEN_EXTENSIONS) != 0;
}

/* The two characters \n stand for the end of a line, as elsewhere with PEM. */
static char *
copy_lines(const char *value)
{
	char	   *copy = kafka_strdup(value);
	char	   *to = copy;
	const char *from;

	for (from = value; *from != '\0'; from++)
	{
		if (from[0] == '\\' && from[1] == 'n')
		{
			*to++ = '\n';
			from++;
		}
		else
			*to++ = *from;
	}
	*to = '\0';
	return copy;
}

static bool
set_property(KafkaProperties *props, const char *key, const char *value,
			 int line, KafkaError *error)
{
	const AllowedProperty *allowed = find_allowed(key);
	char		where[32] = "";
	size_t		i;

	if (line > 0)
		snprintf(where, sizeof(where), "line %d: ", line);

	if (allowed == NULL)
	{
		if (looks_like_key(key))
			kafka_error_set(error, KAFKA_CODE_PROPERTY,
							"%sproperty \"%s\" is unknown or not allowed",
							where, key);
		else
			kafka_error_set(error, KAFKA_CODE_PROPERTY,
							"%snot the name of a property", where);
		return false;
	}
	if (is_for_library(allowed) && !judge_value(allowed, value, where, error))
		return false;

	for (i = 0; i < props->n; i++)
	{
		if (props->items[i].allowed == allowed)
			break;
	}
	if (i == props->n)
	{
		/* The array holds pointers only, so moving it leaves no secret. */
		Property   *items = kafka_malloc((props->n + 1) * sizeof(Property));

		if (props->n > 0)
			memcpy(items, props->items, props->n * sizeof(Property));
		free(props->items);
		props->items = items;
		props->n++;
		props->items[i].allowed = allowed;
	}
	else
		kafka_wipe_and_free(props->items[i].value, strlen(props->items[i].value));
	props->items[i].value = (allowed->flags & IS_PEM) != 0 ?
		copy_lines(value) : kafka_strdup(value);
	return true;
}

bool
kafka_properties_set(KafkaProperties *props, const char *key,
					 const char *value, KafkaError *error)
{
	return set_property(props, key, value, 0, error);
}

const char *
kafka_properties_get(const KafkaProperties *props, const char *key)
{
	size_t		i;

	for (i = 0; props != NULL && i < props->n; i++)
	{
		if (strcmp(props->items[i].allowed->key, key) == 0)
			return props->items[i].value;
	}
	return NULL;
}

bool
kafka_properties_has(const KafkaProperties *props, const char *key)
{
	return kafka_properties_get(props, key) != NULL;
}

bool
kafka_properties_item(const KafkaProperties *props, size_t index,
					  rd_kafka_type_t type, const char **key,
					  const char **value)
{
	int			scope = type == RD_KAFKA_PRODUCER ? FOR_PRODUCER : FOR_READER;
	const Property *item;

	if (props == NULL || index >= props->n)
		return false;
	item = &props->items[index];
	*key = (item->allowed->flags & scope) != 0 ? item->allowed->key : NULL;
	*value = item->value;
	if ((item->allowed->flags & IS_OURS) != 0 ||
		(strcmp(item->allowed->key, KAFKA_TOKEN_EXTENSIONS) == 0 &&
		 kafka_properties_has(props, KAFKA_TOKEN_FILE)))
		*key = NULL;
	return true;
}

bool
kafka_properties_path(const KafkaProperties *props, size_t index,
					  const char **key, const char **path)
{
	const Property *item;

	if (props == NULL || index >= props->n)
		return false;
	item = &props->items[index];
	*key = item->allowed->key;
	*path = item->value;
	/* "probe" lets the library look where systems keep their CAs */
	if ((item->allowed->flags & IS_PATH) == 0 || item->value[0] == '\0' ||
		strcmp(item->value, "probe") == 0)
		*path = NULL;
	return true;
}

/* Under either of its names. */
static bool
mechanism_is(const KafkaProperties *props, const char *mechanism)
{
	const char *one = kafka_properties_get(props, "sasl.mechanism");
	const char *other = kafka_properties_get(props, "sasl.mechanisms");

	return (one != NULL && strcmp(one, mechanism) == 0) ||
		(other != NULL && strcmp(other, mechanism) == 0);
}

bool
kafka_properties_check(const KafkaProperties *props, KafkaError *error)
{
	const char *method = kafka_properties_get(props, "sasl.oauthbearer.method");
	bool		oidc = method != NULL && strcmp(method, "oidc") == 0;
	bool		file = kafka_properties_has(props, KAFKA_TOKEN_FILE);
	static const char *const crashing[] = {"client.rack", "client.id"};

	for (size_t i = 0; i < sizeof(crashing) / sizeof(crashing[0]); i++)
	{
		const char *value = kafka_properties_get(props, crashing[i]);

		if (value != NULL &&
			!kafka_library_may_set(kafka_library_number(), crashing[i], value, error))
			return false;
	}
	if (file && oidc)
		kafka_error_set(error, KAFKA_CODE_PROPERTY,
						"properties \"%s\" and \"sasl.oauthbearer.method\" = oidc exclude each other",
						KAFKA_TOKEN_FILE);
	else if (file && !mechanism_is(props, "OAUTHBEARER"))
		kafka_error_set(error, KAFKA_CODE_PROPERTY,
						"property \"%s\" needs \"sasl.mechanism\" = OAUTHBEARER",
						KAFKA_TOKEN_FILE);
	else if (mechanism_is(props, "OAUTHBEARER") && !file && !oidc)
		kafka_error_set(error, KAFKA_CODE_PROPERTY,
						"property \"sasl.mechanism\" = OAUTHBEARER needs \"%s\" or \"sasl.oauthbearer.method\" = oidc",
						KAFKA_TOKEN_FILE);
	else
		return true;
	return false;
}

/* ------------------------------------------------------------------------
 * Parsing
 * ------------------------------------------------------------------------
 */
static bool
is_white(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static void
trim(const char **start, const char **end)
{
	while (*start < *end && is_white(**start))
		(*start)++;
	while (*start < *end && is_white((*end)[-1]))
		(*end)--;
}

static char *
copy_range(const char *start, const char *end)
{
	size_t		len = (size_t) (end - start);
	char	   *copy = kafka_malloc(len + 1);

	memcpy(copy, start, len);
	copy[len] = '\0';
	return copy;
}

static bool
parse_line(KafkaProperties *props, const char *start, const char *end,
		   int line, KafkaError *error)
{
	const char *equals;
	const char *key_end;
	const char *value_start;
	char	   *key;
	char	   *value;
	bool		ok;

	trim(&start, &end);
	if (start == end || *start == '#')
		return true;
	if (memchr(start, '\0', (size_t) (end - start)) != NULL)
	{
		kafka_error_set(error, KAFKA_CODE_PROPERTY, "line %d: contains a zero byte", line);
		return false;
	}
	equals = memchr(start, '=', (size_t) (end - start));
	if (equals == NULL)
	{
		kafka_error_set(error, KAFKA_CODE_PROPERTY, "line %d: expected key=value", line);
		return false;
	}
	key_end = equals;
	value_start = equals + 1;
	trim(&start, &key_end);
	trim(&value_start, &end);

	key = copy_range(start, key_end);
	value = copy_range(value_start, end);
	ok = set_property(props, key, value, line, error);
	kafka_wipe_and_free(value, strlen(value));
	kafka_wipe_and_free(key, strlen(key));
	return ok;
}

bool
kafka_properties_parse(KafkaProperties *props, const char *text, size_t len,
					   KafkaError *error)
{
	const char *end = text + len;
	int			line = 0;

	while (text < end)
	{
		const char *newline = memchr(text, '\n', (size_t) (end - text));
		const char *line_end = newline != NULL ? newline : end;

		if (!parse_line(props, text, line_end, ++line, error))
			return false;
		text = newline != NULL ? newline + 1 : end;
	}
	return true;
}
