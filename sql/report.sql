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
