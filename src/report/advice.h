/*-------------------------------------------------------------------------
 *
 * advice.h
 *	  What people are told who define a report and have not got the names right.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ADVICE_H
#define ADVICE_H

/* Warns if this database reads no such topic: nothing will come from it. */
extern void report_warn_of_unread(const char *topic);

/*
 * While an error is thrown by a report's statement or query (what): says what it
 * can see, if the error is of a name.
 */
extern void report_hint_at_names(const char *what);

#endif							/* ADVICE_H */
