/*-------------------------------------------------------------------------
 *
 * oracle.c
 *	  What PostgreSQL's own parser says of a JSON text.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * The parser of types json and jsonb is in PostgreSQL's libpgcommon.a, for its
 * own client programs: the fuzzer compares with it, and not with another reading
 * of the same rules.  It leaves UTF-8 to others, as in the server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "common/jsonapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "oracle.h"

bool
oracle_json(const char *text, size_t len, bool escapes)
{
	bool		result;

#if PG_VERSION_NUM >= 170000
	JsonLexContext lex;

	makeJsonLexContextCstringLen(&lex, text, len, PG_UTF8, escapes);
	result = pg_parse_json(&lex, &nullSemAction) == JSON_SUCCESS;
	freeJsonLexContext(&lex);
#else
	JsonLexContext *lex = makeJsonLexContextCstringLen((char *) text, (int) len, PG_UTF8, escapes);

	result = pg_parse_json(lex, &nullSemAction) == JSON_SUCCESS;
	if (lex->strval != NULL)
	{
		pfree(lex->strval->data);
		pfree(lex->strval);
	}
	pfree(lex);
#endif
	return result;
}
