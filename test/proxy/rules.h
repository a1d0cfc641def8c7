/*-------------------------------------------------------------------------
 *
 * rules.h
 *	  What the proxy does to which request.
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef RULES_H
#define RULES_H

#include <stdbool.h>

typedef enum Action
{
	DROP_RESPONSE,
	CLOSE_REQUEST,
	CLOSE_RESPONSE,
	DELAY_REQUEST,
	DELAY_RESPONSE
} Action;

typedef struct Rule
{
	int			number;
	Action		action;
	int			api;
	int			left;			/* -1: for ever */
	int			skip;
	int			ms;				/* -1: until it is released */
	bool		detach;
	bool		keep;
	bool		producer_only;
	char		client[64];
	int			hits;
} Rule;

/* The command's first word names a rule. */
extern bool is_rule(const char *word);

/*
 * Add the rule "word name=value ..."; rest is scribbled on.  Returns the
 * rule's number, or 0 with *error saying what is wrong.
 */
extern int	add_rule(const char *word, char *rest, const char **error);

/* The first rule that takes this request, used up by one; NULL if none. */
extern const Rule *match_rule(int api, bool producer, const char *client_id);

/* The index-th rule, NULL past the end. */
extern const Rule *get_rule(int index);
extern const char *action_name(Action action);
extern void clear_rules(void);

#endif							/* RULES_H */
