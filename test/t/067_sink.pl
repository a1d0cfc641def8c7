# Storing many events at once: each id once however ids are made, ordered, repeated
# and cut into batches, also when topics are read again and rows were removed in
# between; and the memory that it takes with large messages.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use List::Util qw(max shuffle);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $seed = $ENV{SEED} // time;
srand($seed);
diag("seed $seed");

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop', '.report_topics' => 'ids', '.worker_memory' => '16MB' });
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
my $db = 'shop';

sub db { return $node->safe_psql($db, $_[0]); }

sub applied { return all_applied($node, $db) }

sub produce { return $kafka->produce_lines_to(@_) }

sub event
{
	my ($id, $data) = @_;
	my $text = qq({"EventType":"Made","EventDescription":"d","OccuredOn":"2026-11-22T20:27:03Z","EventId":"$id");

	$text .= qq(,"Data":"$data") if defined $data;
	return "$text}";
}

# ---- ids of all kinds, in any order ----

my $n_rising = 0;
my @ids;

sub rising { return sprintf '01998a5e-%04x-7%03x-8000-%012x', int($n_rising / 64), $n_rising % 64, $n_rising++; }
sub anywhere { return join '-', map { join '', map { sprintf '%x', rand 16 } 1 .. $_ } 8, 4, 4, 4, 12; }
sub before { return $ids[ rand @ids ]; }
sub beside { my $id = before(); substr($id, -1) = sprintf '%x', rand 16; return $id; }

# Some events whose ids are mostly of one kind.
sub run_of_ids
{
	my $n = 1 + int(rand(rand() < 0.2 ? 400 : 40));
	my $kind = (\&rising, \&rising, \&anywhere, @ids ? (\&before, \&beside) : ())[ rand(@ids ? 5 : 3) ];
	my @run;

	for (1 .. $n)
	{
		push @run, @ids && rand() < 0.05 ? before() : $kind->();
		push @ids, $run[-1];
	}
	my $order = rand;
	@run = reverse @run if $order < 0.2;
	@run = shuffle @run if $order > 0.8;
	return map { rand() < 0.1 ? uc : $_ } @run;
}

db('CREATE EXTENSION carshop_outbox');
$kafka->create_topic('ids', 3);
db('SELECT report.start()');

# The rows that should be there: one for each id, and nothing else.
my %expected;
my $wrong = 0;
for my $round (1 .. 6)
{
	my $batch = (1, 5, 40, 300, 20000)[ rand 5 ];

	db('SELECT report.stop()');
	poll_until(sub { db(q(SELECT count(*) FROM report.status WHERE concern = 'reporter' AND message LIKE '%report.stop()%')) }, 60, 'it stops');
	$node->safe_psql('postgres', qq(ALTER SYSTEM SET carshop_outbox.report_batch_events = $batch; SELECT pg_reload_conf()));
	for my $partition (0 .. 2)
	{
		my @values = map { run_of_ids() } 1 .. 4;

		$expected{lc $_} = 1 foreach @values;
		produce('ids', $partition, map { event($_) } @values);
	}

	# Now and then: the topics once more, from the beginning, with rows missing in between.
	if ($round % 3 == 0)
	{
		db('DELETE FROM report.reported_events WHERE random() < 0.3');
		db(q(SELECT report.seek(topic, partition, -2) FROM report.progress));
	}
	db('SELECT report.start()');
	applied();

	my %stored = map { $_ => 1 } split /\n/, db('SELECT id FROM report.reported_events');
	my @missing = grep { !$stored{$_} } keys %expected;
	my @more = grep { !$expected{$_} } keys %stored;

	$wrong++ if @missing || @more || db('SELECT count(*) FROM report.reported_events') != keys %expected;
	is("@missing | @more", ' | ', "round $round, batches of $batch: each of " . keys(%expected) . ' ids is stored once');
}
is($wrong, 0, 'nothing is stored twice') or diag("SEED=$seed");
is(db('SELECT count(*) FROM report.dead_letter'), 0, 'nothing is refused');
is(db(q(SELECT count(*) FROM (SELECT log_seq, lag(log_seq) OVER (PARTITION BY received_at, partition ORDER BY kafka_offset) AS former
	FROM report.reported_events) e WHERE log_seq <= former)), 0, 'log_seq follows the offsets of a partition within a batch');
is(db(q(SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT count(*) FROM report.reported_events WHERE id >= '00000000-0000-0000-0000-000000000000')), scalar keys %expected,
	'the index on ids has all rows');
is(db(q(SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT count(*) FROM report.reported_events WHERE log_seq > 0)), scalar keys %expected, 'so has the index on log_seq');

# ---- an event that an index cannot hold, among others that it can ----

db('CREATE INDEX made_data ON report.reported_events ((data::text))');
produce('ids', 0, map { event(anywhere(), $_ == 30 ? join('', map { chr(97 + rand 26) } 1 .. 20000) : "n$_") } 1 .. 60);
applied();
is(db(q(SELECT count(*) FROM report.reported_events WHERE data::text LIKE '"n%')), 59, 'what an index can hold is stored');
is(db('SELECT count(*) FROM report.dead_letter'), 1, 'what it cannot is a dead letter');
is(db(q(SET enable_seqscan = off; SELECT count(*) FROM report.reported_events WHERE data::text = '"n60"')), 1, 'every index has the others');

# ---- memory ----

sub private
{
	my ($pid) = @_;
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s*(\d+)/m;

	return $kb / 1024;
}

$db = 'large';
$kafka->create_topic('large', 1);
my @letters = ('A' .. 'Z', 'a' .. 'z', 0 .. 9);
my $text = join '', map { $letters[ rand @letters ] } 1 .. 900_000;
my $n_large = 120;
foreach my $i (1 .. $n_large)
{
	# another beginning each: 900 kB that compress little
	produce('large', 0, event(rising(), substr($text, $i * 1000) . substr($text, 0, $i * 1000)));
}
$node->safe_psql('postgres', 'CREATE DATABASE large');
$node->safe_psql('postgres', q(ALTER DATABASE large SET carshop_outbox.report_topics = 'large'));
$node->safe_psql('postgres', q(ALTER SYSTEM SET carshop_outbox.report_databases = 'large'; SELECT pg_reload_conf()));
my $pid = wait_for_worker($node, 'reporter', 'large');

SKIP:
{
	skip 'memory is not what it is under an instrument', 2
	  if slurp_file("/proc/$pid/maps") =~ /libasan|vgpreload/;

	my $most = 0;
	my $watch = sub {
		my ($sql) = @_;

		poll_until(sub { $most = max($most, private($pid)); sleep 0.01; return db($sql) == $n_large; }, 120, 'all is there');
	};

	db('CREATE EXTENSION carshop_outbox; SELECT report.start()');
	$watch->('SELECT count(*) FROM report.reported_events');
	cmp_ok($most, '<', 16 + 40, "reading $n_large messages of 900 kB takes less than worker_memory + 40 MB");

	$most = 0;
	db('CREATE TABLE public.sizes (n bigint PRIMARY KEY, bytes bigint)');
	db(q(SELECT report.define('sizes', 'INSERT INTO public.sizes SELECT log_seq, pg_catalog.length(data::text) FROM new_events', 'public.sizes')));
	$watch->('SELECT count(*) FROM public.sizes');
	cmp_ok($most, '<', 16 + 40, 'so does a report that catches up with them');
}

no_crash($node);
$node->stop;
done_testing();
