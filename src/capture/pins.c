/*-------------------------------------------------------------------------
 *
 * pins.c
 *	  Settings pinned while a row is turned into text.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The same idea as postgres_fdw's set_transmission_modes, but only for the
 * settings that the row's types depend on, and only when they differ: a
 * change of a setting costs more than the text of a row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "capture/pins.h"
#include "capture/route.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "mutants.h"
#include "pgtime.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/xml.h"

/* Set until AtEOXact_GUC(level); makes the level when it is the first. */
static void
pin(int *level, const char *name, const char *value)
{
	if (*level == 0)
		*level = NewGUCNestLevel();
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

int
pins_set(int pins)
{
	int			level = 0;

	if (pins == 0 || MUTANT("no_pins"))
		return 0;
	if ((pins & PIN_DATESTYLE) && DateStyle != USE_ISO_DATES)
		pin(&level, "DateStyle", "ISO, YMD");
	if ((pins & PIN_INTERVALSTYLE) && IntervalStyle != INTSTYLE_POSTGRES)
		pin(&level, "IntervalStyle", "postgres");
	if ((pins & PIN_TIMEZONE) &&
		strcmp(pg_get_timezone_name(session_timezone), "UTC") != 0)
		pin(&level, "TimeZone", "UTC");
	if ((pins & PIN_BYTEA) && bytea_output != BYTEA_OUTPUT_HEX)
		pin(&level, "bytea_output", "hex");
	if ((pins & PIN_FLOAT) && extra_float_digits != 1)
		pin(&level, "extra_float_digits", "1");

	/* by name: from 17 on utils/pg_locale.h wants ICU's headers */
	if ((pins & PIN_MONEY) &&
		strcmp(GetConfigOption("lc_monetary", false, false), "C") != 0)
		pin(&level, "lc_monetary", "C");
	if ((pins & PIN_XML) && xmlbinary != XMLBINARY_BASE64)
		pin(&level, "xmlbinary", "base64");
	if ((pins & PIN_SEARCH_PATH) &&
		strcmp(namespace_search_path, "pg_catalog, pg_temp") != 0)
		pin(&level, "search_path", "pg_catalog, pg_temp");
	/* reg* types print quoted names */
	if ((pins & PIN_SEARCH_PATH) && quote_all_identifiers)
		pin(&level, "quote_all_identifiers", "off");
	return level;
}

void
pins_restore(int level)
{
	if (level != 0)
		AtEOXact_GUC(true, level);
}
