-- sql/metrics.sql: the numbers for a scraper, in Prometheus' form: base units, counters
-- end in _total.  A row for each value, at a constant cost.

CREATE VIEW outbox.metrics AS
	WITH relay AS (
		SELECT r.*, r.pid IS NOT NULL AS runs FROM outbox.relay_report() r LIMIT 1
	)
	SELECT m.name, m.labels, m.value
	FROM relay r CROSS JOIN outbox.unconfirmed u CROSS JOIN LATERAL (VALUES
		('outbox_up', '{}'::jsonb, r.runs::integer::double precision),
		('outbox_stopped', '{}', (r.runs AND r.stopped)::integer),
		('outbox_trouble', '{}', (r.runs AND r.trouble IS NOT NULL)::integer),
		('outbox_pending_events', '{}', u.events),
		('outbox_oldest_pending_age_seconds', '{}', COALESCE(extract(epoch FROM clock_timestamp() - u.oldest)::double precision, 0)),
		('outbox_published_events_total', '{}', r.events_published),
		('outbox_published_bytes_total', '{}', r.bytes_published),
		('outbox_kafka_transactions_total', '{}', r.transactions),
		('outbox_errors_total', '{}', r.errors),
		('outbox_tick', '{}', r.tick),
		('outbox_confirmed_tick', '{}', r.confirmed_tick),
		('outbox_last_transaction_seconds', '{}', r.last_transaction_ms / 1000)) m (name, labels, value)
	UNION ALL
	-- a histogram's buckets add up
	SELECT 'outbox_publish_latency_seconds_bucket', jsonb_build_object('le', CASE c.label WHEN 'Infinity' THEN '+Inf' ELSE c.label END),
		sum(c.value) OVER (ORDER BY c.label::double precision)
	FROM outbox.relay_counters() c WHERE c.counter = 'latency'
	UNION ALL
	SELECT 'outbox_publish_latency_seconds_count', '{}', sum(c.value) FROM outbox.relay_counters() c WHERE c.counter = 'latency'
	UNION ALL
	SELECT CASE c.counter WHEN 'latency_sum' THEN 'outbox_publish_latency_seconds_sum'
			WHEN 'failures' THEN 'outbox_failures_total' ELSE 'outbox_state_seconds_total' END,
		CASE c.counter WHEN 'failures' THEN jsonb_build_object('cause', c.label) WHEN 'state' THEN jsonb_build_object('state', c.label) ELSE '{}' END, c.value
	FROM outbox.relay_counters() c WHERE c.counter <> 'latency'
	UNION ALL
	-- a table of many is not counted to its end
	SELECT 'outbox_dead_letter_events', '{}', (SELECT count(*) FROM (SELECT FROM outbox.dead_letters LIMIT 10000) d)
	UNION ALL
	SELECT 'outbox_parked_events', jsonb_build_object('topic', p.topic), p.events FROM outbox.parked p
	UNION ALL
	SELECT 'outbox_segment_bytes', jsonb_build_object('segment', g.segment::text), g.bytes FROM outbox.segments g
	UNION ALL
	SELECT 'outbox_segment_late', jsonb_build_object('segment', g.segment::text), (g.late_since IS NOT NULL)::integer FROM outbox.segments g
	UNION ALL
	SELECT 'outbox_info', jsonb_build_object('library', l.library, 'objects', l.objects, 'librdkafka', l.librdkafka), 1 FROM outbox.library l;
COMMENT ON VIEW outbox.metrics IS 'Numbers of publishing for a scraper; counters since the server''s start or outbox.stat_reset()';
COMMENT ON COLUMN outbox.metrics.name IS 'Name of the metric, in Prometheus'' form';
COMMENT ON COLUMN outbox.metrics.labels IS 'Its labels: an object of strings';
COMMENT ON COLUMN outbox.metrics.value IS 'Its value, in base units; outbox_dead_letter_events stops at 10000';

CREATE FUNCTION report.worker_counters(OUT counter text, OUT label text, OUT value double precision)
	RETURNS SETOF record LANGUAGE c VOLATILE ROWS 25
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_worker_counters';
COMMENT ON FUNCTION report.worker_counters() IS
'What the reporter counts: events by latency (label: upper end in seconds); use report.latency and report.metrics';
REVOKE ALL ON FUNCTION report.worker_counters() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION report.worker_counters() TO pg_monitor;

CREATE VIEW report.latency AS
	SELECT CASE WHEN c.label <> 'Infinity' THEN c.label::double precision * interval '1 second' END AS up_to,
		   c.value::bigint AS events,
		   round((100 * sum(c.value) OVER w / NULLIF(sum(c.value) OVER (), 0))::numeric, 2) AS percent
	FROM report.worker_counters() c
	WHERE c.counter = 'latency'
	WINDOW w AS (ORDER BY c.label::double precision);
COMMENT ON VIEW report.latency IS
'How long events took from Kafka, by the time of their records, until they could be seen in the event log and the reports: since a server''s start or report.stat_reset()';
COMMENT ON COLUMN report.latency.up_to IS 'At most so long, and longer than in the row before; NULL: longer than all of them';
COMMENT ON COLUMN report.latency.events IS 'How many events; a batch with events that were read before is left out';
COMMENT ON COLUMN report.latency.percent IS 'Share of all events that took at most so long';

CREATE VIEW report.metrics AS
	SELECT 'outbox_reporter_up' AS name, '{}'::jsonb AS labels, (w.pid IS NOT NULL)::integer::double precision AS value
	FROM report.worker() w
	UNION ALL
	SELECT 'outbox_apply_latency_seconds_bucket', jsonb_build_object('le', CASE c.label WHEN 'Infinity' THEN '+Inf' ELSE c.label END),
		sum(c.value) OVER (ORDER BY c.label::double precision)
	FROM report.worker_counters() c WHERE c.counter = 'latency'
	UNION ALL
	SELECT 'outbox_apply_latency_seconds_count', '{}', sum(c.value) FROM report.worker_counters() c WHERE c.counter = 'latency'
	UNION ALL
	SELECT 'outbox_apply_latency_seconds_sum', '{}', c.value FROM report.worker_counters() c WHERE c.counter = 'latency_sum'
	UNION ALL
	SELECT m.name, jsonb_build_object('topic', s.topic, 'partition', s.partition::text), m.value
	FROM report.stat_reporter s CROSS JOIN LATERAL (VALUES
		('outbox_consumer_lag_events', s.lag::double precision),
		('outbox_consumer_stopped', (s.state = 'stopped')::integer),
		('outbox_applied_events_total', s.events_applied),
		('outbox_duplicate_events_total', s.duplicates),
		('outbox_skipped_messages_total', s.skipped),
		('outbox_unreadable_messages_total', s.dead_letters)) m (name, value)
	UNION ALL
	SELECT m.name, jsonb_build_object('report', r.name), m.value
	FROM report.stat_reports r CROSS JOIN LATERAL (VALUES
		('outbox_report_current', (r.state = 'current')::integer::double precision),
		('outbox_report_failed', (r.state = 'failed')::integer),
		('outbox_report_events_total', r.events),
		('outbox_report_runs_total', r.runs),
		('outbox_report_seconds_total', r.total_ms / 1000),
		('outbox_report_dead_letter_events', r.dead_letters)) m (name, value);
COMMENT ON VIEW report.metrics IS 'Numbers of reading and of the reports for a scraper; counters since the server''s start (of reports: since they were defined) or report.stat_reset()';
COMMENT ON COLUMN report.metrics.name IS 'Name of the metric, in Prometheus'' form';
COMMENT ON COLUMN report.metrics.labels IS 'Its labels: an object of strings';
COMMENT ON COLUMN report.metrics.value IS 'Its value, in base units; NULL: not known';

GRANT SELECT ON outbox.metrics, report.metrics, report.latency TO pg_monitor;
