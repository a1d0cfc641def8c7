/*-------------------------------------------------------------------------
 *
 * encoding.h
 *	  Texts of the database as UTF-8, which is what events are in Kafka.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A text is checked here when it is written and converted here when it is
 * measured, so that the relay never meets one that it cannot read.  In a
 * SQL_ASCII database any byte may stand in a text; and also in others a text
 * may hold what its type does not allow: names in shared catalogs, statements
 * in pg_stat_activity, and settings from a file, a startup packet or another
 * database's ALTER ROLE come as somebody else's bytes, unchecked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_ENCODING_H
#define OUTBOX_ENCODING_H

#include "postgres.h"

#include "outbox/envelope.h"

/*
 * Can the text, in the database's encoding, be turned into UTF-8?  False also
 * for a text with a NUL, which neither text nor jsonb could hold at a reader's.
 */
extern bool outbox_has_utf8_form(const char *text, size_t len);

/*
 * The text in UTF-8: as it is, or palloc'd.  False: it has no such form.  Bytes
 * of a UTF-8 database are given as they are, unchecked.
 */
extern bool outbox_try_utf8(TextSlice text, TextSlice *utf8);

/* Bytes of UTF-8 that one byte of a text becomes at most. */
extern int	outbox_utf8_growth(void);

/* The text in UTF-8: as it is, or palloc'd.  It must have such a form. */
extern TextSlice outbox_utf8(TextSlice text);

/*
 * The CloudEvents source of this database's events, palloc'd, a URI reference
 * in ASCII: carshop_outbox.event_source with %XX for what a URI may not hold,
 * or urn:carshop-outbox:<lineage>:<database>.  Bytes that are not UTF-8 are
 * taken as the database's encoding where they can be.  Needs a transaction.
 */
extern char *outbox_event_source(const char *lineage);

#endif							/* OUTBOX_ENCODING_H */
