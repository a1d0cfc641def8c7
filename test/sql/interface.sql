-- What people type, read and configure: names, arguments, defaults, columns and settings,
-- and with which SQLSTATE things are refused.  Programs and habits rest on these: a line
-- of this output changes only with a reason.
\set SHOW_CONTEXT never
SET client_min_messages = error;
\pset format unaligned

-- what is typed
SELECT p.oid::regproc::text || '(' || pg_get_function_arguments(p.oid) || ')' AS call,
       CASE p.prokind WHEN 'p' THEN 'CALL' WHEN 'a' THEN 'aggregate' ELSE pg_get_function_result(p.oid) END AS answer
  FROM pg_proc p
 WHERE p.pronamespace IN ('outbox'::regnamespace, 'report'::regnamespace)
   AND p.proname = ANY ('{capture,release,capture_car_shop,emit,backfill,pause,resume,wait_published,replay,retry,skip,park,unpark,
        check,claim,start_lineage,stat_reset,count_unconfirmed,accept_topic,
        define,define_select,mirror,explain,as_of,drop,enable,disable,allow_loops,start,stop,rebuild,wait_applied,seek,
        create_car_shop,erase,forget_removed,event_log_removed_before,latest}')
 ORDER BY p.pronamespace::regnamespace::text, p.proname, 1;

-- none of it by anybody, the aggregate apart
SELECT p.oid::regprocedure
  FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
 WHERE p.pronamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND p.provolatile = 'v' AND p.prokind <> 'a'
   AND has_function_privilege('public', p.oid, 'EXECUTE')
 ORDER BY 1;

-- what is read
SELECT a.attrelid::regclass AS relation, a.attname AS "column", format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS "not null"
  FROM pg_attribute a
 WHERE a.attrelid = ANY ('{outbox.event,outbox.routes,outbox.dead_letters,outbox.parked,outbox.status,outbox.stat_relay,outbox.latency,
        outbox.segments,outbox.metrics,report.reported_events,report.dead_letters,report.status,report.stat_reporter,report.stat_reports,
        report.latency,report.metrics}'::regclass[])
   AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid::regclass::text, a.attnum;

-- what is configured
SELECT substr(name, 16) AS setting, vartype, boot_val, unit, context FROM pg_settings WHERE name ^@ 'carshop_outbox.' AND name <> 'carshop_outbox.mutant' ORDER BY name;

-- how things are refused: the SQLSTATE, and whether a hint says what to do
CREATE FUNCTION fate(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, hint = PG_EXCEPTION_HINT;
	RETURN state || CASE WHEN hint <> '' THEN ' and a hint' ELSE '' END;
END $$;
CREATE TABLE thing (id integer PRIMARY KEY, name text);
CREATE VIEW thing_view AS SELECT * FROM thing;
CREATE TEMPORARY TABLE thing_temp (id integer PRIMARY KEY);
INSERT INTO outbox.event (type) VALUES ('There');

SELECT fate(statement), statement FROM unnest(ARRAY[
	-- routes
	$$SELECT outbox.capture(NULL, 'T')$$,
	$$SELECT outbox.capture('thing', NULL)$$,
	$$SELECT outbox.capture('thing', '')$$,
	$$SELECT outbox.capture('thing', repeat('x', 52))$$,
	$$SELECT outbox.capture('thing', 'T', 'truncate')$$,
	$$SELECT outbox.capture('thing', 'T', '')$$,
	$$SELECT outbox.capture('thing', 'T', NULL)$$,
	$$SELECT outbox.capture('thing', 'T', format => 'xml')$$,
	$$SELECT outbox.capture('thing', 'T', format => NULL)$$,
	$$SELECT outbox.capture('thing', 'T', include_old => NULL)$$,
	$$SELECT outbox.capture('thing', 'T', key => '{nope}')$$,
	$$SELECT outbox.capture('thing', 'T', key => '{id')$$,
	$$SELECT outbox.capture('thing', 'T', key => '{old.id}')$$,
	$$SELECT outbox.capture('thing', 'T', columns => '{nope}')$$,
	$$SELECT outbox.capture('thing', 'T', columns => '{id,id}')$$,
	$$SELECT outbox.capture('thing', 'T', columns => '{}')$$,
	$$SELECT outbox.capture('thing', 'T', topic => 'with space')$$,
	$$SELECT outbox.capture('thing', 'T', topic => '')$$,
	$$SELECT outbox.capture('thing', 'T', topic => 'carshop-outbox-progress')$$,
	$$SELECT outbox.capture('thing', 'T', headers => '[]')$$,
	$$SELECT outbox.capture('thing', 'T', headers => '{"a": 1}')$$,
	$$SELECT outbox.capture('thing', 'T', headers => '{"": "a"}')$$,
	$$SELECT outbox.capture('thing', 'T', headers => '{"ce_id": "a"}')$$,
	$$SELECT outbox.capture('thing', 'T', headers => '{"id": "a"}')$$,
	$$SELECT outbox.capture('thing', 'T', headers => '{"content-type": "a"}')$$,
	$$SELECT outbox.capture('thing', 'T', headers => '{"replayed": "a"}')$$,
	$$SELECT outbox.capture('thing', 'T', headers => jsonb_build_object('a', repeat('x', 65537)))$$,
	$$SELECT outbox.capture('thing_view', 'T')$$,
	$$SELECT outbox.capture('nobody', 'T')$$,
	$$CREATE TRIGGER t AFTER INSERT ON thing FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('nope=1')$$,
	$$CREATE TRIGGER t AFTER INSERT ON thing FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=T', 'include_old=perhaps')$$,
	$$CREATE TRIGGER t BEFORE INSERT ON thing FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=T')$$,
	$$SELECT outbox.capture_car_shop()$$,
	$$CALL outbox.backfill('thing', 'T')$$,
	$$CALL outbox.backfill(NULL, 'T')$$,
	-- events
	$$SELECT outbox.emit(NULL)$$,
	$$SELECT outbox.emit('')$$,
	$$SELECT outbox.emit('T', key => repeat('x', 65537))$$,
	$$SELECT outbox.emit('T', to_jsonb(repeat('x', 1000000)))$$,
	$$SELECT outbox.emit('T', topic => 'elsewhere')$$,
	$$SELECT outbox.emit('T', topic => 'with space')$$,
	$$SELECT outbox.emit('T', topic => 'carshop-outbox-progress-x')$$,
	$$SELECT outbox.emit('T', headers => '"a"')$$,
	$$SELECT outbox.emit('T', headers => '{"ce_x": "a"}')$$,
	$$SELECT outbox.emit('T', format => 'xml')$$,
	$$SELECT outbox.emit('T', format => 'raw')$$,
	$$SELECT outbox.emit('T', value => 'a')$$,
	$$SELECT outbox.emit('T', occurred_at => 'infinity')$$,
	$$SELECT outbox.emit('T', lock_key => true)$$,
	$$INSERT INTO outbox.event (aggregateid) VALUES ('1')$$,
	$$INSERT INTO outbox.event (type, traceparent) VALUES ('T', '00')$$,
	$$INSERT INTO outbox.event (type, payload) VALUES ('T', '"\u0000"')$$,
	$$UPDATE outbox.event SET type = 'U'$$,
	$$DELETE FROM outbox.event$$,
	$$SET carshop_outbox.traceparent = '00'$$,
	$$SET LOCAL carshop_outbox.event_headers = '[]'; SELECT outbox.emit('T')$$,
	$$SELECT outbox.park('with space')$$,
	$$SELECT outbox.unpark('not-parked')$$,
	$$SELECT outbox.park(NULL)$$,
	$$SELECT outbox.replay(NULL)$$,
	$$SELECT outbox.start_lineage('all')$$,
	$$SELECT outbox.start_lineage(NULL)$$,
	-- reports
	$$SELECT report.define('', 'INSERT INTO public.thing SELECT 1 FROM new_events', 'thing')$$,
	$$SELECT report.define('t', 'SELECT 1', 'thing')$$,
	$$SELECT report.define('t', 'TRUNCATE public.thing', 'thing')$$,
	$$SELECT report.define('t', 'INSERT INTO public.thing SELECT 1', 'thing')$$,
	$$SELECT report.define('t', 'INSERT INTO public.other SELECT 1 FROM new_events', 'thing')$$,
	$$SELECT report.define('t', 'DELETE FROM report.reported_events USING new_events', 'thing')$$,
	$$SELECT report.define('t', 'INSERT INTO public.thing SELECT 1 FROM new_events; SELECT 1', 'thing')$$,
	$$SELECT report.define('t', '', 'thing')$$,
	$$SELECT report.define('t', 'INSERT INTO public.thing_view SELECT 1 FROM new_events', 'thing_view')$$,
	$$SELECT report.define('t', 'INSERT INTO thing_temp SELECT 1 FROM new_events', 'thing_temp')$$,
	$$SELECT report.define('t', NULL, 'thing')$$,
	$$SELECT report.define('t', 'INSERT INTO public.thing SELECT 1 FROM new_events', 'thing', timeout => '0')$$,
	$$SELECT report.define_select('t', 'SELECT 1 AS a, count(*) FROM new_events', 't')$$,
	$$SELECT report.define_select('t', 'VALUES (1)', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, count(*) FROM new_events GROUP BY 1; SELECT 1', 't')$$,
	$$SELECT report.define_select('t', 'DELETE FROM new_events', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, count(*) FROM new_events GROUP BY 1 HAVING count(*) > 1', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, count(*) FROM new_events GROUP BY 1 ORDER BY 1', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, count(DISTINCT id) FROM new_events GROUP BY 1', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, count(*) OVER () FROM new_events GROUP BY 1', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, generate_series(1, 2), count(*) FROM new_events GROUP BY 1', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, string_agg(topic, '''') FROM new_events GROUP BY 1', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, count(*) FROM new_events JOIN pg_temp.thing_temp ON true GROUP BY 1', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, count(*) FROM new_events GROUP BY 1 FOR UPDATE', 't')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, count(*) FROM new_events GROUP BY 1', 'pg_temp.t')$$,
	$$SELECT report.define_select('t', 'SELECT event_type, count(*) FROM new_events GROUP BY 1', NULL)$$,
	$$SELECT report.mirror('t', 'thing', event_types => '{}')$$,
	$$SELECT report.mirror('t', 'thing_view')$$,
	$$SELECT report.mirror('t', NULL)$$,
	$$SELECT report.drop('nobody')$$,
	$$SELECT report.enable('nobody')$$,
	$$SELECT report.rebuild('nobody')$$,
	$$SELECT * FROM report.explain('nobody', '{}')$$,
	$$SELECT * FROM report.as_of('nobody', 1)$$,
	$$SELECT report.seek('t', -1, 0)$$,
	$$SELECT report.seek('t', 0, -1)$$,
	-- workers
	$$SELECT outbox.wait_published()$$,
	$$SELECT report.wait_applied()$$,
	$$SELECT report.wait_applied('01990000-0000-7000-8000-000000000000')$$
]) WITH ORDINALITY AS t(statement, n) ORDER BY n;

DROP FUNCTION fate;
DROP VIEW thing_view;
DROP TABLE thing;
