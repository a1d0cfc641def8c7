-- What a transaction's events carry of it: trace context by setting or by a comment
-- in the statement, and headers.
\set SHOW_CONTEXT never
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE TABLE c (id integer PRIMARY KEY);
SELECT outbox.capture('c', 'Ctx', headers => '{"from": "route", "who": "route"}');
CREATE FUNCTION last(n integer) RETURNS TABLE (key text, trace text, headers jsonb) LANGUAGE sql AS $$
    SELECT aggregateid, traceparent, headers FROM (SELECT * FROM outbox.event ORDER BY seq DESC LIMIT n) e ORDER BY seq
$$;

-- settings: of the transaction, of the session
BEGIN;
SET LOCAL carshop_outbox.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
SET LOCAL carshop_outbox.event_headers = '{"who": "ada", "why": "test"}';
INSERT INTO c VALUES (1);
COMMIT;
INSERT INTO c VALUES (2);
SET carshop_outbox.event_headers = '{"why": "session"}';
INSERT INTO c VALUES (3);
SELECT outbox.emit('Emitted', headers => '{"a": "own", "why": "own"}') IS NOT NULL AS ok;
SET carshop_outbox.event_headers = '{"why": "changed"}';
INSERT INTO c VALUES (4);
RESET carshop_outbox.event_headers;
INSERT INTO c VALUES (5);
SELECT * FROM last(6);
-- anybody may, for his own transactions
CREATE ROLE regress_context;
GRANT INSERT ON c TO regress_context;
SET ROLE regress_context;
SET carshop_outbox.event_headers = '{"who": "anybody"}';
INSERT INTO c VALUES (6);
RESET ROLE;
RESET carshop_outbox.event_headers;
SELECT * FROM last(1);

-- refused: malformed trace context when it is set, headers when they are used
DO $$
DECLARE
    t text;
    hint text;
BEGIN
    FOREACH t IN ARRAY ARRAY['x', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331',
        '00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01', '00-00000000000000000000000000000000-b7ad6b7169203331-01',
        '00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01', 'ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more', ' 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-mör', '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-a b',
        '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-' || repeat('x', 513 - 56)] LOOP
        BEGIN
            PERFORM set_config('carshop_outbox.traceparent', t, true);
            RAISE WARNING 'accepted: %', t;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
            RAISE INFO '% % %', SQLSTATE, SQLERRM, hint <> '';
        END;
    END LOOP;
    -- a later version of the standard may go on, to 512 bytes
    PERFORM set_config('carshop_outbox.traceparent', '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-' || repeat('x', 512 - 56), true);
    PERFORM set_config('carshop_outbox.traceparent', '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more', true);
    FOREACH t IN ARRAY ARRAY['{', 'null', '[]', '"x"', '{"a": 1}', '{"id": "x"}', '{"traceparent": "x"}', '{"a": "\u0000"}'] LOOP
        BEGIN
            PERFORM set_config('carshop_outbox.event_headers', t, true);
            INSERT INTO c VALUES (100);
            RAISE WARNING 'accepted: %', t;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
            RAISE INFO '% % %', SQLSTATE, SQLERRM, hint <> '';
        END;
    END LOOP;
END $$;
INSERT INTO c VALUES (7);
SELECT * FROM last(1);
-- the same for a trace context that the event brings
SELECT outbox.emit('X') IS NOT NULL AS ok;
INSERT INTO outbox.event (type, traceparent) VALUES ('X', '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-mör');
INSERT INTO outbox.event (type, traceparent) VALUES ('X', '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-' || repeat('x', 513 - 56));
INSERT INTO outbox.event (type, traceparent) VALUES ('X', '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-' || repeat('x', 512 - 56));
SELECT length(trace), headers FROM last(1);
-- headers of the route and of the session together are limited, and each of them
SELECT set_config('carshop_outbox.event_headers', jsonb_object_agg('h' || n, '')::text, false) <> '' AS set FROM generate_series(1, 62) n;
INSERT INTO c VALUES (8);
SELECT (SELECT count(*) FROM jsonb_object_keys(headers)) FROM last(1);
SELECT set_config('carshop_outbox.event_headers', jsonb_object_agg('h' || n, '')::text, false) <> '' AS set FROM generate_series(1, 63) n;
INSERT INTO c VALUES (9);
SELECT outbox.emit('X') IS NOT NULL AS ok;
SELECT set_config('carshop_outbox.event_headers', jsonb_build_object('h', repeat('x', 65520))::text, false) <> '' AS set;
INSERT INTO c VALUES (9);
SELECT outbox.emit('X') IS NOT NULL AS ok;
SELECT set_config('carshop_outbox.event_headers', jsonb_build_object('h', repeat('x', 900000))::text, false) <> '' AS set;
SELECT outbox.emit('X');
-- whose headers these are stands nowhere in the statement
SET carshop_outbox.event_headers = '["a"]';
\set SHOW_CONTEXT errors
SELECT outbox.emit('X');
\set SHOW_CONTEXT never
RESET carshop_outbox.event_headers;

-- comments as SQLCommenter's libraries write them, in front or behind
/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/ INSERT INTO c VALUES (10);
   /* route='/x',traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-00',tracestate='congo%3Dt61' */
   INSERT INTO c VALUES (11);
/* a note */ /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203333-01'*/ INSERT INTO c VALUES (12);
INSERT INTO c VALUES (13), (14) /*action='%2Fbuy',traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203334-01'*/;
INSERT INTO c VALUES (15)
/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203335-01'*/  ;
-- also for what the statement does elsewhere, and for events of the application
CREATE FUNCTION writes() RETURNS void LANGUAGE plpgsql AS $$
BEGIN /*traceparent='00-0af7651916cd43dd8448eb211c80319c-ffffffffffffffff-01'*/ INSERT INTO c VALUES (16); PERFORM outbox.emit('Inner'); END $$;
SELECT writes() /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203336-01'*/;
SELECT key, trace FROM last(8);
-- a later version
/*traceparent='01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203335-01-a.later.version.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'*/
INSERT INTO c VALUES (17);
SELECT key, trace FROM last(1);
-- each statement has its own
BEGIN;
/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203337-01'*/ INSERT INTO c VALUES (20);
INSERT INTO c VALUES (21);
/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203338-01'*/ INSERT INTO c VALUES (22);
-- the setting wins
SET LOCAL carshop_outbox.traceparent = '00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaa-01';
/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203339-01'*/ INSERT INTO c VALUES (23);
COMMIT;
SELECT key, trace FROM last(4);
-- none: malformed, in the middle, in a string, of another name, not closed
/*traceparent='00-XYZ'*/ INSERT INTO c VALUES (30);
INSERT /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/ INTO c VALUES (31);
SELECT outbox.emit('/*traceparent=''00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01''*/') IS NOT NULL AS ok;
/*xtraceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/ INSERT INTO c VALUES (32);
/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01*/ INSERT INTO c VALUES (33);
/*traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01*/ INSERT INTO c VALUES (34);
-- traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
INSERT INTO c VALUES (35);
/**/ INSERT INTO c VALUES (36) /**/;
/*traceparent='01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-mör'*/ INSERT INTO c VALUES (37);
SELECT count(*), count(trace) FROM last(9);

DROP TABLE c;
DROP FUNCTION last(integer), writes();
DROP ROLE regress_context;
