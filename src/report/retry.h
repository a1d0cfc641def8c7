/*-------------------------------------------------------------------------
 *
 * retry.h
 *	  Dead letters that report.retry() asked to try again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RETRY_H
#define RETRY_H

#include "postgres.h"

/*
 * In a transaction of the reporter: try them, at most a hundred at a time.
 * Events that can be read now get log_seq from *head upwards.
 */
extern void retry_dead_letters(int64 *head);

#endif							/* RETRY_H */
