/*-------------------------------------------------------------------------
 *
 * seeds.c
 *	  Writes the messages of test/corpus as the fuzzer's first inputs.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Usage: seeds FOLDER FILE...
 * Those that are longer than a fuzzer's input are left out: it would cut them.
 *
 *-------------------------------------------------------------------------
 */
#include "../corpus/corpus.h"
#include "packet.h"

#define LONGEST		4096

static const char *folder;
static int	written = 0;

static void
add_number(CorpusBytes *packet, size_t number, int bytes)
{
	for (int i = 0; i < bytes; i++)
	{
		char		byte = (char) (number >> (8 * i));

		corpus_add(packet, &byte, 1);
	}
}

static void
add_header(CorpusBytes *packet, const MessageHeader *header)
{
	int			known = 0;

	while (known < PACKET_NAMES && strcmp(packet_names[known], header->name) != 0)
		known++;
	if (known < PACKET_NAMES)
		add_number(packet, (size_t) known, 1);
	else
	{
		add_number(packet, PACKET_NAMED, 1);
		add_number(packet, strlen(header->name), 1);
		corpus_add(packet, header->name, strlen(header->name));
	}
	add_number(packet, header->value != NULL ? header->value_len : PACKET_NULL, 2);
	if (header->value != NULL)
		corpus_add(packet, header->value, header->value_len);
}

static void
write_seed(const CorpusMessage *message)
{
	CorpusBytes packet = {NULL, 0, 0};
	char		path[4096];
	FILE	   *file;

	if (message->n_headers > 15 || message->value.len > LONGEST || message->key.len > 255)
		return;
	add_number(&packet, (message->value.data != NULL ? PACKET_VALUE : 0) |
			   (message->key.data != NULL ? PACKET_KEY : 0), 1);
	add_number(&packet, (size_t) message->n_headers, 1);
	for (int i = 0; i < message->n_headers; i++)
	{
		if (message->headers[i].value_len > LONGEST)
		{
			free(packet.data);
			return;
		}
		add_header(&packet, &message->headers[i]);
	}
	if (message->key.data != NULL)
	{
		add_number(&packet, message->key.len, 1);
		corpus_add(&packet, message->key.data, message->key.len);
	}
	if (message->value.data != NULL)
		corpus_add(&packet, message->value.data, message->value.len);

	snprintf(path, sizeof(path), "%s/corpus-%04d", folder, ++written);
	file = fopen(path, "w");
	if (file == NULL || fwrite(packet.data, 1, packet.len, file) != packet.len || fclose(file) != 0)
		corpus_die("cannot write %s", path);
	free(packet.data);
}

int
main(int argc, char **argv)
{
	if (argc < 3)
	{
		fprintf(stderr, "usage: seeds FOLDER FILE...\n");
		return 2;
	}
	folder = argv[1];
	for (int i = 2; i < argc; i++)
		corpus_read(argv[i], write_seed);
	return 0;
}
