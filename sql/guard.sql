-- sql/guard.sql: our tables and logical replication; behind all parts that make tables.

--
-- Logical replication
--

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
