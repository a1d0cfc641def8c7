/*-------------------------------------------------------------------------
 *
 * route.c
 *	  Checking and compiling the arguments of a capture trigger.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The same code runs when outbox.capture makes a route and when the trigger
 * fires, so that a hand-written CREATE TRIGGER meets the same rules.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tupconvert.h"
#include "capture/route.h"
#include "capture/virtual.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "outbox/admission.h"
#include "outbox/encoding.h"
#include "outbox/event.h"
#include "outbox/route_arguments.h"
#include "outbox/topics.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(outbox_check_route);

static const char *const argument_names[] = {
	"event_type", "key", "description", "columns", "include_old", "topic",
	"aggregate_type", "headers", "format"
};

/* Settings that values of a type depend on in their text or JSON form. */
static int
pins_of_type(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case CHAROID:
		case NAMEOID:
		case UUIDOID:
		case JSONOID:
		case JSONBOID:
		case OIDOID:
		case INETOID:
		case CIDROID:
		case BITOID:
		case VARBITOID:
			return 0;
		case DATEOID:
		case TIMESTAMPOID:
			return PIN_DATESTYLE;
		case TIMESTAMPTZOID:
		case TIMETZOID:
			return PIN_DATESTYLE | PIN_TIMEZONE;
		case TIMEOID:
			return PIN_DATESTYLE;
		case INTERVALOID:
			return PIN_INTERVALSTYLE;
		case FLOAT4OID:
		case FLOAT8OID:
			return PIN_FLOAT;
		case BYTEAOID:
			return PIN_BYTEA;
		case CASHOID:
			return PIN_MONEY;
		default:
			/* arrays, composites, domains, ranges, reg*, others' types */
			return PIN_ALL;
	}
}

/* InvalidAttrNumber: there is none. */
static AttrNumber
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att->attnum;
	}
	return InvalidAttrNumber;
}

/*
 * A column that an argument of the route names; raises OB001 if it cannot be
 * used.
 */
static AttrNumber
need_column(Relation rel, TupleDesc desc, const char *name, const char *argument)
{
	AttrNumber	attno = find_column(desc, name);

	if (attno == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("column \"%s\" in %s does not exist in table \"%s\"",
						name, argument, RelationGetRelationName(rel)),
				 errhint("Names are case-sensitive here. After a column was renamed or dropped, call outbox.capture again with the new name.")));
	return attno;
}

/* A part of a template that stands for itself; parts has room for it. */
static void
add_literal(Template *template, const char *text, size_t len)
{
	TemplatePart *part;

	if (len == 0)
		return;
	part = &template->parts[template->n_parts++];
	memset(part, 0, sizeof(*part));
	part->text = pnstrdup(text, len);
	part->len = len;
}

/*
 * {Column}, {old.Column}, {{ and literal text.  known_name/known_text is a
 * further name that stands for a fixed text ({aggregate_type} in topics).
 */
static Template *
compile_template(Relation rel, TupleDesc desc, RouteOperation operation,
				 const char *text, const char *argument,
				 const char *known_name, const char *known_text)
{
	Template   *template = palloc(sizeof(Template));
	const char *literal = text;
	const char *at = text;

	template->n_parts = 0;
	template->parts = palloc(sizeof(TemplatePart) * (strlen(text) + 1));
	while (*at)
	{
		const char *close;
		char	   *name;
		TemplatePart *part;

		if (*at == '{' && at[1] == '{')
		{
			add_literal(template, literal, at + 1 - literal);
			at += 2;
			literal = at;
			continue;
		}
		if (*at != '{')
		{
			at++;
			continue;
		}
		close = strchr(at, '}');
		if (close == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OB_ROUTE_REFUSED),
					 errmsg("missing } in %s \"%s\"", argument, text),
					 errhint("Write {{ for a brace.")));
		add_literal(template, literal, at - literal);
		name = pnstrdup(at + 1, close - at - 1);
		at = literal = close + 1;

		if (known_name != NULL && strcmp(name, known_name) == 0 &&
			find_column(desc, name) == InvalidAttrNumber)
		{
			add_literal(template, known_text, strlen(known_text));
			continue;
		}
		part = &template->parts[template->n_parts++];
		memset(part, 0, sizeof(*part));
		if (strncmp(name, "old.", 4) == 0 &&
			find_column(desc, name) == InvalidAttrNumber)
		{
			if (operation == ROUTE_INSERT)
				ereport(ERROR,
						(errcode(ERRCODE_OB_ROUTE_REFUSED),
						 errmsg("{%s} in %s: an insert has no old row", name, argument),
						 errhint("Use {%s}, or make the route of the other operations apart.", name + 4)));
			part->old = true;
			name += 4;
		}
		part->attno = need_column(rel, desc, name, argument);
	}
	add_literal(template, literal, at - literal);
	return template;
}

/*
 * Not rd_pkindex, which up to PostgreSQL 16 leaves out a deferrable one, and one
 * of a partitioned table that not all partitions have yet.
 */
Oid
route_primary_key(Relation rel)
{
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		bool		primary = HeapTupleIsValid(tuple) &&
		((Form_pg_index) GETSTRUCT(tuple))->indisprimary;

		if (HeapTupleIsValid(tuple))
			ReleaseSysCache(tuple);
		if (primary)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

/* The primary key's columns, joined by commas; NULL without a primary key. */
static Template *
primary_key_template(Relation root, TupleDesc desc)
{
	Oid			pkey = route_primary_key(root);
	HeapTuple	tuple;
	Form_pg_index index;
	Template   *template;

	if (!OidIsValid(pkey))
		return NULL;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(pkey));
	if (!HeapTupleIsValid(tuple))
		return NULL;
	index = (Form_pg_index) GETSTRUCT(tuple);
	template = palloc(sizeof(Template));
	template->n_parts = 0;
	template->parts = palloc0(sizeof(TemplatePart) * index->indnkeyatts * 2);
	for (int i = 0; i < index->indnkeyatts; i++)
	{
		if (i > 0)
			add_literal(template, ",", 1);
		template->parts[template->n_parts++].attno = index->indkey.values[i];
	}
	ReleaseSysCache(tuple);
	return template;
}

/* A column of the payload. */
static void
add_column(Route *route, AttrNumber attno)
{
	JsonColumn *column = &route->columns[route->n_columns];

	json_column_init(column, TupleDescAttr(route->shape, attno - 1),
					 route->n_columns == 0);
	route->n_columns++;
	route->used = bms_add_member(route->used, attno);
	if (column->form == JSON_FORM_OTHER)
		route->pins |= pins_of_type(column->type);
	/* arrays and composites of json, and what users' casts make */
	if (column->form == JSON_FORM_JSON || column->form == JSON_FORM_OTHER)
		route->own_json = true;
}

/* columns={a,b}: an allow-list, in its own order. */
static void
compile_columns(Route *route, Relation rel, const char *value)
{
	Datum		array;
	Datum	   *names;
	int			n;
	FmgrInfo	array_in_info;

	fmgr_info(F_ARRAY_IN, &array_in_info);
	array = InputFunctionCall(&array_in_info, pstrdup(value), TEXTOID, -1);
	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &names, NULL, &n);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("columns is empty"),
				 errhint("Leave it out for all columns.")));
	route->columns = palloc0(sizeof(JsonColumn) * n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = TextDatumGetCString(names[i]);
		AttrNumber	attno = need_column(rel, route->shape, name, "columns");

		for (int j = 0; j < i; j++)
			if (route->columns[j].attno == attno)
				ereport(ERROR,
						(errcode(ERRCODE_OB_ROUTE_REFUSED),
						 errmsg("column \"%s\" stands twice in columns", name),
						 errhint("Name each column once.")));
		add_column(route, attno);
	}
}

/* What columns => NULL means. */
static void
all_columns(Route *route)
{
	route->columns = palloc0(sizeof(JsonColumn) * (route->shape->natts + 1));
	for (int i = 0; i < route->shape->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(route->shape, i);

		if (!att->attisdropped)
			add_column(route, i + 1);
	}
}

/* A template prints this column: its output function, and what it looks at. */
static void
use_output(Route *route, AttrNumber attno)
{
	Oid			type = TupleDescAttr(route->shape, attno - 1)->atttypid;
	Oid			function;
	bool		varlena;

	route->used = bms_add_member(route->used, attno);
	getTypeOutputInfo(type, &function, &varlena);
	fmgr_info(function, &route->outputs[attno - 1]);
	route->pins |= pins_of_type(getBaseType(type));
}

/* Look up the output functions of the columns that a template names. */
static Template *
use_outputs(Route *route, Template *template)
{
	for (int i = 0; template != NULL && i < template->n_parts; i++)
		if (template->parts[i].text == NULL)
			use_output(route, template->parts[i].attno);
	return template;
}

static bool
parse_boolean(const char *value, const char *argument)
{
	bool		result;

	if (!parse_bool(value, &result))
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("%s is \"%s\", expected true or false", argument, value),
				 errhint("Make routes with outbox.capture.")));
	return result;
}

/* The value of an argument, NULL if it is not given. */
static const char *
argument(int n, char **arguments, const char *name)
{
	for (int i = 0; i < n; i++)
	{
		const char *value = route_argument_value(arguments[i], name);

		if (value != NULL)
			return value;
	}
	return NULL;
}

/*
 * Refuse arguments that nobody knows: a misspelt one would be without effect.
 */
static void
check_arguments(int n, char **arguments)
{
	for (int i = 0; i < n; i++)
	{
		bool		known = false;

		/* what each event would repeat */
		if (!outbox_has_utf8_form(arguments[i], strlen(arguments[i])))
			ereport(ERROR,
					(errcode(ERRCODE_OB_ROUTE_REFUSED),
					 errmsg("%.*s has no form in UTF-8", (int) strcspn(arguments[i], "="),
							arguments[i]),
					 errhint("Events are UTF-8 in Kafka: give a text that can be converted.")));

		for (int j = 0; j < lengthof(argument_names) && !known; j++)
			known = route_argument_value(arguments[i], argument_names[j]) != NULL;
		if (!known)
			ereport(ERROR,
					(errcode(ERRCODE_OB_ROUTE_REFUSED),
					 errmsg("unknown argument \"%s\" of outbox.capture_row", arguments[i]),
					 errhint("Arguments are name=value texts with the names event_type, key, description, columns, include_old, topic, aggregate_type, headers, format.")));
		for (int j = 0; j < i; j++)
		{
			size_t		len = strcspn(arguments[i], "=") + 1;

			if (strncmp(arguments[i], arguments[j], len) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_OB_ROUTE_REFUSED),
						 errmsg("argument %.*s of outbox.capture_row is given twice",
								(int) len - 1, arguments[i]),
						 errhint("Only the first would have an effect: leave one out.")));
		}
	}
}

/* A topic without columns is checked now, others at each write. */
static void
check_fixed_topic(const Template *topic)
{
	StringInfoData name;

	initStringInfo(&name);
	for (int i = 0; i < topic->n_parts; i++)
	{
		if (topic->parts[i].text == NULL)
			return;
		appendBinaryStringInfo(&name, topic->parts[i].text, topic->parts[i].len);
	}
	outbox_check_topic_name(name.data, ERRCODE_OB_ROUTE_REFUSED);
}

/*
 * The topmost table of a partition's tree.  A partition whose DETACH ...
 * CONCURRENTLY has begun and is not finished still has its copy of the trigger,
 * and its rows are still the root's to older snapshots; get_partition_ancestors
 * leaves such a parent out, and answers nothing at all for the partition itself.
 */
static Oid
root_of_partition(Oid partition)
{
	Oid			root = partition;

	do
		root = get_partition_parent(root, true);
	while (get_rel_relispartition(root));
	return root;
}

/* Of which columns, in which order, events are made. */
static void
compile_shape(Route *route, Relation rel, Relation root)
{
	route->root = RelationGetRelid(root);
	route->shape = CreateTupleDescCopy(RelationGetDescr(root));
	/* the JSON's members follow the root's columns */
	if (root != rel)
		route->to_shape =
			compat_build_attrmap(RelationGetDescr(rel), route->shape);
	route->outputs = palloc0(sizeof(FmgrInfo) * (route->shape->natts + 1));
}

Route *
route_compile(Relation rel, RouteOperation operation, int n, char **arguments)
{
	Route	   *route = palloc0(sizeof(Route));
	Relation	root = rel;
	const char *value;

	check_arguments(n, arguments);
	route->operation = operation;
	value = argument(n, arguments, "event_type");
	if (value == NULL || value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("outbox.capture_row needs the argument event_type"),
				 errhint("Make routes with outbox.capture, or write EXECUTE FUNCTION outbox.capture_row('event_type=CarAdded').")));
	route->event_type = pstrdup(value);

	if (rel->rd_rel->relispartition)
		root = table_open(root_of_partition(RelationGetRelid(rel)), AccessShareLock);
	compile_shape(route, rel, root);

	value = argument(n, arguments, "aggregate_type");
	route->aggregate_type = pstrdup(value ? value : RelationGetRelationName(root));
	if (!outbox_has_utf8_form(route->aggregate_type, strlen(route->aggregate_type)))
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("the table's name has no form in UTF-8"),
				 errhint("Give another one with aggregate_type => ...")));
	value = argument(n, arguments, "key");
	route->key = use_outputs(route, value ?
							 compile_template(root, route->shape, operation,
											  value, "key", NULL, NULL) :
							 primary_key_template(root, route->shape));
	value = argument(n, arguments, "description");
	if (value != NULL)
		route->description =
			use_outputs(route, compile_template(root, route->shape, operation,
												value, "description", NULL, NULL));
	value = argument(n, arguments, "topic");
	if (value != NULL)
	{
		route->topic =
			use_outputs(route, compile_template(root, route->shape, operation,
												value, "topic", "aggregate_type",
												route->aggregate_type));
		check_fixed_topic(route->topic);
	}
	value = argument(n, arguments, "columns");
	if (value != NULL)
		compile_columns(route, root, value);
	else
		all_columns(route);
	value = argument(n, arguments, "include_old");
	if (value != NULL)
		route->include_old = parse_boolean(value, "include_old");
	value = argument(n, arguments, "headers");
	if (value != NULL)
	{
		route->headers = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
															CStringGetDatum(value)));
		outbox_check_headers(route->headers, ERRCODE_OB_ROUTE_REFUSED);
	}
	value = argument(n, arguments, "format");
	route->format = FORMAT_ENVELOPE;
	if (value != NULL &&
		(!wire_format_parse(value, strlen(value), &route->format) ||
		 route->format == FORMAT_RAW))
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("unknown format \"%s\"", value),
				 errhint("Formats of a route are envelope, payload and cloudevents.")));

	route->virtuals = virtual_columns(root, route->used);

	if (root != rel)
		table_close(root, AccessShareLock);
	return route;
}

/*
 * outbox.check_route(source regclass, operation text, arguments text[])
 */
Datum
outbox_check_route(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	char	   *word = text_to_cstring(PG_GETARG_TEXT_PP(1));
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(2);
	RouteOperation operation = strcmp(word, "insert") == 0 ? ROUTE_INSERT :
	strcmp(word, "update") == 0 ? ROUTE_UPDATE : ROUTE_DELETE;
	Relation	rel;
	Datum	   *values;
	char	  **arguments;
	int			n;

	rel = relation_open(relid, AccessShareLock);
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_OB_ROUTE_REFUSED),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel)),
				 errhint("Changes made through a view are captured on its tables.")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, NULL, &n);
	arguments = palloc(sizeof(char *) * (n + 1));
	for (int i = 0; i < n; i++)
		arguments[i] = TextDatumGetCString(values[i]);
	(void) route_compile(rel, operation, n, arguments);
	relation_close(rel, AccessShareLock);
	PG_RETURN_VOID();
}
