-- sql/outbox.sql: what leaves the shop. The first part of the script.

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

CREATE FUNCTION outbox.list_names(list text) RETURNS text[]
	LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'outbox_list_names';
COMMENT ON FUNCTION outbox.list_names(text) IS 'The names in a list such as carshop_outbox.shop_databases, as the workers read it; NULL is an empty list';

--
-- The event store: three insert-only segments behind one view
--

CREATE SEQUENCE outbox.event_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE outbox.event_seq IS 'Order of events; the extension draws one number at a time';

CREATE TABLE outbox.event_0 (
	seq				bigint		NOT NULL,
	xid				xid8		NOT NULL,
	occurred_at		timestamptz	NOT NULL,
	id				uuid		NOT NULL,
	type			text		NOT NULL,
	aggregatetype	text,
	aggregateid		text,
	payload			json,
	description		text,
	topic			text,
	headers			jsonb,
	traceparent		text,
	format			text		NOT NULL,
	value			bytea
) WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
COMMENT ON TABLE outbox.event_0 IS 'Segment of outbox.event; written by the extension only';
COMMENT ON COLUMN outbox.event_0.seq IS 'Order of writing; for changes under a common lock the order of commit';
COMMENT ON COLUMN outbox.event_0.xid IS 'Top-level transaction of the writer';
COMMENT ON COLUMN outbox.event_0.occurred_at IS 'When the event happened';
COMMENT ON COLUMN outbox.event_0.id IS 'UUIDv7 unless the writer gives its own; the idempotency key everywhere';
COMMENT ON COLUMN outbox.event_0.type IS 'Event type';
COMMENT ON COLUMN outbox.event_0.aggregatetype IS 'What the event is about; the table''s name unless the route says otherwise';
COMMENT ON COLUMN outbox.event_0.aggregateid IS 'The message''s key; NULL: none';
COMMENT ON COLUMN outbox.event_0.payload IS 'The row, or what the writer gave: Data of the message';
COMMENT ON COLUMN outbox.event_0.description IS 'EventDescription of the message';
COMMENT ON COLUMN outbox.event_0.topic IS 'NULL: the setting carshop_outbox.topic at the time of publication';
COMMENT ON COLUMN outbox.event_0.headers IS 'Headers of the message: an object of strings';
COMMENT ON COLUMN outbox.event_0.traceparent IS 'W3C trace context';
COMMENT ON COLUMN outbox.event_0.format IS 'envelope, payload, cloudevents or raw';
COMMENT ON COLUMN outbox.event_0.value IS 'Ready bytes, sent untouched (format raw)';
CREATE TABLE outbox.event_1 (LIKE outbox.event_0 INCLUDING COMMENTS)
	WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE TABLE outbox.event_2 (LIKE outbox.event_0 INCLUDING COMMENTS)
	WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
COMMENT ON TABLE outbox.event_1 IS 'Segment of outbox.event; written by the extension only';
COMMENT ON TABLE outbox.event_2 IS 'Segment of outbox.event; written by the extension only';
CREATE INDEX event_0_xid_seq ON outbox.event_0 (xid, seq);
CREATE INDEX event_1_xid_seq ON outbox.event_1 (xid, seq);
CREATE INDEX event_2_xid_seq ON outbox.event_2 (xid, seq);
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
COMMENT ON COLUMN outbox.event.seq IS 'Order of writing; for changes under a common lock the order of commit';
COMMENT ON COLUMN outbox.event.xid IS 'Top-level transaction of the writer';
COMMENT ON COLUMN outbox.event.occurred_at IS 'When the event happened';
COMMENT ON COLUMN outbox.event.id IS 'UUIDv7 unless the writer gives its own; the idempotency key everywhere';
COMMENT ON COLUMN outbox.event.type IS 'Event type';
COMMENT ON COLUMN outbox.event.aggregatetype IS 'What the event is about; the table''s name unless the route says otherwise';
COMMENT ON COLUMN outbox.event.aggregateid IS 'The message''s key; NULL: none';
COMMENT ON COLUMN outbox.event.payload IS 'The row, or what the writer gave: Data of the message';
COMMENT ON COLUMN outbox.event.description IS 'EventDescription of the message';
COMMENT ON COLUMN outbox.event.topic IS 'NULL: the setting carshop_outbox.topic at the time of publication';
COMMENT ON COLUMN outbox.event.headers IS 'Headers of the message: an object of strings';
COMMENT ON COLUMN outbox.event.traceparent IS 'W3C trace context';
COMMENT ON COLUMN outbox.event.format IS 'envelope, payload, cloudevents or raw';
COMMENT ON COLUMN outbox.event.value IS 'Ready bytes, sent untouched (format raw)';

CREATE FUNCTION outbox.insert_event() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'outbox_insert_event';
COMMENT ON FUNCTION outbox.insert_event() IS
'INSTEAD OF trigger of outbox.event: the same insert as capture''s; refuses UPDATE and DELETE (OB002)';
REVOKE ALL ON FUNCTION outbox.insert_event() FROM PUBLIC;

CREATE TRIGGER insert_event INSTEAD OF INSERT OR UPDATE OR DELETE ON outbox.event
	FOR EACH ROW EXECUTE FUNCTION outbox.insert_event();
COMMENT ON TRIGGER insert_event ON outbox.event IS 'An INSERT writes the event as capture does';

--
-- Ticks, lineage, dead letters: the relay's own state
--

CREATE TABLE outbox.tick (
	tick_id			bigint		PRIMARY KEY,
	nonce			uuid		NOT NULL,
	snapshot		pg_snapshot	NOT NULL,
	confirmed_tick	bigint		NOT NULL,
	created_at		timestamptz	NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_enabled = off);
COMMENT ON TABLE outbox.tick IS
'Batch n is what is visible in snapshot n and not in snapshot n-1. Append-only.';
COMMENT ON COLUMN outbox.tick.tick_id IS 'Number of the tick';
COMMENT ON COLUMN outbox.tick.nonce IS 'Tells this tick from one of the same number after a restore';
COMMENT ON COLUMN outbox.tick.snapshot IS 'What was committed when it was made';
COMMENT ON COLUMN outbox.tick.confirmed_tick IS 'Newest tick known to be in Kafka when this one was made';
COMMENT ON COLUMN outbox.tick.created_at IS 'When the relay was told of the first commit that it covers; else when it was made';
COMMENT ON INDEX outbox.tick_pkey IS 'A tick by its number';

CREATE TABLE outbox.lineage (
	one				boolean		PRIMARY KEY DEFAULT true CHECK (one),
	lineage			uuid		NOT NULL DEFAULT gen_random_uuid(),
	cluster_id		text,
	progress_topic	text,
	home			text,
	start_tick		bigint		NOT NULL DEFAULT 0,
	confirmed_tick	bigint		NOT NULL DEFAULT 0,
	claimed			boolean		NOT NULL DEFAULT false,
	paused			boolean		NOT NULL DEFAULT false,
	inherited_xid	xid8,
	inherited_tick	bigint,
	published		pg_snapshot,
	current_segment	smallint	NOT NULL DEFAULT 0 CHECK (current_segment BETWEEN 0 AND 2),
	created_at		timestamptz	NOT NULL DEFAULT now()
);
INSERT INTO outbox.lineage DEFAULT VALUES;
COMMENT ON TABLE outbox.lineage IS
'Who publishes: one row. The lineage owns its progress topic and transactional.id in Kafka.';
COMMENT ON COLUMN outbox.lineage.one IS 'True: the table has one row';
COMMENT ON COLUMN outbox.lineage.lineage IS 'Who publishes';
COMMENT ON COLUMN outbox.lineage.cluster_id IS 'Kafka cluster in which the progress topic was made; NULL: nothing published yet';
COMMENT ON COLUMN outbox.lineage.progress_topic IS 'The lineage''s own topic in Kafka; NULL: nothing published yet';
COMMENT ON COLUMN outbox.lineage.home IS 'Server that published last: system identifier, timeline, database, data directory';
COMMENT ON COLUMN outbox.lineage.start_tick IS 'Ticks up to this one were settled before the lineage began';
COMMENT ON COLUMN outbox.lineage.confirmed_tick IS 'Newest tick known to be in Kafka when the relay last came to rest';
COMMENT ON COLUMN outbox.lineage.claimed IS 'Outbox.claim() was called: the next start takes the lineage over from another home';
COMMENT ON COLUMN outbox.lineage.paused IS 'outbox.pause() was called';
COMMENT ON COLUMN outbox.lineage.inherited_xid IS 'Earlier transactions are of the server in home, from which this one descends; NULL: it is this one';
COMMENT ON COLUMN outbox.lineage.inherited_tick IS 'Newest tick of that server''s that is here';
COMMENT ON COLUMN outbox.lineage.published IS 'What of this database is in Kafka, when a failover or restore has lost the tick that says so';
COMMENT ON COLUMN outbox.lineage.current_segment IS 'Segment that new writers use; outbox.switch_segment() changes it';
COMMENT ON COLUMN outbox.lineage.created_at IS 'When this row was made';
COMMENT ON INDEX outbox.lineage_pkey IS 'One row at most';

CREATE TABLE outbox.segment (
	segment			smallint	PRIMARY KEY CHECK (segment BETWEEN 0 AND 2),
	opened_at		timestamptz	NOT NULL DEFAULT clock_timestamp(),
	settled_at		timestamptz
);
INSERT INTO outbox.segment SELECT generate_series(0, 2);
COMMENT ON TABLE outbox.segment IS 'Where the segments of outbox.event stand on their way round';
COMMENT ON COLUMN outbox.segment.segment IS 'Number of the segment: outbox.event_0 and so on';
COMMENT ON COLUMN outbox.segment.opened_at IS 'When it became the current one';
COMMENT ON COLUMN outbox.segment.settled_at IS 'Since when it is known that all of it is in Kafka and nobody writes into it; from then on it is kept for carshop_outbox.retention. NULL: not known, or it is empty';
COMMENT ON INDEX outbox.segment_pkey IS 'A segment by its number';

--
-- Capture
--

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

CREATE FUNCTION outbox.route_condition(trigger oid)
	RETURNS text LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'outbox_route_condition';
COMMENT ON FUNCTION outbox.route_condition(oid) IS
'The condition (WHEN) of a trigger as SQL over OLD and NEW; NULL if it has none';

CREATE FUNCTION outbox.check_ddl() RETURNS event_trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'outbox_check_ddl';
COMMENT ON FUNCTION outbox.check_ddl() IS
'Event trigger function: refuses a command that would break a route (OB001), and a hand-written capture trigger that could not work';
REVOKE ALL ON FUNCTION outbox.check_ddl() FROM PUBLIC;
CREATE EVENT TRIGGER carshop_outbox_alter ON ddl_command_end
	WHEN TAG IN ('ALTER TABLE', 'ALTER FOREIGN TABLE', 'ALTER TYPE', 'CREATE TRIGGER') EXECUTE FUNCTION outbox.check_ddl();
COMMENT ON EVENT TRIGGER carshop_outbox_alter IS 'A column that a route uses is not renamed without its route';
CREATE EVENT TRIGGER carshop_outbox_drop ON sql_drop EXECUTE FUNCTION outbox.check_ddl();
COMMENT ON EVENT TRIGGER carshop_outbox_drop IS 'A column that a route uses is not dropped without its route';

CREATE FUNCTION outbox.preloaded() RETURNS boolean
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'outbox_preloaded';
COMMENT ON FUNCTION outbox.preloaded() IS 'True when the library is preloaded: only then there are workers';

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
	operation		text;
	names			text[]		:= '{}';
	arguments		text[];
	trigger_name text;
	literal			text;
	rel				record;
	children		text;
	template		text;
	used			text;
BEGIN
	IF source IS NULL OR event_type IS NULL OR operations IS NULL
		OR include_old IS NULL OR format IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'OB001',
			MESSAGE = 'source, event_type, operations, include_old and format must not be NULL',
			HINT = 'Name the table and the type of its events; what is left out has a default.';
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
		IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = source AND t.tgname = trigger_name AND t.tgenabled = 'A') THEN
			RAISE WARNING USING
				MESSAGE = format('route "%s" on %s makes no events of replicated changes any more', event_type, source),
				DETAIL = format('Trigger %I was ENABLE ALWAYS, and is replaced by an ordinary one.', trigger_name),
				HINT = format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I;', source, trigger_name);
		END IF;
		BEGIN
			-- replaced in one statement's lock, so no change goes by between
			EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s FOR EACH ROW %s EXECUTE FUNCTION outbox.capture_row(%s)',
						   trigger_name, operation, source,
						   -- it may end in a comment
						   CASE WHEN condition IS NULL THEN '' ELSE format(E'WHEN (%s\n)', condition) END,
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
	IF rel.relkind = 'p' AND names @> '{update}' AND NOT names @> '{insert}' THEN
		RAISE NOTICE USING
			MESSAGE = format('an update that moves a row of %s to another partition is a delete and an insert to its routes', source),
			DETAIL = 'A route on update alone makes no event of it.',
			HINT = 'Where the columns of the partition key are updated, make a route on insert, too.';
	END IF;
	IF key IS NULL AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = source AND i.indisprimary) THEN
		RAISE NOTICE USING
			MESSAGE = format('table %s has no primary key: its events have no key', source),
			DETAIL = 'Events without a key are spread over the partitions of a topic, so that their order is not kept.',
			HINT = 'Give one, for example key => ''{column}''.';
	END IF;
	FOR template, used IN VALUES ('key', key), ('description', description), ('topic', topic) LOOP
		IF EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attnum > 0 AND a.attname = used) THEN
			RAISE NOTICE USING
				MESSAGE = format('%s of these events is the word "%s", not the column of that name', template, used),
				HINT = format('%s => ''{%s}'' is the column''s value.', template, used);
		END IF;
	END LOOP;
	IF NOT outbox.has_relay() THEN
		RAISE WARNING USING
			MESSAGE = format('no relay publishes the events of database "%s"', current_database()),
			DETAIL = 'Until one does, they are kept.',
			-- what is to be done after a restart stands last: it ends in a comment
			HINT = concat_ws(' ', outbox.name_database_remedy('carshop_outbox.shop_databases'),
				CASE WHEN NOT outbox.preloaded() THEN outbox.preload_remedy() END);
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
	found_name		name;
	removed			integer		:= 0;
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

CREATE VIEW outbox.routes AS
	SELECT t.tgrelid::regclass AS source,
		   outbox.route_argument(t.oid, 'event_type') AS event_type,
		   concat_ws(', ', CASE WHEN t.tgtype & 4 <> 0 THEN 'insert' END,
						   CASE WHEN t.tgtype & 16 <> 0 THEN 'update' END,
						   CASE WHEN t.tgtype & 8 <> 0 THEN 'delete' END) AS operation,
		   outbox.route_condition(t.oid) AS condition,
		   outbox.route_argument(t.oid, 'key') AS key,
		   outbox.route_argument(t.oid, 'description') AS description,
		   outbox.route_argument(t.oid, 'columns')::name[] AS columns,
		   COALESCE(outbox.route_argument(t.oid, 'include_old')::boolean, false) AS include_old,
		   outbox.route_argument(t.oid, 'topic') AS topic,
		   outbox.route_argument(t.oid, 'aggregate_type') AS aggregate_type,
		   outbox.route_argument(t.oid, 'headers')::jsonb AS headers,
		   COALESCE(outbox.route_argument(t.oid, 'format'), 'envelope') AS format,
		   t.tgenabled IN ('O', 'A') AS enabled,
		   t.tgname AS trigger_name
	FROM pg_trigger t
	WHERE t.tgfoid = 'outbox.capture_row()'::regprocedure
		AND t.tgparentid = 0;
COMMENT ON VIEW outbox.routes IS 'What is captured: one row per table, event type and operation';
COMMENT ON COLUMN outbox.routes.source IS 'Table that is captured';
COMMENT ON COLUMN outbox.routes.event_type IS 'Type of the events';
COMMENT ON COLUMN outbox.routes.operation IS 'What makes an event: insert, update, delete';
COMMENT ON COLUMN outbox.routes.condition IS 'SQL over NEW and OLD; NULL: each row';
COMMENT ON COLUMN outbox.routes.key IS 'Template of the key; NULL: the primary key';
COMMENT ON COLUMN outbox.routes.description IS 'Template of EventDescription; NULL: type and key';
COMMENT ON COLUMN outbox.routes.columns IS 'Columns in Data; NULL: all';
COMMENT ON COLUMN outbox.routes.include_old IS 'Data has the old row as well';
COMMENT ON COLUMN outbox.routes.topic IS 'Template of the topic; NULL: the setting carshop_outbox.topic';
COMMENT ON COLUMN outbox.routes.headers IS 'Constant headers';
COMMENT ON COLUMN outbox.routes.format IS 'envelope, payload or cloudevents';
COMMENT ON COLUMN outbox.routes.enabled IS 'False: the trigger is disabled, or for replicated changes only, and these changes make no events';
COMMENT ON COLUMN outbox.routes.trigger_name IS 'The route is this trigger';
COMMENT ON COLUMN outbox.routes.aggregate_type IS 'What the events are about; NULL: the table''s name';

CREATE FUNCTION outbox.emit(
	event_type text, payload jsonb DEFAULT NULL, key text DEFAULT NULL,
	description text DEFAULT NULL, topic text DEFAULT NULL,
	aggregate_type text DEFAULT NULL, headers jsonb DEFAULT NULL,
	format text DEFAULT 'envelope',
	occurred_at timestamptz DEFAULT clock_timestamp(), value bytea DEFAULT NULL,
	lock_key boolean DEFAULT false, caused_by uuid DEFAULT NULL)
RETURNS uuid LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'outbox_emit';
COMMENT ON FUNCTION outbox.emit(text, jsonb, text, text, text, text, jsonb, text, timestamptz, bytea, boolean, uuid) IS
'Writes an event in the current transaction and answers its id. format raw sends value as it is. lock_key holds a lock on the key until the transaction ends, for strict order among emitters of one key. caused_by is the id of the event that this one follows from (a report''s statement gives id of new_events): header caused-by, an id that is the same whenever the report makes the event, and its trace context. Errors: OB002.';
REVOKE ALL ON FUNCTION outbox.emit(text, jsonb, text, text, text, text, jsonb, text, timestamptz, bytea, boolean, uuid) FROM PUBLIC;

--
-- Backfill
--

CREATE TABLE outbox.backfill_progress (
	id				bigint		GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	source			regclass	NOT NULL,
	event_type		text		NOT NULL,
	condition		text,
	total			bigint		NOT NULL DEFAULT 0,
	done			bigint		NOT NULL DEFAULT 0,
	started_at		timestamptz	NOT NULL DEFAULT clock_timestamp(),
	changed_at		timestamptz	NOT NULL DEFAULT clock_timestamp(),
	UNIQUE (source, event_type)
);
COMMENT ON TABLE outbox.backfill_progress IS
'Backfills that are under way or were interrupted; CALL outbox.backfill goes on with them, DELETE gives one up';
COMMENT ON COLUMN outbox.backfill_progress.id IS 'Number of the backfill';
COMMENT ON COLUMN outbox.backfill_progress.source IS 'Table whose rows make events';
COMMENT ON COLUMN outbox.backfill_progress.event_type IS 'Type of the events';
COMMENT ON COLUMN outbox.backfill_progress.condition IS 'Which rows; NULL: all';
COMMENT ON COLUMN outbox.backfill_progress.total IS 'Rows that were there when it began';
COMMENT ON COLUMN outbox.backfill_progress.done IS 'Rows that are done';
COMMENT ON COLUMN outbox.backfill_progress.started_at IS 'When it began';
COMMENT ON COLUMN outbox.backfill_progress.changed_at IS 'When it got on last';
COMMENT ON SEQUENCE outbox.backfill_progress_id_seq IS 'Ids of backfills';
COMMENT ON INDEX outbox.backfill_progress_pkey IS 'A backfill by its id';
COMMENT ON INDEX outbox.backfill_progress_source_event_type_key IS 'One backfill of a route at a time';

CREATE TABLE outbox.backfill_row (
	backfill		bigint		NOT NULL,
	n				bigint		NOT NULL,
	key				text		NOT NULL,
	PRIMARY KEY (backfill, n)
);
COMMENT ON TABLE outbox.backfill_row IS 'Primary keys of the rows that a backfill has still to do';
COMMENT ON COLUMN outbox.backfill_row.backfill IS 'Number of the backfill';
COMMENT ON COLUMN outbox.backfill_row.n IS 'Place in the list';
COMMENT ON COLUMN outbox.backfill_row.key IS 'An array of the key''s values as texts';
COMMENT ON INDEX outbox.backfill_row_pkey IS 'The list is done in this order';

CREATE PROCEDURE outbox.backfill(source regclass, event_type text,
		condition text DEFAULT NULL, batch integer DEFAULT 10000)
	LANGUAGE c AS 'MODULE_PATHNAME', 'outbox_backfill';
COMMENT ON PROCEDURE outbox.backfill(regclass, text, text, integer) IS
'Writes the event of a route on insert for every row that is already there, in transactions of batch rows, beside concurrent writers: each row once, and never an older image after a newer one. Interrupted, it goes on when it is called again. batch 0 only notes which rows are there. Needs ownership of the table; locks rows FOR SHARE. Errors: OB001.';
REVOKE ALL ON PROCEDURE outbox.backfill(regclass, text, text, integer) FROM PUBLIC;

--
-- Operating
--

CREATE FUNCTION outbox.wake() RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_wake';
COMMENT ON FUNCTION outbox.wake() IS 'Makes this database''s relay look again at once';
REVOKE ALL ON FUNCTION outbox.wake() FROM PUBLIC;
-- one that waits for the extension looks when this transaction has committed
SELECT outbox.wake();

CREATE FUNCTION outbox.wait_published(timeout interval DEFAULT '10s') RETURNS boolean
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'outbox_wait_published';
COMMENT ON FUNCTION outbox.wait_published(interval) IS
'Waits until all that was committed before the call is in Kafka; false when the time is over. What Kafka has refused (outbox.dead_letters) or is aside (outbox.parked) is not waited for. Do not call it in a transaction that has written events itself: those are not committed yet. Error: OB005 where no relay is to run: carshop_outbox.shop_databases does not name the database, or it is on a standby.';
REVOKE ALL ON FUNCTION outbox.wait_published(interval) FROM PUBLIC;

CREATE FUNCTION outbox.switch_segment() RETURNS smallint
	LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'outbox_switch_segment';
COMMENT ON FUNCTION outbox.switch_segment() IS
'Makes the next segment of outbox.event, which must be empty, the current one when the transaction commits, and returns its number. Transactions that have written events before go on in the former one. It cannot be prepared (PREPARE TRANSACTION).';
REVOKE ALL ON FUNCTION outbox.switch_segment() FROM PUBLIC;

CREATE FUNCTION outbox.home() RETURNS text
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_home';
COMMENT ON FUNCTION outbox.home() IS
'Where this database lives: system identifier, timeline, database oid, identity of the data directory';
REVOKE ALL ON FUNCTION outbox.home() FROM PUBLIC;

CREATE FUNCTION outbox.pause() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ UPDATE outbox.lineage SET paused = true; SELECT outbox.wake() $$;
COMMENT ON FUNCTION outbox.pause() IS 'Stops publishing of this database; capture goes on';
REVOKE ALL ON FUNCTION outbox.pause() FROM PUBLIC;

CREATE FUNCTION outbox.resume() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ UPDATE outbox.lineage SET paused = false; SELECT outbox.wake() $$;
COMMENT ON FUNCTION outbox.resume() IS 'Publishing goes on where outbox.pause() stopped it';
REVOKE ALL ON FUNCTION outbox.resume() FROM PUBLIC;

CREATE FUNCTION outbox.claim() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ UPDATE outbox.lineage SET claimed = true; SELECT outbox.wake() $$;
COMMENT ON FUNCTION outbox.claim() IS
'This server is the only owner of the lineage (it was moved or upgraded): publishing goes on from Kafka''s progress. Never call it on a copy while the original runs.';
REVOKE ALL ON FUNCTION outbox.claim() FROM PUBLIC;

CREATE FUNCTION outbox.start_lineage(publish text DEFAULT 'unconfirmed') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $start_lineage$
DECLARE
	confirmed bigint;
	known pg_snapshot;
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
		SELECT l.published INTO known FROM outbox.lineage l;
	ELSE
		known := pg_current_snapshot();
	END IF;
	IF known IS NULL THEN
		-- what the table knows, and what the relay has read from Kafka
		SELECT GREATEST(l.confirmed_tick, r.confirmed_tick,
						(SELECT t.confirmed_tick FROM outbox.tick t ORDER BY t.tick_id DESC LIMIT 1))
		INTO confirmed
		FROM outbox.lineage l
		LEFT JOIN outbox.relay_report() r ON r.lineage = l.lineage;
	ELSE
		-- a tick that nobody publishes: what it sees counts as done
		INSERT INTO outbox.tick (tick_id, nonce, snapshot, confirmed_tick)
		SELECT COALESCE(max(tick_id), 0) + 1, gen_random_uuid(), known,
			   COALESCE(max(tick_id), 0) + 1
		FROM outbox.tick
		RETURNING tick_id INTO confirmed;
	END IF;
	UPDATE outbox.lineage
	   SET lineage = gen_random_uuid(), cluster_id = NULL, progress_topic = NULL,
		   home = NULL, claimed = false, inherited_xid = NULL, inherited_tick = NULL,
		   published = NULL, start_tick = confirmed,
		   confirmed_tick = confirmed;
	-- perhaps in another cluster
	DELETE FROM outbox.topic;
	PERFORM outbox.wake();
END
$start_lineage$;
COMMENT ON FUNCTION outbox.start_lineage(text) IS
'This database is a copy or a restored backup: a new lineage with a progress topic of its own. ''unconfirmed'' publishes what the former one had not confirmed, ''nothing'' only what comes from now on.';
REVOKE ALL ON FUNCTION outbox.start_lineage(text) FROM PUBLIC;
