/*-------------------------------------------------------------------------
 *
 * corpus_writer.c
 *	  Sends the messages of test/corpus into a topic, byte for byte.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * kcat can send neither headers of bytes nor values of line feeds side by side.
 *
 * Usage: corpus_writer BROKERS TOPIC FILE...
 * All go to partition 0, in order, so that the offset is the message's number.
 * Prints how many there were; ends with 1 where not all of them arrived.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <librdkafka/rdkafka.h>

#include "../corpus/corpus.h"

static rd_kafka_t *producer;
static const char *topic;
static int	sent = 0;
static int	arrived = 0;

static void
note_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	(void) rk;
	(void) opaque;
	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		arrived++;
	else
		fprintf(stderr, "corpus_writer: %s\n", rd_kafka_err2str(message->err));
}

static void
send_message(const CorpusMessage *message)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t) message->n_headers);
	rd_kafka_resp_err_t err;

	for (int i = 0; i < message->n_headers; i++)
	{
		const MessageHeader *header = &message->headers[i];

		err = rd_kafka_header_add(headers, header->name, -1, header->value,
								  (ssize_t) header->value_len);
		if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
			corpus_die("%s: %s", message->name, rd_kafka_err2str(err));
	}
	err = rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0),
							RD_KAFKA_V_KEY(message->key.data, message->key.len),
							RD_KAFKA_V_VALUE(message->value.data, message->value.len),
							RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY | RD_KAFKA_MSG_F_BLOCK),
							RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		corpus_die("%s: %s", message->name, rd_kafka_err2str(err));
	sent++;
	rd_kafka_poll(producer, 0);
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[256];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
	{
		fprintf(stderr, "corpus_writer: %s\n", error);
		exit(2);
	}
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		error[256];

	if (argc < 4)
	{
		fprintf(stderr, "usage: corpus_writer BROKERS TOPIC FILE...\n");
		return 2;
	}
	set(conf, "bootstrap.servers", argv[1]);
	set(conf, "enable.idempotence", "true");	/* in order */
	set(conf, "message.max.bytes", "2000000");
	rd_kafka_conf_set_dr_msg_cb(conf, note_delivery);
	producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
	if (producer == NULL)
	{
		fprintf(stderr, "corpus_writer: %s\n", error);
		return 2;
	}
	topic = argv[2];
	for (int i = 3; i < argc; i++)
		corpus_read(argv[i], send_message);
	rd_kafka_flush(producer, 60000);
	rd_kafka_destroy(producer);
	printf("%d\n", sent);
	return arrived == sent ? 0 : 1;
}
