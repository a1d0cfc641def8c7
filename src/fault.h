/*-------------------------------------------------------------------------
 *
 * fault.h
 *	  Places where a build for tests can be made to fail.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * A strike at a random moment seldom hits the few instructions between two
 * steps of a protocol.  With -DMUTANTS each of the places below looks for a file
 * carshop_fault.NAME in the data directory, and does once what stands in it:
 *
 *	 error		an SQL error
 *	 kill		SIGKILL to itself: PostgreSQL starts all processes again
 *	 wait		carshop_fault.NAME becomes carshop_fault.NAME.waiting; it goes on
 *				when that is gone
 *
 * A number n behind it: at the n-th time.  Without -DMUTANTS nothing of this is
 * compiled.  test/t/lib/Faults.pm writes the files, test/torture chooses.
 *
 * All names, and where; those that must not have an error are marked:
 *
 *	 a session of the shop
 *	 segment_chosen		between choosing a segment and locking it
 *	 seq_drawn			... and inserting the event
 *	 switch_committed	a switch is committed, nobody knows (no error)
 *
 *	 ticks
 *	 tick_made			before its commit
 *	 tick_committed		after it
 *
 *	 the start of a relay
 *	 opened				the lineage's row is read
 *	 birth_recorded		before the commit of it
 *	 progress_read		... of the record, with and without its being stable
 *	 init_done			the former producer is fenced
 *	 home_recorded		before the commit of it
 *
 *	 a Kafka transaction
 *	 batch_opened		before its first event
 *	 event_sent			after each event
 *	 record_sent		events and record are with the client
 *	 end_asked			before each call that wants EndTxn
 *	 end_answered		after Kafka's yes
 *	 letter_stored		before the commit of a dead letter
 *	 confirmed_recorded	before the commit of what is confirmed
 *
 *	 emptying the outbox, before the commit of each step
 *	 switched			another segment is current
 *	 settled			all that is in it is confirmed
 *	 file_replaced		a new file, and no index yet
 *	 emptied			a segment
 *	 ticks_rotated		those that are kept stand in the new file
 *	 tidy_committed		after any of them
 *
 *	 reading into reports
 *	 offsets_stored		before the events
 *	 log_stored			before the reports
 *	 reports_applied	before the commit
 *	 batch_committed	after it
 *	 events_removed		before the commit of it
 *	 offsets_flushed	before they are shown in the group
 *
 *-------------------------------------------------------------------------
 */
#ifndef FAULT_H
#define FAULT_H

#ifdef MUTANTS
extern void fault_point(const char *name);
#define FAULT_POINT(name) fault_point(name)
#else
#define FAULT_POINT(name) ((void) 0)
#endif

/* With -DHASTE what is done every few seconds is done many times a second. */
#ifdef HASTE
#define IN_HASTE(usual, hasty) (hasty)
#else
#define IN_HASTE(usual, hasty) (usual)
#endif

#endif							/* FAULT_H */
