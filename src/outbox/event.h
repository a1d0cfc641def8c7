/*-------------------------------------------------------------------------
 *
 * event.h
 *	  Writing an event into the outbox: the one insert routine.
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_EVENT_H
#define OUTBOX_EVENT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "outbox/envelope.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* Columns of a segment, in their order. */
enum
{
	EVENT_SEQ,
	EVENT_XID,
	EVENT_OCCURRED_AT,
	EVENT_ID,
	EVENT_TYPE,
	EVENT_AGGREGATETYPE,
	EVENT_AGGREGATEID,
	EVENT_PAYLOAD,
	EVENT_DESCRIPTION,
	EVENT_TOPIC,
	EVENT_HEADERS,
	EVENT_TRACEPARENT,
	EVENT_FORMAT,
	EVENT_VALUE,
	EVENT_COLUMNS
};

#define OUTBOX_SEGMENTS		3
#define OUTBOX_MAX_KEY_BYTES	65536

/*
 * An event to be written.  Texts are in the database's encoding, need not end
 * in NUL and may be absent (data == NULL).
 */
typedef struct OutboxEvent
{
	bool		has_id;			/* the writer gave one */
	pg_uuid_t	id;				/* filled by outbox_insert otherwise */
	int64		seq;			/* filled by outbox_insert */
	uint64		xid;			/* the same: the writer's top transaction */
	TimestampTz occurred_at;
	EventFormat format;
	TextSlice	type;
	TextSlice	aggregatetype;
	TextSlice	key;
	TextSlice	payload;		/* valid JSON */
	TextSlice	description;
	TextSlice	topic;
	TextSlice	traceparent;
	Jsonb	   *headers;		/* NULL: none */
	bytea	   *value;			/* NULL: none */
	bool		may_wait;		/* see writer_put */
	bool		own_json;		/* payload holds JSON texts of the writer's */

	/*
	 * Called when a text is refused: may raise a better error than a general
	 * one.  NULL: nobody knows better.
	 */
	void		(*explain) (void *arg);
	void	   *explain_arg;
} OutboxEvent;

/*
 * Write the event in the current transaction: assigns the top transaction id,
 * locks the current segment (ROW EXCLUSIVE, to the end of the transaction),
 * draws seq, inserts, and asks for the relay's wake-up at commit.  Needs no
 * right of the current user.  Raises OB002 for what could not be published.
 */
extern void outbox_insert(OutboxEvent *event);

/* OB002 unless Kafka takes the name and it is not one of our own topics. */
extern void outbox_check_topic_name(const char *topic);

/* OB002 unless headers is an object of strings without reserved names. */
extern void outbox_check_headers(Jsonb *headers);

/* OB002 when a text has no form in UTF-8, or the payload no form as text. */
extern void outbox_check_texts(const OutboxEvent *event);

#define NO_TEXT_DETAIL \
	"Type json takes it, but it stands for no text: neither jsonb nor text can hold it, so no report could store the event."

/* Can the text, in the database's encoding, be turned into UTF-8? */
extern bool outbox_has_utf8_form(const char *text, size_t len);

/* Trace context of the session or statement, unless the event has one.  OB002. */
extern void outbox_set_traceparent(OutboxEvent *event);

/* Add the headers of carshop_outbox.event_headers; they win.  OB002. */
extern void outbox_add_session_headers(OutboxEvent *event);

/* OB002 when the event is larger than Kafka's or our own limits. */
extern void outbox_check_size(OutboxEvent *event);

/*
 * Check and complete an event that an application wrote (emit, INSERT into
 * outbox.event): format word (absent: envelope, or raw when there is a value),
 * topic, headers, default description.  Raises OB002.
 */
extern void outbox_complete_event(OutboxEvent *event, const TextSlice *format);

/* The oid of an object of ours in schema outbox; raises an error if it is gone. */
extern Oid	outbox_relation(const char *name);
extern Oid	outbox_segment_relation(int segment);

/* The oid of outbox.capture_row(); missing_ok: InvalidOid when it is gone. */
extern Oid	outbox_capture_function(bool missing_ok);

/* Wake the relay when this transaction commits. */
extern void wakeup_at_commit(void);
extern void wakeup_install(void);	/* callbacks and hook; from _PG_init */

#endif							/* OUTBOX_EVENT_H */
