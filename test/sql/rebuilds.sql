-- report.rebuild and report.as_of: what they make, what they refuse, and with whose
-- rights and settings.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS carshop_outbox;
RESET client_min_messages;
\set VERBOSITY terse
\set SHOW_CONTEXT never
CREATE SCHEMA shop;
CREATE FUNCTION shop.add_events(first bigint, last bigint) RETURNS void LANGUAGE sql AS $$
	INSERT INTO report.reported_events (id, event_type, occurred_on, event_key, data, topic, partition, kafka_offset, received_at, log_seq)
	SELECT format('01998a5e-0000-7000-8000-%s', lpad(n::text, 12, '0'))::uuid, 'T' || n % 3,
		timestamptz '2026-11-22 23:30:00Z' + n * interval '1 minute', n % 5, jsonb_build_object('n', n), 't', 0, n,
		timestamptz '2026-11-22 12:00:00Z' + n * interval '1 second', n
	FROM generate_series(first, last) n
$$;
SELECT shop.add_events(1, 100);

-- a report that no reporter has ever run
CREATE TABLE shop.by_type (event_type text PRIMARY KEY, events bigint NOT NULL, newest bigint);
SELECT report.define('by type', $$
	INSERT INTO shop.by_type AS t SELECT event_type, count(*), max(log_seq) FROM new_events GROUP BY 1
	ON CONFLICT (event_type) DO UPDATE SET events = t.events + excluded.events, newest = excluded.newest
$$, 'shop.by_type');
INSERT INTO shop.by_type VALUES ('by hand', 1);
SELECT report.rebuild('by type');
SELECT * FROM shop.by_type ORDER BY 1;
SELECT applied_seq, events, runs, dead_letters FROM report.applied;
-- again: the same
SELECT report.rebuild(name => 'by type');
SELECT * FROM shop.by_type ORDER BY 1;
-- taken back with its transaction
BEGIN;
SELECT shop.add_events(101, 110);
SELECT report.rebuild('by type');
SELECT sum(events) FROM shop.by_type;
ROLLBACK;
SELECT sum(events), max(newest) FROM shop.by_type;
SELECT applied_seq FROM report.applied;
SELECT name, state, rebuild_done, rebuild_total, rebuild_ends FROM report.stat_reports;
SELECT count(*) FROM report.rebuilds();

-- a report that had failed goes on; a disabled one stays disabled
UPDATE report.applied SET failed = true, last_error = 'x';
SELECT report.rebuild('by type');
SELECT failed, last_error FROM report.applied;
SELECT report.disable('by type');
SELECT report.rebuild('by type');
SELECT state FROM report.stat_reports;
SELECT report.enable('by type');

-- bad events: dead letters again, each once; the others are there
CREATE TABLE shop.strict (n bigint PRIMARY KEY CHECK (n % 7 <> 0));
SELECT report.define('strict', 'INSERT INTO shop.strict SELECT (data ->> ''n'')::bigint FROM new_events', 'shop.strict');
INSERT INTO report.dead_letter (topic, partition, kafka_offset, report, sqlstate, message, log_seq) VALUES ('t', 0, 1, 'strict', '23514', 'of before', 1);
INSERT INTO report.dead_letter (topic, partition, kafka_offset, sqlstate, message) VALUES ('t', 0, 2, '22032', 'a message');
SELECT report.rebuild('strict');
SELECT report.rebuild('strict');
SELECT count(*), min(n), max(n) FROM shop.strict;
SELECT array_agg(log_seq ORDER BY log_seq) AS refused, count(DISTINCT message) FROM report.dead_letter WHERE report = 'strict';
SELECT context FROM report.dead_letter WHERE report = 'strict' AND log_seq = 7;
SELECT message FROM report.dead_letter WHERE report IS NULL;
SELECT dead_letters FROM report.applied WHERE name = 'strict';

-- two events of one key: in pieces, and right
CREATE TABLE shop.newest (key text PRIMARY KEY, n bigint);
SELECT report.define('newest', $$
	INSERT INTO shop.newest SELECT event_key, log_seq FROM new_events ON CONFLICT (key) DO UPDATE SET n = excluded.n
$$, 'shop.newest');
SELECT report.rebuild('newest');
SELECT * FROM shop.newest ORDER BY 1;

-- ... also where one of them is refused
ALTER TABLE shop.newest ADD CONSTRAINT picked CHECK (n <> 50);
SELECT report.rebuild('newest');
SELECT log_seq FROM report.dead_letter WHERE report = 'newest';
SELECT * FROM report.as_of('newest', 51) AS r ORDER BY r ->> 'key';

-- what the statement gives does not depend on the caller's settings
CREATE TABLE shop.by_day (day text PRIMARY KEY, events bigint);
SELECT report.define('by day', $$
	INSERT INTO shop.by_day AS t SELECT occurred_on::date::text, count(*) FROM new_events GROUP BY 1
	ON CONFLICT (day) DO UPDATE SET events = t.events + excluded.events
$$, 'shop.by_day');
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German';
SELECT report.rebuild('by day');
SELECT * FROM shop.by_day ORDER BY 1;
SELECT * FROM report.as_of('by day', 31) AS r ORDER BY r ->> 'day';
SHOW TimeZone;
RESET TimeZone;
RESET DateStyle;

-- the statement fails by its own fault: nothing has happened
CREATE TABLE shop.other (v bigint);
INSERT INTO shop.other VALUES (42);
CREATE FUNCTION shop.fragile(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT $1';
SELECT report.define('fragile', 'INSERT INTO shop.other SELECT shop.fragile(log_seq) FROM new_events', 'shop.other');
DROP FUNCTION shop.fragile;
SELECT report.rebuild('fragile');
SELECT * FROM shop.other;
SELECT count(*) FROM report.rebuilds();

-- refused
SELECT report.rebuild('nobody');
SELECT report.as_of('nobody', 1);
SELECT report.rebuild(NULL);
BEGIN READ ONLY;
SELECT report.rebuild('strict');
ROLLBACK;
BEGIN READ ONLY;
SELECT report.as_of('strict', 1);
ROLLBACK;
\set VERBOSITY default
-- another report's rows are in the table
SELECT report.define('twin', 'INSERT INTO shop.other SELECT log_seq FROM new_events', 'shop.other');
SELECT report.rebuild('twin');
SELECT report.drop('twin');
-- rows of another table would go, too
CREATE TABLE shop.note (event_type text REFERENCES shop.by_type ON DELETE CASCADE, note text);
SELECT report.rebuild('by type');
DROP TABLE shop.note;
-- rows that stay
CREATE RULE keep AS ON DELETE TO shop.by_day DO INSTEAD NOTHING;
SELECT report.rebuild('by day');
DROP RULE keep ON shop.by_day;
\set VERBOSITY terse

-- by somebody else: no; by the owner: as the owner, restricted
CREATE ROLE regress_rebuilder;
CREATE ROLE regress_onlooker;
GRANT EXECUTE ON FUNCTION report.rebuild(text, boolean), report.as_of(text, bigint), report.as_of(text, timestamptz),
	report.define TO regress_rebuilder, regress_onlooker;
GRANT ALL ON SCHEMA shop TO regress_rebuilder;
SET ROLE regress_onlooker;
SELECT report.rebuild('strict');
SELECT report.as_of('strict', 10);
RESET ROLE;
SET ROLE regress_rebuilder;
CREATE TABLE shop.mine (n bigint, who text);
SELECT report.define('mine', 'INSERT INTO shop.mine SELECT log_seq, current_user FROM new_events WHERE log_seq <= 3', 'shop.mine');
CREATE FUNCTION shop.look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% as %, path %', TG_OP, current_user, current_setting('search_path');
	BEGIN
		CREATE TEMP TABLE x ();
	EXCEPTION WHEN insufficient_privilege THEN
		RAISE NOTICE '%', SQLERRM;
	END;
	RETURN NULL;
END $$;
CREATE TRIGGER look AFTER INSERT OR DELETE ON shop.mine FOR EACH STATEMENT EXECUTE FUNCTION shop.look();
RESET ROLE;
SELECT report.rebuild('mine');
SELECT * FROM shop.mine ORDER BY n;
SELECT report.as_of('mine', 2);
-- row-level security that the owner has put above himself
ALTER TABLE shop.mine ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY half ON shop.mine USING (n > 1);
SELECT report.rebuild('mine');
SELECT count(*) FROM shop.mine;

-- an earlier content
SELECT * FROM report.as_of('by type', 10) AS r ORDER BY r ->> 'event_type';
SELECT * FROM report.as_of('by type', 0);
SELECT count(*) FROM report.as_of('by type', -5);
SELECT r FROM report.as_of('by type', 1000000) AS r ORDER BY r ->> 'event_type';
SELECT * FROM report.as_of('by type', timestamptz '2026-11-22 12:00:05Z') AS r ORDER BY r ->> 'event_type';
-- what was refused is not in it
SELECT count(*), max((r ->> 'n')::int) FROM report.as_of('strict', 14) r;
DELETE FROM report.dead_letter WHERE report = 'strict' AND log_seq = 7;
SELECT count(*), max((r ->> 'n')::int) FROM report.as_of('strict', 14) r;
-- nothing is left of it, and the table has not changed
SELECT * FROM shop.by_type ORDER BY 1;
SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r';
-- within one transaction, twice, and beside an error that was caught
BEGIN;
SELECT count(*) FROM report.as_of('by type', 10) a, report.as_of('by type', 20) b;
DO $$
BEGIN
	PERFORM report.as_of('fragile', 10);
EXCEPTION WHEN undefined_function THEN
	RAISE NOTICE 'caught';
END $$;
SELECT count(*) FROM report.as_of('by type', 10);
COMMIT;
-- the table is named in many ways
CREATE TABLE shop."My ""Table" (key text, n bigint, CONSTRAINT my_key PRIMARY KEY (key));
SELECT report.define('names', $$
	WITH e AS (SELECT event_key, count(*) AS n FROM "new_events" GROUP BY 1)
	INSERT INTO /* here */ "shop" . "My ""Table" SELECT event_key, e.n + COALESCE((SELECT shop."My ""Table".n FROM shop."My ""Table" WHERE key = event_key), 0)
	FROM e ON CONFLICT (key) DO UPDATE SET n = excluded.n
$$, 'shop."My ""Table"');
SELECT report.rebuild('names');
SELECT sum(n) FROM shop."My ""Table";
SELECT sum((r ->> 'n')::int) FROM report.as_of('names', 50) r;
-- by a view: refused
CREATE VIEW shop.window AS SELECT * FROM shop.newest;
SELECT report.define('newest', 'INSERT INTO shop.window SELECT DISTINCT ON (event_key) event_key, log_seq FROM new_events ORDER BY event_key, log_seq DESC ON CONFLICT (key) DO UPDATE SET n = excluded.n', 'shop.newest');
SELECT report.rebuild('newest');
\set VERBOSITY default
SELECT report.as_of('newest', 10);
\set VERBOSITY terse

-- a SELECT that keeps more columns than it shows, and a mirror: what people read
SELECT report.define_select('mean', $$
	SELECT event_type, avg((data ->> 'n')::int) AS mean, report.latest(event_key) AS last FROM new_events GROUP BY 1
$$, 'shop.mean');
CREATE TABLE shop.newest_key (key text PRIMARY KEY, n bigint CHECK (n <> 98));
SELECT report.mirror('newest key', 'shop.newest_key');
UPDATE report.reported_events SET data = data || jsonb_build_object('key', event_key);
SELECT report.rebuild('mean'), report.rebuild('newest key');
SELECT event_type, round(mean, 2) AS mean, last FROM shop.mean ORDER BY 1;
SELECT * FROM shop.newest_key ORDER BY 1;
SELECT log_seq FROM report.dead_letter WHERE report = 'newest key';
SELECT report.as_of('mean', 100) EXCEPT SELECT to_jsonb(t) FROM shop.mean t;
SELECT report.as_of('newest key', 100) EXCEPT SELECT to_jsonb(t) FROM shop.newest_key t;
SELECT r ->> 'event_type' AS type, (r ->> 'mean')::numeric(6, 2) AS mean, r ->> 'last' AS last FROM report.as_of('mean', 10) r ORDER BY 1;
SELECT r FROM report.as_of('newest key', 98) r ORDER BY r ->> 'key';
SELECT count(*) FROM shop.mean_state;
-- who looks back has nothing of the mirror's guard in hand, which the reporter would wait for
CREATE FUNCTION shop.guard_is_free() RETURNS boolean LANGUAGE sql AS $$
	SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'report.mirror_row'::regclass AND mode = 'RowExclusiveLock')
$$;
ALTER TABLE shop.newest_key ADD CONSTRAINT free CHECK (shop.guard_is_free());
SELECT count(*) FROM report.as_of('newest key', 100);
ALTER TABLE shop.newest_key DROP CONSTRAINT free;
-- nor keys of events that it does not write
CREATE TABLE shop.sent (id uuid);
SELECT report.define('locking', 'INSERT INTO shop.sent SELECT outbox.emit(event_type, key => event_key, lock_key => true, caused_by => id) FROM new_events', 'shop.sent');
UPDATE report.applied SET applied_seq = 100 WHERE name = 'locking';
BEGIN;
SELECT report.rebuild('locking');
SELECT count(*) FROM shop.sent;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory';
ROLLBACK;
-- what was refused has published nothing: it does so when it is made good; what is refused now has
CREATE TABLE shop.picked (log_seq bigint CHECK (log_seq NOT IN (20, 21, 70)), id uuid);
SELECT report.define('publishing', 'INSERT INTO shop.picked SELECT log_seq, outbox.emit(''Picked'', key => log_seq::text, caused_by => id) FROM new_events', 'shop.picked');
UPDATE report.applied SET applied_seq = 99 WHERE name = 'publishing';
INSERT INTO report.dead_letter (topic, partition, kafka_offset, report, sqlstate, message, log_seq, published) VALUES
	('t', 0, 10, 'publishing', '23514', 'x', 10, false), ('t', 0, 20, 'publishing', '23514', 'x', 20, false),
	('t', 0, 21, 'publishing', '23514', 'x', 21, true), ('t', 0, 30, 'publishing', '23514', 'x', 30, true);
SELECT report.rebuild('publishing');
SELECT array_agg(aggregateid::int ORDER BY seq) AS published FROM outbox.event WHERE type = 'Picked';
SELECT log_seq, published FROM report.dead_letter WHERE report = 'publishing' ORDER BY 1;
SELECT report.rebuild('publishing');
SELECT count(*) AS published FROM outbox.event WHERE type = 'Picked';
-- a table that is not emptied
CREATE TABLE shop.runs (n bigint);
SELECT report.define('two', 'WITH r AS (INSERT INTO shop.runs SELECT count(*) FROM new_events) INSERT INTO shop.sent SELECT id FROM new_events', 'shop.sent');
SELECT report.drop('locking');
\set VERBOSITY default
SELECT report.rebuild('two');
\set VERBOSITY terse
SELECT report.drop('two'), report.drop('publishing');

-- the check of a definition leaves nothing behind; from now on, for all kinds
CREATE TABLE shop.total (n bigint);
SELECT report.define('total', 'INSERT INTO shop.total SELECT count(*) FROM new_events', 'shop.total');
SELECT count(*) FROM shop.total;
SELECT report.define_select('later', 'SELECT event_type, count(*) AS events FROM new_events GROUP BY 1', 'shop.later', timeout => '5 s', from_now => true);
CREATE TABLE shop.later_key (key text PRIMARY KEY, n bigint);
SELECT report.mirror('later key', 'shop.later_key', from_now => true);
SELECT name, start_seq, timeout FROM report.definitions WHERE name LIKE 'later%' ORDER BY 1;
SELECT shop.add_events(101, 104);
UPDATE report.reported_events SET data = data || jsonb_build_object('key', event_key) WHERE log_seq > 100;
SELECT report.rebuild('later'), report.rebuild('later key');
SELECT sum(events) FROM shop.later;
SELECT * FROM shop.later_key ORDER BY 1;
SELECT log_seq FROM report.explain('later', '{"event_type": "T2"}');
SELECT count(*) FROM report.as_of('later', 100);

SET client_min_messages = error;
SELECT count(report.drop(name)) FROM report.definitions;
RESET client_min_messages;
DELETE FROM report.dead_letter;
DELETE FROM report.reported_events;
DELETE FROM report.instance;
SET client_min_messages = warning;
DROP SCHEMA shop CASCADE;
DROP OWNED BY regress_rebuilder, regress_onlooker CASCADE;
DROP ROLE regress_rebuilder, regress_onlooker;
