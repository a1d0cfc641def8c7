#ifndef STUBS_H
#define STUBS_H
#include "portability/instr_time.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "settings.h"
#include "kafka/kafka.h"
static inline int64 worker_now_us(void) { instr_time now; INSTR_TIME_SET_CURRENT(now); return (int64) INSTR_TIME_GET_MICROSEC(now); }
static inline char *worker_kafka_fingerprint(void) { return psprintf("%s %s %s %d %d %d", setting_brokers, setting_kafka_config_file, setting_progress_topic, setting_delivery, setting_transaction_timeout, setting_compression); }
#define setting_broker_verification 1
#define BROKER_VERIFICATION_REQUIRE 1
#endif
