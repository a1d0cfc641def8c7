-- sql/report.sql: what is read from Kafka, and the reports made of it.

CREATE SCHEMA report;
COMMENT ON SCHEMA report IS 'carshop_outbox: events read from Kafka, and reports made of them';
GRANT USAGE ON SCHEMA report TO PUBLIC;

--
-- The event log
--

CREATE TABLE report.reported_events (
	id					uuid NOT NULL,
	event_type			text NOT NULL,
	event_description	text,
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
COMMENT ON TABLE report.reported_events IS 'Every domain event read from Kafka, once per event id';
COMMENT ON COLUMN report.reported_events.id IS 'The event''s id: ce_id, the header id or EventId; made from the message''s place and content when it has none';
COMMENT ON COLUMN report.reported_events.event_type IS 'EventType';
COMMENT ON COLUMN report.reported_events.event_description IS 'EventDescription; NULL if the message says null';
COMMENT ON COLUMN report.reported_events.occurred_on IS 'OccuredOn: when it happened, as the producer says';
COMMENT ON COLUMN report.reported_events.event_key IS 'Key, or the record''s key';
COMMENT ON COLUMN report.reported_events.data IS 'Data, if the message has it';
COMMENT ON COLUMN report.reported_events.headers IS 'The record''s headers, without an "id" that only repeats the event''s';
COMMENT ON COLUMN report.reported_events.topic IS 'Topic it was read from';
COMMENT ON COLUMN report.reported_events.partition IS 'Partition it was read from';
COMMENT ON COLUMN report.reported_events.kafka_offset IS 'Offset it was read at';
COMMENT ON COLUMN report.reported_events.received_at IS 'Start of the transaction that stored it';
COMMENT ON COLUMN report.reported_events.log_seq IS 'Strictly increasing: the order in which reports apply events';
COMMENT ON CONSTRAINT reported_events_pkey ON report.reported_events IS 'An event is counted once';
COMMENT ON CONSTRAINT reported_events_log_seq_key ON report.reported_events IS 'Reports catch up along it';

--
-- Where reading stands
--

CREATE TABLE report.instance (
	only_one	boolean NOT NULL DEFAULT true,
	reading		boolean NOT NULL,
	changed_at	timestamptz NOT NULL DEFAULT now(),
	changed_by	text NOT NULL DEFAULT session_user,
	CONSTRAINT instance_pkey PRIMARY KEY (only_one),
	CONSTRAINT instance_only_one CHECK (only_one)
);
COMMENT ON TABLE report.instance IS 'Whether this database reads from Kafka; not dumped, so that a restored copy waits for report.start()';
COMMENT ON COLUMN report.instance.only_one IS 'True: the table has one row at most';
COMMENT ON COLUMN report.instance.reading IS 'False after report.stop()';
COMMENT ON COLUMN report.instance.changed_at IS 'When it was started or stopped';
COMMENT ON COLUMN report.instance.changed_by IS 'Who started or stopped it';

CREATE TABLE report.progress (
	topic			text NOT NULL,
	partition		integer NOT NULL,
	next_offset		bigint NOT NULL,
	cluster_id		text,
	last_offset		bigint,
	last_mark		uuid,
	last_log_seq	bigint,
	lost			text,
	changed_at		timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT progress_pkey PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE report.progress IS 'Next offset of every partition, changed in the transaction that stores its events';
COMMENT ON COLUMN report.progress.topic IS 'Topic';
COMMENT ON COLUMN report.progress.partition IS 'Partition';
COMMENT ON COLUMN report.progress.next_offset IS 'Next offset to read; -2: the beginning';
COMMENT ON COLUMN report.progress.cluster_id IS 'Kafka cluster that the offset belongs to; NULL: not known yet';
COMMENT ON COLUMN report.progress.last_offset IS 'Offset of the newest message read';
COMMENT ON COLUMN report.progress.last_mark IS 'Digest of that message: the topic was made anew if it reads differently later';
COMMENT ON COLUMN report.progress.last_log_seq IS 'No event of this partition has a higher log_seq';
COMMENT ON COLUMN report.progress.lost IS 'Why reading of this partition has stopped; NULL: it has not';
COMMENT ON COLUMN report.progress.changed_at IS 'When the offset was stored';

CREATE FUNCTION report.lost_remedy(topic text, "partition" integer, next_offset bigint, lost text) RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
	-- from the beginning it would come to what cannot be read once more
	SELECT CASE WHEN lost LIKE 'what stands from offset %'
		THEN format('SELECT report.seek(%L, %s, %s); -- or further on: it leaves out what cannot be read', topic, "partition", next_offset + 1)
		ELSE format('SELECT report.seek(%L, %s, -2);', topic, "partition") END
$$;
COMMENT ON FUNCTION report.lost_remedy(text, integer, bigint, text) IS 'The call that lets a partition go on which has stopped for this reason (for the views)';
REVOKE ALL ON FUNCTION report.lost_remedy(text, integer, bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION report.lost_remedy(text, integer, bigint, text) TO pg_monitor;

--
-- Definitions
--

CREATE TABLE report.definitions (
	name		text NOT NULL,
	statement	text NOT NULL,
	target		regclass NOT NULL,
	owner		regrole NOT NULL,
	description	text,
	enabled		boolean NOT NULL DEFAULT true,
	defined_at	timestamptz NOT NULL DEFAULT now(),
	kind		text NOT NULL DEFAULT 'statement',
	source		jsonb,
	timeout		interval NOT NULL DEFAULT '60s',
	start_seq	bigint NOT NULL DEFAULT 0,
	identity	uuid NOT NULL DEFAULT gen_random_uuid(),
	loops		boolean NOT NULL DEFAULT false,
	CONSTRAINT definitions_pkey PRIMARY KEY (name),
	CONSTRAINT definitions_timeout CHECK (timeout BETWEEN '1 ms' AND '24 days'),
	CONSTRAINT definitions_kind CHECK (kind IN ('statement', 'select', 'mirror'))
);
COMMENT ON TABLE report.definitions IS 'Reports: a table and the statement that folds new events into it';
COMMENT ON COLUMN report.definitions.name IS 'Name of the report';
COMMENT ON COLUMN report.definitions.statement IS 'One SQL command that reads FROM new_events and writes the target';
COMMENT ON COLUMN report.definitions.target IS 'The table people read';
COMMENT ON COLUMN report.definitions.owner IS 'Role that defined it and that it runs as';
COMMENT ON COLUMN report.definitions.description IS 'What it shows';
COMMENT ON COLUMN report.definitions.enabled IS 'False after report.disable()';
COMMENT ON COLUMN report.definitions.defined_at IS 'When it was defined or replaced';
COMMENT ON COLUMN report.definitions.kind IS 'Function that made it: report.define (statement), define_select (select) or mirror';
COMMENT ON COLUMN report.definitions.source IS 'What the statement was generated from; NULL: a person wrote it';
COMMENT ON COLUMN report.definitions.timeout IS 'Longest time of one execution of the statement';
COMMENT ON COLUMN report.definitions.start_seq IS 'The report is made of events with a higher log_seq: 0, the whole log; else it was defined with from_now';
COMMENT ON COLUMN report.definitions.identity IS 'Tells it apart from reports of the same name elsewhere, in the header caused-by-report of events that it makes';
COMMENT ON COLUMN report.definitions.loops IS 'It is given the events that it has caused itself, too: report.allow_loops()';

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
	refused_in_a_row	bigint NOT NULL DEFAULT 0,
	singly_since	timestamptz,
	CONSTRAINT applied_pkey PRIMARY KEY (name),
	CONSTRAINT applied_name_fkey FOREIGN KEY (name)
		REFERENCES report.definitions (name) ON DELETE CASCADE
) WITH (fillfactor = 50);
COMMENT ON TABLE report.applied IS 'How far each report has applied the event log, changed in the transaction that changes its target';
COMMENT ON COLUMN report.applied.name IS 'Name of the report';
COMMENT ON COLUMN report.applied.applied_seq IS 'log_seq of the newest event applied';
COMMENT ON COLUMN report.applied.failed IS 'Stopped by an error that a person must judge; report.enable() tries again';
COMMENT ON COLUMN report.applied.events IS 'Events given to the report';
COMMENT ON COLUMN report.applied.runs IS 'Times the statement was executed';
COMMENT ON COLUMN report.applied.total_ms IS 'Time spent in the statement';
COMMENT ON COLUMN report.applied.last_ms IS 'Time of the newest execution';
COMMENT ON COLUMN report.applied.dead_letters IS 'Events that the report has refused';
COMMENT ON COLUMN report.applied.last_error IS 'Newest error';
COMMENT ON COLUMN report.applied.last_error_at IS 'When it happened';
COMMENT ON COLUMN report.applied.refused_in_a_row IS 'Events refused since one was applied; carshop_outbox.report_max_failures of them stop the report';
COMMENT ON COLUMN report.applied.singly_since IS 'When a batch had to be cut into pieces for the first time, because its statement takes one event of a key only (SQLSTATE 21000)';

--
-- Dead letters
--

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
	message_id		uuid,
	log_seq			bigint,
	at				timestamptz NOT NULL DEFAULT now(),
	attempts		integer NOT NULL DEFAULT 1,
	retry			boolean NOT NULL DEFAULT false,
	published		boolean NOT NULL DEFAULT false,
	CONSTRAINT dead_letter_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE report.dead_letter IS 'Messages that could not be read, and events that a report refused';
COMMENT ON COLUMN report.dead_letter.id IS 'For report.retry() and report.skip()';
COMMENT ON COLUMN report.dead_letter.topic IS 'Topic of the message';
COMMENT ON COLUMN report.dead_letter.partition IS 'Partition of the message';
COMMENT ON COLUMN report.dead_letter.kafka_offset IS 'Offset of the message';
COMMENT ON COLUMN report.dead_letter.report IS 'Report that refused the event; NULL: the message itself could not be read';
COMMENT ON COLUMN report.dead_letter.sqlstate IS 'SQLSTATE of the refusal';
COMMENT ON COLUMN report.dead_letter.message IS 'Why';
COMMENT ON COLUMN report.dead_letter.context IS 'Where';
COMMENT ON COLUMN report.dead_letter.key IS 'Key of an unreadable message';
COMMENT ON COLUMN report.dead_letter.value IS 'The unreadable message, or the refused event as JSON';
COMMENT ON COLUMN report.dead_letter.headers IS 'Headers of the message';
COMMENT ON COLUMN report.dead_letter.kafka_timestamp IS 'Timestamp of an unreadable message; NULL: none that PostgreSQL can hold';
COMMENT ON COLUMN report.dead_letter.message_id IS 'Made of an unreadable message''s place and content: the event''s id, if it names none';
COMMENT ON COLUMN report.dead_letter.log_seq IS 'The refused event''s place in the event log';
COMMENT ON COLUMN report.dead_letter.at IS 'When it was refused, last time';
COMMENT ON COLUMN report.dead_letter.attempts IS 'How often it was tried';
COMMENT ON COLUMN report.dead_letter.retry IS 'The reporter is asked to try again';
COMMENT ON COLUMN report.dead_letter.published IS 'The report had applied the event, and published what comes of it, before a rebuild refused it: nothing is published when it is tried again';
COMMENT ON SEQUENCE report.dead_letter_id_seq IS 'Ids of dead letters';
CREATE INDEX dead_letter_retry ON report.dead_letter (id) WHERE retry;
COMMENT ON INDEX report.dead_letter_retry IS 'What report.retry() asked for';

CREATE UNIQUE INDEX dead_letter_message ON report.dead_letter (message_id) WHERE report IS NULL;
COMMENT ON INDEX report.dead_letter_message IS 'A message that is read again is one dead letter';

CREATE FUNCTION report.value_text(value bytea)
	RETURNS text LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_value_text';
COMMENT ON FUNCTION report.value_text(bytea) IS 'These bytes as text if they are UTF-8 that the database can hold, else NULL (for report.dead_letters; anybody who may read that may call it)';

CREATE VIEW report.dead_letters AS
	SELECT d.id, d.topic, d.partition, d.kafka_offset, d.report, d.sqlstate,
		   d.message, d.context, d.value, d.headers, d.at, d.attempts,
		   report.value_text(d.value) AS value_text
	FROM report.dead_letter d;
COMMENT ON VIEW report.dead_letters IS 'Messages that could not be read (report is NULL), and events that a report refused';
COMMENT ON COLUMN report.dead_letters.id IS 'For report.retry() and report.skip()';
COMMENT ON COLUMN report.dead_letters.topic IS 'Topic of the message';
COMMENT ON COLUMN report.dead_letters.partition IS 'Partition of the message';
COMMENT ON COLUMN report.dead_letters.kafka_offset IS 'Offset of the message';
COMMENT ON COLUMN report.dead_letters.report IS 'Report that refused the event; NULL: the message itself could not be read';
COMMENT ON COLUMN report.dead_letters.sqlstate IS 'SQLSTATE of the refusal';
COMMENT ON COLUMN report.dead_letters.message IS 'Why';
COMMENT ON COLUMN report.dead_letters.context IS 'Where';
COMMENT ON COLUMN report.dead_letters.value IS 'The unreadable message, or the refused event as JSON';
COMMENT ON COLUMN report.dead_letters.headers IS 'Headers of the message';
COMMENT ON COLUMN report.dead_letters.at IS 'When it was refused, last time';
COMMENT ON COLUMN report.dead_letters.attempts IS 'How often it was tried';
COMMENT ON COLUMN report.dead_letters.value_text IS 'The value as text; NULL: it is none (bytes that are not UTF-8, a zero byte)';

--
-- What pg_dump carries
--

SELECT pg_extension_config_dump('report.reported_events', '');
SELECT pg_extension_config_dump('report.progress', '');
SELECT pg_extension_config_dump('report.definitions', '');
SELECT pg_extension_config_dump('report.applied', '');
SELECT pg_extension_config_dump('report.dead_letter', '');
SELECT pg_extension_config_dump('report.dead_letter_id_seq', '');

--
-- Functions
--

CREATE FUNCTION report.define(name text, statement text, target regclass,
		description text DEFAULT NULL, timeout interval DEFAULT NULL,
		from_now boolean DEFAULT false)
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_define';
COMMENT ON FUNCTION report.define(text, text, regclass, text, interval, boolean) IS
'Defines a report: target, a table of the caller''s, is kept by one SQL command that reads FROM new_events and writes it. It runs as the caller, with search_path = pg_catalog, for timeout at most (NULL: as before, or 60 s), over the whole event log or, with from_now, what comes. Again: replaces the statement and goes on; report.rebuild applies it to all. Errors: OB004, and what the statement raises over no events.';
REVOKE ALL ON FUNCTION report.define(text, text, regclass, text, interval, boolean) FROM PUBLIC;

CREATE FUNCTION report.drop(name text)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_drop';
COMMENT ON FUNCTION report.drop(text) IS
'Ends a report of the caller''s and drops its dead letters; its table stays. Error: 42704 if there is none of that name.';
REVOKE ALL ON FUNCTION report.drop(text) FROM PUBLIC;

CREATE FUNCTION report.enable(name text)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_enable';
COMMENT ON FUNCTION report.enable(text) IS
'Goes on with a disabled or failed report of the caller''s: it catches up along the event log. Error: 42704 if there is none of that name.';
REVOKE ALL ON FUNCTION report.enable(text) FROM PUBLIC;

CREATE FUNCTION report.disable(name text)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_disable';
COMMENT ON FUNCTION report.disable(text) IS
'Halts a report of the caller''s where it stands, until report.enable(). Error: 42704 if there is none of that name.';
REVOKE ALL ON FUNCTION report.disable(text) FROM PUBLIC;

CREATE FUNCTION report.allow_loops(name text, allow boolean DEFAULT true)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_allow_loops';
COMMENT ON FUNCTION report.allow_loops(text, boolean) IS 'Whether a report is given events that it has caused itself, directly or through others; an event comes through it 16 times at most';
REVOKE ALL ON FUNCTION report.allow_loops(text, boolean) FROM PUBLIC;

CREATE FUNCTION report.start()
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_start';
COMMENT ON FUNCTION report.start() IS
'Begins or goes on to read from Kafka in this database, when the transaction commits; carshop_outbox.report_databases must name it';
REVOKE ALL ON FUNCTION report.start() FROM PUBLIC;

CREATE FUNCTION report.stop()
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_stop';
COMMENT ON FUNCTION report.stop() IS
'Ends reading from Kafka in this database, when the transaction commits, until report.start()';
REVOKE ALL ON FUNCTION report.stop() FROM PUBLIC;

CREATE FUNCTION report.seek(topic text, "partition" integer, kafka_offset bigint)
	RETURNS void LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_seek';
COMMENT ON FUNCTION report.seek(text, integer, bigint) IS
'Goes on reading a partition at this offset (-2: the beginning), when the transaction commits; events that were read before are not counted again. Warns of a topic that is not read. Error: 22023 for a partition or an offset that cannot be.';
REVOKE ALL ON FUNCTION report.seek(text, integer, bigint) FROM PUBLIC;

CREATE FUNCTION report.retry(id bigint DEFAULT NULL)
	RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_retry';
COMMENT ON FUNCTION report.retry(bigint) IS
'Asks the reporter to try a dead letter again (NULL: all of them), when the transaction commits; answers how many there are. What is refused again stays a dead letter.';
REVOKE ALL ON FUNCTION report.retry(bigint) FROM PUBLIC;

CREATE FUNCTION report.skip(id bigint)
	RETURNS bigint LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_skip';
COMMENT ON FUNCTION report.skip(bigint) IS
'Drops a dead letter for good; answers how many that were (0 or 1)';
REVOKE ALL ON FUNCTION report.skip(bigint) FROM PUBLIC;

CREATE FUNCTION report.wait_applied(event_id uuid DEFAULT NULL,
		timeout interval DEFAULT '10s')
	RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_wait_applied';
COMMENT ON FUNCTION report.wait_applied(uuid, interval) IS
'Waits until this event (NULL: all that stands in the topics now, up to their high watermarks) has gone through the reports, except those that are disabled or have failed; false when timeout (NULL: none) is over. Errors: OB005 if no reporter is to run for this database, and on a standby without event_id; 0A000 in a transaction of another isolation level than READ COMMITTED, which does not see what comes.';
REVOKE ALL ON FUNCTION report.wait_applied(uuid, interval) FROM PUBLIC;
