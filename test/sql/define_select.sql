-- What report.define_select takes, what it makes of it, what it refuses and
-- where, and report.explain.  The reporter's part is played by hand: the
-- statement reads new_events, here a temporary table.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS carshop_outbox;
RESET client_min_messages;
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET TimeZone = 'UTC';
CREATE SCHEMA shop;
CREATE TABLE shop.rates (currency text PRIMARY KEY, rate numeric NOT NULL);
INSERT INTO shop.rates VALUES ('EUR', 1), ('USD', 0.9);

CREATE FUNCTION shop.log(amounts text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO report.reported_events (id, event_type, occurred_on, event_key, data, topic, partition, kafka_offset, received_at, log_seq)
	SELECT gen_random_uuid(), part[1], '2026-11-28'::timestamptz + n * interval '7 hours', part[2], part[3]::jsonb, 't', 0, n, now(), n
	FROM (SELECT row_number() OVER () + COALESCE((SELECT max(log_seq) FROM report.reported_events), 0) AS n, string_to_array(line, ' ') AS part
		FROM regexp_split_to_table(amounts, E'\n') line) l
$$;
-- One batch for one report, as the reporter does it: with log_seq in (a, b].
CREATE FUNCTION shop.apply(report text, a bigint, b bigint) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' SET extra_float_digits = 1 AS $$
DECLARE
	command text := (SELECT d.statement FROM report.definitions d WHERE d.name = report);
BEGIN
	CREATE TEMP TABLE new_events AS SELECT * FROM report.reported_events WHERE log_seq > a AND log_seq <= b;
	EXECUTE command;
	UPDATE report.applied p SET applied_seq = greatest(applied_seq, b) WHERE p.name = report;
	DROP TABLE new_events;
END $$;

-- from nothing to a table in one statement; the table has the query's columns
SELECT report.define_select('sales', $$
	SELECT (occurred_on AT TIME ZONE 'UTC')::date AS day, event_key AS shop, count(*) AS n, count(data -> 'note') AS notes,
		sum((data ->> 'amount')::int) AS amount, min((data ->> 'amount')::int) AS lowest, max(data ->> 'note') AS note,
		bool_and((data ->> 'amount')::int > 0) AS all_paid, bool_or((data ->> 'amount')::int > 90) AS any_large,
		count(*) FILTER (WHERE (data ->> 'amount')::int > 10) AS large
	FROM new_events WHERE event_type = 'Sale' GROUP BY 1, 2
$$, 'shop.sales', 'what was sold');
\d shop.sales
SELECT obj_description('shop.sales'::regclass);
SELECT kind, target, source - 'query' AS source FROM report.definitions;
SELECT statement FROM report.definitions;

SELECT shop.log($$Sale a {"amount":5}
Sale b {"amount":50,"note":"x"}
Gift a {"amount":500}
Sale a {"amount":null}
Sale a {"amount":95,"note":"y"}
Sale b {}
Sale - {"amount":-3,"note":"é"}$$);
UPDATE report.reported_events SET event_key = NULL WHERE event_key = '-';
SELECT shop.apply('sales', 0, 1);
SELECT shop.apply('sales', 1, 6);
SELECT shop.apply('sales', 6, 7);
TABLE shop.sales ORDER BY day, shop;

-- avg, latest and expressions: a view with the query's columns over a table of their parts
SELECT report.define_select('prices', $$
	SELECT event_key AS shop, avg((data ->> 'amount')::int) AS price, report.latest(data ->> 'amount') AS newest,
		report.latest(data ->> 'note') FILTER (WHERE data ? 'note') AS note, upper(event_key) AS name,
		sum((data ->> 'amount')::int * r.rate) / NULLIF(count(*), 0) AS each, max(occurred_on) - min(occurred_on) AS span, count(*) AS n
	FROM new_events e CROSS JOIN LATERAL (SELECT 'EUR'::text AS c) AS x JOIN shop.rates r ON r.currency = x.c
	WHERE event_type = 'Sale' GROUP BY event_key
$$, 'shop.prices', 'prices by shop');
\d shop.prices
\d shop.prices_state
SELECT target, source ->> 'view' AS view FROM report.definitions WHERE name = 'prices';
SELECT statement FROM report.definitions WHERE name = 'prices';
SELECT shop.apply('prices', 0, 2);
SELECT shop.apply('prices', 2, 4);
SELECT shop.apply('prices', 4, 7);
TABLE shop.prices ORDER BY shop;
-- an older event comes late: the newest value stays
SELECT shop.apply('prices', 0, 1);
SELECT newest, n FROM shop.prices WHERE shop = 'a';

-- the events behind a row
SELECT log_seq, event_type, event_key, data FROM report.explain('sales', '{"day": "2026-11-28", "shop": "a"}');
SELECT log_seq, data FROM report.explain('sales', '{"day": "2026-11-30", "shop": null}');
SELECT r.shop, (SELECT string_agg(e.log_seq::text, ' ') FROM report.explain('prices', to_jsonb(r)) e) AS events FROM shop.prices r ORDER BY 1;
SELECT log_seq FROM report.explain('sales', '{"day": "2027-01-01", "shop": "a"}');
-- what the report has caused itself is not given to it, so it made nothing of its rows
UPDATE report.reported_events SET headers = jsonb_build_object('caused-by-report', (SELECT 'sales@' || identity FROM report.definitions WHERE name = 'sales')) WHERE log_seq = 1;
SELECT log_seq FROM report.explain('sales', '{"day": "2026-11-28", "shop": "a"}');
SELECT report.allow_loops('sales');
SELECT log_seq FROM report.explain('sales', '{"day": "2026-11-28", "shop": "a"}');
SELECT report.allow_loops('sales', false);
UPDATE report.reported_events SET headers = NULL WHERE log_seq = 1;
\set VERBOSITY default
SELECT report.explain('sales', '{"day": "2026-11-28"}');
\set VERBOSITY terse
SELECT report.explain('sales', '{"day": "2026-11-28", "shop": "a", "sho": 1}');
SELECT report.explain('sales', '[]');
SELECT report.explain('sales', '{"day": "x", "shop": "a"}');
SELECT report.explain('nothing', '{}');
-- what was refused did not go into it, nor did what was not applied yet
INSERT INTO report.dead_letter (topic, partition, kafka_offset, report, sqlstate, message, log_seq) VALUES ('t', 0, 1, 'prices', '22000', 'm', 1);
SELECT log_seq FROM report.explain('prices', '{"shop": "a"}');
DELETE FROM report.dead_letter;
UPDATE report.applied SET applied_seq = 4 WHERE name = 'prices';
SELECT log_seq FROM report.explain('prices', '{"shop": "a"}');
UPDATE report.applied SET applied_seq = 7 WHERE name = 'prices';
-- nor did one that the query cannot take, and the others are explained all the same
SELECT report.define_select('hours', $$SELECT (data ->> 'hour')::int AS hour, count(*) AS n FROM new_events
	WHERE CASE WHEN event_type <> 'Counted' THEN data ? 'hour' END GROUP BY 1$$, 'shop.hours');
SELECT shop.log($$Sale a {"hour":1}
Sale a {"hour":"one"}
Counted a {"hour":"one"}
Sale a {"hour":1}
Sale a {"hour":2}
Sale a {"hour":"two"}$$);
SELECT shop.apply('hours', 0, 8), shop.apply('hours', 9, 12);
SELECT shop.apply('hours', 12, 13);
UPDATE report.applied SET applied_seq = 13 WHERE name = 'hours';
SELECT r.hour, r.n, (SELECT string_agg(e.log_seq::text, ' ') FROM report.explain('hours', to_jsonb(r)) e) AS events FROM shop.hours r ORDER BY 1;
SELECT log_seq FROM report.explain('hours', '{"hour": 2, "n": "what else the row has"}');
SELECT report.drop('hours');
DELETE FROM report.reported_events WHERE log_seq > 7;

-- other forms of a key, other types
SELECT report.define_select('total', $$SELECT 'all' AS what, count(*) AS n FROM new_events GROUP BY 1$$, 'shop.total');
SELECT report.define_select('types', $$SELECT event_type::varchar(9) AS t, (data ->> 'amount')::numeric(8, 2) AS a,
	avg((data ->> 'amount')::numeric) AS mean, avg(occurred_on - '2026-01-01') AS at, sum((data ->> 'amount')::bigint) AS sum,
	avg((data ->> 'amount')::smallint) AS small, count(*) * 2 AS double, every(event_key > 'a' COLLATE "C") AS later, max(event_type COLLATE "C") AS c
	FROM new_events GROUP BY 1, 2$$, 'shop.types');
\d shop.types_state
SELECT report.define_select('keys', 'SELECT DISTINCT event_key AS k FROM new_events GROUP BY 1', 'shop.keys');
SELECT report.define_select('keys', 'SELECT event_key AS k FROM new_events GROUP BY 1', 'shop.keys');
SELECT name, shop.apply(name, 0, 3), shop.apply(name, 3, 7) FROM (SELECT name FROM report.definitions WHERE name IN ('total', 'types', 'keys') ORDER BY name) d;
TABLE shop.total;
TABLE shop.keys ORDER BY k;
SELECT * FROM shop.types EXCEPT ALL
SELECT event_type::varchar(9) AS t, (data ->> 'amount')::numeric(8, 2) AS a,
	avg((data ->> 'amount')::numeric) AS mean, avg(occurred_on - '2026-01-01') AS at, sum((data ->> 'amount')::bigint) AS sum,
	avg((data ->> 'amount')::smallint) AS small, count(*) * 2 AS double, every(event_key > 'a' COLLATE "C") AS later, max(event_type COLLATE "C") AS c
	FROM report.reported_events GROUP BY 1, 2;
SELECT log_seq FROM report.explain('total', '{"what": "all"}');
SELECT log_seq FROM report.explain('types', '{"t": "Sale", "a": 50}');

-- the target's name is looked up as CREATE TABLE would, nothing else is
SET search_path = shop, public;
SELECT report.define_select('path', 'SELECT event_type AS t, count(*) AS n FROM new_events GROUP BY 1', 'path');
SELECT report.define_select('path2', 'SELECT event_type AS t, count(*) AS n FROM new_events JOIN rates ON true GROUP BY 1', 'path2');
RESET search_path;
SELECT target FROM report.definitions WHERE name = 'path';
SELECT report.define_select('path', 'SELECT event_type AS t, count(*) AS n FROM new_events GROUP BY 1', 'pg_temp.path');

-- values and their texts do not depend on the session, neither when it is defined nor when it is explained
SET TimeZone = 'America/New_York';
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
SET extra_float_digits = -10;
SELECT report.define_select('days', $$SELECT occurred_on::date AS day, (occurred_on - '2026-11-28 01:00')::text AS since, (1 / 3::float8)::text AS third,
	count(*) FILTER (WHERE occurred_on > '2026-11-28 12:00') AS n FROM new_events GROUP BY 1, 2, 3$$, 'shop.days');
SELECT statement FROM report.definitions WHERE name = 'days';
SELECT shop.apply('days', 0, 7);
TABLE shop.days ORDER BY day, since;
SELECT log_seq FROM report.explain('days', '{"day": "2026-11-30", "since": "2 days", "third": "0.3333333333333333"}');
RESET DateStyle;
RESET IntervalStyle;
RESET extra_float_digits;
SET TimeZone = 'UTC';

-- again: the same columns keep the table; others do not fit; another target would lack what was applied
SELECT report.define_select('total', $$SELECT 'all' AS what, count(*) AS n FROM new_events GROUP BY 1$$, 'shop.total');
SELECT report.define_select('total', $$SELECT 'all' AS what, count(*) AS n FROM new_events WHERE event_type <> 'Gift' GROUP BY 1$$, 'shop.total');
TABLE shop.total;
\set VERBOSITY default
SELECT report.define_select('total', $$SELECT 'all' AS what, count(*) AS m FROM new_events GROUP BY 1$$, 'shop.total');
SELECT report.define_select('total', $$SELECT 'all' AS what, count(*) AS n, count(*) AS m FROM new_events GROUP BY 1$$, 'shop.total');
SELECT report.define_select('total', $$SELECT 'all' AS what, sum(1::bigint) AS n FROM new_events GROUP BY 1$$, 'shop.total');
SELECT report.define_select('total', $$SELECT 'all' AS what FROM new_events GROUP BY 1$$, 'shop.total');
SELECT report.define_select('total', $$SELECT 'all' AS what, count(*) AS n FROM new_events GROUP BY 1$$, 'shop.total2');
SELECT report.define_select('total2', $$SELECT 'all' AS what, count(*) AS n FROM new_events GROUP BY 1$$, 'shop.total');
SELECT report.define_select('prices2', $$SELECT event_key AS shop, count(*) AS n FROM new_events GROUP BY 1$$, 'shop.prices');
SELECT report.define_select('rates', $$SELECT event_key AS currency, sum(1::numeric) AS rate FROM new_events GROUP BY 1$$, 'shop.rates');
SELECT report.define_select('rates2', $$SELECT event_key AS currency, count(*) AS n, sum(1::numeric) AS rate FROM new_events GROUP BY 1, 1$$, 'shop.rates');
SELECT report.define_select('rates3', $$SELECT 1 AS one, event_key AS currency, sum(1::numeric) AS rate FROM new_events GROUP BY 1, 2$$, 'shop.rates');
\set VERBOSITY terse
CREATE TABLE shop.no_key (k text, n bigint);
SELECT report.define_select('no_key', 'SELECT event_key AS k, count(*) AS n FROM new_events GROUP BY 1', 'shop.no_key');
CREATE UNIQUE INDEX no_key_k ON shop.no_key (k);
SELECT report.define_select('no_key', 'SELECT event_key AS k, count(*) AS n FROM new_events GROUP BY 1', 'shop.no_key');
ALTER TABLE shop.no_key ALTER k SET NOT NULL;
SELECT report.define_select('no_key', 'SELECT event_key AS k, count(*) AS n FROM new_events GROUP BY 1', 'shop.no_key');

-- what is refused, and where
\set VERBOSITY default
SELECT report.define_select('r', 'SELECT event_key AS k, count(*) AS n FROM new_events', 'shop.r');
SELECT report.define_select('r', 'SELECT event_key AS k, count(*) AS n FROM new_events GROUP BY 1 HAVING count(*) > 1', 'shop.r');
SELECT report.define_select('r', 'SELECT event_key AS k, sum((data ->> ''x'')::float8) AS n FROM new_events GROUP BY 1', 'shop.r');
SELECT report.define_select('r', 'SELECT event_key AS k, count(*) AS n FROM shop.missing GROUP BY 1', 'shop.r');
SELECT report.define_select('r', 'SELECT event_key AS k, count(*) AS é, n FROM new_events GROUP BY 1', 'shop.r');
SELECT report.define_select('r', 'SELECT event_key AS k, count(*) AS n FROM new_events WHERE occurred_on > now() - interval ''1 day'' GROUP BY 1', 'shop.r');
SELECT report.define_select('r', 'SELECT event_key AS k, data ->> ''x'' AS n FROM new_events GROUP BY 1', 'shop.r');
\set VERBOSITY terse
CREATE FUNCTION shop.refused(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	PERFORM report.define_select('r', query, 'shop.r');
	RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = pg_exception_hint;
	RETURN concat_ws(' | ', sqlstate, sqlerrm, NULLIF(hint, ''));
END $$;
CREATE DOMAIN shop.named AS text NOT NULL;
CREATE DOMAIN shop.checked AS shop.named CHECK (VALUE <> '');
SELECT shop.refused(q) FROM unnest(ARRAY[
	'', 'SELECT 1; SELECT 2', 'DELETE FROM shop.rates', 'VALUES (1)', 'SELEC',
	'SELECT event_key AS k FROM new_events GROUP BY 1 UNION SELECT event_key FROM new_events GROUP BY 1',
	'WITH e AS (SELECT * FROM new_events) SELECT event_key AS k FROM e GROUP BY 1',
	'SELECT event_key AS k INTO shop.x FROM new_events GROUP BY 1',
	'SELECT event_key AS k FROM new_events GROUP BY ROLLUP (1)',
	'SELECT event_key AS k FROM new_events GROUP BY 1 ORDER BY 1',
	'SELECT event_key AS k FROM new_events GROUP BY 1 LIMIT 1',
	'SELECT event_key AS k FROM new_events GROUP BY 1 OFFSET 1',
	'SELECT count(*) AS n FROM new_events',
	'SELECT event_key AS k, count(DISTINCT id) AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, string_agg(event_type, '','' ORDER BY log_seq) AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, percentile_cont(0.5) WITHIN GROUP (ORDER BY log_seq) AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, report.latest(data ORDER BY occurred_on) AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, avg(1::real) AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, sum(data ->> ''x'') AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, count(*) OVER () AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, generate_series(1, 2) AS n FROM new_events GROUP BY 1',
	'SELECT count(*) AS n FROM new_events GROUP BY event_key',
	'SELECT event_key AS k, 1 FROM new_events GROUP BY 1',
	'SELECT event_key AS k, count(*) AS k FROM new_events GROUP BY 1',
	'SELECT event_key AS k, (SELECT 1) + count(*) AS n FROM new_events GROUP BY 1',
	'SELECT r.currency AS k, r.rate AS n FROM new_events JOIN shop.rates r ON true GROUP BY r.currency',
	'SELECT currency AS k, count(*) AS n FROM shop.rates GROUP BY 1',
	'SELECT currency AS k, count(e.id) AS n FROM shop.rates LEFT JOIN new_events e ON true GROUP BY 1',
	'SELECT e.event_key AS k, count(*) AS n FROM new_events e, new_events f GROUP BY 1',
	'SELECT event_key AS k, count(*) AS n FROM (SELECT * FROM new_events) e GROUP BY 1',
	'SELECT currency AS k, count(*) AS n FROM shop.rates WHERE EXISTS (SELECT FROM new_events) GROUP BY 1',
	'SELECT event_key AS k, $1 AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, count(*) AS n FROM new_events WHERE occurred_on > now() - interval ''1 day'' GROUP BY 1',
	'SELECT current_date - occurred_on::date AS k, count(*) AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, count(*) FILTER (WHERE age(occurred_on) > ''1 h'') AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, count(*) AS n FROM new_events CROSS JOIN LATERAL (SELECT random() > 0.5 AS b) x WHERE b GROUP BY 1',
	'SELECT event_key AS k, max(x) AS n FROM new_events CROSS JOIN generate_series(occurred_on, clock_timestamp(), ''1 day'') AS x GROUP BY 1',
	'SELECT event_key::shop.named AS k, count(*) AS n FROM new_events GROUP BY 1',
	'SELECT event_key AS k, report.latest(event_type::shop.checked) FILTER (WHERE data ? ''x'') AS n FROM new_events GROUP BY 1']) q;
SELECT report.define_select('', 'SELECT event_key AS k FROM new_events GROUP BY 1', 'shop.r');
SELECT report.define_select('r', NULL, 'shop.r');
SELECT to_regclass('shop.r'), to_regclass('shop.r_state');
-- what is computed when it is read may; the events' columns may have other names
SELECT report.define_select('since', 'SELECT k, now() - max(at) IS NULL AS never, count(*) AS n FROM new_events AS e (id, t, d, at, k) GROUP BY 1', 'shop.since');
SELECT shop.apply('since', 0, 7);
SELECT * FROM shop.since ORDER BY k;
SELECT log_seq FROM report.explain('since', '{"k": "b"}');
SELECT report.drop('since');
SELECT report.define('plain', 'INSERT INTO shop.no_key SELECT event_key FROM new_events', 'shop.no_key');
SELECT report.explain('plain', '{}');

-- with whose rights
CREATE ROLE regress_author;
CREATE ROLE regress_reader;
GRANT USAGE ON SCHEMA shop TO regress_author, regress_reader;
GRANT EXECUTE ON FUNCTION report.define_select TO regress_author;
GRANT EXECUTE ON FUNCTION report.explain TO regress_reader;
CREATE SCHEMA AUTHORIZATION regress_author;
SET ROLE regress_author;
SELECT report.define_select('mine', 'SELECT event_key AS k, count(*) AS n FROM new_events GROUP BY 1', 'shop.mine');
SELECT report.define_select('mine', 'SELECT event_key AS k, count(*) AS n FROM new_events JOIN shop.rates ON true GROUP BY 1', 'regress_author.mine');
CREATE FUNCTION regress_author.look(text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'as %', current_user;
	RETURN $1;
END $$;
SELECT report.define_select('mine', 'SELECT regress_author.look(event_key) AS k, avg(log_seq) AS n FROM new_events WHERE log_seq < 3 GROUP BY 1', 'regress_author.mine');
SELECT report.define_select('total', 'SELECT event_key AS k, count(*) AS n FROM new_events GROUP BY 1', 'regress_author.total');
SELECT report.explain('mine', '{"k": "a"}');
RESET ROLE;
UPDATE report.applied SET applied_seq = 7 WHERE name = 'mine';
-- the owner may not read the log: it is given to the query as the reporter gives it; as the owner
SELECT log_seq FROM report.explain('mine', '{"k": "a"}');
GRANT SELECT ON report.reported_events TO regress_author;
SELECT log_seq FROM report.explain('mine', '{"k": "a"}');
SET ROLE regress_reader;
SELECT log_seq FROM report.explain('mine', '{"k": "a"}');
RESET ROLE;
SET ROLE regress_author;
GRANT USAGE ON SCHEMA regress_author TO regress_reader;
GRANT SELECT ON regress_author.mine TO regress_reader;
SET ROLE regress_reader;
SELECT k FROM regress_author.mine;
SELECT log_seq FROM report.explain('mine', '{"k": "a"}');
RESET ROLE;
GRANT SELECT ON report.reported_events TO regress_reader;
SET ROLE regress_reader;
SELECT log_seq FROM report.explain('mine', '{"k": "a"}');
RESET ROLE;

-- elsewhere the aggregate is the last value
SELECT report.latest(x ORDER BY x), report.latest(NULLIF(x, 3) ORDER BY x) FROM generate_series(1, 3) x;

SELECT count(report.drop(name)) FROM report.definitions;
DELETE FROM report.reported_events;
DELETE FROM report.instance;
SET client_min_messages = warning;
DROP OWNED BY regress_author, regress_reader CASCADE;
DROP ROLE regress_author, regress_reader;
DROP SCHEMA shop CASCADE;
