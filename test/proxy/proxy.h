/*-------------------------------------------------------------------------
 *
 * proxy.h
 *	  The proxy's connections, as its loop and its control see them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef PROXY_H
#define PROXY_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "frames.h"
#include "rules.h"

#define MAX_CONNECTIONS 256
#define MAX_CONTROLS	8
#define MAX_API			128

/* A request that waits for its answer, in the order of sending. */
typedef struct Pending
{
	int32_t		correlation;
	int			api;
	bool		ruled;			/* a rule waits for the answer */
	Action		action;
	int			rule;
	int			ms;
	bool		keep;
	struct Pending *next;
} Pending;

typedef struct Connection
{
	int			number;			/* 0: free */
	int			client;			/* -1: closed, the broker's side lives on */
	int			broker;
	Buffer		from_client;
	Buffer		to_broker;
	Buffer		from_broker;
	Buffer		to_client;
	Pending    *first;
	Pending    *last;
	bool		producer;
	bool		closing;		/* close when the client has got what waits */
	bool		detached;
	char		client_id[64];
	int64_t		opened;			/* ms of the monotonic clock */

	/*
	 * The frame at the head is held back until then; 0: it is not, INT64_MAX:
	 * until it is released.
	 */
	int64_t		request_due;
	int64_t		response_due;
	int			held_by;		/* the rule that did it last */
	/* the frame at the head has been held back already */
	bool		request_held;
	bool		response_held;
} Connection;

extern Connection connections[MAX_CONNECTIONS];
extern long api_counts[MAX_API];	/* requests seen */
extern bool paused;

/* Every frame is under way for so long, in each direction; 0: for no time. */
extern int	distance_ms;
extern char distant_client[64]; /* only clients whose id contains it */

/* One line to standard output, with the time. */
extern void say(const char *format, ...);
extern void close_connection(Connection *conn);

/* control.c: the first 1 + MAX_CONTROLS descriptors of the loop are its own */
#define CONTROL_FDS		(1 + MAX_CONTROLS)
extern void control_open(int listener);
extern void control_prepare(struct pollfd *fds);
extern void control_serve(const struct pollfd *fds);

#endif							/* PROXY_H */
