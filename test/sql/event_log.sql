-- The event log: what may be asked of it, what leaves it, and what is said of that.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS carshop_outbox;
RESET client_min_messages;
\set VERBOSITY terse
\set SHOW_CONTEXT never

-- events of two persons, as the reporter stores them
INSERT INTO report.reported_events (id, event_type, occurred_on, event_key, topic, partition, kafka_offset, received_at, log_seq)
SELECT format('01998a5e-0000-7000-8000-%s', lpad(n::text, 12, '0'))::uuid, 'Moved', now(), CASE WHEN n % 2 = 0 THEN 'Ann' ELSE 'Bob' END,
	't', 0, n, now() - interval '3 days', n
FROM generate_series(1, 10) n;
INSERT INTO report.dead_letter (topic, partition, kafka_offset, report, sqlstate, message, key, log_seq, message_id) VALUES
	('t', 0, 2, 'r', '23514', 'refused', NULL, 2, NULL), ('t', 0, 3, 'r', '23514', 'refused', NULL, 3, NULL),
	('t', 0, 20, NULL, '22032', 'not JSON', 'Ann', NULL, '01998a5e-0000-7000-8000-000000000020'),
	('t', 0, 21, NULL, '22032', 'not JSON', 'Bob', NULL, '01998a5e-0000-7000-8000-000000000021');

-- what is said of it
SELECT level, message, remedy FROM report.status WHERE concern = 'event log';
SELECT retention, complete_from, due, held_by, removed FROM report.stat_event_log;
SELECT report.event_log_removed_before();
SET carshop_outbox.report_retention = '30d';
SELECT level, message, remedy FROM report.status WHERE concern = 'event log';
SET carshop_outbox.report_retention = '1d';
CREATE TABLE public.picky (n bigint);
SELECT report.define('picky', 'INSERT INTO public.picky SELECT count(*) FROM new_events', 'public.picky');
CREATE TABLE public.notes (event uuid REFERENCES report.reported_events, note text);
SELECT level, message, remedy FROM report.status WHERE concern = 'event log';
DROP TABLE public.notes;
UPDATE report.applied SET failed = true;
SELECT level, message, remedy FROM report.status WHERE concern = 'event log';
SELECT report.disable('picky');
SELECT level, message, remedy FROM report.status WHERE concern = 'event log';
-- as the reporter notes what it has removed
INSERT INTO report.removed VALUES ('t', 0, 'c', 5, now(), 5, 4, '2026-11-22 20:27:03Z');
SELECT level, message, remedy FROM report.status WHERE concern = 'event log' ORDER BY level;
SELECT report.event_log_removed_before();
-- each message counts again; what is missing from the log is known as before
SELECT report.forget_removed('t', 0), report.forget_removed('t', 0), report.forget_removed('u', 0);
SELECT topic, partition, kafka_offset, log_seq FROM report.removed;
SELECT report.drop('picky');

-- a person is erased: in the log and in the dead letters
SELECT report.erase('Ann');
SELECT report.erase('Ann'), report.erase('nobody'), report.erase(NULL);
SELECT event_key, count(*) FROM report.reported_events GROUP BY 1;
SELECT kafka_offset, report FROM report.dead_letter ORDER BY 1;
SELECT right(id::text, 2) AS id FROM report.erased ORDER BY 1;
-- what is undone is not erased
BEGIN;
SELECT report.erase('Bob');
ROLLBACK;
SELECT count(*) FROM report.reported_events;
SELECT count(*) FROM report.erased;
-- no trigger of somebody's runs with the rights of the table's owner
CREATE ROLE trickster;
GRANT TRIGGER ON report.reported_events TO trickster;
CREATE SCHEMA trickster AUTHORIZATION trickster;
SET ROLE trickster;
CREATE FUNCTION trickster.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'I am %', current_user; RETURN old; END $$;
CREATE TRIGGER look BEFORE DELETE ON report.reported_events FOR EACH ROW EXECUTE FUNCTION trickster.look();
-- and nobody erases, or looks, without a right
SELECT report.erase('Bob');
SELECT report.forget_removed('t', 0);
SELECT report.event_log_removed_before();
SELECT * FROM report.stat_event_log;
RESET ROLE;
SELECT report.erase('Bob');
DROP TRIGGER look ON report.reported_events;
REVOKE TRIGGER ON report.reported_events FROM trickster;
-- who may call it needs no right on the tables
INSERT INTO report.reported_events (id, event_type, occurred_on, event_key, topic, partition, kafka_offset, received_at, log_seq)
VALUES ('01998a5e-0000-7000-8000-000000000099', 'Moved', now(), 'Eve', 't', 0, 99, now(), 99);
GRANT USAGE ON SCHEMA report TO trickster;
GRANT EXECUTE ON FUNCTION report.erase TO trickster;
SET ROLE trickster;
SELECT report.erase('Eve');
RESET ROLE;
DROP OWNED BY trickster;
DROP ROLE trickster;

-- only the car shop has an index of its own on the log (an earlier test has made it)
SET client_min_messages = warning;
DROP INDEX IF EXISTS report.reported_events_car_number;
RESET client_min_messages;
SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'report.reported_events'::regclass ORDER BY 1;
SELECT count(*) FROM report.create_car_shop();
SELECT count(*) FROM report.create_car_shop();
SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'report.reported_events'::regclass ORDER BY 1;
SELECT report.drop(name) FROM report.definitions;
DROP INDEX report.reported_events_car_number;
DROP TABLE report.events_by_day, report.cars, report.customers, report.sales_by_day, public.picky;
DELETE FROM report.reported_events;
DELETE FROM report.dead_letter;
DELETE FROM report.erased;
DELETE FROM report.removed;
DELETE FROM report.instance;
