/*-------------------------------------------------------------------------
 *
 * test_trouble.c
 *	  What lines about a connection mean, and in which order; as librdkafka 2.0.2,
 *	  2.8.0 and 2.14.2 have written them to Kafka 4.2.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "kafka/internal.h"
#include "tap.h"

#define VERIFY "ssl://k:9093/1: Certificate (subject=/CN=b, issuer=/CN=ca) verification callback failed: "
#define FAILED "[thrd:x]: ssl://k:9093/1: "

typedef struct Line
{
	const char *facility;
	const char *text;
	int			code;
} Line;

static const Line lines[] = {
	{"SSLCERTVRFY", VERIFY "the certificate of its CA is not known here", KAFKA_CODE_UNTRUSTED},
	{"SSLCERTVRFY", VERIFY "it is signed by itself and not known here", KAFKA_CODE_UNTRUSTED},
	{"SSLCERTVRFY", VERIFY "it has expired", KAFKA_CODE_EXPIRED},
	{"SSLCERTVRFY", VERIFY "it is for another IP address", KAFKA_CODE_OTHER_NAME},
	{"SSLCERTVRFY", VERIFY "it was revoked", KAFKA_CODE_REVOKED},
	{"SSLCERTVRFY", VERIFY "OpenSSL's verification error 79", KAFKA_CODE_UNVERIFIED},
	{"FAIL", FAILED "error:0A000086:SSL routines::certificate verify failed (after 12ms in state SSL_HANDSHAKE)", KAFKA_CODE_UNVERIFIED},
	{"FAIL", FAILED "Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42 (after 0ms in state APIVERSION_QUERY)", KAFKA_CODE_CLIENT_CERTIFICATE},
	{"FAIL", FAILED "Receive failed: error:0A000416:SSL routines::ssl/tls alert certificate unknown: SSL alert number 46 (after 2ms in state APIVERSION_QUERY)", KAFKA_CODE_CLIENT_CERTIFICATE},
	{"FAIL", FAILED "SSL handshake failed: error:0A000126:SSL routines::unexpected eof while reading (after 10ms in state SSL_HANDSHAKE)", KAFKA_CODE_PROTOCOL},
	{"FAIL", FAILED "Disconnected (after 1ms in state SSL_HANDSHAKE)", KAFKA_CODE_PROTOCOL},
	{"FAIL", FAILED "SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker listener? (after 3ms in state SSL_HANDSHAKE)", KAFKA_CODE_PROTOCOL},
	{"FAIL", FAILED "Disconnected while requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request) (after 1ms in state APIVERSION_QUERY)", KAFKA_CODE_PROTOCOL},
	{"FAIL", FAILED "Disconnected: connection closed by peer: receive 0 after POLLIN (after 0ms in state APIVERSION_QUERY)", KAFKA_CODE_PROTOCOL},
	{"FAIL", FAILED "Disconnected: verify that security.protocol is correctly configured, broker might require SASL authentication (after 5ms in state UP)", KAFKA_CODE_PROTOCOL},
	{"FAIL", FAILED "SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's supported mechanisms:  (after 6ms in state AUTH_HANDSHAKE)", KAFKA_CODE_PROTOCOL},
	{"FAIL", FAILED "SASL authentication error: Authentication failed: Invalid username or password (after 302ms in state AUTH_REQ)", RD_KAFKA_RESP_ERR__AUTHENTICATION},
	{"FAIL", FAILED "SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512 (after 3ms in state AUTH_REQ)", KAFKA_CODE_SCRAM},
	{"FAIL", FAILED "SASL authentication error: {\"status\":\"invalid_token\"} (after 3ms in state AUTH_REQ)", KAFKA_CODE_TOKEN_REFUSED},
	{"FAIL", FAILED "Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT) (_TRANSPORT)", RD_KAFKA_RESP_ERR__TRANSPORT},
	{"FAIL", FAILED "Disconnected (after 600000ms in state UP) (_TRANSPORT)", RD_KAFKA_RESP_ERR__TRANSPORT},
	{NULL, NULL, 0}
};

static void
test_lines(void)
{
	for (int i = 0; lines[i].text != NULL; i++)
	{
		KafkaClient client = {0};
		KafkaError	error = {0};

		kafka_trouble_line(&client, lines[i].facility, lines[i].text);
		kafka_client_no_answer(&client, 0, &error);
		is_int(error.code, lines[i].code, lines[i].text);
		ok(strncmp(error.message, "ssl://k:9093/1: ", 16) == 0 && strstr(error.message, "(after") == NULL,
		   "in words: %s", error.message);
		is_int(kafka_needs_person(&error), lines[i].code != RD_KAFKA_RESP_ERR__TRANSPORT, "is waited for or not");
	}
}

/* A broker that ends hangs up on who connects: that is no wrong protocol. */
static void
test_hang_up(void)
{
	for (int i = 0; lines[i].text != NULL; i++)
	{
		KafkaClient client = {.answered = true};
		bool		hang_up = lines[i].code == KAFKA_CODE_PROTOCOL &&
		(strstr(lines[i].text, "Disconnected") != NULL ||
		 strstr(lines[i].text, "unexpected eof") != NULL);

		kafka_trouble_line(&client, lines[i].facility, lines[i].text);
		is_int(client.trouble_code, hang_up ? RD_KAFKA_RESP_ERR__TRANSPORT : lines[i].code,
			   lines[i].text);
	}
}

/* The coordinator moves: a request may be cut off, but nothing is wrong. */
static void
test_nodename(void)
{
	KafkaClient client = {0};

	kafka_trouble_line(&client, "FAIL", "[thrd:TxnCoordinator]: TxnCoordinator: Closing connection due to nodename change (after 10ms in state UP) (_TRANSPORT)");
	is_int(client.failures, 1, "another coordinator's connection taints");
	is_text(kafka_client_trouble(&client), "", "and is no trouble");
	kafka_trouble_line(&client, "FAIL", "[thrd:TxnCoordinator]: TxnCoordinator: Closing connection due to nodename change (after 10ms in state CONNECT) (_TRANSPORT)");
	is_int(client.failures, 1, "before it was up it does not");
}

/* What was heard long ago explains nothing. */
static void
test_age(void)
{
	KafkaClient client = {0};
	KafkaError	error = {0};

	kafka_trouble_line(&client, "FAIL", lines[19].text);
	kafka_client_no_answer(&client, 0, &error);
	is_int(error.code, RD_KAFKA_RESP_ERR__TRANSPORT, "what was just heard is the reason");
	client.trouble_ms -= 60000;
	kafka_client_no_answer(&client, 0, &error);
	is_text(error.message, "no answer from Kafka yet", "a minute later it is not");
	kafka_trouble_line(&client, "FAIL", lines[19].text);
	kafka_client_no_answer(&client, 0, &error);
	is_int(error.code, RD_KAFKA_RESP_ERR__TRANSPORT, "when it is heard of again it is");
}

/* What says less does not take the reason away; what is news does. */
static void
test_order(void)
{
	KafkaClient client = {0};

	kafka_trouble_line(&client, "SSLCERTVRFY", lines[2].text);
	kafka_trouble_line(&client, "FAIL", lines[6].text);
	is_int(client.trouble_code, KAFKA_CODE_EXPIRED, "the reason stays");
	is_text(client.trouble, "ssl://k:9093/1: Certificate (subject=/CN=b, issuer=/CN=ca) refused: it has expired",
			"in words");
	kafka_trouble_line(&client, "SSLCERTVRFY", lines[3].text);
	is_int(client.trouble_code, KAFKA_CODE_OTHER_NAME, "another reason replaces it");
	kafka_trouble_line(&client, "FAIL", lines[7].text);
	is_int(client.trouble_code, KAFKA_CODE_CLIENT_CERTIFICATE, "another certificate, too");
	kafka_trouble_line(&client, "FAIL", lines[13].text);
	is_int(client.trouble_code, KAFKA_CODE_CLIENT_CERTIFICATE, "a hang-up on the way does not");
	kafka_trouble_line(&client, "FAIL", lines[19].text);
	is_int(client.trouble_code, RD_KAFKA_RESP_ERR__TRANSPORT, "a broker that is down does");
	is_int(client.failures, 0, "none of them has cut a transaction off");
}

static void
test_remedies(void)
{
	KafkaError	error = {0};
	const char *general = kafka_remedy(&error);

	for (error.code = KAFKA_CODE_UNTRUSTED; error.code < KAFKA_CODE_END; error.code++)
	{
		const char *remedy = kafka_remedy(&error);

		ok(remedy != general && strlen(remedy) < 256 && remedy[0] >= 'A' && remedy[0] <= 'Z',
		   "code %d has a remedy of its own that fits: %zu bytes", error.code, strlen(remedy));
	}
}

int
main(void)
{
	test_lines();
	test_hang_up();
	test_nodename();
	test_age();
	test_order();
	test_remedies();
	return done_testing();
}
