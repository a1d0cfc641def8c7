/*-------------------------------------------------------------------------
 *
 * json_escapes.h
 *	  Escapes that are valid JSON and yet stand for no text.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11, no postgres.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_JSON_ESCAPES_H
#define OUTBOX_JSON_ESCAPES_H

#include <stddef.h>

/*
 * What is wrong with the escapes of a valid JSON text, as words for a message,
 * or NULL: \u0000, and halves of surrogate pairs that stand alone.  Type json
 * takes both (RFC 8259, section 8.2 leaves them open); neither jsonb nor text
 * can hold them, so no report table could, and .NET's readers refuse them.
 */
extern const char *json_escape_problem(const char *json, size_t len);

#endif							/* OUTBOX_JSON_ESCAPES_H */
