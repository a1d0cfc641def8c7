/*-------------------------------------------------------------------------
 *
 * encoding.c
 *	  Texts of the database as UTF-8, which is what events are in Kafka.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "mutants.h"
#include "outbox/encoding.h"
#include "settings.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/*
 * Is it all ASCII, without a NUL?  Nearly every text is, and each event has
 * several: this is asked eight bytes at a time.
 */
static bool
all_ascii(const char *text, size_t len)
{
	const uint64 high = UINT64CONST(0x8080808080808080);
	const uint64 ones = UINT64CONST(0x0101010101010101);
	size_t		i = 0;

	for (; len - i >= sizeof(uint64); i += sizeof(uint64))
	{
		uint64		word;

		memcpy(&word, text + i, sizeof(word));
		/* a byte of zero borrows from the one before it */
		if ((word | (word - ones)) & high)
			return false;
	}
	for (; i < len; i++)
	{
		if (text[i] == '\0' || (unsigned char) text[i] >= 128)
			return false;
	}
	return true;
}

/* Are the texts' bytes UTF-8 already, if they are valid? */
static bool
bytes_stay(void)
{
	int			encoding = GetDatabaseEncoding();

	return encoding == PG_UTF8 || encoding == PG_SQL_ASCII;
}

/*
 * Convert bytes that are not UTF-8, without an error.  NULL: it cannot be done.
 * The result is palloc'd, of *utf8_len bytes.
 */
static char *
convert(const char *text, size_t len, size_t *utf8_len)
{
	int			encoding = GetDatabaseEncoding();
	Oid			conversion = FindDefaultConversionProc(encoding, PG_UTF8);
	char	   *converted;

	/* MULE_INTERNAL has none: the relay could not read ASCII texts either */
	if (!OidIsValid(conversion) || len > MaxAllocSize / MAX_CONVERSION_GROWTH - 1)
		return NULL;
	converted = palloc(len * MAX_CONVERSION_GROWTH + 1);
	if (pg_do_encoding_conversion_buf(conversion, encoding, PG_UTF8,
									  (unsigned char *) text, len,
									  (unsigned char *) converted,
									  len * MAX_CONVERSION_GROWTH + 1, true) != len)
	{
		pfree(converted);
		return NULL;
	}
	*utf8_len = strlen(converted);
	return converted;
}

/* Can the bytes, which are not UTF-8, be read in the database's encoding? */
static bool
can_convert(const char *text, size_t len)
{
	static bool has_conversion = false;
	size_t		utf8_len;
	char	   *converted;

	if (has_conversion && all_ascii(text, len))
		return true;
	if (len > MaxAllocSize / MAX_CONVERSION_GROWTH - 1)
		return true;			/* refused for its size */
	converted = convert(text, len, &utf8_len);
	if (converted == NULL)
		return false;
	has_conversion = true;
	pfree(converted);
	return true;
}

bool
outbox_try_utf8(TextSlice text, TextSlice *utf8)
{
	*utf8 = text;
	if (GetDatabaseEncoding() == PG_UTF8 || all_ascii(text.data, text.len))
		return true;
	if (bytes_stay())
		return pg_encoding_verifymbstr(PG_UTF8, text.data, text.len) == text.len;
	utf8->data = convert(text.data, text.len, &utf8->len);
	return utf8->data != NULL;
}

bool
outbox_has_utf8_form(const char *text, size_t len)
{
	if (MUTANT("no_encoding_check"))
		return true;
	if (bytes_stay())
		return all_ascii(text, len) || pg_encoding_verifymbstr(PG_UTF8, text, len) == len;
	return can_convert(text, len);
}

int
outbox_utf8_growth(void)
{
	return bytes_stay() ? 1 : MAX_CONVERSION_GROWTH;
}

TextSlice
outbox_utf8(TextSlice text)
{
	TextSlice	slice = text;

	if (text.data == NULL || bytes_stay())
		return slice;
	slice.data = pg_server_to_any(text.data, text.len, PG_UTF8);
	if (slice.data != text.data)
		slice.len = strlen(slice.data);
	return slice;
}

/*
 * Bytes of unknown encoding as part of a URI.  A database's name is written in
 * the encoding of whatever database CREATE DATABASE was called in, the file of
 * settings in the administrator's.
 */
static void
append_uri(WireBuffer *buffer, const char *bytes, bool reference)
{
	TextSlice	text = {bytes, strlen(bytes)};

	if (pg_encoding_verifymbstr(PG_UTF8, bytes, text.len) != text.len &&
		!bytes_stay() && can_convert(bytes, text.len))
		text = outbox_utf8(text);
	wire_append_uri(buffer, text.data, text.len, reference);
}

char *
outbox_event_source(const char *lineage)
{
	WireBuffer	buffer = {0};
	char	   *source;

	if (setting_event_source[0] != '\0')
	{
		append_uri(&buffer, setting_event_source, true);
		source = buffer.failed ? NULL : pnstrdup(buffer.data, buffer.len);
	}
	else
	{
		/*
		 * a catalog look-up may raise an error: before there is anything to
		 * free
		 */
		char	   *name = get_database_name(MyDatabaseId);

		append_uri(&buffer, name, false);
		source = buffer.failed ? NULL :
			psprintf("urn:carshop-outbox:%s:%.*s", lineage, (int) buffer.len, buffer.data);
	}
	wire_buffer_free(&buffer);
	if (buffer.failed)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return source;
}
