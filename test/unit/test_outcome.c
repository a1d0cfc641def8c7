/*-------------------------------------------------------------------------
 *
 * test_outcome.c
 *	  What librdkafka's codes and failure lines mean for us.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "kafka/internal.h"
#include "tap.h"

static void
is_outcome(rd_kafka_resp_err_t code, KafkaOutcome expected)
{
	is_text(kafka_outcome_name(kafka_outcome_of(code)),
			kafka_outcome_name(expected), rd_kafka_err2name(code));
}

static void
test_codes(void)
{
	is_outcome(RD_KAFKA_RESP_ERR_NO_ERROR, KAFKA_OK);

	/* What depends on the record itself, and nothing else. */
	is_outcome(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, KAFKA_REFUSED);
	is_outcome(RD_KAFKA_RESP_ERR_INVALID_RECORD, KAFKA_REFUSED);
	is_outcome(RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, KAFKA_REFUSED);

	/* Clocks, the network, the topic's format, the cluster's policy. */
	is_outcome(RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, KAFKA_TROUBLE);
	is_outcome(RD_KAFKA_RESP_ERR_INVALID_MSG, KAFKA_TROUBLE);
	is_outcome(RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,
			   KAFKA_TROUBLE);
	is_outcome(RD_KAFKA_RESP_ERR_POLICY_VIOLATION, KAFKA_TROUBLE);
	is_outcome(RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE, KAFKA_UNCERTAIN);
	is_outcome(RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, KAFKA_UNCERTAIN);

	is_outcome(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, KAFKA_TROUBLE);
	is_outcome(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, KAFKA_TROUBLE);
	is_outcome(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, KAFKA_TROUBLE);
	is_outcome(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
			   KAFKA_TROUBLE);
	is_outcome(RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
			   KAFKA_TROUBLE);
	is_outcome(RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, KAFKA_TROUBLE);

	is_outcome(RD_KAFKA_RESP_ERR__FENCED, KAFKA_FENCED);
	is_outcome(RD_KAFKA_RESP_ERR_PRODUCER_FENCED, KAFKA_FENCED);
	is_outcome(RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, KAFKA_FENCED);

	is_outcome(RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT,
			   KAFKA_MISCONFIGURED);
	is_outcome(RD_KAFKA_RESP_ERR__TRANSPORT, KAFKA_UNREACHABLE);
	is_outcome(RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, KAFKA_UNREACHABLE);

	is_outcome(RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
			   KAFKA_UNCERTAIN);
	is_outcome(RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, KAFKA_UNCERTAIN);
	is_outcome(RD_KAFKA_RESP_ERR_UNKNOWN, KAFKA_UNCERTAIN);
	is_outcome((rd_kafka_resp_err_t) 9999, KAFKA_UNCERTAIN);
}

/* Nothing but these may ever make a dead letter of an event. */
static void
test_refusals(void)
{
	const struct rd_kafka_err_desc *codes;
	size_t		n;
	size_t		i;
	int			refused = 0;

	rd_kafka_get_err_descs(&codes, &n);
	for (i = 0; i < n; i++)
	{
		if (kafka_outcome_of(codes[i].code) == KAFKA_REFUSED)
			refused++;
	}
	is_int(refused, 3, "three codes blame a record");
}

static void
test_remedies(void)
{
	const struct rd_kafka_err_desc *codes;
	KafkaError	error = {.code = 0};
	const char *general = kafka_remedy(&error);
	size_t		n;
	size_t		i;

	ok(strstr(general, "carshop_outbox.brokers") != NULL,
	   "an error without a code has a general remedy");
	is_text(kafka_remedy(NULL), general, "so has no error at all");
	error.code = 9999;
	is_text(kafka_remedy(&error), general, "and an unknown code");

	rd_kafka_get_err_descs(&codes, &n);
	for (i = 0; i < n; i++)
	{
		KafkaOutcome outcome = kafka_outcome_of(codes[i].code);
		const char *remedy;

		if (outcome == KAFKA_OK || outcome == KAFKA_FENCED ||
			outcome == KAFKA_UNCERTAIN)
			continue;
		error.code = codes[i].code;
		remedy = kafka_remedy(&error);
		ok(remedy != general && strlen(remedy) > 15 && strlen(remedy) < 256 &&
		   remedy[0] >= 'A' && remedy[0] <= 'Z', "%s (%s) has a remedy of its own", codes[i].name,
		   kafka_outcome_name(outcome));
	}

	error.code = RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP;
	ok(strstr(kafka_remedy(&error), "clock of the PostgreSQL server") != NULL &&
	   strstr(kafka_remedy(&error), "clocks of the Kafka brokers") != NULL,
	   "a wrong timestamp names both clocks");
	error.code = RD_KAFKA_RESP_ERR__FENCED;
	error.timed_out = true;
	ok(strstr(kafka_remedy(&error), "carshop_outbox.transaction_timeout") != NULL,
	   "a transaction that was open too long names its time");
	error.code = RD_KAFKA_RESP_ERR__MSG_TIMED_OUT;
	ok(strstr(kafka_remedy(&error), "min.insync.replicas") != NULL &&
	   strstr(kafka_remedy(&error), "carshop_outbox.transaction_timeout") != NULL &&
	   strlen(kafka_remedy(&error)) < 256,
	   "records that nobody took in that time name the brokers first");
	error.timed_out = false;
	error.code = RD_KAFKA_RESP_ERR_NOT_COORDINATOR;
	ok(strstr(kafka_remedy(&error), "__transaction_state") != NULL &&
	   strstr(kafka_remedy(&error), "__consumer_offsets") != NULL,
	   "a coordinator can be a transaction's or a group's");
}

/* Lines as librdkafka 2.0.2 writes them. */
static void
test_failure_lines(void)
{
	ok(kafka_failure_counts("127.0.0.1:9092/1: Disconnected (after 4123ms in state UP) (_TRANSPORT)"),
	   "a connection that was up counts");
	ok(kafka_failure_counts("TxnCoordinator/1: 127.0.0.1:9092: 1 request(s) timed out: disconnect (after 61000ms in state UP) (_TIMED_OUT)"),
	   "the coordinator's connection counts");
	ok(kafka_failure_counts("127.0.0.1:9092/1: Disconnected (after 4ms in state UPDATE) (_TRANSPORT)"),
	   "so does one in the state UPDATE");
	ok(kafka_failure_counts("127.0.0.1:9092/1: something new"),
	   "a line that is not understood counts");
	ok(kafka_failure_counts("127.0.0.1:9092/1: Broken (after 1ms in state RENEWED) (_TRANSPORT)"),
	   "an unknown state counts");
	ok(!kafka_failure_counts("localhost:9092/1: Connect to ipv6#[::1]:9092 failed: Connection refused (after 0ms in state CONNECT) (_TRANSPORT)"),
	   "a refused connect does not count");
	ok(!kafka_failure_counts("TxnCoordinator/1: 127.0.0.1:9092: Closing connection due to nodename change (after 16ms in state TRY_CONNECT) (_TRANSPORT)"),
	   "nor does one before connecting");
	ok(!kafka_failure_counts("127.0.0.1:9092/1: Disconnected while requesting ApiVersion (after 3ms in state APIVERSION_QUERY) (_TRANSPORT)"),
	   "nor does one in the middle of its set-up");
	ok(!kafka_failure_counts("kafka.example:9092/bootstrap: Disconnected (after 600000ms in state UP) (_TRANSPORT)"),
	   "nor does a bootstrap connection of no known broker");
	ok(kafka_failure_counts("127.0.0.1:9092/1: Closed by x/bootstrap: y (after 6ms in state UP) (_TRANSPORT)"),
	   "which is told by the broker's name alone");
}

/* Who may not be asked is not known; who does not know the setting lacks it. */
static void
test_verification(void)
{
	static const struct
	{
		rd_kafka_resp_err_t code;
		const char *value;
		bool		answer;
		KafkaVerification expected;
		const char *what;
	}			cases[] = {
		{RD_KAFKA_RESP_ERR_NO_ERROR, "true", true, KAFKA_VERIFIES, "on"},
		{RD_KAFKA_RESP_ERR_NO_ERROR, "false", true, KAFKA_DOES_NOT_VERIFY, "off"},
		{RD_KAFKA_RESP_ERR_NO_ERROR, NULL, true, KAFKA_DOES_NOT_VERIFY, "not in the answer"},
		{RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, NULL, true, KAFKA_VERIFICATION_UNKNOWN, "not allowed to ask"},
		{RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, NULL, true, KAFKA_DOES_NOT_VERIFY, "a broker that cannot be asked"},
		{RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION, NULL, true, KAFKA_DOES_NOT_VERIFY, "or not by this library"},
		{RD_KAFKA_RESP_ERR_INVALID_CONFIG, NULL, true, KAFKA_DOES_NOT_VERIFY, "one that refuses the setting"},
		{RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, NULL, false, KAFKA_VERIFIES, "no answer is asked for again"},
		{RD_KAFKA_RESP_ERR__TRANSPORT, NULL, false, KAFKA_VERIFIES, "so is a broken connection"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		KafkaVerification verification = KAFKA_VERIFIES;

		ok(kafka_verification_of(cases[i].code, cases[i].value,
								 &verification) == cases[i].answer &&
		   verification == cases[i].expected,
		   cases[i].what);
	}
}

int
main(void)
{
	test_verification();
	test_codes();
	test_refusals();
	test_remedies();
	test_failure_lines();
	return done_testing();
}
