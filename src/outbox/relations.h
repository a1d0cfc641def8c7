/*-------------------------------------------------------------------------
 *
 * relations.h
 *	  Finding the relations of schema outbox.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_RELATIONS_H
#define OUTBOX_RELATIONS_H

#include "postgres.h"

#define OUTBOX_SEGMENTS		3

/*
 * The oid of an object of ours in schema outbox, one that relations.c lists.
 * Raises ERRCODE_UNDEFINED_OBJECT if it is gone or is not the extension's own.
 * Takes no lock.
 */
extern Oid	outbox_relation(const char *name);

/* The table of a segment (0 to OUTBOX_SEGMENTS - 1), its (xid, seq) index. */
extern Oid	outbox_segment_relation(int segment);
extern Oid	outbox_segment_index(int segment);

#endif							/* OUTBOX_RELATIONS_H */
