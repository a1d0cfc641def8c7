/*-------------------------------------------------------------------------
 *
 * standby.c
 *	  Which ticks do standbys have? (carshop_outbox.publish_after_standby)
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A walsender notes in shared memory how far its standby has flushed WAL, whether
 * or not the standby is a synchronous one; that is what pg_stat_replication shows.
 * It sets nobody's latch but those of waiting commits (syncrep.c), so it is looked
 * at again and again.
 *
 * What pg_basebackup receives does not count, it reports no flush; pg_receivewal
 * does, as with synchronous_standby_names.  Logical subscribers do not: nobody can
 * be promoted to them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "compat.h"
#include "mutants.h"
#include "outbox/standby.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "settings.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

/* Do so many standbys have that place on disk? */
static bool
flushed_by(XLogRecPtr lsn, int standbys)
{
	int			found = 0;

	for (int i = 0; i < max_wal_senders && found < standbys; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];
		pid_t		pid;
		XLogRecPtr	flush;

		SpinLockAcquire(&walsnd->mutex);
		pid = walsnd->pid;
		flush = walsnd->flush;
		SpinLockRelease(&walsnd->mutex);
		if ((MUTANT("standby_blind") || (pid != 0 && !XLogRecPtrIsInvalid(flush) && flush >= lsn)) &&
			!compat_is_logical(walsnd, pid))
			found++;
	}
	return found >= standbys;
}

int64
standby_safe_tick(StandbyWatch *watch, int64 newest)
{
	int			done = 0;

	if (newest > watch->noted)
	{
		/* full: the last one waits a little longer than it must */
		if (watch->n == STANDBY_TICKS)
			watch->n--;
		watch->ticks[watch->n] = newest;
		watch->lsns[watch->n] = GetFlushRecPtr(NULL);
		watch->n++;
		watch->noted = newest;
	}
	while (done < watch->n && flushed_by(watch->lsns[done], setting_publish_after_standby))
		watch->safe = watch->ticks[done++];
	watch->n -= done;
	memmove(watch->ticks, watch->ticks + done, sizeof(watch->ticks[0]) * watch->n);
	memmove(watch->lsns, watch->lsns + done, sizeof(watch->lsns[0]) * watch->n);
	return watch->safe;
}
