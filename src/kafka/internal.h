/*-------------------------------------------------------------------------
 *
 * internal.h
 *	  What the files of src/kafka share; nobody else includes it.
 *
 * Threads: everything runs in the worker's thread, except the helper of
 * kafka_client_close, which only destroys a handle that was given up.
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
#include <signal.h>

#include "compat.h"
#include "kafka/kafka.h"

/* ------------------------------------------------------------------------
 * Small helpers and what codes mean (outcome.c)
 * ------------------------------------------------------------------------
 */
extern void *kafka_malloc(size_t size);
extern char *kafka_strdup(const char *string);
extern int64_t kafka_now_ms(void);
extern void kafka_error_set(KafkaError *error, int code, const char *format,
							...) __attribute__((format(printf, 3, 4)));

/* What one of librdkafka's codes means for us; never KAFKA_PENDING. */
extern KafkaOutcome kafka_outcome_of(rd_kafka_resp_err_t code);

/* Fills error, frees failed; a fatal error is given its own code. */
extern rd_kafka_resp_err_t kafka_error_take(rd_kafka_t *rk,
											rd_kafka_error_t *failed,
											KafkaError *error);

/* True if a failure line may have cut off a request of a transaction. */
extern bool kafka_failure_counts(const char *text);

/* ------------------------------------------------------------------------
 * Properties (properties.c)
 * ------------------------------------------------------------------------
 */

/* The value of a property as last set, NULL if it was not. */
extern const char *kafka_properties_get(const KafkaProperties *props,
										const char *key);

/* Set those that fit the kind of handle. */
extern bool kafka_properties_apply(const KafkaProperties *props,
								   rd_kafka_type_t type, rd_kafka_conf_t *conf,
								   KafkaError *error);

/* ------------------------------------------------------------------------
 * A handle with its one event queue (client.c)
 * ------------------------------------------------------------------------
 */
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
	char		trouble[512];	/* the last connection trouble in words */
	char	   *cluster_id;
	/* the topic look-up under way: each call to the library starts afresh */
	char	   *lookup_topic;
	int			lookup_timeout;
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

/* Log lines and connection errors: true if the event was one of those. */
extern bool kafka_client_handle(KafkaClient *client, rd_kafka_event_t *event);

/* ------------------------------------------------------------------------
 * Topics (topic.c)
 * ------------------------------------------------------------------------
 */
extern KafkaOutcome kafka_client_topic(KafkaClient *client,
									   rd_kafka_topic_t *rkt,
									   const char *topic, int slice_ms,
									   int max_ms, KafkaTopicInfo *info,
									   KafkaError *error);
extern const char *kafka_client_cluster_id(KafkaClient *client);

#define KAFKA_TOPIC_BUCKETS 64

typedef struct KafkaTopicSlot KafkaTopicSlot;

typedef struct KafkaTopics
{
	KafkaTopicSlot *buckets[KAFKA_TOPIC_BUCKETS];
	KafkaTopicSlot *last;		/* records of one topic come in rows */
} KafkaTopics;

/* The topic's handle, made at its first use; NULL if the name is illegal. */
extern rd_kafka_topic_t *kafka_topics_get(KafkaTopics *topics, rd_kafka_t *rk,
										  const char *name);
extern void kafka_topics_forget(KafkaTopics *topics);

/* ------------------------------------------------------------------------
 * Administration inside a producer (admin.c)
 * ------------------------------------------------------------------------
 */
typedef enum AdminRequest
{
	ADMIN_NONE,
	ADMIN_CREATE_TOPIC,
	ADMIN_VERIFICATION,
	ADMIN_TOPIC_CONFIG
} AdminRequest;

typedef struct KafkaAdmin
{
	AdminRequest request;		/* under way or finished but not fetched */
	uintptr_t	number;			/* tells a late answer from the one awaited */
	char	   *topic;
	char	   *name;
	bool		done;
	int64_t		answered_ms;
	KafkaOutcome outcome;
	KafkaError	error;
	KafkaVerification verification;
	char		value[256];
} KafkaAdmin;

extern bool kafka_admin_handle(KafkaAdmin *admin, rd_kafka_event_t *event);
extern void kafka_admin_forget(KafkaAdmin *admin);

/* ------------------------------------------------------------------------
 * Showing offsets inside a reader (show.c)
 * ------------------------------------------------------------------------
 */
typedef enum ShowStage
{
	SHOW_IDLE,
	SHOW_MEMBERS,				/* asked who is in the group */
	SHOW_OFFSETS,				/* asked for the offsets that are there */
	SHOW_WRITE,					/* writing ours */
	SHOW_DONE
} ShowStage;

typedef struct KafkaShow
{
	ShowStage	stage;
	uintptr_t	number;			/* tells a late answer from the one awaited */
	char	   *group_id;
	char	   *metadata;
	rd_kafka_topic_partition_list_t *offsets;
	KafkaOutcome outcome;
	KafkaError	error;
} KafkaShow;

extern KafkaOutcome kafka_show_step(KafkaShow *show, KafkaClient *client,
									const char *group_id,
									const KafkaPosition *positions, int n,
									const char *metadata, KafkaError *error);

/* True if the event was an answer to one of show.c's requests. */
extern bool kafka_show_handle(KafkaShow *show, KafkaClient *client,
							  rd_kafka_event_t *event);
extern void kafka_show_forget(KafkaShow *show);

/* ------------------------------------------------------------------------
 * Producer and reader
 * ------------------------------------------------------------------------
 */
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
extern const char *kafka_reader_trouble(KafkaReader *reader);

#endif							/* KAFKA_INTERNAL_H */
