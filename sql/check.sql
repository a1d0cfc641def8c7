-- sql/check.sql: before the first event, will it work?
--
-- outbox.check() and report.check() have the form of the status views, but look by
-- themselves, at Kafka as well, and leave no trace there (src/kafka/inspect.c).

CREATE FUNCTION outbox.inspect_kafka(reads boolean, topics text[], state boolean[], lineage text,
		cluster_id text, progress_topic text, timeout interval)
	RETURNS TABLE (place integer, concern text, level text, message text, remedy text, setting text, value text)
	LANGUAGE c VOLATILE ROWS 20 AS 'MODULE_PATHNAME', 'outbox_inspect_kafka';
COMMENT ON FUNCTION outbox.inspect_kafka(boolean, text[], boolean[], text, text, text, interval) IS
'What outbox.check() and report.check() find out about Kafka; starts a process for it, which ends with the answer';
REVOKE ALL ON FUNCTION outbox.inspect_kafka(boolean, text[], boolean[], text, text, text, interval) FROM PUBLIC;

CREATE VIEW outbox.publisher AS
	SELECT l.lineage, l.cluster_id, l.progress_topic FROM outbox.lineage l;
COMMENT ON VIEW outbox.publisher IS 'Who publishes, and where that was recorded';
COMMENT ON COLUMN outbox.publisher.lineage IS 'Who publishes';
COMMENT ON COLUMN outbox.publisher.cluster_id IS 'Kafka cluster in which it has published; NULL: none yet';
COMMENT ON COLUMN outbox.publisher.progress_topic IS 'Its progress topic there; NULL: not made yet';

CREATE FUNCTION outbox.server_concerns(setting text, what text)
	RETURNS TABLE (place integer, concern text, level text, message text, remedy text)
	LANGUAGE sql STABLE STRICT ROWS 2 SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 3, 'database',
		   CASE WHEN r.remedy IS NULL THEN 'ok' ELSE 'fail' END,
		   format(CASE WHEN r.remedy IS NULL THEN '%s names database "%s".' ELSE '%s does not name database "%s": %s.' END,
				server_concerns.setting, current_database(), what),
		   r.remedy
	FROM (SELECT outbox.name_database_remedy(server_concerns.setting) AS remedy) r
	UNION ALL
	SELECT 4, 'worker processes',
		   CASE WHEN n.wanted <= n.allowed THEN 'ok' ELSE 'warn' END,
		   format(CASE WHEN n.wanted <= n.allowed THEN 'max_worker_processes = %s; %s of them are ours.'
				ELSE 'max_worker_processes = %s, and the settings name so many databases that %s are ours.' END, n.allowed, n.wanted),
		   CASE WHEN n.wanted > n.allowed
				THEN format('ALTER SYSTEM SET max_worker_processes = %s; -- then restart the server', n.allowed + n.wanted) END
	FROM (
		SELECT current_setting('max_worker_processes')::integer AS allowed,
			   -- the launcher, and one for each database that a list names
			   1 + sum(cardinality(outbox.list_names(l.list))) AS wanted
		FROM (VALUES (current_setting('carshop_outbox.shop_databases', true)), (current_setting('carshop_outbox.report_databases', true))) l (list)) n
$$;
COMMENT ON FUNCTION outbox.server_concerns(text, text) IS
'The rows of outbox.check() and report.check() about this server; what: what does not happen when the setting does not name the database';

CREATE FUNCTION outbox.check(timeout interval DEFAULT '10s')
	RETURNS TABLE (concern text, level text, message text, remedy text)
	LANGUAGE sql VOLATILE STRICT ROWS 20 SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
	WITH topics AS (
		SELECT array_agg(t.topic ORDER BY t.topic) AS topics, array_agg(COALESCE(t.state, false) ORDER BY t.topic) AS state
		FROM outbox.known_topics t
	), rows AS (
		SELECT CASE s.concern WHEN 'relay' THEN 5 ELSE 1 END AS place, s.concern, s.level, s.message, s.remedy
		FROM outbox.status s WHERE s.concern IN ('library', 'librdkafka')
			OR s.concern = 'relay' AND outbox.name_database_remedy('carshop_outbox.shop_databases') IS NULL
		UNION ALL
		SELECT c.* FROM outbox.server_concerns('carshop_outbox.shop_databases', 'its events are stored, and nothing publishes them') c
		UNION ALL
		SELECT k.place, k.concern, k.level, outbox.sentence(k.message), COALESCE(outbox.set_remedy(k.setting, k.value), k.remedy)
		FROM outbox.publisher p CROSS JOIN topics t
		CROSS JOIN LATERAL outbox.inspect_kafka(false, t.topics, t.state, p.lineage::text, p.cluster_id, p.progress_topic, timeout) k
		UNION ALL
		SELECT 20, 'topic', 'ok', format('Route "%s" on %s makes the topic of the row: which ones that are is not known before.', r.event_type, r.source), NULL
		FROM outbox.routes r WHERE r.enabled AND r.topic ~ '[{]'
	)
	SELECT r.concern, r.level, r.message, r.remedy
	FROM rows r
	ORDER BY CASE r.level WHEN 'fail' THEN 1 WHEN 'warn' THEN 2 ELSE 3 END, r.place, r.message
$$;
COMMENT ON FUNCTION outbox.check(interval) IS
'Will publishing work? Looks at the settings, at Kafka and at the rights there before the first event, leaves no trace in Kafka, and says what is wrong with the remedy, worst first. Takes no longer than timeout and some seconds.';

CREATE FUNCTION report.check(timeout interval DEFAULT '10s')
	RETURNS TABLE (concern text, level text, message text, remedy text)
	LANGUAGE sql VOLATILE STRICT ROWS 20 SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
	WITH topics AS (
		SELECT t.names AS topics, array_fill(false, ARRAY[cardinality(t.names)]) AS state
		FROM outbox.list_names(current_setting('carshop_outbox.report_topics', true)) t (names)
	), rows AS (
		SELECT CASE s.concern WHEN 'reporter' THEN 5 ELSE 1 END AS place, s.concern, s.level, s.message, s.remedy
		FROM report.status s WHERE s.concern IN ('library', 'librdkafka')
			OR s.concern = 'reporter' AND outbox.name_database_remedy('carshop_outbox.report_databases') IS NULL
		UNION ALL
		SELECT c.* FROM outbox.server_concerns('carshop_outbox.report_databases', 'nothing reads its topics') c
		UNION ALL
		SELECT k.place, k.concern, k.level, outbox.sentence(k.message), COALESCE(outbox.set_remedy(k.setting, k.value), k.remedy)
		FROM topics t
		CROSS JOIN LATERAL outbox.inspect_kafka(true, t.topics, t.state, NULL, NULL, NULL, timeout) k
		WHERE t.topics <> '{}'
		UNION ALL
		SELECT 20, 'topic', 'fail', 'carshop_outbox.report_topics names no topic.', outbox.set_remedy('carshop_outbox.report_topics', NULL)
		FROM topics t WHERE t.topics = '{}'
	)
	SELECT r.concern, r.level, r.message, r.remedy
	FROM rows r
	ORDER BY CASE r.level WHEN 'fail' THEN 1 WHEN 'warn' THEN 2 ELSE 3 END, r.place, r.message
$$;
COMMENT ON FUNCTION report.check(interval) IS
'Will reading work? As outbox.check(), for the reporter and the topics that carshop_outbox.report_topics names';

-- They start a process and ask Kafka: for administrators, and who watches the server.
REVOKE ALL ON FUNCTION outbox.check(interval), report.check(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.check(interval), report.check(interval) TO pg_monitor;
GRANT EXECUTE ON FUNCTION outbox.inspect_kafka(boolean, text[], boolean[], text, text, text, interval) TO pg_monitor;
GRANT SELECT ON outbox.publisher TO pg_monitor;
