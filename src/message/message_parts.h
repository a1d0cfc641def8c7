/*-------------------------------------------------------------------------
 *
 * message_parts.h
 *	  Parts of a message: members, headers, and why they are refused.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * For the files of message/ alone.  Functions that answer false have rejected the message.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MESSAGE_PARTS_H
#define MESSAGE_PARTS_H

#include "message/json_scan.h"
#include "message/message.h"

/* SQLSTATEs as PostgreSQL gives them for the same faults. */
#define STATE_INVALID_JSON		"22032" /* invalid_json_text */
#define STATE_INVALID_TIME		"22007" /* invalid_datetime_format */
#define STATE_INVALID_MESSAGE	"22023" /* invalid_parameter_value */
#define STATE_UNSTORABLE		"22P05" /* untranslatable_character */
#define STATE_TOO_DEEP			"54001" /* statement_too_complex */

/* ---- scratch memory ---- */

/* Room for everything that decoding this message can write. */
extern bool message_reserve(MessageDecoder *decoder,
							const MessageInput *input);
extern void message_scratch(MessageDecoder *decoder, const char *data,
							size_t len);

/* Was there too little?  Then something is not written, and nothing counts. */
extern bool message_overrun(const MessageDecoder *decoder);

/* What is written next; set back when it is not needed any more. */
extern char *message_scratch_end(MessageDecoder *decoder);
extern void message_scratch_reset(MessageDecoder *decoder, char *end);

/* ---- refusals ---- */
extern void message_reject(Message *message, const char *sqlstate,
						   const char *reason);
extern void message_reject_member(Message *message, const char *sqlstate,
								  const char *name, const char *what);

/* ... with what the message may be instead (message_guess.c) ... */

/* The value is not JSON, as the scanner has found. */
extern void message_reject_scan(Message *message, const MessageInput *input,
								const JsonScanner *scanner);

/* It is, but no object; or one without EventType. */
extern void message_reject_no_object(Message *message, const JsonSpan *value);
extern void message_reject_no_type(Message *message,
								   const MessageInput *input);

/* A member of a wrong value, which is quoted. */
extern void message_reject_value(Message *message, const char *sqlstate,
								 const char *name, const char *what,
								 const char *data, size_t len);

/* ---- members ---- */

/* There, and not null? */
extern bool message_is_present(const JsonSpan *span);

/* The text of a JSON string that the scanner has accepted. */
extern void message_string(MessageDecoder *decoder, const JsonSpan *span,
						   MessageText *text);

/* A member that must be a string. */
extern bool message_text(MessageDecoder *decoder, const JsonSpan *span,
						 const char *name, Message *message,
						 MessageText *text);

/* An optional member of any type: a string's text, or the JSON text. */
extern bool message_any(MessageDecoder *decoder, const JsonSpan *span,
						const char *name, Message *message,
						MessageText *text);

/* A member that must be a time: message->occurred_on. */
extern bool message_time(const JsonSpan *span, const char *name,
						 Message *message);

/* An optional member of any type, as it is: message->data. */
extern bool message_data(const JsonSpan *span, const char *name,
						 Message *message);

/* ---- headers ---- */
extern bool message_valid_text(const char *data, size_t len);

/* The last one of the name that has a value; NULL: none. */
extern const MessageHeader *message_find_header(const MessageInput *input,
												const char *name);

/* The same for content-type, whose name may be written in any case. */
extern const MessageHeader *message_content_type(const MessageInput *input);

/* A header as text; unchanged when there is none. */
extern bool message_header_text(const MessageInput *input, const char *name,
								Message *message, MessageText *text);

/*
 * All headers as one JSON object, without an "id" that only repeats the id of
 * message (NULL: all).
 */
extern void message_headers(MessageDecoder *decoder, const MessageInput *input,
							const Message *message, MessageText *json);

#endif							/* MESSAGE_PARTS_H */
