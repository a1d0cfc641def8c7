/*-------------------------------------------------------------------------
 *
 * mutants.h
 *	  Promises that a build for tests breaks on purpose.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A test that cannot fail shows nothing.  With -DMUTANTS the extension has a
 * setting, carshop_outbox.mutant, that breaks one promise at a time; the tests
 * in brackets set each of the names below and see that it is noticed.  Without
 * it MUTANT() is false and nothing of this is compiled.  `make mutants` prints who
 * notices which.
 *
 * All names, the promise (doc/ARCHITECTURE.md), and what is broken:
 *
 *	 publishing and reading Kafka (052)
 *	 stale_progress		I2 the record that goes with the events is the former one
 *	 read_first			I2 progress is read before init_transactions only
 *	 keep_handle		I2 a handle that has met trouble is not replaced
 *	 early_unpark		I4 a topic is unparked before what was ticked is published
 *
 *	 ... and the promises one by one (055)
 *	 skip_late			I1 what commits after a later transaction was published is left out
 *	 lazy_tick			I3 a tick does not wait for the disk
 *	 cached_seq			I4 a session takes 20 numbers at a time
 *	 cut_anywhere		I6 a Kafka transaction is full in the middle of another one
 *	 loud_rebuild		I2 a report that is made anew writes its events once more
 *	 mixed_causes		I1 an event is kept from reports that others of its batch came through
 *	 loops				I8 a report is given what it has caused itself
 *	 never_empty		I8 nothing leaves the outbox
 *	 horizon			I9 batches end at the oldest transaction under way
 *	 lost_wake			I9 a commit tells the relay nothing
 *	 offsets_apart		I10 offsets are stored in a transaction of their own
 *	 last_come			I10 report.latest takes what comes last, not what is newest
 *	 refused_stays		I11 what Kafka refuses is sent again and again
 *	 bad_message		I11 a message that cannot be read ends the reporter
 *	 eager_group		I10 the group shows offsets that a crash takes back
 *	 recount			I2 what was removed from the event log counts again
 *	 hasty_removal		I1 events are removed that a report has not applied
 *	 any_home			I13 a copy of a database publishes
 *	 deaf				I14 a worker is told to end and goes on
 *	 rosy_status		I15 trouble is not shown
 *
 *	 failover (056)
 *	 inherit_none		I2 what came without the tick that published it is published again
 *	 inherit_all		I1 a server's own transactions are taken for the former one's
 *	 widowed			I3 a relay goes on though the postmaster's death has ended its wait
 *	 standby_blind		I3 publish_after_standby takes every walsender's word
 *
 *	 reading the outbox (035)
 *	 any_tuple			I2 what stands at a planned tuple id is taken for the event
 *
 *	 emptying the outbox (042)
 *	 empty_unconfirmed	I1 segments are emptied whatever Kafka has
 *	 no_writer_proof	I1 ... and whoever still writes into them
 *	 toast_pointers		I9 what is kept of a table points into its former TOAST table
 *
 *	 parked topics (048)
 *	 aside_lost			I1 what should go aside is left out
 *	 any_order			I4 what was aside is published beside what came later
 *
 *	 reports (047)
 *	 no_budget			I9 a slow report runs among the others, for as long as it wants
 *	 retry_anyway		I10 a retry applies what the report will come by again
 *
 *	 making reports anew (063)
 *	 rebuild_unlocked	I10 the reporter goes on with a report that is being rebuilt
 *
 *	 what is stored (054)
 *	 no_pins			I5 values as the session's settings format them
 *	 no_escape_check	I5 payloads may hold what is no text
 *	 no_size_check		I9 events of any size
 *	 no_encoding_check	I5 texts without a form in UTF-8
 *	 any_topic			I12 emit may name every topic
 *	 stale_topics		I12 ... and every one that a route has ever named
 *	 any_header			I5 reserved and empty header names
 *	 any_header_size	I9 headers without a limit
 *	 any_trace			I5 trace contexts of any form
 *	 replicated_rows	I2 rows that logical replication brings are published, too
 *	 late_rows			I4 rows wait beyond the end of their statement
 *	 keep_aborted		I3 an aborted subtransaction's events are kept
 *	 no_second_look		I1 the segment may change between choosing and locking it
 *	 follow_current		I6 a transaction goes on in a segment that has become current
 *
 *	 capture (054)
 *	 any_ddl			I5 what breaks a route is not refused
 *	 stale_routes		I5 a route is compiled once, for ever
 *	 virtual_null		I5 virtual generated columns are null, as in the tuple (18)
 *	 partition_shape	I5 a partition's columns are taken for the parent's
 *	 always_capture		I5 carshop_outbox.capture = off is ignored
 *	 no_key_lock		I4 emit(lock_key => true) takes no lock
 *	 lastval			I7 an event's seq becomes the session's lastval()
 *	 ghosts				I5 a row whose key changes stays under the former one
 *	 backfill_no_lock	I4 backfill reads rows without locking them
 *	 backfill_waits		I7 ... or waits for each lock
 *
 *	 mirrors (054)
 *	 late_states		I10 a dead letter that is retried overwrites what is newer
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
