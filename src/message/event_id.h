/*-------------------------------------------------------------------------
 *
 * event_id.h
 *	  The id of an event: the key under which it is counted once.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11.  The rule, first that applies:
 *	 1. the header ce_id, the header id, the member EventId, where it is a UUID;
 *	 2. another ce_id: UUIDv5 of (ce_source, ce_id);
 *	 3. none: UUIDv5 of the message's place and content.
 * The UUIDv5s are made in namespaces of our own from the fields, each preceded
 * by its length as eight bytes, big-endian, so that no two lists of fields
 * give the same name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENT_ID_H
#define EVENT_ID_H

#include <stdint.h>

#include "message/message.h"

typedef struct MessagePlace
{
	const char *cluster_id;
	const char *topic;
	int			partition;
	int64_t		offset;
	int64_t		timestamp_ms;
	const unsigned char *known_id;	/* what rule 3 gave when the message was
									 * read; NULL: it is read now */
} MessagePlace;

extern void event_id_choose(const Message *message, const MessageInput *input,
							const MessagePlace *place, unsigned char id[16]);

/* Rule 3 alone, made anew: also the mark by which a record is recognised again. */
extern void event_id_of_place(const MessageInput *input,
							  const MessagePlace *place,
							  unsigned char id[16]);

#endif							/* EVENT_ID_H */
