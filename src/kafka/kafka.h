/*-------------------------------------------------------------------------
 *
 * kafka.h
 *	  All that the rest of the extension knows about Kafka.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Plain C11: no postgres.h above or below this header, so the layer runs in
 * unit tests and, one day, in a relay outside the server.  src/kafka is the
 * only folder that includes librdkafka.
 *
 * Rules that hold for every function here
 *
 * - They are called from one thread, the worker's.  None of them calls back
 *   into the caller, longjmps, or touches PostgreSQL memory after it returned.
 * - None blocks for longer than the slice (milliseconds) it is given; those
 *   without a slice return at once.  A call that answers KAFKA_PENDING is
 *   repeated by the caller after it has looked at its own interrupts.
 * - Handles are created with all signals blocked, because a library thread
 *   that does not block them steals PostgreSQL's latch wake-ups (SIGURG).
 * - Closing is bounded: a handle that does not end within three seconds is
 *   left behind and the function says so by returning false; the process is
 *   then expected to end by _exit().
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_H
#define KAFKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ------------------------------------------------------------------------
 * The library: needs no handle, may be asked in any process
 * ------------------------------------------------------------------------
 */
extern const char *kafka_library_version(void);
extern uint32_t kafka_library_number(void); /* 0xMMmmrr */

/* A fault of that version which touches a promise and has no way around; or NULL. */
extern const char *kafka_library_fault(uint32_t version);

/* ------------------------------------------------------------------------
 * Outcomes
 * ------------------------------------------------------------------------
 */
typedef enum KafkaOutcome
{
	KAFKA_OK,
	KAFKA_PENDING,				/* not finished: call again */
	KAFKA_UNREACHABLE,			/* no broker answers; try again later */
	KAFKA_TROUBLE,				/* topic or cluster refuses for now (missing
								 * topic, authorization, too few replicas, a
								 * clock): never an event's fault, try again
								 * later */
	KAFKA_REFUSED,				/* a batch was refused for what it contains
								 * (size, invalid record), and nothing else */
	KAFKA_FENCED,				/* another producer took the transactional.id */
	KAFKA_UNCERTAIN,			/* anything else that leaves the transaction's
								 * fate unknown or the handle unusable: close
								 * the handle, open a new one, read progress */
	KAFKA_MISCONFIGURED			/* a setting is wrong; only a person can tell */
} KafkaOutcome;

/* A topic's name, at most 249 bytes, with its NUL. */
#define KAFKA_TOPIC_SIZE 250

/* What went wrong, in words.  message never contains a secret. */
typedef struct KafkaError
{
	int			code;			/* librdkafka's error code, or one of our own
								 * from 20000 on; 0: none applies */
	bool		timed_out;		/* with KAFKA_UNCERTAIN: the transaction was
								 * open for at least transaction_timeout_ms,
								 * so the broker has most likely aborted it
								 * for that.  It then looks like a fenced one,
								 * which is why such a failure is never
								 * answered with KAFKA_FENCED.  A smaller
								 * transaction helps if Kafka was slow; after
								 * an outage of that length it does no harm. */
	char		message[512];
	char		topic[KAFKA_TOPIC_SIZE];	/* "": it is not one topic's */
} KafkaError;

/* Short lower-case word for an outcome, for logs and tests. */
extern const char *kafka_outcome_name(KafkaOutcome outcome);

/*
 * What a person can do about it, by error->code: full sentences, static text.
 * Never NULL; for a code without a remedy of its own (0, for one) a general
 * one.  remedy.c.
 */
extern const char *kafka_remedy(const KafkaError *error);

/*
 * Does only a person end it, however long one waits (a certificate, a password,
 * the wrong protocol)?
 */
extern bool kafka_needs_person(const KafkaError *error);

/* ------------------------------------------------------------------------
 * Properties: what the operator may say about the connection
 * ------------------------------------------------------------------------
 */
typedef struct KafkaProperties KafkaProperties;

extern KafkaProperties *kafka_properties_new(void);
extern void kafka_properties_free(KafkaProperties *props);	/* wipes values */

/*
 * Parse "key=value" lines ('#' comments, blank lines, no quoting; white space
 * around key and value is dropped; in those that end in .pem the two characters
 * \n stand for the end of a line).  Only allow-listed keys are taken.  On a
 * bad line returns false and fills error with "line N: ..." naming the key,
 * never the value.  May be called again; later values win.
 */
extern bool kafka_properties_parse(KafkaProperties *props, const char *text,
								   size_t len, KafkaError *error);

/*
 * Read a properties file: opened without following a symlink, a regular file,
 * owned by the effective user with no rights for group and others, or owned
 * by root and not readable by others (PostgreSQL's rule for key files).
 */
extern bool kafka_properties_read_file(KafkaProperties *props,
									   const char *path, KafkaError *error);

/* Set one allow-listed property from a setting; false if the key is not allowed. */
extern bool kafka_properties_set(KafkaProperties *props, const char *key,
								 const char *value, KafkaError *error);
extern bool kafka_properties_has(const KafkaProperties *props, const char *key);

/*
 * The files that properties name (certificates, keys, tokens), watched for being
 * replaced.  Watch before a handle is made of them.  kafka_files_replaced is
 * true once for a change, at the first look that finds it as the look before
 * did; at_once: at this look.
 */
typedef struct KafkaFiles KafkaFiles;

extern KafkaFiles *kafka_files_watch(const KafkaProperties *props);
extern bool kafka_files_any(const KafkaFiles *files);
extern bool kafka_files_replaced(KafkaFiles *files, bool at_once);
extern void kafka_files_free(KafkaFiles *files);

/* ------------------------------------------------------------------------
 * Log lines, handed over in the worker's thread
 * ------------------------------------------------------------------------
 */
typedef void (*KafkaLogFunc) (void *arg, int syslog_level, const char *text);

/* ------------------------------------------------------------------------
 * Topics and the cluster (both kinds of handle can ask)
 * ------------------------------------------------------------------------
 */
typedef struct KafkaProducer KafkaProducer;
typedef struct KafkaReader KafkaReader;

/* What DescribeConfigs says of a topic. */
typedef struct KafkaTopicSettings
{
	int64_t		max_message_bytes;	/* 0: not said */
	int			min_insync;		/* 0: not said */
	bool		compacts;		/* cleanup.policy names compact, */
	bool		deletes;		/* ... or delete */
	bool		unclean;		/* unclean.leader.election.enable */
} KafkaTopicSettings;

/*
 * What one broker says of a topic.  Three answers are told apart:
 *
 * - it exists: KAFKA_OK, exists, partitions;
 * - this broker does not know it: KAFKA_OK, exists = false.  That is a single
 *	 answer of a single broker, and one that lags behind says so of a topic that
 *	 exists: before anything lasting follows from it, ask again, for some time
 *	 (any broker may answer), or create the topic, which the controller decides;
 * - it exists, but a partition has no leader: KAFKA_TROUBLE with
 *	 LEADER_NOT_AVAILABLE, exists, partitions.
 *
 * With any other outcome nothing is known and all is 0.
 */
typedef struct KafkaTopicInfo
{
	bool		exists;
	int			partitions;		/* 0 when it does not exist */
	int			replicas;		/* of the partition that has the fewest */
	int			in_sync;		/* likewise */
	bool		described;		/* false: the settings are not known, not
								 * permitted (no DescribeConfigs), or asked by
								 * a reader */
	KafkaTopicSettings settings;
} KafkaTopicInfo;

/* ------------------------------------------------------------------------
 * The transactional producer
 * ------------------------------------------------------------------------
 */
typedef struct KafkaProducerOptions
{
	const char *transactional_id;	/* NULL: idempotent, no transactions */
	const char *compression;	/* none, gzip, snappy, lz4, zstd */
	int			transaction_timeout_ms;
	size_t		max_message_bytes;	/* largest event that capture lets through */
	size_t		queue_bytes;	/* cap on messages held by the library */
	int			queue_messages; /* must exceed the largest transaction */
	KafkaLogFunc log;			/* may be NULL */
	void	   *log_arg;
	size_t		batch_bytes;	/* keep below the smallest max.message.bytes
								 * of the topics; 0: 900000 */
} KafkaProducerOptions;

/*
 * Create a handle.  Does not wait for a connection.  NULL with error filled
 * means a wrong setting (KAFKA_MISCONFIGURED in spirit).  props is copied.
 */
extern KafkaProducer *kafka_producer_open(const KafkaProperties *props,
										  const KafkaProducerOptions *options,
										  KafkaError *error);

/*
 * Purge, abort what is open (for at most 1.6 s), destroy.  A commit under way
 * may still be applied.  False: it did not end in time and was left behind.
 */
extern bool kafka_producer_close(KafkaProducer *producer);

/*
 * File descriptor that becomes readable when events wait.  Rule: poll() once
 * after opening and after every wake-up, until it returns.
 */
extern int	kafka_producer_fd(KafkaProducer *producer);

/*
 * Serve everything that waits: delivery failures, errors, log lines, admin
 * results.  Cheap when there is nothing.
 */
extern void kafka_producer_poll(KafkaProducer *producer);

/*
 * True after any connection failure since init succeeded (ERROR events, FAIL
 * lines of debug=broker), also while idle.  A tainted handle must be replaced
 * before the next transaction begins: an EndTxn of ours may still be under
 * way, and no librdkafka has KIP-890's client side (librdkafka #5423).
 * Failures of connections that never carried anything of a transaction (they
 * failed before they were up) are left out.  A broker closes idle connections
 * after ten minutes by default, which taints: replace a handle lazily.
 */
extern bool kafka_producer_tainted(KafkaProducer *producer);

/*
 * How many times since the handle was made a transaction began while the broker
 * was still writing the former one's commit markers; each costs 20 ms.
 */
extern unsigned int kafka_producer_early(KafkaProducer *producer);

/* The last connection trouble in words, "" if none since open. */
extern const char *kafka_producer_last_trouble(KafkaProducer *producer);

/* Fence older producers of the id and abort what they left open. */
extern KafkaOutcome kafka_producer_init(KafkaProducer *producer, int slice_ms,
										KafkaError *error);

/*
 * Look a topic up.  PENDING until an answer came, and UNREACHABLE when none has
 * for about max_ms (a question that began in time may wait up to two seconds
 * longer); the next call then asks anew.  Questions for different topics stand
 * beside each other, so they may be asked in any order and in turns.  An answer
 * that is not fetched within three seconds is forgotten.
 *
 * A look-up also asks for the topic's settings, at most every two seconds; it
 * waits at most five seconds for that, and none fails by it.
 * Leaves the topic's handle and metadata cached: the first message to an
 * unknown topic would wait a second.
 */
extern KafkaOutcome kafka_producer_topic(KafkaProducer *producer,
										 const char *topic, int slice_ms,
										 int max_ms, KafkaTopicInfo *info,
										 KafkaError *error);

/* The next look-ups are not answered from what is known already. */
extern void kafka_producer_ask_anew(KafkaProducer *producer);

/* The cluster's id, NULL until known (after the first metadata answer). */
extern const char *kafka_producer_cluster_id(KafkaProducer *producer);

/* The partition for a key, as the Java client chooses it (murmur2). */
extern int	kafka_partition_for_key(const void *key, size_t key_len,
									int partitions);

typedef struct KafkaHeader
{
	const char *name;
	const void *value;
	size_t		value_len;
} KafkaHeader;

typedef struct KafkaRecord
{
	const char *topic;			/* looked up before with kafka_producer_topic */
	int			partition;
	const void *key;			/* NULL: no key */
	size_t		key_len;
	const void *value;			/* NULL: a tombstone */
	size_t		value_len;
	const KafkaHeader *headers;
	int			n_headers;
	uint64_t	tag;			/* comes back in kafka_producer_refused_tag */
} KafkaRecord;

/* A tainted handle is answered with KAFKA_UNCERTAIN. */
extern KafkaOutcome kafka_producer_begin(KafkaProducer *producer,
										 KafkaError *error);

/*
 * Enqueue a record; key, value and headers are copied.  KAFKA_PENDING: the
 * queue is full, poll and try again.  KAFKA_REFUSED: refused locally, which is
 * for its size alone.  After any other answer but OK and PENDING the batch can
 * not be committed any more.
 */
extern KafkaOutcome kafka_producer_send(KafkaProducer *producer,
										const KafkaRecord *record,
										KafkaError *error);

/*
 * Flush and commit in slices; also polls.  KAFKA_OK only when every record
 * enqueued since begin was delivered and the broker has answered EndTxn.
 * KAFKA_REFUSED: nothing was committed, kafka_producer_refused_tag names a
 * record of a refused batch (not necessarily the guilty one); the handle must
 * be replaced all the same.
 */
extern KafkaOutcome kafka_producer_commit(KafkaProducer *producer,
										  int slice_ms, KafkaError *error);

/* Without transactions: wait until all that was enqueued is delivered. */
extern KafkaOutcome kafka_producer_flush(KafkaProducer *producer,
										 int slice_ms, KafkaError *error);

/*
 * The tag of the refused record after KAFKA_REFUSED; give events tags of 1 and
 * up and what is not an event the tag 0.  0 after every other outcome.
 */
extern uint64_t kafka_producer_refused_tag(KafkaProducer *producer);

/* ------------------------------------------------------------------------
 * Administration over a producer's handle, by event queue: start, then poll
 * the handle until the request is done.  One request at a time.
 * ------------------------------------------------------------------------
 */
typedef struct KafkaConfigEntry
{
	const char *name;
	const char *value;
} KafkaConfigEntry;

/*
 * Create a topic.  replication < 0: the broker's default.  KAFKA_OK also when
 * it exists already; by then the topic is known and has leaders.  Call until
 * the answer is not PENDING.
 */
extern KafkaOutcome kafka_admin_create_topic(KafkaProducer *producer,
											 const char *topic, int partitions,
											 int replication,
											 const KafkaConfigEntry *config,
											 int n_config, int slice_ms,
											 KafkaError *error);

typedef enum KafkaVerification
{
	KAFKA_VERIFIES,				/* transaction.partition.verification.enable */
	KAFKA_DOES_NOT_VERIFY,		/* false, or the broker does not know it, or
								 * cannot be asked */
	KAFKA_VERIFICATION_UNKNOWN	/* we may not read the broker's settings */
} KafkaVerification;

/*
 * Ask one broker whether it verifies partitions in transactions (KIP-890).
 * PENDING until a topic was looked up over the handle: that tells which brokers
 * there are.
 */
extern KafkaOutcome kafka_admin_verification(KafkaProducer *producer,
											 int slice_ms,
											 KafkaVerification *verification,
											 KafkaError *error);

/* ------------------------------------------------------------------------
 * The reader: partitions assigned by hand, read_committed
 * ------------------------------------------------------------------------
 */
typedef struct KafkaReaderOptions
{
	const char *group_id;		/* shown in Kafka; NULL: no offsets are shown */
	size_t		queue_bytes;	/* cap on messages held by the library */
	KafkaLogFunc log;			/* may be NULL */
	void	   *log_arg;
} KafkaReaderOptions;

#define KAFKA_OFFSET_BEGINNING	(-2)	/* RD_KAFKA_OFFSET_BEGINNING */
#define KAFKA_OFFSET_UNKNOWN	(-1001) /* RD_KAFKA_OFFSET_INVALID */

typedef struct KafkaPosition
{
	const char *topic;
	int			partition;
	int64_t		offset;			/* next to read; KAFKA_OFFSET_BEGINNING;
								 * -2000-n: n before the end */
} KafkaPosition;

typedef enum KafkaItemKind
{
	KAFKA_ITEM_NONE,			/* nothing waits */
	KAFKA_ITEM_MESSAGE,
	KAFKA_ITEM_END,				/* caught up with the last stable offset;
								 * offset = the next to read */
	KAFKA_ITEM_LOST,			/* the offset is out of range: a range was
								 * lost or the topic was made anew */
	KAFKA_ITEM_ERROR			/* error->message; outcome says of what kind.
								 * UNREACHABLE: every broker was away at that
								 * moment; the library goes on by itself, and
								 * a look-up that is answered tells the end */
} KafkaItemKind;

/*
 * What kafka_reader_next found.  The pointers stay valid until
 * kafka_reader_release(item): release every item, a leaked message makes the
 * close hang.  Up to the caller how many it holds (queue_bytes bounds what the
 * library fetches ahead, not what is held).
 */
typedef struct KafkaItem
{
	KafkaItemKind kind;
	const char *topic;			/* NULL: an error that is not of a partition */
	int			partition;
	int64_t		offset;
	int64_t		timestamp_ms;	/* -1: none */
	const void *key;
	size_t		key_len;
	const void *value;			/* NULL: a tombstone */
	size_t		value_len;
	KafkaOutcome outcome;		/* for KAFKA_ITEM_ERROR */
	KafkaError	error;			/* for KAFKA_ITEM_ERROR and _LOST; unset
								 * otherwise */
	void	   *handle;			/* the library's own */
	const void *message;		/* the library's own */
} KafkaItem;

extern KafkaReader *kafka_reader_open(const KafkaProperties *props,
									  const KafkaReaderOptions *options,
									  KafkaError *error);
extern bool kafka_reader_close(KafkaReader *reader);
extern int	kafka_reader_fd(KafkaReader *reader);

/* Replace the assignment.  Items of the old one may still be queued: they are
 * dropped by kafka_reader_next. */
extern KafkaOutcome kafka_reader_assign(KafkaReader *reader,
										const KafkaPosition *positions, int n,
										KafkaError *error);

/*
 * Next item without waiting.  KAFKA_ITEM_NONE means drained to empty, which
 * is also what re-arms the file descriptor.
 */
extern void kafka_reader_next(KafkaReader *reader, KafkaItem *item);
extern void kafka_reader_release(KafkaItem *item);

/* Headers of a message: false when index is past the end. */
extern bool kafka_item_header(const KafkaItem *item, size_t index,
							  KafkaHeader *header);

/*
 * Look a topic up, as kafka_producer_topic.  Do so before assigning: a
 * position like KAFKA_OFFSET_BEGINNING in a topic that the handle does not
 * know yet costs half a second.
 */
extern KafkaOutcome kafka_reader_topic(KafkaReader *reader, const char *topic,
									   int slice_ms, int max_ms,
									   KafkaTopicInfo *info, KafkaError *error);
extern const char *kafka_reader_cluster_id(KafkaReader *reader);

/* The broker's high watermark as last fetched, KAFKA_OFFSET_UNKNOWN if none. */
extern int64_t kafka_reader_high_watermark(KafkaReader *reader,
										   const char *topic, int partition);

/*
 * Show offsets under the group (for lag tools; never read back).  Where the
 * group has live members or offsets whose metadata is not ours nothing is
 * written and KAFKA_REFUSED says why.  Returns at once; one question at a time:
 * KAFKA_PENDING until there is an answer, which makes the reader's descriptor
 * readable.  positions are copied when the question starts; positions without an
 * offset (>= 0) are left out.
 */
extern KafkaOutcome kafka_reader_show_offsets(KafkaReader *reader,
											  const KafkaPosition *positions,
											  int n, const char *metadata,
											  KafkaError *error);

/* ------------------------------------------------------------------------
 * Reading the newest record of a one-partition topic (the progress record)
 * ------------------------------------------------------------------------
 */
typedef struct KafkaLastRead KafkaLastRead;

typedef struct KafkaLastRecord
{
	bool		topic_exists;	/* false: a broker did not know it, see
								 * KafkaTopicInfo: ask again before believing
								 * that there is no record */
	bool		found;			/* a record with a value */
	char	   *value;			/* malloc'd, NUL-terminated; the caller frees */
	size_t		value_len;
	int64_t		offset;

	/* the newest record under another key, if it is newer; else NULL */
	char	   *other_value;	/* malloc'd likewise */
	size_t		other_len;
} KafkaLastRecord;

/*
 * Start reading the newest committed record whose key equals key.  Reads
 * backwards in growing steps from the end.  With stable = true it is complete
 * only when the last stable offset equals the high watermark, i.e. no
 * transaction is open on the partition: right after kafka_producer_init.
 *
 * KAFKA_OK fills the whole record; "no record" (found = false) means something
 * only if topic_exists.  After anything but PENDING close the reading.
 */
extern KafkaLastRead *kafka_last_open(const KafkaProperties *props,
									  const char *topic, const char *key,
									  bool stable, KafkaLogFunc log,
									  void *log_arg, KafkaError *error);
extern int	kafka_last_fd(KafkaLastRead *read);
extern KafkaOutcome kafka_last_poll(KafkaLastRead *read, int slice_ms,
									KafkaLastRecord *record, KafkaError *error);
extern bool kafka_last_close(KafkaLastRead *read);

#include "kafka/inspect.h"

#endif							/* KAFKA_H */
