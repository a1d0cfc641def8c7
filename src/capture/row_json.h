/*-------------------------------------------------------------------------
 *
 * row_json.h
 *	  The JSON image of a row: what core's row_to_json makes of it under our
 *	  settings, with everything that can be known once per table known once.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef CAPTURE_ROW_JSON_H
#define CAPTURE_ROW_JSON_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"

/* How a column's values become JSON. */
typedef enum JsonForm
{
	JSON_FORM_BOOL,
	JSON_FORM_INT2,
	JSON_FORM_INT4,
	JSON_FORM_INT8,
	JSON_FORM_FLOAT4,
	JSON_FORM_FLOAT8,
	JSON_FORM_NUMERIC,
	JSON_FORM_TEXT,				/* text, varchar, char(n) */
	JSON_FORM_UUID,
	JSON_FORM_DATETIME,			/* date, timestamp, timestamptz */
	JSON_FORM_JSON,
	JSON_FORM_JSONB,
	JSON_FORM_OTHER				/* core's to_json, under pinned settings */
} JsonForm;

typedef struct JsonColumn
{
	AttrNumber	attno;			/* in the row's descriptor */
	Oid			type;			/* a domain's base type */
	JsonForm	form;
	const char *member;			/* "name": with what separates it */
	size_t		member_len;
	FmgrInfo	to_json;		/* JSON_FORM_OTHER */
} JsonColumn;

/*
 * Fill in a column for an attribute, in the current memory context, which must
 * live as long as the column.
 */
extern void json_column_init(JsonColumn *column, Form_pg_attribute attribute,
							 bool first);

/*
 * Append the row's JSON object.  values and isnull are those of the row's
 * descriptor, by attribute number.
 */
extern void append_row_json(StringInfo out, JsonColumn *columns, int n,
							const Datum *values, const bool *isnull);

#endif							/* CAPTURE_ROW_JSON_H */
