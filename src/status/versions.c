/*-------------------------------------------------------------------------
 *
 * versions.c
 *	  outbox.versions(): what of which version is at work.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "kafka/kafka.h"
#include "utils/builtins.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(outbox_versions);

#define VERSIONS_COLUMNS 4

/* outbox.versions(objects text): of this session's library, which is the workers' when it is preloaded. */
Datum
outbox_versions(PG_FUNCTION_ARGS)
{
	Datum		values[VERSIONS_COLUMNS] = {0};
	bool		nulls[VERSIONS_COLUMNS] = {0};
	const char *remedy = worker_version_remedy(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	const char *fault = kafka_library_fault(kafka_library_number());
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	values[0] = CStringGetTextDatum(worker_library_version());
	nulls[1] = remedy == NULL;
	if (remedy != NULL)
		values[1] = CStringGetTextDatum(remedy);
	values[2] = CStringGetTextDatum(kafka_library_version());
	nulls[3] = fault == NULL;
	if (fault != NULL)
		values[3] = CStringGetTextDatum(fault);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
