/*-------------------------------------------------------------------------
 *
 * shown.c
 *	  What people are shown of the relay's state.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "relay/machine_internal.h"

RelayShown
relay_machine_shown(const RelayMachine *machine)
{
	switch (machine->state)
	{
		case RELAY_CLOSED:
			return machine->health.trouble ? SHOWN_WAITING_KAFKA : SHOWN_CONNECTING;
		case RELAY_CHECK:
		case RELAY_CREATE:
		case RELAY_BORN:
			return SHOWN_CONNECTING;
		case RELAY_ADVISORY:
		case RELAY_ADVISORY_COMPARE:
		case RELAY_INIT:
		case RELAY_AUTHORITATIVE:
		case RELAY_COMPARE:
			return SHOWN_RECOVERING;
		case RELAY_READY:
			return machine->paused ? SHOWN_PAUSED :
				machine->health.trouble && machine->health.kind == KIND_STANDBY ?
				SHOWN_WAITING_STANDBY : SHOWN_IDLE;
		case RELAY_TOPIC:
			return machine->health.trouble ? SHOWN_WAITING_TOPIC : SHOWN_PREPARING_TOPIC;
		case RELAY_PUBLISH:
		case RELAY_COMMIT:
		case RELAY_HOME:
			return SHOWN_PUBLISHING;
		case RELAY_JUDGE:
			return SHOWN_STORING_DEAD_LETTER;
		case RELAY_STOPPED:
			break;
	}
	return SHOWN_STOPPED;
}

const char *
relay_shown_name(RelayShown shown)
{
	static const char *const names[RELAY_SHOWN_STATES] = {
		[SHOWN_CONNECTING] = "connecting",
		[SHOWN_RECOVERING] = "recovering",
		[SHOWN_IDLE] = "idle",
		[SHOWN_PUBLISHING] = "publishing",
		[SHOWN_PAUSED] = "paused",
		[SHOWN_PREPARING_TOPIC] = "preparing topic",
		[SHOWN_WAITING_KAFKA] = "waiting for Kafka",
		[SHOWN_WAITING_TOPIC] = "waiting for a topic",
		[SHOWN_WAITING_STANDBY] = "waiting for a standby",
		[SHOWN_STORING_DEAD_LETTER] = "storing dead letter",
		[SHOWN_STOPPED] = "stopped",
	};

	return names[shown];
}
