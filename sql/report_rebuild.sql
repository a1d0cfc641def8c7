-- sql/report_rebuild.sql: a report's content made again, and what it was earlier.

CREATE FUNCTION report.rebuild(name text, allow_partial boolean DEFAULT false)
	RETURNS bigint LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_rebuild';
COMMENT ON FUNCTION report.rebuild(text, boolean) IS
'Empties the table of a report of the caller''s and applies the event log again, in the caller''s transaction: readers see the former content until it commits; answers how many events were applied. allow_partial: also if old events have left the log. Errors: OB004 for tables that others share, 55000 for what must be mended first.';
REVOKE ALL ON FUNCTION report.rebuild(text, boolean) FROM PUBLIC;

CREATE FUNCTION report.as_of(name text, log_seq bigint)
	RETURNS SETOF jsonb LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_as_of';
COMMENT ON FUNCTION report.as_of(text, bigint) IS
'A report''s rows, one object each, as they were when it had applied the event log up to this log_seq; computed from the log, whose beginning must be there (else 55000). Error: OB004 if the statement reaches its table by another way than its name.';
REVOKE ALL ON FUNCTION report.as_of(text, bigint) FROM PUBLIC;

CREATE FUNCTION report.as_of(name text, at timestamptz)
	RETURNS SETOF jsonb LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_as_of_time';
COMMENT ON FUNCTION report.as_of(text, timestamptz) IS
'A report''s rows, one object each, made of the events that were received (received_at) by then; otherwise as with a log_seq';
REVOKE ALL ON FUNCTION report.as_of(text, timestamptz) FROM PUBLIC;

CREATE FUNCTION report.rebuilds(OUT name text, OUT pid integer,
		OUT done bigint, OUT total bigint, OUT since timestamptz)
	RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_rebuilds';
COMMENT ON FUNCTION report.rebuilds() IS 'Rebuilds under way in this database, and how far they are (for the views)';
REVOKE ALL ON FUNCTION report.rebuilds() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION report.rebuilds() TO pg_monitor;
