/*-------------------------------------------------------------------------
 *
 * pins.c
 *	  Settings that a worker keeps, whatever ALTER DATABASE says.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A database's owner can set everything that is PGC_USERSET for each session
 * of the database, and the workers' are among them.  Pinned is what could break
 * a promise, stop a worker or make it say much; what only makes its statements
 * somewhat slower or larger (work_mem, costs, enable_hashjoin) is the owner's
 * own affair.  Two that only a superuser can set are pinned for the reason for
 * which autovacuum pins them: a damaged page must stop the relay, not lose its
 * events.
 *
 * A value of source PGC_S_OVERRIDE wins over the file, ALTER DATABASE and ALTER
 * ROLE, now and at each reload (guc.c, set_config_option).  Pinned before the
 * connection is made, it holds from the first catalog look-up on, and a role
 * set by ALTER DATABASE is never entered.
 *
 * synchronous_commit is not here: it may be stronger than what we need and
 * follow the file then, so worker_begin() sees to it in each transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "worker/worker.h"

typedef struct Pin
{
	const char *name;
	const char *value;
} Pin;

/* What a report's statement gives must not depend on where it runs. */
static const Pin statement_pins[] = {
	{"row_security", "off"},
	{"session_replication_role", "origin"},
	{"restrict_nonsystem_relation_kind", ""},

	/* one meaning for texts, wherever a report's statement runs */
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "UTC"},
	{"bytea_output", "hex"},
	{"extra_float_digits", "1"},
	{"xmlbinary", "base64"},
	{"xmloption", "content"},
	{"gin_fuzzy_search_limit", "0"},

	/* without these a look-up by key reads the whole event log, each time */
	{"enable_indexscan", "on"},
	{"enable_indexonlyscan", "on"},
	{"enable_bitmapscan", "on"},
	{"enable_nestloop", "on"},
	{"plan_cache_mode", "auto"},

	/* processes and code for statements of a millisecond */
	{"jit", "off"},
	{"force_parallel_mode", "off"}, /* before 16 */
	{"debug_parallel_query", "off"},

	/* nothing is made where the owner wants it */
	{"default_tablespace", ""},
};

static const Pin worker_pins[] = {
	/* who we are and what we may see */
	{"role", "none"},
	{"search_path", "pg_catalog, pg_temp"},

	/* transactions that write, one statement seeing what the last one left */
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},

	/* nothing ends a worker but its own trouble */
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"transaction_timeout", "0"},
	{"exit_on_error", "off"},	/* one bad message would end the reporter */

	/* a damaged page is an error, not an empty one */
	{"zero_damaged_pages", "off"},
	{"ignore_checksum_failure", "off"},

	/* a worker says little */
	{"client_min_messages", "warning"},
	{"debug_print_parse", "off"},
	{"debug_print_rewritten", "off"},
	{"debug_print_plan", "off"},
	{"trace_sort", "off"},
};

/* Above what ALTER DATABASE and ALTER ROLE can set (PGC_S_OVERRIDE). */
static void
pin(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/* Those that this release knows. */
static void
pin_all(const Pin *pins, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (GetConfigOption(pins[i].name, true, false) != NULL)
			pin(pins[i].name, pins[i].value);
	}
}

void
worker_pin_settings(void)
{
	pin_all(worker_pins, lengthof(worker_pins));
	pin_all(statement_pins, lengthof(statement_pins));
}

void
session_pin_settings(void)
{
	for (int i = 0; i < lengthof(statement_pins); i++)
	{
		const char *now = GetConfigOption(statement_pins[i].name, true, false);

		/* changing one costs more than looking at it */
		if (now != NULL && strcmp(now, statement_pins[i].value) != 0)
			(void) set_config_option(statement_pins[i].name,
									 statement_pins[i].value,
									 PGC_SUSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
}

void
worker_pin_connected_settings(void)
{
	/*
	 * The one that cannot be pinned before: its value is a name from the
	 * catalog.  ALTER DATABASE can make us somebody who may nothing.
	 */
	if (GetSessionUserId() != BOOTSTRAP_SUPERUSERID)
	{
		StartTransactionCommand();
		pin("session_authorization",
			GetUserNameFromId(BOOTSTRAP_SUPERUSERID, false));
		CommitTransactionCommand();
	}
	Assert(GetUserId() == BOOTSTRAP_SUPERUSERID);

	/* what is read is of the database's encoding, and so is what is written */
	pin("client_encoding", GetDatabaseEncodingName());
}
