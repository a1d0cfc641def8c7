/*-------------------------------------------------------------------------
 *
 * kafka_proxy.c
 *	  A TCP proxy that understands Kafka's framing, for fault tests.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * It listens on loopback and forwards to one broker whose advertised listener
 * is the proxy's own address, so that every connection of a client passes
 * through it.  Packet tools can delay or cut a connection; only something that
 * reads the frames can lose the answer to one EndTxn, or deliver an EndTxn
 * seconds after its connection was closed.
 *
 * Usage: kafka_proxy --listen PORT --broker PORT --control SOCKET
 *
 * A frame is int32 size, then for a request int16 api key, int16 api version,
 * int32 correlation id, int16-prefixed client id; for a response int32
 * correlation id.  A broker answers the requests of one connection in order;
 * the proxy never reorders either direction: what is held back holds back what
 * follows it.
 *
 * Control: a Unix socket, one command per line; an answer is any number of
 * lines followed by "OK", or "ERROR reason".
 *
 *	 drop-response api=N		forward the request, swallow the answer, close
 *								the client's connection (keep=1: leave it open)
 *	 close api=N when=request|response
 *								close instead of forwarding the request, or
 *								instead of delivering the answer
 *	 delay-request api=N ms=M	hold the request back; detach=1: close the
 *								client's socket at once and deliver the request
 *								on the broker's connection, which stays open (so
 *								is a held request when the client itself ends)
 *	 delay-response api=N ms=M	hold the answer back
 *	 hold-request api=N, hold-response api=N, release RULE
 *								the same, until it is released
 *		with each of them: count=N (default 1, 0: for ever), skip=N (let the
 *		first N pass), producer=1 (only connections that have sent Produce,
 *		InitProducerId or EndTxn; the broker itself sends AddPartitionsToTxn
 *		through its advertised address), client=TEXT (only client ids that
 *		contain TEXT)
 *	 delay ms=M [client=TEXT]	as if the broker were M ms away: every frame of
 *								such clients is under way for so long in each
 *								direction, others follow it at once; ms=0 ends
 *								that.  Connecting takes a round trip, too
 *	 cut all|idle|producer		close clients' connections now; idle: those
 *								with no request under way
 *	 pause, resume				move no byte in any direction
 *	 rules, clear				list with hits, forget
 *	 stats						requests seen per api key
 *	 connections				one line each
 *
 * Every hit is logged to standard output with the time.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proxy.h"

#define BUFFER_LIMIT	(8 * 1024 * 1024)	/* stop reading above this */

#define API_PRODUCE				0
#define API_INIT_PRODUCER_ID	22
#define API_END_TXN				26

Connection	connections[MAX_CONNECTIONS];
long		api_counts[MAX_API];
bool		paused;
int			distance_ms;
char		distant_client[64];

static int	next_connection = 1;
static int	broker_port;
static volatile sig_atomic_t stop_requested;

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void
say(const char *format, ...)
{
	struct timespec ts;
	struct tm	tm;
	char		stamp[32];
	va_list		args;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	printf("%s.%03ldZ ", stamp, ts.tv_nsec / 1000000);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

/* ------------------------------------------------------------------------
 * Connections
 * ------------------------------------------------------------------------
 */
static void
close_client(Connection *conn)
{
	if (conn->client >= 0)
		close(conn->client);
	conn->client = -1;
}

void
close_connection(Connection *conn)
{
	close_client(conn);
	if (conn->broker >= 0)
		close(conn->broker);
	while (conn->first != NULL)
	{
		Pending    *gone = conn->first;

		conn->first = gone->next;
		free(gone);
	}
	buffer_free(&conn->from_client);
	buffer_free(&conn->to_broker);
	buffer_free(&conn->from_broker);
	buffer_free(&conn->to_client);
	memset(conn, 0, sizeof(*conn));
}

static void
no_delay(int fd)
{
	int			on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static struct sockaddr_in
loopback(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET};

	address.sin_port = htons((uint16_t) port);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

/* A new client: connect to the broker for it.  On loopback that never waits. */
static void
accept_client(int listener)
{
	struct sockaddr_in address = loopback(broker_port);
	int			client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	int			broker;

	if (client < 0)
		return;
	broker = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	for (int i = 0; broker >= 0 && i < MAX_CONNECTIONS; i++)
	{
		Connection *conn = &connections[i];

		if (conn->number != 0)
			continue;
		if (connect(broker, (struct sockaddr *) &address, sizeof(address)) != 0)
			break;
		no_delay(client);
		no_delay(broker);
		conn->number = next_connection++;
		conn->client = client;
		conn->broker = broker;
		conn->opened = now_ms();
		return;
	}
	if (broker >= 0)
		close(broker);
	close(client);
}

static void
log_hit(const Connection *conn, int rule, const char *what, int api,
		int32_t correlation)
{
	say("rule %d: %s api=%d correlation=%d connection=%d client=%s",
		rule, what, api, correlation, conn->number, conn->client_id);
}

/* Put a frame on its way. */
static void
forward(const Connection *conn, Buffer *to, const char *frame, size_t len)
{
	int64_t		from = now_ms();

	if (distance_ms == 0 || strstr(conn->client_id, distant_client) == NULL)
	{
		if (to->first == NULL)
			buffer_add(to, frame, len);
		else
			buffer_add_later(to, frame, len, from);
		return;
	}
	/* the client's socket is connected at once: that is made up for here */
	if (to == &conn->to_broker && from < conn->opened + 2 * distance_ms)
		from = conn->opened + 2 * distance_ms;
	buffer_add_later(to, frame, len, from + distance_ms);
}

/* Remember a request that was forwarded; its answer comes in this order. */
static void
add_pending(Connection *conn, int api, int32_t correlation, const Rule *rule)
{
	Pending    *pending = calloc(1, sizeof(Pending));

	if (pending == NULL)
		die("out of memory");
	pending->api = api;
	pending->correlation = correlation;
	if (rule != NULL && rule->action != DELAY_REQUEST)
	{
		pending->ruled = true;
		pending->action = rule->action;
		pending->rule = rule->number;
		pending->ms = rule->ms;
		pending->keep = rule->keep;
	}
	if (conn->last != NULL)
		conn->last->next = pending;
	else
		conn->first = pending;
	conn->last = pending;
}

/*
 * Close the client's socket; the request at the head still goes to the broker.
 * What followed it on the connection is lost with the socket.
 */
static void
detach(Connection *conn)
{
	size_t		len;
	bool		broken;

	if (frame_at_head(&conn->from_client, 8, &len, &broken) != NULL)
		conn->from_client.end = conn->from_client.start + len;
	conn->detached = true;
	close_client(conn);
}

/*
 * Forward requests that have arrived completely.  False: the connection is to
 * be closed.
 */
static bool
pump_requests(Connection *conn)
{
	const char *frame;
	size_t		len;
	bool		broken = false;

	while (conn->request_due == 0 &&
		   (frame = frame_at_head(&conn->from_client, 8, &len, &broken)) != NULL)
	{
		int			api = get_int16(frame + 4);
		int32_t		correlation = get_int32(frame + 8);
		const Rule *rule = NULL;

		if (len >= 14 && get_int16(frame + 12) >= 0)
		{
			size_t		id_len = (size_t) get_int16(frame + 12);

			if (14 + id_len <= len)
				snprintf(conn->client_id, sizeof(conn->client_id), "%.*s",
						 (int) id_len, frame + 14);
		}
		if (api == API_PRODUCE || api == API_INIT_PRODUCER_ID || api == API_END_TXN)
			conn->producer = true;
		if (!conn->request_held)
		{
			if (api >= 0 && api < MAX_API)
				api_counts[api]++;
			rule = match_rule(api, conn->producer, conn->client_id);
		}
		if (rule != NULL && rule->action == CLOSE_REQUEST)
		{
			log_hit(conn, rule->number, "closed, request not forwarded", api, correlation);
			return false;
		}
		if (rule != NULL && rule->action == DELAY_REQUEST)
		{
			conn->request_due = rule->ms < 0 ? INT64_MAX : now_ms() + rule->ms;
			conn->request_held = true;
			conn->held_by = rule->number;
			if (rule->detach)
				detach(conn);
			log_hit(conn, rule->number,
					rule->detach ? "closed, request delivered later" : "request held back",
					api, correlation);
			break;
		}
		if (conn->request_held)
			say("held request goes to the broker: api=%d correlation=%d connection=%d",
				api, correlation, conn->number);
		conn->request_held = false;
		add_pending(conn, api, correlation, rule);
		forward(conn, &conn->to_broker, frame, len);
		buffer_take(&conn->from_client, len);
	}
	return !broken;
}

/* Deliver answers that have arrived completely. */
static bool
pump_responses(Connection *conn)
{
	const char *frame;
	size_t		len;
	bool		broken = false;

	while (conn->response_due == 0 && !conn->closing &&
		   (frame = frame_at_head(&conn->from_broker, 4, &len, &broken)) != NULL)
	{
		int32_t		correlation = get_int32(frame + 4);
		Pending    *pending = conn->first;
		bool		deliver = true;

		/* requests without an answer (acks=0) are passed over */
		while (pending != NULL && pending->correlation != correlation)
			pending = pending->next;
		if (pending != NULL && pending->ruled && !conn->response_held)
		{
			switch (pending->action)
			{
				case DROP_RESPONSE:
					deliver = false;
					conn->closing = !pending->keep;
					log_hit(conn, pending->rule, "answer dropped", pending->api, correlation);
					break;
				case CLOSE_RESPONSE:
					log_hit(conn, pending->rule, "closed, answer not delivered", pending->api, correlation);
					return false;
				case DELAY_RESPONSE:
					conn->response_due = pending->ms < 0 ? INT64_MAX : now_ms() + pending->ms;
					conn->response_held = true;
					conn->held_by = pending->rule;
					log_hit(conn, pending->rule, "answer held back", pending->api, correlation);
					continue;
				default:
					break;
			}
		}
		conn->response_held = false;
		if (conn->detached)
			say("late answer from the broker: api=%d correlation=%d error=%d connection=%d",
				pending ? pending->api : -1, correlation,
				len >= 14 ? get_int16(frame + 12) : -1, conn->number);
		if (pending != NULL)
		{
			Pending    *gone;

			do
			{
				gone = conn->first;
				conn->first = gone->next;
				if (conn->first == NULL)
					conn->last = NULL;
				correlation = gone->correlation;
				free(gone);
			} while (gone != pending);
		}
		if (deliver && conn->client >= 0)
			forward(conn, &conn->to_client, frame, len);
		buffer_take(&conn->from_broker, len);
	}
	/* a detached connection has nothing more to do after the late answer */
	if (conn->detached && conn->first == NULL && !conn->request_held)
		return false;
	return !broken;
}

/* ------------------------------------------------------------------------
 * The loop
 * ------------------------------------------------------------------------
 */

/* Move what can be moved on one connection.  False: close it. */
static bool
serve(Connection *conn, short client_events, short broker_events)
{
	if (conn->client >= 0 && (client_events & (POLLIN | POLLHUP | POLLERR)) &&
		!buffer_read(&conn->from_client, conn->client))
	{
		if (!conn->request_held)
			return false;
		detach(conn);
	}
	if ((broker_events & (POLLIN | POLLHUP | POLLERR)) &&
		!buffer_read(&conn->from_broker, conn->broker))
		return false;
	if (conn->request_due != 0 && conn->request_due <= now_ms())
		conn->request_due = 0;
	if (conn->response_due != 0 && conn->response_due <= now_ms())
		conn->response_due = 0;
	if (!pump_requests(conn) || !pump_responses(conn))
		return false;
	buffer_release(&conn->to_broker, now_ms());
	buffer_release(&conn->to_client, now_ms());
	if (!buffer_write(&conn->to_broker, conn->broker))
		return false;
	if (conn->client >= 0 && !buffer_write(&conn->to_client, conn->client))
		return false;
	/* a dropped answer: close when the answers before it are delivered */
	return !(conn->closing && buffer_len(&conn->to_client) == 0);
}

static int
listen_on(int domain, const struct sockaddr *address, socklen_t len)
{
	int			fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int			on = 1;

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, address, len) != 0 || listen(fd, 64) != 0)
		die("could not listen");
	return fd;
}

static void
request_stop(int signo)
{
	(void) signo;
	stop_requested = 1;
}

/* When the next held frame is due, as a timeout for poll. */
static int
next_due(void)
{
	int64_t		due = INT64_MAX;
	int64_t		now = now_ms();

	for (int i = 0; i < MAX_CONNECTIONS; i++)
	{
		if (connections[i].request_due != 0 && connections[i].request_due < due)
			due = connections[i].request_due;
		if (connections[i].response_due != 0 && connections[i].response_due < due)
			due = connections[i].response_due;
		if (buffer_due(&connections[i].to_broker) < due)
			due = buffer_due(&connections[i].to_broker);
		if (buffer_due(&connections[i].to_client) < due)
			due = buffer_due(&connections[i].to_client);
	}
	if (due == INT64_MAX)
		return -1;
	return due <= now ? 0 : (int) (due - now);
}

static void
run(int listener)
{
	static struct pollfd fds[1 + CONTROL_FDS + 2 * MAX_CONNECTIONS];
	const int	first = 1 + CONTROL_FDS;

	while (!stop_requested)
	{
		fds[0] = (struct pollfd)
		{
			.fd = paused ? -1 : listener, .events = POLLIN
		};
		control_prepare(fds + 1);
		for (int i = 0; i < MAX_CONNECTIONS; i++)
		{
			Connection *conn = &connections[i];
			struct pollfd *client = &fds[first + 2 * i];
			struct pollfd *broker = client + 1;

			*client = *broker = (struct pollfd)
			{
				.fd = -1
			};
			if (conn->number == 0 || paused)
				continue;
			client->fd = conn->client;
			broker->fd = conn->broker;
			if (buffer_len(&conn->to_broker) < BUFFER_LIMIT &&
				(conn->request_due == 0 || buffer_len(&conn->from_client) < BUFFER_LIMIT))
				client->events |= POLLIN;
			if (buffer_len(&conn->to_client) < BUFFER_LIMIT &&
				(conn->response_due == 0 || buffer_len(&conn->from_broker) < BUFFER_LIMIT))
				broker->events |= POLLIN;
			if (buffer_ready(&conn->to_client) > 0)
				client->events |= POLLOUT;
			if (buffer_ready(&conn->to_broker) > 0)
				broker->events |= POLLOUT;
		}
		if (poll(fds, first + 2 * MAX_CONNECTIONS, paused ? -1 : next_due()) < 0)
		{
			if (errno == EINTR)
				continue;
			die("poll");
		}
		for (int i = 0; i < MAX_CONNECTIONS && !paused; i++)
			if (connections[i].number != 0 &&
				!serve(&connections[i], fds[first + 2 * i].revents,
					   fds[first + 2 * i + 1].revents))
				close_connection(&connections[i]);
		control_serve(fds + 1);
		if (fds[0].revents & POLLIN)
			accept_client(listener);
	}
}

int
main(int argc, char **argv)
{
	struct sockaddr_un control_address = {.sun_family = AF_UNIX};
	struct sockaddr_in address;
	const char *control = NULL;
	int			port = 0;
	int			listener;

	for (int i = 1; i + 1 < argc; i += 2)
	{
		if (strcmp(argv[i], "--listen") == 0)
			port = atoi(argv[i + 1]);
		else if (strcmp(argv[i], "--broker") == 0)
			broker_port = atoi(argv[i + 1]);
		else if (strcmp(argv[i], "--control") == 0)
			control = argv[i + 1];
	}
	if (port <= 0 || broker_port <= 0 || control == NULL ||
		strlen(control) >= sizeof(control_address.sun_path))
	{
		fprintf(stderr, "usage: kafka_proxy --listen PORT --broker PORT --control SOCKET\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, request_stop);
	signal(SIGINT, request_stop);
	prctl(PR_SET_PDEATHSIG, SIGTERM);	/* never outlive the test */

	address = loopback(port);
	listener = listen_on(AF_INET, (struct sockaddr *) &address, sizeof(address));
	unlink(control);
	strcpy(control_address.sun_path, control);
	control_open(listen_on(AF_UNIX, (struct sockaddr *) &control_address,
						   sizeof(control_address)));
	say("listening on %d, broker on %d", port, broker_port);
	run(listener);
	unlink(control);
	return 0;
}
