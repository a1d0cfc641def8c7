-- sql/report_mirror.sql: mirrors, the newest state per key in a table.

CREATE TABLE report.mirror_row (
	report	text NOT NULL,
	key		jsonb NOT NULL,
	log_seq	bigint NOT NULL,
	CONSTRAINT mirror_row_pkey PRIMARY KEY (report, key),
	CONSTRAINT mirror_row_report_fkey FOREIGN KEY (report)
		REFERENCES report.applied (name) ON DELETE CASCADE
) WITH (fillfactor = 70);
COMMENT ON TABLE report.mirror_row IS 'Keys that have changed while a mirror has dead letters: what is retried must not come after what is newer';
COMMENT ON COLUMN report.mirror_row.report IS 'Name of the mirror';
COMMENT ON COLUMN report.mirror_row.key IS 'Values of the target''s primary key';
COMMENT ON COLUMN report.mirror_row.log_seq IS 'The newest event that wrote or ended the row';
SELECT pg_extension_config_dump('report.mirror_row', '');

CREATE INDEX dead_letter_report ON report.dead_letter (report) WHERE report IS NOT NULL;
COMMENT ON INDEX report.dead_letter_report IS 'Whether a report has dead letters';

CREATE FUNCTION report.mirror(name text, target regclass,
		event_types text[] DEFAULT NULL, topic text DEFAULT NULL,
		delete_types text[] DEFAULT NULL, timeout interval DEFAULT NULL,
		from_now boolean DEFAULT false)
	RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_mirror';
COMMENT ON FUNCTION report.mirror(text, regclass, text[], text, text[], interval, boolean) IS
'Defines a report that keeps the newest state per primary key in target, a table of the caller''s, deletions included: of events of event_types, delete_types (which end the row) and topic; NULL: all. timeout: of one execution (NULL: as before, or 60 s). Again: replaces it. Warns of a topic that is not read. Errors: OB004.';
REVOKE ALL ON FUNCTION report.mirror(text, regclass, text[], text, text[], interval, boolean) FROM PUBLIC;

-- Called by the statement that report.mirror generates, as the report's owner.
CREATE FUNCTION report.mirror_key(columns text[], event_key text,
		former jsonb, state jsonb)
	RETURNS jsonb LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'report_mirror_key';
COMMENT ON FUNCTION report.mirror_key(text[], text, jsonb, jsonb) IS 'Which row an event ends: the columns'' values of former or state, or else of the event''s key (for report.mirror)';

CREATE FUNCTION report.mirror_touches(columns text[], ends boolean, event_key text,
		former jsonb, state jsonb, wanted jsonb)
	RETURNS boolean LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'report_mirror_touches';
COMMENT ON FUNCTION report.mirror_touches(text[], boolean, text, jsonb, jsonb, jsonb) IS 'Whether an event writes or ends the row with the wanted key (for report.explain of a mirror)';

CREATE FUNCTION report.mirror_guarded(report text)
	RETURNS boolean LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_mirror_guarded';
COMMENT ON FUNCTION report.mirror_guarded(text) IS 'Whether a report of the caller has dead letters, which may be retried after their successors (for report.mirror)';

CREATE FUNCTION report.mirror_take(report text, key jsonb, log_seq bigint)
	RETURNS boolean LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'report_mirror_take';
COMMENT ON FUNCTION report.mirror_take(text, jsonb, bigint) IS 'Whether this is the newest change of a key in a mirror of the caller; notes it (for report.mirror)';
