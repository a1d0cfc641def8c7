/*-------------------------------------------------------------------------
 *
 * test_token.c
 *	  The token of SASL OAUTHBEARER: what it says, and that the library is given
 *	  another one when it asks.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <unistd.h>

#include "kafka/internal.h"
#include "tap.h"

#define TOKEN "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzaG9wIiwiZXhwIjo0MDAwMDAwMDAwfQ." /* the year 2096 */

/* header.payload.signature: {"sub":"shop","exp":2000000000} and others */
static void
test_tokens(void)
{
	static const struct
	{
		const char *token;
		int64_t		until_ms;	/* 0: refused */
		const char *principal;
		const char *what;
	}			tokens[] = {
		{"eyJhbGciOiJub25lIn0.eyJzdWIiOiJzaG9wIiwiZXhwIjoyMDAwMDAwMDAwfQ.", 2000000000000, "shop", "a JWT"},
		{"eyJhbGciOiJub25lIn0.eyJleHAiOjIwMDAwMDAwMDAuNX0.c2ln", 2000000000500, "", "a fraction of a second, nobody's"},
		{"eyJhbGciOiJub25lIn0.eyJleHAiOjF9.", 0, "", "one that has expired"},
		{"eyJhbGciOiJub25lIn0.eyJzdWIiOjd9.", 1000300000, "", "without an end: some minutes"},
		{"opaque", 1000300000, "", "no JWT"},
		{"a.b!c.d", 1000300000, "", "neither"},
		{"a.WzFd.c", 1000300000, "", "claims that are no object"},
		{"", 0, "", "nothing"},
		{"two words", 0, "", "a blank"},
		{"x\xc3\xa4y", 0, "", "what no header holds"},
		{NULL, 0, NULL, NULL}
	};

	for (int i = 0; tokens[i].token != NULL; i++)
	{
		KafkaError	error = {0};
		int64_t		until_ms = 0;
		char		principal[8] = "";
		bool		taken;

		taken = kafka_token_judge(tokens[i].token, "/path", 1000000000, &until_ms,
								  principal, sizeof(principal), &error);
		ok(taken == (tokens[i].until_ms != 0), tokens[i].what);
		if (taken)
		{
			ok(until_ms == tokens[i].until_ms, "its end");
			is_text(principal, tokens[i].principal, "whose it is");
			continue;
		}
		is_int(error.code, KAFKA_CODE_NO_TOKEN, "is refused");
		ok(strstr(error.message, "\"sasl.oauthbearer.token.file\"") != NULL &&
		   strstr(error.message, "\"/path\"") != NULL, "property and file are named");
		ok(tokens[i].token[0] == '\0' || strstr(error.message, tokens[i].token) == NULL,
		   "the token is not");
	}
}

static void
put(const char *path, const char *content)
{
	FILE	   *file = fopen(path, "w");

	if (file == NULL || fputs(content, file) < 0 || fclose(file) != 0)
		ok(false, "could not write %s", path);
}

/* A handle, or NULL with the reason in error. */
static KafkaClient *
open_client(const char *path, KafkaError *error)
{
	KafkaProperties *props = kafka_properties_new();
	KafkaClient *client = NULL;
	rd_kafka_conf_t *conf;

	kafka_properties_set(props, "sasl.mechanism", "OAUTHBEARER", error);
	kafka_properties_set(props, "security.protocol", "sasl_plaintext", error);
	kafka_properties_set(props, KAFKA_TOKEN_EXTENSIONS, "logicalCluster=lkc-1,pool=p", error);
	kafka_properties_set(props, KAFKA_TOKEN_FILE, path, error);
	conf = kafka_conf_new(props, RD_KAFKA_PRODUCER, error);
	if (conf != NULL)
		client = kafka_client_open(conf, RD_KAFKA_PRODUCER, 0, props, NULL, NULL, error);
	kafka_properties_free(props);
	return client;
}

/* The library asks by an event, the first time when the handle is made. */
static void
test_refresh(void)
{
	char		path[] = "/tmp/test_token.XXXXXX";
	int			fd = mkstemp(path);
	KafkaError	error = {0};
	KafkaClient *client;
	int64_t		until = kafka_now_ms() + 10000;

	ok(fd >= 0 && close(fd) == 0, "a file");
	ok(open_client(path, &error) == NULL, "an empty one makes no handle");
	is_int(error.code, KAFKA_CODE_NO_TOKEN, "for want of a token");
	put(path, TOKEN "\n");
	client = open_client(path, &error);
	ok(client != NULL, "a token makes one: %s", client == NULL ? error.message : "");
	if (client == NULL)
		return;

	/* what is in the file now is what it gets, or hears of */
	put(path, "two words");
	while (client->trouble[0] == '\0' && kafka_now_ms() < until)
	{
		rd_kafka_event_t *event = kafka_client_next(client, 100);

		if (event == NULL)
			continue;
		kafka_client_handle(client, event);
		rd_kafka_event_destroy(event);
	}
	ok(strstr(client->trouble, "holds no token") != NULL, "the file is read again: %s", client->trouble);
	is_int(client->trouble_code, KAFKA_CODE_NO_TOKEN, "with its code");
	ok(strstr(client->trouble, "two words") == NULL, "without what is in it");
	is_int(client->failures, 0, "no transaction was cut off by that");
	ok(kafka_client_close(client, KAFKA_WORK_NONE), "closed");
	unlink(path);
	ok(open_client(path, &error) == NULL && error.code == KAFKA_CODE_FILE, "no file, no handle");
}

int
main(void)
{
	test_tokens();
	test_refresh();
	return done_testing();
}
