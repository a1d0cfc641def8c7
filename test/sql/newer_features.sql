-- What newer releases can do with captured tables and with outbox.event.  The answer is
-- the same in every release: what a release does not have is not tried, and a difference is a row.
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE TABLE differences (what text, got text, wanted text);
CREATE TABLE looked AS SELECT COALESCE(max(seq), 0) AS seq FROM outbox.event;
CREATE FUNCTION events() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    SELECT string_agg(format('%s %s %s', e.type, e.aggregateid, e.payload), ' ' ORDER BY e.seq) INTO answer FROM outbox.event e, looked l WHERE e.seq > l.seq;
    UPDATE looked l SET seq = (SELECT max(e.seq) FROM outbox.event e);
    RETURN answer;
END $$;
CREATE PROCEDURE try(since integer, what text, statements text, answer text, wanted text) LANGUAGE plpgsql AS $$
DECLARE
    got text;
BEGIN
    IF current_setting('server_version_num')::integer < since THEN
        RETURN;
    END IF;
    EXECUTE statements;
    EXECUTE 'SELECT (' || answer || ')::text' INTO got;
    IF got IS DISTINCT FROM wanted THEN
        INSERT INTO differences VALUES (what, got, wanted);
    END IF;
EXCEPTION WHEN OTHERS THEN
    INSERT INTO differences VALUES (what, SQLERRM, wanted);
END $$;

CALL try(170000, 'interval: infinity', $$
    CREATE TABLE span (id integer PRIMARY KEY, i interval);
    SELECT outbox.capture('span', 'Span', key => '{i}');
    SET LOCAL IntervalStyle = 'sql_standard';
    INSERT INTO span VALUES (1, 'infinity'), (2, '-infinity');
    RESET IntervalStyle$$,
    'events()', 'Span infinity {"id":1,"i":"infinity"} Span -infinity {"id":2,"i":"-infinity"}');
CALL try(170000, 'MERGE: NOT MATCHED BY SOURCE, RETURNING', $$
    CREATE TABLE merged (id integer PRIMARY KEY, v text);
    SELECT outbox.capture('merged', 'M', 'insert, update, delete');
    INSERT INTO merged VALUES (1, 'a'), (2, 'b');
    WITH m AS (MERGE INTO merged t USING (VALUES (1, 'x'), (3, 'c')) AS s (id, v) ON t.id = s.id
        WHEN MATCHED THEN UPDATE SET v = s.v
        WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)
        WHEN NOT MATCHED BY SOURCE THEN DELETE RETURNING merge_action()) SELECT * FROM m;
    $$,
    $$(SELECT count(*) || ' ' || bool_and(f) FROM (SELECT unnest(ARRAY['M 1 {"id":1,"v":"x"}', 'M 2 {"id":2,"v":"b"}', 'M 3 {"id":3,"v":"c"}']) AS part) p,
        (SELECT events() AS all_of_them OFFSET 0) e, LATERAL (SELECT strpos(all_of_them, part) > 0 AS f) l)$$,
    '3 true');
CALL try(180000, 'id: version 7, of now', $$SELECT outbox.emit('Id')$$,
    $$SELECT uuid_extract_version(id) || ' ' || (uuid_extract_timestamp(id) BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp()) FROM outbox.event ORDER BY seq DESC LIMIT 1$$,
    '7 true');
CALL try(180000, 'look past it', 'SELECT 1', 'events() IS NOT NULL', 'true');
CALL try(180000, 'keys WITHOUT OVERLAPS, PERIOD', $$
    CREATE TABLE room (room int4range, during daterange, v integer, PRIMARY KEY (room, during WITHOUT OVERLAPS));
    CREATE TABLE guest (name text PRIMARY KEY, room int4range, during daterange, FOREIGN KEY (room, PERIOD during) REFERENCES room (room, PERIOD during));
    SELECT outbox.capture('room', 'Room', 'insert, update, delete');
    SELECT outbox.capture('guest', 'Guest');
    INSERT INTO room VALUES ('[1,2)', '[2026-01-01,2026-02-01)', 1);
    INSERT INTO guest VALUES ('Ada', '[1,2)', '[2026-01-05,2026-01-07)');
    UPDATE room SET v = 2;$$,
    'events()', 'Room [1,2),[2026-01-01,2026-02-01) {"room":"[1,2)","during":"[2026-01-01,2026-02-01)","v":1}'
    ' Guest Ada {"name":"Ada","room":"[1,2)","during":"[2026-01-05,2026-01-07)"}'
    ' Room [1,2),[2026-01-01,2026-02-01) {"room":"[1,2)","during":"[2026-01-01,2026-02-01)","v":2}');
CALL try(180000, 'NOT ENFORCED', $$
    CREATE TABLE soft (id integer PRIMARY KEY, v integer CHECK (v > 0) NOT ENFORCED, m integer REFERENCES merged NOT ENFORCED);
    SELECT outbox.capture('soft', 'Soft', 'insert, update', condition => 'NEW.v < 0');
    INSERT INTO soft VALUES (1, -1, 99), (2, 1, 98);
    UPDATE soft SET m = NULL, v = -2 WHERE id = 2;$$,
    'events()', 'Soft 1 {"id":1,"v":-1,"m":99} Soft 2 {"id":2,"v":-2,"m":null}');
CALL try(180000, 'RETURNING OLD, NEW: captured tables', $$
    CREATE TABLE returned (old_v integer, new_v integer);
    WITH u AS (UPDATE soft SET v = -3 WHERE id = 2 RETURNING old.v AS o, new.v AS n) INSERT INTO returned SELECT * FROM u$$,
    $$(SELECT old_v || ' ' || new_v FROM returned) || ' ' || events()$$, '-2 -3 Soft 2 {"id":2,"v":-3,"m":null}');
CALL try(180000, 'RETURNING OLD, NEW: outbox.event', $$
    CREATE TABLE answered (ok boolean);
    WITH i AS (INSERT INTO outbox.event (type) VALUES ('X') RETURNING old.seq AS o, new.seq AS n, seq, new.id, old.id AS oid) INSERT INTO answered SELECT o IS NULL AND oid IS NULL AND n = seq AND id IS NOT NULL FROM i$$,
    'SELECT ok FROM answered', 'true');
CALL try(180000, 'look past it', 'SELECT 1', 'events() IS NOT NULL', 'true');
SELECT extversion FROM pg_extension WHERE extname = 'carshop_outbox' \gset
CALL try(180000, 'the library says its version', 'SELECT 1', $$SELECT version FROM pg_get_loaded_modules() WHERE module_name = 'carshop_outbox'$$, :'extversion');
-- each row that is there, by such a key
CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('room') IS NOT NULL THEN
        CALL outbox.backfill(to_regclass('room'), 'Room');
    END IF;
END $$;
CALL fill();
CALL try(180000, 'backfill', 'SELECT 1', $$SELECT (SELECT count(*) FROM room) = count(*) FROM outbox.event e, looked l WHERE e.seq > l.seq AND e.type = 'Room'$$, 'true');
TABLE differences;
DROP PROCEDURE fill();
DROP PROCEDURE try(integer, text, text, text, text);
DROP FUNCTION events();
DROP TABLE differences, looked;
