-- Types that older releases lack, as test fidelity has the others.  PostgreSQL 19 on.
SELECT current_setting('server_version_num')::integer < 190000 AS older \gset
\if :older
\quit
\endif
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE TABLE newer (id integer PRIMARY KEY, o oid8, d regdatabase, ao oid8[], ad regdatabase[]);
SELECT outbox.capture('newer', 'Newer', 'insert, update', key => '{id}|{o}|{d}|{ao}|{ad}');
CREATE FUNCTION made() RETURNS text LANGUAGE sql AS $$
    SELECT aggregateid || ' ' || payload FROM outbox.event WHERE type = 'Newer' ORDER BY seq DESC LIMIT 1
$$;
INSERT INTO newer VALUES (1, '18446744073709551615', 'postgres', '{0,1}', '{template1,NULL}'), (2, NULL, NULL, NULL, NULL);
SELECT aggregateid, payload, payload::text = row_to_json(n)::text AS as_core FROM outbox.event e, newer n WHERE e.type = 'Newer' AND n.id = (payload ->> 'id')::integer ORDER BY seq;
-- whatever the session has set
UPDATE newer SET o = o WHERE id = 1;
SELECT made() AS plain \gset
SET quote_all_identifiers = on; SET search_path = public, pg_catalog; SET DateStyle = 'German';
UPDATE newer SET o = o WHERE id = 1;
RESET ALL;
SELECT made() = :'plain' AS same;
DROP TABLE newer;
DROP FUNCTION made();
