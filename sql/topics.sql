-- sql/topics.sql: the topics that events are published to, and what becomes of them.

-- What the relay has seen of the topics that it publishes to, and what of it an
-- administrator has still to look at.
CREATE TABLE outbox.topic (
	topic				text		PRIMARY KEY,
	partitions			integer,
	partitions_before	integer,
	replicas			integer,
	min_insync			integer,
	compacted			boolean,
	unclean				boolean,
	missing_at			timestamptz,
	made_anew_at		timestamptz
);
COMMENT ON TABLE outbox.topic IS 'Topics that events were published to, as the relay has seen them last; use outbox.status';
COMMENT ON COLUMN outbox.topic.topic IS 'Topic';
COMMENT ON COLUMN outbox.topic.partitions IS 'Number of its partitions';
COMMENT ON COLUMN outbox.topic.partitions_before IS 'Their number before it changed, until outbox.accept_topic()';
COMMENT ON COLUMN outbox.topic.replicas IS 'Replicas of the partition that has the fewest';
COMMENT ON COLUMN outbox.topic.min_insync IS 'Its min.insync.replicas; NULL: may not be read';
COMMENT ON COLUMN outbox.topic.compacted IS 'Its cleanup.policy names compact; NULL: may not be read';
COMMENT ON COLUMN outbox.topic.unclean IS 'Its unclean.leader.election.enable; NULL: may not be read';
COMMENT ON COLUMN outbox.topic.missing_at IS 'When it was not there, after it had been; NULL: it is there';
COMMENT ON COLUMN outbox.topic.made_anew_at IS 'When it was seen to be another topic of the same name, until outbox.accept_topic()';
COMMENT ON INDEX outbox.topic_pkey IS 'A topic by its name';

CREATE FUNCTION outbox.note_topic(topic text, missing boolean, partitions integer, replicas integer,
		min_insync integer, compacted boolean, unclean boolean) RETURNS void
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
	-- one that was never there is not missed
	UPDATE outbox.topic t SET missing_at = COALESCE(t.missing_at, clock_timestamp())
	WHERE t.topic = note_topic.topic AND note_topic.missing AND t.partitions IS NOT NULL;

	INSERT INTO outbox.topic AS t (topic, partitions, replicas, min_insync, compacted, unclean)
	SELECT note_topic.topic, note_topic.partitions, note_topic.replicas, note_topic.min_insync, note_topic.compacted, note_topic.unclean
	WHERE note_topic.partitions IS NOT NULL
	ON CONFLICT (topic) DO UPDATE SET
		partitions = excluded.partitions,
		partitions_before = CASE WHEN t.partitions <> excluded.partitions THEN COALESCE(t.partitions_before, t.partitions) ELSE t.partitions_before END,
		replicas = excluded.replicas,
		min_insync = excluded.min_insync,
		compacted = excluded.compacted,
		unclean = excluded.unclean,
		missing_at = NULL,
		-- the number of partitions cannot become smaller
		made_anew_at = CASE WHEN t.missing_at IS NOT NULL OR excluded.partitions < t.partitions THEN clock_timestamp() ELSE t.made_anew_at END
	WHERE (t.partitions, t.replicas, t.min_insync, t.compacted, t.unclean, t.missing_at) IS DISTINCT FROM
		(excluded.partitions, excluded.replicas, excluded.min_insync, excluded.compacted, excluded.unclean, NULL::timestamptz)
$$;
COMMENT ON FUNCTION outbox.note_topic(text, boolean, integer, integer, integer, boolean, boolean) IS
'The relay has looked at a topic; partitions NULL: it is not there. missing: it was not, in between';
REVOKE ALL ON FUNCTION outbox.note_topic(text, boolean, integer, integer, integer, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION outbox.accept_topic(topic text) RETURNS boolean
	LANGUAGE sql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	WITH accepted AS (
		UPDATE outbox.topic t SET partitions_before = NULL, made_anew_at = NULL
		WHERE t.topic = accept_topic.topic AND (t.partitions_before IS NOT NULL OR t.made_anew_at IS NOT NULL)
		RETURNING t.topic)
	SELECT EXISTS (SELECT FROM accepted)
$$;
COMMENT ON FUNCTION outbox.accept_topic(text) IS
'An administrator knows that the topic has another number of partitions, or was made anew: outbox.status says it no more. False: there was nothing to accept.';
REVOKE ALL ON FUNCTION outbox.accept_topic(text) FROM PUBLIC;

-- A topic that is made of columns is not known before the row.
CREATE VIEW outbox.known_topics AS
	SELECT t.topic, bool_and(t.state) AS state
	FROM (
		SELECT COALESCE(r.topic, d.topic) AS topic,
			   r.format = 'payload' AND (r.key IS NOT NULL OR EXISTS (
					SELECT FROM pg_index i WHERE i.indrelid = r.source AND i.indisprimary)) AS state
		FROM outbox.routes r CROSS JOIN (SELECT current_setting('carshop_outbox.topic', true) AS topic) d
		WHERE r.enabled AND COALESCE(r.topic, d.topic) !~ '[{]'
		UNION ALL
		-- emit names it when it names none
		SELECT current_setting('carshop_outbox.topic', true), NULL
		UNION ALL
		SELECT a.name, NULL
		FROM unnest(outbox.list_names(current_setting('carshop_outbox.allowed_topics', true))) a (name)
		WHERE a.name !~ '[*]') t
	GROUP BY t.topic;
COMMENT ON VIEW outbox.known_topics IS
'Topics that events of this database go to, as far as they are named: the default topic, those of routes and of carshop_outbox.allowed_topics';
COMMENT ON COLUMN outbox.known_topics.topic IS 'Topic';
COMMENT ON COLUMN outbox.known_topics.state IS
'True: every route to it publishes the row itself under a key, so that a compacted topic loses nothing; NULL: no route goes there';

CREATE VIEW outbox.topic_concerns AS
	SELECT 'topics' AS concern, 'warn' AS level, m.message, m.remedy
	FROM (SELECT current_setting('carshop_outbox.brokers', true) AS brokers) b
	CROSS JOIN outbox.topic t
	LEFT JOIN outbox.known_topics k ON k.topic = t.topic
	CROSS JOIN LATERAL (VALUES
		(t.missing_at IS NOT NULL,
			format('Topic "%s" is not there any more since %s.', t.topic, t.missing_at),
			'Make it again, or the relay does it with the next event if carshop_outbox.create_topics is on.'),
		(t.made_anew_at IS NOT NULL,
			format('Topic "%s" has been deleted and made anew, as it seems (seen at %s): what was published before is not in it.', t.topic, t.made_anew_at),
			format('SELECT outbox.accept_topic(%L); -- and where its readers need the events again, before that: SELECT outbox.replay(since => ..., topic => %L);', t.topic, t.topic)),
		(t.partitions_before IS NOT NULL,
			format('Topic "%s" has %s partition(s) and had %s: older and newer events of one key may be in different ones.', t.topic, t.partitions, t.partitions_before),
			format('SELECT outbox.accept_topic(%L); -- when readers that need the order of a key have read what was published before', t.topic)),
		(t.compacted AND NOT COALESCE(k.state, false),
			format('Topic "%s" is compacted: Kafka refuses events without a key there, and of those with the same key it keeps the newest only.', t.topic),
			format('kafka-configs --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config cleanup.policy=delete', b.brokers, t.topic)),
		(t.replicas > 1 AND t.min_insync = 1,
			format('Topic "%s" has %s replicas and min.insync.replicas = 1: acknowledged events can be lost with one broker.', t.topic, t.replicas),
			CASE WHEN t.replicas > 2 THEN format('kafka-configs --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config min.insync.replicas=2', b.brokers, t.topic)
				 ELSE 'Give the topic three replicas with kafka-reassign-partitions, and min.insync.replicas=2.' END),
		(t.unclean,
			format('A replica of topic "%s" that lags behind may become leader (unclean.leader.election.enable = true): acknowledged events can be lost.', t.topic),
			format('kafka-configs --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config unclean.leader.election.enable=false', b.brokers, t.topic))) m (holds, message, remedy)
	WHERE m.holds;
COMMENT ON VIEW outbox.topic_concerns IS 'What is wrong with the topics that events are published to, for outbox.status';
COMMENT ON COLUMN outbox.topic_concerns.concern IS 'What it is about';
COMMENT ON COLUMN outbox.topic_concerns.level IS 'warn';
COMMENT ON COLUMN outbox.topic_concerns.message IS 'What is wrong';
COMMENT ON COLUMN outbox.topic_concerns.remedy IS 'What to do';

-- Members of pg_monitor see it, too; what it says is of topics, not of events.
GRANT SELECT ON outbox.topic, outbox.known_topics, outbox.topic_concerns TO pg_monitor;
