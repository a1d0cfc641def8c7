# The extension's life: DROP refuses while routes exist, and CASCADE leaves nothing
# behind, also under a working relay and reporter and in sessions that have
# captured; CREATE again begins anew.  ALTER EXTENSION UPDATE leads from every
# version to the same objects as a fresh installation, and loses no event.
# A captured table behaves like one with an ordinary AFTER trigger.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('extension', kafka => $kafka);
$node->start;
create_shop($node, 'shop');
$node->safe_psql('shop', q{INSERT INTO "Cars" VALUES (1, NULL)});
is(query_value($node, 'shop', q{SELECT outbox.wait_published('30s')}), 't', 'the shop publishes');

# ---- DROP EXTENSION ----

my $session = $node->background_psql('shop', on_error_stop => 0);
$session->query_safe(q{INSERT INTO "Cars" VALUES (2, NULL)});
my ($status, $output, $error) = $node->psql('shop', 'DROP EXTENSION carshop_outbox');
isnt($status, 0, 'DROP EXTENSION is refused while routes exist');
like($error, qr/trigger 00_outbox_i_CarAdded on table "Cars" depends on function outbox\.capture_row\(\)/, 'and names them');
like($error, qr/HINT:.*CASCADE/, 'with the hint');

# Which objects there are besides what every database has.
my $objects = q{
	SELECT string_agg(o, E'\n' ORDER BY o) FROM (
		SELECT 'schema ' || nspname AS o FROM pg_namespace WHERE nspname IN ('outbox', 'report')
		UNION ALL SELECT 'class ' || c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname IN ('outbox', 'report')
		UNION ALL SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc p WHERE prosrc LIKE 'outbox%' OR prosrc LIKE 'report%' OR probin LIKE '%carshop%'
		UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
		UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
		UNION ALL SELECT 'extension ' || extname FROM pg_extension WHERE extname = 'carshop_outbox'
		UNION ALL SELECT 'dependency ' || d.classid::regclass::text || ' ' || d.objid FROM pg_depend d
			WHERE d.refclassid = 'pg_extension'::regclass AND NOT EXISTS (SELECT FROM pg_extension e WHERE e.oid = d.refobjid)
		UNION ALL SELECT 'description ' || objoid FROM pg_description d WHERE d.classoid = 'pg_event_trigger'::regclass
		UNION ALL SELECT 'setting ' || unnest(setconfig) FROM pg_db_role_setting) x};
$node->safe_psql('shop', 'SET client_min_messages = error; DROP EXTENSION carshop_outbox CASCADE');
is(query_value($node, 'shop', $objects), undef, 'CASCADE leaves nothing behind');
$session->query_safe(q{INSERT INTO "Cars" VALUES (3, NULL)});
$session->query_safe(q{UPDATE "Cars" SET "Engine" = 'x'});
is(query_value($node, 'shop', 'SELECT count(*) FROM "Cars"'), 3, 'a session that had captured goes on without errors');

# Again, seen by the same session.
$node->safe_psql('shop', q{SET client_min_messages = error; CREATE EXTENSION carshop_outbox; SELECT outbox.capture_car_shop()});
$session->query_safe(q{INSERT INTO "Cars" VALUES (4, NULL)});
poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, 'the new one publishes');
my @keys = map { $_->{key} } $kafka->read_topic('car-shop-reported-events');
is_deeply(\@keys, [ 1, 2, 4 ], 'the events of both lives, and none of the time between');
$session->quit;

# ---- ALTER EXTENSION UPDATE ----

# What a version has made: comparable between databases.
sub members
{
	my ($db) = @_;

	return $node->safe_psql($db, q{
		SET search_path = pg_catalog;
		SELECT concat_ws(' ', 'function', p.oid::regprocedure, p.prosrc, p.proconfig, p.proacl, p.provolatile, p.proparallel, p.proisstrict,
						 pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')) AS o
		  FROM pg_proc p WHERE p.pronamespace IN ('outbox'::regnamespace, 'report'::regnamespace)
		UNION ALL
		SELECT concat_ws(' ', 'column', a.attrelid::regclass, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
						 pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum))
		  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		 WHERE c.relnamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v', 'S')
		UNION ALL
		SELECT concat_ws(' ', 'relation', c.oid::regclass, c.relkind, c.relacl, c.reloptions, obj_description(c.oid, 'pg_class'),
						 CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) WHEN 'i' THEN pg_get_indexdef(c.oid) END)
		  FROM pg_class c WHERE c.relnamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND c.relkind IN ('r', 'v', 'i', 'S')
		UNION ALL
		SELECT concat_ws(' ', 'constraint', pg_get_constraintdef(k.oid), k.conname, k.conrelid::regclass) FROM pg_constraint k
		 WHERE k.connamespace IN ('outbox'::regnamespace, 'report'::regnamespace)
		UNION ALL
		SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger')) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
		 WHERE c.relnamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND NOT t.tgisinternal
		UNION ALL
		SELECT concat_ws(' ', 'event trigger', evtname, evtevent, evtfoid::regproc, evtenabled, evttags, obj_description(oid, 'pg_event_trigger')) FROM pg_event_trigger
		ORDER BY 1});
}

# Every way from every version on, each in a database of its own.
sub walk_updates
{
	my ($suffix) = @_;
	my @paths = split /\n/, $node->safe_psql('postgres', q{
		SELECT source, target FROM pg_extension_update_paths('carshop_outbox') WHERE path IS NOT NULL ORDER BY 1, 2});
	my $n = 0;

	foreach my $path (@paths)
	{
		my ($from, $to) = split /\|/, $path;

		next if $node->psql('postgres', "SELECT 1 FROM pg_available_extension_versions WHERE name = 'carshop_outbox' AND version = '$from'") != 0;
		$n++;
		my ($updated, $fresh) = ("updated_${suffix}_$n", "fresh_${suffix}_$n");
		$node->safe_psql('postgres', "CREATE DATABASE $updated");
		$node->safe_psql('postgres', "CREATE DATABASE $fresh");
		$node->safe_psql($updated, "SET client_min_messages = error; CREATE EXTENSION carshop_outbox VERSION '$from'; ALTER EXTENSION carshop_outbox UPDATE TO '$to'");
		$node->safe_psql($fresh, "SET client_min_messages = error; CREATE EXTENSION carshop_outbox VERSION '$to'");
		is(members($updated), members($fresh), "$from updated to $to is like $to");
		$node->safe_psql('postgres', "DROP DATABASE $_") foreach $updated, $fresh;
	}
	return $n;
}
walk_updates('released');

# A next version, for the time of this test only: a new function and a changed one.
my ($folder) = slurp_file($ENV{CARSHOP_CONF}) =~ m{^extension_destdir = '(.*)'}m;
SKIP:
{
	skip('this server finds extensions in another way', 13) if !defined $folder;
	my $sharedir = `$ENV{PG_CONFIG} --sharedir`;
	chomp $sharedir;
	my $next = "$folder$sharedir/extension/carshop_outbox--1.0--1.0.next.sql";
	my $back = "$folder$sharedir/extension/carshop_outbox--1.0.next--1.0.sql";
	append_to_file($next, q{\echo Use "ALTER EXTENSION carshop_outbox UPDATE" to load this file. \quit
SET LOCAL search_path = pg_catalog, pg_temp;
CREATE FUNCTION outbox.next() RETURNS integer LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT 1';
COMMENT ON FUNCTION outbox.next() IS 'Of the next version';
ALTER TABLE outbox.lineage ADD COLUMN next integer;
});
	eval {
		is(walk_updates('next'), 1, 'there is a way to the next version');
		# While the shop writes and the relay works.
		my $writer = $node->background_psql('shop');
		$writer->query_safe(q{INSERT INTO "Cars" SELECT n, NULL FROM generate_series(100, 149) n});
		$writer->query_safe(q{BEGIN; INSERT INTO "Cars" VALUES (150, NULL)});
		$node->safe_psql('shop', q{SET lock_timeout = '5s'; ALTER EXTENSION carshop_outbox UPDATE TO '1.0.next'});
		$writer->query_safe('COMMIT');
		$writer->query_safe(q{INSERT INTO "Cars" SELECT n, NULL FROM generate_series(151, 199) n});
		$writer->quit;
		is(query_value($node, 'shop', q{SELECT extversion FROM pg_extension WHERE extname = 'carshop_outbox'}), '1.0.next', 'updated beside an open writer');
		is(query_value($node, 'shop', 'SELECT outbox.next()'), 1, 'the new version is there');

		# The library in memory is the old one: neither worker touches objects that it does not know, and both say so.
		my $state = q{SELECT string_agg(DISTINCT query, ',') FROM pg_stat_activity WHERE backend_type ~ 'carshop_outbox (relay|reporter)'};
		poll_until(sub { query_value($node, 'shop', $state) eq 'waiting for a restart with the new library' }, 30, 'the workers wait');
		foreach my $status ('outbox.status', 'report.status')
		{
			like(query_value($node, 'shop', "SELECT level || ' ' || message || ' ' || remedy FROM $status WHERE concern = 'library'"),
				qr/^fail The library in memory is of version 1.0, this database's objects are of version 1.0.next: no worker acts until they fit. Restart the server/,
				"$status says so");
		}
		like(slurp_file($node->logfile), qr/extension carshop_outbox has version 1.0.next, the library is of version 1.0/, 'so does the log');
		$node->safe_psql('shop', q{INSERT INTO "Cars" SELECT n, NULL FROM generate_series(200, 249) n});
		is(query_value($node, 'shop', q{SELECT outbox.wait_published('200ms')}), 'f', 'nothing is published, the shop goes on');

		append_to_file($back, q{\echo Use "ALTER EXTENSION carshop_outbox UPDATE" to load this file. \quit
ALTER EXTENSION carshop_outbox DROP FUNCTION outbox.next();
DROP FUNCTION outbox.next();
ALTER TABLE outbox.lineage DROP COLUMN next;
});
		$node->safe_psql('shop', q{ALTER EXTENSION carshop_outbox UPDATE TO '1.0'});
		poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, 'publishing goes on when they fit again');
		is(query_value($node, 'shop', q{SELECT level FROM outbox.status WHERE concern = 'library'}), 'ok', 'and the status is ok');
		@keys = map { $_->{key} } grep { $_->{key} >= 100 } $kafka->read_topic('car-shop-reported-events');
		is_deeply(\@keys, [ 100 .. 249 ], 'no event is lost, none doubled');
	};
	my $died = $@;
	unlink $next, $back;
	die $died if $died;
}

# ---- captured tables behave as tables with any AFTER trigger ----

$node->safe_psql('shop', q{
	SET client_min_messages = error;
	CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE FUNCTION state(statement text) RETURNS text LANGUAGE plpgsql AS
		'BEGIN EXECUTE statement; RETURN ''fine''; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END'});
foreach my $statement ('TRUNCATE t', 'ALTER TABLE t ADD COLUMN x integer', 'DROP TABLE t', 'ALTER TABLE t DROP COLUMN v', 'CREATE INDEX ON t (v)',
	'ALTER TABLE t RENAME COLUMN v TO w', 'ALTER TABLE t DISABLE TRIGGER ALL', 'CLUSTER t USING t_pkey', 'REINDEX TABLE t')
{
	my %answer;

	foreach my $kind ('ordinary', 'captured')
	{
		$node->safe_psql('shop', q{
			SET client_min_messages = error;
			CREATE TABLE t (id integer PRIMARY KEY, v text)});
		$node->safe_psql('shop', $kind eq 'captured'
			? q{SET client_min_messages = error; SELECT outbox.capture('t', 'T', 'insert, update, delete', columns => '{id}')}
			: q{CREATE TRIGGER "00_t" AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION nothing()});
		# In the middle of a statement whose triggers are waiting, and behind it.
		my $quoted = $statement =~ s/'/''/gr;
		$answer{$kind} = $node->safe_psql('shop', qq{
			SET client_min_messages = error;
			BEGIN;
			INSERT INTO t VALUES (1, 'a');
			SELECT state('WITH i AS (INSERT INTO t VALUES (2, ''b'') RETURNING state(''$quoted'')) SELECT * FROM i');
			CREATE FUNCTION ddl() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN $statement; RETURN NULL; END \$\$;
			CREATE TRIGGER b BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION ddl();
			SELECT state('INSERT INTO t VALUES (3, ''c'')');
			DROP TRIGGER b ON t;
			CREATE TRIGGER zz AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION ddl();
			SELECT state('INSERT INTO t VALUES (4, ''d''), (5, ''e'')');
			DROP TRIGGER zz ON t;
			SELECT state('UPDATE t SET v = v');
			SELECT state('$quoted');
			COMMIT;
		});
		$node->safe_psql('shop', 'SET client_min_messages = error; DROP FUNCTION IF EXISTS ddl() CASCADE; DROP TABLE IF EXISTS t');
	}
	is($answer{captured}, $answer{ordinary}, "$statement: the same answers as without us ($answer{ordinary})" =~ s/\n/, /gr);
}

no_crash($node);
$node->stop;
done_testing();
