-- Events that an application writes itself, by outbox.emit and INSERT, are full
-- citizens; and everything that Kafka or a reader could not take is refused when it
-- is written: OB002, with message and hint, and the transaction can go on.
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE TABLE looked AS SELECT COALESCE(max(seq), 0) AS seq FROM outbox.event;
CREATE VIEW new_events AS SELECT e.* FROM outbox.event e, looked l WHERE e.seq > l.seq ORDER BY e.seq;
CREATE FUNCTION seen() RETURNS void LANGUAGE sql AS $$ UPDATE looked SET seq = (SELECT max(seq) FROM outbox.event) $$;
-- how a statement is refused; what it wrote is taken back, the transaction goes on
CREATE FUNCTION refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n  ', SQLSTATE || ' ' || SQLERRM, NULLIF(hint, ''));
END $$;

-- raw bytes, framed for a schema registry (a zero byte, four bytes of schema id)
SELECT outbox.emit('Avro', key => '7', format => 'raw', value => '\x0000000007' || '\x0248656c6c6f'::bytea) IS NOT NULL AS ok;
INSERT INTO outbox.event (type, value) VALUES ('Avro2', '\x000000000800ff');
SELECT type, format, aggregateid, encode(value, 'hex') AS value, payload FROM new_events;
SELECT seen();

-- the columns that Debezium's users fill; one row and many, SELECT, COPY, RETURNING
INSERT INTO outbox.event (id, aggregatetype, aggregateid, type, payload) VALUES
    ('00000000-0000-7000-8000-000000000001', 'order', '1', 'OrderCreated', '{"total": 1,  "total": 2}'),
    ('00000000-0000-7000-8000-000000000002', 'order', '2', 'OrderCreated', NULL);
INSERT INTO outbox.event (aggregatetype, aggregateid, type, payload)
SELECT 'order', n::text, 'OrderPaid', json_build_object('n', n) FROM generate_series(3, 4) n;
COPY outbox.event (aggregatetype, aggregateid, type, payload) FROM stdin;
order	5	OrderSent	{"a": "b"}
\.
SELECT id = '00000000-0000-7000-8000-000000000001' AS own_id, aggregatetype, aggregateid, type, payload, description FROM new_events;
SELECT seen();
INSERT INTO outbox.event (type, seq, xid, occurred_at) VALUES ('Forged', 1, '3', '2020-01-01 00:00+00')
RETURNING type, seq > 1 AS own_seq, xid = pg_current_xact_id() AS own_xid, occurred_at AT TIME ZONE 'UTC' AS occurred_at, format, description;
SELECT type, seq > 1 AS own_seq, xid <> '3' AS own_xid FROM new_events;
INSERT INTO outbox.event (type) VALUES ('X') ON CONFLICT DO NOTHING;
-- from PostgreSQL 17 on, and there like an INSERT
SELECT refusal($$MERGE INTO outbox.event USING (VALUES (1)) v ON false WHEN NOT MATCHED THEN INSERT (type) VALUES ('Merged')$$)
       LIKE CASE WHEN current_setting('server_version_num')::integer >= 170000 THEN 'accepted' ELSE '0A000 %' END AS merge;
SELECT count(*) = CASE WHEN current_setting('server_version_num')::integer >= 170000 THEN 1 ELSE 0 END AS merged FROM new_events WHERE type = 'Merged';
SELECT refusal($$UPDATE outbox.event SET type = 'x'$$);
SELECT refusal($$DELETE FROM outbox.event$$);
SELECT refusal($$TRUNCATE outbox.event$$);
SELECT seen();

-- part of the transaction: rolled back, within savepoints, prepared
BEGIN;
INSERT INTO outbox.event (type) VALUES ('Kept');
SAVEPOINT a;
INSERT INTO outbox.event (type) VALUES ('Undone');
SELECT outbox.emit('Undone') IS NOT NULL AS ok;
ROLLBACK TO a;
SELECT outbox.emit('KeptToo', key => 'k', lock_key => true) IS NOT NULL AS ok;
PREPARE TRANSACTION 'application_events';
SELECT count(*) FROM new_events;
COMMIT PREPARED 'application_events';
SELECT type FROM new_events;
SELECT seen();

-- topics: the default, those of routes, and what the administrator allows
CREATE TABLE routed (id integer PRIMARY KEY, t text);
SELECT outbox.capture('routed', 'Routed', topic => 'topic-of-a-route');
SELECT outbox.capture('routed', 'RoutedByRow', topic => 'rows-{t}');
SELECT t AS topic, refusal(format('SELECT outbox.emit(%L, topic => %L)', 'T', t)) FROM unnest(ARRAY[
    'car-shop-reported-events', 'topic-of-a-route', 'rows-a', 'elsewhere', 'topic-of-a-route2']) t;
SET carshop_outbox.allowed_topics = 'elsewhere, team-*, *.audit';
SELECT t AS topic, split_part(refusal(format('INSERT INTO outbox.event (type, topic) VALUES (%L, %L)', 'T', t)), E'\n', 1) AS answer FROM unnest(ARRAY[
    'elsewhere', 'team-', 'team-1', 'xteam-1', 'a.audit', '.audit', 'a.audit2']) t;
-- allowed by pattern, and still not legal
SET carshop_outbox.allowed_topics = '*';
SELECT left(t, 12) AS topic, split_part(replace(refusal(format('SELECT outbox.emit(%L, topic => %L)', 'T', t)), repeat('x', 240), '...'), E'\n', 1) AS answer
  FROM unnest(ARRAY['', '.', '..', '...', repeat('x', 249), repeat('x', 250), 'a b', 'a/b', 'ä', E'a\nb', 'A._-z9',
                    'carshop-outbox-progress-1', 'carshop-outbox-progress', 'carshop-outbox']) t;
SELECT refusal($$INSERT INTO routed VALUES (1, 'not legal!')$$);
-- nor where relays write their progress: by the setting for any lineage and any database
-- of this server, and where it was when the lineage began
SET carshop_outbox.progress_topic = 'progress-{lineage}.{database}';
SELECT t AS topic, split_part(refusal(format('SELECT outbox.emit(%L, topic => %L)', 'T', t)), E'\n', 1) AS answer FROM unnest(ARRAY[
    'progress-0af76519-16cd-43dd-8448-eb211c80319c.postgres', 'progress-0af76519-16cd-43dd-8448-eb211c80319c.template1',
    'progress-0af76519-16cd-43dd-8448-eb211c80319c.nobody', 'progress-0af76519-16cd-43dd-8448-eb211c80319.postgres',
    'progress-0af76519-16cd-43dd-8448-eb211c80319c.postgres.more', 'progress-{lineage}', 'progress-']) t;
SET carshop_outbox.progress_topic = '{database}-place';
UPDATE outbox.lineage SET progress_topic = 'former-place';
SELECT t AS topic, split_part(refusal(format('INSERT INTO outbox.event (type, topic) VALUES (%L, %L)', 'T', t)), E'\n', 1) AS answer
  FROM unnest(ARRAY['postgres-place', 'former-place', 'former-places', 'nobody-place']) t;
SELECT outbox.capture('routed', 'RoutedByRow', topic => '{t}');
SELECT refusal($$INSERT INTO routed VALUES (1, 'former-place')$$);
SELECT refusal($$SELECT outbox.capture('routed', 'Lost', topic => 'former-place')$$);
SELECT refusal($$SELECT outbox.capture('routed', 'Lost', topic => 'postgres-place')$$);
UPDATE outbox.lineage SET progress_topic = NULL;
RESET carshop_outbox.progress_topic;
SELECT outbox.capture('routed', 'RoutedByRow', topic => 'rows-{t}');
RESET carshop_outbox.allowed_topics;
-- the list of the routes' topics follows the routes
SELECT refusal($$SELECT outbox.emit('T', topic => 'topic-of-a-route')$$);
BEGIN;
SELECT outbox.release('routed', 'Routed');
SELECT split_part(refusal($$SELECT outbox.emit('T', topic => 'topic-of-a-route')$$), E'\n', 1);
ROLLBACK;
SELECT refusal($$SELECT outbox.emit('T', topic => 'topic-of-a-route')$$);
BEGIN;
SELECT outbox.capture('routed', 'New', topic => 'topic-of-a-new-route');
SELECT refusal($$SELECT outbox.emit('T', topic => 'topic-of-a-new-route')$$);
ROLLBACK;
SELECT split_part(refusal($$SELECT outbox.emit('T', topic => 'topic-of-a-new-route')$$), E'\n', 1);

-- sizes, exact to the byte
SELECT refusal($$SELECT outbox.emit('Big', to_jsonb(repeat('x', 1000000)))$$);
SET carshop_outbox.max_message_bytes = 2000;
SELECT n, split_part(refusal(format($$SELECT outbox.emit('B', format => 'raw', value => decode(repeat('00', %s), 'hex'))$$, n)), E'\n', 1) AS answer
  FROM unnest(ARRAY[1855, 1856]) n;
-- with everything that goes along: headers, also the session's, trace context, and what a format adds
SELECT what, n, replace(split_part(refusal(format(s, n)), E'\n', 1), repeat('t', 100), '...') AS answer FROM (VALUES
    ('header', 1843, $$SELECT outbox.emit('B', format => 'raw', value => '\x00', headers => jsonb_build_object('h', repeat('x', %s)))$$),
    ('header', 1844, $$SELECT outbox.emit('B', format => 'raw', value => '\x00', headers => jsonb_build_object('h', repeat('x', %s)))$$),
    ('header name', 1844, $$SELECT outbox.emit('B', format => 'raw', value => '\x00', headers => jsonb_build_object(repeat('x', %s), ''))$$),
    ('header name', 1845, $$SELECT outbox.emit('B', format => 'raw', value => '\x00', headers => jsonb_build_object(repeat('x', %s), ''))$$),
    ('header of the session', 1843, $$SELECT set_config('carshop_outbox.event_headers', jsonb_build_object('h', repeat('x', %s))::text, true), outbox.emit('B', format => 'raw', value => '\x00'), set_config('carshop_outbox.event_headers', '', true)$$),
    ('header of the session', 1844, $$SELECT set_config('carshop_outbox.event_headers', jsonb_build_object('h', repeat('x', %s))::text, true), outbox.emit('B', format => 'raw', value => '\x00'), set_config('carshop_outbox.event_headers', '', true)$$),
    ('trace of the session', 1779, $$SELECT set_config('carshop_outbox.traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', true), outbox.emit('B', format => 'raw', value => decode(repeat('00', %s), 'hex')), set_config('carshop_outbox.traceparent', '', true)$$),
    ('trace of the session', 1780, $$SELECT set_config('carshop_outbox.traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', true), outbox.emit('B', format => 'raw', value => decode(repeat('00', %s), 'hex')), set_config('carshop_outbox.traceparent', '', true)$$),
    ('trace of the event', 513 - 57, $$INSERT INTO outbox.event (type, value, traceparent) VALUES ('B', decode(repeat('00', 1323), 'hex'), '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-' || repeat('x', %s))$$),
    ('trace of the event', 512 - 57, $$INSERT INTO outbox.event (type, value, traceparent) VALUES ('B', decode(repeat('00', 1324), 'hex'), '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-' || repeat('x', %s))$$),
    ('key, twice', 600, $$SELECT outbox.emit('B', '{}', repeat('k', %s), format => 'payload', description => '')$$),
    ('key, twice', 800, $$SELECT outbox.emit('B', '{}', repeat('k', %s), format => 'payload', description => '')$$),
    ('type in ce_type', 1500, $$SELECT outbox.emit(repeat('t', %s), '{}', format => 'payload', description => '')$$),
    ('type in ce_type', 1600, $$SELECT outbox.emit(repeat('t', %s), '{}', format => 'payload', description => '')$$),
    ('source', 1000, $$SELECT set_config('carshop_outbox.event_source', repeat('s', %s), true), outbox.emit('B', format => 'cloudevents'), set_config('carshop_outbox.event_source', '', true)$$),
    ('source', 2000, $$SELECT set_config('carshop_outbox.event_source', repeat('s', %s), true), outbox.emit('B', format => 'cloudevents'), set_config('carshop_outbox.event_source', '', true)$$),
    ('source as URI', 1000, $$SELECT set_config('carshop_outbox.event_source', repeat(' ', %s), true), outbox.emit('B', format => 'cloudevents'), set_config('carshop_outbox.event_source', '', true)$$),
    ('source not in the envelope', 2000, $$SELECT set_config('carshop_outbox.event_source', repeat('s', %s), true), outbox.emit('B'), set_config('carshop_outbox.event_source', '', true)$$),
    -- what is not sent must be read by the relay all the same
    ('white space', 3000, $$INSERT INTO outbox.event (type, payload) VALUES ('B', ('{' || repeat(' ', %s) || '}')::json)$$),
    ('white space', 4000, $$INSERT INTO outbox.event (type, payload) VALUES ('B', ('{' || repeat(' ', %s) || '}')::json)$$),
    ('aggregate type', 3000, $$SELECT outbox.emit('B', aggregate_type => repeat('a', %s))$$),
    ('aggregate type', 4000, $$SELECT outbox.emit('B', aggregate_type => repeat('a', %s))$$),
    ('description', 4000, $$SELECT outbox.emit('B', '{}', format => 'payload', description => repeat('d', %s))$$)) t (what, n, s);
-- what counts is the size on the wire: a character may become six bytes of JSON
SELECT n, split_part(refusal(format($$SELECT outbox.emit('B', description => repeat(E'\x01', %s))$$, n)), E'\n', 1) AS answer FROM unnest(ARRAY[200, 300]) n;
SELECT refusal($$INSERT INTO routed VALUES (2, repeat('y', 3000))$$);
RESET carshop_outbox.max_message_bytes;
SELECT n, refusal(format($$SELECT outbox.emit('K', key => repeat('k', %s))$$, n)) FROM unnest(ARRAY[65536, 65537]) n;
SELECT refusal($$INSERT INTO outbox.event (type, aggregateid) VALUES ('K', repeat('ä', 32769))$$);

-- headers: an object of strings, without the names that are ours
SELECT h, split_part(refusal(format('SELECT outbox.emit(%L, headers => %L)', 'H', h)), E'\n', 1) AS answer FROM unnest(ARRAY[
    '{}', '{"a": "b", "c": ""}', '[]', '"a"', '1', 'null', '{"a": 1}', '{"a": null}', '{"a": true}', '{"a": {"b": "c"}}', '{"a": ["b"]}',
    '{"": "1"}', '{"a": "b", "": ""}', '{"id": "1"}', '{"ID": "1"}', '{"ce_id": "1"}', '{"ce_": "1"}', '{"content-type": "x"}', '{"traceparent": "x"}', '{"replayed": "true"}', '{"idx": "1"}']) h;
-- a number and a size that somebody can still look at on the way
SELECT n, refusal(format($$SELECT outbox.emit('H', headers => (SELECT jsonb_object_agg('h' || n, '') FROM generate_series(1, %s) n))$$, n)) FROM unnest(ARRAY[64, 65, 1000]) n;
SELECT n, refusal(format($$SELECT outbox.emit('H', headers => jsonb_build_object('a', repeat('ä', %s), 'b', 'b'))$$, n)) FROM unnest(ARRAY[32766, 32767]) n;
SELECT h, refusal(format($$SELECT outbox.capture('routed', 'Headers', headers => %s)$$, h)) FROM unnest(ARRAY[
    $$'{"": ""}'$$, $$(SELECT jsonb_object_agg(n, '') FROM generate_series(1, 65) n)$$, $$jsonb_build_object('h', repeat('x', 65536))$$]) h;
SELECT refusal(format('CREATE TRIGGER h AFTER INSERT ON routed FOR EACH ROW EXECUTE FUNCTION outbox.capture_row(%L, %L)', 'event_type=H',
    'headers=' || (SELECT jsonb_object_agg(n, '')::text FROM generate_series(1, 65) n)));

-- text that is none
SELECT p, refusal(format('INSERT INTO outbox.event (type, payload) VALUES (%L, %L)', 'P', p)) FROM unnest(ARRAY[
    '"\u0000"', '{"\u0000": 1}', '"\\u0000"', '"\ud800"', '"\udc00\ud800"', '"\ud83d\ude00"']) p;
CREATE TABLE holds_json (id integer PRIMARY KEY, j json, a json[]);
SELECT outbox.capture('holds_json', 'HoldsJson', columns => '{j,a}');
SELECT refusal($$INSERT INTO holds_json VALUES (1, '{"a": "\u0000"}')$$);
SELECT refusal($$INSERT INTO holds_json VALUES (1, NULL, ARRAY['"\udfff"'::json])$$);
SELECT refusal($$INSERT INTO holds_json VALUES (1, '"\\u0000"')$$);
SELECT refusal($$INSERT INTO outbox.event (type, payload) VALUES ('P', '{"a": ')$$);

-- the rest
SELECT s, refusal(s) FROM unnest(ARRAY[
    $$SELECT outbox.emit(NULL)$$, $$SELECT outbox.emit('')$$, $$INSERT INTO outbox.event (aggregateid) VALUES ('1')$$,
    $$SELECT outbox.emit('F', format => 'xml')$$, $$SELECT outbox.emit('F', format => 'raw')$$,
    $$SELECT outbox.emit('F', value => '\x00')$$, $$SELECT outbox.emit('F', value => '\x00', format => 'raw')$$,
    $$INSERT INTO outbox.event (type, format) VALUES ('F', 'raw')$$, $$INSERT INTO outbox.event (type, format, value) VALUES ('F', 'payload', '\x00')$$,
    $$SELECT outbox.emit('L', lock_key => true)$$,
    $$SELECT outbox.emit('O', occurred_at => '-infinity')$$, $$SELECT outbox.emit('O', occurred_at => '0001-12-31 BC')$$,
    $$SELECT outbox.emit('O', occurred_at => '9999-12-31 23:59:59.999999+00')$$, $$SELECT outbox.emit('O', occurred_at => '10000-01-01 00:00+00')$$,
    $$INSERT INTO outbox.event (type, traceparent) VALUES ('T', 'no trace')$$,
    $$INSERT INTO outbox.event (type, traceparent) VALUES ('T', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')$$]) s;

-- behind a savepoint the transaction goes on, in plain SQL as well
SELECT seen();
BEGIN;
INSERT INTO outbox.event (type) VALUES ('Before');
SAVEPOINT a;
SELECT outbox.emit('Refused', topic => 'no topic');
ROLLBACK TO a;
INSERT INTO routed VALUES (3, 'after');
COMMIT;
SELECT type FROM new_events;

DROP VIEW new_events;
DROP TABLE looked, routed, holds_json;
DROP FUNCTION seen(), refusal(text);
