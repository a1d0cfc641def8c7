/*-------------------------------------------------------------------------
 *
 * advice.c
 *	  What people are told who define a report and have not got the names right.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "report/advice.h"
#include "report/as_owner.h"
#include "report/report_run.h"
#include "report/reports.h"
#include "report/sql_plan.h"
#include "settings.h"
#include "utils/builtins.h"

/*
 * Names are the likeliest fault.  A function that is not found may be one of
 * another schema, or one of PostgreSQL's that takes no text.
 */
void
report_hint_at_names(const char *what)
{
	switch (geterrcode())
	{
		case ERRCODE_UNDEFINED_TABLE:
			errhint("A report's %s runs with search_path = " REPORT_SEARCH_PATH
					": qualify tables with their schema. A member of an event's data is data ->> 'name'.",
					what);
			break;
		case ERRCODE_UNDEFINED_FUNCTION:
			errhint("What data ->> 'name' answers is text: cast it, as in (data ->> 'name')::numeric. Functions that are not PostgreSQL's own want their schema: a report's %s runs with search_path = " REPORT_SEARCH_PATH ".",
					what);
			break;
		case ERRCODE_UNDEFINED_COLUMN:
			errhint(NEW_EVENTS " has the columns of report.reported_events; a member of an event's data is data ->> 'name'.");
			break;
		default:
			break;
	}
}

void
report_warn_of_unread(const char *topic)
{
	static SqlPlan get_remedy = {
		"SELECT outbox.set_remedy('carshop_outbox.report_topics', $1)",
		1, {TEXTOID}, NULL
	};
	StringInfoData topics;
	ListCell   *cell;
	AsOwner		scope;
	Datum		value;

	initStringInfo(&topics);
	foreach(cell, settings_split(setting_report_topics))
	{
		if (strcmp(lfirst(cell), topic) == 0)
			return;
		appendStringInfo(&topics, "%s,", (char *) lfirst(cell));
	}
	appendStringInfoString(&topics, topic);

	as_owner_begin(&scope);
	value = CStringGetTextDatum(topics.data);
	if (sql_plan_execute(&get_remedy, &value, NULL) > 0)
		ereport(WARNING,
				(errmsg("topic \"%s\" is not read in this database", topic),
				 errhint("%s", sql_string(0, 1))));
	as_owner_end(&scope);
}
