-- Virtual generated columns: an event has what a SELECT shows.  PostgreSQL 18 on.
SELECT current_setting('server_version_num')::integer < 180000 AS older \gset
\if :older
\quit
\endif
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE TABLE looked AS SELECT COALESCE(max(seq), 0) AS seq FROM outbox.event;
CREATE FUNCTION look() RETURNS TABLE (type text, topic text, key text, description text, event json) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT e.type, e.topic, e.aggregateid, e.description, e.payload FROM outbox.event e, looked l WHERE e.seq > l.seq ORDER BY e.seq;
    UPDATE looked l SET seq = (SELECT max(e.seq) FROM outbox.event e);
END $$;

CREATE TABLE item (
    id integer PRIMARY KEY,
    price numeric(10, 2),
    amount integer,
    total numeric GENERATED ALWAYS AS (price * amount),
    label text GENERATED ALWAYS AS ('item ' || id || CASE WHEN amount = 0 THEN ' (none)' ELSE '' END) VIRTUAL,
    stored text GENERATED ALWAYS AS (upper('s' || id)) STORED,
    day date,
    week integer GENERATED ALWAYS AS (extract(week FROM day)::integer) VIRTUAL,
    doc jsonb,
    name text GENERATED ALWAYS AS (doc ->> 'name'));
SELECT outbox.capture('item', 'Item', 'insert, update, delete', key => '{label}', description => '{total} {week}', include_old => true);
INSERT INTO item (id, price, amount, day, doc) VALUES (1, 2.50, 4, '2026-11-28', '{"name": "Änne"}'), (2, NULL, 0, NULL, NULL);
UPDATE item SET amount = 5, doc = '{"name": "B"}' WHERE id = 1;
DELETE FROM item WHERE id = 2;
SELECT * FROM look();
-- the same as a SELECT
SELECT (payload::jsonb -> 'new') = to_jsonb(i) AS as_selected FROM outbox.event e, item i WHERE e.type = 'Item' AND i.id = 1 ORDER BY seq DESC LIMIT 1 OFFSET 1;
-- chosen columns; a changed expression is seen
SELECT outbox.capture('item', 'Short', 'update', columns => '{total,name}', topic => 'item-{week}');
UPDATE item SET price = 3 WHERE id = 1;
ALTER TABLE item ALTER COLUMN total SET EXPRESSION AS (price * amount * 2);
UPDATE item SET price = 4 WHERE id = 1;
SELECT type, topic, event FROM look() WHERE type LIKE 'Short%';
-- backfill
SELECT outbox.capture('item', 'Filled', columns => '{id,total,label}');
CALL outbox.backfill('item', 'Filled');
SELECT type, event FROM look();

-- partitions: other column numbers; an expression of its own does not count, as in a SELECT of the table
CREATE TABLE part (a integer NOT NULL, b integer, c integer GENERATED ALWAYS AS (a + b)) PARTITION BY LIST (a);
CREATE TABLE part_1 (x integer, b integer, c integer GENERATED ALWAYS AS (b * 100), a integer NOT NULL);
ALTER TABLE part_1 DROP COLUMN x;
ALTER TABLE part ATTACH PARTITION part_1 FOR VALUES IN (1);
CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2);
SELECT outbox.capture('part', 'Part', key => '{c}');
INSERT INTO part (a, b) VALUES (1, 7), (2, 7);
SELECT tableoid::regclass, a, b, c FROM part ORDER BY a;
SELECT key, event FROM look();

-- an expression that fails for a row fails the statement, as a stored one does
CREATE TABLE ratio (id integer PRIMARY KEY, n integer, r integer GENERATED ALWAYS AS (100 / n));
SELECT outbox.capture('ratio', 'Ratio');
INSERT INTO ratio (id, n) VALUES (1, 5);
INSERT INTO ratio (id, n) VALUES (2, 0);
-- unless it is left out
SELECT outbox.capture('ratio', 'Ratio', columns => '{id,n}');
INSERT INTO ratio (id, n) VALUES (2, 0);
SELECT key, event FROM look();
DROP TABLE item, part, ratio, looked;
DROP FUNCTION look();
