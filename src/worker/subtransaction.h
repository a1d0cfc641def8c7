/*-------------------------------------------------------------------------
 *
 * subtransaction.h
 *	  Try something; if it fails, undo it and hand the error over.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef SUBTRANSACTION_H
#define SUBTRANSACTION_H

#include "postgres.h"

/*
 * Call work(arg) in a subtransaction.  True: it is done and kept.  False: it
 * was undone and *error holds a copy of the error, in the caller's context.
 * SPI connections that work opened and the user that it switched to are reset
 * by the undoing; the caller's memory context is current again either way.
 */
extern bool subtransaction_try(void (*work) (void *arg), void *arg,
							   ErrorData **error);

#endif							/* SUBTRANSACTION_H */
