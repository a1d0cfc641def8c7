/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  Encoding and decoding of the progress record.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "relay/progress.h"

#include <json-c/json.h>
#include <string.h>

char *
progress_encode(const Progress *progress)
{
	struct json_object *object = json_object_new_object();
	char	   *text = NULL;

	if (object == NULL)
		return NULL;
	json_object_object_add(object, "lineage", json_object_new_string(progress->lineage));
	json_object_object_add(object, "home", json_object_new_string(progress->home));
	json_object_object_add(object, "instance", json_object_new_string(progress->instance));
	json_object_object_add(object, "tick", json_object_new_int64(progress->tick));
	json_object_object_add(object, "nonce", json_object_new_string(progress->nonce));
	json_object_object_add(object, "complete", json_object_new_boolean(progress->complete));
	json_object_object_add(object, "seq", json_object_new_int64(progress->seq));
	json_object_object_add(object, "through", json_object_new_int64(progress->through));
	json_object_object_add(object, "xid", json_object_new_uint64(progress->xid));
	json_object_object_add(object, "snapshot", json_object_new_string(progress->snapshot));
	json_object_object_add(object, "last_seq", json_object_new_int64(progress->last_seq));
	json_object_object_add(object, "partitions", json_object_new_string(progress->partitions));
	text = strdup(json_object_to_json_string_ext(object,
												 JSON_C_TO_STRING_PLAIN |
												 JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(object);
	return text;
}

static bool
take_text(struct json_object *object, const char *name, char *to, size_t size)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, name, &value) ||
		json_object_get_type(value) != json_type_string ||
		(size_t) json_object_get_string_len(value) >= size)
		return false;
	memcpy(to, json_object_get_string(value),
		   (size_t) json_object_get_string_len(value) + 1);
	return true;
}

static bool
take_number(struct json_object *object, const char *name, int64_t *to)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, name, &value) ||
		json_object_get_type(value) != json_type_int)
		return false;
	if (json_object_get_int64(value) < 0)
		return false;
	*to = json_object_get_int64(value);
	return true;
}

bool
progress_decode(Progress *progress, const char *text, size_t len)
{
	struct json_tokener *tokener;
	struct json_object *object;
	struct json_object *complete;
	int64_t		xid;
	bool		good;

	memset(progress, 0, sizeof(*progress));
	if (len > 65536)
		return false;
	tokener = json_tokener_new_ex(4);
	if (tokener == NULL)
		return false;
	/* not STRICT: with that 0.17 and 0.18 refuse letters outside ASCII */
	json_tokener_set_flags(tokener, JSON_TOKENER_VALIDATE_UTF8);
	object = json_tokener_parse_ex(tokener, text, (int) len);
	good = object != NULL &&
		json_tokener_get_error(tokener) == json_tokener_success &&
		json_tokener_get_parse_end(tokener) == len &&
		json_object_get_type(object) == json_type_object &&
		take_text(object, "lineage", progress->lineage, sizeof(progress->lineage)) &&
		take_text(object, "home", progress->home, sizeof(progress->home)) &&
		take_text(object, "instance", progress->instance, sizeof(progress->instance)) &&
		take_text(object, "nonce", progress->nonce, sizeof(progress->nonce)) &&
		take_number(object, "tick", &progress->tick) &&
		take_number(object, "seq", &progress->seq) &&
		take_number(object, "through", &progress->through) &&
		take_number(object, "xid", &xid) &&
		json_object_object_get_ex(object, "complete", &complete) &&
		json_object_get_type(complete) == json_type_boolean;
	if (good)
	{
		progress->xid = (uint64_t) xid;
		progress->complete = json_object_get_boolean(complete);
		/* records of earlier builds have neither */
		(void) take_text(object, "snapshot", progress->snapshot, sizeof(progress->snapshot));
		(void) take_number(object, "last_seq", &progress->last_seq);
		(void) take_text(object, "partitions", progress->partitions,
						 sizeof(progress->partitions));
	}
	json_object_put(object);
	json_tokener_free(tokener);
	return good;
}
