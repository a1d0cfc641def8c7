/*-------------------------------------------------------------------------
 *
 * extension.c
 *	  Does the library in memory fit the extension's objects?
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The two change at different moments: a package brings a new library, which
 * the server loads when it is restarted, and ALTER EXTENSION ... UPDATE brings
 * new objects into each database.  In between a worker reads and writes nothing:
 * what it took for the columns of a table, or for the form of a message, may be
 * that of another version.  Writers go on; capture has a check of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "postmaster/bgworker.h"
#include "shared.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "worker/worker.h"

#ifndef CARSHOP_OUTBOX_VERSION
#error "the Makefile takes CARSHOP_OUTBOX_VERSION from the control file"
#endif

/* CREATE and ALTER EXTENSION wake us; but a prepared one may not. */
#define LOOK_AGAIN_MS	60000

static bool found = false;
static uint32 changes_seen;

const char *
worker_library_version(void)
{
	return CARSHOP_OUTBOX_VERSION;
}

/* What stands between dots is compared as numbers, as far as it is numbers. */
static int
compare_versions(const char *a, const char *b)
{
	for (;;)
	{
		char	   *a_end;
		char	   *b_end;
		long		a_part = strtol(a, &a_end, 10);
		long		b_part = strtol(b, &b_end, 10);

		if (a_part != b_part)
			return a_part < b_part ? -1 : 1;
		if (*a_end != '.' || *b_end != '.')
			return strcmp(a_end, b_end);
		a = a_end + 1;
		b = b_end + 1;
	}
}

const char *
worker_version_remedy(const char *objects)
{
	int			order = compare_versions(objects, CARSHOP_OUTBOX_VERSION);

	if (order == 0)
		return NULL;
	if (order < 0)
		return "ALTER EXTENSION carshop_outbox UPDATE;";
	return "Restart the server, which still has the former library in memory, after the new version's package is installed.";
}

/* The version of the objects in this database, in TopMemoryContext; NULL: there are none. */
static char *
objects_version(void)
{
	char	   *version = NULL;

	worker_begin(NULL);
	if (SPI_execute("SELECT extversion FROM pg_catalog.pg_extension"
					" WHERE extname OPERATOR(pg_catalog.=) 'carshop_outbox'",
					true, 1) == SPI_OK_SELECT && SPI_processed > 0)
		version = MemoryContextStrdup(TopMemoryContext,
									  SPI_getvalue(SPI_tuptable->vals[0],
												   SPI_tuptable->tupdesc, 1));
	worker_commit();
	return version;
}

/* NULL: it is there and fits.  Otherwise what the worker waits for. */
static const char *
missing_extension(void)
{
	char	   *version = objects_version();
	const char *missing = NULL;
	int			order;

	if (version == NULL)
		return "waiting for CREATE EXTENSION carshop_outbox";
	order = compare_versions(version, CARSHOP_OUTBOX_VERSION);
	if (order != 0)
	{
		missing = order < 0 ? "waiting for ALTER EXTENSION carshop_outbox UPDATE" :
			"waiting for a restart with the new library";
		worker_log_change(ERRCODE_WARNING,
						  psprintf("extension carshop_outbox has version %s, the library is of version %s",
								   version, CARSHOP_OUTBOX_VERSION),
						  worker_version_remedy(version));
	}
	pfree(version);
	return missing;
}

void
worker_wait_for_extension(void)
{
	const char *missing;
	bool		waited = false;

	for (;;)
	{
		/*
		 * Take the flag before looking: whoever commits the extension later
		 * finds it taken, and sets the latch.
		 */
		if (worker_kind() == WORKER_RELAY)
			(void) shared_take_wake(NULL);
		else
			(void) shared_take_reporter_wake();
		changes_seen = shared_extension_changes();
		missing = missing_extension();
		if (missing == NULL)
			break;
		worker_show_state(missing);
		(void) worker_wait(-1, LOOK_AGAIN_MS);
		waited = true;
	}
	worker_log_change(0, "", NULL);

	/*
	 * CREATE DATABASE, ALTER DATABASE ... SET, CREATE EXTENSION: we were
	 * there from the first on.
	 */
	if (waited)
		worker_check_stored_settings();
	found = true;
}

void
worker_check_extension(void)
{
	uint32		changes = shared_extension_changes();
	char	   *version;
	bool		fits;

	if (!found || changes == changes_seen)
		return;
	changes_seen = changes;
	version = objects_version();
	fits = version != NULL && worker_version_remedy(version) == NULL;
	if (version != NULL)
		pfree(version);
	if (fits)
		return;
	ereport(LOG,
			(errmsg("%s starts again: the extension has changed",
					MyBgworkerEntry->bgw_name)));
	proc_exit(1);
}
