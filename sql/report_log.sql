-- sql/report_log.sql: what leaves the event log, by age or by report.erase(), and what
-- remains known of it, so that it is not counted again when its message is read again.

CREATE TABLE report.removed (
	topic			text NOT NULL,
	partition		integer NOT NULL,
	cluster_id		text NOT NULL,
	kafka_offset	bigint,
	written_before	timestamptz,
	log_seq			bigint NOT NULL,
	events			bigint NOT NULL,
	removed_at		timestamptz NOT NULL,
	CONSTRAINT removed_pkey PRIMARY KEY (topic, partition, cluster_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE report.removed IS 'Up to where old events have left the event log (carshop_outbox.report_retention), per partition';
COMMENT ON COLUMN report.removed.topic IS 'Topic';
COMMENT ON COLUMN report.removed.partition IS 'Partition';
COMMENT ON COLUMN report.removed.cluster_id IS 'Kafka cluster; empty: not known';
COMMENT ON COLUMN report.removed.kafka_offset IS 'A message up to this offset, written before the next column, that is read again and is not in the log was counted; NULL after report.forget_removed()';
COMMENT ON COLUMN report.removed.written_before IS 'Half of the retention after the newest of them was received: what a topic made anew holds is newer';
COMMENT ON COLUMN report.removed.log_seq IS 'The highest log_seq that was removed';
COMMENT ON COLUMN report.removed.events IS 'How many events were removed';
COMMENT ON COLUMN report.removed.removed_at IS 'When the last of them was removed';
COMMENT ON CONSTRAINT removed_pkey ON report.removed IS 'One mark per partition of a cluster';

CREATE TABLE report.erased (
	id			uuid NOT NULL,
	erased_at	timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT erased_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE report.erased IS 'Ids of events that report.erase() has removed: they are never stored again';
COMMENT ON COLUMN report.erased.id IS 'The event''s id; of an unreadable message the id made of its place and content';
COMMENT ON COLUMN report.erased.erased_at IS 'When it was erased';
COMMENT ON CONSTRAINT erased_pkey ON report.erased IS 'Looked into for each event that is not in the log, once there are any';

CREATE INDEX dead_letter_event ON report.dead_letter (log_seq) WHERE log_seq IS NOT NULL;
COMMENT ON INDEX report.dead_letter_event IS 'Events that may not leave the log yet';

SELECT pg_extension_config_dump('report.removed', '');
SELECT pg_extension_config_dump('report.erased', '');

CREATE FUNCTION report.erase(event_key text)
	RETURNS bigint LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_erase';
COMMENT ON FUNCTION report.erase(text) IS 'Removes all events of this key, of whatever type and topic, from the event log, and what stands of them in the dead letters, for good; answers how many. Reports'' tables, Kafka, the outbox and backups are not touched';
REVOKE ALL ON FUNCTION report.erase(text) FROM PUBLIC;

CREATE FUNCTION report.forget_removed(topic text, "partition" integer)
	RETURNS boolean LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_forget_removed';
COMMENT ON FUNCTION report.forget_removed(text, integer) IS 'From now on each message of the partition that is not in the event log counts, whatever was removed there; false: nothing was';
REVOKE ALL ON FUNCTION report.forget_removed(text, integer) FROM PUBLIC;

CREATE FUNCTION report.event_log_removed_before()
	RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT COALESCE(max(r.log_seq) + 1, 0) FROM report.removed r;
END;
COMMENT ON FUNCTION report.event_log_removed_before() IS 'From this log_seq on, retention has removed nothing from the event log; 0: it never has';
REVOKE ALL ON FUNCTION report.event_log_removed_before() FROM PUBLIC;

CREATE VIEW report.stat_event_log AS
	WITH setting AS (
		SELECT s.text, CASE WHEN s.text::interval > interval '0' THEN s.text::interval END AS retention
		FROM (SELECT COALESCE(current_setting('carshop_outbox.report_retention', true), '0') AS text) s
	), oldest AS (
		SELECT e.log_seq, e.received_at
		FROM report.reported_events e
		WHERE NOT EXISTS (SELECT FROM report.dead_letter d WHERE d.log_seq = e.log_seq)
		ORDER BY e.log_seq LIMIT 1
	), due AS (
		SELECT o.log_seq FROM oldest o CROSS JOIN setting s
		WHERE o.received_at < clock_timestamp() - s.retention
	), removed AS (
		SELECT sum(r.events)::bigint AS events, max(r.removed_at) AS at FROM report.removed r
	), held (place, reason, remedy) AS (
		SELECT 1, format('report "%s" has not applied them', d.name),
			   CASE WHEN a.failed THEN format('SELECT report.enable(%L); -- when the cause is repaired', d.name)
					ELSE format('Nothing, when report "%s" catches up by itself; SELECT report.disable(%L); lets them go.', d.name, d.name) END
		FROM due JOIN report.applied a ON a.applied_seq < due.log_seq JOIN report.definitions d USING (name)
		WHERE d.enabled
		UNION ALL
		SELECT 2, format('partition %s/%s has stopped', p.topic, p.partition),
			   report.lost_remedy(p.topic, p.partition, p.next_offset, p.lost)
		FROM due CROSS JOIN report.progress p WHERE p.lost IS NOT NULL
		UNION ALL
		SELECT 3, format('table %s refers to them', c.conrelid::regclass),
			   format('ALTER TABLE %s DROP CONSTRAINT %I;', c.conrelid::regclass, c.conname)
		FROM due CROSS JOIN pg_constraint c
		WHERE c.contype = 'f' AND c.confrelid = 'report.reported_events'::regclass
		UNION ALL
		SELECT 4, 'reading is stopped', 'SELECT report.start();'
		FROM due WHERE NOT EXISTS (SELECT FROM report.instance i WHERE i.reading)
	)
	SELECT (SELECT r.retention FROM setting r) AS retention,
		   report.event_log_removed_before() AS complete_from,
		   o.received_at AS oldest,
		   EXISTS (SELECT FROM due) AS due,
		   (SELECT string_agg(h.reason, '; ' ORDER BY h.place, h.reason) FROM held h) AS held_by,
		   (SELECT h.remedy FROM held h ORDER BY h.place, h.reason LIMIT 1) AS remedy,
		   COALESCE(r.events, 0) AS removed,
		   r.at AS removed_at
	FROM removed r LEFT JOIN oldest o ON true;
COMMENT ON VIEW report.stat_event_log IS 'How far back the event log goes, and what retention does';
COMMENT ON COLUMN report.stat_event_log.retention IS 'carshop_outbox.report_retention; NULL: events are kept for ever';
COMMENT ON COLUMN report.stat_event_log.complete_from IS 'report.event_log_removed_before(): nothing is missing from this log_seq on';
COMMENT ON COLUMN report.stat_event_log.oldest IS 'When the oldest event that no dead letter awaits was received';
COMMENT ON COLUMN report.stat_event_log.due IS 'It is older than the retention: removal is under way, or held';
COMMENT ON COLUMN report.stat_event_log.held_by IS 'What holds removal up; NULL: nothing that is known here';
COMMENT ON COLUMN report.stat_event_log.remedy IS 'What ends the first cause named there';
COMMENT ON COLUMN report.stat_event_log.removed IS 'Events removed by retention since ever';
COMMENT ON COLUMN report.stat_event_log.removed_at IS 'When the last of them was removed';

GRANT SELECT ON report.stat_event_log, report.removed TO pg_monitor;
GRANT EXECUTE ON FUNCTION report.event_log_removed_before() TO pg_monitor;
