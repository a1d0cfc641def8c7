/*-------------------------------------------------------------------------
 *
 * machine_limits.h
 *	  Limits of the relay's state machine in its unit tests.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef MACHINE_LIMITS_H
#define MACHINE_LIMITS_H

#include "relay/machine.h"

static RelayLimits
limits(void)
{
	RelayLimits made = {
		.max_events = 7, .max_bytes = 1000000, .transaction_timeout_ms = 60000,
		.poll_interval_ms = 50, .transactions = true, .require_verification = true
	};

	return made;
}

#endif							/* MACHINE_LIMITS_H */
