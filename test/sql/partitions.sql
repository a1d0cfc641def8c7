-- Routes on partitioned tables and inheritance trees, and tables that change.
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE TABLE looked AS SELECT COALESCE(max(seq), 0) AS seq FROM outbox.event;
CREATE FUNCTION look() RETURNS TABLE (type text, aggregate text, key text, event json) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT e.type, e.aggregatetype, e.aggregateid, e.payload FROM outbox.event e, looked l WHERE e.seq > l.seq ORDER BY e.seq;
    UPDATE looked l SET seq = (SELECT max(e.seq) FROM outbox.event e);
END $$;

-- several levels; columns in another order and dropped ones; partitions made before and after the route
CREATE TABLE sale (region text, day date, id integer, note text, PRIMARY KEY (region, day, id)) PARTITION BY LIST (region);
CREATE TABLE sale_eu (x integer, id integer NOT NULL, y text, note text, day date NOT NULL, region text NOT NULL) PARTITION BY RANGE (day);
ALTER TABLE sale_eu DROP COLUMN x, DROP COLUMN y;
ALTER TABLE sale ATTACH PARTITION sale_eu FOR VALUES IN ('eu');
CREATE TABLE sale_eu_26 (note text, day date NOT NULL, gone integer, region text NOT NULL, id integer NOT NULL);
ALTER TABLE sale_eu_26 DROP COLUMN gone;
ALTER TABLE sale_eu ATTACH PARTITION sale_eu_26 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
SELECT outbox.capture('sale', 'Sale', 'insert, update, delete', description => '{note}', include_old => true);
CREATE TABLE sale_us PARTITION OF sale FOR VALUES IN ('us');
CREATE TABLE sale_rest PARTITION OF sale DEFAULT;
INSERT INTO sale VALUES ('eu', '2026-02-03', 1, 'root'), ('us', '2026-02-03', 2, 'root'), ('asia', '2026-02-03', 3, 'root');
INSERT INTO sale_eu (region, day, id, note) VALUES ('eu', '2026-05-06', 4, 'middle');
INSERT INTO sale_eu_26 (region, day, id, note) VALUES ('eu', '2026-05-06', 5, 'leaf');
COPY sale (note, id, day, region) FROM stdin;
copied	6	2026-07-08	eu
copied	7	2026-07-08	us
\.
SELECT * FROM look();
UPDATE sale SET note = 'changed' WHERE id IN (1, 2);
DELETE FROM sale WHERE id = 3;
SELECT * FROM look();
-- a move is a delete and an insert, as PostgreSQL does it
UPDATE sale SET region = 'us' WHERE id = 1;
SELECT * FROM look();
-- detached: its rows are not the table's any more
ALTER TABLE sale DETACH PARTITION sale_us;
INSERT INTO sale_us VALUES ('us', '2026-02-03', 8, 'detached');
SELECT * FROM look();
ALTER TABLE sale ATTACH PARTITION sale_us FOR VALUES IN ('us');
INSERT INTO sale VALUES ('us', '2026-02-03', 9, 'attached again');
SELECT * FROM look();
-- one route each in the list, whatever the number of partitions
SELECT source, event_type, operation FROM outbox.routes WHERE event_type = 'Sale' ORDER BY 3;
-- a column that the route uses, also from a partition's point of view
ALTER TABLE sale RENAME COLUMN note TO remark;
ALTER TABLE sale DROP COLUMN note;
ALTER TABLE sale ADD COLUMN extra integer DEFAULT 1;
INSERT INTO sale_eu_26 (region, day, id) VALUES ('eu', '2026-05-06', 10);
SELECT * FROM look();
-- replaced and released on the root, for all
SELECT outbox.capture('sale', 'Sale', 'insert', columns => '{id}');
INSERT INTO sale VALUES ('eu', '2026-05-06', 11), ('us', '2026-05-06', 12);
SELECT * FROM look();
SELECT outbox.release('sale');
INSERT INTO sale VALUES ('eu', '2026-05-06', 13), ('us', '2026-05-06', 14);
SELECT count(*) FROM look();

-- a route on one partition, with the names of the root's columns
SELECT outbox.capture('sale_eu_26', 'SaleEu', key => '{id}');
INSERT INTO sale VALUES ('eu', '2026-05-06', 15, 'one partition'), ('us', '2026-05-06', 16, 'another');
SELECT * FROM look();
-- a change of the root that would break it
SELECT outbox.capture('sale_eu_26', 'SaleEu', key => '{note}');
ALTER TABLE sale RENAME COLUMN note TO remark;

-- a DETACH ... CONCURRENTLY that has begun and is not finished: the partition has its copy of
-- the trigger, and no ancestors (a server crashed on that)
CREATE TABLE leaves (note text, id integer, region text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE leaves_eu PARTITION OF leaves FOR VALUES IN ('eu') PARTITION BY RANGE (id);
CREATE TABLE leaves_eu_1 (id integer NOT NULL, region text NOT NULL, note text);
ALTER TABLE leaves_eu ATTACH PARTITION leaves_eu_1 FOR VALUES FROM (0) TO (100);
CREATE TABLE leaves_eu_2 PARTITION OF leaves_eu FOR VALUES FROM (100) TO (200);
SELECT outbox.capture('leaves', 'Leaf');
BEGIN;
SELECT count(*) FROM leaves;
PREPARE TRANSACTION 'reads';
SET lock_timeout = '10ms';
ALTER TABLE leaves_eu DETACH PARTITION leaves_eu_1 CONCURRENTLY;
ALTER TABLE leaves DETACH PARTITION leaves_eu CONCURRENTLY;
RESET lock_timeout;
SELECT inhrelid::regclass, inhdetachpending FROM pg_inherits WHERE inhdetachpending ORDER BY 1;
INSERT INTO leaves_eu_1 (region, id, note) VALUES ('eu', 1, 'low');
INSERT INTO leaves_eu_2 (region, id, note) VALUES ('eu', 101, 'high');
SELECT outbox.capture('leaves_eu_1', 'Own', key => '{id}');
COMMIT PREPARED 'reads';
SELECT outbox.capture('leaves_eu_1', 'Own', key => '{id}');
ALTER TABLE leaves_eu_1 ADD CHECK (id > 0);
INSERT INTO leaves_eu_1 (region, id, note) VALUES ('eu', 2, 'low');
CALL outbox.backfill('leaves_eu_1', 'Own', 'id = 1');
SELECT * FROM look();
ALTER TABLE leaves DETACH PARTITION leaves_eu FINALIZE;
DROP TABLE leaves, leaves_eu, leaves_eu_1;

-- inheritance: a parent's route is for the parent's own rows
CREATE TABLE vehicle (id integer PRIMARY KEY, wheels integer);
CREATE TABLE bicycle (bell boolean) INHERITS (vehicle);
SELECT outbox.capture('vehicle', 'Vehicle', 'insert, update');
INSERT INTO vehicle VALUES (1, 4);
INSERT INTO bicycle VALUES (2, 2, true);
UPDATE vehicle SET wheels = wheels + 1;
SELECT * FROM look();
SELECT outbox.capture('bicycle', 'Bicycle', key => '{id}');
INSERT INTO bicycle VALUES (3, 2, false);
SELECT * FROM look();

-- a table that changes between the writes of one session: each event has the table's present shape
CREATE TABLE shape (id integer PRIMARY KEY, a text, b integer);
SELECT outbox.capture('shape', 'Shape', 'insert, delete');
INSERT INTO shape VALUES (1, 'x', 1);
ALTER TABLE shape RENAME COLUMN b TO "B";
INSERT INTO shape VALUES (2, 'x', 2);
ALTER TABLE shape DROP COLUMN a;
INSERT INTO shape VALUES (3, 3);
ALTER TABLE shape ADD COLUMN c timestamptz DEFAULT '2026-01-01 00:00+00';
INSERT INTO shape VALUES (4, 4);
ALTER TABLE shape ALTER COLUMN "B" TYPE text USING 'was ' || "B";
INSERT INTO shape VALUES (5, '5');
ALTER TABLE shape RENAME TO form;
INSERT INTO form VALUES (6, '6');
ALTER TABLE form DROP CONSTRAINT shape_pkey;
INSERT INTO form VALUES (7, '7');
ALTER TABLE form ADD PRIMARY KEY ("B", id);
INSERT INTO form VALUES (8, '8');
DELETE FROM form WHERE id IN (1, 3);
CREATE SCHEMA elsewhere;
ALTER TABLE form SET SCHEMA elsewhere;
INSERT INTO elsewhere.form VALUES (9, '9');
SELECT * FROM look();

DROP TABLE sale, vehicle, bicycle, elsewhere.form, looked;
DROP SCHEMA elsewhere;
DROP FUNCTION look();
