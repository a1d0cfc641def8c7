/*-------------------------------------------------------------------------
 *
 * packet.h
 *	  How a whole Kafka message is written as the bytes that a fuzzer changes.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * One byte of flags (PACKET_VALUE, PACKET_KEY: is there one?), one that counts
 * the headers, the headers, the key behind a byte of its length; what is left is
 * the value.  A header is the number of a known name, or PACKET_NAMED and the
 * name behind a byte of its length; then the value's length as two bytes, the
 * lower first, 0xffff for none; then the value.  What is cut off is empty, so
 * that every sequence of bytes is a message.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PACKET_H
#define PACKET_H

#define PACKET_VALUE	1
#define PACKET_KEY		2
#define PACKET_NAMED	0xff
#define PACKET_NULL		0xffff

#define PACKET_MAX_HEADERS	300
#define PACKET_MAX_NAME		255

/* Whatever the decoder looks at; what is new goes to the end (old seeds). */
static const char *const packet_names[] = {
	"id", "content-type", "ce_type", "ce_id", "ce_source", "ce_subject", "ce_time",
	"ce_description", "ce_specversion", "Content-Type", "ce-type", "__value_schema_id"
};

#define PACKET_NAMES ((int) (sizeof(packet_names) / sizeof(packet_names[0])))

#endif							/* PACKET_H */
