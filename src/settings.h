/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  Every setting of the extension (prefix carshop_outbox).
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Read-only for everybody but settings.c.  What each means, its default and
 * who may set it stands in settings.c, beside its definition.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SETTINGS_H
#define SETTINGS_H

#include "postgres.h"

#include "nodes/pg_list.h"

typedef enum DeliveryMode
{
	DELIVERY_EXACTLY_ONCE,
	DELIVERY_AT_LEAST_ONCE
} DeliveryMode;

/* What if the brokers do not verify partitions in transactions? */
typedef enum BrokerVerification
{
	BROKER_VERIFICATION_REQUIRE,	/* do not publish */
	BROKER_VERIFICATION_WARN	/* say so in the status */
} BrokerVerification;

extern char *setting_shop_databases;
extern char *setting_report_databases;
extern int	setting_max_databases;
extern char *setting_brokers;
extern char *setting_kafka_config_file;
extern char *setting_topic;
extern bool setting_create_topics;
extern int	setting_topic_partitions;
extern int	setting_topic_replication_factor;
extern char *setting_progress_topic;
extern char *setting_allowed_topics;
extern int	setting_delivery;
extern int	setting_broker_verification;
extern int	setting_compression;
extern int	setting_max_message_bytes;	/* bytes */
extern int	setting_max_transaction_events;
extern int	setting_max_transaction_bytes;	/* kB */
extern int	setting_transaction_timeout;	/* ms */
extern int	setting_linger;		/* ms */
extern int	setting_retention;	/* s */
extern int	setting_poll_interval;	/* ms */
extern int	setting_publish_after_standby;	/* standbys, 0: none */
extern char *setting_report_topics;
extern char *setting_group_id;
extern int	setting_report_batch_events;
extern int	setting_report_max_failures;	/* 0: no limit */
extern int	setting_report_retention;	/* s, 0 keeps */
extern int	setting_worker_memory;	/* kB */
extern char *setting_event_source;
extern bool setting_capture;
extern char *setting_traceparent;
extern char *setting_event_headers;

/*
 * Is it a traceparent of W3C Trace Context (section 3.2)?  Version 00 has 55
 * bytes; later ones may be longer, which is limited here.
 */
#define TRACEPARENT_MAX_BYTES	512
extern bool settings_is_traceparent(const char *text, size_t len);
#define TRACEPARENT_HINT \
	"For example 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01: version, trace id, parent id and flags in lower-case hexadecimal digits."

/* Define them all; called once, from _PG_init. */
extern void settings_define(void);

/* The compression setting as librdkafka spells it. */
extern const char *settings_compression_name(void);

/* A comma list setting as a List of palloc'd char * (white space dropped). */
extern List *settings_split(const char *value);

#endif							/* SETTINGS_H */
