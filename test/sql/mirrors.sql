-- Mirrors: the statement that report.mirror generates, and what it makes of batches
-- of events, however they are cut.  A temporary table new_events stands for the
-- reporter's batch: the statement reads it by the same name.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS carshop_outbox;
RESET client_min_messages;
\set VERBOSITY terse
\set SHOW_CONTEXT never
CREATE SCHEMA mirrored;

-- ---- what is generated ----

CREATE TABLE mirrored.car (number integer PRIMARY KEY, engine text NOT NULL DEFAULT 'none', price numeric(10,2), seen timestamptz);
SELECT report.mirror('car', 'mirrored.car', '{CarChanged}', 'cars', '{CarScrapped}');
SELECT statement FROM report.definitions WHERE name = 'car';
SELECT kind, source, target FROM report.definitions WHERE name = 'car';

-- ---- refused ----

SELECT report.mirror(NULL, 'mirrored.car');
SELECT report.mirror('bad', NULL);
CREATE TABLE mirrored.keyless (id integer UNIQUE);
\set VERBOSITY default
SELECT report.mirror('bad', 'mirrored.keyless');
\set VERBOSITY terse
CREATE TABLE mirrored.late (id integer PRIMARY KEY DEFERRABLE);
SELECT report.mirror('bad', 'mirrored.late');
CREATE TABLE mirrored.made (id integer GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY, a integer);
SELECT report.mirror('bad', 'mirrored.made');
SELECT report.mirror('bad', 'mirrored.car', '{}');
SELECT report.mirror('bad', 'mirrored.car', delete_types => '{A,NULL}');
SELECT report.mirror('bad', 'pg_catalog.pg_views');
DO $$ BEGIN PERFORM report.mirror('bad', 'mirrored.keyless');
EXCEPTION WHEN SQLSTATE 'OB004' THEN RAISE NOTICE 'refused'; END $$;
SELECT count(*) FROM report.definitions WHERE name = 'bad';

-- ---- batches ----

CREATE TEMPORARY TABLE new_events (LIKE report.reported_events INCLUDING DEFAULTS);
ALTER TABLE new_events ALTER id SET DEFAULT gen_random_uuid(), ALTER occurred_on SET DEFAULT now(), ALTER topic SET DEFAULT 'cars',
	ALTER partition SET DEFAULT 0, ALTER kafka_offset SET DEFAULT 0, ALTER received_at SET DEFAULT now();
CREATE TEMPORARY SEQUENCE seq;
ALTER TABLE new_events ALTER log_seq SET DEFAULT nextval('seq');

CREATE PROCEDURE pg_temp.run(report text) LANGUAGE plpgsql AS $$
DECLARE made text;
BEGIN
	SELECT statement INTO STRICT made FROM report.definitions WHERE name = report;
	EXECUTE made;
	TRUNCATE new_events;
END $$;

-- a row, with members that the table does not have and a default where one is missing
INSERT INTO new_events (event_type, data) VALUES
	('CarChanged', '{"number": 1, "price": 10.555, "seen": "2026-01-02T03:04:05Z", "other": {}}'),
	('CarChanged', '{"number": "2", "engine": "steam"}'),
	('Elsewhere', '{"number": 3, "engine": "not asked for"}');
INSERT INTO new_events (event_type, data, topic) VALUES ('CarChanged', '{"number": 4}', 'another topic');
CALL pg_temp.run('car');
SELECT * FROM mirrored.car ORDER BY number;
-- the newest of a batch; what it does not say is at its default again
INSERT INTO new_events (event_type, data) VALUES
	('CarChanged', '{"number": 2, "engine": "a", "price": 1}'),
	('CarChanged', '{"number": 2, "engine": "b", "price": 2}'),
	('CarChanged', '{"number": 2, "price": 3}');
CALL pg_temp.run('car');
SELECT * FROM mirrored.car ORDER BY number;
-- ended: a type of delete_types, with the row; a tombstone; a null; ended and made again
INSERT INTO new_events (event_type, event_key, data) VALUES
	('CarScrapped', 'x', '{"number": 1, "price": 4}'), ('CarChanged', '2', NULL), ('CarChanged', '3', 'null'),
	('CarChanged', '5', NULL), ('CarChanged', NULL, '{"number": 5}'), ('CarChanged', NULL, '{"number": 6}'), ('CarScrapped', '6', NULL);
CALL pg_temp.run('car');
SELECT * FROM mirrored.car ORDER BY number;
-- images, ours and Debezium's; a key that changes leaves no ghost
INSERT INTO new_events (event_type, data) VALUES
	('CarChanged', '{"old": null, "new": {"number": 10, "engine": "x"}}'),
	('CarChanged', '{"before": null, "after": {"number": 20, "engine": "x"}, "op": "c"}');
CALL pg_temp.run('car');
INSERT INTO new_events (event_type, data) VALUES
	('CarChanged', '{"old": {"number": 10}, "new": {"number": 11, "engine": "y"}}'),
	('CarChanged', '{"before": {"number": 20}, "after": {"number": 20, "engine": "y"}, "op": "u", "source": {}}'),
	('CarChanged', '{"old": {"number": 5}, "new": null}');
CALL pg_temp.run('car');
SELECT * FROM mirrored.car ORDER BY number;
INSERT INTO new_events (event_type, data) VALUES
	('CarChanged', '{"before": {"number": 20}, "after": null, "op": "d"}'), ('CarScrapped', '{"old": {"number": 11}, "new": {"number": 11}}');
CALL pg_temp.run('car');
SELECT count(*) FROM mirrored.car;

-- an event's fault: no key, no value of the type, null where none may be; each is one of class 22 or 23
DO $$
DECLARE
	made text;
	event record;
BEGIN
	SELECT statement INTO made FROM report.definitions WHERE name = 'car';
	FOR event IN SELECT * FROM (VALUES ('CarChanged', NULL, '{"engine": "x"}'::jsonb), ('CarChanged', NULL, '{"number": "x"}'),
		('CarChanged', NULL, '{"number": 1, "price": "1,5"}'), ('CarChanged', NULL, '{"number": 1, "engine": null}'), ('CarChanged', NULL, '[1]'),
		('CarChanged', NULL, NULL), ('CarScrapped', '', '{"engine": "x"}'), ('CarScrapped', 'x', '{"number": null}'), ('CarChanged', '1,2', NULL)) v (type, key, data)
	LOOP
		BEGIN
			INSERT INTO new_events (event_type, event_key, data) VALUES (event.type, event.key, event.data);
			EXECUTE made;
			RAISE NOTICE 'taken: %', event;
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE '% %', SQLSTATE, SQLERRM;
		END;
	END LOOP;
END $$;

-- a unique value goes from a row that ends to another one
CREATE TABLE mirrored.person (id integer PRIMARY KEY, email text UNIQUE);
SELECT report.mirror('person', 'mirrored.person');
INSERT INTO new_events (event_type, data) VALUES ('P', '{"id": 1, "email": "a@b"}');
CALL pg_temp.run('person');
INSERT INTO new_events (event_type, event_key, data) VALUES ('P', '1', NULL), ('P', '2', '{"id": 2, "email": "a@b"}');
CALL pg_temp.run('person');
SELECT * FROM mirrored.person;

-- keys of several columns, in the key's order; names that want quotes; nothing but a key
CREATE TABLE mirrored."Two" ("Nr" integer, "The shop" text COLLATE "C", PRIMARY KEY ("The shop", "Nr"));
SELECT report.mirror('two', 'mirrored."Two"');
INSERT INTO new_events (event_type, data)
	SELECT 'T', jsonb_build_object('Nr', n, 'The shop', s) FROM generate_series(1, 5) n, unnest('{a,"b,c",d}'::text[]) s;
CALL pg_temp.run('two');
INSERT INTO new_events (event_type, event_key) VALUES ('T', 'a,1'), ('T', '["a", 2]'), ('T', '{"Nr": "3", "The shop": "a"}'),
	('T', '{"schema": {}, "payload": {"Nr": 4, "The shop": "a"}}'), ('T', '["b,c", 5]');
CALL pg_temp.run('two');
SELECT * FROM mirrored."Two" ORDER BY 2, 1;
\set VERBOSITY default
INSERT INTO new_events (event_type, event_key) VALUES ('T', 'b,c,1');
CALL pg_temp.run('two');
TRUNCATE new_events;
\set VERBOSITY terse
-- one column takes the key as it is, also if it looks like JSON
SELECT report.mirror_key('{id}', key, NULL, NULL) FROM (VALUES ('a,b'), ('["a"]'), ('{a'), ('{"a": 1}'), ('{"id": 1}'), ('{"payload": 1}')) v (key);
-- whether an event has to do with a row: nothing is raised, 7 is "7" and 7.0
SELECT ends, event_key, former, state, report.mirror_touches('{id}', ends, event_key, former, state, '{"id": 7}')
FROM (VALUES (false, NULL, NULL::jsonb, '{"id": 7}'::jsonb), (false, '7', NULL, '{"id": 8}'), (false, NULL, '{"id": "7"}', '{"id": 8}'), (true, '8', NULL, '{"id": 7.0}'),
	(false, '7', NULL, NULL), (true, '7', NULL, '{"id": null}'), (true, 'x', NULL, NULL), (true, NULL, NULL, NULL), (false, NULL, NULL, '[7]')) v (ends, event_key, former, state);
SELECT report.mirror_touches('{a,b}', true, key, NULL, NULL, '{"a": "x", "b": 2}') FROM (VALUES ('x,2'), ('["x", "2"]'), ('x,y,2')) v (key);

-- columns that number themselves or are computed, domains, partitions
CREATE DOMAIN mirrored.short AS text DEFAULT '-' NOT NULL CHECK (length(VALUE) < 4);
CREATE TABLE mirrored.odd (id bigint GENERATED ALWAYS AS IDENTITY, gone integer, a mirrored.short, twice text GENERATED ALWAYS AS (a || a) STORED,
	nr integer GENERATED ALWAYS AS IDENTITY, list integer[] DEFAULT '{1}', PRIMARY KEY (id)) PARTITION BY RANGE (id);
ALTER TABLE mirrored.odd DROP gone;
CREATE TABLE mirrored.odd_low PARTITION OF mirrored.odd FOR VALUES FROM (0) TO (10);
CREATE TABLE mirrored.odd_high PARTITION OF mirrored.odd FOR VALUES FROM (10) TO (100);
SELECT report.mirror('odd', 'mirrored.odd');
INSERT INTO new_events (event_type, event_key, data) VALUES ('O', '1', '{"id": 1, "a": "x", "twice": "no", "nr": 7, "list": [2, 3]}'),
	('O', '12', '{"id": 12, "a": ""}'), ('O', '13', '{"id": 13, "a": "z"}');
CALL pg_temp.run('odd');
INSERT INTO new_events (event_type, event_key, data) VALUES ('O', '13', NULL), ('O', '12', '{"id": 12, "a": "y"}');
CALL pg_temp.run('odd');
SELECT id, a, twice, nr, list, tableoid::regclass FROM mirrored.odd ORDER BY id;
-- a member of a column that is not filled may be anything; a domain's default takes the place of a member that is missing, not of a null
INSERT INTO new_events (event_type, data) VALUES ('O', '{"id": 14, "nr": "none", "twice": {}, "gone": []}');
CALL pg_temp.run('odd');
SELECT id, a, twice, nr, list FROM mirrored.odd WHERE id = 14;
INSERT INTO new_events (event_type, data) VALUES ('O', '{"id": 15, "a": null}');
CALL pg_temp.run('odd');
TRUNCATE new_events;
INSERT INTO new_events (event_type, data) VALUES ('O', '[15]');
CALL pg_temp.run('odd');
TRUNCATE new_events;

-- a table whose columns are named as an image's members
CREATE TABLE mirrored.renamed (id integer PRIMARY KEY, old jsonb, new jsonb);
SELECT report.mirror('renamed', 'mirrored.renamed');
INSERT INTO new_events (event_type, data) VALUES ('R', '{"id": 1, "old": {"a": 1}, "new": null}');
CALL pg_temp.run('renamed');
SELECT * FROM mirrored.renamed;

-- ---- in whatever order: batches cut anywhere, dead letters retried after their successors ----

CREATE TABLE mirrored.item (id integer PRIMARY KEY, note text DEFAULT 'none', last_seq integer);
SELECT report.mirror('item', 'mirrored.item', delete_types => '{Gone}');
CREATE TEMPORARY TABLE history (LIKE new_events INCLUDING DEFAULTS);
CREATE TEMPORARY TABLE expected (id integer PRIMARY KEY, note text, last_seq integer);

-- What one event does, said differently.
CREATE PROCEDURE pg_temp.apply_one(e history) LANGUAGE plpgsql AS $$
DECLARE
	image boolean := e.data ? 'old';
	state jsonb := CASE WHEN e.event_type = 'Gone' THEN 'null' WHEN image THEN e.data -> 'new' ELSE COALESCE(e.data, 'null') END;
	ended integer := CASE WHEN image THEN (e.data -> 'old' ->> 'id')::integer WHEN state = 'null' THEN COALESCE(e.data ->> 'id', e.event_key)::integer END;
BEGIN
	DELETE FROM expected WHERE id = ended;
	IF state <> 'null' THEN
		DELETE FROM expected WHERE id = (state ->> 'id')::integer;
		INSERT INTO expected VALUES ((state ->> 'id')::integer, CASE WHEN state ? 'note' THEN state ->> 'note' ELSE 'none' END, (state ->> 'last_seq')::integer);
	END IF;
END $$;

CREATE FUNCTION pg_temp.some_key() RETURNS integer LANGUAGE sql VOLATILE AS 'SELECT 1 + floor(random() * 6)::integer';

CREATE PROCEDURE pg_temp.play(rounds integer, late_share double precision) LANGUAGE plpgsql AS $$
DECLARE
	made text := (SELECT statement FROM report.definitions WHERE name = 'item');
	n integer;
	upto integer;
	event history;
	letter record;
	wrong integer := 0;
	late integer := 0;
BEGIN
	FOR round IN 1 .. rounds LOOP
		TRUNCATE history, expected, mirrored.item;
		DELETE FROM report.mirror_row;
		-- a history
		n := 5 + floor(random() * 60);
		FOR s IN 1 .. n LOOP
			event := NULL;
			event.log_seq := s;
			event.event_type := 'Item';
			event.event_key := pg_temp.some_key();
			event.data := jsonb_build_object('id', event.event_key::integer, 'last_seq', s)
				|| CASE WHEN random() < 0.5 THEN '{}' ELSE jsonb_build_object('note', 'n' || s) END;
			CASE floor(random() * 8)::integer
				WHEN 0 THEN event.data := NULL;
				WHEN 1 THEN event.data := 'null';
				WHEN 2 THEN event.event_type := 'Gone';
				WHEN 3 THEN event.data := jsonb_build_object('old', NULL, 'new', event.data);
				WHEN 4 THEN event.data := jsonb_build_object('old', jsonb_build_object('id', pg_temp.some_key()), 'new', event.data);
				WHEN 5 THEN event.data := jsonb_build_object('old', event.data, 'new', NULL);
				ELSE NULL;
			END CASE;
			INSERT INTO history (log_seq, event_type, event_key, data) VALUES (s, event.event_type, event.event_key, event.data);
			CALL pg_temp.apply_one(event);
		END LOOP;
		-- in batches; some events are refused and come later
		upto := 0;
		WHILE upto < n OR EXISTS (SELECT FROM report.dead_letter WHERE report = 'item') LOOP
			IF upto < n AND random() < late_share THEN
				-- the next one is refused
				upto := upto + 1;
				INSERT INTO report.dead_letter (topic, partition, kafka_offset, report, sqlstate, message, log_seq)
					VALUES ('cars', 0, 0, 'item', '23514', 'refused', upto);
				late := late + 1;
			ELSIF upto < n AND random() < 0.7 THEN
				INSERT INTO new_events SELECT * FROM history WHERE log_seq > upto ORDER BY log_seq LIMIT 1 + floor(random() * 10);
				SELECT max(log_seq) INTO upto FROM new_events;
				EXECUTE made;
			ELSE
				SELECT id, log_seq INTO letter FROM report.dead_letter WHERE report = 'item' ORDER BY random() LIMIT 1;
				CONTINUE WHEN NOT FOUND;
				INSERT INTO new_events SELECT * FROM history WHERE log_seq = letter.log_seq;
				EXECUTE made;
				DELETE FROM report.dead_letter WHERE id = letter.id;
			END IF;
			TRUNCATE new_events;
		END LOOP;
		wrong := wrong + (SELECT count(*) FROM expected e FULL JOIN mirrored.item i USING (id)
			WHERE (e.note, e.last_seq) IS DISTINCT FROM (i.note, i.last_seq));
	END LOOP;
	RAISE NOTICE '% wrong rows, late events: %', wrong, late > 0;
END $$;

SELECT setseed(0.5);
CALL pg_temp.play(20, 0);
-- while there are no dead letters, nothing but the rows is kept
SELECT count(*) FROM report.mirror_row;
CALL pg_temp.play(50, 0.2);
INSERT INTO new_events (event_type, data) VALUES ('Item', '{"id": 1}');
CALL pg_temp.run('item');
SELECT count(*) FROM report.mirror_row;

-- keys that are equal and not the same (1 month and 30 days, 1.0 and 1): the row has the newest, and an old one that comes late is known for what it is
CREATE TABLE mirrored.span (span interval, nr numeric, note text, PRIMARY KEY (span, nr));
SELECT report.mirror('span', 'mirrored.span');
INSERT INTO new_events (event_type, data) VALUES ('S', '{"span": "1 month", "nr": 1.0, "note": "a"}'), ('S', '{"span": "30 days", "nr": 1, "note": "b"}');
CALL pg_temp.run('span');
SELECT * FROM mirrored.span;
INSERT INTO new_events (event_type, data) VALUES ('S', '{"span": "1 month", "nr": 1.00, "note": "c"}');
CALL pg_temp.run('span');
SELECT * FROM mirrored.span;
INSERT INTO report.dead_letter (topic, partition, kafka_offset, report, sqlstate, message) VALUES ('t', 0, 0, 'span', '23514', 'refused');
INSERT INTO new_events (event_type, data, log_seq) VALUES ('S', '{"span": "30 days", "nr": 1, "note": "newer"}', 1000003), ('S', '{"span": "1 day", "nr": 1, "note": "other"}', 1000003);
CALL pg_temp.run('span');
INSERT INTO new_events (event_type, data, log_seq) VALUES ('S', '{"span": "1 month", "nr": 1.0, "note": "late"}', 1000001), ('S', '{"span": "1 day", "nr": 2, "note": "late"}', 1000001);
CALL pg_temp.run('span');
INSERT INTO new_events (event_type, event_key, log_seq) VALUES ('S', '720:00,1.0', 1000002);
CALL pg_temp.run('span');
SELECT * FROM mirrored.span ORDER BY span, nr;
SELECT report.drop('span');

-- ---- what went into a row ----

-- the log as the reporter would have written it; one event has no key that could be read, one was refused
INSERT INTO new_events (event_type, event_key, data, log_seq) VALUES
	('Item', '1', '{"id": 1, "note": "a"}', 1), ('Item', '2', '{"id": 2}', 2), ('Item', 'x', NULL, 3), ('Item', '1', '{"id": 1, "note": "refused"}', 4),
	('Item', '2', '{"old": {"id": 1}, "new": {"id": 2}}', 5), ('Item', '1', NULL, 6), ('Gone', NULL, '{"id": "1"}', 7), ('Item', '1', '{"id": 1, "note": "later"}', 8);
INSERT INTO report.reported_events SELECT * FROM new_events;
TRUNCATE new_events;
UPDATE report.applied SET applied_seq = 7 WHERE name = 'item';
INSERT INTO report.dead_letter (topic, partition, kafka_offset, report, sqlstate, message, log_seq) VALUES ('t', 0, 0, 'item', '23514', 'x', 4);
SELECT log_seq, event_type, event_key, data FROM report.explain('item', '{"id": 1}');
SELECT log_seq FROM report.explain('item', '{"id": "2"}');
SELECT log_seq FROM report.explain('item', '{"id": 3}');
\set VERBOSITY default
SELECT log_seq FROM report.explain('item', '{"note": 3}');
\set VERBOSITY terse
DELETE FROM report.reported_events;
DELETE FROM report.dead_letter;

-- ---- whose it is ----

CREATE ROLE regress_mirror;
GRANT USAGE ON SCHEMA mirrored TO regress_mirror;
SET ROLE regress_mirror;
SELECT report.mirror('mine', 'mirrored.item');
RESET ROLE;
GRANT EXECUTE ON FUNCTION report.mirror TO regress_mirror;
INSERT INTO report.dead_letter (topic, partition, kafka_offset, report, sqlstate, message) VALUES ('t', 0, 0, 'item', '23514', 'x'), ('t', 0, 0, 'mine', '23514', 'x');
SET ROLE regress_mirror;
SELECT report.mirror('mine', 'mirrored.item');
-- the guard of somebody else's mirror is out of reach
SELECT report.mirror_guarded('item'), report.mirror_take('item', '[1]', 1);
SELECT count(*) FROM report.mirror_row;
RESET ROLE;
CREATE TABLE mirrored.mine (id integer PRIMARY KEY);
ALTER TABLE mirrored.mine OWNER TO regress_mirror;
GRANT SELECT ON new_events TO regress_mirror;
SET ROLE regress_mirror;
SELECT report.mirror('mine', 'mirrored.mine');
SELECT report.mirror_guarded('mine'), report.mirror_take('mine', '[1]', 2), report.mirror_take('mine', '[1]', 1), report.mirror_take('mine', '[1]', 2);
RESET ROLE;
SELECT * FROM report.mirror_row;
-- ended with the report
SELECT report.drop('mine');
SELECT count(*) FROM report.mirror_row;

SELECT count(report.drop(name)) FROM report.definitions;
DELETE FROM report.dead_letter;
SELECT count(*) FROM report.definitions;
SET client_min_messages = error;
DROP SCHEMA mirrored CASCADE;
RESET client_min_messages;
REVOKE ALL ON FUNCTION report.mirror FROM regress_mirror;
DROP OWNED BY regress_mirror;
DROP ROLE regress_mirror;
DELETE FROM report.instance;
