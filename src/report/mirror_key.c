/*-------------------------------------------------------------------------
 *
 * mirror_key.c
 *	  Which row an event ends.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * An event that ends a row says which one by the row itself (Data, or the old
 * one of an image), or has nothing but its key: a tombstone.  The key's text is
 * what outbox.capture makes of a primary key, the values joined by commas, or
 * what other producers write, JSON.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "message/json_scan.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(report_mirror_key);

typedef struct KeyColumns
{
	Datum	   *names;			/* text */
	int			n;
} KeyColumns;

/* An object that has a value for each of the columns. */
static bool
has_key(JsonbContainer * object, const KeyColumns *columns)
{
	if (!JsonContainerIsObject(object))
		return false;
	for (int i = 0; i < columns->n; i++)
	{
		text	   *name = DatumGetTextPP(columns->names[i]);
		JsonbValue	wanted;
		JsonbValue *found;

		wanted.type = jbvString;
		wanted.val.string.val = VARDATA_ANY(name);
		wanted.val.string.len = VARSIZE_ANY_EXHDR(name);
		found = findJsonbValueFromContainer(object, JB_FOBJECT, &wanted);
		if (found == NULL || found->type == jbvNull)
			return false;
	}
	return true;
}

/* Text as JSON; NULL: it is none. */
static Jsonb *
parse(char *text)
{
	JsonScanner scanner;
	JsonSpan	value;

	json_scan_init(&scanner, text, strlen(text));
	if (!json_scan_value(&scanner, &value) || !json_scan_at_end(&scanner) ||
		value.unstorable)
		return NULL;
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

/* The object {name: value, ...}. */
static Jsonb *
make_object(const KeyColumns *columns, JsonbValue *values)
{
	JsonbParseState *state = NULL;
	JsonbValue *object;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < columns->n; i++)
	{
		text	   *name = DatumGetTextPP(columns->names[i]);
		JsonbValue	key;

		key.type = jbvString;
		key.val.string.val = VARDATA_ANY(name);
		key.val.string.len = VARSIZE_ANY_EXHDR(name);
		(void) pushJsonbValue(&state, WJB_KEY, &key);
		(void) pushJsonbValue(&state, WJB_VALUE, &values[i]);
	}
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(object);
}

/*
 * {"id": 7}, or with a schema as Kafka Connect writes it; [7, "a"] of several
 * columns.  NULL: something else.
 */
static Jsonb *
from_json(char *text, const KeyColumns *columns)
{
	Jsonb	   *json = text[0] == '{' || text[0] == '[' ? parse(text) : NULL;
	JsonbValue *values;

	if (json == NULL)
		return NULL;
	if (JB_ROOT_IS_OBJECT(json))
	{
		JsonbValue	name = {.type = jbvString,
		.val.string = {.val = "payload", .len = strlen("payload")}};
		JsonbValue *payload;

		if (has_key(&json->root, columns))
			return json;
		payload = findJsonbValueFromContainer(&json->root, JB_FOBJECT, &name);
		if (payload == NULL || payload->type != jbvBinary ||
			!has_key(payload->val.binary.data, columns))
			return NULL;
		return JsonbValueToJsonb(payload);
	}
	if (columns->n == 1 || JB_ROOT_COUNT(json) != columns->n)
		return NULL;
	values = palloc(sizeof(JsonbValue) * columns->n);
	for (int i = 0; i < columns->n; i++)
		values[i] = *getIthJsonbValueFromContainer(&json->root, i);
	return make_object(columns, values);
}

/* a,b of two columns; one column has it all.  NULL: not so many parts. */
static Jsonb *
from_parts(char *text, const KeyColumns *columns)
{
	JsonbValue *values = palloc(sizeof(JsonbValue) * columns->n);

	for (int i = 0; i < columns->n; i++)
	{
		char	   *comma = columns->n > 1 ? strchr(text, ',') : NULL;

		if ((comma == NULL) != (i == columns->n - 1))
			return NULL;
		values[i].type = jbvString;
		values[i].val.string.val = text;
		values[i].val.string.len = comma != NULL ? comma - text : strlen(text);
		text = comma + 1;
	}
	return make_object(columns, values);
}

static char *
column_list(const KeyColumns *columns)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < columns->n; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "",
						 TextDatumGetCString(columns->names[i]));
	return list.data;
}

/* (columns text[], event_key text, former jsonb, state jsonb) */
Datum
report_mirror_key(PG_FUNCTION_ARGS)
{
	ArrayType  *array;
	KeyColumns	columns;
	char	   *said;
	Jsonb	   *key;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	array = PG_GETARG_ARRAYTYPE_P(0);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &columns.names, NULL, &columns.n);
	for (int i = 2; i <= 3; i++)
	{
		Jsonb	   *row = PG_ARGISNULL(i) ? NULL : PG_GETARG_JSONB_P(i);

		if (row != NULL && has_key(&row->root, &columns))
			PG_RETURN_JSONB_P(row);
	}

	said = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (said[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event ends a row and does not say which: it has no key, and no data with %s",
						column_list(&columns))));
	key = from_json(said, &columns);
	if (key == NULL)
		key = from_parts(said, &columns);
	if (key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event ends a row, and its key \"%s\" does not say which: expected are %s",
						said, column_list(&columns)),
				 errhint("The values are joined by commas, or a JSON array or object of them. Where they may hold commas themselves, let the event carry the row: include_old, or a type of delete_types.")));
	PG_RETURN_JSONB_P(key);
}
