/*-------------------------------------------------------------------------
 *
 * shared_rebuilds.c
 *	  How far rebuilds of reports are, in shared memory.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A rebuild is one transaction: nobody could see its progress in a table.
 *
 *-------------------------------------------------------------------------
 */
#include "shared_internal.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

int
shared_begin_rebuild(const char *name)
{
	int			entry = -1;

	if (shared == NULL)
		return -1;
	LWLockAcquire(shared->reports_lock, LW_EXCLUSIVE);
	for (int i = 0; i < SHARED_MAX_REBUILDS && entry < 0; i++)
	{
		RebuildReport *rebuild = &shared->rebuilds[i];

		if (rebuild->pid != 0)
			continue;
		entry = i;
		memset(rebuild, 0, sizeof(*rebuild));
		memcpy(rebuild->name, name,
			   pg_mbcliplen(name, (int) strlen(name), SHARED_TEXT - 1));
		rebuild->database = MyDatabaseId;
		rebuild->since = GetCurrentTimestamp();
		rebuild->pid = MyProcPid;
	}
	LWLockRelease(shared->reports_lock);
	return entry;
}

void
shared_note_rebuild(int entry, int64 done, int64 total)
{
	if (entry < 0)
		return;
	LWLockAcquire(shared->reports_lock, LW_EXCLUSIVE);
	shared->rebuilds[entry].done = done;
	shared->rebuilds[entry].total = total;
	LWLockRelease(shared->reports_lock);
}

void
shared_end_rebuild(int entry)
{
	if (entry < 0)
		return;
	LWLockAcquire(shared->reports_lock, LW_EXCLUSIVE);
	shared->rebuilds[entry].pid = 0;
	LWLockRelease(shared->reports_lock);
}

int
shared_get_rebuilds(Oid database, RebuildReport found[SHARED_MAX_REBUILDS])
{
	int			n = 0;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->reports_lock, LW_SHARED);
	for (int i = 0; i < SHARED_MAX_REBUILDS; i++)
	{
		if (shared->rebuilds[i].pid != 0 &&
			shared->rebuilds[i].database == database)
			found[n++] = shared->rebuilds[i];
	}
	LWLockRelease(shared->reports_lock);
	return n;
}
