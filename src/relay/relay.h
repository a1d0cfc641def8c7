/*-------------------------------------------------------------------------
 *
 * relay.h
 *	  The relay worker's own state, shared by its files.
 *
 * relay.c    the loop: asks the machine, performs, reports
 * actions.c  the actions that talk to Kafka and to the lineage's row
 * publish.c  reading batches, and where a Kafka transaction is cut
 * send.c     from an event to a record of the Kafka client
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include "postgres.h"

#include "kafka/kafka.h"
#include "outbox/batch.h"
#include "outbox/lineage.h"
#include "relay/machine.h"
#include "shared.h"

/* A topic of events as this handle knows it. */
typedef struct RelayTopic
{
	char		name[250];
	int			partitions;		/* 0: not looked up with this handle */
} RelayTopic;

typedef struct HeldRecord HeldRecord;

#define RELAY_HOLD_RECORDS	64

typedef struct Relay
{
	RelayMachine machine;
	RelayReport report;

	Lineage		lineage;
	char		home[160];
	char		instance[40];
	char		progress_topic[256];
	char		event_source[300];

	KafkaProperties *properties;
	KafkaProducer *producer;	/* transactional: fences, also when it does not
								 * publish */
	KafkaProducer *plain;		/* delivery = at_least_once: publishes */
	unsigned int early;			/* kafka_producer_early() as seen last */
	bool		progress_sent;	/* at_least_once: after the batch is delivered */
	KafkaLastRead *last_read;
	bool		verification_known;	/* for this cluster */
	KafkaVerification verification;
	char		last_trouble[512];

	RelayTopic *topics;
	int			n_topics;
	char		wanted_topic[250];	/* the next event needs it */

	Tick		newest;			/* newest tick in PostgreSQL */
	int64		confirmed;		/* highest tick known to be in Kafka */
	Batch	   *batch;			/* being published, NULL: none */
	Tick		batch_tick;
	Tick		batch_prev;
	BatchPlace	batch_place;	/* where the next read begins */
	WireBuffer	value;
	HeldRecord *held[RELAY_HOLD_RECORDS];	/* see send.c */
	int			n_held;
	size_t		held_bytes;
	bool		streaming;
	int64	   *dead_letters;	/* seqs that are skipped, ascending */
	int			n_dead_letters;
	int64		last_seq;		/* of the last event sent */
	int64		bytes_published;	/* in the open transaction */

	bool		may_poll;
	uint64		ticket_seen;	/* of outbox.wait_published */
} Relay;

/* actions.c; each fills result, none waits longer than a slice */
extern void relay_open(Relay *relay, RelayResult *result);
extern void relay_close(Relay *relay);
extern void relay_check(Relay *relay, RelayResult *result);
extern void relay_create_progress_topic(Relay *relay, RelayResult *result);
extern void relay_record_birth(Relay *relay, RelayResult *result);
extern void relay_read_progress(Relay *relay, RelayResult *result);
extern void relay_compare(Relay *relay, RelayResult *result);
extern void relay_init(Relay *relay, RelayResult *result);
extern void relay_prepare_topic(Relay *relay, RelayResult *result);
extern RelayOutcome relay_outcome(KafkaOutcome outcome);
extern RelayTopic *relay_topic(Relay *relay, const char *name);

/* The handle that events are sent with. */
static inline KafkaProducer *
relay_sender(Relay *relay)
{
	return relay->plain != NULL ? relay->plain : relay->producer;
}

/* send.c */
extern KafkaOutcome relay_send_event(Relay *relay, StoredEvent *event,
									 RelayTopic *topic, int64 *bytes,
									 KafkaError *error);
extern KafkaOutcome relay_send_held(Relay *relay, KafkaError *error);
extern void relay_drop_held(Relay *relay);
/* Sends what is held as well, right before. */
extern KafkaOutcome relay_send_progress(Relay *relay, Progress *place,
										KafkaError *error);

/* publish.c */
extern void relay_make_tick(Relay *relay, RelayResult *result);
extern void relay_publish(Relay *relay, RelayResult *result);
extern void relay_commit(Relay *relay, RelayResult *result);
extern void relay_dead_letter(Relay *relay, RelayResult *result);
extern void relay_drop_batch(Relay *relay);
extern void relay_load_dead_letters(Relay *relay);

#endif							/* RELAY_RELAY_H */
