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
      FROM ONLY outbox.event_0
    UNION ALL
    SELECT id, aggregatetype, aggregateid, type, payload, seq, xid, topic,
           description, headers, traceparent, occurred_at, format, value
      FROM ONLY outbox.event_1
    UNION ALL
    SELECT id, aggregatetype, aggregateid, type, payload, seq, xid, topic,
           description, headers, traceparent, occurred_at, format, value
      FROM ONLY outbox.event_2;
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
    confirmed_tick  bigint      NOT NULL DEFAULT 0,
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
COMMENT ON COLUMN outbox.lineage.confirmed_tick IS 'Newest tick known to be in Kafka when the relay last came to rest';
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

CREATE FUNCTION outbox.check_ddl() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'outbox_check_ddl';
COMMENT ON FUNCTION outbox.check_ddl() IS
'Event trigger function: refuses a command that would break a route (OB001), and a hand-written capture trigger that could not work';
REVOKE ALL ON FUNCTION outbox.check_ddl() FROM PUBLIC;
CREATE EVENT TRIGGER carshop_outbox_alter ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'CREATE TRIGGER') EXECUTE FUNCTION outbox.check_ddl();
COMMENT ON EVENT TRIGGER carshop_outbox_alter IS 'A column that a route uses is not renamed without its route';
CREATE EVENT TRIGGER carshop_outbox_drop ON sql_drop EXECUTE FUNCTION outbox.check_ddl();
COMMENT ON EVENT TRIGGER carshop_outbox_drop IS 'A column that a route uses is not dropped without its route';

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
    rel         record;
    children    text;
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
    SELECT c.relkind, c.relowner::regrole AS owner INTO rel FROM pg_class c WHERE c.oid = source;
    IF rel.relkind = 'p' AND NOT has_function_privilege(rel.owner::oid, 'outbox.capture_row()', 'EXECUTE') THEN
        RAISE EXCEPTION USING ERRCODE = 'OB001',
            MESSAGE = format('owner %s of partitioned table %s may not execute outbox.capture_row()', rel.owner, source),
            DETAIL = 'A new partition gets a copy of the trigger, which its maker must be allowed to execute.',
            HINT = format('GRANT EXECUTE ON FUNCTION outbox.capture_row() TO %s;', rel.owner);
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

    IF rel.relkind = 'r' THEN
        SELECT string_agg(i.inhrelid::regclass::text, ', ' ORDER BY i.inhrelid::regclass::text) INTO children
          FROM pg_inherits i WHERE i.inhparent = source;
        IF children IS NOT NULL THEN
            RAISE WARNING USING
                MESSAGE = format('rows of tables that inherit from %s are not captured by this route', source),
                DETAIL = format('These are: %s.', children),
                HINT = 'Make a route on each of them.';
        END IF;
    END IF;
    IF key IS NULL AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = source AND i.indisprimary) THEN
        RAISE NOTICE USING
            MESSAGE = format('table %s has no primary key: its events have no key', source),
            DETAIL = 'Events without a key are spread over the partitions of a topic, so that their order is not kept.',
            HINT = 'Give one, for example key => ''{column}''.';
    END IF;
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
        BEGIN
            EXECUTE format('DROP TRIGGER %I ON %s', found_name, source);
        EXCEPTION WHEN lock_not_available THEN
            RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
                MESSAGE = format('could not lock table %s within %s', source, current_setting('lock_timeout')),
                DETAIL = 'Dropping a trigger waits for all transactions that use the table, and others wait behind it.',
                HINT = 'Call outbox.release again when no long transaction uses the table (see pg_stat_activity).';
        END;
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
           concat_ws(', ', CASE WHEN t.tgtype & 4 <> 0 THEN 'insert' END,
                           CASE WHEN t.tgtype & 16 <> 0 THEN 'update' END,
                           CASE WHEN t.tgtype & 8 <> 0 THEN 'delete' END) AS operation,
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
-- Backfill
----------------------------------------------------------------------------

CREATE TABLE outbox.backfill_progress (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source          regclass    NOT NULL,
    event_type      text        NOT NULL,
    condition       text,
    total           bigint      NOT NULL DEFAULT 0,
    done            bigint      NOT NULL DEFAULT 0,
    started_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (source, event_type)
);
COMMENT ON TABLE outbox.backfill_progress IS
'Backfills that are under way or were interrupted; CALL outbox.backfill goes on with them, DELETE gives one up';
COMMENT ON SEQUENCE outbox.backfill_progress_id_seq IS 'Ids of backfills';
COMMENT ON INDEX outbox.backfill_progress_pkey IS 'A backfill by its id';
COMMENT ON INDEX outbox.backfill_progress_source_event_type_key IS 'One backfill of a route at a time';

CREATE TABLE outbox.backfill_row (
    backfill        bigint      NOT NULL,
    n               bigint      NOT NULL,
    key             text        NOT NULL,
    PRIMARY KEY (backfill, n)
);
COMMENT ON TABLE outbox.backfill_row IS 'Primary keys of the rows that a backfill has still to do';
COMMENT ON COLUMN outbox.backfill_row.key IS 'An array of the key''s values as texts';
COMMENT ON INDEX outbox.backfill_row_pkey IS 'The list is done in this order';

CREATE PROCEDURE outbox.backfill(source regclass, event_type text,
        condition text DEFAULT NULL, batch integer DEFAULT 10000)
    LANGUAGE c AS 'MODULE_PATHNAME', 'outbox_backfill';
COMMENT ON PROCEDURE outbox.backfill(regclass, text, text, integer) IS
'Writes the event of a route on insert for every row that is already there, in transactions of batch rows, beside concurrent writers: each row once, and never an older image after a newer one. Interrupted, it goes on when it is called again. batch 0 only notes which rows are there. Needs ownership of the table; locks rows FOR SHARE. Errors: OB001.';
REVOKE ALL ON PROCEDURE outbox.backfill(regclass, text, text, integer) FROM PUBLIC;

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

CREATE FUNCTION outbox.segment_switched(segment smallint) RETURNS void
    LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'outbox_segment_switched';
COMMENT ON FUNCTION outbox.segment_switched(smallint) IS
'Tells writers which segment is current when this transaction commits; part of outbox.switch_segment()';
REVOKE ALL ON FUNCTION outbox.segment_switched(smallint) FROM PUBLIC;

CREATE FUNCTION outbox.switch_segment() RETURNS smallint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $switch_segment$
DECLARE
    segment smallint;
BEGIN
    LOCK TABLE outbox.lineage IN SHARE ROW EXCLUSIVE MODE;
    SELECT (current_segment + 1) % 3 INTO segment FROM outbox.lineage;
    IF pg_relation_size(format('outbox.event_%s', segment)::regclass) > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('segment outbox.event_%s is not empty', segment);
    END IF;
    UPDATE outbox.lineage SET current_segment = segment;
    PERFORM outbox.segment_switched(segment);
    RETURN segment;
END
$switch_segment$;
COMMENT ON FUNCTION outbox.switch_segment() IS
'Makes the next segment of outbox.event, which must be empty, the current one when the transaction commits';
REVOKE ALL ON FUNCTION outbox.switch_segment() FROM PUBLIC;

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
        -- what the table knows, and what the relay has read from Kafka
        SELECT GREATEST(l.confirmed_tick, r.confirmed_tick,
                        (SELECT t.confirmed_tick FROM outbox.tick t ORDER BY t.tick_id DESC LIMIT 1))
          INTO confirmed
          FROM outbox.lineage l
          LEFT JOIN outbox.relay_report() r ON r.lineage = l.lineage;
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
           home = NULL, claimed = false, start_tick = confirmed,
           confirmed_tick = confirmed;
    PERFORM outbox.wake();
END
$start_lineage$;
COMMENT ON FUNCTION outbox.start_lineage(text) IS
'This database is a copy or a restored backup: a new lineage with a progress topic of its own. ''unconfirmed'' publishes what the former one had not confirmed, ''nothing'' only what comes from now on.';
REVOKE ALL ON FUNCTION outbox.start_lineage(text) FROM PUBLIC;
/* ------------------------------------------------------------------------
 * report: what people read
 * ------------------------------------------------------------------------
 */
CREATE SCHEMA report;
COMMENT ON SCHEMA report IS 'carshop_outbox: events read from Kafka, and reports made of them';
GRANT USAGE ON SCHEMA report TO PUBLIC;

/* ---- the event log ---- */

CREATE TABLE report.reported_events (
	id					uuid NOT NULL,
	event_type			text NOT NULL,
	event_description	text NOT NULL,
	occurred_on			timestamptz NOT NULL,
	event_key			text,
	data				jsonb,
	headers				jsonb,
	topic				text NOT NULL,
	partition			integer NOT NULL,
	kafka_offset		bigint NOT NULL,
	received_at			timestamptz NOT NULL,
	log_seq				bigint NOT NULL,
	CONSTRAINT reported_events_pkey PRIMARY KEY (id),
	CONSTRAINT reported_events_log_seq_key UNIQUE (log_seq)
);
COMMENT ON TABLE report.reported_events IS 'every domain event read from Kafka, once per event id';
COMMENT ON COLUMN report.reported_events.id IS 'the event''s id: ce_id, the header id or EventId; made from the message''s place and content when it has none';
COMMENT ON COLUMN report.reported_events.event_type IS 'EventType';
COMMENT ON COLUMN report.reported_events.event_description IS 'EventDescription';
COMMENT ON COLUMN report.reported_events.occurred_on IS 'OccuredOn: when it happened, as the producer says';
COMMENT ON COLUMN report.reported_events.event_key IS 'Key, or the record''s key';
COMMENT ON COLUMN report.reported_events.data IS 'Data, if the message has it';
COMMENT ON COLUMN report.reported_events.headers IS 'the record''s headers, without an "id" that only repeats the event''s';
COMMENT ON COLUMN report.reported_events.topic IS 'topic it was read from';
COMMENT ON COLUMN report.reported_events.partition IS 'partition it was read from';
COMMENT ON COLUMN report.reported_events.kafka_offset IS 'offset it was read at';
COMMENT ON COLUMN report.reported_events.received_at IS 'start of the transaction that stored it';
COMMENT ON COLUMN report.reported_events.log_seq IS 'strictly increasing: the order in which reports apply events';
COMMENT ON CONSTRAINT reported_events_pkey ON report.reported_events IS 'an event is counted once';
COMMENT ON CONSTRAINT reported_events_log_seq_key ON report.reported_events IS 'reports catch up along it';

/* What the car of a sale was: CarSold carries the customer only. */
CREATE INDEX reported_events_car_number ON report.reported_events
	((data ->> 'Number'), log_seq) WHERE event_type = 'CarAdded';
COMMENT ON INDEX report.reported_events_car_number IS 'CarAdded events by car, for report.sales_by_day';

/* ---- where reading stands ---- */

CREATE TABLE report.instance (
	only_one	boolean NOT NULL DEFAULT true,
	reading		boolean NOT NULL,
	changed_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	changed_by	text NOT NULL DEFAULT session_user,
	CONSTRAINT instance_pkey PRIMARY KEY (only_one),
	CONSTRAINT instance_only_one CHECK (only_one)
);
COMMENT ON TABLE report.instance IS 'whether this database reads from Kafka; not dumped, so that a restored copy waits for report.start()';
COMMENT ON COLUMN report.instance.only_one IS 'true: the table has one row at most';
COMMENT ON COLUMN report.instance.reading IS 'false after report.stop()';
COMMENT ON COLUMN report.instance.changed_at IS 'when it was started or stopped';
COMMENT ON COLUMN report.instance.changed_by IS 'who started or stopped it';

CREATE TABLE report.progress (
	topic			text NOT NULL,
	partition		integer NOT NULL,
	next_offset		bigint NOT NULL,
	cluster_id		text,
	last_offset		bigint,
	last_mark		uuid,
	last_log_seq	bigint,
	lost			text,
	changed_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT progress_pkey PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE report.progress IS 'next offset of every partition, changed in the transaction that stores its events';
COMMENT ON COLUMN report.progress.topic IS 'topic';
COMMENT ON COLUMN report.progress.partition IS 'partition';
COMMENT ON COLUMN report.progress.next_offset IS 'next offset to read; -2: the beginning';
COMMENT ON COLUMN report.progress.cluster_id IS 'Kafka cluster that the offset belongs to; null: not known yet';
COMMENT ON COLUMN report.progress.last_offset IS 'offset of the newest message read';
COMMENT ON COLUMN report.progress.last_mark IS 'digest of that message: the topic was made anew if it reads differently later';
COMMENT ON COLUMN report.progress.last_log_seq IS 'no event of this partition has a higher log_seq';
COMMENT ON COLUMN report.progress.lost IS 'why reading of this partition has stopped; null: it has not';
COMMENT ON COLUMN report.progress.changed_at IS 'when the offset was stored';

/* ---- definitions ---- */

CREATE TABLE report.definitions (
	name		text NOT NULL,
	statement	text NOT NULL,
	target		regclass NOT NULL,
	owner		regrole NOT NULL,
	description	text,
	enabled		boolean NOT NULL DEFAULT true,
	defined_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT definitions_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE report.definitions IS 'reports: a table and the statement that folds new events into it';
COMMENT ON COLUMN report.definitions.name IS 'name of the report';
COMMENT ON COLUMN report.definitions.statement IS 'one SQL command that reads FROM new_events and writes the target';
COMMENT ON COLUMN report.definitions.target IS 'the table people read';
COMMENT ON COLUMN report.definitions.owner IS 'role that defined it and that it runs as';
COMMENT ON COLUMN report.definitions.description IS 'what it shows';
COMMENT ON COLUMN report.definitions.enabled IS 'false after report.disable()';
COMMENT ON COLUMN report.definitions.defined_at IS 'when it was defined or replaced';

CREATE TABLE report.applied (
	name			text NOT NULL,
	applied_seq		bigint NOT NULL DEFAULT 0,
	failed			boolean NOT NULL DEFAULT false,
	events			bigint NOT NULL DEFAULT 0,
	runs			bigint NOT NULL DEFAULT 0,
	total_ms		double precision NOT NULL DEFAULT 0,
	last_ms			double precision,
	dead_letters	bigint NOT NULL DEFAULT 0,
	last_error		text,
	last_error_at	timestamptz,
	CONSTRAINT applied_pkey PRIMARY KEY (name),
	CONSTRAINT applied_name_fkey FOREIGN KEY (name)
		REFERENCES report.definitions (name) ON DELETE CASCADE
) WITH (fillfactor = 50);
COMMENT ON TABLE report.applied IS 'how far each report has applied the event log, changed in the transaction that changes its target';
COMMENT ON COLUMN report.applied.name IS 'name of the report';
COMMENT ON COLUMN report.applied.applied_seq IS 'log_seq of the newest event applied';
COMMENT ON COLUMN report.applied.failed IS 'stopped by an error that a person must judge; report.enable() tries again';
COMMENT ON COLUMN report.applied.events IS 'events given to the report';
COMMENT ON COLUMN report.applied.runs IS 'times the statement was executed';
COMMENT ON COLUMN report.applied.total_ms IS 'time spent in the statement';
COMMENT ON COLUMN report.applied.last_ms IS 'time of the newest execution';
COMMENT ON COLUMN report.applied.dead_letters IS 'events that the report has refused';
COMMENT ON COLUMN report.applied.last_error IS 'newest error';
COMMENT ON COLUMN report.applied.last_error_at IS 'when it happened';

/* ---- dead letters ---- */

CREATE TABLE report.dead_letter (
	id				bigint GENERATED ALWAYS AS IDENTITY,
	topic			text NOT NULL,
	partition		integer NOT NULL,
	kafka_offset	bigint NOT NULL,
	report			text,
	sqlstate		text NOT NULL,
	message			text NOT NULL,
	context			text,
	key				bytea,
	value			bytea,
	headers			jsonb,
	kafka_timestamp	timestamptz,
	log_seq			bigint,
	at				timestamptz NOT NULL DEFAULT pg_catalog.now(),
	attempts		integer NOT NULL DEFAULT 1,
	retry			boolean NOT NULL DEFAULT false,
	CONSTRAINT dead_letter_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE report.dead_letter IS 'messages that could not be read, and events that a report refused';
COMMENT ON COLUMN report.dead_letter.id IS 'for report.retry() and report.skip()';
COMMENT ON COLUMN report.dead_letter.topic IS 'topic of the message';
COMMENT ON COLUMN report.dead_letter.partition IS 'partition of the message';
COMMENT ON COLUMN report.dead_letter.kafka_offset IS 'offset of the message';
COMMENT ON COLUMN report.dead_letter.report IS 'report that refused the event; null: the message itself could not be read';
COMMENT ON COLUMN report.dead_letter.sqlstate IS 'SQLSTATE of the refusal';
COMMENT ON COLUMN report.dead_letter.message IS 'why';
COMMENT ON COLUMN report.dead_letter.context IS 'where';
COMMENT ON COLUMN report.dead_letter.key IS 'key of an unreadable message';
COMMENT ON COLUMN report.dead_letter.value IS 'the unreadable message, or the refused event as JSON';
COMMENT ON COLUMN report.dead_letter.headers IS 'headers of the message';
COMMENT ON COLUMN report.dead_letter.kafka_timestamp IS 'timestamp of an unreadable message';
COMMENT ON COLUMN report.dead_letter.log_seq IS 'the refused event''s place in the event log';
COMMENT ON COLUMN report.dead_letter.at IS 'when it was refused, last time';
COMMENT ON COLUMN report.dead_letter.attempts IS 'how often it was tried';
COMMENT ON COLUMN report.dead_letter.retry IS 'the reporter is asked to try again';
COMMENT ON SEQUENCE report.dead_letter_id_seq IS 'ids of dead letters';
CREATE INDEX dead_letter_retry ON report.dead_letter (id) WHERE retry;
COMMENT ON INDEX report.dead_letter_retry IS 'what report.retry() asked for';

CREATE VIEW report.dead_letters AS
	SELECT d.id, d.topic, d.partition, d.kafka_offset, d.report, d.sqlstate,
		   d.message, d.context, d.value, d.headers, d.at, d.attempts
	FROM report.dead_letter d;
COMMENT ON VIEW report.dead_letters IS 'messages that could not be read (report is null), and events that a report refused';
COMMENT ON COLUMN report.dead_letters.id IS 'for report.retry() and report.skip()';
COMMENT ON COLUMN report.dead_letters.topic IS 'topic of the message';
COMMENT ON COLUMN report.dead_letters.partition IS 'partition of the message';
COMMENT ON COLUMN report.dead_letters.kafka_offset IS 'offset of the message';
COMMENT ON COLUMN report.dead_letters.report IS 'report that refused the event; null: the message itself could not be read';
COMMENT ON COLUMN report.dead_letters.sqlstate IS 'SQLSTATE of the refusal';
COMMENT ON COLUMN report.dead_letters.message IS 'why';
COMMENT ON COLUMN report.dead_letters.context IS 'where';
COMMENT ON COLUMN report.dead_letters.value IS 'the unreadable message, or the refused event as JSON';
COMMENT ON COLUMN report.dead_letters.headers IS 'headers of the message';
COMMENT ON COLUMN report.dead_letters.at IS 'when it was refused, last time';
COMMENT ON COLUMN report.dead_letters.attempts IS 'how often it was tried';

/* ---- what pg_dump carries ---- */

SELECT pg_catalog.pg_extension_config_dump('report.reported_events', '');
SELECT pg_catalog.pg_extension_config_dump('report.progress', '');
SELECT pg_catalog.pg_extension_config_dump('report.definitions', '');
SELECT pg_catalog.pg_extension_config_dump('report.applied', '');
SELECT pg_catalog.pg_extension_config_dump('report.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('report.dead_letter_id_seq', '');

/* ---- functions ---- */

CREATE FUNCTION report.define(name text, statement text, target regclass,
		description text DEFAULT NULL)
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_define';
COMMENT ON FUNCTION report.define(text, text, regclass, text) IS 'defines a report: target is kept by a statement that reads FROM new_events; again: replaces the statement';

CREATE FUNCTION report.drop(name text)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_drop';
COMMENT ON FUNCTION report.drop(text) IS 'ends a report; its table stays';

CREATE FUNCTION report.enable(name text)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_enable';
COMMENT ON FUNCTION report.enable(text) IS 'goes on with a disabled or failed report: it catches up along the event log';

CREATE FUNCTION report.disable(name text)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_disable';
COMMENT ON FUNCTION report.disable(text) IS 'halts a report where it stands';

CREATE FUNCTION report.start()
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_start';
COMMENT ON FUNCTION report.start() IS 'this database reads from Kafka';

CREATE FUNCTION report.stop()
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_stop';
COMMENT ON FUNCTION report.stop() IS 'this database does not read from Kafka until report.start()';

CREATE FUNCTION report.seek(topic text, "partition" integer, kafka_offset bigint)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_seek';
COMMENT ON FUNCTION report.seek(text, integer, bigint) IS 'goes on reading a partition at this offset (-2: the beginning); events that were read before are not counted again';

CREATE FUNCTION report.retry(id bigint DEFAULT NULL)
	RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_retry';
COMMENT ON FUNCTION report.retry(bigint) IS 'asks the reporter to try a dead letter again (null: all of them); answers how many';

CREATE FUNCTION report.skip(id bigint)
	RETURNS bigint LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_skip';
COMMENT ON FUNCTION report.skip(bigint) IS 'drops a dead letter for good';

CREATE FUNCTION report.wait_applied(event_id uuid DEFAULT NULL,
		timeout interval DEFAULT '10s')
	RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_wait_applied';
COMMENT ON FUNCTION report.wait_applied(uuid, interval) IS 'waits until this event (null: all that the reporter knows to be in the topics) stands in the reports; false when the time is over';

CREATE FUNCTION report.stat_reset()
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_stat_reset';
COMMENT ON FUNCTION report.stat_reset() IS 'zeroes the counters of report.stat_reporter and report.stat_reports';

CREATE FUNCTION report.worker(OUT preloaded boolean, OUT listed boolean,
		OUT pid integer, OUT state text, OUT since timestamptz,
		OUT message text, OUT remedy text, OUT at timestamptz)
	RETURNS record LANGUAGE c VOLATILE PARALLEL RESTRICTED
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_worker';
COMMENT ON FUNCTION report.worker() IS 'what this database''s reporter says about itself (for the views)';

CREATE FUNCTION report.worker_partitions(OUT topic text, OUT partition integer,
		OUT state text, OUT kafka_offset bigint, OUT high_watermark bigint,
		OUT events_applied bigint, OUT duplicates bigint, OUT skipped bigint,
		OUT dead_letters bigint, OUT last_applied_at timestamptz,
		OUT last_error text, OUT last_error_at timestamptz)
	RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_worker_partitions';
COMMENT ON FUNCTION report.worker_partitions() IS 'what this database''s reporter says about each partition (for the views)';

/* ---- the car shop's reports ---- */

CREATE FUNCTION report.create_car_shop()
	RETURNS SETOF text LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $function$
BEGIN
	IF pg_catalog.to_regclass('report.events_by_day') IS NULL THEN
		CREATE TABLE report.events_by_day (
			day			date NOT NULL,
			event_type	text NOT NULL,
			events		bigint NOT NULL,
			PRIMARY KEY (day, event_type)
		);
		COMMENT ON TABLE report.events_by_day IS 'events of each type per day (UTC)';
	END IF;
	PERFORM report.define('events_by_day', $statement$
INSERT INTO report.events_by_day AS t (day, event_type, events)
SELECT (occurred_on AT TIME ZONE 'UTC')::date, event_type, count(*)
FROM new_events
GROUP BY 1, 2
ON CONFLICT (day, event_type) DO UPDATE SET events = t.events + excluded.events
$statement$, 'report.events_by_day', 'events of each type per day (UTC)');
	RETURN NEXT 'events_by_day';

	IF pg_catalog.to_regclass('report.cars') IS NULL THEN
		CREATE TABLE report.cars (
			number		integer NOT NULL PRIMARY KEY,
			engine		text,
			pedal_size	integer,
			added_on	timestamptz,
			sold_on		timestamptz,
			customer	text
		);
		COMMENT ON TABLE report.cars IS 'every car: its engine ($type without "EngineEntity", in lower case: pedal, hand), when it was added, when and to whom it was sold last';
	END IF;
	/* The newest value that is known wins: input of the aggregates is ordered
	 * by log_seq, and the last element of each array is taken. */
	PERFORM report.define('cars', $statement$
INSERT INTO report.cars AS t
	(number, engine, pedal_size, added_on, sold_on, customer)
SELECT number,
	(array_agg(engine) FILTER (WHERE engine <> ''))[(count(*) FILTER (WHERE engine <> ''))::integer],
	(array_agg(pedal_size) FILTER (WHERE pedal_size IS NOT NULL))[count(pedal_size)::integer],
	(array_agg(added_on) FILTER (WHERE added_on IS NOT NULL))[count(added_on)::integer],
	(array_agg(sold_on) FILTER (WHERE sold_on IS NOT NULL))[count(sold_on)::integer],
	(array_agg(customer) FILTER (WHERE customer IS NOT NULL))[count(customer)::integer]
FROM (
	SELECT (data ->> 'Number')::integer AS number, log_seq,
		lower(replace(split_part(split_part(split_part(split_part(replace(
			data ->> 'Engine', ' ', ''), '"$type":"', 2), '"', 1), ',', 1), '.', -1), 'EngineEntity', '')) AS engine,
		NULLIF(split_part(split_part(split_part(replace(
			data ->> 'Engine', ' ', ''), '"PedalSize":', 2), ',', 1), '}', 1), '')::integer AS pedal_size,
		occurred_on AS added_on, NULL::timestamptz AS sold_on, NULL::text AS customer
	FROM new_events WHERE event_type = 'CarAdded'
	UNION ALL
	SELECT (data ->> 'CarNumber')::integer, log_seq, NULL, NULL,
		NULL, occurred_on, data ->> 'Name'
	FROM new_events WHERE event_type = 'CarSold'
	ORDER BY 1, 2
) e
WHERE number IS NOT NULL
GROUP BY number
ON CONFLICT (number) DO UPDATE SET
	engine = COALESCE(excluded.engine, t.engine),
	pedal_size = COALESCE(excluded.pedal_size, t.pedal_size),
	added_on = COALESCE(excluded.added_on, t.added_on),
	sold_on = COALESCE(excluded.sold_on, t.sold_on),
	customer = COALESCE(excluded.customer, t.customer)
$statement$, 'report.cars', 'every car, when it was added, when and to whom it was sold');
	RETURN NEXT 'cars';

	IF pg_catalog.to_regclass('report.customers') IS NULL THEN
		CREATE TABLE report.customers (
			name		text NOT NULL PRIMARY KEY,
			leg_power	integer,
			hand_power	integer,
			added_on	timestamptz,
			cars		bigint NOT NULL
		);
		COMMENT ON TABLE report.customers IS 'every customer: powers as last reported, when added, how many cars bought';
	END IF;
	PERFORM report.define('customers', $statement$
INSERT INTO report.customers AS t (name, leg_power, hand_power, added_on, cars)
SELECT name,
	(array_agg(leg_power) FILTER (WHERE leg_power IS NOT NULL))[count(leg_power)::integer],
	(array_agg(hand_power) FILTER (WHERE hand_power IS NOT NULL))[count(hand_power)::integer],
	(array_agg(added_on) FILTER (WHERE added_on IS NOT NULL))[count(added_on)::integer],
	count(*) FILTER (WHERE event_type = 'CarSold')
FROM (
	SELECT log_seq, event_type,
		data ->> 'Name' AS name,
		(data ->> 'LegPower')::integer AS leg_power,
		(data ->> 'HandPower')::integer AS hand_power,
		CASE event_type WHEN 'CustomerAdded' THEN occurred_on END AS added_on
	FROM new_events
	WHERE event_type IN ('CustomerAdded', 'CarSold')
	ORDER BY data ->> 'Name', log_seq
) e
WHERE name IS NOT NULL
GROUP BY name
ON CONFLICT (name) DO UPDATE SET
	leg_power = COALESCE(excluded.leg_power, t.leg_power),
	hand_power = COALESCE(excluded.hand_power, t.hand_power),
	added_on = COALESCE(excluded.added_on, t.added_on),
	cars = t.cars + excluded.cars
$statement$, 'report.customers', 'every customer and how many cars were bought');
	RETURN NEXT 'customers';

	IF pg_catalog.to_regclass('report.sales_by_day') IS NULL THEN
		CREATE TABLE report.sales_by_day (
			day			date NOT NULL,
			engine		text NOT NULL,
			cars_sold	bigint NOT NULL,
			PRIMARY KEY (day, engine)
		);
		COMMENT ON TABLE report.sales_by_day IS 'cars sold per day (UTC) and engine; unknown: no CarAdded of that car came before';
	END IF;
	/* The engine is what the event log knew before the sale: so the result
	 * depends on nothing but the log, however it is cut into batches. */
	PERFORM report.define('sales_by_day', $statement$
INSERT INTO report.sales_by_day AS t (day, engine, cars_sold)
SELECT (s.occurred_on AT TIME ZONE 'UTC')::date,
	COALESCE(NULLIF(lower(replace(split_part(split_part(split_part(split_part(replace(
		c.engine, ' ', ''), '"$type":"', 2), '"', 1), ',', 1), '.', -1), 'EngineEntity', '')), ''), 'unknown'),
	count(*)
FROM new_events s
LEFT JOIN LATERAL (
	SELECT a.data ->> 'Engine' AS engine
	FROM report.reported_events a
	WHERE a.event_type = 'CarAdded'
		AND (a.data ->> 'Number') = (s.data ->> 'CarNumber')
		AND a.log_seq < s.log_seq
	ORDER BY a.log_seq DESC
	LIMIT 1
) c ON true
WHERE s.event_type = 'CarSold'
GROUP BY 1, 2
ON CONFLICT (day, engine) DO UPDATE SET cars_sold = t.cars_sold + excluded.cars_sold
$statement$, 'report.sales_by_day', 'cars sold per day (UTC) and engine');
	RETURN NEXT 'sales_by_day';
END
$function$;
COMMENT ON FUNCTION report.create_car_shop() IS 'makes the car shop''s reports: events_by_day, cars, customers, sales_by_day';

/* ---- seeing ---- */

CREATE VIEW report.stat_reporter AS
	SELECT w.pid,
		   CASE WHEN w.pid IS NULL THEN 'not running'
				WHEN p.lost IS NOT NULL THEN 'stopped'
				ELSE COALESCE(s.state, w.state) END AS state,
		   topic, partition,
		   COALESCE(s.kafka_offset, p.next_offset) AS kafka_offset,
		   s.high_watermark,
		   CASE WHEN s.kafka_offset >= 0
				THEN GREATEST(s.high_watermark - s.kafka_offset, 0) END AS lag,
		   s.events_applied, s.duplicates, s.skipped, s.dead_letters,
		   COALESCE(s.last_applied_at, p.changed_at) AS last_applied_at,
		   COALESCE(p.lost, s.last_error) AS last_error, s.last_error_at
	FROM report.progress p
		FULL JOIN report.worker_partitions() s USING (topic, partition)
		CROSS JOIN report.worker() w;
COMMENT ON VIEW report.stat_reporter IS 'reading, per topic and partition; counters since the reporter''s start or report.stat_reset()';
COMMENT ON COLUMN report.stat_reporter.pid IS 'process of the reporter; null: it does not run';
COMMENT ON COLUMN report.stat_reporter.state IS 'current, reading, waiting, stopped, not running';
COMMENT ON COLUMN report.stat_reporter.topic IS 'topic';
COMMENT ON COLUMN report.stat_reporter.partition IS 'partition';
COMMENT ON COLUMN report.stat_reporter.kafka_offset IS 'next offset to read';
COMMENT ON COLUMN report.stat_reporter.high_watermark IS 'the partition''s end, as last fetched';
COMMENT ON COLUMN report.stat_reporter.lag IS 'messages between the two';
COMMENT ON COLUMN report.stat_reporter.events_applied IS 'events stored in the event log';
COMMENT ON COLUMN report.stat_reporter.duplicates IS 'events that were stored before';
COMMENT ON COLUMN report.stat_reporter.skipped IS 'tombstones and JSON nulls';
COMMENT ON COLUMN report.stat_reporter.dead_letters IS 'messages that could not be read';
COMMENT ON COLUMN report.stat_reporter.last_applied_at IS 'when messages were stored last';
COMMENT ON COLUMN report.stat_reporter.last_error IS 'newest error of this partition';
COMMENT ON COLUMN report.stat_reporter.last_error_at IS 'when it happened';

CREATE VIEW report.stat_reports AS
	SELECT d.name, d.owner, d.target,
		   CASE WHEN NOT d.enabled THEN 'disabled'
				WHEN a.failed THEN 'failed'
				WHEN a.applied_seq >= l.head THEN 'current'
				WHEN a.last_error IS NOT NULL THEN 'trying again'
				ELSE 'catching up' END AS state,
		   a.events, a.runs, a.total_ms, a.last_ms, a.dead_letters,
		   NULL::bigint AS rebuild_done, NULL::bigint AS rebuild_total,
		   a.last_error
	FROM report.definitions d
		JOIN report.applied a USING (name)
		CROSS JOIN (SELECT COALESCE(pg_catalog.max(e.log_seq), 0) AS head
					FROM report.reported_events e) l;
COMMENT ON VIEW report.stat_reports IS 'every report, its state and its cost';
COMMENT ON COLUMN report.stat_reports.name IS 'name of the report';
COMMENT ON COLUMN report.stat_reports.owner IS 'role that it runs as';
COMMENT ON COLUMN report.stat_reports.target IS 'the table people read';
COMMENT ON COLUMN report.stat_reports.state IS 'current, catching up, trying again, disabled, failed';
COMMENT ON COLUMN report.stat_reports.events IS 'events given to the report';
COMMENT ON COLUMN report.stat_reports.runs IS 'times the statement was executed';
COMMENT ON COLUMN report.stat_reports.total_ms IS 'time spent in the statement';
COMMENT ON COLUMN report.stat_reports.last_ms IS 'time of the newest execution';
COMMENT ON COLUMN report.stat_reports.dead_letters IS 'events that the report has refused';
COMMENT ON COLUMN report.stat_reports.rebuild_done IS 'events applied by a rebuild under way';
COMMENT ON COLUMN report.stat_reports.rebuild_total IS 'events that it has to apply';
COMMENT ON COLUMN report.stat_reports.last_error IS 'newest error';

CREATE VIEW report.status AS
	WITH worker AS (
		SELECT w.*, i.reading,
			   w.listed OR COALESCE(i.only_one, false)
				   OR EXISTS (SELECT FROM report.definitions) AS used
		FROM report.worker() w LEFT JOIN report.instance i ON true
	), concerns (place, concern, level, message, remedy) AS (
		SELECT 1, 'library',
			   CASE WHEN w.preloaded THEN 'ok' ELSE 'fail' END,
			   CASE WHEN w.preloaded THEN 'the library is preloaded'
					ELSE 'the library is not preloaded: no worker runs' END,
			   CASE WHEN NOT w.preloaded THEN
					'ALTER SYSTEM SET shared_preload_libraries = '
					|| pg_catalog.concat_ws(', ', NULLIF(pg_catalog.current_setting('shared_preload_libraries'), ''), 'carshop_outbox')
					|| '; then restart the server' END
		FROM worker w
		UNION ALL
		SELECT 2, 'reporter',
			   CASE WHEN NOT w.used OR w.pid IS NOT NULL THEN 'ok' ELSE 'fail' END,
			   CASE WHEN w.pid IS NOT NULL
					THEN pg_catalog.format('the reporter runs (pid %s, %s)', w.pid, w.state)
					WHEN NOT w.used THEN 'this database reads no events and has no reports'
					WHEN w.listed THEN 'the reporter does not run'
					ELSE 'no reporter runs: this database is not named in carshop_outbox.report_databases' END,
			   CASE WHEN NOT w.used OR w.pid IS NOT NULL THEN NULL
					WHEN w.listed THEN 'see the server''s log; max_worker_processes may be too small'
					ELSE 'ALTER SYSTEM SET carshop_outbox.report_databases = '
						 || pg_catalog.quote_literal(pg_catalog.concat_ws(',',
								NULLIF(pg_catalog.current_setting('carshop_outbox.report_databases', true), ''),
								pg_catalog.quote_ident(pg_catalog.current_database())))
						 || '; SELECT pg_reload_conf();' END
		FROM worker w WHERE w.preloaded
		UNION ALL
		SELECT 3, 'reading',
			   CASE WHEN w.reading OR NOT w.used THEN 'ok' ELSE 'warn' END,
			   CASE WHEN w.reading THEN 'reading is started'
					WHEN NOT w.used THEN 'not used'
					WHEN w.reading IS NULL THEN 'reading was never started in this database (a restored copy waits here)'
					ELSE 'reading is stopped' END,
			   CASE WHEN w.used AND w.reading IS NOT TRUE THEN 'SELECT report.start();' END
		FROM worker w
		UNION ALL
		SELECT 4, 'kafka',
			   CASE WHEN COALESCE(w.message, '') = '' THEN 'ok'
					WHEN w.state = 'stopped' THEN 'fail' ELSE 'warn' END,
			   COALESCE(NULLIF(w.message, ''), 'no trouble with Kafka'),
			   NULLIF(w.remedy, '')
		FROM worker w WHERE w.pid IS NOT NULL AND w.reading
		UNION ALL
		SELECT 5, pg_catalog.format('partition %s/%s', p.topic, p.partition), 'fail',
			   p.lost,
			   pg_catalog.format('SELECT report.seek(%L, %s, %s);', p.topic, p.partition, -2)
		FROM report.progress p WHERE p.lost IS NOT NULL
		UNION ALL
		SELECT 6, pg_catalog.format('report %s', r.name),
			   CASE r.state WHEN 'failed' THEN 'fail'
							WHEN 'trying again' THEN 'warn' ELSE 'ok' END,
			   CASE WHEN r.state IN ('failed', 'trying again')
					THEN pg_catalog.format('%s: %s', r.state, r.last_error)
					ELSE r.state END,
			   CASE r.state WHEN 'failed' THEN pg_catalog.format(
					'SELECT report.enable(%L); after the cause is repaired', r.name) END
		FROM report.stat_reports r
		UNION ALL
		SELECT 7, 'dead letters',
			   CASE WHEN d.n = 0 THEN 'ok' ELSE 'warn' END,
			   CASE WHEN d.n = 0 THEN 'none'
					ELSE pg_catalog.format('%s messages or events were refused', d.n) END,
			   CASE WHEN d.n > 0 THEN
					'SELECT * FROM report.dead_letters; then report.retry() or report.skip(id)' END
		FROM (SELECT pg_catalog.count(*) AS n FROM report.dead_letter) d
	)
	SELECT c.concern::text, c.level::text, c.message::text, c.remedy::text
	FROM concerns c
	ORDER BY CASE c.level WHEN 'fail' THEN 1 WHEN 'warn' THEN 2 ELSE 3 END,
			 c.place, c.concern;
COMMENT ON VIEW report.status IS 'what is right and what is wrong with reading and reports, worst first, with the remedy';
COMMENT ON COLUMN report.status.concern IS 'what it is about';
COMMENT ON COLUMN report.status.level IS 'ok, warn or fail';
COMMENT ON COLUMN report.status.message IS 'what is right or wrong';
COMMENT ON COLUMN report.status.remedy IS 'what to do';

/* ---- rights ---- */

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA report FROM PUBLIC;
GRANT EXECUTE ON FUNCTION report.worker(), report.worker_partitions() TO pg_monitor;
GRANT SELECT ON report.dead_letters, report.stat_reporter, report.stat_reports,
	report.status, report.progress, report.instance TO pg_monitor;
----------------------------------------------------------------------------
-- Seeing: the relay
----------------------------------------------------------------------------

CREATE FUNCTION outbox.relay_report(
    OUT pid integer, OUT state text, OUT since timestamptz, OUT stopped boolean,
    OUT trouble text, OUT remedy text, OUT broker_warning text,
    OUT tick bigint, OUT confirmed_tick bigint,
    OUT events_published bigint, OUT bytes_published bigint, OUT transactions bigint,
    OUT last_transaction_ms double precision, OUT settle_ms double precision,
    OUT errors bigint, OUT last_error text, OUT last_error_at timestamptz,
    OUT stats_reset timestamptz, OUT preloaded boolean, OUT wanted boolean,
    OUT lineage uuid)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_relay_report';
COMMENT ON FUNCTION outbox.relay_report() IS 'What this database''s relay says about itself; use outbox.stat_relay';
REVOKE ALL ON FUNCTION outbox.relay_report() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.relay_report() TO pg_monitor;

CREATE VIEW outbox.unconfirmed AS
    WITH confirmed AS (
        SELECT t.snapshot FROM outbox.tick t
         WHERE t.tick_id = (SELECT GREATEST(l.confirmed_tick, r.confirmed_tick,
                                            (SELECT n.confirmed_tick FROM outbox.tick n ORDER BY n.tick_id DESC LIMIT 1))
                              FROM outbox.lineage l LEFT JOIN outbox.relay_report() r ON r.lineage = l.lineage)
    ), waiting AS (
        SELECT e.seq, e.occurred_at FROM outbox.event e
         WHERE e.xid >= (SELECT pg_snapshot_xmin(snapshot) FROM confirmed)
           AND NOT pg_visible_in_snapshot(e.xid, (SELECT snapshot FROM confirmed))
        UNION ALL
        SELECT e.seq, e.occurred_at FROM outbox.event e
         WHERE NOT EXISTS (SELECT FROM confirmed)
    )
    SELECT count(*) AS events, min(occurred_at) AS oldest
      FROM waiting w
     WHERE NOT EXISTS (SELECT FROM outbox.dead_letter d WHERE d.seq = w.seq);
COMMENT ON VIEW outbox.unconfirmed IS
'Events not known to be in Kafka and the oldest one''s time; counts them, so it costs time in proportion to the backlog';

CREATE VIEW outbox.stat_relay AS
    SELECT r.pid, r.state, r.since, l.lineage, r.tick,
           CASE WHEN r.lineage = l.lineage THEN GREATEST(r.confirmed_tick, l.confirmed_tick) ELSE l.confirmed_tick END AS confirmed_tick,
           u.events AS unconfirmed_events, clock_timestamp() - u.oldest AS oldest_unconfirmed,
           r.events_published, r.bytes_published, r.transactions,
           (SELECT count(*) FROM outbox.dead_letter) AS dead_letters,
           r.last_transaction_ms, r.settle_ms, r.errors, r.last_error, r.last_error_at,
           r.stats_reset
      FROM outbox.relay_report() r
     CROSS JOIN outbox.lineage l
     CROSS JOIN outbox.unconfirmed u;
COMMENT ON VIEW outbox.stat_relay IS
'The relay of this database: state, progress, counters since stats_reset or its start';

CREATE FUNCTION outbox.stat_reset() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_stat_reset';
COMMENT ON FUNCTION outbox.stat_reset() IS 'Sets the counters of outbox.stat_relay to zero';
REVOKE ALL ON FUNCTION outbox.stat_reset() FROM PUBLIC;

CREATE VIEW outbox.status AS
    WITH r AS (SELECT * FROM outbox.relay_report()),
    rows AS (
        SELECT 'preload' AS concern, 'fail' AS level,
               'The library is not preloaded: events are stored and nothing publishes them.' AS message,
               'Put shared_preload_libraries = ''carshop_outbox'' into postgresql.conf and restart the server.' AS remedy
          FROM r WHERE NOT preloaded
        UNION ALL
        SELECT 'relay', CASE WHEN EXISTS (SELECT FROM outbox.routes) THEN 'fail' ELSE 'warn' END,
               format('carshop_outbox.shop_databases does not name database "%s": its events are stored and not published.', current_database()),
               format('ALTER SYSTEM SET carshop_outbox.shop_databases = ''%s''; SELECT pg_reload_conf();',
                      concat_ws(',', NULLIF(current_setting('carshop_outbox.shop_databases'), ''), current_database()))
          FROM r WHERE preloaded AND NOT wanted
        UNION ALL
        SELECT 'relay', 'fail', 'The relay is not running.',
               'See the server''s log; raise max_worker_processes if all slots are in use.'
          FROM r WHERE preloaded AND wanted AND pid IS NULL
        UNION ALL
        SELECT 'divergence', 'fail', trouble, remedy
          FROM r WHERE pid IS NOT NULL AND stopped
        UNION ALL
        SELECT 'kafka', 'fail', trouble, remedy
          FROM r WHERE pid IS NOT NULL AND NOT stopped AND trouble IS NOT NULL
        UNION ALL
        SELECT 'kafka', 'warn', broker_warning,
               'Allow the relay''s principal DescribeConfigs on the cluster, or check transaction.partition.verification.enable yourself.'
          FROM r WHERE pid IS NOT NULL AND broker_warning IS NOT NULL
        UNION ALL
        SELECT 'delivery', 'warn',
               'delivery = at_least_once: events may be doubled, torn or out of order after a crash.',
               'ALTER SYSTEM SET carshop_outbox.delivery = ''exactly_once''; SELECT pg_reload_conf();'
          FROM r WHERE preloaded AND wanted AND current_setting('carshop_outbox.delivery') = 'at_least_once'
        UNION ALL
        SELECT 'paused', 'warn', 'Publishing is paused; events are stored.', 'SELECT outbox.resume();'
          FROM outbox.lineage WHERE paused
        UNION ALL
        SELECT 'dead letters', 'warn', format('Kafka refuses %s event(s) for good.', count(*)),
               'SELECT * FROM outbox.dead_letters;'
          FROM outbox.dead_letter HAVING count(*) > 0
        UNION ALL
        SELECT 'route', 'warn', format('Route "%s" on %s is disabled: these changes make no events.', event_type, source),
               format('ALTER TABLE %s ENABLE TRIGGER %I;', source, trigger_name)
          FROM outbox.routes WHERE NOT enabled
        UNION ALL
        SELECT 'backfill', CASE WHEN changed_at < clock_timestamp() - interval '1 minute' THEN 'warn' ELSE 'ok' END,
               format('Backfill of "%s" on %s: %s of %s rows.', event_type, source, done, total),
               CASE WHEN changed_at < clock_timestamp() - interval '1 minute'
                    THEN format('CALL outbox.backfill(%L, %L);', source, event_type) END
          FROM outbox.backfill_progress
        UNION ALL
        SELECT 'sequence', 'fail', 'outbox.event_seq has a cache: the order per key is not kept.',
               'ALTER SEQUENCE outbox.event_seq CACHE 1;'
          FROM pg_sequence WHERE seqrelid = 'outbox.event_seq'::regclass AND seqcache <> 1
        UNION ALL
        SELECT 'backlog', 'warn',
               format('%s event(s) wait for Kafka, the oldest for %s.', events,
                      date_trunc('second', clock_timestamp() - oldest)),
               'SELECT * FROM outbox.stat_relay;'
          FROM outbox.unconfirmed
         WHERE clock_timestamp() - oldest > interval '1 minute'
        UNION ALL
        SELECT 'relay', 'ok', format('The relay is %s.', state), NULL
          FROM r WHERE pid IS NOT NULL AND NOT stopped AND trouble IS NULL
    )
    SELECT concern, level, message, remedy FROM rows
     ORDER BY CASE level WHEN 'fail' THEN 0 WHEN 'warn' THEN 1 ELSE 2 END, concern;
COMMENT ON VIEW outbox.status IS 'What is wrong with publishing, worst first, and what to do about it';

----------------------------------------------------------------------------
-- Rights
----------------------------------------------------------------------------

-- Writers of captured tables need nothing.  Members of pg_monitor see the
-- state and not the events.
GRANT SELECT ON outbox.status, outbox.stat_relay, outbox.routes, outbox.backfill_progress TO pg_monitor;

----------------------------------------------------------------------------
-- Logical replication
----------------------------------------------------------------------------

-- A publication FOR ALL TABLES takes ours along.  On a subscriber that has the
-- extension as well they must stay its own: it would publish its publisher's
-- events again, and read offsets that are not its own.
CREATE FUNCTION outbox.ignore_replication() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'outbox_ignore_replication';
COMMENT ON FUNCTION outbox.ignore_replication() IS
'Trigger function on the extension''s tables, fired for replicated changes only: skips rows, refuses TRUNCATE';
REVOKE ALL ON FUNCTION outbox.ignore_replication() FROM PUBLIC;

DO $guard$
DECLARE
    ours regclass;
BEGIN
    FOR ours IN
        SELECT c.oid FROM pg_class c
         WHERE c.relkind = 'r' AND c.relnamespace IN ('outbox'::regnamespace, 'report'::regnamespace)
    LOOP
        EXECUTE format('CREATE TRIGGER ignore_replication BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION outbox.ignore_replication()', ours);
        EXECUTE format('CREATE TRIGGER refuse_replicated_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION outbox.ignore_replication()', ours);
        EXECUTE format('ALTER TABLE %s ENABLE REPLICA TRIGGER ignore_replication', ours);
        EXECUTE format('ALTER TABLE %s ENABLE REPLICA TRIGGER refuse_replicated_truncate', ours);
        EXECUTE format('COMMENT ON TRIGGER ignore_replication ON %s IS %L', ours,
                       'A publisher''s rows do not come into this table');
        EXECUTE format('COMMENT ON TRIGGER refuse_replicated_truncate ON %s IS %L', ours,
                       'A publisher''s TRUNCATE does not empty this table');
    END LOOP;
END
$guard$;

DO $warn$
BEGIN
    IF NOT (SELECT preloaded FROM outbox.relay_report()) THEN
        RAISE WARNING USING
            MESSAGE = 'carshop_outbox is not preloaded: events will be stored, and nothing publishes or reads them',
            HINT = 'Put shared_preload_libraries = ''carshop_outbox'' into postgresql.conf and restart the server.';
    END IF;
END
$warn$;

-- a worker that waits for the extension looks again at once
SELECT outbox.wake();
