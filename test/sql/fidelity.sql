-- The bytes of an event depend on the row and the route only (promise I5).
--
-- Oracle: what row_to_json makes of the row under the settings that events are
-- made under.  Every type of pg_catalog that a column can have is in the matrix,
-- which is checked against the catalog; the same rows are then written under
-- hostile session settings, by INSERT, UPDATE and DELETE.
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
SET xmloption = content;

CREATE TYPE mood AS ENUM ('sad', 'ok "quoted"', 'übermütig');
CREATE DOMAIN short_text AS varchar(20) CHECK (length(VALUE) < 20);
CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
CREATE DOMAIN moment AS timestamptz;
CREATE TYPE place AS (town text, at timestamptz, "Zip Code" integer, height float8);
CREATE DOMAIN place_list AS place[];
CREATE TYPE visit AS (who short_text, "where" place, seen interval[], raw bytea);
CREATE TYPE float_span AS RANGE (subtype = float8);

-- one column per type; the names are as hostile as names can be
CREATE TABLE sample (
    id integer PRIMARY KEY,
    "bool" boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision, num numeric, num_ps numeric(12,4),
    txt text, vc varchar(30), ch character(8), ch1 "char", nm name, byt bytea, uid uuid,
    da date, ti time, tiz timetz, ts timestamp, tsz timestamptz, ts0 timestamp(0), iv interval,
    js json, jb jsonb, jp jsonpath, xm xml, mon money,
    ine inet, ci cidr, mac macaddr, mac8 macaddr8, bi bit(5), vbi varbit,
    tsv tsvector, tsq tsquery, po point, li line, ls lseg, bo box, pa path, pol polygon, cir circle,
    oi oid, rc regclass, rt regtype, rp regproc, rpr regprocedure, ro regrole, rn regnamespace, rop regoper, rope regoperator,
    rco regconfig, rdi regdictionary, rcol regcollation, lsn pg_lsn, xi xid, xi8 xid8, cid cid, ti_d tid, psn pg_snapshot,
    txs txid_snapshot, acl aclitem, ref refcursor, i2v int2vector, oiv oidvector,
    r4 int4range, r8 int8range, rnu numrange, rts tsrange, rtsz tstzrange, rda daterange, rf float_span,
    m4 int4multirange, m8 int8multirange, mnu nummultirange, mts tsmultirange, mtsz tstzmultirange, mda datemultirange,
    moo mood, dt short_text, dp positive, dm moment, comp place, deep visit, dpl place_list,
    ai integer[], ats timestamptz[], aby bytea[], af float8[], aiv interval[], anu numeric[], ajs json[], aco place[], atx text[], amo money[],
    "Upper Case" text, "quote""d" integer, "back\slash" integer, "tab	and
line" integer, "ünïcödé" text, "$type" integer, "select" date,
    "sixty-three bytes long name 0123456789012345678901234567890123" interval);

-- ordinary values
INSERT INTO sample VALUES (1,
    true, 1, 2, 3, 1.5, 2.25, 12.50, 12.5,
    'a "quoted" \ text', 'varchar', 'ch', 'x', 'name', '\x00ff10', '01234567-89ab-cdef-0123-456789abcdef',
    '2026-01-02', '03:04:05.678', '03:04:05.678+02', '2026-01-02 03:04:05.678', '2026-01-02 03:04:05.678+02', '2026-01-02 03:04:05', '1 year 2 mons 3 days 04:05:06.789',
    '{"b": 1,  "a": [1, 2], "a": "\u00e4"}', '{"b": 1, "a": 1.0}', '$.a[*] ? (@ > 1)', '<a b="c">x</a>', 1234.56,
    '10.1.2.3/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'1',
    'fat:2A cat:1', 'fat & (cat | rat)', '(1,2)', '{1,2,3}', '[(1,2),(3,4)]', '(3,4),(1,2)', '[(1,2),(3,4)]', '((1,2),(3,4),(5,0))', '<(1,2),3>',
    1, 'pg_class', 'timestamptz', 'now', 'lower(text)', 'pg_monitor', 'pg_catalog', '|/', '+(integer,integer)',
    'simple', 'simple', '"C"', '16/B374D848', '1', '1', '1', '(1,2)', '10:20:10,14,15',
    '10:20:10,14,15', 'pg_monitor=r/pg_monitor', 'a cursor', '1 2 3', '1 2 3',
    '[1,5)', '[1,5)', '[1.10,5.0)', '[2026-01-01 00:00,2026-01-02 00:00)', '[2026-01-01 00:00+00,2026-01-02 00:00+00)', '[2026-01-01,2026-01-05)', '[0.1,0.3)',
    '{[1,3),[5,7)}', '{[1,3)}', '{[1.0,3)}', '{[2026-01-01 00:00,2026-01-02 00:00)}', '{[2026-01-01 00:00+00,2026-01-02 00:00+00)}', '{[2026-01-01,2026-01-05)}',
    'ok "quoted"', 'short', 1.10, '2026-07-02 03:04:05+02', ('Bergen', '2026-01-02 03:04:05+02', 5003, 0.1), ('Ada', ('Oslo', '1850-01-01 00:00+00', 1, 'NaN'), '{1 day,-2 hours}', '\xdead'),
    ARRAY[('Bergen', '2026-01-02 03:04:05+02', 5003, 0.1)::place, NULL],
    '{1,NULL,3}', '{2026-01-02 03:04:05+02,infinity}', '{"\\x00ff",NULL}', '{0.1,NaN,-Infinity,0.30000000000000004}', '{1 day,-1 year}', '{1.10,NaN}', ARRAY['{"a":  1}'::json], ARRAY[('x', timestamptz '2026-05-06 07:08:09.123456+00', 1, 1e300)::place], '{"a \"b\"",NULL,""}', '{1.5,-2}',
    'u', 1, 2, 3, 'ü', 4, '2026-01-02', '36 hours');

-- extremes
INSERT INTO sample (id, "bool", i2, i4, i8, f4, f8, num, num_ps, txt, vc, ch, ch1, nm, byt, da, ti, tiz, ts, tsz, iv, js, jb, mon, dm, ai, atx,
        ts0, rtsz, rda, m4, ine, ats, dp, uid, dt)
VALUES (2, false, -32768, -2147483648, -9223372036854775808, '-Infinity', '-Infinity', 'NaN', 'NaN', E'\b\f\n\r\t\x01\x1f\x7f/<>&''', '', '', '', '', '',
        '-infinity', '24:00', '24:00:00-15:59:59', '-infinity', '-infinity', '-178000000 years', '"\ud83d\ude00 \" \\ \/"', '"\ud83d\ude00"', '-92233720368547758.08', 'infinity',
        '[-1:1]={1,2,3}', '{}', 'infinity', 'empty', '(,)', '{}', '::ffff:1.2.3.4/128', '{}', 1e-20, '00000000-0000-0000-0000-000000000000', 'ä'),
       (3, NULL, 32767, 2147483647, 9223372036854775807, '3.4028235e38', '1.7976931348623157e308', 1e131071::numeric + 1, 99999999.9999, repeat('ä€😀', 300), repeat('v', 30), 'ä', E'\\377', repeat('n', 63), decode(repeat('ab', 3000), 'hex'),
        '5874897-12-31', '23:59:59.999999', '00:00:00+15:59:59', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '178000000 years', '[]', '[]', '92233720368547758.07', '4713-01-01 00:00 BC',
        '[5:6][2:3]={{1,2},{3,NULL}}', '{{a,b},{c,d}}', '2026-12-31 23:59:59', '[,2026-01-01 00:00+00]', '[0044-03-15 BC,)', '{(,)}', 'fe80::1/64', NULL, 1e20, NULL, ''),
       (4, NULL, 0, 0, 0, '1.17549435e-38', '4.9406564584124654e-324', -0.000, 0, '', NULL, NULL, NULL, NULL, NULL,
        '4713-01-01 BC', '00:00', '00:00+00:00:01', '4713-01-01 00:00 BC', '4713-01-01 00:00 BC', '-1 mon +1 day -00:00:00.000001', '{}', '{}', 0, '1883-11-18 12:03:58+00',
        '{}', ARRAY[E'\\u0041', '\'], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
       (5, NULL, NULL, NULL, NULL, '-0', '-0', 1e-16383::numeric, 0.0001, NULL, NULL, NULL, NULL, NULL, NULL,
        '0001-01-01', NULL, NULL, '0001-01-01 00:00', '1600-02-29 23:59:59.5+00', '0', 'null', 'null', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
       (6, NULL, NULL, NULL, NULL, 0.1, 0.1::float8 + 0.2, 100, 1.5, NULL, NULL, NULL, NULL, NULL, NULL,
        '10000-01-01', NULL, NULL, '10000-01-01 00:00', '99999-01-01 00:00+00', '1000 hours', '1.50', '1.50', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- the matrix holds all types of pg_catalog that a column can have and a value can be given to
WITH RECURSIVE used (oid) AS (
    SELECT atttypid FROM pg_attribute WHERE attrelid = 'sample'::regclass AND attnum > 0
    UNION
    SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END FROM used u JOIN pg_type t USING (oid)
     WHERE t.typtype = 'd' OR t.typelem <> 0)
SELECT t.typname AS missing FROM pg_type t
 WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm') AND t.typcategory <> 'A'
   AND t.oid NOT IN (SELECT oid FROM used)
   -- nobody can write a value of these: their input functions refuse all
   AND t.typname NOT IN ('pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'pg_brin_bloom_summary',
                         'pg_brin_minmax_multi_summary', 'gtsvector')
   -- of 19: test newer_types
   AND t.typname NOT IN ('regdatabase', 'oid8');
SELECT count(DISTINCT atttypid) AS types, count(*) AS columns FROM pg_attribute WHERE attrelid = 'sample'::regclass AND attnum > 0;

-- the route: all columns as payload, and everything that depends on settings in templates
CREATE TABLE every (LIKE sample INCLUDING ALL);
SELECT outbox.capture('every', 'Every', 'insert',
    key => '{id}|{da}|{ti}|{tiz}|{ts}|{tsz}|{iv}|{byt}|{f4}|{f8}|{mon}|{xm}|{rtsz}|{dm}|{ats}|{af}|{rc}|{rpr}|{comp}|{aco}|{sixty-three bytes long name 0123456789012345678901234567890123}',
    description => '{tsz}, {mtsz}, {deep}, {dpl}, {amo}, {aiv}, {rda}, {ro}, {rt}');
SELECT outbox.capture('every', 'EveryChange', 'update, delete', include_old => true, key => '{id}', description => '{old.tsz}|{old.iv}|{old.f8}|{old.aby}');

CREATE FUNCTION written(since bigint) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT concat_ws(E'\n', type, aggregateid, description, payload) FROM outbox.event WHERE seq > since
     ORDER BY type, payload ->> 'new' IS NULL, (COALESCE(payload -> 'old', payload) ->> 'id')::integer
$$;

-- each row by INSERT, UPDATE and DELETE, and what the outbox then holds
CREATE FUNCTION write_all() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    since bigint := (SELECT max(seq) FROM outbox.event);
BEGIN
    INSERT INTO public.every SELECT * FROM public.sample ORDER BY id;
    UPDATE public.every SET "Upper Case" = 'changed';
    DELETE FROM public.every;
    RETURN ARRAY(SELECT public.written(since));
END $$;

-- the settings under which events are made
SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET bytea_output = 'hex';
SET extra_float_digits = 1; SET lc_monetary = 'C'; SET xmlbinary = 'base64';
CREATE TABLE reference AS SELECT write_all() AS events;
SELECT cardinality(events) AS events, sum(length(e)) > 100000 AS long FROM reference, unnest(events) e GROUP BY 1;
SET search_path = pg_catalog, pg_temp;
CREATE TABLE public.oracle AS SELECT s.id, row_to_json(s)::text AS image FROM public.sample s;
RESET search_path;
-- the row image is core's, byte for byte
SELECT count(*) AS compared,
       count(*) FILTER (WHERE split_part(e, E'\n', 1) <> 'Every' OR right(e, length(o.image)) IS DISTINCT FROM o.image) AS different
  FROM reference, unnest(events[1:6]) WITH ORDINALITY u (e, n) JOIN oracle o ON o.id = n;
SELECT count(*) AS compared,
       count(*) FILTER (WHERE right(e, length(o.image) + 16) IS DISTINCT FROM '{"old":' || o.image || ',"new":'
                          AND position('{"old":' || o.image || ',"new":{' IN e) = 0) AS different
  FROM reference, unnest(events[7:12]) WITH ORDINALITY u (e, n) JOIN oracle o ON o.id = n;
RESET ALL;
SET client_min_messages = error;

-- hostile settings, one by one and together
CREATE TABLE hostile (n serial, settings jsonb);
INSERT INTO hostile (settings) VALUES
    ('{}'),
    ('{"DateStyle": "German"}'), ('{"DateStyle": "SQL, DMY"}'), ('{"DateStyle": "Postgres, MDY"}'), ('{"DateStyle": "ISO, DMY"}'),
    ('{"IntervalStyle": "sql_standard"}'), ('{"IntervalStyle": "postgres_verbose"}'), ('{"IntervalStyle": "iso_8601"}'),
    ('{"TimeZone": "America/New_York"}'), ('{"TimeZone": "Asia/Kathmandu"}'), ('{"TimeZone": "Europe/Amsterdam"}'), ('{"TimeZone": "Etc/UTC"}'), ('{"TimeZone": "<+03:30>-3:30"}'),
    ('{"bytea_output": "escape"}'), ('{"extra_float_digits": "-15"}'), ('{"extra_float_digits": "0"}'), ('{"extra_float_digits": "3"}'),
    ('{"lc_monetary": "C.UTF-8"}'), ('{"xmlbinary": "hex"}'), ('{"xmloption": "document"}'), ('{"client_encoding": "SQL_ASCII"}'),
    ('{"standard_conforming_strings": "off", "escape_string_warning": "off", "backslash_quote": "on"}'), ('{"quote_all_identifiers": "on"}'),
    ('{"search_path": ""}'), ('{"search_path": "hostile, pg_catalog"}'), ('{"row_security": "off"}'), ('{"array_nulls": "off"}'),
    ('{"lc_numeric": "C.UTF-8", "lc_time": "C.UTF-8", "lc_messages": "C"}'),
    ('{"DateStyle": "German", "IntervalStyle": "iso_8601", "TimeZone": "Asia/Kathmandu", "bytea_output": "escape", "extra_float_digits": "-15", "xmlbinary": "hex", "search_path": "hostile, pg_catalog"}'),
    ('{"DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard", "TimeZone": "America/New_York", "bytea_output": "escape", "extra_float_digits": "3", "quote_all_identifiers": "on", "search_path": ""}');
-- objects that would be taken for core's
CREATE SCHEMA hostile;
CREATE TABLE hostile.pg_class (a integer);
CREATE FUNCTION hostile.row_to_json(anyelement) RETURNS json LANGUAGE sql AS $$ SELECT '"hostile"'::json $$;
CREATE FUNCTION hostile.to_json(anyelement) RETURNS json LANGUAGE sql AS $$ SELECT '"hostile"'::json $$;
CREATE FUNCTION hostile.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'hostile' $$;
CREATE TYPE hostile.timestamptz AS ENUM ('hostile');

CREATE FUNCTION differences(settings jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    name text;
    value text;
    made text[];
    before jsonb;
    changed text;
BEGIN
    FOR name, value IN SELECT * FROM jsonb_each_text(settings) LOOP
        -- 19 has no escape_string_warning, and its strings are standard ones always
        CONTINUE WHEN pg_catalog.current_setting(name, true) IS NULL OR
            name OPERATOR(pg_catalog.=) 'standard_conforming_strings' AND pg_catalog.current_setting('server_version_num')::integer OPERATOR(pg_catalog.>=) 190000;
        PERFORM pg_catalog.set_config(name, value, true);
    END LOOP;
    SELECT pg_catalog.jsonb_object_agg(s.name, s.setting) INTO before FROM pg_catalog.pg_settings s;
    made := public.write_all();
    -- the session keeps its own settings
    SELECT pg_catalog.string_agg(s.name, ', ') INTO changed FROM pg_catalog.pg_settings s
     WHERE s.setting IS DISTINCT FROM before ->> s.name;
    RETURN pg_catalog.concat_ws('; ',
        (SELECT 'differ: ' || pg_catalog.string_agg(n::text, ',')
           FROM public.reference, ROWS FROM (pg_catalog.unnest(made), pg_catalog.unnest(events)) WITH ORDINALITY AS u (m, r, n)
          WHERE m IS DISTINCT FROM r),
        'changed settings: ' || changed);
END $$;

-- each in a transaction of its own, so that its settings end with it
CREATE TABLE result (n integer, difference text);
DO $$
DECLARE
    h record;
BEGIN
    FOR h IN SELECT n, settings FROM hostile ORDER BY n LOOP
        INSERT INTO result SELECT h.n, public.differences(h.settings);
        COMMIT;
    END LOOP;
END $$;
SELECT n, settings, difference FROM hostile JOIN result USING (n) WHERE difference <> '' ORDER BY n;
SELECT count(*) AS settings_tried, count(*) FILTER (WHERE difference = '') AS without_difference FROM result;

-- a function that is looked up once serves many rows
CREATE TABLE many (id integer PRIMARY KEY, a integer[], c place);
SELECT outbox.capture('many', 'Many', key => '{id}:{a}:{c}');
INSERT INTO many SELECT n, ARRAY[n, n + 1], ROW('town ' || n, NULL, n, n)::place FROM generate_series(1, 1000) n;
SELECT count(*), count(*) FILTER (WHERE aggregateid = format('%s:{%s,%s}:("town %s",,%s,%s)', id, id, id + 1, id, id, id)
                                    AND payload::text = row_to_json(m)::text) AS right
  FROM many m JOIN (SELECT aggregateid, payload, (payload ->> 'id')::integer AS id FROM outbox.event WHERE type = 'Many') e USING (id);

-- columns that were added after a row was written: its old image has their defaults
CREATE TABLE grown (id integer PRIMARY KEY);
INSERT INTO grown VALUES (1), (2);
ALTER TABLE grown ADD COLUMN a integer DEFAULT 5, ADD COLUMN t text DEFAULT 'given', ADD COLUMN n integer;
SELECT outbox.capture('grown', 'Grown', 'update, delete', include_old => true, key => '{id}/{old.a}/{old.t}');
UPDATE grown SET n = 1 WHERE id = 1;
DELETE FROM grown WHERE id = 2;
SELECT aggregateid, payload FROM outbox.event WHERE type = 'Grown' ORDER BY seq;

DROP TABLE sample, every, reference, oracle, hostile, result, many, grown;
DROP SCHEMA hostile CASCADE;
DROP FUNCTION differences(jsonb), write_all(), written(bigint);
DROP TYPE float_span, visit, place_list, place, moment, positive, short_text, mood;
