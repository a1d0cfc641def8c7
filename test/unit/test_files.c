/*-------------------------------------------------------------------------
 *
 * test_files.c
 *	  Files that properties name: readable or not, replaced or not.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kafka/internal.h"
#include "tap.h"

static char directory[] = "/tmp/test_files.XXXXXX";
static char cert[64];
static char key[64];
static char gone[64];

/* In one step, with another inode, as renewals do it. */
static void
put(const char *path, const char *content)
{
	char		draft[80];
	FILE	   *file;

	snprintf(draft, sizeof(draft), "%s.new", path);
	file = fopen(draft, "w");
	if (file == NULL || fputs(content, file) < 0 || fclose(file) != 0 ||
		rename(draft, path) != 0)
		ok(false, "could not write %s", path);
}

/* client.id names no file, "probe" none in particular. */
static KafkaProperties *
properties(void)
{
	KafkaProperties *props = kafka_properties_new();
	KafkaError	error = {0};

	if (!kafka_properties_set(props, "client.id", gone, &error) ||
		!kafka_properties_set(props, "ssl.ca.location", "probe", &error) ||
		!kafka_properties_set(props, "ssl.certificate.location", cert, &error) ||
		!kafka_properties_set(props, "ssl.key.location", key, &error))
		ok(false, "%s", error.message);
	return props;
}

static void
test_replaced(void)
{
	KafkaProperties *props = properties();
	KafkaFiles *files;
	struct timespec times[2] = {{0, UTIME_OMIT}, {1, 0}};

	put(cert, "one");
	put(key, "one");
	files = kafka_files_watch(props);
	ok(kafka_files_any(files), "there are files to watch");
	ok(!kafka_files_replaced(files, false), "nothing has happened");
	ok(!kafka_files_replaced(files, true), "nothing at all");

	put(cert, "two");
	ok(!kafka_files_replaced(files, false), "a change is not believed at once");
	ok(kafka_files_replaced(files, false), "but when it is the same again");
	ok(!kafka_files_replaced(files, false), "and is told once");

	put(cert, "three");
	ok(!kafka_files_replaced(files, false), "the certificate is there");
	put(key, "three");
	ok(!kafka_files_replaced(files, false), "its key comes later");
	ok(kafka_files_replaced(files, false), "both together are one change");

	put(key, "four");
	ok(kafka_files_replaced(files, true), "who reloads does not wait");
	ok(!kafka_files_replaced(files, false), "and it is told");

	ok(utimensat(AT_FDCWD, cert, times, 0) == 0, "the time of the last change");
	ok(kafka_files_replaced(files, true), "tells one written in its place");
	unlink(key);
	ok(kafka_files_replaced(files, true), "a file that is gone");
	put(key, "four");
	ok(kafka_files_replaced(files, true), "and is there again");
	kafka_files_free(files);

	/* Kubernetes: the link in the middle of the path is another one. */
	unlink(key);
	put(gone, "five");
	ok(symlink(gone, key) == 0, "a symbolic link");
	files = kafka_files_watch(props);
	put(gone, "six");
	ok(kafka_files_replaced(files, true), "is followed");
	unlink(gone);
	unlink(key);
	kafka_files_free(files);
	kafka_files_free(NULL);
	kafka_properties_free(props);

	props = kafka_properties_new();
	files = kafka_files_watch(props);
	ok(!kafka_files_any(files) && !kafka_files_any(NULL), "no files, nothing to watch");
	ok(!kafka_files_replaced(files, true) && !kafka_files_replaced(NULL, true), "nor to be replaced");
	kafka_files_free(files);
	kafka_properties_free(props);
}

static void
test_check(void)
{
	KafkaProperties *props = properties();
	KafkaError	error = {0};

	put(cert, "one");
	put(key, "one");
	ok(kafka_files_check(props, &error), "both can be read");
	unlink(key);
	ok(!kafka_files_check(props, &error), "a missing one is found");
	ok(strstr(error.message, "\"ssl.key.location\"") != NULL && strstr(error.message, key) != NULL,
	   "and named: %s", error.message);
	is_int(error.code, KAFKA_CODE_FILE, "with its code");
	ok(mkfifo(key, 0600) == 0, "a FIFO");
	ok(!kafka_files_check(props, &error), "is refused, the library would wait for a writer");
	unlink(key);
	if (geteuid() != 0)
	{
		KafkaFiles *files;

		put(key, "one");
		files = kafka_files_watch(props);
		chmod(key, 0);
		ok(!kafka_files_check(props, &error) && strstr(error.message, "Permission denied") != NULL,
		   "one that may not be read");
		ok(kafka_files_replaced(files, true), "that is a change");
		chmod(key, 0400);
		ok(kafka_files_replaced(files, true), "so is its end");
		kafka_files_free(files);
		unlink(key);
	}
	unlink(cert);
	kafka_properties_free(props);
}

int
main(void)
{
	if (mkdtemp(directory) == NULL)
		ok(false, "could not make a directory");
	else
	{
		snprintf(cert, sizeof(cert), "%s/cert", directory);
		snprintf(key, sizeof(key), "%s/key", directory);
		snprintf(gone, sizeof(gone), "%s/gone", directory);
		test_replaced();
		test_check();
		rmdir(directory);
	}
	return done_testing();
}
