-- Each way of writing rows gives exactly its events, in the order of the changes,
-- and nothing of what was taken back.
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE TABLE s (id integer PRIMARY KEY, v text, n integer DEFAULT 0);
SELECT outbox.capture('s', 'S', 'insert, update, delete', include_old => true, description => '{v}', columns => '{id,v,n}');

-- the events since the last look: operation, key, what the row was and is
CREATE TABLE looked AS SELECT COALESCE(max(seq), 0) AS seq FROM outbox.event;
CREATE FUNCTION look() RETURNS TABLE (type text, key text, event text) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT e.type, e.aggregateid,
           CASE WHEN e.payload -> 'new' IS NULL THEN e.payload::text
                ELSE concat_ws(' => ', COALESCE((e.payload -> 'old' ->> 'v') || '/' || (e.payload -> 'old' ->> 'n'), '-'),
                                       COALESCE((e.payload -> 'new' ->> 'v') || '/' || (e.payload -> 'new' ->> 'n'), '-')) END
      FROM outbox.event e, looked l WHERE e.seq > l.seq ORDER BY e.seq;
    UPDATE looked l SET seq = (SELECT max(e.seq) FROM outbox.event e);
END $$;

-- plain statements
INSERT INTO s VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO s SELECT n, 'x' || n FROM generate_series(4, 5) n;
UPDATE s SET v = v || '!' WHERE id <= 2;
DELETE FROM s WHERE id = 3;
SELECT * FROM look();
UPDATE s SET v = o.v FROM (VALUES (1, 'from'), (4, 'from')) o (id, v) WHERE s.id = o.id;
DELETE FROM s USING (VALUES (5)) o (id) WHERE s.id = o.id;
UPDATE s SET id = 40 WHERE id = 4;
-- an update that changes nothing is a change
UPDATE s SET v = v WHERE id = 1;
SELECT * FROM look();
-- COPY, text and binary
COPY s (id, v) FROM stdin;
6	copied
7	copied too
\.
COPY (SELECT 60 + id, v, n FROM s WHERE id IN (6, 7)) TO '/tmp/carshop_statements.bin' (FORMAT binary);
COPY s FROM '/tmp/carshop_statements.bin' (FORMAT binary);
\! rm -f /tmp/carshop_statements.bin
SELECT * FROM look();
-- ON CONFLICT and MERGE
INSERT INTO s VALUES (1, 'conflict'), (8, 'new') ON CONFLICT (id) DO UPDATE SET v = excluded.v || ' of ' || s.v;
INSERT INTO s VALUES (1, 'nothing'), (9, 'new') ON CONFLICT DO NOTHING;
MERGE INTO s USING (VALUES (8, 'gone'), (9, 'merged'), (10, 'merged'), (11, 'left out')) o (id, v) ON s.id = o.id
    WHEN MATCHED AND o.v = 'gone' THEN DELETE
    WHEN MATCHED THEN UPDATE SET v = o.v
    WHEN NOT MATCHED AND o.v = 'merged' THEN INSERT (id, v) VALUES (o.id, o.v)
    WHEN NOT MATCHED THEN DO NOTHING;
SELECT * FROM look();
-- several at once: their order is that of the changes
WITH d AS (DELETE FROM s WHERE id = 10 RETURNING *), i AS (INSERT INTO s SELECT 12, v FROM d RETURNING *)
UPDATE s SET v = 'beside' WHERE id = 9 RETURNING id, v;
SELECT type, key, event FROM look() ORDER BY key;
-- RETURNING, EXPLAIN ANALYZE, cursors, functions within SELECT
INSERT INTO s VALUES (13, 'returned') RETURNING id;
-- (the plan's lines differ between releases)
CREATE FUNCTION triggers_of(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, TIMING OFF) ' || statement LOOP
        IF line LIKE 'Trigger%' THEN RETURN NEXT line; END IF;
    END LOOP;
END $$;
SELECT triggers_of('DELETE FROM s WHERE id = 13');
DROP FUNCTION triggers_of(text);
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM s WHERE id IN (6, 7) ORDER BY id FOR UPDATE;
FETCH c;
UPDATE s SET v = 'at the cursor' WHERE CURRENT OF c;
FETCH c;
DELETE FROM s WHERE CURRENT OF c;
COMMIT;
CREATE FUNCTION writes(i integer) RETURNS text LANGUAGE sql AS $$ INSERT INTO s VALUES (i, 'by a function') RETURNING v $$;
SELECT writes(20), writes(21);
SELECT * FROM look();
DO $$ BEGIN INSERT INTO s VALUES (22, 'do'); COMMIT; INSERT INTO s VALUES (23, 'do'); ROLLBACK; INSERT INTO s VALUES (24, 'do'); END $$;
EXECUTE p;	-- an error writes nothing
PREPARE p (integer, text) AS INSERT INTO s VALUES ($1, $2);
EXECUTE p (25, 'prepared');
SELECT * FROM look();
-- events are visible to the next statement of the transaction
BEGIN;
INSERT INTO s VALUES (26, 'seen at once');
SELECT type, aggregateid FROM outbox.event ORDER BY seq DESC LIMIT 1;
ROLLBACK;
SELECT * FROM look();

-- savepoints, nested and many
BEGIN;
INSERT INTO s VALUES (100, 'kept');
SAVEPOINT a;
INSERT INTO s VALUES (101, 'undone');
SAVEPOINT b;
INSERT INTO s VALUES (102, 'undone within');
RELEASE b;
ROLLBACK TO a;
INSERT INTO s VALUES (103, 'kept');
SAVEPOINT c;
INSERT INTO s VALUES (104, 'kept');
RELEASE c;
COMMIT;
SELECT * FROM look();
DO $$
BEGIN
    FOR i IN 1 .. 80 LOOP
        BEGIN
            INSERT INTO s VALUES (200 + i, 'sub');
            IF i % 2 = 0 THEN RAISE 'undo'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END $$;
SELECT count(*), count(DISTINCT key), bool_and(key::integer % 2 = 1) AS odd FROM look();
SELECT count(DISTINCT xid) AS transactions FROM outbox.event WHERE description = 'sub';
-- a statement that fails in the middle of its triggers, taken back to a savepoint
CREATE FUNCTION fail_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.v = 'fails' THEN RAISE 'not this one'; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER zz_fail AFTER INSERT ON s FOR EACH ROW EXECUTE FUNCTION fail_at();
BEGIN;
INSERT INTO s VALUES (110, 'before');
SAVEPOINT a;
INSERT INTO s VALUES (111, 'of the failed statement'), (112, 'fails');
ROLLBACK TO a;
INSERT INTO s VALUES (113, 'after');
COMMIT;
SELECT * FROM look();
DROP TRIGGER zz_fail ON s;

-- a later trigger changes the row again: both events, in the order of the changes;
-- one in three of its changes is undone by its own exception block
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.n = 0 THEN
        BEGIN
            UPDATE s SET n = 1 WHERE id = NEW.id;
            IF NEW.id % 3 = 0 THEN RAISE 'undo'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER a_again AFTER INSERT ON s FOR EACH ROW EXECUTE FUNCTION again();
INSERT INTO s VALUES (300, 'again'), (301, 'again'), (302, 'again');
SELECT * FROM look();
DROP TRIGGER a_again ON s;

-- BEFORE triggers: the event is what was stored
CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.v = 'skip' THEN RETURN NULL; END IF;
    NEW.v := upper(NEW.v);
    RETURN NEW;
END $$;
CREATE TRIGGER b BEFORE INSERT OR UPDATE ON s FOR EACH ROW EXECUTE FUNCTION before();
INSERT INTO s VALUES (310, 'shout'), (311, 'skip');
UPDATE s SET n = 9 WHERE id = 310;
SELECT * FROM look();
DROP TRIGGER b ON s;

-- rows and events of the application in one transaction
BEGIN;
INSERT INTO s VALUES (320, 'first'), (321, 'first');
SELECT outbox.emit('Second', '{"a": 1}') IS NOT NULL AS emitted;
INSERT INTO s VALUES (322, 'third');
INSERT INTO outbox.event (type, payload) VALUES ('Fourth', '{"b": 1}');
COMMIT;
SELECT * FROM look();
-- emitted between the triggers of one statement
CREATE FUNCTION emits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM outbox.emit('Emitted', to_jsonb(NEW.id)); RETURN NULL; END $$;
CREATE TRIGGER emits AFTER INSERT ON s FOR EACH ROW EXECUTE FUNCTION emits();
INSERT INTO s VALUES (330, 'emits'), (331, 'emits');
SELECT * FROM look();
DROP TRIGGER emits ON s;

-- what the shop sees of it: its own lastval, and no other values of its session
CREATE TABLE numbered (id integer GENERATED BY DEFAULT AS IDENTITY (START 1000) PRIMARY KEY);
SELECT outbox.capture('numbered', 'Numbered');
INSERT INTO numbered DEFAULT VALUES;
SELECT lastval() = currval('numbered_id_seq') AS own, outbox.emit('Numbered') IS NOT NULL AS emitted, lastval() = 1000 AS still_own;
DISCARD SEQUENCES;
INSERT INTO numbered VALUES (1);
SELECT lastval();
DROP TABLE numbered;
-- numbers go on beyond what one WAL record allows, a checkpoint, and whatever else draws them
SELECT max(seq) AS before FROM outbox.event \gset
SELECT count(outbox.emit('Counted')) FROM generate_series(1, 100);
CHECKPOINT;
SELECT count(outbox.emit('Counted')) FROM generate_series(1, 10);
SELECT nextval('outbox.event_seq') - :before AS drawn;
ALTER SEQUENCE outbox.event_seq CACHE 10;
SELECT count(outbox.emit('Counted')) FROM generate_series(1, 40);
ALTER SEQUENCE outbox.event_seq CACHE 1;
SELECT min(seq) - :before AS first, max(seq) - :before AS last, count(DISTINCT seq), last_value - :before AS last_drawn
  FROM outbox.event, outbox.event_seq WHERE type = 'Counted' GROUP BY last_value;
UPDATE looked SET seq = (SELECT max(seq) FROM outbox.event);
-- nothing can be written where nothing may be
BEGIN READ ONLY;
SELECT outbox.emit('Read only');
ROLLBACK;
-- a query of a trigger's that is run in parallel while events of its statement wait
CREATE TABLE many AS SELECT generate_series(1, 3000) AS n;
ANALYZE many;
CREATE FUNCTION asks(integer) RETURNS integer LANGUAGE plpgsql VOLATILE PARALLEL SAFE AS $$
DECLARE x integer; BEGIN SELECT 1 INTO x; SELECT 2 INTO x; RETURN x; END $$;
CREATE FUNCTION sums() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM sum(asks(n)) FROM many; RETURN NULL; END $$;
CREATE TRIGGER sums AFTER INSERT ON s FOR EACH ROW EXECUTE FUNCTION sums();
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers = 0;
INSERT INTO s VALUES (340, 'parallel'), (341, 'parallel');
RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET min_parallel_table_scan_size; RESET max_parallel_workers;
SELECT * FROM look();
DROP TABLE many;
DROP TRIGGER sums ON s;
DROP FUNCTION sums(), asks(integer);

-- two-phase commit
BEGIN;
INSERT INTO s VALUES (400, 'prepared');
PREPARE TRANSACTION 'statements';
SELECT * FROM look();
COMMIT PREPARED 'statements';
SELECT type, aggregateid, description FROM outbox.event WHERE description = 'prepared';
BEGIN;
INSERT INTO s VALUES (401, 'prepared and undone');
PREPARE TRANSACTION 'statements';
ROLLBACK PREPARED 'statements';
SELECT count(*) FROM outbox.event WHERE description = 'prepared and undone';
UPDATE looked SET seq = (SELECT max(seq) FROM outbox.event);

-- more rows than are written at once
INSERT INTO s SELECT n, 'many', n FROM generate_series(10000, 11000) n;
SELECT count(*), count(DISTINCT id) AS ids, count(DISTINCT xid) AS transactions,
       bool_and((payload -> 'new' ->> 'id')::integer - 10000 = place - 1) AS in_order
  FROM (SELECT *, row_number() OVER (ORDER BY seq) AS place FROM outbox.event WHERE description = 'many') e;
BEGIN;
UPDATE s SET v = 'many, undone' WHERE id >= 10000;
ROLLBACK;
SELECT count(*) FROM outbox.event WHERE description = 'many, undone';
-- rows larger than a batch, compressed and not
INSERT INTO s SELECT n, repeat('z', 200000), n FROM generate_series(11001, 11010) n;
INSERT INTO s SELECT n, (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 3000) i), n FROM generate_series(11011, 11015) n;
SELECT count(*), bool_and(e.payload -> 'new' ->> 'v' = s.v) AS same, sum(length(s.v)) AS bytes
  FROM outbox.event e JOIN s ON s.id::text = e.aggregateid WHERE s.id BETWEEN 11001 AND 11015;
DELETE FROM s WHERE id >= 10000;
UPDATE looked SET seq = (SELECT max(seq) FROM outbox.event);

-- cascades: the parent's event, then the children's
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE orphan (id integer PRIMARY KEY, parent integer REFERENCES parent ON DELETE SET NULL);
SELECT outbox.capture('parent', 'Parent', 'insert, update, delete');
SELECT outbox.capture('child', 'Child', 'insert, update, delete');
SELECT outbox.capture('orphan', 'Orphan', 'insert, update, delete');
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1), (2, 1), (3, 2);
INSERT INTO orphan VALUES (1, 1);
UPDATE parent SET id = 10 WHERE id = 2;
DELETE FROM parent WHERE id = 1;
SELECT * FROM look();

-- deferred constraints; a route that is a deferred constraint trigger itself
CREATE TABLE later (id integer PRIMARY KEY, parent integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE CONSTRAINT TRIGGER "00_outbox_Later" AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Later');
BEGIN;
INSERT INTO later VALUES (1, 77), (2, 77);
INSERT INTO s VALUES (500, 'comes first');
SELECT * FROM look();
INSERT INTO parent VALUES (77);
COMMIT;
SELECT * FROM look();
BEGIN;
INSERT INTO later VALUES (3, 10);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT * FROM look();
COMMIT;
BEGIN;
INSERT INTO later VALUES (4, 99);
COMMIT;
SELECT * FROM look();

-- views and rules
CREATE VIEW sv AS SELECT id, v FROM s WHERE id < 1000 WITH CHECK OPTION;
INSERT INTO sv VALUES (600, 'through a view');
UPDATE sv SET v = 'changed through a view' WHERE id = 600;
DELETE FROM sv WHERE id = 600;
CREATE TABLE ruled (id integer);
CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO s VALUES (NEW.id, 'also');
INSERT INTO ruled VALUES (601), (602);
CREATE RULE instead AS ON UPDATE TO s WHERE NEW.v = 'by a rule' DO INSTEAD NOTHING;
UPDATE s SET v = 'by a rule' WHERE id = 601;
DROP RULE instead ON s;
CREATE FUNCTION instead_of() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO s VALUES (NEW.id, 'instead'); RETURN NEW; END $$;
CREATE VIEW iv AS SELECT 0 AS id;
CREATE TRIGGER instead INSTEAD OF INSERT ON iv FOR EACH ROW EXECUTE FUNCTION instead_of();
INSERT INTO iv VALUES (603);
SELECT * FROM look();

-- row-level security: who may write a row that he may not see makes its event
CREATE ROLE regress_rls;
CREATE TABLE hidden (id integer PRIMARY KEY, owner text);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
CREATE POLICY write ON hidden FOR INSERT WITH CHECK (true);
GRANT INSERT, SELECT ON hidden TO regress_rls;
SELECT outbox.capture('hidden', 'Hidden');
SET ROLE regress_rls;
INSERT INTO hidden VALUES (1, 'somebody');
SELECT * FROM hidden;
RESET ROLE;
SELECT * FROM look();

-- generated and identity columns
CREATE TABLE made (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a integer, twice integer GENERATED ALWAYS AS (a * 2) STORED);
SELECT outbox.capture('made', 'Made', 'insert, update', key => '{twice}');
INSERT INTO made (a) VALUES (1), (2);
UPDATE made SET a = 5 WHERE id = 1;
SELECT * FROM look();

-- an event trigger of a user's that writes
CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO s VALUES (700, tg_tag); END $$;
CREATE EVENT TRIGGER on_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION on_ddl();
CREATE TABLE nothing ();
DROP EVENT TRIGGER on_ddl;
SELECT * FROM look();

-- no events: TRUNCATE, replicated changes, a superuser's repair, a disabled route
TRUNCATE orphan;
SET session_replication_role = replica;
INSERT INTO s VALUES (800, 'replicated');
RESET session_replication_role;
BEGIN;
SET LOCAL carshop_outbox.capture = off;
INSERT INTO s VALUES (801, 'repaired');
COMMIT;
ALTER TABLE s DISABLE TRIGGER "00_outbox_i_S";
INSERT INTO s VALUES (802, 'disabled');
SELECT level, message, remedy FROM outbox.status WHERE concern = 'routes' AND level <> 'ok';
ALTER TABLE s ENABLE REPLICA TRIGGER "00_outbox_i_S";
SELECT level, message, remedy FROM outbox.status WHERE concern = 'routes' AND level <> 'ok';
ALTER TABLE s ENABLE TRIGGER "00_outbox_i_S";
SELECT * FROM look();
-- also on a partition only
CREATE TABLE split (id integer PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE split_a PARTITION OF split FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
CREATE TABLE split_a_1 PARTITION OF split_a FOR VALUES FROM (0) TO (10);
CREATE TABLE split_b PARTITION OF split FOR VALUES FROM (100) TO (200);
SELECT outbox.capture('split', 'Split');
ALTER TABLE split_a DISABLE TRIGGER USER;
INSERT INTO split VALUES (1), (101);
SELECT level, message, remedy FROM outbox.status WHERE concern = 'routes' AND level <> 'ok';
ALTER TABLE split DISABLE TRIGGER USER;
SELECT level, message, remedy FROM outbox.status WHERE concern = 'routes' AND level <> 'ok';
SELECT * FROM look();
DROP TABLE split;
-- a route that is to fire always sees replicated changes
ALTER TABLE s ENABLE ALWAYS TRIGGER "00_outbox_i_S";
SET session_replication_role = replica;
INSERT INTO s VALUES (803, 'always');
RESET session_replication_role;
SELECT * FROM look();

-- tables that are changed, emptied or dropped by the transaction that wrote them
BEGIN;
CREATE TABLE passing (id integer PRIMARY KEY, v text);
SELECT outbox.capture('passing', 'Passing');
INSERT INTO passing VALUES (1, 'a');
ALTER TABLE passing ADD COLUMN w integer DEFAULT 7;
INSERT INTO passing VALUES (2, 'b');
ALTER TABLE passing DROP COLUMN v;
ALTER TABLE passing ALTER COLUMN w TYPE text;
INSERT INTO passing VALUES (3);
TRUNCATE passing;
INSERT INTO passing VALUES (4);
DROP TABLE passing;
COMMIT;
SELECT * FROM look();
BEGIN;
CREATE TEMP TABLE temporary (id integer PRIMARY KEY) ON COMMIT DROP;
SELECT outbox.capture('temporary', 'Temporary');
INSERT INTO temporary VALUES (1);
COMMIT;
CREATE UNLOGGED TABLE unlogged (id integer PRIMARY KEY);
SELECT outbox.capture('unlogged', 'Unlogged');
INSERT INTO unlogged VALUES (1);
SELECT * FROM look();

-- functions that write are not for parallel workers
SELECT proname FROM pg_proc WHERE pronamespace = 'outbox'::regnamespace AND provolatile = 'v' AND proparallel <> 'u';

DROP VIEW sv, iv;
DROP TABLE s, looked, parent, child, orphan, later, ruled, hidden, made, nothing, unlogged;
DROP FUNCTION look(), writes(integer), fail_at(), again(), before(), emits(), instead_of(), on_ddl();
DROP ROLE regress_rls;
