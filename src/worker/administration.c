/*-------------------------------------------------------------------------
 *
 * administration.c
 *	  Commands that need a database for themselves have its workers leave.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *	  DROP DATABASE x							nobody else may be connected to x
 *	  ALTER DATABASE x RENAME TO				likewise
 *	  ALTER DATABASE x SET TABLESPACE			likewise
 *	  CREATE DATABASE ... TEMPLATE x			likewise
 *	  ALTER DATABASE x ALLOW_CONNECTIONS false	lets others stay; but our launcher
 *				starts nobody in a closed database, so whether one works there must
 *				not depend on when it was started
 *
 * A utility hook sees them in the session that runs them, before PostgreSQL
 * does.  A session that may not run the command must not make anybody leave, so
 * what PostgreSQL refuses by rights or by name is looked at here first, and left
 * to it.  That is no guard: what passes here and is refused later costs a
 * worker's short absence.
 *
 * They, and all that changes which databases there are or who may connect,
 * have the launcher look again when the transaction ends, so that a worker
 * that is wanted comes (back) at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "worker/administration.h"
#include "worker/step_aside.h"

static ProcessUtility_hook_type prev_process_utility = NULL;

/* As have_createdb_privilege(), which 15 keeps to itself. */
static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	may = HeapTupleIsValid(tuple) &&
		((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return may;
}

/* False: no such database.  *is_template and *tablespace may be NULL. */
static bool
find_database(const char *name, Oid *oid, bool *is_template, Oid *tablespace)
{
	HeapTuple	tuple;
	Form_pg_database database;

	*oid = get_database_oid(name, true);
	if (!OidIsValid(*oid))
		return false;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(*oid));
	if (!HeapTupleIsValid(tuple))
		return false;
	database = (Form_pg_database) GETSTRUCT(tuple);
	if (is_template != NULL)
		*is_template = database->datistemplate;
	if (tablespace != NULL)
		*tablespace = database->dattablespace;
	ReleaseSysCache(tuple);
	return true;
}

/* The last option of that name that has a value, or NULL. */
static DefElem *
option(List *options, const char *name)
{
	DefElem    *found = NULL;
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *element = lfirst(lc);

		if (strcmp(element->defname, name) == 0 && element->arg != NULL)
			found = element;
	}
	return found;
}

/*
 * Each of these answers whether the command gets so far as to look who else is
 * connected, and to which database.
 */
static bool
create_needs(CreatedbStmt *statement, Oid *oid)
{
	DefElem    *template = option(statement->options, "template");
	bool		is_template;

	return may_create_databases() &&
		find_database(template != NULL ? defGetString(template) : "template1",
					  oid, &is_template, NULL) &&
		(is_template || compat_owns_database(*oid, GetUserId())) &&
		!OidIsValid(get_database_oid(statement->dbname, true));
}

static bool
drop_needs(DropdbStmt *statement, Oid *oid)
{
	bool		is_template;

	return find_database(statement->dbname, oid, &is_template, NULL) &&
		compat_owns_database(*oid, GetUserId()) && !is_template &&
		*oid != MyDatabaseId;
}

static bool
rename_needs(RenameStmt *statement, Oid *oid)
{
	return find_database(statement->subname, oid, NULL, NULL) &&
		compat_owns_database(*oid, GetUserId()) && may_create_databases() &&
		!OidIsValid(get_database_oid(statement->newname, true)) &&
		*oid != MyDatabaseId;
}

static bool
alter_needs(AlterDatabaseStmt *statement, Oid *oid)
{
	DefElem    *tablespace = option(statement->options, "tablespace");
	DefElem    *allow = option(statement->options, "allow_connections");
	Oid			present;
	Oid			wanted;

	if ((tablespace == NULL && allow == NULL) ||
		!find_database(statement->dbname, oid, NULL, &present) ||
		!compat_owns_database(*oid, GetUserId()) || *oid == MyDatabaseId)
		return false;
	if (tablespace == NULL)
		return !defGetBoolean(allow);
	wanted = get_tablespace_oid(defGetString(tablespace), true);
	return OidIsValid(wanted) && wanted != present;
}

/*
 * Have workers leave that are in the way of this statement.  alone: it is in no
 * transaction block.
 */
static void
make_room(Node *statement, bool alone)
{
	Oid			oid = InvalidOid;
	bool		needs;

	switch (nodeTag(statement))
	{
		case T_CreatedbStmt:
			needs = alone && create_needs((CreatedbStmt *) statement, &oid);
			break;
		case T_DropdbStmt:
			needs = alone && drop_needs((DropdbStmt *) statement, &oid);
			break;
		case T_AlterDatabaseStmt:
			/* PostgreSQL wants only SET TABLESPACE alone, and says so */
			needs = (alone || option(((AlterDatabaseStmt *) statement)->options, "tablespace") == NULL) &&
				alter_needs((AlterDatabaseStmt *) statement, &oid);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType != OBJECT_DATABASE)
				return;
			needs = rename_needs((RenameStmt *) statement, &oid);
			break;
		default:
			return;
	}
	step_aside_look_again();
	if (needs)
		step_aside_ask(oid);
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString,
				bool readOnlyTree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *queryEnv,
				DestReceiver *dest, QueryCompletion *qc)
{
	/* a standby has no workers, and refuses the command */
	if (!RecoveryInProgress())
		make_room(pstmt->utilityStmt,
				  !IsInTransactionBlock(context == PROCESS_UTILITY_TOPLEVEL));
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context,
							 params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

void
administration_install(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
