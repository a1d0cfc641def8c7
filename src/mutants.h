/*-------------------------------------------------------------------------
 *
 * mutants.h
 *	  Promises that a build for tests breaks on purpose.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A test that cannot fail shows nothing.  With -DMUTANTS the extension has a
 * setting, carshop_outbox.mutant, that breaks one promise at a time; the tests
 * 035, 042, 048, 052, 054 and 056 set each of the names below and see that others notice.  Without
 * it MUTANT() is false and nothing of this is compiled.
 *
 * All names, and what is broken:
 *
 *	 publishing and reading Kafka (052)
 *	 stale_progress		the record that goes with the events is the former one
 *	 read_first			progress is read before init_transactions only
 *	 keep_handle		a handle that has met trouble is not replaced
 *
 *	 failover (056)
 *	 inherit_none		what came without the tick that published it is published again
 *	 inherit_all		a server's own transactions are taken for the former one's
 *	 standby_blind		publish_after_standby takes every walsender's word
 *
 *	 reading the outbox (035)
 *	 any_tuple			what stands at a planned tuple id is taken for the event
 *
 *	 emptying the outbox (042)
 *	 empty_unconfirmed	segments are emptied whatever Kafka has
 *	 no_writer_proof	... and whoever still writes into them
 *	 toast_pointers		what is kept of a table points into its former TOAST table
 *
 *	 parked topics (048)
 *	 aside_lost			what should go aside is left out
 *	 any_order			what was aside is published beside what came later
 *
 *	 what is stored (054)
 *	 no_pins			values as the session's settings format them
 *	 no_escape_check	payloads may hold what is no text
 *	 no_size_check		events of any size
 *	 no_encoding_check	texts without a form in UTF-8
 *	 any_topic			emit may name every topic
 *	 stale_topics		... and every one that a route has ever named
 *	 any_header			reserved and empty header names
 *	 any_header_size	headers without a limit
 *	 any_trace			trace contexts of any form
 *	 replicated_rows	rows that logical replication brings are published, too
 *	 late_rows			rows wait beyond the end of their statement
 *	 keep_aborted		an aborted subtransaction's events are kept
 *	 no_second_look		the segment may change between choosing and locking it
 *	 follow_current		a transaction goes on in a segment that has become current
 *
 *	 capture (054)
 *	 any_ddl			what breaks a route is not refused
 *	 stale_routes		a route is compiled once, for ever
 *	 virtual_null		virtual generated columns are null, as in the tuple (18)
 *	 partition_shape	a partition's columns are taken for the parent's
 *	 always_capture		carshop_outbox.capture = off is ignored
 *	 no_key_lock		emit(lock_key => true) takes no lock
 *	 lastval			an event's seq becomes the session's lastval()
 *	 ghosts				a row whose key changes stays under the former one
 *	 backfill_no_lock	backfill reads rows without locking them
 *	 backfill_waits		... or waits for each lock
 *
 * Plain C.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MUTANTS_H
#define MUTANTS_H

#ifdef MUTANTS
#include <string.h>
extern char *setting_mutant;	/* settings.c */
#define MUTANT(name) (strcmp(setting_mutant, name) == 0)
#else
#define MUTANT(name) false
#endif

#endif							/* MUTANTS_H */
