-- What outbox.capture takes and refuses, and what its options do.
-- where in a function it was raised is no business of this test
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE TABLE item (id integer, shop text, name text, price numeric(10,2), made timestamptz, note text,
    PRIMARY KEY (shop, id));

-- refused, each with a hint
DO $$ BEGIN PERFORM outbox.capture('item', 'X', operations => 'insert, truncate');
EXCEPTION WHEN OTHERS THEN RAISE NOTICE '% %', SQLSTATE, SQLERRM; END $$;
SELECT outbox.capture('item', 'X', operations => 'upsert');
SELECT outbox.capture('item', 'X', operations => '');
SELECT outbox.capture('item', NULL);
SELECT outbox.capture('item', repeat('x', 52));
SELECT outbox.capture('item', 'X', key => '{nr}');
SELECT outbox.capture('item', 'X', key => '{Id}');
SELECT outbox.capture('item', 'X', description => 'a {name');
SELECT outbox.capture('item', 'X', description => '{old.name}');
SELECT outbox.capture('item', 'X', columns => '{id,nope}');
SELECT outbox.capture('item', 'X', columns => '{}');
SELECT outbox.capture('item', 'X', columns => '{id,id}');
SELECT outbox.capture('item', 'X', topic => 'with space');
SELECT outbox.capture('item', 'X', topic => 'carshop-outbox-progress-x');
SELECT outbox.capture('item', 'X', headers => '["a"]');
SELECT outbox.capture('item', 'X', headers => '{"a": 1}');
SELECT outbox.capture('item', 'X', headers => '{"ce_id": "1"}');
SELECT outbox.capture('item', 'X', format => 'xml');
SELECT outbox.capture('item', 'X', format => 'raw');
SELECT outbox.capture('item', 'X', condition => 'OLD.id > 0');
SELECT outbox.capture('pg_class', 'X');
CREATE VIEW item_view AS SELECT * FROM item;
SELECT outbox.capture('item_view', 'X');
DROP VIEW item_view;
SELECT count(*) AS no_route_was_made FROM outbox.routes;

-- a composite primary key is joined by commas, in the key's order
SELECT outbox.capture('item', 'Made');
INSERT INTO item VALUES (1, 'a', 'x', 1.10, '2026-01-02 03:04:05.678+02', E'tab\t');
SELECT aggregateid, description, payload FROM outbox.event ORDER BY seq DESC LIMIT 1;

-- calling it again replaces what it names
SELECT outbox.capture('item', 'Made', key => '{{{shop}}/{id}', description => '{name} for {price} ({note})',
    columns => '{price,name}', aggregate_type => 'thing', headers => '{"from": "till 4"}',
    topic => 'things-{aggregate_type}-{shop}', format => 'payload');
INSERT INTO item VALUES (2, 'a', 'x', 1.10, NULL, NULL);
SELECT aggregatetype, aggregateid, description, payload, topic, headers, format
  FROM outbox.event ORDER BY seq DESC LIMIT 1;
-- a topic made of a row is checked when it is written
INSERT INTO item VALUES (3, 'not legal', 'x', 1.10, NULL, NULL);
SELECT columns, headers, topic FROM outbox.routes;

-- old and new
SELECT outbox.capture('item', 'Changed', 'update, delete', include_old => true, columns => '{id,name}',
    key => '{id}', description => '{old.name} to {name}');
UPDATE item SET name = 'y' WHERE id = 1;
DELETE FROM item WHERE id = 1;
SELECT type, aggregateid, description, payload FROM outbox.event ORDER BY seq DESC LIMIT 2;
-- a delete as bare payload is a tombstone
SELECT outbox.capture('item', 'Gone', 'delete', format => 'payload');
DELETE FROM item WHERE id = 2;
SELECT type, aggregateid, payload IS NULL AS tombstone FROM outbox.event ORDER BY seq DESC LIMIT 1;

-- a bare row that gets another key or topic: a tombstone under the former ones first
CREATE TABLE placed (id integer PRIMARY KEY, shop text, name text, note text);
INSERT INTO placed VALUES (9, 'not legal', 'x');
SELECT outbox.capture('placed', 'Placed', 'insert, update, delete', format => 'payload', topic => 'shop-{shop}', description => '{name}');
INSERT INTO placed VALUES (1, 'a', 'x'), (2, 'a', 'y');
UPDATE placed SET name = 'z' WHERE id = 1;
UPDATE placed SET id = id + 10 WHERE id < 9;
UPDATE placed SET shop = 'b' WHERE id = 11;
UPDATE placed SET shop = 'c' WHERE id = 9;
DELETE FROM placed WHERE id = 12;
SELECT topic, aggregateid, payload, description FROM outbox.event WHERE type = 'Placed' ORDER BY seq;
SELECT count(*) = count(DISTINCT id) AS own_ids FROM outbox.event WHERE type = 'Placed';
-- not for other formats, nor with the old row in the event, nor without a key
SELECT outbox.capture('placed', 'Placed', 'update', format => 'payload', include_old => true, columns => '{id}');
SELECT outbox.capture('placed', 'Envelope', 'update', columns => '{id}');
SELECT outbox.capture('placed', 'Fixed', 'update', format => 'payload', key => 'one', columns => '{id}');
UPDATE placed SET id = 21 WHERE id = 11;
SELECT type, aggregateid, payload FROM (SELECT * FROM outbox.event ORDER BY seq DESC LIMIT 4) e ORDER BY seq;
DROP TABLE placed;

-- without a primary key there is no key unless a template gives one
CREATE TABLE plain (a integer);
SELECT outbox.capture('plain', 'Plain');
INSERT INTO plain VALUES (1);
SELECT aggregateid, description, payload FROM outbox.event ORDER BY seq DESC LIMIT 1;

-- a deferrable one is a key as well
CREATE TABLE deferred_key (a integer, b text, PRIMARY KEY (b, a) DEFERRABLE INITIALLY DEFERRED);
SELECT outbox.capture('deferred_key', 'Deferrable');
INSERT INTO deferred_key VALUES (1, 'x');
CALL outbox.backfill('deferred_key', 'Deferrable');
SELECT aggregateid FROM outbox.event WHERE type = 'Deferrable' ORDER BY seq;
DROP TABLE deferred_key;
-- conditions are shown and followed as they are, whatever stands around them
CREATE TABLE " WHEN (1) EXECUTE FUNCTION " (id integer PRIMARY KEY, " WHEN (x" integer);
SELECT outbox.capture('" WHEN (1) EXECUTE FUNCTION "', 'A WHEN (1) B', condition => 'NEW.id > 0 -- not the others', description => 'a) EXECUTE FUNCTION b');
SELECT outbox.capture('" WHEN (1) EXECUTE FUNCTION "', 'C', 'update', condition => 'OLD." WHEN (x" IS DISTINCT FROM NEW." WHEN (x" OR NEW.* IS NULL');
INSERT INTO " WHEN (1) EXECUTE FUNCTION " VALUES (0), (1);
CALL outbox.backfill('" WHEN (1) EXECUTE FUNCTION "', 'A WHEN (1) B', 'id < 10 -- all');
SELECT aggregateid FROM outbox.event WHERE type = 'A WHEN (1) B' ORDER BY seq;
SELECT event_type, condition FROM outbox.routes WHERE condition IS NOT NULL ORDER BY 1;
DROP TABLE " WHEN (1) EXECUTE FUNCTION ";

-- a column that a route uses is neither renamed nor dropped without the route
ALTER TABLE item RENAME COLUMN shop TO place;
ALTER TABLE item DROP COLUMN name;
CREATE DOMAIN shop_name AS text;
ALTER TABLE item ALTER COLUMN note TYPE shop_name;
DROP DOMAIN shop_name CASCADE;
-- also by way of its type, or of a foreign table
CREATE TYPE thing AS (id integer, name text);
CREATE TABLE things OF thing (PRIMARY KEY (id));
SELECT outbox.capture('things', 'Thing', description => '{name}');
ALTER TYPE thing RENAME ATTRIBUTE name TO title CASCADE;
ALTER TYPE thing DROP ATTRIBUTE name CASCADE;
ALTER TYPE thing ADD ATTRIBUTE note text CASCADE;
INSERT INTO things VALUES (1, 'x', 'y');
SELECT payload FROM outbox.event ORDER BY seq DESC LIMIT 1;
DROP TYPE thing CASCADE;
CREATE FOREIGN DATA WRAPPER regress_wrapper;
CREATE SERVER regress_server FOREIGN DATA WRAPPER regress_wrapper;
CREATE FOREIGN TABLE far (id integer, name text) SERVER regress_server;
CREATE TRIGGER by_hand AFTER INSERT ON far FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Far', 'key={name}');
ALTER FOREIGN TABLE far RENAME COLUMN name TO title;
DROP FOREIGN DATA WRAPPER regress_wrapper CASCADE;
-- others may be, also when the caches are emptied meanwhile, as a busy server does it
DO $$ BEGIN SET debug_discard_caches = 1; EXCEPTION WHEN invalid_parameter_value THEN NULL; /* not a build with assertions */ END $$;
ALTER TABLE item RENAME COLUMN made TO made_at;
RESET debug_discard_caches;
BEGIN;
SELECT outbox.release('item', 'Changed');
SELECT outbox.capture('item', 'Made', key => '{shop}');
ALTER TABLE item DROP COLUMN name;
INSERT INTO item VALUES (4, 'b', 1, NULL, NULL);
SELECT payload FROM outbox.event ORDER BY seq DESC LIMIT 1;
ROLLBACK;
-- the second net, where the event trigger did not look: a clear error at the write
ALTER EVENT TRIGGER carshop_outbox_alter DISABLE;
ALTER TABLE item RENAME COLUMN shop TO place;
INSERT INTO item VALUES (4, 'b', 'x', 1, NULL, NULL);
ALTER TABLE item RENAME COLUMN place TO shop;
ALTER EVENT TRIGGER carshop_outbox_alter ENABLE;

-- the session's settings do not show
SET DateStyle = 'German'; SET TimeZone = 'America/New_York'; SET extra_float_digits = -10;
SET bytea_output = 'escape'; SET IntervalStyle = 'sql_standard';
CREATE TABLE odd (ts timestamptz, d date, f float8, b bytea, i interval, a timestamptz[]);
SELECT outbox.capture('odd', 'Odd', key => '{ts}|{d}|{f}|{b}|{i}|{a}');
INSERT INTO odd VALUES ('2026-01-02 03:04:05.678+00', '2026-01-02', 0.1::float8 + 0.2, '\x00ff', '1 day 2 hours',
    '{2026-01-02 03:04:05+00}');
SHOW DateStyle;
RESET ALL;
SET client_min_messages = error;
SELECT aggregateid, payload FROM outbox.event ORDER BY seq DESC LIMIT 1;

-- a hand-written trigger works alike
CREATE TRIGGER mine AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Mine', 'key={a}');
INSERT INTO plain VALUES (2);
SELECT type, aggregateid FROM outbox.event ORDER BY seq DESC LIMIT 2;
-- also for several operations
CREATE TRIGGER changes AFTER INSERT OR UPDATE OR DELETE ON plain
    FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Changes', 'include_old=on');
INSERT INTO plain VALUES (3);
UPDATE plain SET a = 4 WHERE a = 3;
DELETE FROM plain WHERE a = 4;
SELECT payload FROM outbox.event WHERE type = 'Changes' ORDER BY seq;
SELECT event_type, operation FROM outbox.routes WHERE source = 'plain'::regclass ORDER BY 1;
-- one that could not work is refused when it is made, and where that was not seen, at the write
CREATE TRIGGER bad AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_typ=Mine');
CREATE TRIGGER bad AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Mine', 'key={b}');
CREATE TRIGGER bad AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Mine', 'key={a}', 'key=b');
CREATE TRIGGER bad BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Mine');
CREATE TRIGGER bad AFTER INSERT ON plain EXECUTE FUNCTION outbox.capture_row('event_type=Mine');
ALTER EVENT TRIGGER carshop_outbox_alter DISABLE;
CREATE TRIGGER bad AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_typ=Mine');
INSERT INTO plain VALUES (3);
DROP TRIGGER bad ON plain;
CREATE TRIGGER bad BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Mine');
INSERT INTO plain VALUES (3);
DROP TRIGGER bad ON plain;
ALTER EVENT TRIGGER carshop_outbox_alter ENABLE;
SELECT outbox.capture_row();

-- what capture says about a table that has no key, inheritance, rows that move, and a trigger that was for all changes
SET client_min_messages = notice;
CREATE TABLE keyless (a integer);
CREATE TABLE keyless_child (b integer) INHERITS (keyless);
\set VERBOSITY terse
SELECT outbox.capture('keyless', 'Keyless') \g (format=unaligned tuples_only=on)
-- a column's name without braces is a word, the same for all rows
\set VERBOSITY default
SELECT outbox.capture('keyless_child', 'Word', key => 'b', description => 'b') \g (format=unaligned tuples_only=on)
\set VERBOSITY terse
CREATE TABLE moves (id integer, shop text, PRIMARY KEY (id, shop)) PARTITION BY LIST (shop);
SELECT outbox.capture('moves', 'Moved', 'update') \g (format=unaligned tuples_only=on)
ALTER TABLE moves ENABLE ALWAYS TRIGGER "00_outbox_u_Moved";
SELECT outbox.capture('moves', 'Moved', 'insert, update') \g (format=unaligned tuples_only=on)
\set VERBOSITY default
SET client_min_messages = error;
DROP TABLE moves, keyless, keyless_child;

-- a partitioned table's owner must be able to copy the trigger to a new partition
CREATE ROLE regress_part_owner;
CREATE TABLE owned (id integer PRIMARY KEY) PARTITION BY RANGE (id);
ALTER TABLE owned OWNER TO regress_part_owner;
SELECT outbox.capture('owned', 'Owned');
GRANT EXECUTE ON FUNCTION outbox.capture_row() TO regress_part_owner;
SELECT outbox.capture('owned', 'Owned');
GRANT CREATE ON SCHEMA public TO regress_part_owner;
SET ROLE regress_part_owner;
CREATE TABLE owned_1 PARTITION OF owned FOR VALUES FROM (0) TO (10);
RESET ROLE;
INSERT INTO owned VALUES (1);
SELECT type, aggregateid FROM outbox.event ORDER BY seq DESC LIMIT 1;
DROP OWNED BY regress_part_owner;
DROP ROLE regress_part_owner;

-- partitions: members in the order of the root's columns
CREATE TABLE part (id integer PRIMARY KEY, v text, w text) PARTITION BY RANGE (id);
CREATE TABLE part_1 (w text, v text, id integer NOT NULL);
ALTER TABLE part ATTACH PARTITION part_1 FOR VALUES FROM (0) TO (10);
SELECT outbox.capture('part', 'Part', columns => NULL);
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20);
INSERT INTO part VALUES (1, 'v', 'w'), (11, 'v', 'w');
INSERT INTO part_1 (id, v) VALUES (2, 'v');
SELECT aggregatetype, aggregateid, payload FROM outbox.event ORDER BY seq DESC LIMIT 3;
SELECT source, event_type FROM outbox.routes WHERE event_type = 'Part';

DROP TABLE item, plain, odd, part;
