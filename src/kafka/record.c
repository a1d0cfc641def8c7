/*-------------------------------------------------------------------------
 *
 * record.c
 *	  A record for the library: its fields and headers.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 * Thread: the worker's.  Memory: what is enqueued is the library's copy.
 *
 *-------------------------------------------------------------------------
 */
#include "kafka/internal.h"

/* Topic, partition, flags, value, key, opaque. */
#define FIXED_FIELDS 6

static void
fill_fields(rd_kafka_vu_t *fields, const KafkaRecord *record,
			rd_kafka_topic_t *rkt)
{
	fields[0].vtype = RD_KAFKA_VTYPE_RKT;
	fields[0].u.rkt = rkt;
	fields[1].vtype = RD_KAFKA_VTYPE_PARTITION;
	fields[1].u.i32 = record->partition;
	fields[2].vtype = RD_KAFKA_VTYPE_MSGFLAGS;
	fields[2].u.i = RD_KAFKA_MSG_F_COPY;
	fields[3].vtype = RD_KAFKA_VTYPE_VALUE;
	fields[3].u.mem.ptr = (void *) record->value;
	fields[3].u.mem.size = record->value != NULL ? record->value_len : 0;
	fields[4].vtype = RD_KAFKA_VTYPE_KEY;
	fields[4].u.mem.ptr = (void *) record->key;
	fields[4].u.mem.size = record->key != NULL ? record->key_len : 0;
	fields[5].vtype = RD_KAFKA_VTYPE_OPAQUE;
	fields[5].u.ptr = (void *) (uintptr_t) record->tag;
}

/*
 * A record's headers; NULL: none.  Not as single fields of rd_kafka_produceva:
 * it makes an object of them that before 2.12 it frees twice when the partition
 * does not exist, as after a topic was made anew with fewer (librdkafka #4627;
 * a crash of the worker restarts the whole server).  This one is ours until the
 * record is enqueued.
 */
static rd_kafka_headers_t *
make_headers(const KafkaRecord *record)
{
	rd_kafka_headers_t *headers;

	if (record->n_headers == 0)
		return NULL;
	headers = rd_kafka_headers_new((size_t) record->n_headers);
	for (int i = 0; i < record->n_headers; i++)
	{
		const KafkaHeader *header = &record->headers[i];

		rd_kafka_header_add(headers, header->name, -1, header->value,
							header->value != NULL ? (ssize_t) header->value_len : 0);
	}
	return headers;
}

rd_kafka_error_t *
kafka_record_enqueue(rd_kafka_t *rk, const KafkaRecord *record, rd_kafka_topic_t *rkt)
{
	rd_kafka_vu_t fields[FIXED_FIELDS + 1];
	size_t		n_fields = FIXED_FIELDS;
	rd_kafka_headers_t *headers = make_headers(record);
	rd_kafka_error_t *failed;

	fill_fields(fields, record, rkt);
	if (headers != NULL)
	{
		fields[n_fields].vtype = RD_KAFKA_VTYPE_HEADERS;
		fields[n_fields++].u.headers = headers;
	}
	failed = rd_kafka_produceva(rk, fields, n_fields);
	if (failed != NULL && headers != NULL)
		rd_kafka_headers_destroy(headers);
	return failed;
}
