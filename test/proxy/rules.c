/*-------------------------------------------------------------------------
 *
 * rules.c
 *	  What the proxy does to which request.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rules.h"

#define MAX_RULES		64

static Rule rules[MAX_RULES];
static int	n_rules;
static int	next_rule = 1;

const char *
action_name(Action action)
{
	static const char *const names[] = {
		"drop-response", "close-request", "close-response", "delay-request",
		"delay-response"
	};

	return names[action];
}

bool
is_rule(const char *word)
{
	return strcmp(word, "drop-response") == 0 || strcmp(word, "close") == 0 ||
		strcmp(word, "delay-request") == 0 || strcmp(word, "delay-response") == 0 ||
		strcmp(word, "hold-request") == 0 || strcmp(word, "hold-response") == 0;
}

/* NULL or what is wrong with the rule. */
static const char *
parse_rule(const char *word, char *rest, Rule *rule)
{
	const char *when = NULL;
	char	   *save = NULL;

	memset(rule, 0, sizeof(*rule));
	rule->api = -1;
	rule->left = 1;
	for (char *item = strtok_r(rest, " ", &save); item != NULL;
		 item = strtok_r(NULL, " ", &save))
	{
		char	   *value = strchr(item, '=');

		if (value == NULL)
			return "expected name=value";
		*value++ = '\0';
		if (strcmp(item, "api") == 0)
			rule->api = atoi(value);
		else if (strcmp(item, "count") == 0)
			rule->left = atoi(value) == 0 ? -1 : atoi(value);
		else if (strcmp(item, "skip") == 0)
			rule->skip = atoi(value);
		else if (strcmp(item, "ms") == 0)
			rule->ms = atoi(value);
		else if (strcmp(item, "detach") == 0)
			rule->detach = atoi(value) != 0;
		else if (strcmp(item, "keep") == 0)
			rule->keep = atoi(value) != 0;
		else if (strcmp(item, "producer") == 0)
			rule->producer_only = atoi(value) != 0;
		else if (strcmp(item, "client") == 0)
			snprintf(rule->client, sizeof(rule->client), "%s", value);
		else if (strcmp(item, "when") == 0)
			when = value;
		else
			return "unknown name";
	}
	if (rule->api < 0)
		return "api is missing";
	if (strncmp(word, "hold-", 5) == 0)
		rule->ms = -1;			/* until it is released */
	else if (strncmp(word, "delay-", 6) == 0 && rule->ms <= 0)
		return "ms is missing";
	if (strcmp(word, "drop-response") == 0)
		rule->action = DROP_RESPONSE;
	else if (strcmp(word, "delay-request") == 0 || strcmp(word, "hold-request") == 0)
		rule->action = DELAY_REQUEST;
	else if (strcmp(word, "delay-response") == 0 || strcmp(word, "hold-response") == 0)
		rule->action = DELAY_RESPONSE;
	else if (when != NULL && strcmp(when, "request") == 0)
		rule->action = CLOSE_REQUEST;
	else if (when != NULL && strcmp(when, "response") == 0)
		rule->action = CLOSE_RESPONSE;
	else
		return "when=request or when=response is missing";
	return NULL;
}

int
add_rule(const char *word, char *rest, const char **error)
{
	Rule		rule;

	*error = n_rules == MAX_RULES ? "too many rules" : parse_rule(word, rest, &rule);
	if (*error != NULL)
		return 0;
	rule.number = next_rule++;
	rules[n_rules++] = rule;
	return rule.number;
}

const Rule *
match_rule(int api, bool producer, const char *client_id)
{
	for (int i = 0; i < n_rules; i++)
	{
		Rule	   *rule = &rules[i];

		if (rule->api != api || rule->left == 0 ||
			(rule->producer_only && !producer) ||
			strstr(client_id, rule->client) == NULL)
			continue;
		if (rule->skip > 0)
		{
			rule->skip--;
			continue;
		}
		if (rule->left > 0)
			rule->left--;
		rule->hits++;
		return rule;
	}
	return NULL;
}

const Rule *
get_rule(int index)
{
	return index < n_rules ? &rules[index] : NULL;
}

void
clear_rules(void)
{
	n_rules = 0;
}
