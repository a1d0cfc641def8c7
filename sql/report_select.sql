-- sql/report_select.sql: reports that are a SELECT, and the events behind a row.

CREATE FUNCTION report.latest_step(anyelement, anyelement)
	RETURNS anyelement LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'report_latest_step';
COMMENT ON FUNCTION report.latest_step(anyelement, anyelement) IS 'For report.latest: the second value';

CREATE AGGREGATE report.latest(anyelement) (
	SFUNC = report.latest_step,
	STYPE = anyelement,
	PARALLEL = UNSAFE
);
COMMENT ON AGGREGATE report.latest(anyelement) IS 'The value, NULL or not, of the highest log_seq in a query of report.define_select; elsewhere the last one: latest(value ORDER BY log_seq)';

CREATE FUNCTION report.define_select(name text, query text, target text,
		description text DEFAULT NULL, timeout interval DEFAULT NULL,
		from_now boolean DEFAULT false)
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'report_define_select';
COMMENT ON FUNCTION report.define_select(text, text, text, text, interval, boolean) IS
'Defines a report by a SELECT with GROUP BY over new_events: target, which is made with the query''s columns, holds what the query answers over the whole event log (with from_now: over what comes). timeout: of one execution (NULL: as before, or 60 s). Again: replaces the query and goes on; report.rebuild applies it to all. Errors: OB004, with the place in the query.';
REVOKE ALL ON FUNCTION report.define_select(text, text, text, text, interval, boolean) FROM PUBLIC;

CREATE FUNCTION report.explain(name text, key jsonb)
	RETURNS SETOF report.reported_events LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_explain';
COMMENT ON FUNCTION report.explain(text, jsonb) IS
'The events that went into the row with this key (its columns as an object; to_jsonb(row) will do), in the order in which they were applied. For reports of report.define_select and report.mirror. Needs SELECT on the report and on report.reported_events. Errors: OB004 for other reports, 22023 for what is no key of it.';
REVOKE ALL ON FUNCTION report.explain(text, jsonb) FROM PUBLIC;
