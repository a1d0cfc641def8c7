/*-------------------------------------------------------------------------
 *
 * properties.c
 *	  What the operator may say about the connection to Kafka.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * An allow-list, not a deny-list: librdkafka has properties that load a
 * library (plugin.library.paths) or run a shell command
 * (sasl.kerberos.kinit.cmd), and new ones come with every release.  What
 * correctness needs is set later by the producer and the reader and is not on
 * the list.
 *
 * Values may be secrets.  Messages therefore name the key and the line only
 * (librdkafka's own error text repeats some values), a line that is not
 * "key=value" is not repeated at all, and memory is wiped before it is freed.
 *
 * Thread: the caller's.  Memory: malloc, owned by KafkaProperties.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kafka/internal.h"

/* A properties file larger than this is a mistake. */
#define MAX_FILE_BYTES (1024 * 1024)

#define FOR_PRODUCER 1
#define FOR_READER 2
#define FOR_BOTH (FOR_PRODUCER | FOR_READER)

typedef struct AllowedProperty
{
	const char *key;
	int			scope;
} AllowedProperty;

static const AllowedProperty allowed_properties[] = {
	{"bootstrap.servers", FOR_BOTH},
	{"client.id", FOR_BOTH},
	{"client.rack", FOR_READER},
	{"broker.address.family", FOR_BOTH},
	{"broker.address.ttl", FOR_BOTH},
	{"security.protocol", FOR_BOTH},
	{"sasl.mechanism", FOR_BOTH},
	{"sasl.mechanisms", FOR_BOTH},
	{"sasl.username", FOR_BOTH},
	{"sasl.password", FOR_BOTH},
	{"sasl.kerberos.service.name", FOR_BOTH},
	{"sasl.kerberos.principal", FOR_BOTH},
	{"sasl.kerberos.keytab", FOR_BOTH},
	{"sasl.kerberos.min.time.before.relogin", FOR_BOTH},
	{"ssl.ca.location", FOR_BOTH},
	{"ssl.crl.location", FOR_BOTH},
	{"ssl.certificate.location", FOR_BOTH},
	{"ssl.key.location", FOR_BOTH},
	{"ssl.key.password", FOR_BOTH},
	{"ssl.keystore.location", FOR_BOTH},
	{"ssl.keystore.password", FOR_BOTH},
	{"ssl.endpoint.identification.algorithm", FOR_BOTH},
	{"ssl.cipher.suites", FOR_BOTH},
	{"ssl.curves.list", FOR_BOTH},
	{"ssl.sigalgs.list", FOR_BOTH},
	{"enable.ssl.certificate.verification", FOR_BOTH},
	{"socket.timeout.ms", FOR_BOTH},
	{"socket.connection.setup.timeout.ms", FOR_BOTH},
	{"socket.send.buffer.bytes", FOR_BOTH},
	{"socket.receive.buffer.bytes", FOR_BOTH},
	{"socket.keepalive.enable", FOR_BOTH},
	{"reconnect.backoff.ms", FOR_BOTH},
	{"reconnect.backoff.max.ms", FOR_BOTH},
	{"compression.codec", FOR_PRODUCER},
	{"compression.type", FOR_PRODUCER},
	{"compression.level", FOR_PRODUCER},
	{"linger.ms", FOR_PRODUCER},
	{"batch.size", FOR_PRODUCER},
	{"batch.num.messages", FOR_PRODUCER},
	{"message.max.bytes", FOR_BOTH},
	{"debug", FOR_BOTH},
	{NULL, 0}
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

static void
wipe_and_free(char *text, size_t len)
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
		wipe_and_free(props->items[i].value, strlen(props->items[i].value));
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
 * used, since it repeats the values of some properties.
 */
static bool
value_is_accepted(const char *key, const char *value)
{
	rd_kafka_conf_t *probe = rd_kafka_conf_new();
	char		ignored[512];
	bool		accepted;

	accepted = rd_kafka_conf_set(probe, key, value, ignored,
								 sizeof(ignored)) == RD_KAFKA_CONF_OK;
	explicit_bzero(ignored, sizeof(ignored));
	rd_kafka_conf_destroy(probe);
	return accepted;
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
			kafka_error_set(error, 0,
							"%sproperty \"%s\" is unknown or not allowed",
							where, key);
		else
			kafka_error_set(error, 0, "%snot the name of a property", where);
		return false;
	}
	if (!value_is_accepted(key, value))
	{
		kafka_error_set(error, 0,
						"%svalue of property \"%s\" is not accepted by this build of librdkafka",
						where, key);
		return false;
	}

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
		wipe_and_free(props->items[i].value, strlen(props->items[i].value));
	props->items[i].value = kafka_strdup(value);
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
	*key = (item->allowed->scope & scope) != 0 ? item->allowed->key : NULL;
	*value = item->value;
	return true;
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
		kafka_error_set(error, 0, "line %d: contains a zero byte", line);
		return false;
	}
	equals = memchr(start, '=', (size_t) (end - start));
	if (equals == NULL)
	{
		kafka_error_set(error, 0, "line %d: expected key=value", line);
		return false;
	}
	key_end = equals;
	value_start = equals + 1;
	trim(&start, &key_end);
	trim(&value_start, &end);

	key = copy_range(start, key_end);
	value = copy_range(value_start, end);
	ok = set_property(props, key, value, line, error);
	wipe_and_free(value, strlen(value));
	wipe_and_free(key, strlen(key));
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

/* ------------------------------------------------------------------------
 * The file
 * ------------------------------------------------------------------------
 */

/* PostgreSQL's rule for private keys, checked on what was really opened. */
static bool
file_is_private(const struct stat *status, const char *path,
				KafkaError *error)
{
	if (!S_ISREG(status->st_mode))
	{
		kafka_error_set(error, 0, "\"%s\" is not a regular file", path);
		return false;
	}
	if (status->st_uid != geteuid() && status->st_uid != 0)
	{
		kafka_error_set(error, 0,
						"\"%s\" must be owned by the server's user or root",
						path);
		return false;
	}
	if ((status->st_uid == geteuid() &&
		 (status->st_mode & (S_IRWXG | S_IRWXO)) != 0) ||
		(status->st_uid == 0 &&
		 (status->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) != 0))
	{
		kafka_error_set(error, 0,
						"\"%s\" has group or world access: it must have mode 0600 or less, or 0640 or less when owned by root",
						path);
		return false;
	}
	if (status->st_size > MAX_FILE_BYTES)
	{
		kafka_error_set(error, 0, "\"%s\" is larger than %d bytes", path,
						MAX_FILE_BYTES);
		return false;
	}
	return true;
}

/* Read to the end; a negative result leaves errno. */
static ssize_t
read_all(int fd, char *buffer, size_t size)
{
	size_t		done = 0;

	while (done < size)
	{
		ssize_t		got = read(fd, buffer + done, size - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		done += (size_t) got;
	}
	return (ssize_t) done;
}

bool
kafka_properties_read_file(KafkaProperties *props, const char *path,
						   KafkaError *error)
{
	struct stat status;
	char	   *buffer;
	size_t		size;
	ssize_t		len;
	int			fd;
	bool		ok = false;

	/* O_NONBLOCK: opening a FIFO would otherwise wait for a writer. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
	{
		kafka_error_set(error, 0, "could not open \"%s\": %s", path,
						errno == ELOOP ? "it is a symbolic link" :
						strerror(errno));
		return false;
	}
	if (fstat(fd, &status) != 0)
	{
		kafka_error_set(error, 0, "could not stat \"%s\": %s", path,
						strerror(errno));
		close(fd);
		return false;
	}
	if (!file_is_private(&status, path, error))
	{
		close(fd);
		return false;
	}

	size = (size_t) status.st_size;
	buffer = kafka_malloc(size + 1);
	len = read_all(fd, buffer, size);
	if (len < 0)
		kafka_error_set(error, 0, "could not read \"%s\": %s", path,
						strerror(errno));
	else
		ok = kafka_properties_parse(props, buffer, (size_t) len, error);
	wipe_and_free(buffer, size);
	close(fd);
	return ok;
}
