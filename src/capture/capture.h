/*-------------------------------------------------------------------------
 *
 * capture.h
 *	  Events made of rows.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef CAPTURE_CAPTURE_H
#define CAPTURE_CAPTURE_H

#include "postgres.h"

#include "access/htup.h"
#include "utils/relcache.h"
#include "utils/reltrigger.h"

/*
 * Write the event that a trigger of outbox.capture_row on rel makes of an
 * inserted row, without its WHEN.  Allocates in the current context, which
 * should be short-lived.
 */
extern void capture_inserted(Relation rel, const Trigger *trigger, HeapTuple row);

#endif							/* CAPTURE_CAPTURE_H */
