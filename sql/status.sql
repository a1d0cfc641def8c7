-- sql/status.sql: what the workers do, what is wrong, and the remedy.

--
-- The relay
--

CREATE FUNCTION outbox.relay_report(
	OUT pid integer, OUT state text, OUT since timestamptz, OUT stopped boolean,
	OUT trouble text, OUT remedy text, OUT broker_warning text,
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

CREATE VIEW outbox.unconfirmed AS
	WITH confirmed AS (
		SELECT t.snapshot FROM outbox.tick t
		WHERE t.tick_id = (SELECT GREATEST(l.confirmed_tick, r.confirmed_tick,
											(SELECT n.confirmed_tick FROM outbox.tick n ORDER BY n.tick_id DESC LIMIT 1))
							FROM outbox.lineage l LEFT JOIN outbox.relay_report() r ON r.lineage = l.lineage)
	), waiting AS (
		SELECT e.seq, e.occurred_at FROM outbox.event e
		WHERE e.xid >= (SELECT pg_snapshot_xmin(snapshot) FROM confirmed)
			AND NOT pg_visible_in_snapshot(e.xid, (SELECT snapshot FROM confirmed))
		UNION ALL
		SELECT e.seq, e.occurred_at FROM outbox.event e
		WHERE NOT EXISTS (SELECT FROM confirmed)
	)
	SELECT count(*) AS events, min(occurred_at) AS oldest
	FROM waiting w
	WHERE NOT EXISTS (SELECT FROM outbox.dead_letter d WHERE d.seq = w.seq);
COMMENT ON VIEW outbox.unconfirmed IS
'Events not known to be in Kafka and the oldest one''s time; counts them, so it costs time in proportion to the backlog';
COMMENT ON COLUMN outbox.unconfirmed.events IS 'How many';
COMMENT ON COLUMN outbox.unconfirmed.oldest IS 'When the oldest happened';

CREATE VIEW outbox.stat_relay AS
	SELECT r.pid, r.state, r.since, l.lineage, r.tick,
		   CASE WHEN r.lineage = l.lineage THEN GREATEST(r.confirmed_tick, l.confirmed_tick) ELSE l.confirmed_tick END AS confirmed_tick,
		   u.events AS unconfirmed_events, clock_timestamp() - u.oldest AS oldest_unconfirmed,
		   r.events_published, r.bytes_published, r.transactions,
		   (SELECT count(*) FROM outbox.dead_letter) AS dead_letters,
		   r.last_transaction_ms, r.settle_ms, r.errors, r.last_error, r.last_error_at,
		   r.stats_reset
	FROM outbox.relay_report() r
	CROSS JOIN outbox.lineage l
	CROSS JOIN outbox.unconfirmed u;
COMMENT ON VIEW outbox.stat_relay IS
'The relay of this database: state, progress, counters since stats_reset or its start';
COMMENT ON COLUMN outbox.stat_relay.pid IS 'Process of the relay; NULL: it does not run';
COMMENT ON COLUMN outbox.stat_relay.state IS 'What it is at';
COMMENT ON COLUMN outbox.stat_relay.since IS 'When that began';
COMMENT ON COLUMN outbox.stat_relay.lineage IS 'Who publishes';
COMMENT ON COLUMN outbox.stat_relay.tick IS 'Newest tick made';
COMMENT ON COLUMN outbox.stat_relay.confirmed_tick IS 'Newest tick known to be in Kafka';
COMMENT ON COLUMN outbox.stat_relay.unconfirmed_events IS 'Events not known to be in Kafka';
COMMENT ON COLUMN outbox.stat_relay.oldest_unconfirmed IS 'Age of the oldest of them';
COMMENT ON COLUMN outbox.stat_relay.events_published IS 'Events in committed Kafka transactions';
COMMENT ON COLUMN outbox.stat_relay.bytes_published IS 'Their bytes';
COMMENT ON COLUMN outbox.stat_relay.transactions IS 'Committed Kafka transactions';
COMMENT ON COLUMN outbox.stat_relay.dead_letters IS 'Events that Kafka refuses for good';
COMMENT ON COLUMN outbox.stat_relay.last_transaction_ms IS 'Time of the newest Kafka transaction';
COMMENT ON COLUMN outbox.stat_relay.settle_ms IS 'Pause between two Kafka transactions, in which the brokers settle the former one';
COMMENT ON COLUMN outbox.stat_relay.errors IS 'Errors since then';
COMMENT ON COLUMN outbox.stat_relay.last_error IS 'Newest error';
COMMENT ON COLUMN outbox.stat_relay.last_error_at IS 'When it happened';
COMMENT ON COLUMN outbox.stat_relay.stats_reset IS 'When outbox.stat_reset() was called';

CREATE FUNCTION outbox.stat_reset() RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_stat_reset';
COMMENT ON FUNCTION outbox.stat_reset() IS 'Sets the counters of outbox.stat_relay to zero';
REVOKE ALL ON FUNCTION outbox.stat_reset() FROM PUBLIC;

CREATE VIEW outbox.status AS
	WITH r AS (SELECT * FROM outbox.relay_report()),
	rows AS (
		SELECT 'preload' AS concern, 'fail' AS level,
			   'The library is not preloaded: events are stored and nothing publishes them.' AS message,
			   'Put shared_preload_libraries = ''carshop_outbox'' into postgresql.conf and restart the server.' AS remedy
		FROM r WHERE NOT preloaded
		UNION ALL
		SELECT 'relay', CASE WHEN EXISTS (SELECT FROM outbox.routes) THEN 'fail' ELSE 'warn' END,
			   format('carshop_outbox.shop_databases does not name database "%s": its events are stored and not published.', current_database()),
			   format('ALTER SYSTEM SET carshop_outbox.shop_databases = ''%s''; SELECT pg_reload_conf();',
					  concat_ws(',', NULLIF(current_setting('carshop_outbox.shop_databases'), ''), current_database()))
		FROM r WHERE preloaded AND NOT wanted
		UNION ALL
		SELECT 'relay', 'fail', 'The relay is not running.',
			   'See the server''s log; raise max_worker_processes if all slots are in use.'
		FROM r WHERE preloaded AND wanted AND pid IS NULL
		UNION ALL
		SELECT 'divergence', 'fail', trouble, remedy
		FROM r WHERE pid IS NOT NULL AND stopped
		UNION ALL
		SELECT 'kafka', 'fail', trouble, remedy
		FROM r WHERE pid IS NOT NULL AND NOT stopped AND trouble IS NOT NULL
		UNION ALL
		SELECT 'kafka', 'warn', broker_warning,
			   'Allow the relay''s principal DescribeConfigs on the cluster, or check transaction.partition.verification.enable yourself.'
		FROM r WHERE pid IS NOT NULL AND broker_warning IS NOT NULL
		UNION ALL
		SELECT 'delivery', 'warn',
			   'delivery = at_least_once: events may be doubled, torn or out of order after a crash.',
			   'ALTER SYSTEM SET carshop_outbox.delivery = ''exactly_once''; SELECT pg_reload_conf();'
		FROM r WHERE preloaded AND wanted AND current_setting('carshop_outbox.delivery') = 'at_least_once'
		UNION ALL
		SELECT 'paused', 'warn', 'Publishing is paused; events are stored.', 'SELECT outbox.resume();'
		FROM outbox.lineage WHERE paused
		UNION ALL
		SELECT 'dead letters', 'warn', format('Kafka refuses %s event(s) for good.', count(*)),
			   'SELECT * FROM outbox.dead_letters;'
		FROM outbox.dead_letter HAVING count(*) > 0
		UNION ALL
		SELECT 'route', 'warn', format('Route "%s" on %s is disabled: these changes make no events.', event_type, source),
			   format('ALTER TABLE %s ENABLE TRIGGER %I;', source, trigger_name)
		FROM outbox.routes WHERE NOT enabled
		UNION ALL
		SELECT 'backfill', CASE WHEN changed_at < clock_timestamp() - interval '1 minute' THEN 'warn' ELSE 'ok' END,
			   format('Backfill of "%s" on %s: %s of %s rows.', event_type, source, done, total),
			   CASE WHEN changed_at < clock_timestamp() - interval '1 minute'
					THEN format('CALL outbox.backfill(%L, %L);', source, event_type) END
		FROM outbox.backfill_progress
		UNION ALL
		SELECT 'sequence', 'fail', 'outbox.event_seq has a cache: the order per key is not kept.',
			   'ALTER SEQUENCE outbox.event_seq CACHE 1;'
		FROM pg_sequence WHERE seqrelid = 'outbox.event_seq'::regclass AND seqcache <> 1
		UNION ALL
		SELECT 'backlog', 'warn',
			   format('%s event(s) wait for Kafka, the oldest for %s.', events,
					  date_trunc('second', clock_timestamp() - oldest)),
			   'SELECT * FROM outbox.stat_relay;'
		FROM outbox.unconfirmed
		WHERE clock_timestamp() - oldest > interval '1 minute'
		UNION ALL
		SELECT 'relay', 'ok', format('The relay is %s.', state), NULL
		FROM r WHERE pid IS NOT NULL AND NOT stopped AND trouble IS NULL
	)
	SELECT concern, level, message, remedy FROM rows
	ORDER BY CASE level WHEN 'fail' THEN 0 WHEN 'warn' THEN 1 ELSE 2 END, concern;
COMMENT ON VIEW outbox.status IS 'What is wrong with publishing, worst first, and what to do about it';
COMMENT ON COLUMN outbox.status.concern IS 'What it is about';
COMMENT ON COLUMN outbox.status.level IS 'ok, warn or fail';
COMMENT ON COLUMN outbox.status.message IS 'What is right or wrong';
COMMENT ON COLUMN outbox.status.remedy IS 'What to do';

--
-- The reporter
--

CREATE FUNCTION report.worker(OUT preloaded boolean, OUT listed boolean,
		OUT pid integer, OUT state text, OUT since timestamptz,
		OUT message text, OUT remedy text, OUT at timestamptz)
	RETURNS record LANGUAGE c VOLATILE PARALLEL RESTRICTED
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_worker';
COMMENT ON FUNCTION report.worker() IS 'What this database''s reporter says about itself (for the views)';
REVOKE ALL ON FUNCTION report.worker() FROM PUBLIC;

CREATE FUNCTION report.worker_partitions(OUT topic text, OUT partition integer,
		OUT state text, OUT kafka_offset bigint, OUT high_watermark bigint,
		OUT events_applied bigint, OUT duplicates bigint, OUT skipped bigint,
		OUT dead_letters bigint, OUT last_applied_at timestamptz,
		OUT last_error text, OUT last_error_at timestamptz)
	RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_worker_partitions';
COMMENT ON FUNCTION report.worker_partitions() IS 'What this database''s reporter says about each partition (for the views)';
REVOKE ALL ON FUNCTION report.worker_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION report.worker(), report.worker_partitions() TO pg_monitor;

CREATE VIEW report.stat_reporter AS
	SELECT w.pid,
		   CASE WHEN w.pid IS NULL THEN 'not running'
				WHEN p.lost IS NOT NULL THEN 'stopped'
				ELSE COALESCE(s.state, w.state) END AS state,
		   topic, partition,
		   COALESCE(s.kafka_offset, p.next_offset) AS kafka_offset,
		   s.high_watermark,
		   CASE WHEN s.kafka_offset >= 0
				THEN GREATEST(s.high_watermark - s.kafka_offset, 0) END AS lag,
		   s.events_applied, s.duplicates, s.skipped, s.dead_letters,
		   COALESCE(s.last_applied_at, p.changed_at) AS last_applied_at,
		   COALESCE(p.lost, s.last_error) AS last_error, s.last_error_at
	FROM report.progress p
		FULL JOIN report.worker_partitions() s USING (topic, partition)
		CROSS JOIN report.worker() w;
COMMENT ON VIEW report.stat_reporter IS 'Reading, per topic and partition; counters since the reporter''s start or report.stat_reset()';
COMMENT ON COLUMN report.stat_reporter.pid IS 'Process of the reporter; NULL: it does not run';
COMMENT ON COLUMN report.stat_reporter.state IS 'current, reading, waiting, stopped, not running';
COMMENT ON COLUMN report.stat_reporter.topic IS 'Topic';
COMMENT ON COLUMN report.stat_reporter.partition IS 'Partition';
COMMENT ON COLUMN report.stat_reporter.kafka_offset IS 'Next offset to read';
COMMENT ON COLUMN report.stat_reporter.high_watermark IS 'The partition''s end, as last fetched';
COMMENT ON COLUMN report.stat_reporter.lag IS 'Messages between the two';
COMMENT ON COLUMN report.stat_reporter.events_applied IS 'Events stored in the event log';
COMMENT ON COLUMN report.stat_reporter.duplicates IS 'Events that were stored before';
COMMENT ON COLUMN report.stat_reporter.skipped IS 'Tombstones and JSON nulls';
COMMENT ON COLUMN report.stat_reporter.dead_letters IS 'Messages that could not be read';
COMMENT ON COLUMN report.stat_reporter.last_applied_at IS 'When messages were stored last';
COMMENT ON COLUMN report.stat_reporter.last_error IS 'Newest error of this partition';
COMMENT ON COLUMN report.stat_reporter.last_error_at IS 'When it happened';

CREATE VIEW report.stat_reports AS
	SELECT d.name, d.owner, d.target,
		   CASE WHEN NOT d.enabled THEN 'disabled'
				WHEN a.failed THEN 'failed'
				WHEN a.applied_seq >= l.head THEN 'current'
				WHEN a.last_error IS NOT NULL THEN 'trying again'
				ELSE 'catching up' END AS state,
		   a.events, a.runs, a.total_ms, a.last_ms, a.dead_letters,
		   NULL::bigint AS rebuild_done, NULL::bigint AS rebuild_total,
		   a.last_error
	FROM report.definitions d
		JOIN report.applied a USING (name)
		CROSS JOIN (SELECT COALESCE(max(e.log_seq), 0) AS head
					FROM report.reported_events e) l;
COMMENT ON VIEW report.stat_reports IS 'Every report, its state and its cost';
COMMENT ON COLUMN report.stat_reports.name IS 'Name of the report';
COMMENT ON COLUMN report.stat_reports.owner IS 'Role that it runs as';
COMMENT ON COLUMN report.stat_reports.target IS 'The table people read';
COMMENT ON COLUMN report.stat_reports.state IS 'current, catching up, trying again, disabled, failed';
COMMENT ON COLUMN report.stat_reports.events IS 'Events given to the report';
COMMENT ON COLUMN report.stat_reports.runs IS 'Times the statement was executed';
COMMENT ON COLUMN report.stat_reports.total_ms IS 'Time spent in the statement';
COMMENT ON COLUMN report.stat_reports.last_ms IS 'Time of the newest execution';
COMMENT ON COLUMN report.stat_reports.dead_letters IS 'Events that the report has refused';
COMMENT ON COLUMN report.stat_reports.rebuild_done IS 'Events applied by a rebuild under way';
COMMENT ON COLUMN report.stat_reports.rebuild_total IS 'Events that it has to apply';
COMMENT ON COLUMN report.stat_reports.last_error IS 'Newest error';

CREATE VIEW report.status AS
	WITH worker AS (
		SELECT w.*, i.reading,
			   w.listed OR COALESCE(i.only_one, false)
					OR EXISTS (SELECT FROM report.definitions) AS used
		FROM report.worker() w LEFT JOIN report.instance i ON true
	), concerns (place, concern, level, message, remedy) AS (
		SELECT 1, 'library',
			   CASE WHEN w.preloaded THEN 'ok' ELSE 'fail' END,
			   CASE WHEN w.preloaded THEN 'the library is preloaded'
					ELSE 'the library is not preloaded: no worker runs' END,
			   CASE WHEN NOT w.preloaded THEN
					'ALTER SYSTEM SET shared_preload_libraries = '
					|| concat_ws(', ', NULLIF(current_setting('shared_preload_libraries'), ''), 'carshop_outbox')
					|| '; then restart the server' END
		FROM worker w
		UNION ALL
		SELECT 2, 'reporter',
			   CASE WHEN NOT w.used OR w.pid IS NOT NULL THEN 'ok' ELSE 'fail' END,
			   CASE WHEN w.pid IS NOT NULL
					THEN format('the reporter runs (pid %s, %s)', w.pid, w.state)
					WHEN NOT w.used THEN 'this database reads no events and has no reports'
					WHEN w.listed THEN 'the reporter does not run'
					ELSE 'no reporter runs: this database is not named in carshop_outbox.report_databases' END,
			   CASE WHEN NOT w.used OR w.pid IS NOT NULL THEN NULL
					WHEN w.listed THEN 'see the server''s log; max_worker_processes may be too small'
					ELSE 'ALTER SYSTEM SET carshop_outbox.report_databases = '
						 || quote_literal(concat_ws(',',
								NULLIF(current_setting('carshop_outbox.report_databases', true), ''),
								quote_ident(current_database())))
						 || '; SELECT pg_reload_conf();' END
		FROM worker w WHERE w.preloaded
		UNION ALL
		SELECT 3, 'reading',
			   CASE WHEN w.reading OR NOT w.used THEN 'ok' ELSE 'warn' END,
			   CASE WHEN w.reading THEN 'reading is started'
					WHEN NOT w.used THEN 'not used'
					WHEN w.reading IS NULL THEN 'reading was never started in this database (a restored copy waits here)'
					ELSE 'reading is stopped' END,
			   CASE WHEN w.used AND w.reading IS NOT TRUE THEN 'SELECT report.start();' END
		FROM worker w
		UNION ALL
		SELECT 4, 'kafka',
			   CASE WHEN COALESCE(w.message, '') = '' THEN 'ok'
					WHEN w.state = 'stopped' THEN 'fail' ELSE 'warn' END,
			   COALESCE(NULLIF(w.message, ''), 'no trouble with Kafka'),
			   NULLIF(w.remedy, '')
		FROM worker w WHERE w.pid IS NOT NULL AND w.reading
		UNION ALL
		SELECT 5, format('partition %s/%s', p.topic, p.partition), 'fail',
			   p.lost,
			   format('SELECT report.seek(%L, %s, %s);', p.topic, p.partition, -2)
		FROM report.progress p WHERE p.lost IS NOT NULL
		UNION ALL
		SELECT 6, format('report %s', r.name),
			   CASE r.state WHEN 'failed' THEN 'fail'
							WHEN 'trying again' THEN 'warn' ELSE 'ok' END,
			   CASE WHEN r.state IN ('failed', 'trying again')
					THEN format('%s: %s', r.state, r.last_error)
					ELSE r.state END,
			   CASE r.state WHEN 'failed' THEN format(
					'SELECT report.enable(%L); after the cause is repaired', r.name) END
		FROM report.stat_reports r
		UNION ALL
		SELECT 7, 'dead letters',
			   CASE WHEN d.n = 0 THEN 'ok' ELSE 'warn' END,
			   CASE WHEN d.n = 0 THEN 'none'
					ELSE format('%s messages or events were refused', d.n) END,
			   CASE WHEN d.n > 0 THEN
					'SELECT * FROM report.dead_letters; then report.retry() or report.skip(id)' END
		FROM (SELECT count(*) AS n FROM report.dead_letter) d
	)
	SELECT c.concern::text, c.level::text, c.message::text, c.remedy::text
	FROM concerns c
	ORDER BY CASE c.level WHEN 'fail' THEN 1 WHEN 'warn' THEN 2 ELSE 3 END,
			 c.place, c.concern;
COMMENT ON VIEW report.status IS 'What is right and what is wrong with reading and reports, worst first, with the remedy';
COMMENT ON COLUMN report.status.concern IS 'What it is about';
COMMENT ON COLUMN report.status.level IS 'ok, warn or fail';
COMMENT ON COLUMN report.status.message IS 'What is right or wrong';
COMMENT ON COLUMN report.status.remedy IS 'What to do';

--
-- Rights
--

-- Writers of captured tables need nothing.  Members of pg_monitor see the
-- state and not the events.
GRANT SELECT ON outbox.status, outbox.stat_relay, outbox.routes, outbox.backfill_progress TO pg_monitor;
GRANT SELECT ON report.dead_letters, report.stat_reporter, report.stat_reports,
	report.status, report.progress, report.instance TO pg_monitor;

--
-- What CREATE EXTENSION says
--

DO $warn$
BEGIN
	IF NOT (SELECT preloaded FROM outbox.relay_report()) THEN
		RAISE WARNING USING
			MESSAGE = 'carshop_outbox is not preloaded: events will be stored, and nothing publishes or reads them',
			HINT = 'Put shared_preload_libraries = ''carshop_outbox'' into postgresql.conf and restart the server.';
	END IF;
END
$warn$;
