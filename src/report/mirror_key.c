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
#include "compat.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "message/json_scan.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(report_mirror_key);
PG_FUNCTION_INFO_V1(report_mirror_touches);

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
	CompatJsonb state = {0};
	JsonbValue *object;

	compat_push_jsonb(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < columns->n; i++)
	{
		text	   *name = DatumGetTextPP(columns->names[i]);
		JsonbValue	key;

		key.type = jbvString;
		key.val.string.val = VARDATA_ANY(name);
		key.val.string.len = VARSIZE_ANY_EXHDR(name);
		compat_push_jsonb(&state, WJB_KEY, &key);
		compat_push_jsonb(&state, WJB_VALUE, &values[i]);
	}
	compat_push_jsonb(&state, WJB_END_OBJECT, NULL);
	object = state.result;
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

/* Arguments; null texts are empty. */
static KeyColumns
columns_argument(FunctionCallInfo fcinfo, int n)
{
	KeyColumns	columns;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false,
					  TYPALIGN_INT, &columns.names, NULL, &columns.n);
	return columns;
}

static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static Jsonb *
row_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);
}

/*
 * The key of the row that an event ends: an object with all of the columns.
 * NULL: it does not say.
 */
static Jsonb *
ended_key(const KeyColumns *columns, char *event_key, Jsonb *former,
		  Jsonb *state)
{
	Jsonb	   *key;

	if (former != NULL && has_key(&former->root, columns))
		return former;
	if (state != NULL && has_key(&state->root, columns))
		return state;
	if (event_key[0] == '\0')
		return NULL;
	key = from_json(event_key, columns);
	return key != NULL ? key : from_parts(event_key, columns);
}

/* (columns text[], event_key text, former jsonb, state jsonb) */
Datum
report_mirror_key(PG_FUNCTION_ARGS)
{
	KeyColumns	columns;
	char	   *said = text_argument(fcinfo, 1);
	Jsonb	   *key;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	columns = columns_argument(fcinfo, 0);
	key = ended_key(&columns, said, row_argument(fcinfo, 2),
					row_argument(fcinfo, 3));
	if (key != NULL)
		PG_RETURN_JSONB_P(key);
	if (said[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event ends a row and does not say which: it has no key, and no data with %s",
						column_list(&columns))));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the event ends a row, and its key \"%s\" does not say which: expected are %s",
					said, column_list(&columns)),
			 errhint("The values are joined by commas, or a JSON array or object of them. Where they may hold commas themselves, let the event carry the row: include_old, or a type of delete_types.")));
	PG_RETURN_NULL();
}

/* ------------------------------------------------------------------------
 * Explaining
 * ------------------------------------------------------------------------
 */

/* A scalar's text as a column's type would be given it. */
static char *
value_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return value->val.boolean ? "true" : "false";
		default:
			return JsonbToCString(NULL, value->val.binary.data,
								  value->val.binary.len);
	}
}

/* A number; false: none. */
static bool
value_number(const JsonbValue *value, Datum *number)
{
	JsonScanner scanner;
	JsonSpan	span;
	char	   *digits;

	if (value->type == jbvNumeric)
	{
		*number = NumericGetDatum(value->val.numeric);
		return true;
	}
	if (value->type != jbvString || value->val.string.len > 1000)
		return false;
	digits = value_text(value);
	json_scan_init(&scanner, digits, strlen(digits));
	if (!json_scan_value(&scanner, &span) || span.type != '0' ||
		!json_scan_at_end(&scanner) || strpbrk(digits, "eE") != NULL)
		return false;
	*number = DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
								  ObjectIdGetDatum(InvalidOid),
								  Int32GetDatum(-1));
	return true;
}

/* Is it the wanted key, as far as JSON tells?  7 is "7" and 7.0. */
static bool
same_key(const KeyColumns *columns, Jsonb *row, Jsonb *wanted)
{
	if (row == NULL || !has_key(&row->root, columns) ||
		!has_key(&wanted->root, columns))
		return false;
	for (int i = 0; i < columns->n; i++)
	{
		text	   *name = DatumGetTextPP(columns->names[i]);
		JsonbValue	one;
		JsonbValue	other;
		Datum		number;
		Datum		other_number;

		(void) getKeyJsonValueFromContainer(&row->root, VARDATA_ANY(name),
											VARSIZE_ANY_EXHDR(name), &one);
		(void) getKeyJsonValueFromContainer(&wanted->root, VARDATA_ANY(name),
											VARSIZE_ANY_EXHDR(name), &other);
		if (strcmp(value_text(&one), value_text(&other)) == 0)
			continue;
		if (one.type == jbvString && other.type == jbvString)
			return false;
		if (!value_number(&one, &number) ||
			!value_number(&other, &other_number) ||
			!DatumGetBool(DirectFunctionCall2(numeric_eq, number, other_number)))
			return false;
	}
	return true;
}

/*
 * (columns text[], ends boolean, event_key text, former jsonb, state jsonb,
 * wanted jsonb): does the event write or end the wanted row?  Raises nothing:
 * an event that says nothing of the kind has touched no row.
 */
Datum
report_mirror_touches(PG_FUNCTION_ARGS)
{
	Jsonb	   *former = row_argument(fcinfo, 3);
	Jsonb	   *state = row_argument(fcinfo, 4);
	Jsonb	   *wanted = row_argument(fcinfo, 5);
	KeyColumns	columns;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || wanted == NULL)
		PG_RETURN_BOOL(false);
	columns = columns_argument(fcinfo, 0);
	if (PG_GETARG_BOOL(1) || state == NULL)
		PG_RETURN_BOOL(same_key(&columns,
								ended_key(&columns, text_argument(fcinfo, 2),
										  former, state),
								wanted));
	PG_RETURN_BOOL(same_key(&columns, state, wanted) ||
				   same_key(&columns, former, wanted));
}
