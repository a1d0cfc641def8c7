/*-------------------------------------------------------------------------
 *
 * route_arguments.c
 *	  The name=value arguments of a capture trigger, as stored in pg_trigger.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "outbox/route_arguments.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(outbox_route_argument);

/* By the catalog, and not by name: a role may lack USAGE on the schema. */
Oid
outbox_capture_function(bool missing_ok)
{
	Oid			namespace = get_namespace_oid("outbox", true);
	Oid			function = InvalidOid;

	if (OidIsValid(namespace))
		function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
								   CStringGetDatum("capture_row"),
								   PointerGetDatum(buildoidvector(NULL, 0)),
								   ObjectIdGetDatum(namespace));
	if (!OidIsValid(function) && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function outbox.capture_row() of extension carshop_outbox is missing")));
	return function;
}

const char *
route_argument_value(const char *argument, const char *name)
{
	size_t		len = strlen(name);

	if (strncmp(argument, name, len) == 0 && argument[len] == '=')
		return argument + len + 1;
	return NULL;
}

char *
route_argument(Relation pg_trigger, HeapTuple tuple, const char *name)
{
	int			nargs = ((Form_pg_trigger) GETSTRUCT(tuple))->tgnargs;
	bool		isnull;
	Datum		value = fastgetattr(tuple, Anum_pg_trigger_tgargs,
									RelationGetDescr(pg_trigger), &isnull);
	bytea	   *packed;
	const char *at;

	if (isnull)
		return NULL;
	packed = DatumGetByteaPP(value);
	at = VARDATA_ANY(packed);
	for (int i = 0; i < nargs; i++)
	{
		const char *found = route_argument_value(at, name);

		if (found != NULL)
			return pstrdup(found);
		at += strlen(at) + 1;
	}
	return NULL;
}

/* outbox.route_argument(trigger oid, name text) */
Datum
outbox_route_argument(PG_FUNCTION_ARGS)
{
	Oid			trigger = PG_GETARG_OID(0);
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *found = NULL;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(rel, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		found = route_argument(rel, tuple, name);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (found == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(found));
}
