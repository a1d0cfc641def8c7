/* sql/carshop_outbox--1.0.sql */

-- complain if the script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION carshop_outbox" to load this file. \quit

-- Everything below is qualified and runs with this path only, so that nothing
-- a role made beforehand can be called instead (CVE-2020-14350); objects are
-- made by plain CREATE, so that none made beforehand is adopted (CVE-2022-2625).
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE SCHEMA outbox;
COMMENT ON SCHEMA outbox IS 'carshop_outbox: what leaves the shop';
-- to look at, not to use: each object has its own grants
GRANT USAGE ON SCHEMA outbox TO PUBLIC;

----------------------------------------------------------------------------
-- The event store: three insert-only segments behind one view
----------------------------------------------------------------------------

CREATE SEQUENCE outbox.event_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE outbox.event_seq IS
'Order of events; must keep CACHE 1: a cached sequence breaks the order per key';

CREATE TABLE outbox.event_0 (
    seq             bigint      NOT NULL,
    xid             xid8        NOT NULL,
    occurred_at     timestamptz NOT NULL,
    id              uuid        NOT NULL,
    type            text        NOT NULL,
    aggregatetype   text,
    aggregateid     text,
    payload         json,
    description     text,
    topic           text,
    headers         jsonb,
    traceparent     text,
    format          text        NOT NULL,
    value           bytea
) WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE TABLE outbox.event_1 (LIKE outbox.event_0)
    WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE TABLE outbox.event_2 (LIKE outbox.event_0)
    WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE INDEX event_0_xid_seq ON outbox.event_0 (xid, seq);
CREATE INDEX event_1_xid_seq ON outbox.event_1 (xid, seq);
CREATE INDEX event_2_xid_seq ON outbox.event_2 (xid, seq);
COMMENT ON TABLE outbox.event_0 IS 'Segment of outbox.event; written by the extension only';
COMMENT ON TABLE outbox.event_1 IS 'Segment of outbox.event; written by the extension only';
COMMENT ON TABLE outbox.event_2 IS 'Segment of outbox.event; written by the extension only';
COMMENT ON INDEX outbox.event_0_xid_seq IS 'The relay reads a batch through it';
COMMENT ON INDEX outbox.event_1_xid_seq IS 'The relay reads a batch through it';
COMMENT ON INDEX outbox.event_2_xid_seq IS 'The relay reads a batch through it';

CREATE VIEW outbox.event AS
    SELECT id, aggregatetype, aggregateid, type, payload, seq, xid, topic,
           description, headers, traceparent, occurred_at, format, value
      FROM outbox.event_0
    UNION ALL
    SELECT id, aggregatetype, aggregateid, type, payload, seq, xid, topic,
           description, headers, traceparent, occurred_at, format, value
      FROM outbox.event_1
    UNION ALL
    SELECT id, aggregatetype, aggregateid, type, payload, seq, xid, topic,
           description, headers, traceparent, occurred_at, format, value
      FROM outbox.event_2;
COMMENT ON VIEW outbox.event IS
'Events that wait for Kafka or are kept for replay. An application may INSERT (only type must be given); seq and xid are always set by the extension. UPDATE and DELETE are refused.';
COMMENT ON COLUMN outbox.event.id IS 'UUIDv7 unless the writer gives its own; the idempotency key everywhere';
COMMENT ON COLUMN outbox.event.aggregateid IS 'The message''s key';
COMMENT ON COLUMN outbox.event.seq IS 'Order of writing; for changes under a common lock the order of commit';
COMMENT ON COLUMN outbox.event.xid IS 'Top-level transaction of the writer';
COMMENT ON COLUMN outbox.event.topic IS 'NULL: the setting carshop_outbox.topic at the time of publication';
COMMENT ON COLUMN outbox.event.format IS 'envelope, payload, cloudevents or raw';
COMMENT ON COLUMN outbox.event.value IS 'Ready bytes, sent untouched (format raw)';

CREATE FUNCTION outbox.insert_event() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'outbox_insert_event';
COMMENT ON FUNCTION outbox.insert_event() IS
'INSTEAD OF trigger of outbox.event: the same insert as capture''s; refuses UPDATE and DELETE (OB002)';
REVOKE ALL ON FUNCTION outbox.insert_event() FROM PUBLIC;

CREATE TRIGGER insert_event INSTEAD OF INSERT OR UPDATE OR DELETE ON outbox.event
    FOR EACH ROW EXECUTE FUNCTION outbox.insert_event();

----------------------------------------------------------------------------
-- Ticks, lineage, dead letters: the relay's own state
----------------------------------------------------------------------------

CREATE TABLE outbox.tick (
    tick_id         bigint      PRIMARY KEY,
    nonce           uuid        NOT NULL,
    snapshot        pg_snapshot NOT NULL,
    confirmed_tick  bigint      NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_enabled = off);
COMMENT ON TABLE outbox.tick IS
'Batch n is what is visible in snapshot n and not in snapshot n-1. Append-only.';
COMMENT ON COLUMN outbox.tick.nonce IS 'Tells this tick from one of the same number after a restore';
COMMENT ON COLUMN outbox.tick.confirmed_tick IS 'Newest tick known to be in Kafka when this one was made';

CREATE TABLE outbox.lineage (
    one             boolean     PRIMARY KEY DEFAULT true CHECK (one),
    lineage         uuid        NOT NULL DEFAULT gen_random_uuid(),
    cluster_id      text,
    progress_topic  text,
    home            text,
    start_tick      bigint      NOT NULL DEFAULT 0,
    claimed         boolean     NOT NULL DEFAULT false,
    paused          boolean     NOT NULL DEFAULT false,
    current_segment smallint    NOT NULL DEFAULT 0 CHECK (current_segment BETWEEN 0 AND 2),
    created_at      timestamptz NOT NULL DEFAULT now()
);
INSERT INTO outbox.lineage DEFAULT VALUES;
COMMENT ON TABLE outbox.lineage IS
'Who publishes: one row. The lineage owns its progress topic and transactional.id in Kafka.';
COMMENT ON COLUMN outbox.lineage.cluster_id IS 'Kafka cluster in which the progress topic was made; NULL: nothing published yet';
COMMENT ON COLUMN outbox.lineage.home IS 'Server that published last: system identifier, timeline, database, data directory';
COMMENT ON COLUMN outbox.lineage.start_tick IS 'Ticks up to this one were settled before the lineage began';
COMMENT ON COLUMN outbox.lineage.claimed IS 'outbox.claim() was called: the next start takes the lineage over from another home';

CREATE TABLE outbox.dead_letter (
    seq             bigint      PRIMARY KEY,
    tick_id         bigint      NOT NULL,
    id              uuid        NOT NULL,
    type            text        NOT NULL,
    key             text,
    topic           text        NOT NULL,
    reason          text        NOT NULL,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts        integer     NOT NULL DEFAULT 1
);
COMMENT ON TABLE outbox.dead_letter IS 'Events that Kafka refused for good; the events themselves stay in outbox.event';

CREATE VIEW outbox.dead_letters AS
    SELECT id, type, key, reason, at, attempts FROM outbox.dead_letter;
COMMENT ON VIEW outbox.dead_letters IS 'Events that Kafka refuses for good, with the reason';

----------------------------------------------------------------------------
-- Capture
----------------------------------------------------------------------------

CREATE FUNCTION outbox.capture_row() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'outbox_capture_row';
COMMENT ON FUNCTION outbox.capture_row() IS
'Trigger function, AFTER ... FOR EACH ROW: writes the row''s event. Arguments are name=value texts: event_type (needed), key, description, columns, include_old, topic, aggregate_type, headers, format. Use outbox.capture() to make the trigger.';
REVOKE ALL ON FUNCTION outbox.capture_row() FROM PUBLIC;

CREATE FUNCTION outbox.check_route(source regclass, operation text, arguments text[])
    RETURNS void LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'outbox_check_route';
COMMENT ON FUNCTION outbox.check_route(regclass, text, text[]) IS
'Raises OB001 if a trigger of outbox.capture_row with these arguments would not work on the table';

CREATE FUNCTION outbox.route_argument(trigger oid, name text)
    RETURNS text LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'outbox_route_argument';
COMMENT ON FUNCTION outbox.route_argument(oid, text) IS
'One argument of a capture trigger by its name; NULL if it is not given';

CREATE FUNCTION outbox.has_relay() RETURNS boolean
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'outbox_has_relay';
COMMENT ON FUNCTION outbox.has_relay() IS
'True when carshop_outbox.shop_databases names this database and the library is preloaded';

CREATE FUNCTION outbox.capture(
    source regclass, event_type text,
    operations text DEFAULT 'insert', condition text DEFAULT NULL,
    key text DEFAULT NULL, description text DEFAULT NULL,
    columns name[] DEFAULT NULL, include_old boolean DEFAULT false,
    topic text DEFAULT NULL, aggregate_type text DEFAULT NULL,
    headers jsonb DEFAULT NULL, format text DEFAULT 'envelope')
RETURNS SETOF text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s'
AS $capture$
DECLARE
    operation   text;
    names       text[] := '{}';
    arguments   text[];
    trigger_name text;
    literal     text;
BEGIN
    IF source IS NULL OR event_type IS NULL OR operations IS NULL
       OR include_old IS NULL OR format IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'OB001',
            MESSAGE = 'source, event_type, operations, include_old and format must not be NULL';
    END IF;
    FOREACH operation IN ARRAY string_to_array(lower(operations), ',') LOOP
        operation := btrim(operation);
        IF operation NOT IN ('insert', 'update', 'delete') THEN
            RAISE EXCEPTION USING ERRCODE = 'OB001',
                MESSAGE = format('unknown operation "%s"', operation),
                HINT = 'Operations are insert, update and delete, or several of them: ''insert, update''.';
        END IF;
        IF NOT names @> ARRAY[operation] THEN
            names := names || operation;
        END IF;
    END LOOP;
    IF cardinality(names) = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'OB001', MESSAGE = 'no operation given',
            HINT = 'Operations are insert, update and delete, or several of them: ''insert, update''.';
    END IF;
    IF octet_length(event_type) NOT BETWEEN 1 AND 51 THEN
        RAISE EXCEPTION USING ERRCODE = 'OB001',
            MESSAGE = format('event type "%s" must have 1 to 51 bytes', event_type),
            HINT = 'The trigger''s name is made of it, and names have at most 63 bytes.';
    END IF;

    -- everything about a route stands in its trigger's arguments
    arguments := ARRAY['event_type=' || event_type];
    IF key IS NOT NULL THEN arguments := arguments || ('key=' || key); END IF;
    IF description IS NOT NULL THEN arguments := arguments || ('description=' || description); END IF;
    IF columns IS NOT NULL THEN arguments := arguments || ('columns=' || columns::text); END IF;
    IF include_old THEN arguments := arguments || 'include_old=true'::text; END IF;
    IF topic IS NOT NULL THEN arguments := arguments || ('topic=' || topic); END IF;
    IF aggregate_type IS NOT NULL THEN arguments := arguments || ('aggregate_type=' || aggregate_type); END IF;
    IF headers IS NOT NULL THEN arguments := arguments || ('headers=' || headers::text); END IF;
    IF format <> 'envelope' THEN arguments := arguments || ('format=' || format); END IF;
    SELECT string_agg(quote_literal(a), ', ' ORDER BY n) INTO literal
      FROM unnest(arguments) WITH ORDINALITY AS t(a, n);

    FOREACH operation IN ARRAY names LOOP
        PERFORM outbox.check_route(source, operation, arguments);
        trigger_name := format('00_outbox_%s_%s', "left"(operation, 1), event_type);
        BEGIN
            -- replaced in one statement's lock, so no change goes by between
            EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s FOR EACH ROW %s EXECUTE FUNCTION outbox.capture_row(%s)',
                           trigger_name, operation, source,
                           CASE WHEN condition IS NULL THEN '' ELSE format('WHEN (%s)', condition) END,
                           literal);
        EXCEPTION WHEN lock_not_available THEN
            RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
                MESSAGE = format('could not lock table %s within %s', source, current_setting('lock_timeout')),
                DETAIL = 'Making a trigger waits for transactions that have written to the table, and others wait behind it.',
                HINT = 'Call outbox.capture again when no long transaction uses the table (see pg_stat_activity).';
        END;
        RETURN NEXT trigger_name;
    END LOOP;

    IF NOT outbox.has_relay() THEN
        RAISE WARNING USING
            MESSAGE = format('no relay publishes the events of database "%s"', current_database()),
            HINT = format('Put shared_preload_libraries = ''carshop_outbox'' and carshop_outbox.shop_databases = ''%s'' into postgresql.conf; until then events are kept.', current_database());
    END IF;
END
$capture$;
COMMENT ON FUNCTION outbox.capture(regclass, text, text, text, text, text, name[], boolean, text, text, jsonb, text) IS
'Makes (or replaces) a route: one trigger per operation. Templates may hold {Column}, {old.Column} and {{. The condition is SQL, parsed with search_path = pg_catalog. Takes SHARE ROW EXCLUSIVE on the table and gives up after 5 s. Needs the TRIGGER right on the table. Errors: OB001.';
REVOKE ALL ON FUNCTION outbox.capture(regclass, text, text, text, text, text, name[], boolean, text, text, jsonb, text) FROM PUBLIC;

CREATE FUNCTION outbox.release(source regclass, event_type text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s'
AS $release$
DECLARE
    found_name  name;
    removed     integer := 0;
BEGIN
    FOR found_name IN
        SELECT t.tgname FROM pg_trigger t
         WHERE t.tgrelid = release.source
           AND t.tgfoid = 'outbox.capture_row()'::regprocedure
           AND t.tgparentid = 0
           AND (release.event_type IS NULL
                OR outbox.route_argument(t.oid, 'event_type') = release.event_type)
         ORDER BY t.tgname
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', found_name, source);
        removed := removed + 1;
    END LOOP;
    RETURN removed;
END
$release$;
COMMENT ON FUNCTION outbox.release(regclass, text) IS
'Removes the routes of a table (of one event type, or all); answers how many triggers. Events already written are still published. Needs ownership of the table.';
REVOKE ALL ON FUNCTION outbox.release(regclass, text) FROM PUBLIC;

CREATE FUNCTION outbox.capture_car_shop(
    cars regclass DEFAULT to_regclass('public."Cars"'),
    customers regclass DEFAULT to_regclass('public."Customers"'))
RETURNS SETOF text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $car_shop$
BEGIN
    IF cars IS NULL OR customers IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'OB001',
            MESSAGE = 'the car shop''s tables are missing',
            DETAIL = 'Expected are public."Cars" and public."Customers", as the application''s ORM makes them.',
            HINT = 'Name others: outbox.capture_car_shop(cars => ..., customers => ...).';
    END IF;
    RETURN QUERY SELECT outbox.capture(cars, 'CarAdded', key => '{Number}');
    RETURN QUERY SELECT outbox.capture(customers, 'CustomerAdded', key => '{Name}');
    RETURN QUERY SELECT outbox.capture(customers, 'CarSold', 'insert', key => '{CarNumber}',
        condition => 'NEW."CarNumber" IS NOT NULL');
    RETURN QUERY SELECT outbox.capture(customers, 'CarSold', 'update', key => '{CarNumber}',
        condition => 'OLD."CarNumber" IS NULL AND NEW."CarNumber" IS NOT NULL');
END
$car_shop$;
COMMENT ON FUNCTION outbox.capture_car_shop(regclass, regclass) IS
'The car shop''s routes: CarAdded, CustomerAdded, CarSold';
REVOKE ALL ON FUNCTION outbox.capture_car_shop(regclass, regclass) FROM PUBLIC;

CREATE VIEW outbox.routes AS
    SELECT t.tgrelid::regclass AS source,
           outbox.route_argument(t.oid, 'event_type') AS event_type,
           CASE WHEN t.tgtype & 4 <> 0 THEN 'insert'
                WHEN t.tgtype & 8 <> 0 THEN 'delete'
                ELSE 'update' END AS operation,
           CASE WHEN t.tgqual IS NOT NULL
                THEN "substring"(pg_get_triggerdef(t.oid), ' WHEN \((.*)\) EXECUTE FUNCTION ')
           END AS condition,
           outbox.route_argument(t.oid, 'key') AS key,
           outbox.route_argument(t.oid, 'description') AS description,
           outbox.route_argument(t.oid, 'columns')::name[] AS columns,
           COALESCE(outbox.route_argument(t.oid, 'include_old')::boolean, false) AS include_old,
           outbox.route_argument(t.oid, 'topic') AS topic,
           outbox.route_argument(t.oid, 'aggregate_type') AS aggregate_type,
           outbox.route_argument(t.oid, 'headers')::jsonb AS headers,
           COALESCE(outbox.route_argument(t.oid, 'format'), 'envelope') AS format,
           t.tgenabled <> 'D' AS enabled,
           t.tgname AS trigger_name
      FROM pg_trigger t
     WHERE t.tgfoid = 'outbox.capture_row()'::regprocedure
       AND t.tgparentid = 0;
COMMENT ON VIEW outbox.routes IS 'What is captured: one row per table, event type and operation';

CREATE FUNCTION outbox.emit(
    event_type text, payload jsonb DEFAULT NULL, key text DEFAULT NULL,
    description text DEFAULT NULL, topic text DEFAULT NULL,
    aggregate_type text DEFAULT NULL, headers jsonb DEFAULT NULL,
    format text DEFAULT 'envelope',
    occurred_at timestamptz DEFAULT clock_timestamp(), value bytea DEFAULT NULL,
    lock_key boolean DEFAULT false)
RETURNS uuid LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'outbox_emit';
COMMENT ON FUNCTION outbox.emit(text, jsonb, text, text, text, text, jsonb, text, timestamptz, bytea, boolean) IS
'Writes an event in the current transaction and answers its id. format raw sends value as it is. lock_key holds a lock on the key until the transaction ends, for strict order among emitters of one key. Errors: OB002.';
REVOKE ALL ON FUNCTION outbox.emit(text, jsonb, text, text, text, text, jsonb, text, timestamptz, bytea, boolean) FROM PUBLIC;

----------------------------------------------------------------------------
-- Operating
----------------------------------------------------------------------------

CREATE FUNCTION outbox.wake() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_wake';
COMMENT ON FUNCTION outbox.wake() IS 'Makes this database''s relay look again at once';
REVOKE ALL ON FUNCTION outbox.wake() FROM PUBLIC;

CREATE FUNCTION outbox.wait_published(timeout interval DEFAULT '10s') RETURNS boolean
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'outbox_wait_published';
COMMENT ON FUNCTION outbox.wait_published(interval) IS
'Waits until all that was committed before the call is in Kafka; false when the time is over. Do not call it in a transaction that has written events itself: those are not committed yet.';
REVOKE ALL ON FUNCTION outbox.wait_published(interval) FROM PUBLIC;

CREATE FUNCTION outbox.home() RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_home';
COMMENT ON FUNCTION outbox.home() IS
'Where this database lives: system identifier, timeline, database oid, identity of the data directory';
REVOKE ALL ON FUNCTION outbox.home() FROM PUBLIC;

CREATE FUNCTION outbox.pause() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ UPDATE outbox.lineage SET paused = true; SELECT outbox.wake() $$;
COMMENT ON FUNCTION outbox.pause() IS 'Stops publishing of this database; capture goes on';
REVOKE ALL ON FUNCTION outbox.pause() FROM PUBLIC;

CREATE FUNCTION outbox.resume() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ UPDATE outbox.lineage SET paused = false; SELECT outbox.wake() $$;
COMMENT ON FUNCTION outbox.resume() IS 'Publishing goes on where outbox.pause() stopped it';
REVOKE ALL ON FUNCTION outbox.resume() FROM PUBLIC;

CREATE FUNCTION outbox.claim() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ UPDATE outbox.lineage SET claimed = true; SELECT outbox.wake() $$;
COMMENT ON FUNCTION outbox.claim() IS
'This server is the only owner of the lineage (it was moved or upgraded): publishing goes on from Kafka''s progress. Never call it on a copy while the original runs.';
REVOKE ALL ON FUNCTION outbox.claim() FROM PUBLIC;

CREATE FUNCTION outbox.start_lineage(publish text DEFAULT 'unconfirmed') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $start_lineage$
DECLARE
    confirmed bigint;
BEGIN
    IF publish IS NULL OR publish NOT IN ('unconfirmed', 'nothing') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('unknown value "%s" for publish', publish),
            HINT = 'Use ''unconfirmed'' (publish what the former lineage had not confirmed) or ''nothing''.';
    END IF;
    -- the relay makes no tick meanwhile
    LOCK TABLE outbox.tick IN SHARE ROW EXCLUSIVE MODE;
    LOCK TABLE outbox.lineage IN SHARE ROW EXCLUSIVE MODE;
    IF publish = 'unconfirmed' THEN
        SELECT COALESCE(max(confirmed_tick), 0) INTO confirmed FROM outbox.tick;
    ELSE
        -- a tick that nobody publishes: what it sees counts as done
        INSERT INTO outbox.tick (tick_id, nonce, snapshot, confirmed_tick)
        SELECT COALESCE(max(tick_id), 0) + 1, gen_random_uuid(), pg_current_snapshot(),
               COALESCE(max(tick_id), 0) + 1
          FROM outbox.tick
        RETURNING tick_id INTO confirmed;
    END IF;
    UPDATE outbox.lineage
       SET lineage = gen_random_uuid(), cluster_id = NULL, progress_topic = NULL,
           home = NULL, claimed = false, start_tick = confirmed;
    PERFORM outbox.wake();
END
$start_lineage$;
COMMENT ON FUNCTION outbox.start_lineage(text) IS
'This database is a copy or a restored backup: a new lineage with a progress topic of its own. ''unconfirmed'' publishes what the former one had not confirmed, ''nothing'' only what comes from now on.';
REVOKE ALL ON FUNCTION outbox.start_lineage(text) FROM PUBLIC;
