/*-------------------------------------------------------------------------
 *
 * retry.h
 *	  Dead letters that report.retry() asked to try again.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef RETRY_H
#define RETRY_H

#include "postgres.h"

/*
 * In a transaction of the reporter: try some of them.  Events that can be read
 * now get log_seq from *head upwards.  Answers in how many ms there may be more
 * to try; -1: when somebody asks.
 */
extern long retry_dead_letters(int64 *head);

#endif							/* RETRY_H */
