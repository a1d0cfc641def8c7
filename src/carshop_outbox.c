/*-------------------------------------------------------------------------
 *
 * carshop_outbox.c
 *	  Entry point of the library: checks and calls, no logic.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "outbox/consequence.h"
#include "outbox/segment.h"
#include "outbox/wakeup.h"
#include "outbox/writer.h"
#include "settings.h"
#include "shared.h"
#include "worker/administration.h"
#include "worker/step_aside.h"
#include "worker/worker.h"

COMPAT_MODULE_MAGIC("carshop_outbox", CARSHOP_OUTBOX_VERSION);

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	settings_define();
	wakeup_install();
	writer_install();
	segment_install();
	consequence_install();

	/*
	 * Without shared_preload_libraries capture still stores events; nothing
	 * publishes them, and outbox.status says so.  During pg_upgrade no worker
	 * may write.
	 */
	if (!process_shared_preload_libraries_in_progress)
		return;
	shared_install_hooks();
	step_aside_install();
	if (IsBinaryUpgrade)
		return;
	administration_install();
	worker_register_launcher();
}
