/*-------------------------------------------------------------------------
 *
 * trouble.c
 *	  What is wrong with a connection: the library's lines and events about
 *	  it, kept in words and under a code that has a remedy.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The library has one code, and in parts one text, for all that can be wrong
 * with a certificate, and another for whatever ends a connection.  Who has to
 * mend it differs: so certificates are explained by a callback, and the rest is
 * told apart by words.  The words are those of librdkafka 2.0 to 2.14 and
 * OpenSSL 3; what is not recognised keeps the library's code.
 *
 * Threads: the worker's; verify_certificate() runs in threads of the library,
 * and touches nothing but its arguments.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "kafka/internal.h"

/*
 * What lasts is heard of again within this time: the library holds back lines like
 * the last one for 30 s.
 */
#define KEEP_TROUBLE_MS 40000

/* ------------------------------------------------------------------------
 * Certificates
 * ------------------------------------------------------------------------
 */
typedef struct CertificateFault
{
	int			error;			/* of OpenSSL, x509_vfy.h; stable since 1.0 */
	int			code;
	const char *text;
} CertificateFault;

#define REFUSED ") verification callback failed: "

static const CertificateFault faults[] = {
	{2, KAFKA_CODE_UNTRUSTED, "the certificate of its CA is not known here"},
	{20, KAFKA_CODE_UNTRUSTED, "the certificate of its CA is not known here"},
	{21, KAFKA_CODE_UNTRUSTED, "its CA's certificate was not sent along and is not known here"},
	{18, KAFKA_CODE_UNTRUSTED, "it is signed by itself and not known here"},
	{19, KAFKA_CODE_UNTRUSTED, "its root CA is not known here"},
	{9, KAFKA_CODE_EXPIRED, "it is not valid yet"},
	{10, KAFKA_CODE_EXPIRED, "it has expired"},
	{62, KAFKA_CODE_OTHER_NAME, "it is for another host name"},
	{64, KAFKA_CODE_OTHER_NAME, "it is for another IP address"},
	{3, KAFKA_CODE_REVOKED, "there is no list of revoked certificates of its CA"},
	{12, KAFKA_CODE_REVOKED, "the list of revoked certificates has expired"},
	{23, KAFKA_CODE_REVOKED, "it was revoked"},
	{0, KAFKA_CODE_UNVERIFIED, NULL}
};

/*
 * OpenSSL has judged; this only puts the reason into words, which the library
 * then logs.  Nothing may be accepted here that was refused there.
 */
static int
verify_certificate(rd_kafka_t *rk, const char *broker, int32_t broker_id,
				   int *error, int depth, const char *certificate, size_t size,
				   char *reason, size_t reason_size, void *opaque)
{
	const CertificateFault *fault;

	if (*error == 0)
		return 1;
	for (fault = faults; fault->error != 0 && fault->error != *error; fault++)
		;
	if (fault->text != NULL)
		snprintf(reason, reason_size, "%s", fault->text);
	else
		snprintf(reason, reason_size, "OpenSSL's verification error %d", *error);
	return 0;
}

void
kafka_conf_explain_certificates(rd_kafka_conf_t *conf)
{
	(void) rd_kafka_conf_set_ssl_cert_verify_cb(conf, verify_certificate);
}

/* Our own words again, as they come back in a line. */
static int
certificate_code(const char *text)
{
	const char *reason = strstr(text, REFUSED);
	const CertificateFault *fault;

	if (reason == NULL)
		return KAFKA_CODE_UNVERIFIED;
	reason += strlen(REFUSED);
	for (fault = faults; fault->error != 0; fault++)
	{
		if (strncmp(reason, fault->text, strlen(fault->text)) == 0)
			return fault->code;
	}
	return KAFKA_CODE_UNVERIFIED;
}

/* ------------------------------------------------------------------------
 * What words mean
 * ------------------------------------------------------------------------
 */

/* The first that fits counts; both parts must be there. */
static const struct
{
	const char *words;
	const char *further;
	int			code;
}			meanings[] =

{
	{"SASL mechanism SCRAM-", "Authentication failed", KAFKA_CODE_SCRAM},
	{"SASL OAUTHBEARER token", "", KAFKA_CODE_NO_TOKEN},	/* Failed to acquire */
	{"no token available", "", KAFKA_CODE_NO_TOKEN},
	{"OAUTHBEARER authentication failed", "", KAFKA_CODE_TOKEN_REFUSED},
	{"SASL authentication error: {\"status\"", "", KAFKA_CODE_TOKEN_REFUSED},	/* RFC 7628 */
	{"certificate verify failed", "", KAFKA_CODE_UNVERIFIED},
	{"alert bad certificate", "", KAFKA_CODE_CLIENT_CERTIFICATE},
	{"alert certificate", "", KAFKA_CODE_CLIENT_CERTIFICATE},
	{"alert unsupported certificate", "", KAFKA_CODE_CLIENT_CERTIFICATE},
	{"alert unknown ca", "", KAFKA_CODE_CLIENT_CERTIFICATE},
	{"certificate required", "", KAFKA_CODE_CLIENT_CERTIFICATE},

	/* TLS meets a listener without */
	{"unexpected eof", "SSL_HANDSHAKE", KAFKA_CODE_PROTOCOL},
	{"wrong version number", "", KAFKA_CODE_PROTOCOL},
	{"PLAINTEXT broker listener", "", KAFKA_CODE_PROTOCOL},
	{"Disconnected", "in state SSL_HANDSHAKE", KAFKA_CODE_PROTOCOL},

	/* the other way round, and with or without SASL */
	{"incorrect security.protocol", "", KAFKA_CODE_PROTOCOL},
	{"Disconnected", "in state APIVERSION_QUERY", KAFKA_CODE_PROTOCOL},
	{"verify that security.protocol", "", KAFKA_CODE_PROTOCOL},
	{"current SASL state", "", KAFKA_CODE_PROTOCOL},

	/* lines have no code, only the event that follows has */
	{"SASL authentication error", "", RD_KAFKA_RESP_ERR__AUTHENTICATION},
	{"mechanism handshake failed", "", RD_KAFKA_RESP_ERR__AUTHENTICATION},
	{"SSL handshake failed", "", RD_KAFKA_RESP_ERR__SSL},
	{NULL, NULL, 0}
};

int
kafka_trouble_code(int code, const char *text)
{
	int			i;

	for (i = 0; meanings[i].words != NULL; i++)
	{
		if (strstr(text, meanings[i].words) != NULL &&
			strstr(text, meanings[i].further) != NULL)
			return meanings[i].code;
	}
	return code;
}

/* "... (_SSL)": the code that a failure line ends with; 0: it has none. */
static rd_kafka_resp_err_t
code_of_line(const char *text)
{
	const struct rd_kafka_err_desc *codes;
	const char *open = strrchr(text, '(');
	size_t		n = 0;
	size_t		len;
	size_t		i;

	if (open == NULL || open[1] != '_')
		return RD_KAFKA_RESP_ERR_NO_ERROR;
	len = strcspn(open + 1, ")");
	rd_kafka_get_err_descs(&codes, &n);
	for (i = 0; i < n; i++)
	{
		if (codes[i].name != NULL && strlen(codes[i].name) == len &&
			strncmp(codes[i].name, open + 1, len) == 0)
			return codes[i].code;
	}
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ------------------------------------------------------------------------
 * Keeping it
 * ------------------------------------------------------------------------
 */

/* A connection that ended while it was set up: the reason is told, or was. */
static bool
is_vague(int code, const char *text)
{
	if (code == KAFKA_CODE_UNVERIFIED)
		return true;
	return strstr(text, "in state SSL_HANDSHAKE") != NULL ||
		strstr(text, "in state APIVERSION_QUERY") != NULL ||
		strstr(text, "in state AUTH_") != NULL;
}

/* Does what is known say more than this does? */
static bool
known_better(const KafkaClient *client, int code, const char *text)
{
	int			known = client->trouble_code;

	if (kafka_client_trouble(client)[0] == '\0' || known < KAFKA_CODE_UNTRUSTED || known == KAFKA_CODE_UNVERIFIED ||
		known == KAFKA_CODE_PROTOCOL)
		return false;
	/* a reason that is as good as the known one is newer */
	return (code < KAFKA_CODE_UNTRUSTED || code == KAFKA_CODE_UNVERIFIED ||
			code == KAFKA_CODE_PROTOCOL) && is_vague(code, text);
}

/*
 * A broker that ends, or begins, hangs up on a new connection, and the library
 * takes that for a wrong protocol.  Where a broker has answered before, it is not.
 */
static bool
is_hang_up(const char *text)
{
	return strstr(text, "Disconnected") != NULL ||
		strstr(text, "unexpected eof") != NULL;
}

/*
 * "name: reason (after 5ms in state UP) (_X)" is kept as "name: reason", and
 * its code beside it.  The same failure also comes as a line without a code:
 * that takes nothing away.
 */
static void
remember(KafkaClient *client, const char *text, rd_kafka_resp_err_t of_library)
{
	char		words[sizeof(client->trouble)];
	int			code = kafka_trouble_code(of_library, text);
	char	   *suffix;

	if (code == KAFKA_CODE_PROTOCOL && client->answered && is_hang_up(text))
		code = RD_KAFKA_RESP_ERR__TRANSPORT;
	if (known_better(client, code, text))
		return;
	snprintf(words, sizeof(words), "%s", text);
	suffix = strstr(words, " (after ");
	if (suffix != NULL)
		*suffix = '\0';
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR ||
		strcmp(words, client->trouble) != 0)
		client->trouble_code = code;
	snprintf(client->trouble, sizeof(client->trouble), "%s", words);
	client->trouble_ms = kafka_now_ms();
}

/* "broker: Certificate (...) verification callback failed: reason". */
static void
remember_certificate(KafkaClient *client, const char *text)
{
	const char *reason = strstr(text, REFUSED);

	if (reason == NULL)
		return;
	snprintf(client->trouble, sizeof(client->trouble), "%.*s) refused: %s",
			 (int) (reason - text), text, reason + strlen(REFUSED));
	client->trouble_code = certificate_code(text);
	client->trouble_ms = kafka_now_ms();
}

/* A handle may live for weeks, and what was mended long ago explains nothing. */
const char *
kafka_client_trouble(const KafkaClient *client)
{
	return kafka_now_ms() - client->trouble_ms < KEEP_TROUBLE_MS ? client->trouble : "";
}

void
kafka_client_no_answer(const KafkaClient *client, int code, KafkaError *error)
{
	/* The connection's trouble says more than "timed out". */
	if (kafka_client_trouble(client)[0] == '\0')
		kafka_error_set(error, code, "no answer from Kafka yet");
	else
		kafka_error_set(error,
						client->trouble_code != 0 ? client->trouble_code : code,
						"%s", client->trouble);
}

/* ------------------------------------------------------------------------
 * Lines and events
 * ------------------------------------------------------------------------
 */

/* The name of the thread would hide the broker's name. */
static const char *
skip_thread(const char *text)
{
	const char *rest;

	if (strncmp(text, "[thrd:", 6) != 0)
		return text;
	rest = strstr(text, "]: ");
	return rest != NULL ? rest + 3 : text;
}

bool
kafka_trouble_is_known(const char *facility)
{
	static const char *const known[] = {
		"FAIL", "REQTMOUT", "GETPID", "TXNERR", "FATAL", "CONFWARN",
		"SSLCERTVRFY", NULL
	};
	int			i;

	for (i = 0; known[i] != NULL; i++)
	{
		if (strcmp(known[i], facility) == 0)
			return true;
	}
	return false;
}

/*
 * The library's own closing of connections is no trouble: when the handle goes, and
 * when another broker has become the coordinator (the first one at every start).
 * That may have cut a request off all the same.
 */
static bool
is_housekeeping(const char *text)
{
	return strstr(text, "(_DESTROY)") != NULL ||
		strstr(text, "nodename change") != NULL;
}

const char *
kafka_trouble_line(KafkaClient *client, const char *facility, const char *text)
{
	text = skip_thread(text);
	if (strcmp(facility, "SSLCERTVRFY") == 0)
		remember_certificate(client, text);
	else if ((strcmp(facility, "FAIL") == 0 || strcmp(facility, "REQTMOUT") == 0) &&
			 strstr(text, "(_DESTROY)") == NULL)
	{
		if (kafka_failure_counts(text))
			client->failures++;
		if (!is_housekeeping(text))
			remember(client, text, code_of_line(text));
	}
	return text;
}

void
kafka_trouble_event(KafkaClient *client, rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t code = rd_kafka_event_error(event);
	const char *text = rd_kafka_event_error_string(event);

	/*
	 * "1/1 brokers are down" follows from failures that are counted by their
	 * own lines, and says less.
	 */
	if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
	{
		if (kafka_client_trouble(client)[0] == '\0')
			remember(client, text, code);
		return;
	}
	/* a token that cannot be had cuts no connection off */
	if (kafka_failure_counts(text) &&
		kafka_trouble_code(code, text) != KAFKA_CODE_NO_TOKEN)
		client->failures++;
	remember(client, text, code);
}
