/*-------------------------------------------------------------------------
 *
 * mirror.c
 *	  report.mirror: the newest state per key in a table, in one call.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A mirror is a report whose statement is generated (mirror_statement.c), and
 * remembered in report.definitions with what it was made of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "errors.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "report/advice.h"
#include "report/definitions.h"
#include "report/mirror.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(report_mirror);

/* Event types as the caller gives them; NULL: not given. */
static ArrayType *
types_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	ArrayType  *array;

	if (PG_ARGISNULL(n))
		return NULL;
	array = PG_GETARG_ARRAYTYPE_P(n);
	if (ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("%s of a mirror must not be empty", name),
				 errhint("Leave it out: %s => NULL.", name)));
	if (array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("%s of a mirror must not contain null", name),
				 errhint("Every event has a type.")));
	return array;
}

static void
append_member(StringInfo json, const char *name, const char *value)
{
	appendStringInfo(json, ", \"%s\": %s", name, value);
}

static const char *
types_json(ArrayType *array)
{
	Datum		json;

	if (array == NULL)
		return "null";
	json = DirectFunctionCall2(array_to_json_pretty, PointerGetDatum(array),
							   BoolGetDatum(false));
	return TextDatumGetCString(json);
}

/* The arguments, for report.definitions. */
static char *
source_json(const MirrorTarget *target, const MirrorSource *source)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"target\": ");
	escape_json(&json, target->name);
	append_member(&json, "event_types", types_json(source->event_types));
	appendStringInfoString(&json, ", \"topic\": ");
	if (source->topic != NULL)
		escape_json(&json, source->topic);
	else
		appendStringInfoString(&json, "null");
	append_member(&json, "delete_types", types_json(source->delete_types));
	appendStringInfoChar(&json, '}');
	return json.data;
}

/* The strings of a member's array; NULL: it is null. */
static ArrayType *
read_types(Jsonb *json, const char *name)
{
	JsonbValue	member;
	Datum	   *types;
	int			n = 0;

	if (getKeyJsonValueFromContainer(&json->root, name, strlen(name),
									 &member) == NULL ||
		member.type != jbvBinary)
		return NULL;
	types = palloc(sizeof(Datum) *
				   JsonContainerSize(member.val.binary.data));
	for (n = 0; n < JsonContainerSize(member.val.binary.data); n++)
	{
		JsonbValue *type = getIthJsonbValueFromContainer(member.val.binary.data,
														 n);

		types[n] = PointerGetDatum(cstring_to_text_with_len(type->val.string.val,
															type->val.string.len));
	}
	return construct_array(types, n, TEXTOID, -1, false, TYPALIGN_INT);
}

void
mirror_read_source(Jsonb *json, MirrorSource *source)
{
	JsonbValue	topic;

	source->event_types = read_types(json, "event_types");
	source->delete_types = read_types(json, "delete_types");
	source->topic = NULL;
	if (getKeyJsonValueFromContainer(&json->root, "topic", strlen("topic"),
									 &topic) != NULL &&
		topic.type == jbvString)
		source->topic = pnstrdup(topic.val.string.val, topic.val.string.len);
}

Datum
report_mirror(PG_FUNCTION_ARGS)
{
	ReportDefinition definition = {.kind = "mirror"};
	MirrorSource source = {NULL, NULL, NULL};
	MirrorTarget *target;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name and target of a mirror must not be null")));
	definition.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	definition.target = PG_GETARG_OID(1);
	source.event_types = types_argument(fcinfo, 2, "event_types");
	if (!PG_ARGISNULL(3))
		source.topic = text_to_cstring(PG_GETARG_TEXT_PP(3));
	source.delete_types = types_argument(fcinfo, 4, "delete_types");
	report_define_options(fcinfo, 5, &definition);

	report_check_target(definition.target, GetUserId());
	target = mirror_target(definition.target);
	definition.statement = mirror_statement(definition.name, target, &source);
	definition.source = source_json(target, &source);
	table_close(target->rel, NoLock);
	report_define_as(&definition);
	if (source.topic != NULL)
		report_warn_of_unread(source.topic);
	PG_RETURN_VOID();
}
