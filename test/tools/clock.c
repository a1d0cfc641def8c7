/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  A wall clock that a test can set, for all processes of one server.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Preloaded (LD_PRELOAD), it adds the number of microseconds that stands in the
 * file $CARSHOP_TEST_CLOCK, as eight bytes, to what gettimeofday() says.  PostgreSQL
 * takes its times from there.  Other clocks, also those of the Kafka library, go on.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t
offset(void)
{
	static const volatile int64_t *set = NULL;
	const char *path = getenv("CARSHOP_TEST_CLOCK");
	int			fd;
	void	   *map;

	if (set == NULL && path != NULL && (fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0)
	{
		map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (map != MAP_FAILED)
			set = map;
	}
	return set == NULL ? 0 : *set;
}

int
gettimeofday(struct timeval *tv, void *tz)
{
	struct timespec now;
	int64_t		us;

	(void) tz;
	clock_gettime(CLOCK_REALTIME, &now);
	us = (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000 + offset();
	tv->tv_sec = us / 1000000;
	tv->tv_usec = us % 1000000;
	return 0;
}
