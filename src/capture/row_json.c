/*-------------------------------------------------------------------------
 *
 * row_json.c
 *	  The JSON image of a row.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The result is that of core's row_to_json, byte for byte (test/sql/fidelity.sql
 * compares them over all types).  row_to_json looks up each column's type and
 * output function for each row; for the common types this code knows both, and
 * none of them depends on a setting here: times are written in UTC by core's
 * own JsonEncodeDateTime, floats with the fewest digits that read back alike.
 * All other types (arrays, composites, ranges, types of others) go through
 * core's to_json, as the writing user, with the settings pinned that they may
 * look at (pins.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "capture/row_json.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "nodes/makefuncs.h"
#include "outbox/envelope.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/uuid.h"

/* A JSON string, quotes included; escapes as core's escape_json. */
static void
append_json_string(StringInfo out, const char *text, int len)
{
	static const char hex[] = "0123456789abcdef";
	const char *end = text + len;

	appendStringInfoCharMacro(out, '"');
	while (text < end)
	{
		const char *run = text;
		unsigned char c = 0;

		while (text < end && (c = (unsigned char) *text) >= 0x20 && c != '"' &&
			   c != '\\')
			text++;
		appendBinaryStringInfo(out, run, text - run);
		if (text == end)
			break;
		text++;
		appendStringInfoCharMacro(out, '\\');
		switch (c)
		{
			case '"':
			case '\\':
				appendStringInfoCharMacro(out, c);
				break;
			case '\b':
				appendStringInfoCharMacro(out, 'b');
				break;
			case '\f':
				appendStringInfoCharMacro(out, 'f');
				break;
			case '\n':
				appendStringInfoCharMacro(out, 'n');
				break;
			case '\r':
				appendStringInfoCharMacro(out, 'r');
				break;
			case '\t':
				appendStringInfoCharMacro(out, 't');
				break;
			default:
				appendStringInfoString(out, "u00");
				appendStringInfoCharMacro(out, hex[c >> 4]);
				appendStringInfoCharMacro(out, hex[c & 15]);
		}
	}
	appendStringInfoCharMacro(out, '"');
}

/* Not a JSON number: NaN and the infinities are strings, as in core. */
static void
append_number(StringInfo out, const char *text, bool finite)
{
	if (!finite)
		appendStringInfoCharMacro(out, '"');
	appendStringInfoString(out, text);
	if (!finite)
		appendStringInfoCharMacro(out, '"');
}

/* How core's to_json would write it; other types go through to_json itself. */
static JsonForm
form_of_type(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return JSON_FORM_BOOL;
		case INT2OID:
			return JSON_FORM_INT2;
		case INT4OID:
			return JSON_FORM_INT4;
		case INT8OID:
			return JSON_FORM_INT8;
		case FLOAT4OID:
			return JSON_FORM_FLOAT4;
		case FLOAT8OID:
			return JSON_FORM_FLOAT8;
		case NUMERICOID:
			return JSON_FORM_NUMERIC;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return JSON_FORM_TEXT;
		case UUIDOID:
			return JSON_FORM_UUID;
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return JSON_FORM_DATETIME;
		case JSONOID:
			return JSON_FORM_JSON;
		case JSONBOID:
			return JSON_FORM_JSONB;
		default:
			return JSON_FORM_OTHER;
	}
}

void
json_column_init(JsonColumn *column, Form_pg_attribute attribute, bool first)
{
	StringInfoData member;
	const char *name = NameStr(attribute->attname);

	memset(column, 0, sizeof(*column));
	column->attno = attribute->attnum;
	column->type = getBaseType(attribute->atttypid);
	column->form = form_of_type(column->type);

	initStringInfo(&member);
	if (!first)
		appendStringInfoChar(&member, ',');
	append_json_string(&member, name, strlen(name));
	appendStringInfoChar(&member, ':');
	column->member = member.data;
	column->member_len = member.len;

	if (column->form == JSON_FORM_OTHER)
	{
		/* to_json(anyelement) asks the call's expression for the type */
		Node	   *argument =
		(Node *) makeNullConst(attribute->atttypid, attribute->atttypmod,
							   attribute->attcollation);

		fmgr_info_cxt(F_TO_JSON, &column->to_json, CurrentMemoryContext);
		fmgr_info_set_expr((Node *) makeFuncExpr(
												 F_TO_JSON, JSONOID, list_make1(argument),
												 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
						   &column->to_json);
	}
}

static void
append_text(StringInfo out, Datum value, bool quoted)
{
	text	   *packed = DatumGetTextPP(value);

	if (quoted)
		append_json_string(out, VARDATA_ANY(packed),
						   VARSIZE_ANY_EXHDR(packed));
	else
		appendBinaryStringInfo(out, VARDATA_ANY(packed),
							   VARSIZE_ANY_EXHDR(packed));
}

static void
append_uuid(StringInfo out, const pg_uuid_t *uuid)
{
	char		text[40];

	text[0] = '"';
	wire_uuid_text(uuid->data, text + 1);
	text[37] = '"';
	appendBinaryStringInfo(out, text, 38);
}

/* The bytes that core's row_to_json writes for the value. */
static void
append_value(StringInfo out, JsonColumn *column, Datum value)
{
	char		text[MAXDATELEN + 1];

	switch (column->form)
	{
		case JSON_FORM_BOOL:
			appendStringInfoString(out,
								   DatumGetBool(value) ? "true" : "false");
			break;
		case JSON_FORM_INT2:
			appendBinaryStringInfo(out, text,
								   pg_itoa(DatumGetInt16(value), text));
			break;
		case JSON_FORM_INT4:
			appendBinaryStringInfo(out, text,
								   pg_ltoa(DatumGetInt32(value), text));
			break;
		case JSON_FORM_INT8:
			appendBinaryStringInfo(out, text,
								   pg_lltoa(DatumGetInt64(value), text));
			break;
		case JSON_FORM_FLOAT4:
			float_to_shortest_decimal_buf(DatumGetFloat4(value), text);
			append_number(out, text, isfinite(DatumGetFloat4(value)));
			break;
		case JSON_FORM_FLOAT8:
			double_to_shortest_decimal_buf(DatumGetFloat8(value), text);
			append_number(out, text, isfinite(DatumGetFloat8(value)));
			break;
		case JSON_FORM_NUMERIC:
			{
				char	   *number =
				DatumGetCString(DirectFunctionCall1(numeric_out, value));

				append_number(out, number,
							  number[0] == '-' ?
							  number[1] != 'I' :
							  number[0] != 'N' && number[0] != 'I');
				break;
			}
		case JSON_FORM_TEXT:
			append_text(out, value, true);
			break;
		case JSON_FORM_UUID:
			append_uuid(out, DatumGetUUIDP(value));
			break;
		case JSON_FORM_DATETIME:
			{
				const int	utc = 0;

				JsonEncodeDateTime(text, value, column->type, &utc);
				append_number(out, text, false);
				break;
			}
		case JSON_FORM_JSON:
			append_text(out, value, false);
			break;
		case JSON_FORM_JSONB:
			{
				Jsonb	   *json = DatumGetJsonbP(value);

				(void) JsonbToCString(out, &json->root, VARSIZE(json));
				break;
			}
		case JSON_FORM_OTHER:
			append_text(out, FunctionCall1(&column->to_json, value), false);
			break;
	}
}

void
append_row_json(StringInfo out, JsonColumn *columns, int n,
				const Datum *values, const bool *isnull)
{
	appendStringInfoChar(out, '{');
	for (int i = 0; i < n; i++)
	{
		JsonColumn *column = &columns[i];

		appendBinaryStringInfo(out, column->member, column->member_len);
		if (isnull[column->attno - 1])
			appendBinaryStringInfo(out, "null", 4);
		else
			append_value(out, column, values[column->attno - 1]);
	}
	appendStringInfoChar(out, '}');
}
