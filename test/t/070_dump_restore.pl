# pg_dump carries the routes and not the queue; the restored shop goes on with a
# lineage of its own.  Restoring makes no events, except by --data-only into tables
# that are captured already.  pg_dump is blocked by nothing of ours and blocks no
# writer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('dump', kafka => $kafka,
	conf => { '.shop_databases' => 'shop, copy, plain', '.report_databases' => '' });
$node->start;
create_shop($node, 'shop', reports => 0);

$node->safe_psql('shop', q~
	SET client_min_messages = error;
	SELECT outbox.capture('"Cars"', 'CarChanged', 'update, delete', condition => 'OLD."Engine" IS NOT NULL',
		key => '{{{Number}}', description => '{old.Engine} ''quoted'' "too"', columns => '{Number,Engine}', include_old => true,
		topic => 'changes-{aggregate_type}', aggregate_type => 'car', headers => '{"a": "b ''c'' \"d\""}', format => 'payload');
	CREATE TABLE part (id integer, day date, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
	CREATE TABLE part_26 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
	SELECT outbox.capture('part', 'PartAdded');
	CREATE TRIGGER by_hand AFTER INSERT OR UPDATE ON "Customers" FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=ByHand');
	ALTER TABLE "Customers" DISABLE TRIGGER by_hand;
	INSERT INTO "Cars" SELECT n, '{}' FROM generate_series(1, 50) n;
	INSERT INTO part SELECT n, '2026-05-05' FROM generate_series(1, 5) n;
~);
is(query_value($node, 'shop', q{SELECT outbox.wait_published('30s')}), 't', 'the shop publishes');
# something waits in the queue while it is dumped
$node->safe_psql('shop', q{SELECT outbox.pause(); INSERT INTO "Cars" VALUES (51, NULL)});

my $routes = q{SELECT source, event_type, operation, condition, key, description, columns, include_old, topic,
	aggregate_type, headers, format, enabled, trigger_name FROM outbox.routes ORDER BY source::text, trigger_name};
my $wanted = $node->safe_psql('shop', $routes);
is(scalar(split /\n/, $wanted), 8, 'routes of all kinds');

sub dump_and_restore
{
	my ($db, $format) = @_;
	my $file = $node->basedir . "/$db.dump";

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->command_ok([ 'pg_dump', '-F', $format, '-f', $file, '-d', $node->connstr('shop') ], "$db: dumped");
	if ($format eq 'c')
	{
		$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr($db), $file ], "$db: restored");
	}
	else
	{
		$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', $file ], "$db: restored");
		like(slurp_file($file), qr/CREATE TRIGGER "00_outbox_i_CarAdded" AFTER INSERT ON public\."Cars" FOR EACH ROW EXECUTE FUNCTION outbox\.capture_row\('event_type=CarAdded'/,
			"$db: a route is a trigger in the dump");
		unlike(slurp_file($file), qr/COPY outbox\./, "$db: nothing of the outbox is in it");
	}
	is($node->safe_psql($db, $routes), $wanted, "$db: the routes are the same");
	is(query_value($node, $db, 'SELECT count(*) FROM outbox.event'), 0, "$db: no event was carried or made");
	is(query_value($node, $db, 'SELECT count(*) FROM "Cars"'), 51, "$db: the rows are there");
	isnt(query_value($node, $db, 'SELECT lineage FROM outbox.lineage'), query_value($node, 'shop', 'SELECT lineage FROM outbox.lineage'),
		"$db: it has a lineage of its own");
}

dump_and_restore('plain', 'p');
dump_and_restore('copy', 'c');

# The copy captures and publishes, beside the original.
$node->safe_psql('copy', q{INSERT INTO "Cars" VALUES (1000, NULL)});
poll_until(sub { query_value($node, 'copy', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, 'the copy publishes');
$node->safe_psql('shop', q{SELECT outbox.resume(); INSERT INTO "Cars" VALUES (1001, NULL)});
poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, 'the original goes on');
my @keys = map { $_->{key} } grep { $_->{value} =~ /"CarAdded"/ } $kafka->read_topic('car-shop-reported-events');
is_deeply([ sort { $a <=> $b } @keys ], [ 1 .. 51, 1000, 1001 ], 'each row once, whoever published it');

# --data-only into captured tables fires their triggers; a superuser can prevent it.
my $data = $node->basedir . '/data.dump';
$node->command_ok([ 'pg_dump', '-F', 'c', '--data-only', '-t', '"Cars"', '-f', $data, '-d', $node->connstr('shop') ], 'data dumped');
foreach my $case ([ '', 52 ], [ '-c carshop_outbox.capture=off', 0 ])
{
	my ($options, $events) = @$case;

	$node->safe_psql('copy', q{SET carshop_outbox.capture = off; TRUNCATE "Cars" CASCADE});
	my $before = query_value($node, 'copy', 'SELECT count(*) FROM outbox.event');
	{
		local $ENV{PGOPTIONS} = $options;
		$node->command_ok([ 'pg_restore', '--data-only', '--exit-on-error', '-d', $node->connstr('copy'), $data ], "data restored with '$options'");
	}
	is(query_value($node, 'copy', 'SELECT count(*) FROM outbox.event') - $before, $events, "makes $events events");
}

# Nobody waits for anybody: writers that hold their segments, a dump that holds its
# snapshot, and the relay at work.
my $writer = $node->background_psql('shop');
$writer->query_safe(q{BEGIN; INSERT INTO "Cars" VALUES (2000, NULL)});
$node->command_ok([ 'pg_dump', '--lock-wait-timeout=1s', '-f', '/dev/null', '-d', $node->connstr('shop') ], 'a dump beside an open writer');
my $dumper = $node->background_psql('shop');
$dumper->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE outbox.event_0, outbox.event_1, outbox.event_2, outbox.tick, outbox.lineage, "Cars" IN ACCESS SHARE MODE');
$dumper->query_safe('SELECT count(*) FROM outbox.event');
$writer->query_safe('COMMIT');
$node->safe_psql('shop', q{SET lock_timeout = '1s'; INSERT INTO "Cars" VALUES (2001, NULL)});
is(query_value($node, 'shop', q{SELECT outbox.wait_published('20s')}), 't', 'written and published while a dump holds its locks and snapshot');
$dumper->query_safe('COMMIT');
$writer->quit;
$dumper->quit;

no_crash($node);
$node->stop;
done_testing();
