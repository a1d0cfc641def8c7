/*
 * relay.pml - the relay's protocol against PostgreSQL, Kafka and the network.
 *
 * For Spin; test/model/run explores every interleaving and every broken
 * protocol below.  The states and their order are those of
 * src/relay/machine.c: INIT, AUTHORITATIVE, COMPARE, READY (tick, tidy), PUBLISH,
 * COMMIT; ticks are made before READY, too.
 *
 * What is modelled
 *	PostgreSQL	transactions that commit one event each, with or without waiting
 *				for the flush of WAL; ticks; the emptying of what is confirmed,
 *				whose commit waits for nothing; crashes, which take back what was
 *				not flushed and kill the relay between any two of its steps
 *	Kafka		one transactional.id: its epoch, the open transaction, and what a
 *				read_committed reader sees; a partition that is not part of the
 *				open transaction is refused (verification, Kafka 3.6); a
 *				transaction that is open for too long is ended, and its producer
 *				fenced by that
 *	network		an EndTxn whose answer is lost.  It may arrive at any time later,
 *				and its epoch alone decides whether the broker takes it.  The
 *				library sends it again behind our back, or gives up
 *	zombies		relays that do not know yet that another one has taken over
 *
 * What is not: copies of a database (homes, the advisory read), several lineages,
 * dead letters, topics that are unknown, the time between a commit and its markers.  test/unit/test_histories.c and test/t/022 have those.
 *
 * Sets of events are bit masks.  All events have one key, in the order of their
 * numbers.  A place in the sequence of ticks is the set of the events up to it,
 * which is what a progress record stands for.
 *
 * Broken protocols; the model must find a fault in each:
 *	EMPTY_TICKED	what a tick has seen leaves the outbox, confirmed or not
 *	NO_FLUSH	a tick does not wait for its flush
 *	NO_INIT		the epoch is not raised at the start: nobody is fenced
 *	READ_FIRST	progress is read before init_transactions (mutant read_first)
 *	NO_PROGRESS	the progress record follows in a transaction of its own
 *	KEEP_HANDLE	a handle that has lost an answer goes on (mutant keep_handle)
 */
#ifndef EVENTS
#define EVENTS	2
#endif
#ifndef RELAYS
#define RELAYS	2
#endif
#ifndef CRASHES
#define CRASHES	1
#endif
#ifndef DELAYS
#define DELAYS	1				/* answers to EndTxn that get lost */
#endif

#ifndef TIMEOUTS
#define TIMEOUTS 1				/* transactions that the broker ends */
#endif

#define BIT(e)	(1 << (e))

/* ---- PostgreSQL: what is there, and what a crash would leave of it ---- */
byte visible, visible_flushed;
byte ticked, ticked_flushed;	/* what the newest tick sees */
byte confirmed;					/* known to be in Kafka when it was made */
byte gone, gone_flushed;		/* has left the outbox */
byte owner;						/* the relay that may act on this database */
byte life;						/* raised by each crash */

/* ---- Kafka ---- */
byte epoch;
bool open;						/* a transaction is */
byte records, record;			/* in it: events, progress (0: none) */
bool ended;						/* the last one of this epoch was committed */
byte copies[EVENTS];			/* what a read_committed reader sees */
byte progress;

/* ---- network ---- */
byte delayed;
byte timeouts;
chan late = [DELAYS + 1] of { byte };	/* EndTxn(commit) by its epoch */

inline flush() {
	visible_flushed = visible;
	ticked_flushed = ticked;
	gone_flushed = gone
}

/* The broker commits what is open.  Here the promises are looked at. */
inline commit_open() {
	d_step {
#ifndef NO_PROGRESS
		assert((records & ~record) == 0);		/* untorn, with its progress */
#endif
		assert((records & ~visible_flushed) == 0);	/* no phantom */
		k = 0;
		do
		:: k < EVENTS ->
			if
			:: records & BIT(k) ->
				copies[k]++;
				assert(copies[k] == 1)			/* no duplicate */
			:: else
			fi;
			/* order per key: none is overtaken */
			assert(k == EVENTS - 1 || !(visible_flushed & BIT(k)) || copies[k] > 0 ||
				   (records >> (k + 1)) == 0);
			k++
		:: else -> break
		od;
		k = 0;
		if
		:: record -> progress = record
		:: else
		fi;
		records = 0;
		record = 0;
		open = false;
		ended = true
	}
}

active proctype Shop() {
	byte e = 0;

	do
	:: e < EVENTS ->
		if
		:: atomic { visible = visible | BIT(e); flush() }
		:: atomic { visible = visible | BIT(e) }	/* synchronous_commit = off */
		fi;
		e++
	:: else -> break
	od
}

active proctype WalWriter() {
end:
	do
	:: atomic { visible != visible_flushed || ticked != ticked_flushed || gone != gone_flushed -> flush() }
	od
}

active proctype Crash() {
end:
	do
	:: atomic { life < CRASHES ->
		visible = visible_flushed;
		ticked = ticked_flushed;
		confirmed = confirmed & ticked;
		gone = gone_flushed;
		life++ }
	od
}

active proctype Network() {
	byte its, k;

end:
	do
	:: atomic { late??its ->
		if
		:: its == epoch && open -> commit_open()
		:: else
		fi;
		its = 0 }
	:: atomic { open && timeouts < TIMEOUTS ->
		timeouts++;
		epoch++;
		open = false; records = 0; record = 0; ended = false }
	od
}

#define MINE	(owner == me && life == my_life)

/* Killed with its server, here if not before; or it goes on as a zombie. */
#define MAY_DIE	if :: life != my_life -> goto start :: skip fi

active [RELAYS] proctype Relay() {
	byte me, my_life, my_epoch, place, newest, todo, sent, e, k;
	bool tainted, added;

start:
	skip;
	d_step {
		my_life = life;
		owner++;
		me = owner;
		place = 0; newest = 0; todo = 0; sent = 0; e = 0;
		tainted = false; added = false
	}

	/* a backlog is cut into batches meanwhile; what is confirmed is not known */
	if
	:: atomic { MINE && (visible & ~ticked) ->
		ticked = visible;
#ifndef NO_FLUSH
		flush()
#endif
		}
	:: skip
	fi;

#ifdef READ_FIRST
	place = progress;
#endif

	/* INIT: fences, and aborts what is open */
	d_step {
#ifdef NO_INIT
		if
		:: epoch == 0 -> epoch++
		:: else
		fi;
#else
		epoch++;
#endif
		my_epoch = epoch;
		open = false; records = 0; record = 0; ended = false
	}
	MAY_DIE;

#ifndef READ_FIRST
	/* AUTHORITATIVE */
	place = progress;
#endif

	/* COMPARE: nothing that happens here may look like a contradiction */
	atomic {
		if
		:: !MINE -> goto over
		:: else
		fi;
#ifndef READ_FIRST
		assert((place & ~ticked) == 0);		/* a tick that is known */
		assert((confirmed & ~place) == 0);	/* not behind */
		assert((gone & ~place) == 0);		/* nothing is wanted that has gone */
#endif
		newest = ticked
	}

ready:
end_ready:
	do
	:: !MINE -> goto over
	:: atomic { MINE && (visible & ~ticked) ->
		/* a tick; its commit waits for the flush of all WAL before it */
		ticked = visible;
		newest = ticked;
		confirmed = confirmed | place;
#ifndef NO_FLUSH
		flush()
#endif
		}
	/* TIDY: lost by a crash, it is done again */
#ifdef EMPTY_TICKED
	:: atomic { MINE && (ticked & ~gone) -> gone = ticked }
#else
	:: atomic { MINE && (place & ~gone) -> gone = place }
#endif
#ifndef KEEP_HANDLE
	:: tainted && (newest & ~place) -> goto start
	:: !tainted && (newest & ~place) -> break
#else
	:: newest & ~place -> break
#endif
	od;

	/* PUBLISH: record by record, cut anywhere; a zombie does it, too */
	todo = newest & ~place;
	assert(!MINE || (todo & gone) == 0);
	sent = 0;
	e = 0;
	added = false;
	do
	:: todo & BIT(e) ->
		MAY_DIE;
		atomic {
			if
			:: my_epoch != epoch -> goto over			/* fenced */
			:: my_epoch == epoch && added && !open -> goto start	/* refused */
			:: else ->
				/* the first one registers the partition */
				open = true; ended = false; added = true;
				records = records | BIT(e)
			fi;
			sent = sent | BIT(e);
			todo = todo & ~BIT(e);
			e++
		}
	:: todo && !(todo & BIT(e)) -> e++
	:: sent && todo -> break							/* cut */
	:: !todo -> break
	od;
	MAY_DIE;

#ifndef NO_PROGRESS
	atomic {
		if
		:: my_epoch != epoch -> goto over
		:: else -> open = true; ended = false; record = place | sent
		fi
	}
	MAY_DIE;
#endif

	/* COMMIT */
	if
	:: skip
	:: atomic { delayed < DELAYS ->
		/* the answer is lost, the library asks again; only that is seen */
		delayed++;
		late!my_epoch;
		tainted = true }
	:: atomic { delayed < DELAYS ->
		/* no answer in time: what became of it stands in Kafka */
		delayed++;
		late!my_epoch;
		goto start }
	fi;
	atomic {
		if
		:: my_epoch == epoch && open -> commit_open()
		:: my_epoch == epoch && !open && ended			/* answered as before */
		:: my_epoch == epoch && !open && !ended -> goto start
		:: my_epoch != epoch -> goto over
		fi
	}

#ifdef NO_PROGRESS
	MAY_DIE;
	if
	:: my_epoch != epoch -> goto over
	:: atomic { my_epoch == epoch -> progress = place | sent }
	fi;
#endif
	place = place | sent;
	goto ready;

over:
	/* the owner, or whoever a new life starts, begins again; a zombie ends */
	if
	:: owner == me || life != my_life -> goto start
	:: else
	fi
}

/* When nothing moves any more, all that is durable is in Kafka. */
active proctype Monitor() {
	byte k = 0;

	timeout;
	d_step {
		assert(visible == visible_flushed);
		do
		:: k < EVENTS ->
			assert(copies[k] == ((visible >> k) & 1));
			k++
		:: else -> break
		od
	}
}
