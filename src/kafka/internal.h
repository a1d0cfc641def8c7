/*-------------------------------------------------------------------------
 *
 * internal.h
 *	  What the files of src/kafka share; nobody else includes it.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Threads: everything runs in the worker's thread, except the helper of
 * kafka_client_close, which only destroys a handle that was given up, and
 * those of lookup.c, which only ask.
 *
 * Who uses whom, each only what stands before it: outcome, remedy, partition;
 * properties, files; trouble, conf; token; client, lookup, topic, request;
 * producer, admin; show, reader, last; attempts, inspect.
 *
 * Memory: malloc, because the library must work without PostgreSQL and
 * because nothing here may longjmp.  Like librdkafka itself we treat a failed
 * malloc as the end of the process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_INTERNAL_H
#define KAFKA_INTERNAL_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "compat.h"
#include "kafka/kafka.h"

/* ------------------------------------------------------------------------
 * Small helpers and what codes mean (outcome.c)
 * ------------------------------------------------------------------------
 */
extern void *kafka_malloc(size_t size);
extern char *kafka_strdup(const char *string);
extern int64_t kafka_now_ms(void);

/* The monotonic time in so many milliseconds, for a condition of kafka_cond_init. */
extern struct timespec kafka_deadline(int wait_ms);
extern void kafka_cond_init(pthread_cond_t *cond);

/* Start a thread with all signals blocked; false: there is none to be had. */
extern bool kafka_thread_start(pthread_t *thread, void *(*run) (void *),
							   void *arg);

extern void kafka_error_of_topic(KafkaError *error, const char *topic);
extern void kafka_error_set(KafkaError *error, int code, const char *format,
							...) __attribute__((format(printf, 3, 4)));

/* What one of librdkafka's codes means for us; never KAFKA_PENDING. */
extern KafkaOutcome kafka_outcome_of(rd_kafka_resp_err_t code);

/* The same inside a transaction: never OK, PENDING or UNREACHABLE. */
extern KafkaOutcome kafka_transaction_outcome(rd_kafka_resp_err_t code);

/*
 * What a broker's answer about KAFKA_VERIFICATION_SETTING means; value is NULL if
 * the setting is not in it.  False: the code is a failure, to be tried again.
 */
extern bool kafka_verification_of(rd_kafka_resp_err_t code, const char *value,
								  KafkaVerification *verification);

/* Of two failures of a batch the one with the higher rank says more. */
extern int	kafka_failure_rank(KafkaOutcome outcome);

/* Fills error, frees failed; a fatal error is given its own code. */
extern rd_kafka_resp_err_t kafka_error_take(rd_kafka_t *rk,
											rd_kafka_error_t *failed,
											KafkaError *error);

/* True if a failure line may have cut off a request of a transaction. */
extern bool kafka_failure_counts(const char *text);

/*
 * Codes of ours in KafkaError.code, where one of the library's stands for
 * things that different people have to mend; far from the library's numbers.
 */
enum
{
	/* why the broker's certificate is refused */
	KAFKA_CODE_UNTRUSTED = 20000,
	KAFKA_CODE_EXPIRED,
	KAFKA_CODE_OTHER_NAME,
	KAFKA_CODE_REVOKED,
	KAFKA_CODE_UNVERIFIED,		/* another reason, or one not known */

	KAFKA_CODE_CLIENT_CERTIFICATE,	/* the broker refuses ours */
	KAFKA_CODE_PROTOCOL,		/* the listener speaks another protocol */
	KAFKA_CODE_NO_TOKEN,		/* the token's file holds none that is valid */
	KAFKA_CODE_TOKEN_REFUSED,
	KAFKA_CODE_SCRAM,			/* the broker refuses SCRAM */

	/* what the operator has written */
	KAFKA_CODE_PROPERTY,
	KAFKA_CODE_UNSUPPORTED,		/* this library cannot do it */
	KAFKA_CODE_FILE,			/* a file that is named cannot be read */
	KAFKA_CODE_CLIENT,			/* the library makes no handle of it */
	KAFKA_CODE_END
};

/* ------------------------------------------------------------------------
 * Properties (properties.c)
 * ------------------------------------------------------------------------
 */

/* Ours: the file whose content is the token of OAUTHBEARER. */
#define KAFKA_TOKEN_FILE "sasl.oauthbearer.token.file"
#define KAFKA_TOKEN_EXTENSIONS "sasl.oauthbearer.extensions"

/*
 * May this version of the library be given that property (library.c)?  False
 * fills error: it could end the process, and with it the server.
 */
extern bool kafka_library_may_set(uint32_t version, const char *key,
								  const char *value, KafkaError *error);

/* Do they fit together, and to the library?  False fills error. */
extern bool kafka_properties_check(const KafkaProperties *props,
								   KafkaError *error);

/*
 * The properties that name files one by one: false past the end.  *path is NULL
 * for one that names none.
 */
extern bool kafka_properties_path(const KafkaProperties *props, size_t index,
								  const char **key, const char **path);

/* The value of a property as last set, NULL if it was not. */
extern const char *kafka_properties_get(const KafkaProperties *props,
										const char *key);

/*
 * The properties one by one: false past the end.  *key is NULL for one that
 * does not fit the kind of handle, or is not for the library.
 */
extern bool kafka_properties_item(const KafkaProperties *props, size_t index,
								  rd_kafka_type_t type, const char **key,
								  const char **value);

/* ------------------------------------------------------------------------
 * Files that properties name (files.c; kafka.h has more)
 * ------------------------------------------------------------------------
 */

/* Can all of them be read?  False fills error. */
extern bool kafka_files_check(const KafkaProperties *props, KafkaError *error);

/*
 * A file's content, malloc'd, with a zero byte behind it; at most max bytes.
 * NULL leaves errno (EFBIG: it is longer).
 */
extern char *kafka_read_all(int fd, size_t max, size_t *len);
extern void kafka_wipe_and_free(char *text, size_t len);

/* ------------------------------------------------------------------------
 * A handle with its one event queue (client.c)
 * ------------------------------------------------------------------------
 */
typedef struct KafkaLookup KafkaLookup;
typedef struct KafkaToken KafkaToken;

typedef struct KafkaClient
{
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	rd_kafka_queue_t *logs;
	rd_kafka_type_t type;
	int			fd;				/* eventfd that the library writes to */
	bool		verbose;		/* the operator asked for debug lines */
	KafkaLogFunc log;
	void	   *log_arg;
	unsigned int failures;		/* connection failures that count as taint */
	unsigned int early;			/* partitions that were added too early */
	char		not_added[320]; /* the topic that may not be written to, in
								 * words; "": none */
	char		trouble[512];	/* the last connection trouble in words */
	int			trouble_code;	/* and its code; 0: not known */
	int64_t		trouble_ms;		/* when it was heard of last */
	bool		answered;		/* a broker has answered: the protocol is
								 * right */
	char	   *cluster_id;
	KafkaToken *token;			/* NULL: no file of a token is named */
	KafkaLookup *lookups;		/* under way, or answered but not fetched */
	int			lookup_ms;		/* what the last one took, see lookup.c */
	uintptr_t	requests;		/* the last request's number, see request.c */
} KafkaClient;

/* conf.c: a configuration with the operator's properties; the caller adds its own. */
extern rd_kafka_conf_t *kafka_conf_new(const KafkaProperties *props,
									   rd_kafka_type_t type,
									   KafkaError *error);
extern bool kafka_conf_set(rd_kafka_conf_t *conf, const char *key,
						   const char *value, KafkaError *error);
extern bool kafka_conf_set_int(rd_kafka_conf_t *conf, const char *key,
							   int64_t value, KafkaError *error);

/* Keep what is set unless it is below, or above, the limit. */
extern bool kafka_conf_at_least(rd_kafka_conf_t *conf, const char *key,
								int64_t limit, KafkaError *error);
extern bool kafka_conf_at_most(rd_kafka_conf_t *conf, const char *key,
							   int64_t limit, KafkaError *error);

/* All of a producer's configuration. */
extern rd_kafka_conf_t *kafka_producer_conf(const KafkaProperties *props,
											const KafkaProducerOptions *options,
											KafkaError *error);

/* Takes conf over, also when it fails. */
extern KafkaClient *kafka_client_open(rd_kafka_conf_t *conf,
									  rd_kafka_type_t type, int events,
									  const KafkaProperties *props,
									  KafkaLogFunc log, void *log_arg,
									  KafkaError *error);

/* What a handle may be in the middle of when it is closed. */
typedef enum KafkaOpenWork
{
	KAFKA_WORK_NONE,			/* a reader */
	KAFKA_WORK_RECORDS,			/* a producer outside a transaction */
	KAFKA_WORK_TRANSACTION,		/* one is open */
	KAFKA_WORK_COMMIT,			/* its commit has begun */
	KAFKA_WORK_FAILED_COMMIT	/* and a record of it has failed */
} KafkaOpenWork;

extern bool kafka_client_close(KafkaClient *client, KafkaOpenWork work);

/*
 * The next event, waiting at most timeout_ms for it.  NULL: drained to empty,
 * and the file descriptor will fire again.  The caller destroys the event.
 */
extern rd_kafka_event_t *kafka_client_next(KafkaClient *client,
										   int timeout_ms);

/* The cluster's id, NULL until known. */
extern const char *kafka_client_cluster_id(KafkaClient *client);

/*
 * Only the log lines that wait: who leaves messages in the queue learns by them
 * why nothing comes.
 */
extern void kafka_client_take_lines(KafkaClient *client);

/* Log lines and connection errors: true if the event was one of those. */
extern bool kafka_client_handle(KafkaClient *client, rd_kafka_event_t *event);

/* ------------------------------------------------------------------------
 * Trouble with connections, in words (trouble.c)
 * ------------------------------------------------------------------------
 */

/* The connection's trouble, in words; "": there was none of late. */
extern const char *kafka_client_trouble(const KafkaClient *client);

/* Say why there is no answer: the connection's trouble, if there is any. */
extern void kafka_client_no_answer(const KafkaClient *client, int code,
								   KafkaError *error);

/* A line of the library's log; returns it without the name of the thread. */
extern const char *kafka_trouble_line(KafkaClient *client, const char *facility,
									  const char *text);
extern void kafka_trouble_event(KafkaClient *client, rd_kafka_event_t *event);

/* Lines that only repeat what is told otherwise. */
extern bool kafka_trouble_is_known(const char *facility);

/* The code that says more than the library's, if there is one for the text. */
extern int	kafka_trouble_code(int code, const char *text);

/* Have the library say why it refuses a broker's certificate. */
extern void kafka_conf_explain_certificates(rd_kafka_conf_t *conf);

/* ------------------------------------------------------------------------
 * The token of SASL OAUTHBEARER (token.c)
 * ------------------------------------------------------------------------
 */

/* Give the handle the token of the file, if one is named; false fills error. */
extern bool kafka_token_open(KafkaClient *client, const KafkaProperties *props,
							 KafkaError *error);

/* The library asks for it, well before the one it has expires. */
extern void kafka_token_refresh(KafkaClient *client);
extern void kafka_token_close(KafkaClient *client);

/*
 * What a token says of itself: until when it is valid, in ms since 1970, and
 * whose it is.  False fills error, whose message has path in it.
 */
extern bool kafka_token_judge(const char *token, const char *path,
							  int64_t now_ms, int64_t *until_ms,
							  char *principal, size_t principal_size,
							  KafkaError *error);

/* ------------------------------------------------------------------------
 * Asking for topics (lookup.c)
 * ------------------------------------------------------------------------
 */
typedef struct KafkaLookupAnswer
{
	rd_kafka_resp_err_t code;	/* of the question, not of the topic */
	const struct rd_kafka_metadata *metadata;	/* the receiver destroys it */
	int			piece_ms;		/* the wait that sufficed */
} KafkaLookupAnswer;

typedef enum KafkaLookupState
{
	KAFKA_LOOKUP_PENDING,
	KAFKA_LOOKUP_ANSWERED,		/* also: max_ms have passed without an answer */
	KAFKA_LOOKUP_BAD_NAME,
	KAFKA_LOOKUP_NO_THREAD		/* the system gives none; try again later */
} KafkaLookupState;

/*
 * Ask, or see whether the question of before is answered; waits at most
 * slice_ms.  max_ms is taken from the call that starts a question.  When the
 * answer is there the client's descriptor becomes readable, too.
 */
#define KAFKA_LOOKUP_KNOWN ""	/* instead of a topic: all that the handle
								 * knows */
extern KafkaLookupState kafka_lookup(KafkaClient *client, const char *topic,
									 int slice_ms, int max_ms,
									 KafkaLookupAnswer *answer);

/* Ask no further; then wait for the threads (at most two seconds). */
extern void kafka_lookups_stop(KafkaLookup *lookups);
extern void kafka_lookups_join(KafkaLookup *lookups);

/* ------------------------------------------------------------------------
 * Requests that an event answers (request.c)
 * ------------------------------------------------------------------------
 */
typedef enum AdminRequest
{
	ADMIN_NONE,
	ADMIN_CREATE_TOPIC,
	ADMIN_VERIFICATION
} AdminRequest;

/* The one of kafka_admin_*; topics ask for their limits beside it. */
typedef struct KafkaAdmin
{
	AdminRequest request;		/* under way or finished but not fetched */
	uintptr_t	number;			/* tells a late answer from the one awaited */
	char	   *topic;			/* NULL: not about a topic */
	bool		done;
	int64_t		answered_ms;
	KafkaOutcome outcome;
	KafkaError	error;
	KafkaVerification verification;
} KafkaAdmin;

#define KAFKA_VERIFICATION_SETTING "transaction.partition.verification.enable"

/* Forget what was asked before and remember what is asked now. */
extern void kafka_admin_start(KafkaAdmin *admin, KafkaClient *client,
							  AdminRequest request, const char *topic);
extern void kafka_admin_forget(KafkaAdmin *admin);

/*
 * False: the library refuses the topic as such.  only_ask: the controller says
 * whether it would make it, and does not.
 */
extern bool kafka_send_create_topic(KafkaClient *client, uintptr_t number,
									const char *topic, int partitions,
									int replication,
									const KafkaConfigEntry *config,
									int n_config, bool only_ask,
									KafkaError *error);
extern void kafka_send_describe(KafkaClient *client, uintptr_t number,
								rd_kafka_ResourceType_t type,
								const char *resource_name, int timeout_ms);

/* An answer: true if it was one to the request. */
extern bool kafka_admin_handle(KafkaAdmin *admin, rd_kafka_event_t *event);

/*
 * What DescribeConfigs says of a topic; error is filled for all but OK.  No
 * topic: UNKNOWN_TOPIC_OR_PART.
 */
extern KafkaOutcome kafka_described_topic(rd_kafka_event_t *event,
										  KafkaTopicSettings *settings,
										  KafkaError *error);

/* Likewise of a broker, but the code; what it does not say stays as it is. */
extern rd_kafka_resp_err_t kafka_described_broker(rd_kafka_event_t *event,
												  KafkaBrokerFacts *broker,
												  const char **reason);

/* What CreateTopics has come to: OK also when the topic is there already. */
extern rd_kafka_resp_err_t kafka_created_topic(rd_kafka_event_t *event,
											   const char **reason);

/*
 * What DescribeConfigs says of one setting.  The value lives in the event;
 * NULL with code 0: there is no such setting.
 */
extern const char *kafka_described_value(rd_kafka_event_t *event,
										 const char *setting,
										 rd_kafka_resp_err_t *code,
										 const char **reason);

/* ------------------------------------------------------------------------
 * Topics (topic.c)
 * ------------------------------------------------------------------------
 */

/* What a broker's metadata say of a topic. */
extern KafkaOutcome kafka_topic_answer(const rd_kafka_metadata_topic_t *topic,
									   const char *name, KafkaTopicInfo *info,
									   KafkaError *error);

/* Look up by metadata only: info->described is false. */
extern KafkaOutcome kafka_client_topic(KafkaClient *client, const char *topic,
									   int slice_ms, int max_ms,
									   KafkaTopicInfo *info,
									   KafkaError *error);

#define KAFKA_TOPIC_BUCKETS 64

typedef struct KafkaTopicSlot KafkaTopicSlot;

typedef struct KafkaTopics
{
	KafkaTopicSlot *buckets[KAFKA_TOPIC_BUCKETS];
	KafkaTopicSlot *last;		/* records of one topic come in rows */
	int64_t		waits_ms;		/* since when a call is pending; 0: none */
	int64_t		lack_ms;		/* when it was looked why; 0: never */
	KafkaError	lack;			/* what was found; code 0: nothing */
} KafkaTopics;

/* The topic's slot, made at its first use; NULL if the name is illegal. */
extern KafkaTopicSlot *kafka_topics_get(KafkaTopics *topics, rd_kafka_t *rk,
										const char *name);
extern rd_kafka_topic_t *kafka_topic_handle(const KafkaTopicSlot *slot);
extern void kafka_topics_forget(KafkaTopics *topics);
extern void kafka_topics_ask_anew(KafkaTopics *topics);

/*
 * Look up by metadata and by the topic's settings, which an event answers:
 * PENDING until both are there.
 */
extern KafkaOutcome kafka_topic_look_up(KafkaTopicSlot *slot,
										KafkaClient *client, int slice_ms,
										int max_ms, KafkaTopicInfo *info,
										KafkaError *error);

/*
 * Why a call that is pending for a while (waits_ms is set to 0 when it is done) is
 * not done: a topic of the handle with a partition that nobody leads, or with too
 * few replicas in sync.  The library tries again without a word.  error stays as it
 * is where nothing is known.
 */
extern void kafka_topics_explain(KafkaTopics *topics, KafkaClient *client,
								 KafkaError *error);

/* True if the event was an answer about a topic's settings. */
extern bool kafka_topics_handle(KafkaTopics *topics, rd_kafka_event_t *event);

/* ------------------------------------------------------------------------
 * Showing offsets inside a reader (show.c)
 * ------------------------------------------------------------------------
 */
typedef struct KafkaShow KafkaShow;

/* fd is written to when there is an answer; it outlives the KafkaShow. */
extern KafkaShow *kafka_show_open(const KafkaProperties *props,
								  const char *group_id, int fd,
								  KafkaError *error);

/* Waits for its thread (a second at most), then as kafka_client_close. */
extern bool kafka_show_close(KafkaShow *show);

/* Ask, or see whether what was asked before is answered. */
extern KafkaOutcome kafka_show_step(KafkaShow *show,
									const KafkaPosition *positions, int n,
									const char *metadata, KafkaError *error);

/* Look at what its handle has to say; whenever the reader's is looked at. */
extern void kafka_show_serve(KafkaShow *show);

/* ------------------------------------------------------------------------
 * Producer and reader
 * ------------------------------------------------------------------------
 */

/* Hand a record over (record.c).  NULL: it is enqueued; else why not. */
extern rd_kafka_error_t *kafka_record_enqueue(rd_kafka_t *rk,
											  const KafkaRecord *record,
											  rd_kafka_topic_t *rkt);
extern uint32_t kafka_murmur2(const void *key, size_t len);
extern KafkaClient *kafka_producer_client(KafkaProducer *producer);
extern KafkaAdmin *kafka_producer_admin(KafkaProducer *producer);

/* Serve the queue, waiting up to wait_ms for the first event. */
extern void kafka_producer_serve(KafkaProducer *producer, int wait_ms);

/*
 * kafka_reader_open with the longest time a broker holds back an answer when
 * it has nothing new; that time is also how late an end-of-partition comes.
 */
extern KafkaReader *kafka_reader_open_wait(const KafkaProperties *props,
										   const KafkaReaderOptions *options,
										   int fetch_wait_ms,
										   KafkaError *error);
extern void kafka_reader_no_answer(KafkaReader *reader, KafkaError *error);

#endif							/* KAFKA_INTERNAL_H */
