/*-------------------------------------------------------------------------
 *
 * coverage.c
 *	  For test/instruments: SIGXCPU makes a process write gcov's counts.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * They are written by exit(), and an immediate stop of the server knows none.
 * Linked into the build that counts; nothing else sends this signal.  Everything
 * is blocked meanwhile, so that the process does not end in the middle of it.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>

extern void __gcov_dump(void);
extern void __gcov_reset(void);

static void
write_counts(int signal_number)
{
	(void) signal_number;
	__gcov_dump();
	__gcov_reset();
}

__attribute__((constructor))
static void
install(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = write_counts;
	action.sa_flags = SA_RESTART;
	sigfillset(&action.sa_mask);
	sigaction(SIGXCPU, &action, NULL);
}
