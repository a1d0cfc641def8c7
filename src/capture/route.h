/*-------------------------------------------------------------------------
 *
 * route.h
 *	  A route: the arguments of one capture trigger, checked and compiled
 *	  against its table.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef CAPTURE_ROUTE_H
#define CAPTURE_ROUTE_H

#include "postgres.h"

#include "access/attmap.h"
#include "nodes/bitmapset.h"
#include "access/tupdesc.h"
#include "capture/row_json.h"
#include "fmgr.h"
#include "outbox/envelope.h"
#include "utils/jsonb.h"
#include "utils/relcache.h"
#include "utils/reltrigger.h"

/* Settings that the text or JSON form of a type depends on. */
#define PIN_DATESTYLE		0x01
#define PIN_INTERVALSTYLE	0x02
#define PIN_TIMEZONE		0x04
#define PIN_BYTEA			0x08
#define PIN_FLOAT			0x10
#define PIN_MONEY			0x20
#define PIN_XML				0x40
#define PIN_SEARCH_PATH		0x80
#define PIN_ALL				0xff

typedef struct TemplatePart
{
	const char *text;			/* a literal part, or NULL: a column */
	size_t		len;
	AttrNumber	attno;			/* in the shape's descriptor */
	bool		old;
} TemplatePart;

typedef struct Template
{
	int			n_parts;
	TemplatePart *parts;
} Template;

typedef enum RouteOperation
{
	ROUTE_INSERT,
	ROUTE_UPDATE,
	ROUTE_DELETE
} RouteOperation;

typedef struct Route
{
	RouteOperation operation;
	const char *event_type;
	const char *aggregate_type;
	Template   *key;			/* NULL: no key */
	Template   *description;	/* NULL: "<event type> <key>" */
	Template   *topic;			/* NULL: the default topic */
	bool		include_old;
	Jsonb	   *headers;
	EventFormat format;

	/*
	 * The shape of the row image: the root table's columns in their order (a
	 * partition may have another order).
	 */
	TupleDesc	shape;
	AttrMap    *to_shape;		/* from the table's own columns; NULL: alike */
	Bitmapset  *used;			/* columns of the shape that events show */
	struct VirtualColumns *virtuals;	/* among these; NULL: none */
	JsonColumn *columns;		/* of the payload */
	int			n_columns;
	bool		own_json;		/* one may hold JSON text of the writer's */
	FmgrInfo   *outputs;		/* of shape's columns that templates use */
	int			pins;			/* PIN_*: what the values' texts depend on */
	Oid			root;			/* the table whose shape it is */
} Route;

/*
 * The compiled route of a trigger that fires on rel.  Compiled once per session
 * and again after any change of the table or the trigger; what is returned stays
 * valid to the end of the transaction.  Raises OB001.
 */
extern Route *route_of_trigger(Relation rel, const Trigger *trigger,
							   RouteOperation operation);

/*
 * Compile a trigger's arguments for a table, in the current memory context.
 * Raises OB001 naming the argument, with a hint.
 */
extern Route *route_compile(Relation rel, RouteOperation operation,
							int n_arguments, char **arguments);

/* The table's primary key, also a deferrable one; InvalidOid: it has none. */
extern Oid	route_primary_key(Relation rel);

#endif							/* CAPTURE_ROUTE_H */
