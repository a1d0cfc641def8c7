/*-------------------------------------------------------------------------
 *
 * admission.h
 *	  What may enter the outbox: headers, texts, sizes.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_ADMISSION_H
#define OUTBOX_ADMISSION_H

#include "postgres.h"

#include "outbox/event.h"
#include "utils/jsonb.h"

#define OUTBOX_MAX_KEY_BYTES	65536

/*
 * An error of this SQLSTATE (a route's or an event's) unless headers is an object
 * of strings with UTF-8 forms, without reserved or empty names, within the limits
 * of envelope.h.
 */
extern void outbox_check_headers(Jsonb *headers, int sqlstate);

/* The limits alone, for headers that are put together from checked ones. */
extern void outbox_check_header_limits(Jsonb *headers, int sqlstate);

/* OB002 when a text has no form in UTF-8, or the payload no form as text. */
extern void outbox_check_texts(const OutboxEvent *event);

#define NO_TEXT_DETAIL \
	"Type json takes it, but it stands for no text: neither jsonb nor text can hold it, so no report could store the event."

/*
 * OB002 when the event, complete with traceparent and all headers, takes more
 * than max_message_bytes as a record (wire_record_bytes), or more than twice as
 * much in the outbox.  Its texts must have been checked.
 */
extern void outbox_check_size(const OutboxEvent *event);

/*
 * Check and complete an event that an application wrote (emit, INSERT into
 * outbox.event): format word (absent: envelope, or raw when there is a value),
 * topic, headers, default description.  Raises OB002.
 */
extern void outbox_complete_event(OutboxEvent *event, const TextSlice *format);

#endif							/* OUTBOX_ADMISSION_H */
