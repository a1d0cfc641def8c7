/*-------------------------------------------------------------------------
 *
 * remedy.c
 *	  What a person can do about an error, by its code.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The message of an error says what happened, in the library's or the
 * broker's words; the remedy says who has to change what.
 *
 * Each is shorter than 256 bytes, which is what the status has room for.  Codes
 * in which one outage shows itself by turns share one remedy, so that it can be
 * told by it: see remedy_for_connection.
 *
 * Threads: any.  Memory: static text.
 *
 *-------------------------------------------------------------------------
 */
#include "kafka/internal.h"

static const char general[] =
"Check that Kafka runs and that carshop_outbox.brokers names its brokers; the server's log and Kafka's may say more.";

#define IN_FILE ", in the file that carshop_outbox.kafka_config_file names"

/* Certificates, protocols and credentials: codes of ours, see trouble.c. */
static const char *
remedy_for_security(int code)
{
	switch (code)
	{
		case KAFKA_CODE_UNTRUSTED:
			return "Name the CA that has signed the brokers' certificate with ssl.ca.location (or ssl.ca.pem)" IN_FILE ".";
		case KAFKA_CODE_EXPIRED:
			return "Renew the certificate of the Kafka broker's listener, or set the clock of the PostgreSQL server right.";
		case KAFKA_CODE_OTHER_NAME:
			return "Connect by a name that the brokers' certificate has (carshop_outbox.brokers and the brokers' advertised.listeners), or give them one with these names; ssl.endpoint.identification.algorithm = none would not look.";
		case KAFKA_CODE_REVOKED:
			return "Check ssl.crl.location" IN_FILE ", and the certificate of the Kafka broker's listener.";
		case KAFKA_CODE_UNVERIFIED:
			return "Check ssl.ca.location" IN_FILE ", and the certificate of the Kafka broker's listener: issuer, dates and names.";
		case KAFKA_CODE_CLIENT_CERTIFICATE:
			return "Set ssl.certificate.location and ssl.key.location" IN_FILE ", to a certificate that has not expired and is signed by a CA that Kafka's listener trusts.";
		case KAFKA_CODE_PROTOCOL:
			return "Set security.protocol" IN_FILE ", to what the listener speaks (plaintext, ssl, sasl_plaintext, sasl_ssl), or correct the port in carshop_outbox.brokers. A broker that is starting looks the same.";
		case KAFKA_CODE_NO_TOKEN:
			return "See to what renews the file that sasl.oauthbearer.token.file names (or to sasl.oauthbearer.token.endpoint.url, the client's id and secret); a new token is taken up by itself.";
		case KAFKA_CODE_TOKEN_REFUSED:
			return "See that the token in the file of sasl.oauthbearer.token.file (or from sasl.oauthbearer.token.endpoint.url) has the issuer, audience and claims that Kafka's listener asks for.";
		case KAFKA_CODE_SCRAM:

			/*
			 * It repeats the client's part of the nonce, which Kafka 4 does
			 * not let pass any more (librdkafka #4895).
			 */
			if (rd_kafka_version() < 0x020601ff)
				return "Use librdkafka 2.6.1 or newer: this one cannot do SCRAM with Kafka 4.0 or newer, only with older ones. With those check sasl.username and sasl.password" IN_FILE ".";
			return "Check sasl.username and sasl.password" IN_FILE ", and that Kafka has the user's credentials for this mechanism.";
		case KAFKA_CODE_PROPERTY:
			return "Correct carshop_outbox.brokers or the property that the message names" IN_FILE ", then SELECT pg_reload_conf();";
		case KAFKA_CODE_UNSUPPORTED:
			return "Use another librdkafka (Debian 12 builds it without OIDC, Debian 13 with it) or do without the property; a token can also come from a file: sasl.oauthbearer.token.file.";
		case KAFKA_CODE_FILE:
			return "Let the server's operating system user read the file, or correct the property" IN_FILE ", then SELECT pg_reload_conf();";
		case KAFKA_CODE_CLIENT:
			return "Correct the certificate, key or password that the message names, or the property" IN_FILE ", then SELECT pg_reload_conf();";
		default:
			return NULL;
	}
}

/* Rights: each names the ACL. */
static const char *
remedy_for_rights(rd_kafka_resp_err_t code)
{
	switch (code)
	{
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
			return "Grant the Kafka user Write and Describe on the topic to publish, Read and Describe to report (on the progress topic all three), and Create if carshop_outbox.create_topics is on.";
		case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
			return "Grant the Kafka user Write and Describe on the transactional id, which is the name of the progress topic.";
		case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
			return "Grant the Kafka user Read and Describe on the consumer group that carshop_outbox.group_id names, or leave that setting empty.";
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			return "Grant the Kafka user Create on the cluster, or make the topics by hand and turn carshop_outbox.create_topics off.";
		default:
			return NULL;
	}
}

/* The topic, its partitions, and what its brokers ask of records. */
static const char *
remedy_for_topic(rd_kafka_resp_err_t code)
{
	switch (code)
	{
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
			return "Make the topic, or turn carshop_outbox.create_topics on.";
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
			return "The topic has fewer partitions than before: it was made anew, or the brokers do not agree yet. If it lasts, ask who runs Kafka.";
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
			return "Name another topic: a name has at most 249 letters, digits, dots, hyphens and underscores.";
		case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
		case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
			return "Start the brokers that are down, or lower the topic's min.insync.replicas to the number of brokers that hold it and run.";
		case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
			return "Start the brokers that are down: each partition needs a leader and min.insync.replicas in sync. If all run: check their load, the network and quotas, raise carshop_outbox.transaction_timeout, or lower carshop_outbox.max_transaction_events.";
		case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
			return "Start the brokers that are down: the topic has a partition without a leader.";
		case RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR:
			return "Set carshop_outbox.topic_replication_factor to at most the number of running brokers, or start more.";
		case RD_KAFKA_RESP_ERR_INVALID_PARTITIONS:
			return "Set carshop_outbox.topic_partitions to a number that Kafka accepts.";
		case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
			return "Kafka does not accept a setting of the topic to be made: make the topic by hand, or use a version of Kafka that knows the setting.";
		case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
			return "Set carshop_outbox.topic_partitions and carshop_outbox.topic_replication_factor as the policy of the Kafka cluster wants them, or let its operators make the topic.";
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
			return "Set the clock of the PostgreSQL server and the clocks of the Kafka brokers by the same source, or widen message.timestamp.before.max.ms and message.timestamp.after.max.ms of the topic.";
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
			return "The topic keeps messages in a format from before Kafka 0.11: raise its message.format.version.";
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
			return "Raise the topic's max.message.bytes (and segment.bytes), or lower carshop_outbox.max_message_bytes so that such events are refused when they are written.";
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
			return "The topic does not take such records: one whose cleanup.policy is compact needs a key, and a broker can check schemas.";
		default:
			return NULL;
	}
}

/* The brokers as a whole. */
static const char *
remedy_for_cluster(rd_kafka_resp_err_t code)
{
	switch (code)
	{
		case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
		case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
		case RD_KAFKA_RESP_ERR__WAIT_COORD:
			return "Wait while Kafka starts or elects; if it lasts, too few brokers run for __transaction_state (of a group: __consumer_offsets): start those that are down, or lower transaction.state.log.min.isr and .replication.factor (offsets.topic.replication.factor).";
		case RD_KAFKA_RESP_ERR_NOT_CONTROLLER:
			return "The cluster is electing a controller: wait a moment, then check Kafka's controllers.";
		case RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED:
			return "Raise Kafka's quota for the user or the client id carshop_outbox, or make the topics by hand.";
		case RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR:
			return "A disk of a Kafka broker is full or broken: see the broker's log.";
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
			return "Records arrive damaged at the broker: check the network and the memory of the machines between; see the broker's log.";
		case RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT:
			return "Set carshop_outbox.transaction_timeout to at most transaction.max.timeout.ms of the Kafka brokers, or raise that.";
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION:
		case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
			return "Use Kafka 3.6 or newer.";
		case RD_KAFKA_RESP_ERR__INVALID_ARG:
			return "Correct carshop_outbox.brokers or the property that the message names, in the file that carshop_outbox.kafka_config_file names, then SELECT pg_reload_conf();";
		default:
			return NULL;
	}
}

/*
 * The way to the brokers.  One that is down refuses connections, answers late
 * or closes them, as it happens: that is one remedy.
 */
static const char *
remedy_for_connection(rd_kafka_resp_err_t code)
{
	switch (code)
	{
		case RD_KAFKA_RESP_ERR__TRANSPORT:
		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
		case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
		case RD_KAFKA_RESP_ERR__TIMED_OUT:
		case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
		case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
			return "Start Kafka, or correct carshop_outbox.brokers; check that no firewall stands between and that the brokers' advertised.listeners can be reached from this server.";
		case RD_KAFKA_RESP_ERR__RESOLVE:
			return "Correct the host names in carshop_outbox.brokers or in the brokers' advertised.listeners, or the name resolution of this server.";
		case RD_KAFKA_RESP_ERR__SSL:
			return "Check security.protocol, ssl.ca.location and the other ssl properties in the file that carshop_outbox.kafka_config_file names, against the brokers' listener and certificate.";
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
			return "Check sasl.mechanism, sasl.username and sasl.password in the file that carshop_outbox.kafka_config_file names, and that Kafka knows the user.";
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
			return "Set sasl.mechanism, in the file that carshop_outbox.kafka_config_file names, to one that the brokers' listener offers.";
		case RD_KAFKA_RESP_ERR_SECURITY_DISABLED:
			return "The brokers' listener has no security: set security.protocol, in the file that carshop_outbox.kafka_config_file names, as the listener has it.";
		default:
			return NULL;
	}
}

const char *
kafka_remedy(const KafkaError *error)
{
	static const char *(*const kinds[]) (rd_kafka_resp_err_t) = {
		remedy_for_rights, remedy_for_topic, remedy_for_cluster,
		remedy_for_connection, NULL
	};
	int			i;

	if (error == NULL)
		return general;
	if (error->code >= KAFKA_CODE_UNTRUSTED && error->code < KAFKA_CODE_END)
		return remedy_for_security(error->code);

	/*
	 * Records that nobody takes are out of time as well, and mostly for
	 * another reason than their number.
	 */
	if (error->timed_out && error->code != RD_KAFKA_RESP_ERR__MSG_TIMED_OUT)
		return "Kafka took longer than carshop_outbox.transaction_timeout: check the brokers' load and the network, raise that setting (up to Kafka's transaction.max.timeout.ms), or lower carshop_outbox.max_transaction_events.";
	for (i = 0; kinds[i] != NULL; i++)
	{
		const char *remedy = kinds[i] ((rd_kafka_resp_err_t) error->code);

		if (remedy != NULL)
			return remedy;
	}
	return general;
}

bool
kafka_needs_person(const KafkaError *error)
{
	return (error->code >= KAFKA_CODE_UNTRUSTED && error->code < KAFKA_CODE_END) ||
		error->code == RD_KAFKA_RESP_ERR__SSL ||
		error->code == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
		error->code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED ||
		error->code == RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM;
}
