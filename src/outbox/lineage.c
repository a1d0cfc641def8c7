/*-------------------------------------------------------------------------
 *
 * lineage.c
 *	  Who publishes: the lineage's row, and where this server is at home.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A lineage moves with its data: a copied data directory, a restored backup or
 * a cloned volume has the same lineage and must not publish beside the
 * original.  The home tells them apart.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "outbox/lineage.h"
#include "outbox/relations.h"
#include "settings.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(outbox_home);

char *
home_text(void)
{
	struct statx status;
	uint64		inode = 0;
	int64		seconds = 0;
	uint32		nanoseconds = 0;

	/* the server's working directory is the data directory */
	if (statx(AT_FDCWD, "PG_VERSION", 0, STATX_INO | STATX_BTIME, &status) == 0)
	{
		inode = status.stx_ino;
		if (status.stx_mask & STATX_BTIME)
		{
			seconds = status.stx_btime.tv_sec;
			nanoseconds = status.stx_btime.tv_nsec;
		}
	}
	return psprintf(UINT64_FORMAT "/%u/%u/" UINT64_FORMAT "/" INT64_FORMAT ".%09u",
					GetSystemIdentifier(), GetWALInsertionTimeLine(),
					MyDatabaseId, inode, seconds, nanoseconds);
}

HomeRelation
home_compare(const char *mine, const char *other)
{
	unsigned long long my_system;
	unsigned long long other_system;
	unsigned int my_timeline;
	unsigned int other_timeline;
	unsigned int my_database;
	unsigned int other_database;

	if (strcmp(mine, other) == 0)
		return HOME_SAME;
	if (sscanf(mine, "%llu/%u/%u/", &my_system, &my_timeline, &my_database) != 3 ||
		sscanf(other, "%llu/%u/%u/", &other_system, &other_timeline,
			   &other_database) != 3)
		return HOME_OTHER;
	if (my_system != other_system || my_database != other_database)
		return HOME_OTHER;
	if (other_timeline > my_timeline)
		return HOME_LATER;
	if (my_timeline > other_timeline &&
		tliInHistory(other_timeline, readTimeLineHistory(my_timeline)))
		return HOME_ANCESTOR;
	return HOME_OTHER;
}

Datum
outbox_home(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(home_text()));
}

/* NULL becomes "". */
static void
copy_column(char *to, size_t size, HeapTuple row, TupleDesc desc, int column)
{
	char	   *value = SPI_getvalue(row, desc, column);

	strlcpy(to, value ? value : "", size);
}

void
lineage_read(Lineage *lineage)
{
	static SPIPlanPtr plan = NULL;
	HeapTuple	row;
	TupleDesc	desc;
	bool		isnull;
	char	   *xid;

	memset(lineage, 0, sizeof(*lineage));
	if (plan == NULL)
	{
		SPIPlanPtr	made = SPI_prepare("SELECT lineage::pg_catalog.text, cluster_id, progress_topic,"
									   " start_tick, claimed, paused, home, confirmed_tick,"
									   " inherited_xid::pg_catalog.text, inherited_tick"
									   " FROM outbox.lineage", 0, NULL);

		if (made == NULL || SPI_keepplan(made) != 0)
			elog(ERROR, "could not prepare the read of outbox.lineage");
		plan = made;
	}
	if (SPI_execute_plan(plan, NULL, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("outbox.lineage has no row"),
				 errhint("Begin a new lineage: INSERT INTO outbox.lineage DEFAULT VALUES; SELECT outbox.start_lineage();")));
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	copy_column(lineage->lineage, sizeof(lineage->lineage), row, desc, 1);
	copy_column(lineage->cluster_id, sizeof(lineage->cluster_id), row, desc, 2);
	copy_column(lineage->progress_topic, sizeof(lineage->progress_topic), row, desc, 3);
	lineage->start_tick = DatumGetInt64(SPI_getbinval(row, desc, 4, &isnull));
	lineage->claimed = DatumGetBool(SPI_getbinval(row, desc, 5, &isnull));
	lineage->paused = DatumGetBool(SPI_getbinval(row, desc, 6, &isnull));
	copy_column(lineage->home, sizeof(lineage->home), row, desc, 7);
	lineage->confirmed_tick = DatumGetInt64(SPI_getbinval(row, desc, 8, &isnull));
	xid = SPI_getvalue(row, desc, 9);
	lineage->inherits = xid != NULL;
	if (xid != NULL)
		lineage->inherited_xid = strtou64(xid, NULL, 10);
	lineage->inherited_tick = DatumGetInt64(SPI_getbinval(row, desc, 10, &isnull));
	SPI_freetuptable(SPI_tuptable);
}

/* Change the row if it is still of the lineage, whose uuid is the last argument. */
static void
update_row(const char *assignments, int n, Oid *types, Datum *values,
		   const char *lineage)
{
	char	   *query = psprintf("UPDATE outbox.lineage SET %s WHERE lineage::pg_catalog.text"
								 " OPERATOR(pg_catalog.=) $%d", assignments, n + 1);

	types[n] = TEXTOID;
	values[n] = CStringGetTextDatum(lineage);
	if (SPI_execute_with_args(query, n + 1, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update outbox.lineage");
}

void
lineage_record_birth(const char *lineage, const char *cluster_id,
					 const char *progress_topic, const char *home)
{
	Oid			types[4] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4];

	values[0] = CStringGetTextDatum(cluster_id);
	values[1] = CStringGetTextDatum(progress_topic);
	values[2] = CStringGetTextDatum(home);
	update_row("cluster_id = $1, progress_topic = $2, home = $3", 3, types,
			   values, lineage);
}

void
lineage_record_home(const char *lineage, const char *home)
{
	Oid			types[2] = {TEXTOID};
	Datum		values[2];

	values[0] = CStringGetTextDatum(home);
	update_row("claimed = false, home = $1, inherited_xid = NULL, inherited_tick = NULL,"
			   " published = NULL", 1, types, values, lineage);
}

void
lineage_record_inherited(const char *lineage, uint64 xid, int64 tick)
{
	Oid			types[3] = {TEXTOID, INT8OID};
	Datum		values[3];

	values[0] = CStringGetTextDatum(psprintf(UINT64_FORMAT, xid));
	values[1] = Int64GetDatum(tick);
	update_row("inherited_xid = COALESCE(inherited_xid, $1::pg_catalog.xid8),"
			   " inherited_tick = COALESCE(inherited_tick, $2)", 2, types, values, lineage);
}

void
lineage_record_published(const char *lineage, const char *snapshot)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];
	char		nulls[3] = {snapshot != NULL ? ' ' : 'n', ' ', '\0'};

	values[0] = snapshot != NULL ? CStringGetTextDatum(snapshot) : (Datum) 0;
	values[1] = CStringGetTextDatum(lineage);
	/* nothing is locked when it stands there already */
	if (SPI_execute_with_args("UPDATE outbox.lineage SET published = $1::pg_catalog.pg_snapshot"
							  " WHERE lineage::pg_catalog.text OPERATOR(pg_catalog.=) $2"
							  " AND published::pg_catalog.text IS DISTINCT FROM $1",
							  2, types, values, nulls, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update outbox.lineage");
}

bool
lineage_try_lock(LOCKMODE mode)
{
	if (!ConditionalLockRelationOid(outbox_relation("lineage"), mode))
		return false;
	if (SPI_execute("SELECT FROM outbox.lineage FOR UPDATE SKIP LOCKED", false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not lock outbox.lineage");
	return SPI_processed == 1;
}

bool
lineage_try_record_confirmed(const char *lineage, int64 tick)
{
	Oid			types[2] = {INT8OID};
	Datum		values[2];

	if (!lineage_try_lock(RowExclusiveLock))
		return false;
	values[0] = Int64GetDatum(tick);
	update_row("confirmed_tick = $1", 1, types, values, lineage);
	return SPI_processed == 1;
}

char *
lineage_progress_topic(const Lineage *lineage)
{
	StringInfoData name;
	const char *at = setting_progress_topic;

	initStringInfo(&name);
	while (*at)
	{
		if (strncmp(at, "{lineage}", 9) == 0)
		{
			appendStringInfoString(&name, lineage->lineage);
			at += 9;
		}
		else if (strncmp(at, "{database}", 10) == 0)
		{
			appendStringInfoString(&name, get_database_name(MyDatabaseId));
			at += 10;
		}
		else
			appendStringInfoChar(&name, *at++);
	}
	return name.data;
}
