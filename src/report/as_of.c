/*-------------------------------------------------------------------------
 *
 * as_of.c
 *	  report.as_of: a report's content as it was when it had applied the event
 *	  log up to an earlier place.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The statement is given a temporary table of the target's form instead of the
 * target, and the log from its beginning.  All of it happens in a subtransaction
 * that is undone: the target is neither read nor locked against anybody, what the
 * statement does elsewhere (outbox.emit, other tables) never was.
 *
 * The temporary table takes the target's place in the statement's text: where
 * the parser sees the target's name, its schema becomes pg_temp.  The table's own
 * name stays, so that columns may be qualified with it.  A statement that
 * reaches the target by another way (a view) is refused: the planner tells which
 * relations it depends on.
 *
 * Not of the target's form are its triggers and foreign keys.  What they refuse
 * stands in the dead letters, and is left out by that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "errors.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "report/as_owner.h"
#include "report/mirror_guard.h"
#include "report/replay.h"
#include "report/reports.h"
#include "report/sql_plan.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/subtransaction.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(report_as_of);
PG_FUNCTION_INFO_V1(report_as_of_time);

/* Rows of the result that are fetched together. */
#define ROWS_AT_ONCE	1000

typedef struct AsOf
{
	Replay		replay;
	const char *schema;			/* the target's */
	const char *table;
	Oid			view;			/* what people read instead of the target, if
								 * there is one (report.define_select) */
	int64		upto;
	Snapshot	snapshot;
	List	   *refused;		/* Datums: log_seq of the report's dead
								 * letters */
	Tuplestorestate *result;
	TupleDesc	result_desc;
} AsOf;

/* ------------------------------------------------------------------------
 * The statement on another table
 * ------------------------------------------------------------------------
 */

typedef struct Names
{
	const char *schema;
	const char *table;
	List	   *locations;		/* of the schema's name, before the table's */
} Names;

static bool
is_target(const Names *names, const char *schema, const char *table)
{
	return schema != NULL && strcmp(schema, names->schema) == 0 &&
		strcmp(table, names->table) == 0;
}

/* Where the target is named, as a relation or before a column. */
static bool
find_names(Node *node, void *context)
{
	Names	   *names = context;

	if (node == NULL)
		return false;
	if (IsA(node, RangeVar))
	{
		RangeVar   *var = (RangeVar *) node;

		if (var->catalogname == NULL &&
			is_target(names, var->schemaname, var->relname))
			names->locations = list_append_unique_int(names->locations,
													  var->location);
	}
	else if (IsA(node, ColumnRef))
	{
		ColumnRef  *column = (ColumnRef *) node;

		if (list_length(column->fields) == 3 &&
			IsA(linitial(column->fields), String) &&
			IsA(lsecond(column->fields), String) &&
			is_target(names, strVal(linitial(column->fields)),
					  strVal(lsecond(column->fields))))
			names->locations = list_append_unique_int(names->locations,
													  column->location);
		return false;
	}
	return raw_expression_tree_walker(node, find_names, context);
}

/* Behind the identifier that begins here. */
static const char *
skip_identifier(const char *text)
{
	if (*text != '"')
	{
		while (isalnum((unsigned char) *text) || *text == '_' ||
			   *text == '$' || IS_HIGHBIT_SET(*text))
			text++;
		return text;
	}
	for (text++; *text != '\0'; text++)
	{
		if (text[0] == '"' && text[1] != '"')
			return text + 1;
		if (text[0] == '"')
			text++;
	}
	return text;
}

static int
compare_locations(const ListCell *a, const ListCell *b)
{
	return lfirst_int(a) - lfirst_int(b);
}

static char *
redirect(const char *statement, const char *schema, const char *table)
{
	Names		names = {schema, table, NIL};
	const char *from = statement;
	StringInfoData text;
	ListCell   *cell;

	foreach(cell, raw_parser(statement, RAW_PARSE_DEFAULT))
		(void) find_names(lfirst_node(RawStmt, cell)->stmt, &names);
	list_sort(names.locations, compare_locations);

	initStringInfo(&text);
	foreach(cell, names.locations)
	{
		const char *name = statement + lfirst_int(cell);

		appendBinaryStringInfo(&text, from, (int) (name - from));
		appendStringInfoString(&text, "pg_temp");
		from = skip_identifier(name);
	}
	appendStringInfoString(&text, from);
	return text.data;
}

/* With the owner's rights: it must not depend on the target any more. */
static void
check_redirected(AsOf *as_of)
{
	const ReplayReport *report = as_of->replay.report;
	Tuplestorestate *store = tuplestore_begin_heap(false, false, 64);
	Relation	log = report_register_events(store, 0);
	ReportScope scope;
	SPIPlanPtr	plan;
	CachedPlanSource *source;

	report_enter(&scope, report->owner);
	plan = SPI_prepare(as_of->replay.statement, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare the report's statement: %s",
			 SPI_result_code_string(SPI_result));
	source = linitial(SPI_plan_get_plan_sources(plan));
	if (list_member_oid(source->relationOids, report->target))
		ereport(ERROR,
				(errcode(ERRCODE_OB_REPORT_REFUSED),
				 errmsg("what report \"%s\" was earlier cannot be computed: its statement reaches table %s by another way than its name",
						report->name,
						quote_qualified_identifier(as_of->schema, as_of->table)),
				 errhint("Let the statement name the table itself, not a view of it, and without the database's name.")));
	report_leave(&scope);
	SPI_freeplan(plan);
	table_close(log, NoLock);
	tuplestore_end(store);
}

/* ------------------------------------------------------------------------
 * Computing
 * ------------------------------------------------------------------------
 */

/* Before the restrictions begin, which forbid it; nothing of the owner runs. */
static void
make_table(AsOf *as_of)
{
	const char *table = quote_identifier(as_of->table);
	Oid			user;
	int			security;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(as_of->replay.report->owner,
						   security | SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(psprintf("CREATE TEMPORARY TABLE %s (LIKE %s INCLUDING ALL EXCLUDING COMMENTS)",
							 table,
							 quote_qualified_identifier(as_of->schema, as_of->table)),
					false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not make a table like that of the report");
	SetUserIdAndSecContext(user, security);
}

/* What is shown of the table: all of it, or what its view makes of it. */
static char *
shown(const AsOf *as_of)
{
	char	   *query;
	Size		len;

	if (!OidIsValid(as_of->view))
		return psprintf("SELECT * FROM pg_temp.%s", quote_identifier(as_of->table));
	query = TextDatumGetCString(DirectFunctionCall1(pg_get_viewdef,
													ObjectIdGetDatum(as_of->view)));
	len = strlen(query);
	if (len > 0 && query[len - 1] == ';')
		query[len - 1] = '\0';
	return redirect(query, as_of->schema, as_of->table);
}

/* Some rows at a time: the table may be as large as the target. */
static void
read_table(AsOf *as_of)
{
	ReportScope scope;
	Portal		portal;
	uint64		n;

	report_enter(&scope, as_of->replay.report->owner);
	portal = SPI_cursor_open_with_args(NULL,
									   psprintf("SELECT pg_catalog.to_jsonb(t) FROM (%s) t", shown(as_of)),
									   0, NULL, NULL, NULL, false,
									   CURSOR_OPT_NO_SCROLL);
	do
	{
		SPI_cursor_fetch(portal, true, ROWS_AT_ONCE);
		n = SPI_processed;
		for (uint64 i = 0; i < n; i++)
		{
			bool		isnull;
			Datum		value = sql_value(i, 1, &isnull);

			tuplestore_putvalues(as_of->result, as_of->result_desc, &value, &isnull);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (n > 0);
	SPI_cursor_close(portal);
	report_leave(&scope);
}

/* In a subtransaction that is undone. */
static void
compute(void *arg)
{
	AsOf	   *as_of = arg;
	Replay	   *replay = &as_of->replay;
	ListCell   *cell;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	make_table(as_of);
	replay->statement = redirect(replay->report->statement, as_of->schema,
								 as_of->table);
	check_redirected(as_of);

	foreach(cell, as_of->refused)
	{
		int64		log_seq = *(int64 *) lfirst(cell);

		replay_upto(replay, as_of->snapshot, log_seq - 1);
		replay->after = log_seq;
	}
	replay_upto(replay, as_of->snapshot, as_of->upto);
	read_table(as_of);
	SPI_finish();
}

/* ------------------------------------------------------------------------
 * The functions
 * ------------------------------------------------------------------------
 */

static void
load_refused(AsOf *as_of, MemoryContext context)
{
	static SqlPlan get_refused = {
		"SELECT DISTINCT log_seq FROM report.dead_letter"
		" WHERE report = $1 AND log_seq > $2 AND log_seq <= $3 ORDER BY 1",
		3, {TEXTOID, INT8OID, INT8OID}, NULL
	};
	Datum		values[3];
	uint64		n;
	MemoryContext old;

	values[0] = CStringGetTextDatum(as_of->replay.report->name);
	values[1] = Int64GetDatum(as_of->replay.after);
	values[2] = Int64GetDatum(as_of->upto);
	n = sql_plan_execute(&get_refused, values, NULL);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
	{
		int64	   *log_seq = palloc(sizeof(int64));

		*log_seq = DatumGetInt64(sql_value(i, 1, NULL));
		as_of->refused = lappend(as_of->refused, log_seq);
	}
	MemoryContextSwitchTo(old);
}

/* What is needed of the log must be there. */
static void
check_complete(const AsOf *as_of)
{
	const ReplayReport *report = as_of->replay.report;
	int64		from = replay_complete_from(as_of->snapshot);

	if (from > report->start_seq + 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("what report \"%s\" was earlier cannot be computed: the event log has lost what stood before log_seq " INT64_FORMAT,
						report->name, from),
				 errdetail("Old events were removed (carshop_outbox.report_retention).")));
}

/* The view over the target, by which people read a SELECT that needs more columns. */
static Oid
view_of(const char *name)
{
	static SqlPlan get_view = {
		"SELECT pg_catalog.to_regclass(source ->> 'view')::pg_catalog.oid"
		" FROM report.definitions WHERE name = $1 AND kind = 'select'",
		1, {TEXTOID}, NULL
	};
	Datum		value = CStringGetTextDatum(name);
	bool		isnull;
	Datum		view;

	if (sql_plan_execute(&get_view, &value, NULL) == 0)
		return InvalidOid;
	view = sql_value(0, 1, &isnull);
	return isnull ? InvalidOid : DatumGetObjectId(view);
}

/* The newest event that was stored by then. */
static int64
place_of_time(TimestampTz at)
{
	static SqlPlan get_place = {
		"SELECT COALESCE(pg_catalog.max(log_seq), 0)"
		" FROM report.reported_events WHERE received_at <= $1",
		1, {TIMESTAMPTZOID}, NULL
	};
	Datum		value = TimestampTzGetDatum(at);

	sql_plan_execute(&get_place, &value, NULL);
	return DatumGetInt64(sql_value(0, 1, NULL));
}

static Datum
as_of(FunctionCallInfo fcinfo, bool by_time)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext context = CurrentMemoryContext;
	AsOf	   *as_of = palloc0(sizeof(AsOf));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Oid			caller = GetUserId();
	ReplayReport *report;
	const char *trouble;
	AsOwner		scope;

	PreventCommandDuringRecovery("report.as_of()");
	PreventCommandIfReadOnly("report.as_of()");
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	as_of->result = rsinfo->setResult;
	as_of->result_desc = rsinfo->setDesc;
	as_of->snapshot = RegisterSnapshot(GetTransactionSnapshot());

	as_owner_begin(&scope);
	report = replay_load(name, caller, false, context);
	as_of->replay.report = report;
	as_of->replay.after = report->start_seq;
	as_of->upto = by_time ? place_of_time(PG_GETARG_TIMESTAMPTZ(1)) :
		PG_GETARG_INT64(1);
	check_complete(as_of);
	load_refused(as_of, context);
	as_of->view = view_of(name);
	as_owner_end(&scope);

	trouble = report_owner_trouble(report->owner, report->target);
	if (trouble != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("report \"%s\" cannot be computed: %s", name, trouble),
				 errhint("Define it again as the role that owns the table.")));
	as_of->schema = get_namespace_name(get_rel_namespace(report->target));
	as_of->table = get_rel_name(report->target);
	PG_TRY();
	{
		/* in order, and without those that are refused: none comes late */
		mirror_guard_off(true);
		subtransaction_undo(compute, as_of);
	}
	PG_FINALLY();
	{
		mirror_guard_off(false);
		report_forget_plans(&as_of->replay.plans);
	}
	PG_END_TRY();
	UnregisterSnapshot(as_of->snapshot);
	if (as_of->replay.refused > 0)
		ereport(NOTICE,
				(errmsg(INT64_FORMAT " event(s) that the statement of report \"%s\" refuses now are not in it",
						as_of->replay.refused, name)));
	return (Datum) 0;
}

Datum
report_as_of(PG_FUNCTION_ARGS)
{
	return as_of(fcinfo, false);
}

Datum
report_as_of_time(PG_FUNCTION_ARGS)
{
	return as_of(fcinfo, true);
}
