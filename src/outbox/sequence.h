/*-------------------------------------------------------------------------
 *
 * sequence.h
 *	  Drawing seq.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef OUTBOX_SEQUENCE_H
#define OUTBOX_SEQUENCE_H

#include "postgres.h"

/*
 * The next number of outbox.event_seq.  The transaction must have an id already:
 * what is logged here is flushed with its commit.
 */
extern int64 sequence_draw(void);

#endif							/* OUTBOX_SEQUENCE_H */
