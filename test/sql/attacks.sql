-- Attacks on capture, each by a role with no right of ours or with one that
-- somebody may have granted; and what a superuser does to the segments by accident.
-- None may forge, divert, read or stop events, or run code with rights it lacks.
-- The classes are those of the CVEs and issues named at each part.
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE ROLE regress_mallory;
CREATE ROLE regress_shop;
CREATE SCHEMA AUTHORIZATION regress_mallory;
GRANT CREATE ON SCHEMA public TO regress_mallory;
CREATE TABLE till (id integer PRIMARY KEY, who text, paid numeric);
GRANT ALL ON till TO regress_shop;
SELECT outbox.capture('till', 'Paid');
CREATE TABLE looked AS SELECT COALESCE(max(seq), 0) AS seq FROM outbox.event;
CREATE VIEW new_events AS SELECT e.type, e.aggregateid, e.payload FROM outbox.event e, looked l WHERE e.seq > l.seq ORDER BY e.seq;

-- ---- forging events ----
SET ROLE regress_mallory;
CREATE TABLE mine (id integer, e text);
-- a trigger function that everybody may execute can be attached to an own table
CREATE TRIGGER f AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Paid', 'aggregate_type=till');
CREATE TRIGGER f BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION outbox.ignore_replication();
CREATE VIEW my_view AS SELECT 1 AS id;
CREATE TRIGGER f INSTEAD OF INSERT ON my_view FOR EACH ROW EXECUTE FUNCTION outbox.insert_event();
CREATE EVENT TRIGGER f ON ddl_command_end EXECUTE FUNCTION outbox.check_ddl();
SELECT outbox.capture('mine', 'Paid');
SELECT outbox.capture('till', 'Paid');
SELECT outbox.emit('Paid');
CALL outbox.backfill('till', 'Paid');
INSERT INTO outbox.event (type) VALUES ('Paid');
INSERT INTO outbox.event_0 SELECT * FROM outbox.event_0;
SELECT nextval('outbox.event_seq'), setval('outbox.event_seq', 1);
SELECT outbox.start_lineage(), outbox.claim(), outbox.pause(), outbox.switch_segment();
-- partitions, children and clones of a captured table make events only for who may attach them
CREATE TABLE child () INHERITS (till);
ALTER TABLE mine INHERIT till;
RESET ROLE;
SELECT * FROM new_events;
-- with EXECUTE on the functions: his own tables, and the function's own checks
GRANT EXECUTE ON FUNCTION outbox.insert_event(), outbox.capture_row(), outbox.ignore_replication() TO regress_mallory;
SET ROLE regress_mallory;
CREATE TRIGGER f INSTEAD OF INSERT ON my_view FOR EACH ROW EXECUTE FUNCTION outbox.insert_event();
INSERT INTO my_view VALUES (1);
CREATE TRIGGER f AFTER INSERT ON till FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=X');
CREATE TRIGGER f AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Mine');
RESET ROLE;
-- taken back later, his writers go on (EXECUTE is asked for when a trigger is made), and no new route
REVOKE EXECUTE ON FUNCTION outbox.insert_event(), outbox.capture_row(), outbox.ignore_replication() FROM regress_mallory;
SET ROLE regress_mallory;
INSERT INTO mine VALUES (1);
CREATE TRIGGER g AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Mine');
DROP TABLE mine;
DROP VIEW my_view;
RESET ROLE;
SELECT * FROM new_events;
UPDATE looked SET seq = (SELECT max(seq) FROM outbox.event);

-- ---- diverting events: shadows of our names (CVE-2018-1058, CVE-2022-2625) ----
SET ROLE regress_mallory;
CREATE TABLE outbox.event_9 ();
CREATE TABLE regress_mallory.event_0 (seq bigint);
CREATE TABLE regress_mallory.event_seq (a integer);
CREATE TEMP TABLE event_0 (seq bigint);
CREATE TEMP SEQUENCE event_seq;
CREATE TEMP TABLE lineage (current_segment integer);
ALTER TABLE outbox.event_0 RENAME TO event_9;
ALTER TABLE outbox.event_0 SET SCHEMA regress_mallory;
ALTER SCHEMA outbox RENAME TO inbox;
ALTER VIEW outbox.event RENAME TO event_9;
DROP TABLE outbox.event_0;
DROP EXTENSION carshop_outbox CASCADE;
ALTER EXTENSION carshop_outbox DROP TABLE outbox.event_0;
CREATE OR REPLACE FUNCTION outbox.capture_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE OR REPLACE VIEW outbox.event AS SELECT 1;
RESET ROLE;
GRANT regress_shop TO regress_mallory;
SET ROLE regress_mallory;
SET search_path = pg_temp, regress_mallory, outbox, public;
INSERT INTO public.till VALUES (1, 'shop', 1);
RESET search_path;
SELECT count(*) FROM pg_temp.event_0;
SELECT count(*) FROM regress_mallory.event_0;
RESET ROLE;
SELECT * FROM new_events;
UPDATE looked SET seq = (SELECT max(seq) FROM outbox.event);

-- ---- attaching to our relations (pg_net's queue, supabase/pg_net #259) ----
SET ROLE regress_mallory;
CREATE FUNCTION regress_mallory.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped as %', current_user; END $$;
CREATE TRIGGER trap BEFORE INSERT ON outbox.event_0 FOR EACH ROW EXECUTE FUNCTION regress_mallory.trap();
CREATE TRIGGER trap INSTEAD OF INSERT ON outbox.event FOR EACH ROW EXECUTE FUNCTION regress_mallory.trap();
CREATE RULE trap AS ON INSERT TO outbox.event_0 DO INSTEAD NOTHING;
CREATE RULE trap AS ON INSERT TO outbox.event DO INSTEAD NOTHING;
CREATE POLICY trap ON outbox.event_0 USING (false);
ALTER TABLE outbox.event_0 ADD CONSTRAINT trap CHECK (false);
ALTER TABLE outbox.event_0 ADD COLUMN trap integer;
CREATE INDEX ON outbox.event_0 (seq);
CREATE TABLE regress_mallory.child () INHERITS (outbox.event_0);
BEGIN;
LOCK TABLE outbox.event_0 IN ACCESS SHARE MODE;
ROLLBACK;
BEGIN;
LOCK TABLE outbox.event IN ACCESS EXCLUSIVE MODE;
ROLLBACK;
RESET ROLE;
-- even where TRIGGER was granted: what is attached never fires for captured events
GRANT TRIGGER ON outbox.event_0, outbox.event_1, outbox.event_2 TO regress_mallory;
SET ROLE regress_mallory;
CREATE TRIGGER trap_0 BEFORE INSERT ON outbox.event_0 FOR EACH ROW EXECUTE FUNCTION regress_mallory.trap();
CREATE TRIGGER trap_1 AFTER INSERT ON outbox.event_0 FOR EACH STATEMENT EXECUTE FUNCTION regress_mallory.trap();
RESET ROLE;
INSERT INTO till VALUES (2, 'a superuser', 2);
SET ROLE regress_shop;
INSERT INTO till VALUES (3, 'shop', 3);
RESET ROLE;
-- and what a superuser attaches by accident neither diverts, changes nor blocks them
CREATE TABLE strayed () INHERITS (outbox.event_0);
INSERT INTO strayed (seq, xid, occurred_at, id, type, format) VALUES (9000000000, '3', now(), gen_random_uuid(), 'Strayed', 'envelope');
ALTER TABLE outbox.event_0 ADD CONSTRAINT trap CHECK (false) NOT VALID;
ALTER TABLE outbox.event_0 ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox.event_0 FORCE ROW LEVEL SECURITY;
CREATE RULE trap AS ON INSERT TO outbox.event_0 DO INSTEAD NOTHING;
CREATE INDEX trap_index ON outbox.event_0 (lower(type), occurred_at) WHERE type <> 'Nothing';
SET ROLE regress_shop;
INSERT INTO till VALUES (4, 'shop', 4);
INSERT INTO till SELECT n, 'many', n FROM generate_series(5, 6) n;
RESET ROLE;
SELECT * FROM new_events;
SET enable_seqscan = off;
SELECT count(*) AS through_the_index FROM ONLY outbox.event_0 WHERE lower(type) = 'paid' AND type <> 'Nothing';
RESET enable_seqscan;
DROP TABLE strayed;
DROP INDEX outbox.trap_index;
-- nor does an index that writes events while events are stored crash the server
CREATE FUNCTION writes(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF $1 = 'Trapped' THEN PERFORM outbox.emit('Trap'); END IF; RETURN $1; END $$;
CREATE INDEX trap_index ON outbox.event_0 (writes(type));
SELECT outbox.emit('Trapped');
DROP INDEX outbox.trap_index;
DROP FUNCTION writes(text);
DROP RULE trap ON outbox.event_0;
ALTER TABLE outbox.event_0 DROP CONSTRAINT trap, DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
DROP TRIGGER trap_0 ON outbox.event_0;
DROP TRIGGER trap_1 ON outbox.event_0;
REVOKE TRIGGER ON outbox.event_0, outbox.event_1, outbox.event_2 FROM regress_mallory;
UPDATE looked SET seq = (SELECT max(seq) FROM outbox.event);

-- ---- code with others' rights: casts, domains, conditions, operators ----
-- whatever runs while a row becomes an event runs as who writes the row
CREATE TABLE runs (what text, as_role text, session text);
GRANT INSERT ON runs TO PUBLIC;
SET ROLE regress_mallory;
CREATE FUNCTION regress_mallory.note(what text) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.runs VALUES (what, current_user, current_setting('role')) $$;
CREATE TYPE regress_mallory.colour AS ENUM ('red');
CREATE FUNCTION regress_mallory.colour_json(regress_mallory.colour) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM regress_mallory.note('cast to json'); RETURN '"cast"'; END $$;
CREATE CAST (regress_mallory.colour AS json) WITH FUNCTION regress_mallory.colour_json(regress_mallory.colour);
CREATE FUNCTION regress_mallory.is_fine(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM regress_mallory.note('domain check'); RETURN true; END $$;
CREATE DOMAIN regress_mallory.checked AS text CHECK (regress_mallory.is_fine(VALUE));
CREATE FUNCTION regress_mallory.wanted(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM regress_mallory.note('condition'); RETURN true; END $$;
CREATE TABLE regress_mallory.bait (id integer PRIMARY KEY, c regress_mallory.colour, d regress_mallory.checked, e regress_mallory.colour[]);
GRANT USAGE ON SCHEMA regress_mallory TO regress_shop;
GRANT ALL ON regress_mallory.bait TO regress_shop;
RESET ROLE;
SELECT outbox.capture('regress_mallory.bait', 'Bait', condition => 'regress_mallory.wanted(NEW.d)', key => '{d}');
-- shadows of what our code calls
SET ROLE regress_mallory;
CREATE FUNCTION regress_mallory.to_json(anyelement) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM regress_mallory.note('to_json'); RETURN 'null'; END $$;
CREATE FUNCTION regress_mallory.row_to_json(anyelement) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM regress_mallory.note('row_to_json'); RETURN 'null'; END $$;
CREATE FUNCTION regress_mallory.jsonb_concat(jsonb, jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM regress_mallory.note('jsonb_concat'); RETURN 'null'; END $$;
CREATE FUNCTION regress_mallory.nextval(regclass) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM regress_mallory.note('nextval'); RETURN 1; END $$;
CREATE FUNCTION regress_mallory.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM regress_mallory.note('='); RETURN true; END $$;
CREATE OPERATOR regress_mallory.= (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_mallory.eq);
RESET ROLE;
GRANT USAGE ON SCHEMA regress_mallory TO PUBLIC;
SET ROLE regress_shop;
SET search_path = regress_mallory, pg_catalog, public;
SET carshop_outbox.event_headers = '{"a": "b"}';
INSERT INTO regress_mallory.bait VALUES (1, 'red', 'x', '{red}');
RESET carshop_outbox.event_headers;
RESET search_path;
RESET ROLE;
SELECT what, as_role, count(*) FROM runs GROUP BY 1, 2 ORDER BY 1;
-- the same in a function with its owner's rights: these, not the caller's, and not more
TRUNCATE runs;
CREATE FUNCTION sells() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ INSERT INTO regress_mallory.bait VALUES (2, 'red', 'x') $$;
ALTER FUNCTION sells() OWNER TO regress_shop;
SET ROLE regress_mallory;
SELECT sells();
RESET ROLE;
SELECT what, as_role, count(*) FROM runs GROUP BY 1, 2 ORDER BY 1;
SELECT type, aggregateid, payload FROM new_events;
-- a superuser's backfill and capture run a stranger's code as its table's owner, or not at all
TRUNCATE runs;
SELECT outbox.capture('regress_mallory.bait', 'Bait2', key => '{d}');
CALL outbox.backfill('regress_mallory.bait', 'Bait2', 'regress_mallory.wanted(d)');
SELECT what, as_role, count(*) FROM runs GROUP BY 1, 2 ORDER BY 1;
-- DDL with hostile names on the path: our event triggers call nothing of his
TRUNCATE runs;
SET search_path = regress_mallory, pg_catalog, public;
ALTER TABLE public.till ADD COLUMN note text;
ALTER TABLE public.till DROP COLUMN note;
SELECT count(*) > 0 AS routes FROM outbox.routes;
SELECT count(*) > 0 AS status FROM outbox.status;
SELECT outbox.release('regress_mallory.bait');
RESET search_path;
SELECT * FROM runs;

-- ---- reading others' events, stopping others' capture ----
REVOKE regress_shop FROM regress_mallory;
SET ROLE regress_mallory;
SELECT count(*) FROM outbox.event;
SELECT count(*) FROM outbox.event_0;
TABLE outbox.tick;
TABLE outbox.lineage;
TABLE outbox.dead_letters;
TABLE outbox.backfill_row;
TABLE outbox.status;
TABLE outbox.routes;
-- session switches are a superuser's
SET carshop_outbox.capture = off;
SET session_replication_role = replica;
SET carshop_outbox.topic = 'mallory';
SET carshop_outbox.max_message_bytes = 1000;
SET carshop_outbox.allowed_topics = '*';
ALTER DATABASE regress_regression SET carshop_outbox.brokers = 'mallory:9092';
ALTER SYSTEM SET carshop_outbox.shop_databases = '';
\set VERBOSITY sqlstate
ALTER ROLE regress_shop SET carshop_outbox.capture = off;
\set VERBOSITY default
ALTER ROLE regress_mallory SET carshop_outbox.capture = off;
SELECT set_config('carshop_outbox.capture', 'off', false);
CREATE FUNCTION regress_mallory.off() RETURNS void LANGUAGE sql SET carshop_outbox.capture = off AS 'SELECT';
-- the shop's table is the shop's
ALTER TABLE till DISABLE TRIGGER "00_outbox_i_Paid";
DROP TRIGGER "00_outbox_i_Paid" ON till;
SELECT outbox.release('till');
ALTER EVENT TRIGGER carshop_outbox_alter DISABLE;
BEGIN;
LOCK TABLE outbox.lineage IN ROW SHARE MODE;
ROLLBACK;
RESET ROLE;
-- the writer of a table with a route is not its owner either
SET ROLE regress_shop;
ALTER TABLE till DISABLE TRIGGER "00_outbox_i_Paid";
RESET ROLE;
INSERT INTO till VALUES (7, 'last', 7);
SELECT type, aggregateid FROM new_events WHERE type = 'Paid';

DROP VIEW new_events;
DROP TABLE till, looked, runs;
DROP FUNCTION sells();
DROP OWNED BY regress_mallory, regress_shop CASCADE;
DROP SCHEMA IF EXISTS regress_mallory CASCADE;
DROP ROLE regress_mallory, regress_shop;
