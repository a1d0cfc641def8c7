/*-------------------------------------------------------------------------
 *
 * known_ids.h
 *	  Which events of a batch have an id that is known already.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef KNOWN_IDS_H
#define KNOWN_IDS_H

#include "postgres.h"

#include "report/batch.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/*
 * For each event of the batch: is its id one of an event before it in the
 * batch, or of a row of the table that the snapshot sees?  index is the unique
 * one on the id alone.  Those that are rejected have none: false.  In the
 * current memory context.
 */
extern bool *known_ids_find(const EventBatch *batch, Relation rel, Oid index,
							Snapshot snapshot);

#endif							/* KNOWN_IDS_H */
