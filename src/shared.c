/*-------------------------------------------------------------------------
 *
 * shared.c
 *	  Shared memory behind functions, and the wake-up of workers.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Locking
 * - DatabaseSlot.database, relay and reporter (the owners) change under
 *   shared->lock (LWLock) only.  A process that is connected to a database, or
 *   owns its slot, may keep the slot's address: the database cannot be dropped,
 *   or the slot not be given back, before the process has ended.  All others look
 *   for the slot and use it under one hold of the lock.
 * - What the workers report and the times of stat_reset change under
 *   shared->reports_lock (LWLock), held for the time of a memcpy.
 * - Flags and counters of the wake-up path are atomics: the commit of a shop
 *   transaction takes no lock here but the shared mode of shared->lock, which
 *   is held exclusively only while a worker starts or ends, and while slots are
 *   taken and given back.
 *
 *-------------------------------------------------------------------------
 */
#include "shared_internal.h"

#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

SharedState *shared = NULL;
static DatabaseSlot *my_slot = NULL;	/* cache for MyDatabaseId */
static char owned_kind = 0;		/* what this process has claimed */

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static Size
shared_size(void)
{
	return add_size(offsetof(SharedState, slots),
					mul_size(setting_max_databases, sizeof(DatabaseSlot)));
}

static void
shared_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(shared_size()));
	RequestNamedLWLockTranche("carshop_outbox", 2);
}

/*
 * The files by which recovery knows that this is a standby or a backup; at its end
 * it takes them away or renames them (xlogrecovery.c, InitWalRecovery).  The
 * postmaster is in the data directory already.
 */
static bool
begins_elsewhere(void)
{
	return access(STANDBY_SIGNAL_FILE, F_OK) == 0 ||
		access(RECOVERY_SIGNAL_FILE, F_OK) == 0 ||
		access(BACKUP_LABEL_FILE, F_OK) == 0;
}

static void
shared_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("carshop_outbox", shared_size(), &found);
	if (!found)
	{
		LWLockPadded *locks = GetNamedLWLockTranche("carshop_outbox");

		memset(shared, 0, shared_size());
		shared->lock = &locks[0].lock;
		shared->reports_lock = &locks[1].lock;
		shared->began_elsewhere = begins_elsewhere();
		pg_atomic_init_u64(&shared->first_writer, 0);
		shared->n_slots = setting_max_databases;
		for (int i = 0; i < shared->n_slots; i++)
		{
			DatabaseSlot *slot = &shared->slots[i];

			pg_atomic_init_u32(&slot->relay_wake, 0);
			pg_atomic_init_u32(&slot->reporter_wake, 0);
			pg_atomic_init_u64(&slot->relay_woken_at, 0);
			pg_atomic_init_u32(&slot->prepared, 0);
			pg_atomic_init_u32(&slot->extension_changes, 0);
			pg_atomic_init_u32(&slot->parking_changes, 0);
			pg_atomic_init_u64(&slot->segment, 0);
			pg_atomic_init_u64(&slot->published_request, 0);
			pg_atomic_init_u64(&slot->published_answer, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

void
shared_install_hooks(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shared_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shared_startup;
}

bool
shared_available(void)
{
	return shared != NULL;
}

/* With shared->lock held.  InvalidOid finds a free one; NULL: there is none. */
static DatabaseSlot *
slot_of(Oid database)
{
	Assert(LWLockHeldByMe(shared->lock));
	for (int i = 0; i < shared->n_slots; i++)
	{
		if (shared->slots[i].database == database)
			return &shared->slots[i];
	}
	return NULL;
}

/*
 * Find the slot of our own database, taking one if wanted.  NULL when all are
 * taken (then the database cannot have workers; capture goes on), when it has
 * none, or without shared memory.
 */
DatabaseSlot *
shared_find_slot(Oid database, bool make)
{
	DatabaseSlot *slot;

	Assert(database == MyDatabaseId);
	if (shared == NULL || !OidIsValid(database))
		return NULL;
	if (my_slot != NULL)
	{
		Assert(my_slot->database == database);
		return my_slot;
	}

	LWLockAcquire(shared->lock, LW_SHARED);
	slot = slot_of(database);
	LWLockRelease(shared->lock);
	if (slot == NULL && make && shared_reserve(database))
	{
		LWLockAcquire(shared->lock, LW_SHARED);
		slot = slot_of(database);
		LWLockRelease(shared->lock);
		Assert(slot != NULL);
	}
	my_slot = slot;
	return slot;
}

/* A slot as good as new; its owners are gone. */
static void
clear_slot(DatabaseSlot *slot)
{
	Assert(LWLockHeldByMeInMode(shared->lock, LW_EXCLUSIVE));
	Assert(slot->relay.pid == 0 && slot->reporter.pid == 0);
	pg_atomic_write_u32(&slot->relay_wake, 0);
	pg_atomic_write_u32(&slot->reporter_wake, 0);
	pg_atomic_write_u32(&slot->prepared, 0);
	pg_atomic_write_u64(&slot->segment, 0);
	pg_atomic_write_u64(&slot->published_request, 0);
	pg_atomic_write_u64(&slot->published_answer, 0);
	slot->relay.left = slot->reporter.left = false;

	LWLockAcquire(shared->reports_lock, LW_EXCLUSIVE);
	slot->relay_reset_at = 0;
	slot->reporter_reset_at = 0;
	memset(&slot->relay_report, 0, sizeof(slot->relay_report));
	memset(&slot->reporter_report, 0, sizeof(slot->reporter_report));
	LWLockRelease(shared->reports_lock);
	slot->database = InvalidOid;
}

bool
shared_reserve(Oid database)
{
	DatabaseSlot *slot;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	slot = slot_of(database);
	if (slot == NULL && slot_of(InvalidOid) == NULL)
	{
		/* writers of a database that gets none come by often */
		LWLockRelease(shared->lock);
		return false;
	}
	LWLockRelease(shared->lock);
	if (slot != NULL)
		return true;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = slot_of(database);
	if (slot == NULL && (slot = slot_of(InvalidOid)) != NULL)
		slot->database = database;
	LWLockRelease(shared->lock);
	return slot != NULL;
}

Oid *
shared_databases(int *n)
{
	Oid		   *databases;

	*n = 0;
	if (shared == NULL)
		return NULL;
	databases = palloc(sizeof(Oid) * shared->n_slots);
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->n_slots; i++)
	{
		if (OidIsValid(shared->slots[i].database))
			databases[(*n)++] = shared->slots[i].database;
	}
	LWLockRelease(shared->lock);
	return databases;
}

void
shared_forget(Oid database)
{
	DatabaseSlot *slot;

	Assert(OidIsValid(database) && database != MyDatabaseId);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = slot_of(database);
	if (slot != NULL && slot->relay.pid == 0 && slot->reporter.pid == 0)
		clear_slot(slot);
	LWLockRelease(shared->lock);
}

static Owner *
owner_of(DatabaseSlot *slot, char kind)
{
	return kind == 'r' ? &slot->relay : &slot->reporter;
}

SharedClaim
shared_claim_worker(Oid database, char kind)
{
	DatabaseSlot *slot;
	Owner	   *owner;
	bool		claimed = false;

	Assert(owned_kind == 0 && my_slot == NULL);
	if (!shared_reserve(database))
		return SHARED_FULL;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = slot_of(database);
	owner = slot != NULL ? owner_of(slot, kind) : NULL;

	/*
	 * An owner that ended always cleared its entry: workers run
	 * before_shmem_exit callbacks, and a crash empties shared memory.
	 */
	if (owner != NULL && owner->pid == 0)
	{
		owner->pid = MyProcPid;
		owner->pgprocno = MyProc - ProcGlobal->allProcs;
		owner->left = false;
		owned_kind = kind;
		my_slot = slot;
		claimed = true;
	}
	LWLockRelease(shared->lock);
	if (slot == NULL)
		return SHARED_FULL;		/* dropped, and given back just now */
	if (!claimed)
		return SHARED_TAKEN;

	/* look once at what may have been committed before we were there */
	pg_atomic_write_u32(kind == 'r' ? &slot->relay_wake :
						&slot->reporter_wake, 1);
	return SHARED_CLAIMED;
}

void
shared_release_worker(bool asked_to_leave)
{
	Owner	   *owner;

	if (shared == NULL || my_slot == NULL || owned_kind == 0)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	owner = owner_of(my_slot, owned_kind);
	Assert(owner->pid == MyProcPid);
	owner->pid = 0;
	owner->pgprocno = 0;
	owner->left = asked_to_leave;
	LWLockRelease(shared->lock);
	owned_kind = 0;
}

/* What it was before. */
static bool
set_left(Oid database, char kind, bool left)
{
	DatabaseSlot *slot;
	bool		was = false;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = slot_of(database);
	if (slot != NULL)
	{
		was = owner_of(slot, kind)->left;
		owner_of(slot, kind)->left = left;
	}
	LWLockRelease(shared->lock);
	return was;
}

void
shared_note_left(Oid database, char kind)
{
	(void) set_left(database, kind, true);
}

bool
shared_take_left(Oid database, char kind)
{
	return set_left(database, kind, false);
}

int
shared_worker_pid(Oid database, char kind)
{
	DatabaseSlot *slot;
	int			pid = 0;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	slot = slot_of(database);
	if (slot != NULL)
		pid = owner_of(slot, kind)->pid;
	LWLockRelease(shared->lock);
	return pid;
}

/*
 * Runs also in a transaction's commit callback: must not raise an error.
 * LWLockAcquire does not, and nobody holds the lock for long.
 */
void
shared_wake(DatabaseSlot *slot, char kind)
{
	Owner	   *owner = owner_of(slot, kind);

	/* before the flag, so that who takes it finds a time */
	if (kind == 'r' && pg_atomic_read_u32(&slot->relay_wake) == 0)
		pg_atomic_write_u64(&slot->relay_woken_at, (uint64) GetCurrentTimestamp());
	/* a wake-up that nobody has taken yet covers this one */
	if (pg_atomic_exchange_u32(kind == 'r' ? &slot->relay_wake :
							   &slot->reporter_wake, 1) != 0)
		return;
	LWLockAcquire(shared->lock, LW_SHARED);
	if (owner->pid != 0)
		SetLatch(&ProcGlobal->allProcs[owner->pgprocno].procLatch);
	LWLockRelease(shared->lock);
}

void
shared_wake_relay(Oid database)
{
	DatabaseSlot *slot = shared_find_slot(database, false);

	if (slot != NULL)
		shared_wake(slot, 'r');
}

bool
shared_take_wake(TimestampTz *since)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, false);

	Assert(owned_kind == 'r');
	if (slot == NULL || pg_atomic_exchange_u32(&slot->relay_wake, 0) == 0)
		return false;
	if (since != NULL)
		*since = (TimestampTz) pg_atomic_read_u64(&slot->relay_woken_at);
	return true;
}

void
shared_wake_reporter(Oid database)
{
	DatabaseSlot *slot = shared_find_slot(database, false);

	if (slot != NULL)
		shared_wake(slot, 'p');
}

bool
shared_take_reporter_wake(void)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, false);

	Assert(owned_kind == 'p');
	return slot != NULL && pg_atomic_exchange_u32(&slot->reporter_wake, 0) != 0;
}

bool
shared_reporter_wake_waits(void)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, false);

	Assert(owned_kind == 'p');
	return slot != NULL && pg_atomic_read_u32(&slot->reporter_wake) != 0;
}

void
shared_note_extension(Oid database)
{
	DatabaseSlot *slot = shared_find_slot(database, false);

	if (slot != NULL)
	{
		pg_atomic_fetch_add_u32(&slot->extension_changes, 1);
		shared_wake(slot, 'r');
		shared_wake(slot, 'p');
	}
}

uint32
shared_extension_changes(void)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, false);

	return slot == NULL ? 0 : pg_atomic_read_u32(&slot->extension_changes);
}

void
shared_note_parking(Oid database)
{
	DatabaseSlot *slot = shared_find_slot(database, false);

	if (slot != NULL)
	{
		pg_atomic_fetch_add_u32(&slot->parking_changes, 1);
		shared_wake(slot, 'r');
	}
}

uint32
shared_parking_changes(void)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, false);

	return slot == NULL ? 0 : pg_atomic_read_u32(&slot->parking_changes);
}

void
shared_note_prepared(Oid database)
{
	DatabaseSlot *slot = shared_find_slot(database, false);

	if (slot != NULL)
	{
		pg_atomic_write_u32(&slot->prepared, 1);
		shared_wake(slot, 'r');
	}
}

bool
shared_prepared_noted(void)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, false);

	Assert(owned_kind == 'r');
	return slot != NULL && pg_atomic_read_u32(&slot->prepared) != 0;
}

void
shared_clear_prepared(void)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, false);

	Assert(owned_kind == 'r');
	if (slot != NULL)
		pg_atomic_write_u32(&slot->prepared, 0);
}

uint64
shared_request_published(Oid database)
{
	DatabaseSlot *slot = shared_find_slot(database, true);
	uint64		ticket;

	if (slot == NULL)
		return 0;
	ticket = pg_atomic_add_fetch_u64(&slot->published_request, 1);
	shared_wake(slot, 'r');
	return ticket;
}

bool
shared_is_published(Oid database, uint64 ticket)
{
	DatabaseSlot *slot = shared_find_slot(database, true);

	return slot != NULL &&
		pg_atomic_read_u64(&slot->published_answer) >= ticket;
}

uint64
shared_published_request(void)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, true);

	return slot ? pg_atomic_read_u64(&slot->published_request) : 0;
}

void
shared_set_published(uint64 ticket)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, true);

	if (slot != NULL)
		pg_atomic_write_u64(&slot->published_answer, ticket);
}

bool
shared_began_elsewhere(void)
{
	return shared != NULL && shared->began_elsewhere;
}

void
shared_note_writer(uint64 xid)
{
	uint64		first;

	if (shared == NULL)
		return;
	first = pg_atomic_read_u64(&shared->first_writer);
	while (first == 0 || xid < first)
	{
		if (pg_atomic_compare_exchange_u64(&shared->first_writer, &first, xid))
			return;
	}
}

uint64
shared_first_writer(void)
{
	return shared != NULL ? pg_atomic_read_u64(&shared->first_writer) : 0;
}

pg_atomic_uint64 *
shared_segment_word(void)
{
	DatabaseSlot *slot = shared_find_slot(MyDatabaseId, true);

	return slot ? &slot->segment : NULL;
}
