# Mirrors with a real broker: tables of a shop, changed at random, keys included,
# stand in another database as they are in the shop; under kills of the reporter,
# batches cut anywhere, events that are refused and retried after their successors,
# and when the whole log is applied again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{CARSHOP_TEST_SEED} // int(rand(1_000_000));
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('mirror', kafka => $kafka,
	conf => { '.report_databases' => 'copy', '.report_topics' => 'items,parts', '.poll_interval' => '100ms', 'restart_after_crash' => 'on' });

note("CARSHOP_TEST_SEED=$seed");
srand($seed);
# Rows of an item go by key into one of three partitions; an image with a former
# key names two rows, so these stand in one.
$kafka->create_topic('items', 3);
$kafka->create_topic('parts', 1);
$node->start;
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(shop copy);
$node->safe_psql($_, 'CREATE EXTENSION carshop_outbox') foreach qw(shop copy);

my $item = 'id integer PRIMARY KEY, name text, price numeric(12,2), made timestamptz, tags text[], doc jsonb, size double precision';
my $part = 'shop text, nr integer, note text, PRIMARY KEY (shop, nr)';
$node->safe_psql('shop', "CREATE TABLE item ($item); CREATE TABLE part ($part)");
$node->safe_psql('shop', q{SELECT outbox.capture('item', 'ItemChanged', 'insert, update, delete', topic => 'items', format => 'payload')});
$node->safe_psql('shop', q{SELECT outbox.capture('part', 'PartChanged', 'insert, update, delete', topic => 'parts', include_old => true)});
$node->safe_psql('copy', "CREATE TABLE item ($item, CONSTRAINT cheap CHECK (price < 900)); CREATE TABLE part ($part)");

sub define
{
	$node->safe_psql('copy', q{SELECT report.mirror('item', 'item', topic => 'items'); SELECT report.mirror('part', 'part', '{PartChanged}')});
}

define();

# One change per call, of a small number of keys so that they meet often.
$node->safe_psql('shop', <<'SQL');
CREATE PROCEDURE work(changes integer, spread integer) LANGUAGE plpgsql AS $$
DECLARE
	key integer;
	another integer;
BEGIN
	FOR i IN 1 .. changes LOOP
		key := floor(random() * spread);
		another := floor(random() * spread);
		CASE floor(random() * 6)::integer
			WHEN 0 THEN
				DELETE FROM item WHERE id = key;
				DELETE FROM part WHERE nr = key / 3;
			WHEN 1 THEN
				UPDATE item SET id = another WHERE id = key AND NOT EXISTS (SELECT FROM item WHERE id = another);
				UPDATE part SET nr = another / 3 WHERE (shop, nr) = ('s' || key % 3, key / 3)
					AND NOT EXISTS (SELECT FROM part WHERE (shop, nr) = ('s' || key % 3, another / 3));
			ELSE
				INSERT INTO item VALUES (key, 'n "' || i || E'"\t\\', random() * 1000, clock_timestamp(), ARRAY['a,b', NULL, 'c'],
						CASE WHEN i % 3 > 0 THEN jsonb_build_object('i', i, 'x', NULL) END, random())
					ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price, made = excluded.made, doc = excluded.doc;
				INSERT INTO part VALUES ('s' || key % 3, key / 3, i) ON CONFLICT (shop, nr) DO UPDATE SET note = excluded.note;
		END CASE;
		IF random() < 0.2 THEN
			COMMIT;
		ELSIF random() < 0.02 THEN
			ROLLBACK;
		END IF;
	END LOOP;
END $$;
SQL

# psql may be gone before it was given the query, while a crashed server starts again
sub patient
{
	my ($db, $sql) = @_;

	return poll_until(
		sub {
			my ($rc, $value) = eval { $node->psql($db, $sql) };
			return defined $rc && $rc == 0 ? [$value] : undef;
		},
		120, "an answer to $sql")->[0];
}

sub applied
{
	poll_until(sub { patient('shop', q{SELECT outbox.wait_published('5s')}) eq 't' }, 120, 'all is published');
	poll_until(sub { patient('copy', q{SELECT report.wait_applied(timeout => '5s')}) eq 't' }, 120, 'all is applied');
}

sub content
{
	my ($db, $table) = @_;

	return patient($db, "SET extra_float_digits = 3; SELECT t FROM $table t ORDER BY t");
}

sub same
{
	my ($what) = @_;

	foreach my $table (qw(item part))
	{
		my ($source, $mirror) = map { content($_, $table) } qw(shop copy);

		ok($source eq $mirror, "$what: $table is the same")
		  or is(join("\n", grep { index("\n$mirror\n", "\n$_\n") < 0 } split /\n/, $source),
			join("\n", grep { index("\n$source\n", "\n$_\n") < 0 } split /\n/, $mirror), 'the difference');
	}
}

sub letters { return patient('copy', 'SELECT count(*) FROM report.dead_letters'); }

# ---- under kills, in batches of any size ----

my $struck = 0;
foreach my $round (1 .. 12)
{
	my $batch = (1, 2, 7, 50, 20_000)[ int(rand(5)) ];

	patient('copy', "ALTER DATABASE copy SET carshop_outbox.report_batch_events = $batch; SELECT pg_reload_conf()");
	$node->safe_psql('shop', 'CALL work(' . (50 + int(rand(300))) . ', ' . ($round % 2 ? 12 : 300) . ')');
	my ($pid) = worker_pids($node, 'reporter', 'copy');
	next unless $pid;
	if ($round % 4 == 0)
	{
		kill 'KILL', $pid;
		poll_until(sub { !kill 0, $pid }, 60, 'the killed reporter is gone');
		patient('shop', 'SELECT 1');
		$struck++;
	}
	elsif ($round % 4 == 2)
	{
		patient('copy', "SELECT pg_terminate_backend($pid)");
		$struck++;
	}
}
cmp_ok($struck, '>', 0, "the reporter was ended $struck times");
applied();
cmp_ok(letters(), '>', 0, 'the table has refused rows');
is(patient('copy', q{SELECT DISTINCT report, sqlstate FROM report.dead_letters}), 'item|23514', 'each for its reason, in its mirror');
cmp_ok(patient('copy', 'SELECT count(*) FROM report.mirror_row'), '>', 0, 'meanwhile the newest changes are noted');

# ---- retried after their successors ----

patient('copy', 'ALTER TABLE item DROP CONSTRAINT cheap');
patient('copy', 'SELECT report.retry()');
poll_until(sub { letters() == 0 }, 120, 'all dead letters are applied');
same('dead letters retried');
$node->safe_psql('shop', q{INSERT INTO item VALUES (1000, 'last')});
applied();
same('one more row');
is(patient('copy', 'SELECT count(*) FROM report.mirror_row'), 0, 'nothing is noted any more');

# ---- applied again from the beginning ----

patient('copy', "ALTER DATABASE copy SET carshop_outbox.report_batch_events = 13; SELECT pg_reload_conf()");
patient('copy', q{BEGIN; SELECT report.drop('item'); SELECT report.drop('part'); TRUNCATE item, part; COMMIT});
is(content('copy', 'item'), '', 'emptied');
define();
applied();
same('the whole log again');

# ---- what the topic itself keeps: a tombstone for every key that is gone ----

my %newest;
foreach my $record ($kafka->read_topic('items'))
{
	$newest{ $record->{key} } = $record->{value};
}
is(join(',', sort { $a <=> $b } grep { defined $newest{$_} } keys %newest), patient('shop', q{SELECT string_agg(id::text, ',' ORDER BY id) FROM item}),
	'no key of the topic is a ghost');

no_crash($node);
$node->stop;
done_testing();
