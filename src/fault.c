/*-------------------------------------------------------------------------
 *
 * fault.c
 *	  Places where a build for tests can be made to fail.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fault.h"

#ifdef MUTANTS

#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"

#define WAIT_MOST_MS	120000	/* a test that has died does not hold us */

/* Until somebody removes the file. */
static void
wait_while_there(const char *path)
{
	for (int ms = 0; ms < WAIT_MOST_MS && access(path, F_OK) == 0; ms += 10)
	{
		pg_usleep(10000);
		CHECK_FOR_INTERRUPTS();
		if (!PostmasterIsAlive())
			proc_exit(1);
	}
}

void
fault_point(const char *name)
{
	char		path[MAXPGPATH];
	char		other[MAXPGPATH];
	char		action[16] = "";
	int			nth = 1;
	FILE	   *file;

	/* the server's processes stand in the data directory */
	snprintf(path, sizeof(path), "carshop_fault.%s", name);
	file = fopen(path, "r");
	if (file == NULL)
		return;
	if (fscanf(file, "%15s %d", action, &nth) < 1)
		action[0] = '\0';
	fclose(file);

	if (nth > 1)
	{
		/* by another name first: it is read by others at the same time */
		snprintf(other, sizeof(other), "%s.%d", path, MyProcPid);
		file = fopen(other, "w");
		if (file == NULL)
			return;
		fprintf(file, "%s %d\n", action, nth - 1);
		fclose(file);
		(void) rename(other, path);
		return;
	}

	/* whoever takes the file away is the one that it strikes */
	snprintf(other, sizeof(other), "%s.waiting", path);
	if ((strcmp(action, "wait") == 0 ? rename(path, other) : unlink(path)) != 0)
		return;
	ereport(LOG, (errmsg("fault of a test: %s at %s", action, name)));
	if (strcmp(action, "wait") == 0)
		wait_while_there(other);
	else if (strcmp(action, "kill") == 0)
	{
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	}
	else
		ereport(ERROR, (errmsg("fault of a test at %s", name)));
}

#endif							/* MUTANTS */
