/*-------------------------------------------------------------------------
 *
 * subtransaction.c
 *	  Try something; if it fails, undo it and hand the error over.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The pattern of plpy_spi.c.  A cancel request is an error like any other
 * here; the end of the process (SIGTERM) is FATAL and passes through.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "worker/subtransaction.h"

bool
subtransaction_try(void (*work) (void *arg), void *arg, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	*error = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);

	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}
