-- What bench/capture measures on: the same table for each variant, and the outbox
-- triggers that people write, into a table with the columns and the index of ours.
CREATE EXTENSION carshop_outbox;
CREATE TABLE source AS
    SELECT n AS id, 'customer ' || n % 1000 AS customer, (n % 100000) / 100.0 AS total,
           timestamptz '2026-01-01 00:00:00+00' + n * interval '1 second' AS at, repeat('x', 60) AS note
      FROM generate_series(1, :rows) n;
CREATE SEQUENCE ids CACHE 1000;
CREATE TABLE none (id integer PRIMARY KEY, customer text, total numeric, at timestamptz, note text);
CREATE TABLE route (LIKE none INCLUDING ALL);
CREATE TABLE row_trigger (LIKE none INCLUDING ALL);
CREATE TABLE statement_trigger (LIKE none INCLUDING ALL);
SELECT outbox.capture('route', 'OrderPlaced');

-- for the memory: PostgreSQL's own queue of AFTER triggers, and nothing else
CREATE TABLE noop (LIKE none INCLUDING ALL);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER nothing AFTER INSERT ON noop FOR EACH ROW EXECUTE FUNCTION nothing();

CREATE TABLE people (
    seq bigserial, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    id uuid NOT NULL DEFAULT gen_random_uuid(), type text NOT NULL, aggregatetype text, aggregateid text, payload jsonb,
    description text, topic text, headers jsonb, traceparent text, format text, value bytea);
CREATE INDEX ON people (xid, seq);
CREATE FUNCTION each_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO people (type, aggregatetype, aggregateid, payload, description, format)
    VALUES ('OrderPlaced', TG_TABLE_NAME, NEW.id::text, to_jsonb(NEW), 'OrderPlaced ' || NEW.id, 'envelope');
    RETURN NULL;
END $$;
CREATE TRIGGER events AFTER INSERT ON row_trigger FOR EACH ROW EXECUTE FUNCTION each_row();
CREATE FUNCTION each_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO people (type, aggregatetype, aggregateid, payload, description, format)
    SELECT 'OrderPlaced', TG_TABLE_NAME, n.id::text, to_jsonb(n), 'OrderPlaced ' || n.id, 'envelope' FROM new_rows n;
    RETURN NULL;
END $$;
CREATE TRIGGER events AFTER INSERT ON statement_trigger REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION each_statement();
