-- sql/report_status.sql: what the reporter does, what is wrong, and the remedy; its
-- views have the form of those in sql/status.sql.

--
-- The reporter
--

CREATE FUNCTION report.worker(OUT preloaded boolean, OUT listed boolean,
		OUT pid integer, OUT state text, OUT since timestamptz,
		OUT message text, OUT remedy text, OUT at timestamptz,
		OUT catch_up_processes integer, OUT in_turns integer)
	RETURNS record LANGUAGE c VOLATILE PARALLEL RESTRICTED
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_worker';
COMMENT ON FUNCTION report.worker() IS 'What this database''s reporter says about itself (for the views)';
REVOKE ALL ON FUNCTION report.worker() FROM PUBLIC;

CREATE FUNCTION report.worker_partitions(OUT topic text, OUT partition integer,
		OUT state text, OUT kafka_offset bigint, OUT high_watermark bigint,
		OUT events_applied bigint, OUT duplicates bigint, OUT skipped bigint,
		OUT dead_letters bigint, OUT last_applied_at timestamptz,
		OUT last_error text, OUT last_error_at timestamptz,
		OUT stable_offset bigint, OUT held_since timestamptz)
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
				-- of report.seek(), or of a topic that was read formerly
				WHEN NOT topic = ANY (outbox.list_names(current_setting('carshop_outbox.report_topics', true)))
					THEN 'not read'
				ELSE COALESCE(s.state, w.state) END AS state,
		   topic, partition,
		   COALESCE(s.kafka_offset, p.next_offset) AS kafka_offset,
		   s.stable_offset, s.high_watermark,
		   CASE WHEN s.kafka_offset >= 0
				THEN GREATEST(s.high_watermark - s.kafka_offset, 0) END AS lag,
		   s.events_applied, s.duplicates, s.skipped, s.dead_letters,
		   COALESCE(s.last_applied_at, p.changed_at) AS last_applied_at,
		   COALESCE(p.lost, s.last_error) AS last_error, s.last_error_at
	FROM report.progress p
		FULL JOIN report.worker_partitions() s USING (topic, partition)
		CROSS JOIN report.worker() w;
COMMENT ON VIEW report.stat_reporter IS 'Reading, per topic and partition; counters since the server''s start or report.stat_reset()';
COMMENT ON COLUMN report.stat_reporter.pid IS 'Process of the reporter; NULL: it does not run';
COMMENT ON COLUMN report.stat_reporter.state IS 'current, reading, held (by an open transaction), waiting, not read (carshop_outbox.report_topics does not name the topic), stopped, not running';
COMMENT ON COLUMN report.stat_reporter.topic IS 'Topic';
COMMENT ON COLUMN report.stat_reporter.partition IS 'Partition';
COMMENT ON COLUMN report.stat_reporter.kafka_offset IS 'Next offset to read';
COMMENT ON COLUMN report.stat_reporter.stable_offset IS 'Where reading ends: nothing before it belongs to an open transaction, as last met';
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
		   CASE WHEN r.pid IS NOT NULL THEN 'rebuilding'
				WHEN NOT d.enabled THEN 'disabled'
				WHEN a.failed THEN 'failed'
				WHEN a.applied_seq >= l.head THEN 'current'
				WHEN a.last_error IS NOT NULL THEN 'trying again'
				ELSE 'catching up' END AS state,
		   a.events, a.runs, a.total_ms, a.last_ms, a.dead_letters,
		   r.done AS rebuild_done, r.total AS rebuild_total,
		   CASE WHEN r.done > 0 THEN r.since + (clock_timestamp() - r.since) * (r.total / r.done::float8) END AS rebuild_ends,
		   a.last_error
	FROM report.definitions d
		JOIN report.applied a USING (name)
		LEFT JOIN report.rebuilds() r USING (name)
		CROSS JOIN (SELECT COALESCE(max(e.log_seq), 0) AS head
					FROM report.reported_events e) l;
COMMENT ON VIEW report.stat_reports IS 'Every report, its state and its cost';
COMMENT ON COLUMN report.stat_reports.name IS 'Name of the report';
COMMENT ON COLUMN report.stat_reports.owner IS 'Role that it runs as';
COMMENT ON COLUMN report.stat_reports.target IS 'The table people read';
COMMENT ON COLUMN report.stat_reports.state IS 'current, catching up, trying again, rebuilding, disabled, failed';
COMMENT ON COLUMN report.stat_reports.events IS 'Events given to the report';
COMMENT ON COLUMN report.stat_reports.runs IS 'Times the statement was executed';
COMMENT ON COLUMN report.stat_reports.total_ms IS 'Time spent in the statement';
COMMENT ON COLUMN report.stat_reports.last_ms IS 'Time of the newest execution';
COMMENT ON COLUMN report.stat_reports.dead_letters IS 'Events that the report has refused';
COMMENT ON COLUMN report.stat_reports.rebuild_done IS 'Events applied by a rebuild under way';
COMMENT ON COLUMN report.stat_reports.rebuild_total IS 'Events that it has to apply';
COMMENT ON COLUMN report.stat_reports.rebuild_ends IS 'When it will have done so, if it goes on like that';
COMMENT ON COLUMN report.stat_reports.last_error IS 'Newest error';

CREATE FUNCTION report.stat_reset()
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_stat_reset';
COMMENT ON FUNCTION report.stat_reset() IS 'Zeroes the counters of report.stat_reporter, report.latency and report.stat_reports';
REVOKE ALL ON FUNCTION report.stat_reset() FROM PUBLIC;

CREATE VIEW report.stat_dead_letters AS
	SELECT d.report, d.topic, d.partition, d.sqlstate, count(*) AS events, min(d.at) AS first_at, max(d.at) AS last_at
	FROM report.dead_letter d
	GROUP BY d.report, d.topic, d.partition, d.sqlstate;
COMMENT ON VIEW report.stat_dead_letters IS 'How many messages could not be read, and how many events a report refused; what they say: report.dead_letters';
COMMENT ON COLUMN report.stat_dead_letters.report IS 'Report that refused the events; NULL: the messages themselves could not be read';
COMMENT ON COLUMN report.stat_dead_letters.topic IS 'Topic of the messages';
COMMENT ON COLUMN report.stat_dead_letters.partition IS 'Partition of the messages';
COMMENT ON COLUMN report.stat_dead_letters.sqlstate IS 'SQLSTATE of the refusal';
COMMENT ON COLUMN report.stat_dead_letters.events IS 'How many';
COMMENT ON COLUMN report.stat_dead_letters.first_at IS 'When the first was refused';
COMMENT ON COLUMN report.stat_dead_letters.last_at IS 'When the last was refused';

CREATE VIEW report.status AS
	WITH reporter AS (
		SELECT w.*, w.pid IS NOT NULL AS runs, pg_is_in_recovery() AS standby, i.reading,
			   w.listed OR COALESCE(i.only_one, false) OR EXISTS (SELECT FROM report.definitions) AS used
		FROM report.worker() w LEFT JOIN report.instance i ON true
	), held AS (
		-- a transaction takes a while; only one that lasts is said
		SELECT s.* FROM report.worker_partitions() s CROSS JOIN reporter r
		WHERE r.runs AND s.held_since < clock_timestamp() - interval '10 seconds'
	), concerns (place, concern, level, message, remedy) AS (
		SELECT c.*
		FROM reporter r CROSS JOIN LATERAL outbox.library_concerns(r.preloaded, 'nothing reads from Kafka.') c
		UNION ALL
		SELECT 2, 'reporter',
			   CASE WHEN r.runs OR r.standby OR NOT r.used THEN 'ok' ELSE 'fail' END,
			   CASE WHEN r.runs THEN format('The reporter runs (pid %s): %s.', r.pid, r.state)
					WHEN r.standby THEN 'This is a standby; workers start at promotion.'
					WHEN NOT r.used THEN 'This database reads no events and has no reports.'
					WHEN r.listed THEN 'The reporter is not running.'
					ELSE format('No reporter runs: carshop_outbox.report_databases does not name database "%s".', current_database()) END,
			   CASE WHEN r.runs OR r.standby OR NOT r.used THEN NULL
					WHEN r.listed THEN 'See the server''s log; it says what has run out, for example max_worker_processes.'
					ELSE outbox.name_database_remedy('carshop_outbox.report_databases') END
		FROM reporter r WHERE r.preloaded
		UNION ALL
		SELECT 3, 'reading',
			   CASE WHEN r.reading OR NOT r.used THEN 'ok' ELSE 'warn' END,
			   CASE WHEN r.reading THEN 'Reading is started.'
					WHEN NOT r.used THEN 'Reading is not used.'
					WHEN r.reading IS NULL THEN 'Reading was never started in this database (a restored copy waits here).'
					ELSE 'Reading is stopped.' END,
			   CASE WHEN r.used AND r.reading IS NOT TRUE THEN 'SELECT report.start();' END
		FROM reporter r
		UNION ALL
		SELECT 4, 'divergence', 'ok', 'Every partition goes on where reading stood.', NULL
		WHERE NOT EXISTS (SELECT FROM report.progress p WHERE p.lost IS NOT NULL)
		UNION ALL
		SELECT 4, 'divergence', 'fail',
			   format('Partition %s/%s: %s', p.topic, p.partition, outbox.sentence(p.lost)),
			   report.lost_remedy(p.topic, p.partition, p.next_offset, p.lost)
		FROM report.progress p WHERE p.lost IS NOT NULL
		UNION ALL
		SELECT 5, 'kafka',
			   CASE WHEN NOT k.known OR r.message IS NULL THEN 'ok'
					WHEN r.state IN ('stopped', 'waiting for Kafka') THEN 'fail' ELSE 'warn' END,
			   CASE WHEN NOT k.known THEN 'Nothing is known while nothing is read.'
					WHEN r.message IS NULL THEN 'No trouble with Kafka.'
					ELSE outbox.sentence(r.message) END,
			   CASE WHEN k.known THEN outbox.remedy_here(r.remedy) END
		FROM reporter r CROSS JOIN LATERAL (SELECT r.runs AND r.reading IS TRUE AS known) k
		UNION ALL
		SELECT 6, 'transactions', 'ok', 'No open transaction holds messages back.', NULL
		WHERE NOT EXISTS (SELECT FROM held)
		UNION ALL
		SELECT 6, 'transactions', 'warn',
			   format('Partition %s/%s is held up at offset %s since %s: a producer''s transaction is open there, and what stands behind it (%s) waits.',
					  h.topic, h.partition, h.stable_offset, date_trunc('second', h.held_since), h.high_watermark - h.stable_offset),
			   format('Let its producer commit or abort it; it ends by itself when that producer''s transaction.timeout.ms is over. One that hangs: kafka-transactions.sh --bootstrap-server %s abort --topic %s --partition %s --start-offset %s',
					  current_setting('carshop_outbox.brokers'), h.topic, h.partition, h.stable_offset)
		FROM held h
		UNION ALL
		SELECT 7, 'delivery', 'ok', 'Each event is applied exactly once.', NULL
		UNION ALL
		SELECT 8, 'backlog', 'ok',
			   CASE WHEN b.messages = 0 THEN 'No message is known to wait in the topics.'
					ELSE format('About %s message(s) wait in the topics.', b.messages) END, NULL
		FROM (SELECT COALESCE(sum(s.lag), 0) AS messages FROM report.stat_reporter s) b
		UNION ALL
		SELECT 9, 'reports', 'ok',
			   format('%s report(s) are kept.', count(*)), NULL
		FROM report.stat_reports s WHERE s.state IN ('current', 'catching up', 'rebuilding')
		UNION ALL
		SELECT 9, 'reports',
			   CASE s.state WHEN 'failed' THEN 'fail' ELSE 'warn' END,
			   CASE s.state
					WHEN 'disabled' THEN format('Report "%s" is disabled.', s.name)
					WHEN 'failed' THEN format('Report "%s" has failed: %s', s.name, outbox.sentence(s.last_error))
					ELSE format('Report "%s" is tried again: %s', s.name, outbox.sentence(s.last_error)) END,
			   CASE s.state
					WHEN 'disabled' THEN format('SELECT report.enable(%L);', s.name)
					WHEN 'failed' THEN format('SELECT report.enable(%L);', s.name) ||
						CASE WHEN EXISTS (SELECT FROM report.dead_letter d WHERE d.report = s.name)
							 THEN format(' SELECT report.retry(id) FROM report.dead_letters WHERE report = %L;', s.name) ELSE '' END ||
						' -- when the cause is repaired'
					ELSE 'It goes on by itself when the cause is gone.' END
		FROM report.stat_reports s WHERE s.state NOT IN ('current', 'catching up', 'rebuilding')
		UNION ALL
		SELECT 9, 'reports', 'warn',
			   format('%s report(s) that are slow or far behind have no process of their own; the reporter serves them, and the others wait meanwhile.', r.in_turns),
			   CASE WHEN r.catch_up_processes >= 4
					THEN 'Make them quicker (report.stat_reports has their cost), or report.disable() one: no more than 4 have a process at the same time.'
					ELSE format('ALTER SYSTEM SET max_worker_processes = %s; -- then restart the server', current_setting('max_worker_processes')::integer + 4) END
		FROM reporter r WHERE r.in_turns > 0
		UNION ALL
		SELECT 9, 'reports', 'warn',
			   format('Report "%s" takes one event of a key at a time (SQLSTATE 21000), so batches that have several are cut into small pieces: right, but slow.', a.name),
			   'Give the statement the newest event of each key: SELECT DISTINCT ON (key) ... FROM new_events ORDER BY key, log_seq DESC; or GROUP BY key. Then report.define() it again.'
		FROM report.applied a JOIN report.definitions d USING (name)
		WHERE a.singly_since IS NOT NULL AND d.enabled
		UNION ALL
		SELECT 10, 'dead letters',
			   CASE WHEN d.n = 0 THEN 'ok' ELSE 'warn' END,
			   CASE WHEN d.n = 0 THEN 'No message or event was refused.'
					ELSE format('%s message(s) or event(s) were refused.', d.n) END,
			   CASE WHEN d.n > 0 THEN 'SELECT * FROM report.dead_letters; -- then report.retry() or report.skip(id)' END
		FROM (SELECT count(*) AS n FROM report.dead_letter) d
		UNION ALL
		SELECT 11, 'event log', CASE WHEN l.held_by IS NULL THEN 'ok' ELSE 'warn' END,
			   CASE WHEN l.held_by IS NOT NULL
					THEN format('Events older than %s stay in the event log: %s.', current_setting('carshop_outbox.report_retention'), l.held_by)
					WHEN l.retention IS NULL THEN 'Events are kept for ever.'
					WHEN l.due THEN format('Events older than %s leave the event log now, or when all that is in the topics has been read.', current_setting('carshop_outbox.report_retention'))
					ELSE format('Events leave the event log after %s.', current_setting('carshop_outbox.report_retention')) END
			   || CASE WHEN l.complete_from > 0
					   THEN format(' It is complete from log_seq %s on; %s older event(s) were removed, the last at %s.',
								   l.complete_from, l.removed, date_trunc('second', l.removed_at)) ELSE '' END,
			   l.remedy
		FROM report.stat_event_log l
		UNION ALL
		SELECT 11, 'event log', 'warn',
			   format('Report "%s" is disabled, and events that it has not applied were removed: it stands at log_seq %s, the event log is complete from %s on.',
					  d.name, a.applied_seq, l.complete_from),
			   format('SELECT report.enable(%L); -- it goes on without them', d.name)
		FROM report.definitions d JOIN report.applied a USING (name) CROSS JOIN report.stat_event_log l
		WHERE NOT d.enabled AND a.applied_seq < l.complete_from - 1
	)
	SELECT c.concern::text, c.level::text, c.message::text, c.remedy::text
	FROM concerns c
	ORDER BY CASE c.level WHEN 'fail' THEN 1 WHEN 'warn' THEN 2 ELSE 3 END, c.place, c.message;
COMMENT ON VIEW report.status IS 'What is right and what is wrong with reading and reports, worst first, with the remedy';
COMMENT ON COLUMN report.status.concern IS 'What it is about';
COMMENT ON COLUMN report.status.level IS 'ok, warn or fail';
COMMENT ON COLUMN report.status.message IS 'What is right or wrong';
COMMENT ON COLUMN report.status.remedy IS 'What to do';

--
-- Rights
--

GRANT SELECT ON report.status, report.stat_reporter, report.stat_reports, report.stat_dead_letters,
	report.progress, report.instance TO pg_monitor;

--
-- What CREATE EXTENSION says
--

DO $warn$
BEGIN
	IF NOT (SELECT preloaded FROM outbox.relay_report()) THEN
		RAISE WARNING USING
			MESSAGE = 'carshop_outbox is not preloaded: events will be stored, and nothing publishes or reads them',
			HINT = outbox.preload_remedy();
	END IF;
END
$warn$;
