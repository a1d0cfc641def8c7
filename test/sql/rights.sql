-- Writers of a captured table need nothing; others can do nothing.
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE ROLE outbox_writer;
CREATE ROLE outbox_stranger;
CREATE ROLE outbox_owner;
CREATE ROLE outbox_operator;
CREATE ROLE outbox_monitor IN ROLE pg_monitor;
CREATE TABLE goods (id integer PRIMARY KEY, name text);
GRANT INSERT ON goods TO outbox_writer;
SELECT outbox.capture('goods', 'GoodsAdded');

SET ROLE outbox_writer;
INSERT INTO goods VALUES (1, 'by one without any right on the outbox');
SELECT * FROM outbox.event;
SELECT outbox.emit('X');
INSERT INTO outbox.event_0 SELECT;
SELECT nextval('outbox.event_seq');
RESET ROLE;
SELECT type, payload FROM outbox.event ORDER BY seq DESC LIMIT 1;

-- nobody forges events by a trigger on a table of his own
GRANT CREATE ON SCHEMA public TO outbox_stranger;
SET ROLE outbox_stranger;
CREATE TABLE own (a integer);
CREATE TRIGGER forged AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=Forged');
SELECT outbox.capture('own', 'Forged');
SELECT outbox.pause();
SELECT outbox.claim();
SELECT outbox.start_lineage();
SET carshop_outbox.capture = off;
SET carshop_outbox.brokers = 'evil:9092';
RESET ROLE;

-- the administrator can let a table's owner make routes
GRANT EXECUTE ON FUNCTION outbox.capture, outbox.capture_row, outbox.release TO outbox_owner;
GRANT CREATE ON SCHEMA public TO outbox_owner;
SET ROLE outbox_owner;
CREATE TABLE mine (a integer PRIMARY KEY);
SELECT outbox.capture('mine', 'Mine');
SELECT outbox.capture('goods', 'NotMine');
INSERT INTO mine VALUES (1);
SELECT outbox.release('mine');
RESET ROLE;

-- and an application write events; a right on the view is all it needs
GRANT INSERT ON outbox.event TO outbox_writer;
SET ROLE outbox_writer;
INSERT INTO outbox.event (type) VALUES ('ByTheApplication');
SELECT type FROM outbox.event;
RESET ROLE;

-- monitoring
SET ROLE outbox_monitor;
SELECT count(*) > 0 AS status FROM outbox.status;
SELECT count(*) > 0 AS relay FROM outbox.stat_relay;
SELECT count(*) > 0 AS routes FROM outbox.routes;
SELECT count(*) >= 0 AS dead_letters FROM outbox.stat_dead_letters;
SELECT outbox.count_unconfirmed() > 0 AS counted;
SELECT count(*) FROM outbox.event;
SELECT count(*) FROM outbox.dead_letters;
RESET ROLE;
-- nothing that pg_monitor may read has a column for what an event says
SELECT a.attrelid::regclass, a.attname
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0, aclexplode(c.relacl) g
 WHERE c.relnamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND g.grantee = 'pg_monitor'::regrole
   AND a.attname IN ('payload', 'value', 'data', 'headers', 'key', 'id', 'description', 'context', 'reason')
   -- a topic's trouble, and of events types and sizes at most
   AND (c.oid <> 'outbox.parked'::regclass OR a.attname <> 'reason')
   AND c.oid NOT IN ('outbox.routes'::regclass, 'outbox.backfill_progress'::regclass, 'outbox.metrics'::regclass, 'report.metrics'::regclass)
 ORDER BY 1, 2;
-- a grant of their own
GRANT SELECT ON outbox.dead_letters, report.dead_letters TO outbox_owner;
SET ROLE outbox_owner;
SELECT count(*) FROM outbox.dead_letters;
SELECT count(*) FROM report.dead_letters;
RESET ROLE;

-- an operator needs the right to call, and gets none on the tables by it
GRANT EXECUTE ON FUNCTION outbox.pause, outbox.resume, outbox.claim, outbox.start_lineage, outbox.park, outbox.unpark, outbox.replay,
	outbox.retry, outbox.skip, outbox.accept_topic, report.start, report.stop, report.seek, report.retry, report.skip, report.erase TO outbox_operator;
SET ROLE outbox_operator;
BEGIN;
SELECT outbox.pause(), outbox.resume(), outbox.claim(), outbox.start_lineage('nothing'), outbox.park('apart'), outbox.unpark('apart');
SELECT outbox.replay('-infinity') > 0 AS replay, outbox.retry(), outbox.skip(gen_random_uuid()), outbox.accept_topic('apart');
SELECT report.start(), report.stop(), report.retry(), report.skip(0), report.erase('nobody');
SELECT report.seek('nowhere', 0, 0);
ROLLBACK;
UPDATE outbox.lineage SET paused = true;
SELECT count(*) FROM outbox.event;
SELECT count(*) FROM report.reported_events;
RESET ROLE;

-- every function that changes something is closed to PUBLIC, apart from what a mirror's statement calls as its owner: that changes nothing but the caller's own
SELECT p.oid::regprocedure FROM pg_proc p
 WHERE p.pronamespace IN ('outbox'::regnamespace, 'report'::regnamespace)
   AND p.provolatile = 'v'
   AND EXISTS (SELECT FROM aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
                WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')
 ORDER BY p.oid::regprocedure::text;
-- what runs with the owner's rights: the operator's verbs, and nothing that PUBLIC may call
SELECT p.oid::regprocedure, has_function_privilege('public', p.oid, 'EXECUTE') AS public FROM pg_proc p
 WHERE p.pronamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND p.prosecdef
 ORDER BY p.oid::regprocedure::text;
-- each body pins its path
SELECT p.oid::regprocedure FROM pg_proc p
 WHERE p.pronamespace IN ('outbox'::regnamespace, 'report'::regnamespace)
   AND p.prokind <> 'a' AND (p.prosecdef OR p.prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c'))
   AND NOT COALESCE(p.proconfig::text LIKE '%search_path=pg_catalog, pg_temp%', false)
 ORDER BY p.oid::regprocedure::text;
-- every object has a comment
SELECT d.classid::regclass, d.objid FROM pg_depend d
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'carshop_outbox')
   AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_namespace'::regclass)
   AND obj_description(d.objid, d.classid::regclass::name) IS NULL
 ORDER BY 1, 2;

DROP TABLE goods, mine, own;
DROP OWNED BY outbox_operator, outbox_owner, outbox_stranger, outbox_writer;
DROP ROLE outbox_operator, outbox_writer, outbox_stranger, outbox_owner, outbox_monitor;
