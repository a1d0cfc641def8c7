/*-------------------------------------------------------------------------
 *
 * latency.c
 *	  How long after its COMMIT is an event in Kafka, and in a report table?
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Transactions are started at fixed times, whatever became of the ones before
 * (open loop): a stall of the server delays those that are due meanwhile, and
 * they count.  Each makes one event whose type and key say which transaction
 * it was.  The clock starts right before COMMIT is sent.  It stops when a
 * read_committed consumer of the topic has the message, and when a query of
 * another session sees the row in report.reported_events; that session asks
 * again two milliseconds after an empty answer (oftener costs the servers more
 * than it tells).
 *
 * Everything runs in this process, so that one clock serves all.
 *
 * Usage: latency -d CONNINFO -b BROKERS [option]...
 *	 -t TOPIC		car-shop-reported-events
 *	 -r RATE		transactions per second (200)
 *	 -s SECONDS		how long (20)
 *	 -c NUMBER		connections (4)
 *	 -w WORK		cars: every transaction adds a car (default);
 *					shop: a car, a customer, and the sale of the one to the other
 *	 -n NUMBER		of the first car (1)
 *	 -W SECONDS		transactions at the beginning that are left out of the
 *					percentiles (2)
 *	 -T SECONDS		how long to wait for the last events (30)
 *	 -K				do not look at the report tables
 *
 * Prints lines for programs:
 *	 progress SECONDS COMMITTED IN_KAFKA IN_REPORTS KAFKA_MS REPORT_MS
 *					each second; medians of what arrived since the line before
 *	 result NAME VALUE
 *					at the end; times are milliseconds
 * Exit code 1: an event did not arrive, or arrived twice.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "common.h"

#define POLL_US			2000
#define MAX_CONNECTIONS	100

typedef struct Transaction
{
	_Atomic int64_t sent;		/* COMMIT is about to be sent */
	_Atomic int64_t done;		/* COMMIT has returned */
	_Atomic int64_t in_kafka;
	_Atomic int64_t in_report;
} Transaction;

typedef enum Kind
{
	CAR_ADDED,
	CUSTOMER_ADDED,
	CAR_SOLD
} Kind;

static const char *const kind_names[] = {"CarAdded", "CustomerAdded", "CarSold"};

static const char *const first_names[] = {
	"Ada", "Edsger", "Grace", "Barbara", "Alan", "Frances", "Donald", "Radia"
};

static const char *conninfo;
static const char *brokers;
static const char *topic = "car-shop-reported-events";
static double rate = 200;
static double seconds = 20;
static double warm_up = 2;
static double patience = 30;
static int	connections = 4;
static bool whole_shop;
static bool look_at_reports = true;
static int64_t first_number = 1;

static Transaction *transactions;
static int64_t n_transactions;
static int64_t start;
static _Atomic int64_t n_committed;
static _Atomic int64_t n_in_kafka;
static _Atomic int64_t n_in_report;
static _Atomic int64_t n_twice;
static _Atomic bool finished;

/*
 * A connection adds a car, then a customer, then sells the one to the other:
 * so whatever a transaction builds upon was committed before by the same one.
 */
static void
describe(int64_t i, Kind *kind, int64_t *number)
{
	int64_t		turn = i / connections;

	*kind = whole_shop ? (Kind) (turn % 3) : CAR_ADDED;
	*number = first_number + i % connections +
		(whole_shop ? turn / 3 : turn) * connections;
}

/* The way back: which transaction made this event; NULL: none of ours. */
static Transaction *
transaction_of(Kind kind, int64_t number)
{
	int64_t		k = number - first_number;
	int64_t		turn = k / connections;
	int64_t		i;

	if (k < 0 || (kind != CAR_ADDED && !whole_shop))
		return NULL;
	if (whole_shop)
		turn = turn * 3 + kind;
	i = turn * connections + k % connections;
	return i < n_transactions ? &transactions[i] : NULL;
}

static int64_t
due(int64_t i)
{
	return start + (int64_t) ((double) i * 1e6 / rate);
}

/* ------------------------------------------------------------------------
 * The shop
 * ------------------------------------------------------------------------
 */
static PGconn *
open_connection(const char *name)
{
	PGconn	   *conn = PQconnectdb(conninfo);
	PGresult   *result;

	if (PQstatus(conn) != CONNECTION_OK)
		fail("%s", PQerrorMessage(conn));
	result = PQexecParams(conn, "SELECT pg_catalog.set_config('application_name', $1, false)",
						  1, NULL, &name, NULL, NULL, 0);
	PQclear(result);
	return conn;
}

static PGresult *
checked(PGconn *conn, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		fail("%s", PQerrorMessage(conn));
	return result;
}

static void
run(PGconn *conn, const char *sql)
{
	PQclear(checked(conn, PQexec(conn, sql)));
}

static void
prepare_statements(PGconn *conn)
{
	static const char *const sql[] = {
		"INSERT INTO public.\"Cars\" VALUES ($1::integer, $2)",
		"INSERT INTO public.\"Customers\" VALUES ($1, $2::integer, 30, NULL)",
		"UPDATE public.\"Customers\" SET \"CarNumber\" = $2::integer WHERE \"Name\" = $1"
	};

	for (int i = 0; i < 3; i++)
		PQclear(checked(conn, PQprepare(conn, kind_names[i], sql[i], 2, NULL)));
}

static void
change_row(PGconn *conn, Kind kind, int64_t number)
{
	char		digits[32];
	char		text[128];
	const char *values[2] = {text, digits};
	PGresult   *result;

	snprintf(digits, sizeof(digits), "%lld", (long long) number);
	if (kind != CAR_ADDED)
		snprintf(text, sizeof(text), "%s %s", first_names[number % 8], digits);
	else
	{
		if (number % 2)
			snprintf(text, sizeof(text),
					 "{\"$type\":\"PedalEngineEntity\",\"PedalSize\":%d}", (int) (number % 10) + 1);
		else
			snprintf(text, sizeof(text), "{\"$type\":\"HandEngineEntity\"}");
		values[0] = digits;
		values[1] = text;
	}
	if (kind == CUSTOMER_ADDED)
		values[1] = "70";
	result = checked(conn, PQexecPrepared(conn, kind_names[kind], 2, values, NULL, NULL, 0));
	if (strcmp(PQcmdTuples(result), "1") != 0)
		fail("%s %s changed no row", kind_names[kind], text);
	PQclear(result);
}

static void *
writer_main(void *arg)
{
	int64_t		first = (int64_t) (intptr_t) arg;
	PGconn	   *conn = open_connection("latency: shop");

	prepare_statements(conn);
	for (int64_t i = first; i < n_transactions; i += connections)
	{
		Kind		kind;
		int64_t		number;

		describe(i, &kind, &number);
		sleep_until(due(i));
		run(conn, "BEGIN");
		change_row(conn, kind, number);
		transactions[i].sent = now_us();
		run(conn, "COMMIT");
		transactions[i].done = now_us();
		n_committed++;
	}
	PQfinish(conn);
	return NULL;
}

/* ------------------------------------------------------------------------
 * Those who look
 * ------------------------------------------------------------------------
 */

/* The number at the end of a key: "17", "Ada 17"; -1: there is none. */
static int64_t
number_of(const char *key, size_t len)
{
	char		digits[24];
	size_t		n = 0;

	while (n < len && n < sizeof(digits) - 1 &&
		   key[len - 1 - n] >= '0' && key[len - 1 - n] <= '9')
		n++;
	if (n == 0)
		return -1;
	memcpy(digits, key + len - n, n);
	digits[n] = '\0';
	return strtoll(digits, NULL, 10);
}

static Transaction *
find(const char *type, size_t type_len, const char *key, size_t key_len)
{
	for (int kind = CAR_ADDED; kind <= CAR_SOLD; kind++)
	{
		if (strlen(kind_names[kind]) == type_len &&
			memcmp(kind_names[kind], type, type_len) == 0)
			return transaction_of((Kind) kind, number_of(key, key_len));
	}
	return NULL;
}

static void
arrived(_Atomic int64_t *moment, _Atomic int64_t *counter, int64_t now)
{
	if (*moment != 0)
		n_twice++;
	else
	{
		*moment = now;
		(*counter)++;
	}
}

static void *
kafka_main(void *arg)
{
	static const char begin[] = "{\"EventType\":\"";
	const size_t begin_len = sizeof(begin) - 1;
	rd_kafka_t *reader = arg;

	while (!finished)
	{
		rd_kafka_message_t *message = reader_next(reader, 100);
		int64_t		now = now_us();
		const char *value;
		const char *end;
		Transaction *transaction;

		if (message == NULL)
			continue;
		value = message->payload;
		if (value != NULL && message->key != NULL && message->len > begin_len &&
			memcmp(value, begin, begin_len) == 0 &&
			(end = memchr(value + begin_len, '"', message->len - begin_len)) != NULL)
		{
			transaction = find(value + begin_len, (size_t) (end - value) - begin_len,
							   message->key, message->key_len);
			if (transaction != NULL)
				arrived(&transaction->in_kafka, &n_in_kafka, now);
		}
		rd_kafka_message_destroy(message);
	}
	rd_kafka_consumer_close(reader);
	rd_kafka_destroy(reader);
	return NULL;
}

static void *
report_main(void *arg)
{
	PGconn	   *conn = arg;
	char		after[32];
	const char *values[1] = {after};
	PGresult   *result;

	result = checked(conn, PQexec(conn,
								  "SELECT coalesce(max(log_seq), 0) FROM report.reported_events"));
	snprintf(after, sizeof(after), "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	PQclear(checked(conn, PQprepare(conn, "look",
									"SELECT log_seq, event_type, event_key FROM report.reported_events"
									" WHERE log_seq > $1 ORDER BY log_seq LIMIT 10000", 1, NULL)));
	while (!finished)
	{
		int64_t		now;
		int			n;

		result = checked(conn, PQexecPrepared(conn, "look", 1, values, NULL, NULL, 0));
		now = now_us();
		n = PQntuples(result);
		for (int i = 0; i < n; i++)
		{
			Transaction *transaction;

			transaction = find(PQgetvalue(result, i, 1), (size_t) PQgetlength(result, i, 1),
							   PQgetvalue(result, i, 2), (size_t) PQgetlength(result, i, 2));
			if (transaction != NULL)
				arrived(&transaction->in_report, &n_in_report, now);
		}
		if (n > 0)
			snprintf(after, sizeof(after), "%s", PQgetvalue(result, n - 1, 0));
		PQclear(result);
		if (n == 0)
			sleep_until(now + POLL_US);
	}
	PQfinish(conn);
	return NULL;
}

/* ------------------------------------------------------------------------
 * The results
 * ------------------------------------------------------------------------
 */
static void
print_progress(int64_t since, int64_t now)
{
	Samples		kafka = {0};
	Samples		report = {0};

	for (int64_t i = 0; i < n_transactions; i++)
	{
		int64_t		sent = transactions[i].sent;
		int64_t		in_kafka = transactions[i].in_kafka;
		int64_t		in_report = transactions[i].in_report;

		if (in_kafka > since && in_kafka <= now)
			samples_add(&kafka, (double) (in_kafka - sent) / 1000);
		if (in_report > since && in_report <= now)
			samples_add(&report, (double) (in_report - sent) / 1000);
	}
	printf("progress %.0f %lld %lld %lld %.2f %.2f\n", (double) (now - start) / 1e6,
		   (long long) n_committed, (long long) n_in_kafka, (long long) n_in_report,
		   samples_share(&kafka, 0.5), samples_share(&report, 0.5));
	fflush(stdout);
	free(kafka.values);
	free(report.values);
}

/* True when every event was seen once. */
static bool
print_results(void)
{
	Samples		commit = {0};
	Samples		kafka = {0};
	Samples		report = {0};
	Samples		reading = {0};
	Samples		late = {0};
	int64_t		last = start;

	for (int64_t i = 0; i < n_transactions; i++)
	{
		Transaction *transaction = &transactions[i];

		if (transaction->done > last)
			last = transaction->done;
		if (due(i) < start + (int64_t) (warm_up * 1e6))
			continue;
		samples_add(&late, (double) (transaction->sent - due(i)) / 1000);
		samples_add(&commit, (double) (transaction->done - transaction->sent) / 1000);
		if (transaction->in_kafka != 0)
			samples_add(&kafka, (double) (transaction->in_kafka - transaction->sent) / 1000);
		if (transaction->in_report != 0)
			samples_add(&report, (double) (transaction->in_report - transaction->sent) / 1000);
		if (transaction->in_kafka != 0 && transaction->in_report != 0)
			samples_add(&reading, (double) (transaction->in_report - transaction->in_kafka) / 1000);
	}
	printf("result transactions %lld\n", (long long) n_committed);
	printf("result in_kafka %lld\n", (long long) n_in_kafka);
	printf("result in_report %lld\n", (long long) n_in_report);
	printf("result twice %lld\n", (long long) n_twice);
	printf("result rate %.1f\n", (double) n_committed * 1e6 / (double) (last - start));
	samples_print(&late, stdout, "late");
	samples_print(&commit, stdout, "commit");
	samples_print(&kafka, stdout, "kafka");
	if (look_at_reports)
	{
		samples_print(&report, stdout, "report");
		samples_print(&reading, stdout, "reading");
	}
	return n_twice == 0 && n_in_kafka == n_committed &&
		(!look_at_reports || n_in_report == n_committed);
}

static void
read_options(int argc, char **argv)
{
	int			option;

	while ((option = getopt(argc, argv, "d:b:t:r:s:c:w:n:W:T:K")) != -1)
	{
		switch (option)
		{
			case 'd':
				conninfo = optarg;
				break;
			case 'b':
				brokers = optarg;
				break;
			case 't':
				topic = optarg;
				break;
			case 'r':
				rate = atof(optarg);
				break;
			case 's':
				seconds = atof(optarg);
				break;
			case 'c':
				connections = atoi(optarg);
				break;
			case 'w':
				whole_shop = strcmp(optarg, "shop") == 0;
				break;
			case 'n':
				first_number = atoll(optarg);
				break;
			case 'W':
				warm_up = atof(optarg);
				break;
			case 'T':
				patience = atof(optarg);
				break;
			case 'K':
				look_at_reports = false;
				break;
			default:
				exit(2);
		}
	}
	if (conninfo == NULL || brokers == NULL || rate <= 0 || seconds <= 0 ||
		connections < 1 || connections > MAX_CONNECTIONS)
	{
		fprintf(stderr, "usage: latency -d CONNINFO -b BROKERS [-r RATE] [-s SECONDS] [-c CONNECTIONS] [-w cars|shop]\n");
		exit(2);
	}
	n_transactions = (int64_t) (rate * seconds);
	transactions = calloc((size_t) n_transactions + 1, sizeof(Transaction));
	if (transactions == NULL)
		fail("out of memory");
}

static bool
all_arrived(void)
{
	return n_committed == n_transactions && n_in_kafka >= n_committed &&
		(!look_at_reports || n_in_report >= n_committed);
}

int
main(int argc, char **argv)
{
	pthread_t	writers[MAX_CONNECTIONS];
	pthread_t	kafka;
	pthread_t	report;
	int64_t		shown;
	int64_t		deadline;
	bool		good;

	read_options(argc, argv);
	pthread_create(&kafka, NULL, kafka_main, reader_open(brokers, topic, false));
	if (look_at_reports)
		pthread_create(&report, NULL, report_main, open_connection("latency: report"));

	/* the connections are made before the first transaction is due */
	start = now_us() + 500000;
	shown = start;
	deadline = start + (int64_t) ((seconds + patience) * 1e6);
	for (int i = 0; i < connections; i++)
		pthread_create(&writers[i], NULL, writer_main, (void *) (intptr_t) i);

	while (!all_arrived() && now_us() < deadline)
	{
		sleep_until(now_us() + 20000);
		if (now_us() >= shown + 1000000)
		{
			print_progress(shown, shown + 1000000);
			shown += 1000000;
		}
	}
	if (n_committed < n_transactions)
		fail("the shop has not finished %lld of its transactions",
			 (long long) (n_transactions - n_committed));
	for (int i = 0; i < connections; i++)
		pthread_join(writers[i], NULL);
	finished = true;
	pthread_join(kafka, NULL);
	if (look_at_reports)
		pthread_join(report, NULL);
	good = print_results();
	return good ? 0 : 1;
}
