/*-------------------------------------------------------------------------
 *
 * control.c
 *	  The proxy's control socket: one command per line (see kafka_proxy.c).
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy.h"

typedef struct Control
{
	int			fd;				/* -1: free */
	char		line[512];
	size_t		len;
} Control;

static int	control_listener;
static Control controls[MAX_CONTROLS];

static void
answer(int fd, const char *format, ...)
{
	char		text[512];
	va_list		args;
	int			len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text) - 1, format, args);
	va_end(args);
	if (len > (int) sizeof(text) - 2)
		len = sizeof(text) - 2;
	text[len] = '\n';
	if (send(fd, text, (size_t) len + 1, MSG_NOSIGNAL) < 0)
		return;					/* the controller is gone */
}

/* Close clients' connections: all, idle ones, or producers'. */
static int
cut(const char *which)
{
	int			n = 0;

	for (int i = 0; i < MAX_CONNECTIONS; i++)
	{
		Connection *conn = &connections[i];

		if (conn->number == 0 || conn->detached ||
			(strcmp(which, "idle") == 0 && conn->first != NULL) ||
			(strcmp(which, "producer") == 0 && !conn->producer))
			continue;
		say("cut %s: connection=%d client=%s", which, conn->number, conn->client_id);
		close_connection(conn);
		n++;
	}
	return n;
}

/* Let go of what a rule holds back.  Returns on how many connections. */
static int
release_held(int rule)
{
	int			n = 0;

	for (int i = 0; i < MAX_CONNECTIONS; i++)
	{
		Connection *conn = &connections[i];

		if (conn->number == 0 || conn->held_by != rule)
			continue;
		if (conn->request_due != 0)
			conn->request_due = 1;
		if (conn->response_due != 0)
			conn->response_due = 1;
		conn->held_by = 0;
		n++;
	}
	return n;
}

/* "ms=M [client=TEXT]"; NULL, or what is wrong. */
static const char *
set_distance(const char *rest)
{
	char		client[sizeof(distant_client)] = "";
	int			ms;

	if (sscanf(rest, "ms=%d client=%63s", &ms, client) < 1 || ms < 0)
		return "delay wants ms=";
	distance_ms = ms;
	strcpy(distant_client, client);
	say("the broker is %d ms away", ms);
	return NULL;
}

static void
run_command(int fd, char *line)
{
	char	   *rest = strchr(line, ' ');
	const char *error = NULL;

	if (rest != NULL)
		*rest++ = '\0';
	else
		rest = line + strlen(line);

	if (is_rule(line))
	{
		int			number = add_rule(line, rest, &error);

		if (number > 0)
			answer(fd, "rule %d", number);
	}
	else if (strcmp(line, "cut") == 0 &&
			 (strcmp(rest, "all") == 0 || strcmp(rest, "idle") == 0 ||
			  strcmp(rest, "producer") == 0))
		answer(fd, "cut %d", cut(rest));
	else if (strcmp(line, "pause") == 0 || strcmp(line, "resume") == 0)
	{
		paused = line[0] == 'p';
		say("%s", paused ? "paused" : "resumed");
	}
	else if (strcmp(line, "delay") == 0)
		error = set_distance(rest);
	else if (strcmp(line, "release") == 0)
		answer(fd, "released %d", release_held(atoi(rest)));
	else if (strcmp(line, "clear") == 0)
		clear_rules();
	else if (strcmp(line, "rules") == 0)
	{
		const Rule *rule;

		for (int i = 0; (rule = get_rule(i)) != NULL; i++)
			answer(fd, "rule %d %s api=%d left=%d hits=%d", rule->number,
				   action_name(rule->action), rule->api, rule->left, rule->hits);
	}
	else if (strcmp(line, "stats") == 0)
	{
		for (int api = 0; api < MAX_API; api++)
			if (api_counts[api] > 0)
				answer(fd, "api %d %ld", api, api_counts[api]);
	}
	else if (strcmp(line, "connections") == 0)
	{
		for (int i = 0; i < MAX_CONNECTIONS; i++)
			if (connections[i].number != 0)
				answer(fd, "connection %d client=%s producer=%d waiting=%d detached=%d",
					   connections[i].number, connections[i].client_id,
					   connections[i].producer, connections[i].first != NULL,
					   connections[i].detached);
	}
	else
		error = "unknown command";

	if (error != NULL)
		answer(fd, "ERROR %s", error);
	else
		answer(fd, "OK");
}

static void
read_control(Control *control)
{
	char	   *newline;
	ssize_t		n = recv(control->fd, control->line + control->len,
						 sizeof(control->line) - control->len, MSG_DONTWAIT);

	if (n <= 0)
	{
		close(control->fd);
		control->fd = -1;
		return;
	}
	control->len += (size_t) n;
	while ((newline = memchr(control->line, '\n', control->len)) != NULL)
	{
		size_t		used = (size_t) (newline - control->line) + 1;

		*newline = '\0';
		run_command(control->fd, control->line);
		control->len -= used;
		memmove(control->line, control->line + used, control->len);
	}
	if (control->len == sizeof(control->line))
		control->len = 0;
}

void
control_open(int listener)
{
	control_listener = listener;
	for (int i = 0; i < MAX_CONTROLS; i++)
		controls[i].fd = -1;
}

void
control_prepare(struct pollfd *fds)
{
	fds[0] = (struct pollfd)
	{
		.fd = control_listener, .events = POLLIN
	};
	for (int i = 0; i < MAX_CONTROLS; i++)
		fds[1 + i] = (struct pollfd)
	{
		.fd = controls[i].fd, .events = POLLIN
	};
}

void
control_serve(const struct pollfd *fds)
{
	for (int i = 0; i < MAX_CONTROLS; i++)
		if (controls[i].fd >= 0 && fds[1 + i].revents != 0)
			read_control(&controls[i]);
	for (int i = 0; i < MAX_CONTROLS && (fds[0].revents & POLLIN); i++)
		if (controls[i].fd < 0)
		{
			controls[i].fd = accept4(control_listener, NULL, NULL, SOCK_CLOEXEC);
			controls[i].len = 0;
			break;
		}
}
