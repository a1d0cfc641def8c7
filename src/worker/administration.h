/*-------------------------------------------------------------------------
 *
 * administration.h
 *	  Commands that need a database for themselves have its workers leave.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_ADMINISTRATION_H
#define WORKER_ADMINISTRATION_H

/* Installs a utility hook; from _PG_init, preloaded only. */
extern void administration_install(void);

#endif							/* WORKER_ADMINISTRATION_H */
