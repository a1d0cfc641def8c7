/*-------------------------------------------------------------------------
 *
 * token.c
 *	  The token of SASL OAUTHBEARER, out of a file that somebody else renews.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The library asks for a token by an event: when a handle is made, and when
 * four fifths of the token's life are over.  It is then read from the file; a
 * file is never waited for.  Who renews it is a sidecar, cron or kubelet.
 *
 * When it expires stands in the token, if it is a JWT (RFC 7519); the broker is
 * the one to judge it, nothing is verified here.  Another token is read again
 * after a few minutes.
 *
 * Messages name the file, never what is in it.
 *
 * Thread: the worker's.  Memory: malloc, wiped before it is freed.
 *
 *-------------------------------------------------------------------------
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "kafka/internal.h"

#define MAX_TOKEN_BYTES (64 * 1024)

/* How long a token is taken for valid that does not say so itself. */
#define UNKNOWN_LIFE_MS (5 * 60 * 1000)

#define MAX_EXTENSIONS 16

struct KafkaToken
{
	char	   *path;
	char	   *extensions;		/* "name=value,name=value"; may be NULL */
};

/* ------------------------------------------------------------------------
 * What a token says
 * ------------------------------------------------------------------------
 */
static int
base64url_digit(char c)
{
	static const char digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const char *found = c != '\0' ? strchr(digits, c) : NULL;

	return found != NULL ? (int) (found - digits) : -1;
}

/* Without padding, as JWT has it.  NULL: it is no such text. */
static char *
decode_base64url(const char *text, size_t len)
{
	char	   *bytes = kafka_malloc(len * 3 / 4 + 1);
	size_t		n = 0;
	unsigned int bits = 0;
	int			n_bits = 0;
	size_t		i;

	for (i = 0; i < len; i++)
	{
		int			digit = base64url_digit(text[i]);

		if (digit < 0)
		{
			kafka_wipe_and_free(bytes, n);
			return NULL;
		}
		bits = bits << 6 | (unsigned int) digit;
		n_bits += 6;
		if (n_bits >= 8)
		{
			n_bits -= 8;
			bytes[n++] = (char) (bits >> n_bits & 0xff);
		}
	}
	bytes[n] = '\0';
	return bytes;
}

/* The claims of a JWT; NULL: it is none. */
static struct json_object *
claims_of(const char *token)
{
	const char *payload = strchr(token, '.');
	const char *end = payload != NULL ? strchr(payload + 1, '.') : NULL;
	struct json_object *claims;
	char	   *text;

	if (end == NULL)
		return NULL;
	text = decode_base64url(payload + 1, (size_t) (end - payload - 1));
	if (text == NULL)
		return NULL;
	claims = json_tokener_parse(text);
	kafka_wipe_and_free(text, strlen(text));
	if (claims != NULL && !json_object_is_type(claims, json_type_object))
	{
		json_object_put(claims);
		return NULL;
	}
	return claims;
}

/* Seconds since 1970, which may have a fraction, in ms; 0: it does not say. */
static int64_t
expiry_of(struct json_object *claims)
{
	struct json_object *exp;
	double		seconds;

	if (!json_object_object_get_ex(claims, "exp", &exp) ||
		!(json_object_is_type(exp, json_type_int) ||
		  json_object_is_type(exp, json_type_double)))
		return 0;
	seconds = json_object_get_double(exp);
	/* the year 9999 */
	return seconds > 0 && seconds < 253402300800.0 ?
		(int64_t) (seconds * 1000) : 0;
}

bool
kafka_token_judge(const char *token, const char *path, int64_t now_ms,
				  int64_t *until_ms, char *principal, size_t principal_size,
				  KafkaError *error)
{
	struct json_object *claims;
	struct json_object *sub;
	const char *c;

	for (c = token; *c > ' ' && *c < 127; c++)
		;
	if (c == token || *c != '\0')
	{
		kafka_error_set(error, KAFKA_CODE_NO_TOKEN,
						"the file of property \"%s\" holds no token: \"%s\"",
						KAFKA_TOKEN_FILE, path);
		return false;
	}
	claims = claims_of(token);
	*until_ms = claims != NULL ? expiry_of(claims) : 0;
	snprintf(principal, principal_size, "%s",
			 claims != NULL && json_object_object_get_ex(claims, "sub", &sub) &&
			 json_object_is_type(sub, json_type_string) ?
			 json_object_get_string(sub) : "");
	if (claims != NULL)
		json_object_put(claims);
	if (*until_ms == 0)
		*until_ms = now_ms + UNKNOWN_LIFE_MS;
	if (*until_ms <= now_ms)
	{
		time_t		seconds = (time_t) (*until_ms / 1000);
		struct tm	when;
		char		text[32] = "";

		if (gmtime_r(&seconds, &when) != NULL)
			strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%SZ", &when);
		kafka_error_set(error, KAFKA_CODE_NO_TOKEN,
						"the token in the file of property \"%s\" has expired at %s: \"%s\"",
						KAFKA_TOKEN_FILE, text, path);
		return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * From the file to the handle
 * ------------------------------------------------------------------------
 */

/* The token, malloc'd; NULL fills error. */
static char *
read_token(const char *path, KafkaError *error)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char	   *text = NULL;
	size_t		len = 0;

	if (fd >= 0)
		text = kafka_read_all(fd, MAX_TOKEN_BYTES, &len);
	if (text == NULL)
		kafka_error_set(error, KAFKA_CODE_FILE,
						"the file of property \"%s\" cannot be read: \"%s\": %s",
						KAFKA_TOKEN_FILE, path, strerror(errno));
	if (fd >= 0)
		close(fd);
	while (len > 0 && isspace((unsigned char) text[len - 1]))
		text[--len] = '\0';
	return text;
}

/* "name=value,name=value", cut up, as the library wants it. */
static size_t
split_extensions(char *text, const char **parts)
{
	size_t		n = 0;
	char	   *rest = text;
	char	   *part;

	while (n < MAX_EXTENSIONS && (part = strsep(&rest, ",")) != NULL)
	{
		char	   *equals = strchr(part, '=');

		if (equals == NULL)
			continue;
		*equals = '\0';
		parts[2 * n] = part;
		parts[2 * n + 1] = equals + 1;
		n++;
	}
	return 2 * n;
}

static bool
set_token(KafkaClient *client, KafkaError *error)
{
	KafkaToken *token = client->token;
	const char *parts[2 * MAX_EXTENSIONS];
	struct timespec now;
	int64_t		until_ms;
	char		principal[256];
	char		reason[256] = "";
	char	   *extensions;
	char	   *text = read_token(token->path, error);
	bool		set;

	if (text == NULL)
		return false;
	clock_gettime(CLOCK_REALTIME, &now);
	set = kafka_token_judge(text, token->path,
							(int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000,
							&until_ms, principal, sizeof(principal), error);
	if (set)
	{
		extensions = kafka_strdup(token->extensions != NULL ? token->extensions : "");
		set = rd_kafka_oauthbearer_set_token(client->rk, text, until_ms,
											 principal, parts,
											 split_extensions(extensions, parts),
											 reason, sizeof(reason)) ==
			RD_KAFKA_RESP_ERR_NO_ERROR;
		free(extensions);
		if (!set)
			kafka_error_set(error, KAFKA_CODE_PROPERTY,
							"the token or property \"%s\" is not accepted: %s",
							KAFKA_TOKEN_EXTENSIONS, reason);
	}
	kafka_wipe_and_free(text, strlen(text));
	return set;
}

bool
kafka_token_open(KafkaClient *client, const KafkaProperties *props,
				 KafkaError *error)
{
	const char *path = kafka_properties_get(props, KAFKA_TOKEN_FILE);
	const char *extensions = kafka_properties_get(props, KAFKA_TOKEN_EXTENSIONS);

	if (path == NULL)
		return true;
	client->token = kafka_malloc(sizeof(KafkaToken));
	client->token->path = kafka_strdup(path);
	client->token->extensions = extensions != NULL ? kafka_strdup(extensions) : NULL;
	return set_token(client, error);
}

/*
 * Without a token now the library goes on with the one it has, asks again
 * after ten seconds, and tells the reason by an error event.
 */
void
kafka_token_refresh(KafkaClient *client)
{
	KafkaError	error;

	if (client->token != NULL && !set_token(client, &error))
		(void) rd_kafka_oauthbearer_set_token_failure(client->rk, error.message);
}

void
kafka_token_close(KafkaClient *client)
{
	if (client->token == NULL)
		return;
	free(client->token->path);
	free(client->token->extensions);
	free(client->token);
	client->token = NULL;
}
