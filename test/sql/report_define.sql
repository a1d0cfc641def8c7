-- What report.define takes, what it refuses, and with whose rights it looks.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS carshop_outbox;
RESET client_min_messages;
\set VERBOSITY terse
\set SHOW_CONTEXT never
CREATE SCHEMA shop;
CREATE TABLE shop.by_type (event_type text PRIMARY KEY, events bigint);

-- the plain case
SELECT report.define('by_type', $$
	INSERT INTO shop.by_type AS t SELECT event_type, count(*) FROM new_events GROUP BY 1
	ON CONFLICT (event_type) DO UPDATE SET events = t.events + excluded.events
$$, 'shop.by_type', 'events by type');
SELECT name, target, description, enabled FROM report.definitions;
SELECT name, applied_seq, failed FROM report.applied;
SELECT name, target, state, events, runs, dead_letters FROM report.stat_reports;
-- the first definition has started reading
SELECT reading FROM report.instance;
SELECT count(*) FROM shop.by_type;

-- again: the statement is replaced, the description stays
SELECT report.define('by_type', $$
	INSERT INTO shop.by_type AS t SELECT upper(event_type), count(*) FROM new_events GROUP BY 1
	ON CONFLICT (event_type) DO UPDATE SET events = t.events + excluded.events
$$, 'shop.by_type');
SELECT name, statement LIKE '%upper%' AS replaced, description FROM report.definitions;

-- all columns of the event log are there
SELECT report.define('columns', $$
	WITH n AS (SELECT id, event_type, event_description, occurred_on, event_key, data, headers,
		topic, partition, kafka_offset, received_at, log_seq FROM new_events)
	INSERT INTO shop.by_type SELECT event_key, log_seq FROM n WHERE false
$$, 'shop.by_type');
-- other commands than INSERT
SELECT report.define('update', 'UPDATE shop.by_type t SET events = n.log_seq FROM new_events n WHERE n.event_type = t.event_type', 'shop.by_type');
SELECT report.define('delete', 'DELETE FROM shop.by_type t USING new_events n WHERE n.event_type = t.event_type', 'shop.by_type');
SELECT report.define('merge', 'MERGE INTO shop.by_type t USING new_events n ON n.event_type = t.event_type WHEN MATCHED THEN DELETE', 'shop.by_type');
SELECT report.define('with', 'WITH w AS (INSERT INTO shop.by_type SELECT event_key, 1 FROM new_events RETURNING *) SELECT count(*) FROM w', 'shop.by_type');
SELECT name, state FROM report.stat_reports ORDER BY name;

-- refused
SELECT report.define(NULL, 'x', 'shop.by_type');
SELECT report.define('', 'INSERT INTO shop.by_type SELECT event_key, 1 FROM new_events', 'shop.by_type');
SELECT report.define('bad', '', 'shop.by_type');
SELECT report.define('bad', 'nonsense', 'shop.by_type');
SELECT report.define('bad', 'SELECT 1; SELECT 2', 'shop.by_type');
SELECT report.define('bad', 'TRUNCATE shop.by_type', 'shop.by_type');
SELECT report.define('bad', 'INSERT INTO shop.by_type SELECT ''a'', 1', 'shop.by_type');
SELECT report.define('bad', 'SELECT count(*) FROM new_events', 'shop.by_type');
CREATE TABLE shop.other (LIKE shop.by_type);
SELECT report.define('bad', 'INSERT INTO shop.other SELECT event_key, 1 FROM new_events', 'shop.by_type');
SELECT report.define('bad', 'INSERT INTO shop.by_type SELECT nothing, 1 FROM new_events', 'shop.by_type');
SELECT report.define('bad', 'INSERT INTO shop.by_type SELECT 1/0, 1 FROM new_events', 'shop.by_type');
SELECT report.define('bad', 'INSERT INTO shop.by_type SELECT event_key, 1 FROM new_events', 'shop.no_table');
SELECT report.define('bad', 'INSERT INTO shop.by_type SELECT event_key, 1 FROM new_events', 'pg_catalog.pg_views');
\set VERBOSITY default
-- names must be qualified: the hint says so
SELECT report.define('bad', 'INSERT INTO by_type SELECT event_key, 1 FROM new_events', 'shop.by_type');
\set VERBOSITY terse
-- errors point into the statement
\set VERBOSITY default
SELECT report.define('bad', $$
	INSERT INTO shop.by_type
	SELECT event_type, nothing
	  FROM new_events
$$, 'shop.by_type');
SELECT report.define('bad', 'INSERT INTO shop.by_type SELECT event_key, 1 FROM new_events;
	DELETE FROM shop.by_type', 'shop.by_type');
SELECT report.define('bad', '
	TRUNCATE shop.by_type', 'shop.by_type');
\set VERBOSITY terse
-- a table that a crash empties, also as a partition; and what was made so later
CREATE UNLOGGED TABLE shop.unlogged (a text PRIMARY KEY);
SELECT report.define('bad', 'INSERT INTO shop.unlogged SELECT event_key FROM new_events', 'shop.unlogged');
SELECT report.mirror('bad', 'shop.unlogged');
CREATE TABLE shop.partly (a text) PARTITION BY LIST (a);
CREATE UNLOGGED TABLE shop.unlogged_part PARTITION OF shop.partly DEFAULT;
\set VERBOSITY default
SELECT report.define('bad', 'INSERT INTO shop.partly SELECT event_key FROM new_events', 'shop.partly');
\set VERBOSITY terse
ALTER TABLE shop.unlogged SET LOGGED;
SELECT report.mirror('logged', 'shop.unlogged');
ALTER TABLE shop.unlogged SET UNLOGGED;
SELECT report.rebuild('logged');
SELECT report.drop('logged');
-- deferrable constraints and constraint triggers, also of a partition
CREATE TABLE shop.deferrable (a text UNIQUE DEFERRABLE);
SELECT report.define('bad', 'INSERT INTO shop.deferrable SELECT event_key FROM new_events', 'shop.deferrable');
CREATE TABLE shop.parent (a text, b text REFERENCES shop.by_type DEFERRABLE) PARTITION BY LIST (a);
SELECT report.define('bad', 'INSERT INTO shop.parent SELECT event_key FROM new_events', 'shop.parent');
CREATE TABLE shop.triggered (a text);
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON shop.triggered FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
\set VERBOSITY default
SELECT report.define('bad', 'INSERT INTO shop.triggered SELECT event_key FROM new_events', 'shop.triggered');
\set VERBOSITY terse
SELECT count(*) FROM report.definitions WHERE name = 'bad';

-- a refusal has SQLSTATE OB004
DO $$
BEGIN
	PERFORM report.define('bad', 'SELECT count(*) FROM new_events', 'shop.by_type');
EXCEPTION WHEN SQLSTATE 'OB004' THEN
	RAISE NOTICE 'refused';
END $$;

-- a table that is not empty: somebody should know
INSERT INTO shop.other VALUES ('by hand', 1);
SELECT report.define('other', 'INSERT INTO shop.other SELECT event_key, 1 FROM new_events', 'shop.other');
SELECT report.define('other', 'INSERT INTO shop.other SELECT event_key, 2 FROM new_events', 'shop.other');

-- how long it may take: kept when it is not said again
SELECT report.define('timed', 'INSERT INTO shop.other SELECT event_key, 1 FROM new_events', 'shop.other', timeout => '-1s');
SELECT report.define('timed', 'INSERT INTO shop.other SELECT event_key, 1 FROM new_events', 'shop.other', timeout => '25 days');
SELECT report.define('timed', 'INSERT INTO shop.other SELECT event_key, 1 FROM new_events', 'shop.other', timeout => '2 min', from_now => true);
SELECT report.define('timed', 'INSERT INTO shop.other SELECT event_key, 1 FROM new_events', 'shop.other');
SELECT name, timeout, start_seq FROM report.definitions ORDER BY name;
SELECT report.drop('timed');
-- the check of a statement writes no event: not by emit, by INSERT or by a route,
-- and what was written before stays
SET client_min_messages = error;
BEGIN;
CREATE TABLE shop.sent (id uuid);
SELECT count(*) FROM outbox.capture('shop.sent', 'Sent');
SELECT outbox.emit('Before') IS NOT NULL AS id;
SELECT report.define('sends', $$
	WITH e AS (INSERT INTO outbox.event (type) SELECT 'Inserted' FROM new_events HAVING count(*) = 0 RETURNING id, seq)
	INSERT INTO shop.sent SELECT outbox.emit('Total', to_jsonb(count(*)), caused_by => (SELECT id FROM e)) FROM new_events
$$, 'shop.sent');
SAVEPOINT s;
SELECT report.define('fails', 'INSERT INTO shop.sent SELECT outbox.emit(count(*)::text || 1 / count(*)) FROM new_events', 'shop.sent');
ROLLBACK TO s;
SELECT outbox.emit('After') IS NOT NULL AS id;
SELECT type FROM outbox.event WHERE xid = pg_current_xact_id() ORDER BY seq;
SAVEPOINT s;
SELECT report.define('idle', 'WITH e AS (SELECT outbox.emit(event_type) FROM new_events) INSERT INTO shop.sent SELECT id FROM new_events', 'shop.sent');
ROLLBACK TO s;
-- what it has caused is not given to a report, unless that is allowed
SELECT report.allow_loops('sends');
SELECT loops FROM report.definitions WHERE name = 'sends';
SELECT report.allow_loops('sends', false);
SELECT loops FROM report.definitions WHERE name = 'sends';
ROLLBACK;
RESET client_min_messages;
SELECT report.allow_loops('nobody');

-- disable, enable, drop
SELECT report.disable('by_type');
SELECT state FROM report.stat_reports WHERE name = 'by_type';
SELECT report.enable('by_type');
SELECT state FROM report.stat_reports WHERE name = 'by_type';
UPDATE report.applied SET failed = true, last_error = 'x' WHERE name = 'by_type';
SELECT state, last_error FROM report.stat_reports WHERE name = 'by_type';
SELECT report.enable('by_type');
SELECT state, last_error FROM report.stat_reports WHERE name = 'by_type';
SELECT report.drop(name) FROM report.definitions WHERE name NOT IN ('by_type', 'other');
SELECT report.drop('nobody');
SELECT report.enable('nobody');
SELECT name FROM report.applied ORDER BY name;

-- a role without rights: nothing; with EXECUTE: its own tables, nobody else's
CREATE ROLE regress_reader;
SET ROLE regress_reader;
SELECT report.define('mine', 'x', 'shop.by_type');
SELECT report.start();
SELECT report.create_car_shop();
SELECT count(*) FROM report.reported_events;
RESET ROLE;
GRANT EXECUTE ON FUNCTION report.define(text, text, regclass, text, interval, boolean), report.drop(text), report.disable(text) TO regress_reader;
GRANT USAGE ON SCHEMA shop TO regress_reader;
GRANT ALL ON shop.by_type TO regress_reader;
SET ROLE regress_reader;
SELECT report.define('mine', 'INSERT INTO shop.by_type SELECT event_key, 1 FROM new_events', 'shop.by_type');
SELECT report.disable('by_type');
SELECT report.drop('by_type');
RESET ROLE;
GRANT regress_reader TO CURRENT_USER;
CREATE TABLE shop.mine (a text);
ALTER TABLE shop.mine OWNER TO regress_reader;
-- not as superuser either: code of the table's owner would run as the superuser
SELECT report.define('mine', 'INSERT INTO shop.mine SELECT event_key FROM new_events', 'shop.mine');
SET ROLE regress_reader;
SELECT report.define('mine', 'INSERT INTO shop.mine SELECT event_key FROM new_events', 'shop.mine');
SELECT report.define('by_type', 'INSERT INTO shop.mine SELECT event_key FROM new_events', 'shop.mine');
-- what runs at define runs as the caller, restricted, with a fixed path
RESET ROLE;
CREATE SCHEMA AUTHORIZATION regress_reader;
SET ROLE regress_reader;
CREATE FUNCTION regress_reader.look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% as %, path %', TG_OP, current_user, current_setting('search_path');
	BEGIN
		CREATE TEMP TABLE x ();
	EXCEPTION WHEN insufficient_privilege THEN
		RAISE NOTICE '%', SQLERRM;
	END;
	RETURN NULL;
END $$;
CREATE TRIGGER look AFTER INSERT ON shop.mine FOR EACH STATEMENT EXECUTE FUNCTION regress_reader.look();
SET search_path = regress_reader;
SELECT report.define('mine', 'INSERT INTO shop.mine SELECT event_key FROM new_events', 'shop.mine');
SHOW search_path;
RESET search_path;
RESET ROLE;
SELECT name, owner = 'regress_reader'::regrole AS by_reader FROM report.definitions ORDER BY name;

-- the car shop's reports
SELECT * FROM report.create_car_shop();
SELECT * FROM report.create_car_shop();
SELECT name, target, state FROM report.stat_reports WHERE target::text LIKE 'report.%' ORDER BY name;

-- start, stop, seek, dead letters
SELECT report.stop();
SELECT reading FROM report.instance;
SELECT report.start();
SELECT reading FROM report.instance;
SELECT report.seek('t', 0, 5), report.seek('t', 1, -2);
SELECT report.seek('t', -1, 5);
SELECT report.seek('t', 0, -1);
SELECT topic, partition, next_offset, cluster_id, lost FROM report.progress ORDER BY 1, 2;
INSERT INTO report.dead_letter (topic, partition, kafka_offset, sqlstate, message) VALUES ('t', 0, 1, '22032', 'm'), ('t', 0, 2, '22032', 'm');
SELECT report.skip(id) FROM report.dead_letters WHERE kafka_offset = 1;
SELECT report.value_text('\x636166c3a9'), report.value_text('\x636166e9'), report.value_text('\x6100'), report.value_text('');
SELECT report.skip(0);
SELECT report.retry();
SELECT kafka_offset, retry FROM report.dead_letter;
-- no reporter works for this database
SELECT report.wait_applied();

-- the views answer, worst first; members of pg_monitor may read them
SELECT report.stat_reset();
SELECT concern, level, message FROM report.status WHERE concern NOT IN ('reporter', 'librdkafka');
SELECT state, topic, partition, kafka_offset FROM report.stat_reporter ORDER BY topic, partition;
GRANT pg_monitor TO regress_reader;
SET ROLE regress_reader;
SELECT count(*) > 0 AS readable FROM report.status;
SELECT count(*) > 0 AS readable FROM report.stat_reports;
SELECT count(*) >= 0 AS readable FROM report.stat_reporter;
SELECT count(*) >= 0 AS readable FROM report.stat_dead_letters;
SELECT count(*) FROM report.dead_letters;
SELECT count(*) FROM report.reported_events;
RESET ROLE;

-- every member of the schema is described; for everybody is only what the statements of mirrors call
SELECT pg_describe_object(classid, objid, objsubid) AS undescribed
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'carshop_outbox')
	AND obj_description(objid, classid::regclass::name) IS NULL
	AND pg_describe_object(classid, objid, objsubid) LIKE '%report.%'
	AND pg_describe_object(classid, objid, objsubid) NOT LIKE 'type %';
SELECT p.oid::regprocedure AS for_everybody FROM pg_proc p
WHERE pronamespace = 'report'::regnamespace AND proname <> 'value_text' AND has_function_privilege('public', oid, 'execute') ORDER BY 1;
SELECT a.attrelid::regclass, attname AS undescribed FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
	JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'e'
WHERE relnamespace = 'report'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0
	AND col_description(attrelid, attnum) IS NULL ORDER BY 1, attnum;

SELECT count(report.drop(name)) FROM report.definitions;
DELETE FROM report.dead_letter;
DELETE FROM report.progress;
DELETE FROM report.instance;
DROP TABLE report.events_by_day, report.cars, report.customers, report.sales_by_day;
SET client_min_messages = warning;
DROP SCHEMA shop CASCADE;
DROP OWNED BY regress_reader CASCADE;
DROP ROLE regress_reader;
