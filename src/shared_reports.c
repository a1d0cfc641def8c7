/*-------------------------------------------------------------------------
 *
 * shared_reports.c
 *	  What the workers say about themselves, in shared memory.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "shared_internal.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

void
shared_report_relay(const RelayReport *report)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, false);

	if (slot == NULL)
		return;
	LWLockAcquire(shared->reports_lock, LW_EXCLUSIVE);
	slot->relay_report = *report;
	LWLockRelease(shared->reports_lock);
}

bool
shared_get_relay(Oid database, int *pid, RelayReport *report)
{
	DatabaseSlot *slot = shared_find_slot(database, false);

	*pid = 0;
	memset(report, 0, sizeof(*report));
	if (slot == NULL)
		return false;
	*pid = shared_worker_pid(database, 'r');
	LWLockAcquire(shared->reports_lock, LW_SHARED);
	*report = slot->relay_report;
	LWLockRelease(shared->reports_lock);
	return true;
}

void
shared_report_reporter(const ReporterReport *report)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, false);

	if (slot == NULL)
		return;
	LWLockAcquire(shared->reports_lock, LW_EXCLUSIVE);
	slot->reporter_report = *report;
	LWLockRelease(shared->reports_lock);
}

bool
shared_get_reporter(Oid database, int *pid, ReporterReport *report)
{
	DatabaseSlot *slot = shared_find_slot(database, false);

	*pid = 0;
	memset(report, 0, sizeof(*report));
	if (slot == NULL)
		return false;
	*pid = shared_worker_pid(database, 'p');
	LWLockAcquire(shared->reports_lock, LW_SHARED);
	*report = slot->reporter_report;
	LWLockRelease(shared->reports_lock);
	return true;
}

void
shared_stat_reset(Oid database, char kind)
{
	DatabaseSlot *slot = shared_find_slot(database, false);

	if (slot == NULL)
		return;
	LWLockAcquire(shared->reports_lock, LW_EXCLUSIVE);
	if (kind == 'r')
		slot->relay_reset_at = GetCurrentTimestamp();
	else
		slot->reporter_reset_at = GetCurrentTimestamp();
	LWLockRelease(shared->reports_lock);
	shared_wake(slot, kind);
}

TimestampTz
shared_stat_reset_at(Oid database, char kind)
{
	DatabaseSlot *slot = shared_find_slot(database, false);
	TimestampTz at = 0;

	if (slot != NULL)
	{
		LWLockAcquire(shared->reports_lock, LW_SHARED);
		at = kind == 'r' ? slot->relay_reset_at : slot->reporter_reset_at;
		LWLockRelease(shared->reports_lock);
	}
	return at;
}
