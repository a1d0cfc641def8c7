-- sql/status.sql: what the relay does, what is wrong, and the remedy.
--
-- outbox.status and report.status have the same form: one row for each concern
-- that is in order, one for each thing that is not, the worst first and then in
-- the order in which the things depend on each other.  Messages are sentences.  A
-- remedy is a command that may be executed as it is, or a sentence.

--
-- How things are said
--

CREATE FUNCTION outbox.sentence(message text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
	-- names of settings and addresses keep their first letter
	SELECT CASE WHEN message ~ '^[a-z]+[ ,]' THEN upper("left"(message, 1)) || substr(message, 2) ELSE message END
		|| CASE WHEN message ~ '[.;:!?]$' OR message = '' THEN '' ELSE '.' END
$$;
COMMENT ON FUNCTION outbox.sentence(text) IS 'A message of a worker''s log as a sentence of the status';

CREATE FUNCTION outbox.name_database_remedy(setting text) RETURNS text
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('ALTER SYSTEM SET %s = %L; SELECT pg_reload_conf();', setting,
		concat_ws(',', NULLIF(list, ''), quote_ident(current_database())))
	FROM current_setting(setting, true) s (list)
	WHERE NOT current_database()::text = ANY (outbox.list_names(list))
$$;
COMMENT ON FUNCTION outbox.name_database_remedy(text) IS 'The command that adds this database to a setting that lists databases; NULL: it is in it';

CREATE FUNCTION outbox.set_remedy(setting text, value text) RETURNS text
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN s.source = 'database' THEN format('ALTER DATABASE %I %s; SELECT pg_reload_conf();', current_database(), act)
		WHEN value IS NULL AND s.sourcefile !~ 'postgresql.auto.conf$' THEN format('Take %s out of %s and reload.', set_remedy.setting, s.sourcefile)
		ELSE format('ALTER SYSTEM %s; SELECT pg_reload_conf();', act) END
	FROM (SELECT CASE WHEN value IS NULL THEN format('RESET %s', set_remedy.setting) ELSE format('SET %s = %L', set_remedy.setting, value) END AS act) a,
		pg_settings s WHERE s.name = set_remedy.setting
$$;
COMMENT ON FUNCTION outbox.set_remedy(text, text) IS
'The command that changes a setting where it is set now, for this database or for all; NULL takes it back to its default';

-- What a worker says is made without a look at the catalogs.
CREATE FUNCTION outbox.remedy_here(remedy text) RETURNS text
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN s.source = 'database'
		THEN replace(remedy, 'ALTER SYSTEM SET ' || s.name, format('ALTER DATABASE %I SET %s', current_database(), s.name))
		ELSE remedy END
	FROM (SELECT "substring"(remedy, 'ALTER SYSTEM SET (carshop_outbox\.[a-z_]+)') AS name) n
	LEFT JOIN pg_settings s ON s.name = n.name
$$;
COMMENT ON FUNCTION outbox.remedy_here(text) IS
'A remedy of a worker with the command that changes its setting for this database, where it is set for this database: there ALTER SYSTEM would change nothing';

CREATE FUNCTION outbox.preload_remedy() RETURNS text
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
	-- Who may not read the setting does not see its row.  A value that waits for
	-- a restart is not shown, and must not be overwritten.
	SELECT COALESCE((
		SELECT CASE
			WHEN s.pending_restart THEN 'See that carshop_outbox is in shared_preload_libraries, which has been changed, and restart the server.'
			ELSE 'ALTER SYSTEM SET shared_preload_libraries = '
				|| concat_ws(', ', (
					SELECT string_agg(quote_literal(library), ', ' ORDER BY n)
					FROM regexp_matches(s.setting, '\s*(?:"((?:[^"]|"")*)"|([^,]+))\s*(?:,|$)', 'g') WITH ORDINALITY AS m (part, n)
					CROSS JOIN LATERAL (SELECT COALESCE(replace(part[1], '""', '"'), btrim(part[2], E' \t\r\n')) AS library) l
					WHERE library NOT IN ('', 'carshop_outbox')), quote_literal('carshop_outbox'))
				|| '; -- then restart the server' END
		FROM pg_settings s WHERE s.name = 'shared_preload_libraries'),
		'Add carshop_outbox to shared_preload_libraries, behind what stands there, and restart the server.')
$$;
COMMENT ON FUNCTION outbox.preload_remedy() IS
'The command that adds the library to those that are preloaded; the one place that says so';

CREATE FUNCTION outbox.versions(objects text, OUT library text, OUT remedy text, OUT librdkafka text, OUT fault text)
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'outbox_versions';
COMMENT ON FUNCTION outbox.versions(text) IS
'The library''s version, what makes objects of the given version fit it (NULL: they do), librdkafka''s version, and a fault of that version which touches a promise';

CREATE VIEW outbox.library AS
	SELECT v.library, e.extversion AS objects, v.remedy, v.librdkafka, v.fault
	FROM pg_extension e CROSS JOIN LATERAL outbox.versions(e.extversion) v
	WHERE e.extname = 'carshop_outbox';
COMMENT ON VIEW outbox.library IS 'The versions that are at work in this session and in the workers';
COMMENT ON COLUMN outbox.library.library IS 'Version of the library in memory';
COMMENT ON COLUMN outbox.library.objects IS 'Version of the extension''s objects in this database';
COMMENT ON COLUMN outbox.library.remedy IS 'What makes the two fit; NULL: they do';
COMMENT ON COLUMN outbox.library.librdkafka IS 'Version of librdkafka';
COMMENT ON COLUMN outbox.library.fault IS 'A fault of that version which touches a promise and has no way around; NULL: none is known';

CREATE FUNCTION outbox.library_concerns(preloaded boolean, without text)
	RETURNS TABLE (place integer, concern text, level text, message text, remedy text)
	LANGUAGE sql STABLE STRICT ROWS 2 SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 1, 'library',
		   CASE WHEN preloaded AND l.remedy IS NULL THEN 'ok' ELSE 'fail' END,
		   CASE WHEN NOT preloaded THEN 'The library is not preloaded: ' || without
				WHEN l.remedy IS NOT NULL THEN format('The library in memory is of version %s, this database''s objects are of version %s: no worker acts until they fit.', l.library, l.objects)
				ELSE format('The library, version %s, is preloaded.', l.library) END,
		   CASE WHEN preloaded THEN l.remedy ELSE outbox.preload_remedy() END
	FROM outbox.library l
	UNION ALL
	SELECT 1, 'librdkafka', CASE WHEN l.fault IS NULL THEN 'ok' ELSE 'warn' END,
		   format('The version of librdkafka is %s.', l.librdkafka) || COALESCE(' ' || l.fault, ''),
		   CASE WHEN l.fault IS NOT NULL THEN 'Install another librdkafka, 2.12 or newer, and restart the server.' END
	FROM outbox.library l
$$;
COMMENT ON FUNCTION outbox.library_concerns(boolean, text) IS
'The rows of outbox.status and report.status about the libraries; without: what does not happen when ours is not preloaded';

--
-- The relay
--

CREATE FUNCTION outbox.relay_report(
	OUT pid integer, OUT state text, OUT since timestamptz, OUT stopped boolean,
	OUT trouble text, OUT remedy text, OUT trouble_topic text, OUT broker_warning text,
	OUT tick bigint, OUT confirmed_tick bigint,
	OUT events_published bigint, OUT bytes_published bigint, OUT transactions bigint,
	OUT last_transaction_ms double precision, OUT settle_ms double precision,
	OUT errors bigint, OUT last_error text, OUT last_error_at timestamptz,
	OUT stats_reset timestamptz, OUT preloaded boolean, OUT wanted boolean,
	OUT lineage uuid)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_relay_report';
COMMENT ON FUNCTION outbox.relay_report() IS 'What this database''s relay says about itself; use outbox.stat_relay';
REVOKE ALL ON FUNCTION outbox.relay_report() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.relay_report() TO pg_monitor;

CREATE FUNCTION outbox.relay_counters(OUT counter text, OUT label text, OUT value double precision)
	RETURNS SETOF record LANGUAGE c VOLATILE ROWS 45 AS 'MODULE_PATHNAME', 'outbox_relay_counters';
COMMENT ON FUNCTION outbox.relay_counters() IS
'What the relay counts: events by latency (label: upper end in seconds), failures by cause, seconds by state; use outbox.latency and outbox.metrics';
REVOKE ALL ON FUNCTION outbox.relay_counters() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.relay_counters() TO pg_monitor;

CREATE VIEW outbox.latency AS
	SELECT CASE WHEN c.label <> 'Infinity' THEN c.label::double precision * interval '1 second' END AS up_to,
		   c.value::bigint AS events,
		   round((100 * sum(c.value) OVER w / NULLIF(sum(c.value) OVER (), 0))::numeric, 2) AS percent
	FROM outbox.relay_counters() c
	WHERE c.counter = 'latency'
	WINDOW w AS (ORDER BY c.label::double precision);
COMMENT ON VIEW outbox.latency IS
'How long events waited from COMMIT until a reader of the topic could see them: since a server''s start or outbox.stat_reset()';
COMMENT ON COLUMN outbox.latency.up_to IS 'At most so long, and longer than in the row before; NULL: longer than all of them';
COMMENT ON COLUMN outbox.latency.events IS 'How many events; those of one tick count as its oldest one';
COMMENT ON COLUMN outbox.latency.percent IS 'Share of all events that waited at most so long';

-- LIMIT 1 tells the planner what it cannot know: it would think of thousands of
-- rows, and compile a query (jit) that looks at a handful.
CREATE VIEW outbox.confirmed AS
	SELECT COALESCE(pg_snapshot_xmax(t.snapshot), '0'::xid8) AS next_xid, t.snapshot
	FROM (
		SELECT GREATEST(l.confirmed_tick,
			(SELECT r.confirmed_tick FROM outbox.relay_report() r WHERE r.lineage = l.lineage),
			(SELECT n.confirmed_tick FROM outbox.tick n ORDER BY n.tick_id DESC LIMIT 1)) AS tick_id
		FROM outbox.lineage l LIMIT 1) c
	-- the tick may be younger than our snapshot: then the newest one that we see
	LEFT JOIN LATERAL (SELECT k.snapshot FROM outbox.tick k WHERE k.tick_id <= c.tick_id ORDER BY k.tick_id DESC LIMIT 1) t ON true;
COMMENT ON VIEW outbox.confirmed IS 'What is known to be in Kafka: all that the newest confirmed tick sees';
COMMENT ON COLUMN outbox.confirmed.next_xid IS 'No transaction from this one on is among it';
COMMENT ON COLUMN outbox.confirmed.snapshot IS 'What the tick sees; NULL: nothing is confirmed';

-- Of each range of transactions only the first and the last event are looked
-- up, through the index, so that looking costs the same in an outage of a week.
-- The ranges: all that began after the confirmed tick, and each transaction that
-- was under way then.  OFFSET 0 keeps the planner from a join that reads all.
CREATE VIEW outbox.unconfirmed AS
	WITH confirmed AS (
		SELECT next_xid, snapshot FROM outbox.confirmed
	), ranges (first_xid, last_xid) AS (
		SELECT next_xid, '18446744073709551615'::xid8 FROM confirmed
		UNION ALL
		SELECT x.xid, x.xid FROM confirmed c CROSS JOIN LATERAL pg_snapshot_xip(c.snapshot) x (xid)
	)
	SELECT COALESCE(sum(GREATEST(l.seq - f.seq + 1, 1)), 0)::bigint AS events, min(f.occurred_at) AS oldest
	FROM ranges r
	CROSS JOIN LATERAL (
		SELECT e.seq, e.occurred_at FROM outbox.event e
		WHERE e.xid >= r.first_xid AND e.xid <= r.last_xid
			AND NOT EXISTS (SELECT FROM outbox.dead_letter d WHERE d.seq = e.seq OFFSET 0)
		ORDER BY e.xid, e.seq LIMIT 1) f
	CROSS JOIN LATERAL (
		SELECT e.seq FROM outbox.event e
		WHERE e.xid >= r.first_xid AND e.xid <= r.last_xid
			AND NOT EXISTS (SELECT FROM outbox.dead_letter d WHERE d.seq = e.seq OFFSET 0)
		ORDER BY e.xid DESC, e.seq DESC LIMIT 1) l;
COMMENT ON VIEW outbox.unconfirmed IS
'Events not known to be in Kafka, at a constant cost';
COMMENT ON COLUMN outbox.unconfirmed.events IS 'About how many: a difference of seq; outbox.count_unconfirmed() counts';
COMMENT ON COLUMN outbox.unconfirmed.oldest IS 'When the first of them happened';

CREATE VIEW outbox.unconfirmed_count AS
	SELECT count(*) AS events
	FROM outbox.confirmed c
	JOIN outbox.event e ON e.xid >= COALESCE(pg_snapshot_xmin(c.snapshot), '0'::xid8)
		AND pg_visible_in_snapshot(e.xid, c.snapshot) IS NOT TRUE
	WHERE NOT EXISTS (SELECT FROM outbox.dead_letter d WHERE d.seq = e.seq);
COMMENT ON VIEW outbox.unconfirmed_count IS 'Events not known to be in Kafka, counted one by one; use outbox.count_unconfirmed()';
COMMENT ON COLUMN outbox.unconfirmed_count.events IS 'How many';

CREATE FUNCTION outbox.count_unconfirmed() RETURNS bigint
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT events FROM outbox.unconfirmed_count $$;
COMMENT ON FUNCTION outbox.count_unconfirmed() IS
'Counts the events that are not known to be in Kafka. The time is in proportion to the backlog; outbox.stat_relay has an estimate at once.';
REVOKE ALL ON FUNCTION outbox.count_unconfirmed() FROM PUBLIC;

CREATE VIEW outbox.stat_relay AS
	SELECT r.pid, r.state, r.since, l.lineage, r.tick,
		   CASE WHEN r.lineage = l.lineage THEN GREATEST(r.confirmed_tick, l.confirmed_tick) ELSE l.confirmed_tick END AS confirmed_tick,
		   u.events AS unconfirmed_events, clock_timestamp() - u.oldest AS oldest_unconfirmed,
		   r.events_published, r.bytes_published, r.transactions,
		   (SELECT count(*) FROM outbox.dead_letters) AS dead_letters,
		   r.last_transaction_ms, r.settle_ms, r.errors, r.last_error, r.last_error_at,
		   r.stats_reset
	FROM outbox.relay_report() r
	CROSS JOIN outbox.lineage l
	CROSS JOIN outbox.unconfirmed u;
COMMENT ON VIEW outbox.stat_relay IS
'The relay of this database: state, progress, counters since stats_reset or the server''s start';
COMMENT ON COLUMN outbox.stat_relay.pid IS 'Process of the relay; NULL: it does not run';
COMMENT ON COLUMN outbox.stat_relay.state IS 'What it is at';
COMMENT ON COLUMN outbox.stat_relay.since IS 'When that began';
COMMENT ON COLUMN outbox.stat_relay.lineage IS 'Who publishes';
COMMENT ON COLUMN outbox.stat_relay.tick IS 'Newest tick made';
COMMENT ON COLUMN outbox.stat_relay.confirmed_tick IS 'Newest tick known to be in Kafka';
COMMENT ON COLUMN outbox.stat_relay.unconfirmed_events IS 'About how many events are not known to be in Kafka: a difference of seq; outbox.count_unconfirmed() counts';
COMMENT ON COLUMN outbox.stat_relay.oldest_unconfirmed IS 'Age of the oldest of them';
COMMENT ON COLUMN outbox.stat_relay.events_published IS 'Events in committed Kafka transactions';
COMMENT ON COLUMN outbox.stat_relay.bytes_published IS 'Their bytes';
COMMENT ON COLUMN outbox.stat_relay.transactions IS 'Committed Kafka transactions';
COMMENT ON COLUMN outbox.stat_relay.dead_letters IS 'Events that cannot be published';
COMMENT ON COLUMN outbox.stat_relay.last_transaction_ms IS 'Time of the newest Kafka transaction';
COMMENT ON COLUMN outbox.stat_relay.settle_ms IS 'Pause between two Kafka transactions, in which the brokers settle the former one';
COMMENT ON COLUMN outbox.stat_relay.errors IS 'Errors since then';
COMMENT ON COLUMN outbox.stat_relay.last_error IS 'Newest error';
COMMENT ON COLUMN outbox.stat_relay.last_error_at IS 'When it happened';
COMMENT ON COLUMN outbox.stat_relay.stats_reset IS 'When outbox.stat_reset() was called';

CREATE FUNCTION outbox.stat_reset() RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_stat_reset';
COMMENT ON FUNCTION outbox.stat_reset() IS 'Sets the counters of outbox.stat_relay, outbox.latency and outbox.metrics to zero';
REVOKE ALL ON FUNCTION outbox.stat_reset() FROM PUBLIC;

-- Joins of views over shared memory look expensive to the planner, which would
-- compile them for seconds.
CREATE FUNCTION outbox.holders(segment regclass) RETURNS text
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
	SELECT string_agg(DISTINCT CASE WHEN k.pid IS NULL THEN format('prepared transaction %L since %s', p.gid, p.prepared)
		ELSE format('process %s since %s', k.pid, a.xact_start) END, ', ')
	FROM pg_locks k
	-- a prepared transaction is known by the lock on its own id
	LEFT JOIN pg_locks x ON k.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = k.virtualtransaction
	LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
	LEFT JOIN pg_stat_activity a ON a.pid = k.pid
	WHERE k.locktype = 'relation' AND k.relation = segment AND k.granted AND k.pid IS DISTINCT FROM pg_backend_pid()
		AND k.database = (SELECT b.oid FROM pg_database b WHERE b.datname = current_database())
$$;
COMMENT ON FUNCTION outbox.holders(regclass) IS 'Who has a lock on a segment, and since when; use outbox.segments';

CREATE VIEW outbox.segments AS
	SELECT s.segment, s.segment = l.current_segment AS current, s.opened_at, s.settled_at,
		   pg_total_relation_size(r.rel) AS bytes,
		   CASE WHEN r.leaves THEN d.due END AS empty_after,
		   CASE WHEN r.leaves AND d.due < clock_timestamp() - interval '1 minute' THEN d.due END AS late_since,
		   CASE WHEN r.leaves THEN outbox.holders(r.rel) END AS held_by
	FROM (SELECT * FROM outbox.segment LIMIT 3) s
	CROSS JOIN (SELECT * FROM outbox.lineage LIMIT 1) l
	CROSS JOIN LATERAL (SELECT format('outbox.event_%s', s.segment)::regclass AS rel OFFSET 0) c
	CROSS JOIN LATERAL (SELECT c.rel, s.segment <> l.current_segment AND pg_relation_size(c.rel) > 0 AS leaves) r
	CROSS JOIN LATERAL (
		-- one that is not settled five minutes after its last new writer is late, too
		SELECT COALESCE(s.settled_at + COALESCE(current_setting('carshop_outbox.retention', true), '1d')::interval,
			(SELECT o.opened_at + interval '4 minutes' FROM outbox.segment o WHERE o.segment = l.current_segment)) AS due) d;
COMMENT ON VIEW outbox.segments IS 'The segments of outbox.event on their way round: current, former, settled (all of it is in Kafka), empty';
COMMENT ON COLUMN outbox.segments.segment IS 'Number of the segment: outbox.event_0 and so on';
COMMENT ON COLUMN outbox.segments.current IS 'Writers that begin now write into it';
COMMENT ON COLUMN outbox.segments.opened_at IS 'When it became the current one';
COMMENT ON COLUMN outbox.segments.settled_at IS 'Since when it is known that all of it is in Kafka and nobody writes into it';
COMMENT ON COLUMN outbox.segments.bytes IS 'Its size on disk, with index and TOAST table';
COMMENT ON COLUMN outbox.segments.empty_after IS 'When carshop_outbox.retention has passed, or when it should be settled at the latest; NULL: current or empty';
COMMENT ON COLUMN outbox.segments.late_since IS 'The same, if it was more than a minute ago: held_by is in the way, or the relay is not at work';
COMMENT ON COLUMN outbox.segments.held_by IS 'Who has a lock on it, if it is to be emptied';

CREATE VIEW outbox.stat_dead_letters AS
	SELECT d.type, d.topic, count(*) AS events, min(d.at) AS first_at, max(d.at) AS last_at
	FROM outbox.dead_letter d
	WHERE d.settled IS NULL
	GROUP BY d.type, d.topic;
COMMENT ON VIEW outbox.stat_dead_letters IS 'How many events cannot be published; the events themselves: outbox.dead_letters';
COMMENT ON COLUMN outbox.stat_dead_letters.type IS 'Type of the events';
COMMENT ON COLUMN outbox.stat_dead_letters.topic IS 'Topic that they were meant for';
COMMENT ON COLUMN outbox.stat_dead_letters.events IS 'How many';
COMMENT ON COLUMN outbox.stat_dead_letters.first_at IS 'When the first was refused';
COMMENT ON COLUMN outbox.stat_dead_letters.last_at IS 'When the last was refused';

CREATE VIEW outbox.status AS
	WITH relay AS (
		SELECT r.*, r.pid IS NOT NULL AS runs, COALESCE(r.state = 'waiting for a standby' AND r.trouble IS NOT NULL, false) AS holds, pg_is_in_recovery() AS standby,
			   r.wanted OR EXISTS (SELECT FROM outbox.routes) OR u.events > 0 AS used,
			   u.events, clock_timestamp() - u.oldest AS age
		FROM outbox.relay_report() r CROSS JOIN outbox.unconfirmed u
	), concerns (place, concern, level, message, remedy) AS (
		SELECT c.*
		FROM relay r CROSS JOIN LATERAL outbox.library_concerns(r.preloaded, 'events are stored and nothing publishes them.') c
		UNION ALL
		SELECT 2, 'relay',
			   CASE WHEN r.runs OR r.standby OR NOT r.used THEN 'ok' ELSE 'fail' END,
			   CASE WHEN r.runs THEN format('The relay runs (pid %s): %s.', r.pid, r.state)
					WHEN r.standby THEN 'This is a standby; workers start at promotion.'
					WHEN NOT r.used THEN 'This database publishes no events.'
					WHEN r.wanted THEN 'The relay is not running.'
					ELSE format('No relay runs: carshop_outbox.shop_databases does not name database "%s", its events are stored.', current_database()) END,
			   CASE WHEN r.runs OR r.standby OR NOT r.used THEN NULL
					WHEN r.wanted THEN 'See the server''s log; it says what has run out, for example max_worker_processes.'
					ELSE outbox.name_database_remedy('carshop_outbox.shop_databases') END
		FROM relay r WHERE r.preloaded
		UNION ALL
		SELECT 3, 'publishing',
			   CASE WHEN l.paused THEN 'warn' ELSE 'ok' END,
			   CASE WHEN l.paused THEN 'Publishing is paused; events are stored.' ELSE 'Publishing is not paused.' END,
			   CASE WHEN l.paused THEN 'SELECT outbox.resume();' END
		FROM outbox.lineage l
		UNION ALL
		SELECT 3, 'publishing', 'fail', format('%s Since %s.', outbox.sentence(r.trouble), date_trunc('second', r.since)), outbox.remedy_here(r.remedy)
		FROM relay r WHERE r.runs AND r.holds
		UNION ALL
		SELECT 4, 'divergence',
			   CASE WHEN r.runs AND r.stopped THEN 'fail' ELSE 'ok' END,
			   CASE WHEN NOT r.runs THEN 'Nothing is known while the relay is not running.'
					WHEN r.stopped THEN outbox.sentence(r.trouble)
					ELSE 'Nothing contradicts Kafka''s record of what was published.' END,
			   CASE WHEN r.runs AND r.stopped THEN outbox.remedy_here(r.remedy) END
		FROM relay r
		UNION ALL
		SELECT 5, 'kafka',
			   CASE WHEN r.runs AND NOT r.stopped AND NOT r.holds AND r.trouble IS NOT NULL THEN 'fail' ELSE 'ok' END,
			   CASE WHEN NOT r.runs THEN 'Nothing is known while the relay is not running.'
					WHEN r.stopped THEN 'Nothing is asked of Kafka until the divergence is settled.'
					WHEN r.trouble IS NOT NULL AND NOT r.holds THEN outbox.sentence(r.trouble) || COALESCE(' Routes: ' || outbox.topic_routes(r.trouble_topic) || '.', '')
					ELSE 'No trouble with Kafka.' END,
			   -- format() makes the word NULL of a null
			   CASE WHEN r.runs AND NOT r.stopped AND NOT r.holds THEN outbox.remedy_here(r.remedy) || CASE WHEN r.trouble_topic IS NOT NULL
					THEN format(' To let the events of other topics flow meanwhile: SELECT outbox.park(%L);', r.trouble_topic) ELSE '' END END
		FROM relay r
		UNION ALL
		SELECT 11, 'parked', 'ok', 'No topic is parked.', NULL
		WHERE NOT EXISTS (SELECT FROM outbox.parked_topic)
		UNION ALL
		SELECT 11, 'parked', 'warn',
			   format('Topic "%s" is parked since %s: %s event(s) are aside%s.%s%s', p.topic, date_trunc('second', p.since), p.events,
				CASE WHEN p.leaving AND r.runs THEN ' and will be published as soon as all before them is' WHEN p.leaving THEN ' and will be published when the relay runs' ELSE '' END,
				' Reason: ' || outbox.sentence(p.reason), ' Routes: ' || outbox.topic_routes(p.topic) || '.'),
			   CASE WHEN NOT p.leaving THEN format('SELECT outbox.unpark(%L);', p.topic) END
		FROM outbox.parked p CROSS JOIN relay r
		UNION ALL
		SELECT 5, 'kafka', 'warn', outbox.sentence(r.broker_warning),
			   'Allow the relay''s principal DescribeConfigs on the cluster, or check yourself that the brokers verify partitions in transactions (transaction.partition.verification.enable).'
		FROM relay r WHERE r.runs AND r.broker_warning IS NOT NULL
		UNION ALL
		SELECT 6, 'delivery',
			   CASE WHEN d.once THEN 'ok' ELSE 'warn' END,
			   CASE WHEN d.once THEN 'Each event is published exactly once.'
					ELSE 'With delivery = at_least_once events may be doubled, torn or out of order after a crash.' END,
			   CASE WHEN NOT d.once THEN outbox.set_remedy('carshop_outbox.delivery', 'exactly_once') END
		FROM (SELECT COALESCE(current_setting('carshop_outbox.delivery', true), '') <> 'at_least_once' AS once) d
		UNION ALL
		SELECT 7, 'backlog',
			   CASE WHEN r.used AND NOT r.standby AND r.age > interval '1 minute' THEN 'warn' ELSE 'ok' END,
			   CASE WHEN r.standby THEN 'What waits is published by the primary.'
					WHEN r.events = 0 THEN 'No event waits for Kafka.'
					ELSE format('About %s event(s) wait for Kafka, the oldest for %s s.', r.events, round(extract(epoch FROM r.age))) END,
			   CASE WHEN r.used AND NOT r.standby AND r.age > interval '1 minute' THEN 'SELECT * FROM outbox.stat_relay;' END
		FROM relay r
		UNION ALL
		SELECT 8, 'routes', 'ok',
			   format('%s route(s) make events.', count(*)), NULL
		FROM outbox.routes WHERE enabled
		UNION ALL
		SELECT 8, 'routes', 'warn',
			   format('Route "%s" on %s is disabled: these changes make no events.', event_type, source),
			   format('ALTER TABLE %s ENABLE TRIGGER %I;', source, trigger_name)
		FROM outbox.routes WHERE NOT enabled
		UNION ALL
		SELECT 8, 'routes', 'warn',
			   format('Route "%s" on %s is disabled on partition %s: these changes make no events.', r.event_type, r.source, t.tgrelid::regclass),
			   format('ALTER TABLE %s ENABLE TRIGGER %I;', t.tgrelid::regclass, t.tgname)
		FROM pg_trigger t JOIN pg_class p ON p.oid = t.tgrelid AND p.relkind <> 'p'
		CROSS JOIN LATERAL pg_partition_ancestors(t.tgrelid) a (relid)
		JOIN outbox.routes r ON r.source = a.relid AND r.trigger_name = t.tgname AND r.enabled
		WHERE t.tgparentid <> 0 AND t.tgenabled NOT IN ('O', 'A') AND t.tgfoid = 'outbox.capture_row()'::regprocedure
		UNION ALL
		SELECT 9, 'topics', 'ok', format('%s topic(s) are as they were, and lose nothing.', (SELECT count(*) FROM outbox.topic)), NULL
		WHERE NOT EXISTS (SELECT FROM outbox.topic_concerns)
		UNION ALL
		SELECT 9, c.concern, c.level, c.message, c.remedy FROM outbox.topic_concerns c
		UNION ALL
		SELECT 10, 'dead letters',
			   CASE WHEN d.n = 0 THEN 'ok' ELSE 'warn' END,
			   CASE WHEN d.n = 0 THEN 'No event was refused.' ELSE format('%s event(s) cannot be published.', d.n) END,
			   CASE WHEN d.n > 0 THEN 'SELECT * FROM outbox.dead_letters; -- repair what is said there, then: SELECT outbox.retry(); or give one up: SELECT outbox.skip(id);' END
		FROM (SELECT count(*) AS n FROM outbox.dead_letters) d
		UNION ALL
		SELECT 12, 'retention', CASE WHEN n.late IS NULL THEN 'ok' ELSE 'warn' END,
			   COALESCE(n.late, format('The outbox takes %s; published events are kept for %s.', pg_size_pretty(n.bytes), n.kept)),
			   CASE WHEN n.late IS NOT NULL
					THEN 'End what holds it (pg_terminate_backend, COMMIT PREPARED, ROLLBACK PREPARED), or wait for it; SELECT * FROM outbox.segments;' END
		FROM (SELECT sum(g.bytes) AS bytes, COALESCE(current_setting('carshop_outbox.retention', true), '1d') AS kept,
				string_agg(format('Segment outbox.event_%s (%s) should have been emptied %s s ago%s.', g.segment, pg_size_pretty(g.bytes),
					round(extract(epoch FROM clock_timestamp() - g.late_since)), '; it is held by ' || g.held_by), ' ' ORDER BY g.segment)
				FILTER (WHERE g.late_since IS NOT NULL AND r.runs AND NOT r.stopped AND (g.settled_at IS NOT NULL OR r.events = 0)) AS late
			  FROM outbox.segments g CROSS JOIN relay r) n
		UNION ALL
		SELECT 13, 'backfill', 'ok', 'No backfill is under way.', NULL
		WHERE NOT EXISTS (SELECT FROM outbox.backfill_progress)
		UNION ALL
		SELECT 13, 'backfill',
			   CASE WHEN b.stands THEN 'warn' ELSE 'ok' END,
			   format('Backfill of "%s" on %s: %s of %s rows.', b.event_type, b.source, b.done, b.total),
			   CASE WHEN b.stands THEN format('CALL outbox.backfill(%L, %L);', b.source, b.event_type) END
		FROM (SELECT p.*, p.changed_at < clock_timestamp() - interval '1 minute' AS stands
			  FROM outbox.backfill_progress p) b
	)
	SELECT c.concern::text, c.level::text, c.message::text, c.remedy::text
	FROM concerns c
	ORDER BY CASE c.level WHEN 'fail' THEN 1 WHEN 'warn' THEN 2 ELSE 3 END, c.place, c.message;
COMMENT ON VIEW outbox.status IS 'What is right and what is wrong with publishing, worst first, with the remedy';
COMMENT ON COLUMN outbox.status.concern IS 'What it is about';
COMMENT ON COLUMN outbox.status.level IS 'ok, warn or fail';
COMMENT ON COLUMN outbox.status.message IS 'What is right or wrong';
COMMENT ON COLUMN outbox.status.remedy IS 'What to do';

--
-- Rights
--

-- Writers of captured tables need nothing.  Members of pg_monitor see counts
-- and states, and no event: payloads, keys and headers are a grant of their own.
GRANT SELECT ON outbox.status, outbox.library, outbox.segments, outbox.parked, outbox.latency, outbox.stat_relay, outbox.stat_dead_letters, outbox.routes,
	outbox.backfill_progress, outbox.unconfirmed_count TO pg_monitor;
GRANT EXECUTE ON FUNCTION outbox.count_unconfirmed() TO pg_monitor;
