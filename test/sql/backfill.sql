-- outbox.backfill: the route's event for every row that is already there.
-- What happens beside concurrent writers stands in isolation/specs/backfill_writers.spec
-- and t/033_backfill.pl.
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE TABLE goods (shop text, made date, id integer, name text, sold integer, PRIMARY KEY (shop, made, id));
INSERT INTO goods SELECT 'shop "' || n % 3 || '"', date '2026-01-01' + n, n, 'n' || n, CASE WHEN n % 2 = 0 THEN n END
  FROM generate_series(1, 25) n;
CREATE VIEW made AS
    SELECT type, aggregateid, payload, xid, seq FROM outbox.event WHERE type LIKE 'Old%';

-- all rows, the event as the route makes it; the session's settings do not matter
SELECT outbox.capture('goods', 'OldAdded');
SET DateStyle = 'German';
CALL outbox.backfill('goods', 'OldAdded', batch => 10);
SELECT count(*), count(DISTINCT aggregateid) AS keys, count(DISTINCT xid) AS transactions FROM made;
RESET DateStyle;
SELECT aggregateid, payload FROM made ORDER BY seq LIMIT 2;
-- nothing is left behind
SELECT count(*) FROM outbox.backfill_progress;
SELECT count(*) FROM outbox.backfill_row;

-- the route's own condition holds, and the caller's, over NEW or plain columns
SELECT outbox.capture('goods', 'OldSold', condition => 'NEW.sold IS NOT NULL', key => '{sold}', columns => '{sold,name}');
CALL outbox.backfill('goods', 'OldSold', 'NEW.id > 8 AND id < 15');
SELECT aggregateid, payload FROM made WHERE type = 'OldSold' ORDER BY seq;

-- with the route in one transaction: no row is left out, none has two events
BEGIN;
SELECT outbox.capture('goods', 'OldNoted', 'insert, update', key => '{id}');
CALL outbox.backfill('goods', 'OldNoted', batch => 0);
SELECT count(*) FROM made WHERE type = 'OldNoted';
COMMIT;
INSERT INTO goods VALUES ('later', '2026-03-01', 26);
DELETE FROM goods WHERE id = 1;
SELECT source, event_type, total, done FROM outbox.backfill_progress;
-- a status that tells of it
SELECT level, message, remedy FROM outbox.status WHERE concern = 'backfill';
UPDATE outbox.backfill_progress SET changed_at = changed_at - interval '5 minutes';
SELECT level, message, remedy FROM outbox.status WHERE concern = 'backfill';
-- another condition than the one of the list is an error
CALL outbox.backfill('goods', 'OldNoted', 'id > 3');
CALL outbox.backfill('goods', 'OldNoted', batch => 7);
SELECT count(*), count(DISTINCT aggregateid) AS keys, min(aggregateid::integer), max(aggregateid::integer)
  FROM made WHERE type = 'OldNoted';
SELECT count(*) FROM outbox.backfill_progress;

-- given up: the list goes with the next one
BEGIN;
CALL outbox.backfill('goods', 'OldSold', batch => 0);
COMMIT;
DELETE FROM outbox.backfill_progress;
CALL outbox.backfill('goods', 'OldSold', 'id = 2');
SELECT count(*) FROM outbox.backfill_row;

-- in a transaction block all is part of it
BEGIN;
CALL outbox.backfill('goods', 'OldSold', batch => 2);
ROLLBACK;
SELECT count(*) FROM made WHERE type = 'OldSold';
SELECT count(*) FROM outbox.backfill_progress;

-- partitioned tables, with partitions of another shape
CREATE TABLE part (id integer PRIMARY KEY, a text, b text) PARTITION BY RANGE (id);
CREATE TABLE part_1 (b text, x integer, a text, id integer NOT NULL);
ALTER TABLE part_1 DROP COLUMN x;
ALTER TABLE part ATTACH PARTITION part_1 FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20);
INSERT INTO part SELECT n, 'a' || n, 'b' || n FROM generate_series(8, 11) n;
SELECT outbox.capture('part', 'OldPart');
CALL outbox.backfill('part', 'OldPart', batch => 3);
SELECT aggregateid, payload FROM made WHERE type = 'OldPart' ORDER BY aggregateid::integer;

-- inheritance: the route sees the parent's rows, and so does its backfill
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (2);
SELECT outbox.capture('parent', 'OldParent');
CALL outbox.backfill('parent', 'OldParent');
SELECT aggregateid FROM made WHERE type = 'OldParent';

-- without a primary key: one transaction
CREATE TABLE keyless (a integer);
INSERT INTO keyless SELECT generate_series(1, 20);
SELECT outbox.capture('keyless', 'OldKeyless');
SET client_min_messages = notice;
CALL outbox.backfill('keyless', 'OldKeyless', batch => 7);
CALL outbox.backfill('keyless', 'OldKeyless', batch => 0);
SET client_min_messages = error;
SELECT count(*), count(DISTINCT payload::text), count(DISTINCT xid) FROM made WHERE type = 'OldKeyless';

-- refused
CALL outbox.backfill('goods', 'NoSuchRoute');
SELECT outbox.capture('goods', 'OldGone', 'delete');
CALL outbox.backfill('goods', 'OldGone');
ALTER TABLE goods DISABLE TRIGGER "00_outbox_i_OldSold";
CALL outbox.backfill('goods', 'OldSold');
ALTER TABLE goods ENABLE TRIGGER "00_outbox_i_OldSold";
CALL outbox.backfill(NULL, 'OldSold');
CALL outbox.backfill('goods', 'OldSold', batch => -1);
CALL outbox.backfill('goods', 'OldSold', 'no_such_column > 1');
CALL outbox.backfill('goods', 'OldSold', ') OR (true');
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL outbox.backfill('goods', 'OldSold');
ROLLBACK;
SELECT count(*) FROM outbox.backfill_progress;

-- rights: the table's owner may, with EXECUTE; a stranger may not
CREATE ROLE regress_backfill_owner;
CREATE ROLE regress_backfill_stranger;
GRANT CREATE ON SCHEMA public TO regress_backfill_owner;
SET ROLE regress_backfill_owner;
CREATE TABLE owned (id integer PRIMARY KEY, a text);
INSERT INTO owned VALUES (1, 'x'), (2, 'y');
CREATE FUNCTION who_asks(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'as %, path %', current_user, current_setting('search_path');
    BEGIN
        CREATE TEMP TABLE trap ();
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE '%', SQLERRM;
    END;
    RETURN true;
END $$;
CALL outbox.backfill('owned', 'OldOwned');
RESET ROLE;
SELECT outbox.capture('owned', 'OldOwned', condition => 'public.who_asks(NEW.a)');
GRANT EXECUTE ON PROCEDURE outbox.backfill TO regress_backfill_owner, regress_backfill_stranger;
SET ROLE regress_backfill_stranger;
CALL outbox.backfill('owned', 'OldOwned');
RESET ROLE;
-- a superuser runs the owner's code as the owner, and restricted
SET client_min_messages = notice;
CALL outbox.backfill('owned', 'OldOwned', 'id = 1');
SET client_min_messages = error;
SET ROLE regress_backfill_owner;
CALL outbox.backfill('owned', 'OldOwned', 'id = 2');
RESET ROLE;
SELECT aggregateid FROM made WHERE type = 'OldOwned' ORDER BY seq;
-- policies that would hide rows are an error, not a gap
ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
ALTER TABLE owned FORCE ROW LEVEL SECURITY;
CALL outbox.backfill('owned', 'OldOwned');

DROP VIEW made;
DROP TABLE goods, part, parent, child, keyless, owned;
DROP FUNCTION who_asks(text);
DROP OWNED BY regress_backfill_owner, regress_backfill_stranger;
DROP ROLE regress_backfill_owner, regress_backfill_stranger;
