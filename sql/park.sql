-- sql/park.sql: topics whose events go aside, so that the rest flows.
--
-- The relay, which alone reads batches, writes the events of a parked topic into
-- outbox.parked_event instead of sending them, before Kafka's progress passes them.
-- outbox.unpark() lets it write them again, in that order, in one transaction that
-- is a batch of its own: all that was committed later is published later.

CREATE TABLE outbox.parked_topic (
	topic			text		PRIMARY KEY,
	since			timestamptz	NOT NULL DEFAULT clock_timestamp(),
	reason			text,
	leaving			boolean		NOT NULL DEFAULT false
);
COMMENT ON TABLE outbox.parked_topic IS 'Topics whose events go aside';
COMMENT ON COLUMN outbox.parked_topic.topic IS 'Name of the topic';
COMMENT ON COLUMN outbox.parked_topic.since IS 'When outbox.park() was called';
COMMENT ON COLUMN outbox.parked_topic.reason IS 'The topic''s trouble at that time, or why outbox.unpark() has failed; NULL: none was known';
COMMENT ON COLUMN outbox.parked_topic.leaving IS 'outbox.unpark() was called; the relay has not done it yet';
COMMENT ON INDEX outbox.parked_topic_pkey IS 'A topic by its name';

CREATE TABLE outbox.parked_event (
	parked_topic	text		NOT NULL,
	place			bigint		NOT NULL,
	LIKE outbox.event_0 INCLUDING COMMENTS,
	PRIMARY KEY (parked_topic, place),
	UNIQUE (seq)
);
COMMENT ON TABLE outbox.parked_event IS 'Events of parked topics, with all that stood in outbox.event';
COMMENT ON COLUMN outbox.parked_event.parked_topic IS 'Topic that the event was meant for';
COMMENT ON COLUMN outbox.parked_event.place IS 'Order in which the topic''s events would have been published, without gaps';
COMMENT ON COLUMN outbox.parked_event.topic IS 'As in outbox.event: NULL where the setting decides';
COMMENT ON INDEX outbox.parked_event_pkey IS 'A topic''s events in their order';
COMMENT ON INDEX outbox.parked_event_seq_key IS 'An event that is met again, after a failure, goes aside once';

CREATE FUNCTION outbox.topic_routes(topic text) RETURNS text
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(format('%s on %s', quote_ident(r.event_type), r.source), ', ' ORDER BY r.event_type, r.source::text)
	FROM (SELECT DISTINCT s.event_type, s.source,
			COALESCE(s.topic, current_setting('carshop_outbox.topic', true)) AS template FROM outbox.routes s) r
	-- a template's parts in braces may become anything
	WHERE topic_routes.topic LIKE regexp_replace(replace(r.template, '_', '\_'), '\{[^}]*\}', '%', 'g')
$$;
COMMENT ON FUNCTION outbox.topic_routes(text) IS 'The routes whose events may go to a topic, as a list to be read; NULL: none';

CREATE FUNCTION outbox.parking_changed(topic text) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_parking_changed';
COMMENT ON FUNCTION outbox.parking_changed(text) IS
'Makes the relay read again which topics are parked when the transaction commits; OB002 for what is no topic of events';
REVOKE ALL ON FUNCTION outbox.parking_changed(text) FROM PUBLIC;

CREATE FUNCTION outbox.park(topic text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $park$
BEGIN
	PERFORM outbox.parking_changed(topic);
	-- what waits to leave stays, and keeps its place before what comes now
	INSERT INTO outbox.parked_topic AS p (topic, reason)
	SELECT park.topic, r.trouble FROM (SELECT) one LEFT JOIN outbox.relay_report() r ON r.trouble_topic = park.topic
	ON CONFLICT ON CONSTRAINT parked_topic_pkey DO UPDATE SET leaving = false
		WHERE p.leaving;
	IF NOT FOUND THEN
		RAISE NOTICE USING MESSAGE = format('topic "%s" is parked already', topic);
	END IF;
END
$park$;
COMMENT ON FUNCTION outbox.park(text) IS
'From now on the events of this topic go aside, in order, and the rest is published: for a topic that is missing, refuses or may not be written. Transactions that have events for it and for others are published in two parts. Cannot be prepared (PREPARE TRANSACTION). Errors: OB002 for what is no topic of events.';
REVOKE ALL ON FUNCTION outbox.park(text) FROM PUBLIC;

CREATE FUNCTION outbox.unpark(topic text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $unpark$
DECLARE
	waiting	bigint;
BEGIN
	PERFORM outbox.parking_changed(topic);
	UPDATE outbox.parked_topic p SET leaving = true WHERE p.topic = unpark.topic;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'OB002',
			MESSAGE = format('topic "%s" is not parked', topic),
			HINT = 'SELECT topic FROM outbox.parked; shows those that are.';
	END IF;
	SELECT p.events INTO STRICT waiting FROM outbox.parked p WHERE p.topic = unpark.topic;
	RETURN waiting;
END
$unpark$;
COMMENT ON FUNCTION outbox.unpark(text) IS
'The relay publishes what has gone aside of this topic, in order and with the same ids, and then what came later; answers how many events wait aside now. What it does, and whether it could, stands in outbox.parked. Cannot be prepared (PREPARE TRANSACTION). Errors: OB002 for a topic that is not parked.';
REVOKE ALL ON FUNCTION outbox.unpark(text) FROM PUBLIC;

CREATE VIEW outbox.parked AS
	SELECT t.topic, t.since, t.reason, t.leaving,
		   COALESCE(l.place - f.place + 1, 0) AS events, f.occurred_at AS oldest
	FROM outbox.parked_topic t
	LEFT JOIN LATERAL (SELECT e.place, e.occurred_at FROM outbox.parked_event e
		WHERE e.parked_topic = t.topic ORDER BY e.place LIMIT 1) f ON true
	LEFT JOIN LATERAL (SELECT e.place FROM outbox.parked_event e
		WHERE e.parked_topic = t.topic ORDER BY e.place DESC LIMIT 1) l ON true;
COMMENT ON VIEW outbox.parked IS 'Topics whose events go aside, and how many do; at a constant cost';
COMMENT ON COLUMN outbox.parked.topic IS 'Name of the topic';
COMMENT ON COLUMN outbox.parked.since IS 'When outbox.park() was called';
COMMENT ON COLUMN outbox.parked.reason IS 'The topic''s trouble at that time, or why outbox.unpark() has failed; NULL: none was known';
COMMENT ON COLUMN outbox.parked.leaving IS 'outbox.unpark() was called; the relay has not done it yet';
COMMENT ON COLUMN outbox.parked.events IS 'How many events are aside';
COMMENT ON COLUMN outbox.parked.oldest IS 'When the first of them happened';
