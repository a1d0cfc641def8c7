/*-------------------------------------------------------------------------
 *
 * files.c
 *	  Files of the operator: reading them, and noticing that one was replaced.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The library reads certificates, keys and keytabs once, when a handle is made.
 * Whoever renews them replaces the file, so a handle is made anew when one of
 * them is not the file any more that it was.  Symbolic links are followed:
 * Kubernetes replaces a whole folder of secrets by a link.
 *
 * A certificate and its key are two files, which are replaced one after the
 * other; hence a change counts only when it is the same at the next look.
 *
 * Thread: the worker's.  Memory: malloc, wiped before it is freed where it held
 * content.
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

#define FIRST_READ_BYTES 4096

/* What tells a file from the one that was there before. */
typedef struct Identity
{
	int			error;			/* errno of looking at it */
	int			access_error;	/* errno of whether it may be read */
	dev_t		device;
	ino_t		inode;
	off_t		size;
	struct timespec changed;
} Identity;

struct KafkaFiles
{
	size_t		n;
	char	  **paths;
	Identity   *used;			/* when the handle was made */
	Identity   *seen;			/* at the last look */
};

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

/* Moves what was read so far; nothing of it stays behind. */
static char *
grow(char *buffer, size_t used, size_t size)
{
	char	   *larger = kafka_malloc(size);

	if (used > 0)
		memcpy(larger, buffer, used);
	if (buffer != NULL)
		kafka_wipe_and_free(buffer, used);
	return larger;
}

char *
kafka_read_all(int fd, size_t max, size_t *len)
{
	size_t		size = FIRST_READ_BYTES;
	char	   *buffer = grow(NULL, 0, size);
	int			failed = 0;

	*len = 0;
	while (failed == 0)
	{
		ssize_t		got = read(fd, buffer + *len, size - 1 - *len);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			failed = errno;
		else if (got == 0)
		{
			buffer[*len] = '\0';
			return buffer;
		}
		else
		{
			*len += (size_t) got;
			if (*len > max)
				failed = EFBIG;
			else if (*len == size - 1)
			{
				buffer = grow(buffer, *len, size * 2);
				size *= 2;
			}
		}
	}
	kafka_wipe_and_free(buffer, *len);
	errno = failed;
	return NULL;
}

/* ------------------------------------------------------------------------
 * The file of properties
 * ------------------------------------------------------------------------
 */

/* PostgreSQL's rule for private keys, checked on what was really opened. */
static bool
file_is_private(const struct stat *status, const char *path,
				KafkaError *error)
{
	if (!S_ISREG(status->st_mode))
	{
		kafka_error_set(error, KAFKA_CODE_PROPERTY, "\"%s\" is not a regular file", path);
		return false;
	}
	if (status->st_uid != geteuid() && status->st_uid != 0)
	{
		kafka_error_set(error, KAFKA_CODE_PROPERTY,
						"\"%s\" must be owned by the server's user or root",
						path);
		return false;
	}
	if ((status->st_uid == geteuid() &&
		 (status->st_mode & (S_IRWXG | S_IRWXO)) != 0) ||
		(status->st_uid == 0 &&
		 (status->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) != 0))
	{
		kafka_error_set(error, KAFKA_CODE_PROPERTY,
						"\"%s\" has group or world access: it must have mode 0600 or less, or 0640 or less when owned by root",
						path);
		return false;
	}
	if (status->st_size > MAX_FILE_BYTES)
	{
		kafka_error_set(error, KAFKA_CODE_PROPERTY, "\"%s\" is larger than %d bytes", path,
						MAX_FILE_BYTES);
		return false;
	}
	return true;
}

bool
kafka_properties_read_file(KafkaProperties *props, const char *path,
						   KafkaError *error)
{
	struct stat status;
	char	   *buffer;
	size_t		len;
	int			fd;
	bool		ok = false;

	/* O_NONBLOCK: opening a FIFO would otherwise wait for a writer. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
	{
		kafka_error_set(error, KAFKA_CODE_PROPERTY, "could not open \"%s\": %s", path,
						errno == ELOOP ? "it is a symbolic link" :
						strerror(errno));
		return false;
	}
	if (fstat(fd, &status) != 0)
		kafka_error_set(error, KAFKA_CODE_PROPERTY, "could not stat \"%s\": %s", path,
						strerror(errno));
	else if (file_is_private(&status, path, error))
	{
		buffer = kafka_read_all(fd, MAX_FILE_BYTES, &len);
		if (buffer == NULL)
			kafka_error_set(error, KAFKA_CODE_PROPERTY, "could not read \"%s\": %s", path,
							strerror(errno));
		else
		{
			ok = kafka_properties_parse(props, buffer, len, error);
			kafka_wipe_and_free(buffer, len);
		}
	}
	close(fd);
	return ok;
}

/* ------------------------------------------------------------------------
 * Files that properties name
 * ------------------------------------------------------------------------
 */

/* NULL: the server can read it.  A FIFO would make the library wait. */
static const char *
why_not_readable(const char *path)
{
	struct stat status;
	const char *reason = NULL;
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return strerror(errno);
	if (fstat(fd, &status) != 0)
		reason = strerror(errno);
	else if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
		reason = "it is neither a file nor a directory";
	close(fd);
	return reason;
}

bool
kafka_files_check(const KafkaProperties *props, KafkaError *error)
{
	const char *key;
	const char *path;
	size_t		i;

	for (i = 0; kafka_properties_path(props, i, &key, &path); i++)
	{
		const char *reason = path != NULL ? why_not_readable(path) : NULL;

		if (reason == NULL)
			continue;
		kafka_error_set(error, KAFKA_CODE_FILE,
						"the file of property \"%s\" cannot be read: \"%s\": %s",
						key, path, reason);
		return false;
	}
	return true;
}

static void
identify(const char *path, Identity *identity)
{
	struct stat status;

	memset(identity, 0, sizeof(*identity));
	if (stat(path, &status) != 0)
	{
		identity->error = errno;
		return;
	}
	identity->device = status.st_dev;
	identity->inode = status.st_ino;
	identity->size = status.st_size;
	identity->changed = status.st_mtim;
	/* a change of mode or owner is one only if it makes a difference */
	if (faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) != 0)
		identity->access_error = errno;
}

KafkaFiles *
kafka_files_watch(const KafkaProperties *props)
{
	KafkaFiles *files = kafka_malloc(sizeof(KafkaFiles));
	const char *key;
	const char *path;
	size_t		most = 0;
	size_t		i;

	memset(files, 0, sizeof(*files));
	while (kafka_properties_path(props, most, &key, &path))
		most++;
	files->paths = kafka_malloc(most * sizeof(char *));
	files->used = kafka_malloc(most * sizeof(Identity));
	files->seen = kafka_malloc(most * sizeof(Identity));
	for (i = 0; kafka_properties_path(props, i, &key, &path); i++)
	{
		if (path == NULL)
			continue;
		files->paths[files->n] = kafka_strdup(path);
		identify(path, &files->used[files->n]);
		files->seen[files->n] = files->used[files->n];
		files->n++;
	}
	return files;
}

bool
kafka_files_any(const KafkaFiles *files)
{
	return files != NULL && files->n > 0;
}

bool
kafka_files_replaced(KafkaFiles *files, bool at_once)
{
	bool		replaced = false;
	bool		steady = true;
	size_t		i;

	for (i = 0; files != NULL && i < files->n; i++)
	{
		Identity	now;

		identify(files->paths[i], &now);
		if (memcmp(&now, &files->used[i], sizeof(now)) != 0)
			replaced = true;
		if (memcmp(&now, &files->seen[i], sizeof(now)) != 0)
			steady = false;
		files->seen[i] = now;
	}
	if (!replaced || (!steady && !at_once))
		return false;
	memcpy(files->used, files->seen, files->n * sizeof(Identity));
	return true;
}

void
kafka_files_free(KafkaFiles *files)
{
	size_t		i;

	if (files == NULL)
		return;
	for (i = 0; i < files->n; i++)
		free(files->paths[i]);
	free(files->paths);
	free(files->used);
	free(files->seen);
	free(files);
}
