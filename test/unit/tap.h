/*-------------------------------------------------------------------------
 *
 * tap.h
 *	  Assertions of the unit tests, printed as TAP (test/prove reads it).
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A unit test is one program, test/unit/test_NAME.c: some functions full of
 * ok(), is_int() and is_text(), and a main() that ends with
 * "return done_testing();".  It is linked with every source of src/ that does
 * not include postgres.h, and runs under the address and undefined-behaviour
 * sanitizers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TAP_H
#define TAP_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int	tap_run = 0;
static int	tap_failed = 0;

/* True when it holds.  The name is printf-like: what holds, not how. */
__attribute__((format(printf, 4, 5), unused))
static bool
tap_ok(bool holds, const char *file, int line, const char *name, ...)
{
	va_list		args;

	tap_run++;
	if (!holds)
		tap_failed++;
	printf("%sok %d - ", holds ? "" : "not ", tap_run);
	va_start(args, name);
	vprintf(name, args);
	va_end(args);
	printf("\n");
	if (!holds)
		printf("#   at %s:%d\n", file, line);
	fflush(stdout);
	return holds;
}

__attribute__((unused))
static bool
tap_is_int(int64_t got, int64_t expected, const char *file, int line,
		   const char *name)
{
	if (tap_ok(got == expected, file, line, "%s", name))
		return true;
	printf("#   got %" PRId64 ", expected %" PRId64 "\n", got, expected);
	return false;
}

__attribute__((unused))
static bool
tap_is_text(const char *got, const char *expected, const char *file, int line,
			const char *name)
{
	bool		same = got == expected ||
	(got != NULL && expected != NULL && strcmp(got, expected) == 0);

	if (tap_ok(same, file, line, "%s", name))
		return true;
	printf("#   got      \"%s\"\n#   expected \"%s\"\n",
		   got ? got : "(null)", expected ? expected : "(null)");
	return false;
}

/* The plan comes last; the exit code says whether all held. */
__attribute__((unused))
static int
done_testing(void)
{
	printf("1..%d\n", tap_run);
	return tap_failed != 0;
}

#define ok(holds, ...) tap_ok((holds), __FILE__, __LINE__, __VA_ARGS__)
#define is_int(got, expected, name) \
	tap_is_int((got), (expected), __FILE__, __LINE__, (name))
#define is_text(got, expected, name) \
	tap_is_text((got), (expected), __FILE__, __LINE__, (name))
#define diag(...) (printf("# " __VA_ARGS__), printf("\n"))

#endif							/* TAP_H */
