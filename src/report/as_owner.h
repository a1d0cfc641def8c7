/*-------------------------------------------------------------------------
 *
 * as_owner.h
 *	  SQL functions acting on the extension's own tables, for callers who have
 *	  no rights on them.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AS_OWNER_H
#define AS_OWNER_H

#include "postgres.h"

typedef struct AsOwner
{
	Oid			user;
	int			security;
} AsOwner;

/*
 * Become the owner of the extension's tables, with SPI connected.  Nothing
 * but fixed statements on those tables may be executed before as_owner_end();
 * an error in between restores the caller with the (sub)transaction.
 */
extern void as_owner_begin(AsOwner *scope);
extern void as_owner_end(AsOwner *scope);

/* When this transaction commits: the reporter looks at what has changed. */
extern void wake_reporter_at_commit(void);

#endif							/* AS_OWNER_H */
