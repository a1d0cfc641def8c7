-- sql/repair.sql: what cannot be published, and what is published again.
--
-- Whatever is sent again is written again, as a new row of outbox.event with the
-- same id: it takes the way of every event, so it is in Kafka exactly once per
-- call, in the order of commits, whatever crashes meanwhile.

--
-- Dead letters
--

CREATE TABLE outbox.dead_letter (
	seq				bigint		PRIMARY KEY,
	tick_id			bigint		NOT NULL,
	id				uuid		NOT NULL,
	type			text		NOT NULL,
	key				text,
	topic			text		NOT NULL,
	reason			text		NOT NULL,
	at				timestamptz	NOT NULL DEFAULT clock_timestamp(),
	attempts		integer		NOT NULL DEFAULT 1,
	settled			text		CHECK (settled IN ('retried', 'skipped')),
	xid				xid8		NOT NULL,
	-- the event, which outlives its segment here
	occurred_at		timestamptz,
	aggregatetype	text,
	payload			json,
	description		text,
	own_topic		text,
	headers			jsonb,
	traceparent		text,
	format			text,
	value			bytea
);
COMMENT ON TABLE outbox.dead_letter IS 'Events that Kafka refused for good, each with all that stood in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.xid IS 'As in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.occurred_at IS 'As in outbox.event; NULL here and in all that follow: what is stored there cannot be read';
COMMENT ON COLUMN outbox.dead_letter.aggregatetype IS 'As in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.payload IS 'As in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.description IS 'As in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.own_topic IS 'Column topic of outbox.event: NULL where the setting decides';
COMMENT ON COLUMN outbox.dead_letter.headers IS 'As in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.traceparent IS 'As in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.format IS 'As in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.value IS 'As in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.seq IS 'The event''s place in outbox.event';
COMMENT ON COLUMN outbox.dead_letter.tick_id IS 'Tick whose batch it belongs to';
COMMENT ON COLUMN outbox.dead_letter.id IS 'The event''s id';
COMMENT ON COLUMN outbox.dead_letter.type IS 'The event''s type';
COMMENT ON COLUMN outbox.dead_letter.key IS 'The event''s key';
COMMENT ON COLUMN outbox.dead_letter.topic IS 'Topic that it was meant for';
COMMENT ON COLUMN outbox.dead_letter.reason IS 'Why Kafka refused it';
COMMENT ON COLUMN outbox.dead_letter.at IS 'When it was refused, last time';
COMMENT ON COLUMN outbox.dead_letter.attempts IS 'How often it was tried';
COMMENT ON INDEX outbox.dead_letter_pkey IS 'The relay leaves out what is in it';

COMMENT ON COLUMN outbox.dead_letter.settled IS 'What was decided, until the event''s segment is emptied: the relay must go on leaving the event out; NULL: nothing';

CREATE VIEW outbox.dead_letters AS
	SELECT id, type, key, reason, at, attempts FROM outbox.dead_letter WHERE settled IS NULL;
COMMENT ON VIEW outbox.dead_letters IS 'Events that cannot be published, with the reason';
COMMENT ON COLUMN outbox.dead_letters.id IS 'The event''s id';
COMMENT ON COLUMN outbox.dead_letters.type IS 'The event''s type';
COMMENT ON COLUMN outbox.dead_letters.key IS 'The event''s key';
COMMENT ON COLUMN outbox.dead_letters.reason IS 'Why Kafka refused it';
COMMENT ON COLUMN outbox.dead_letters.at IS 'When it was refused, last time';
COMMENT ON COLUMN outbox.dead_letters.attempts IS 'How often it was tried';

--
-- Writing again
--

CREATE FUNCTION outbox.write_again(id uuid, occurred_at timestamptz, type text, aggregatetype text, aggregateid text,
		payload json, description text, topic text, headers jsonb, traceparent text, format text, value bytea) RETURNS bigint
	LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'outbox_write_again';
COMMENT ON FUNCTION outbox.write_again(uuid, timestamptz, text, text, text, json, text, text, jsonb, text, text, bytea) IS
'Writes an event with an id of before, and nothing of this session; answers its seq. Use outbox.replay() and outbox.retry()';
REVOKE ALL ON FUNCTION outbox.write_again(uuid, timestamptz, text, text, text, json, text, text, jsonb, text, text, bytea) FROM PUBLIC;

CREATE FUNCTION outbox.replay(since timestamptz, until timestamptz DEFAULT 'infinity',
		event_type text DEFAULT NULL, topic text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $replay$
DECLARE
	written	bigint;
BEGIN
	IF since IS NULL OR until IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'since and until must not be NULL',
			HINT = 'Use ''-infinity'' and ''infinity'' for everything that is kept.';
	END IF;
	-- What Kafka has, in the order of writing; copies are not copied again, and
	-- what was written again, of a parked topic, is there once.
	SELECT count(outbox.write_again(e.id, e.occurred_at, e.type, e.aggregatetype, e.aggregateid, e.payload, e.description, e.topic,
			COALESCE(e.headers, '{}') || '{"replayed": "true"}', e.traceparent, e.format, e.value))
	INTO written
	FROM (SELECT * FROM (
		SELECT DISTINCT ON (o.id) o.* FROM outbox.confirmed c CROSS JOIN outbox.event o
		WHERE o.occurred_at >= since AND o.occurred_at < until
			AND (replay.event_type IS NULL OR o.type = replay.event_type)
			AND (replay.topic IS NULL OR COALESCE(o.topic, current_setting('carshop_outbox.topic')) = replay.topic)
			AND pg_visible_in_snapshot(o.xid, c.snapshot)
			AND NOT COALESCE(o.headers ? 'replayed', false)
			AND NOT EXISTS (SELECT FROM outbox.dead_letter d WHERE d.seq = o.seq)
			AND NOT EXISTS (SELECT FROM outbox.parked_event p WHERE p.seq = o.seq)
		ORDER BY o.id, o.seq DESC) n ORDER BY n.seq) e;
	IF written = 0 THEN
		RAISE NOTICE USING
			MESSAGE = 'nothing is replayed',
			DETAIL = format('The outbox keeps published events for %s.', current_setting('carshop_outbox.retention')),
			HINT = 'SELECT type, min(occurred_at), max(occurred_at), count(*) FROM outbox.event GROUP BY type; shows what there is.';
	END IF;
	RETURN written;
END
$replay$;
COMMENT ON FUNCTION outbox.replay(timestamptz, timestamptz, text, text) IS
'Publishes events again that are in Kafka and still kept in the outbox (carshop_outbox.retention), by the time at which they happened, with the same ids and the header replayed: true; answers how many. One call, one database transaction. Readers that know ids, such as the reporter, count them once.';
REVOKE ALL ON FUNCTION outbox.replay(timestamptz, timestamptz, text, text) FROM PUBLIC;

CREATE FUNCTION outbox.retry(id uuid DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $retry$
DECLARE
	written		bigint;
	unreadable	text;
BEGIN
	SELECT min(d.id::text) INTO unreadable FROM outbox.dead_letter d
	WHERE d.settled IS NULL AND d.format IS NULL AND d.id = retry.id;
	IF unreadable IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'OB002',
			MESSAGE = format('event %s cannot be read, so it cannot be published', unreadable),
			HINT = format('SELECT outbox.skip(%L);', unreadable);
	END IF;
	WITH taken AS MATERIALIZED (
		UPDATE outbox.dead_letter d SET settled = 'retried'
		WHERE d.settled IS NULL AND d.format IS NOT NULL AND (retry.id IS NULL OR d.id = retry.id)
		RETURNING d.*
	)
	SELECT count(outbox.write_again(t.id, t.occurred_at, t.type, t.aggregatetype, t.key, t.payload, t.description, t.own_topic,
			t.headers, t.traceparent, t.format, t.value))
	INTO written
	FROM (SELECT * FROM taken ORDER BY seq) t;
	RETURN written;
END
$retry$;
COMMENT ON FUNCTION outbox.retry(uuid) IS
'Publishes a dead letter again, or all of them, behind what has been published meanwhile; answers how many. What is refused again is a dead letter again. Errors: OB002 for an event that cannot be read.';
REVOKE ALL ON FUNCTION outbox.retry(uuid) FROM PUBLIC;

CREATE FUNCTION outbox.skip(id uuid) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	WITH taken AS (
		UPDATE outbox.dead_letter d SET settled = 'skipped' WHERE d.settled IS NULL AND d.id = skip.id RETURNING 1
	)
	SELECT count(*) FROM taken
$$;
COMMENT ON FUNCTION outbox.skip(uuid) IS 'Gives a dead letter up: it is never published; answers how many that were (0 or 1)';
REVOKE ALL ON FUNCTION outbox.skip(uuid) FROM PUBLIC;
