/*-------------------------------------------------------------------------
 *
 * kafka_settings.c
 *	  What the workers tell the Kafka client, and what it says to them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A reload replaces a Kafka handle only when something that the handle is made
 * of has changed: connecting and fencing anew takes a while, during which
 * nothing is published or read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "postmaster/bgworker.h"
#include "settings.h"
#include "worker/worker.h"

/* kafka_properties_read_file() takes no larger one */
#define CONFIG_FILE_MOST	(1024 * 1024)

/* A file that was replaced is used after two looks at the latest. */
#define LOOK_EVERY_US		1000000

static KafkaFiles *watched = NULL;	/* of the newest handle */
static int64 look_at;

KafkaProperties *
worker_kafka_properties(KafkaError *error)
{
	KafkaProperties *props = kafka_properties_new();

	if (props == NULL)
	{
		error->code = 0;
		strlcpy(error->message, "out of memory", sizeof(error->message));
		return NULL;
	}
	if (!kafka_properties_set(props, "bootstrap.servers", setting_brokers, error) ||
		(setting_kafka_config_file[0] != '\0' &&
		 !kafka_properties_read_file(props, setting_kafka_config_file, error)))
	{
		kafka_properties_free(props);
		return NULL;
	}
	kafka_files_free(watched);
	watched = kafka_files_watch(props);
	look_at = worker_now_us() + LOOK_EVERY_US;
	return props;
}

/*
 * Polled, not announced by the system: what is replaced may be a symbolic link
 * somewhere on the way to the file, or on another machine.
 */
int64
worker_kafka_files_due(void)
{
	return kafka_files_any(watched) ? Max(look_at - worker_now_us(), 0) : -1;
}

bool
worker_kafka_files_replaced(bool at_once)
{
	if (!kafka_files_any(watched) || (!at_once && worker_now_us() < look_at))
		return false;
	look_at = worker_now_us() + LOOK_EVERY_US;
	return kafka_files_replaced(watched, at_once);
}

/*
 * The workers say themselves, once per change, what is wrong; the library's
 * lines are for those who look closer.
 */
void
worker_kafka_log(void *arg, int syslog_level, const char *text)
{
	ereport(syslog_level <= 4 ? DEBUG1 : DEBUG2,
			(errmsg_internal("%s: librdkafka: %s", MyBgworkerEntry->bgw_name, text)));
}

/* --- the fingerprint --- */

static void
add_bytes(pg_cryptohash_ctx * hash, const char *bytes, size_t len)
{
	if (pg_cryptohash_update(hash, (const uint8 *) bytes, len) < 0)
		elog(ERROR, "could not compute a SHA256 digest");
}

/* With its zero byte, so that "a", "b" is not "ab", "". */
static void
add_text(pg_cryptohash_ctx * hash, const char *text)
{
	add_bytes(hash, text, strlen(text) + 1);
}

static void
add_number(pg_cryptohash_ctx * hash, int64 number)
{
	add_bytes(hash, (const char *) &number, sizeof(number));
}

/* The file as kafka_properties_read_file() sees it. */
static void
add_config_file(pg_cryptohash_ctx * hash, const char *path)
{
	int			fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct stat status;
	char	   *content;
	ssize_t		got = 0;
	size_t		len = 0;

	if (fd < 0 || fstat(fd, &status) != 0)
	{
		add_number(hash, errno);
		if (fd >= 0)
			close(fd);
		return;
	}
	/* owner and mode decide whether it is taken */
	add_number(hash, status.st_mode);
	add_number(hash, status.st_uid);

	content = palloc(CONFIG_FILE_MOST + 1);
	while (len < CONFIG_FILE_MOST &&
		   (got = read(fd, content + len, CONFIG_FILE_MOST - len)) > 0)
		len += got;
	if (got < 0)
		add_number(hash, errno);
	close(fd);
	content[len] = '\0';
	add_bytes(hash, content, len);
	explicit_bzero(content, len);
	pfree(content);
}

/* All that a Kafka handle is made of. */
static void
add_settings(pg_cryptohash_ctx * hash)
{
	add_text(hash, setting_brokers);
	add_text(hash, setting_kafka_config_file);
	add_number(hash, setting_worker_memory);
	if (worker_kind() == WORKER_RELAY)
	{
		add_text(hash, settings_compression_name());
		add_text(hash, setting_progress_topic);
		add_number(hash, setting_delivery);
		add_number(hash, setting_transaction_timeout);
		add_number(hash, setting_max_message_bytes);
		add_number(hash, setting_max_transaction_bytes);
		add_number(hash, setting_max_transaction_events);
	}
	else
		add_text(hash, setting_group_id);
}

char *
worker_kafka_fingerprint(void)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *hex = palloc(2 * PG_SHA256_DIGEST_LENGTH + 1);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_cryptohash_ctx *hash;

	/* the digest's state belongs to a resource owner */
	worker_begin(NULL);
	hash = pg_cryptohash_create(PG_SHA256);
	if (hash == NULL || pg_cryptohash_init(hash) < 0)
		elog(ERROR, "could not compute a SHA256 digest");
	add_settings(hash);
	if (setting_kafka_config_file[0] != '\0')
		add_config_file(hash, setting_kafka_config_file);
	if (pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a SHA256 digest");
	pg_cryptohash_free(hash);
	worker_commit();
	MemoryContextSwitchTo(caller);

	for (int i = 0; i < PG_SHA256_DIGEST_LENGTH; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	return hex;
}
