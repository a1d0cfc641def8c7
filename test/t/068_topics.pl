# What becomes of topics while they are read: partitions that come later, topics that
# come later, what is deleted or made anew, what the group shows, and two databases
# that read the same.  A partition that cannot be read on stops, with the remedy; the
# others go on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;
use Tools;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'one, two', '.report_topics' => 'first, second, later' });
my $ids = 0;

$node->start;
$kafka->create_topic('first', 1);
$kafka->create_topic('second', 2);

sub db { return $node->safe_psql($_[1] // 'one', $_[0]); }

sub produce
{
	my ($topic, $type, $partition) = @_;
	my $id = sprintf '01998a5e-0000-7000-8000-%012d', ++$ids;

	return $kafka->produce($topic, qq({"EventType":"$type","EventDescription":"d","OccuredOn":"2026-11-22T20:27:03Z","EventId":"$id"}),
		partition => $partition // 0);
}

sub counted
{
	my ($type, $database) = @_;
	return db("SELECT COALESCE(sum(n), 0) FROM public.by_type WHERE event_type = '$type'", $database);
}

sub is_counted
{
	my ($type, $what, $n) = @_;

	foreach my $database ('one', 'two')
	{
		poll_until(sub { counted($type, $database) eq ($n // 1) }, 90, "$what ($database)");
	}
	return pass($what);
}

sub divergence
{
	my ($database) = @_;
	return db(q(SELECT level || ': ' || message FROM report.status WHERE concern = 'divergence'), $database);
}

# The remedies of the status, as a person would type them.
sub take_remedies
{
	foreach my $database ('one', 'two')
	{
		db($_, $database) foreach split /\n/, db(q(SELECT remedy FROM report.status WHERE concern = 'divergence' AND level = 'fail'), $database);
	}
	return;
}

sub tool
{
	my ($class, @arguments) = @_;
	return $kafka->tool("org.apache.kafka.tools.$class", @arguments);
}

# ---- two databases read the same topics ----

foreach my $database ('one', 'two')
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	db(q(CREATE EXTENSION carshop_outbox;
		CREATE TABLE public.by_type (event_type text PRIMARY KEY, n bigint);
		SELECT report.define('by_type', 'INSERT INTO public.by_type AS t SELECT event_type, count(*) FROM new_events GROUP BY 1
			ON CONFLICT (event_type) DO UPDATE SET n = t.n + excluded.n', 'public.by_type')), $database);
}
produce('first', 'First');
produce('second', 'First', 1);
is_counted('First', 'two databases read the same topics, each all of it', 2);
is(db('SELECT sum(duplicates) FROM report.stat_reporter', $_), 0, "$_ has met nothing twice") foreach 'one', 'two';
like(db(q(SELECT level || ': ' || message FROM report.status WHERE concern = 'kafka')), qr/^fail: .*"later" does not exist/, 'a topic that is missing is named');

# ---- partitions and topics that come later ----

tool('TopicCommand', '--alter', '--topic', 'second', '--partitions', 4);
produce('second', 'Partition', 3);
is_counted('Partition', 'a partition that was added is read from its beginning');
$kafka->create_topic('later', 1);
produce('later', 'Later');
is_counted('Later', 'a topic that comes later is read from its beginning');
poll_until(sub { db(q(SELECT level FROM report.status WHERE concern = 'kafka')) eq 'ok' }, 60, 'the status is well');
is(db('SELECT count(*) FROM report.stat_reporter'), 6, 'every partition has its row');

# ---- what was not read yet is deleted: by retention, or by hand ----

sub stop_reading
{
	foreach my $database ('one', 'two')
	{
		db('SELECT report.stop()', $database);
		poll_until(sub { db(q(SELECT message FROM report.status WHERE concern = 'reporter'), $database) =~ /stopped by report.stop/ }, 60, 'it stops');
	}
	return;
}

sub delete_records
{
	my ($topic, $partition, $offset) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/delete.json';

	append_to_file($file, qq({"version":1,"partitions":[{"topic":"$topic","partition":$partition,"offset":$offset}]}));
	return tool('DeleteRecordsCommand', '--offset-json-file', $file);
}

stop_reading();
produce('first', 'Deleted') foreach 1 .. 3;
produce('first', 'Kept');
# of this one only what was read goes
produce('later', 'Rest');
delete_records('first', 0, 4);
delete_records('later', 0, 1);
db('SELECT report.start()', $_) foreach 'one', 'two';
is_counted('Rest', 'when what was read is deleted, reading goes on');
foreach my $database ('one', 'two')
{
	poll_until(sub { divergence($database) =~ m{^fail: Partition first/0: Offset 1 is not there}m }, 90, 'the loss is noticed');
	unlike(divergence($database), qr{later/0|second}, "only that partition has stopped ($database)");
}
is(counted('Kept'), 0, 'what stands behind a loss is not read as if nothing was missing');
produce('second', 'Others', 3);
is_counted('Others', 'the others go on');
take_remedies();
is_counted('Kept', 'the remedy of the status goes on behind the loss');
is(counted('Deleted') . counted('First'), '02', 'without counting anything twice');

# ---- a topic that is made anew while it is read, with fewer partitions ----

$kafka->delete_topic('second');
$kafka->create_topic('second', 2);
produce('second', 'Anew', $_) foreach 0, 1;
produce('first', 'Meanwhile');
is_counted('Meanwhile', 'while a topic is made anew, the others go on');
poll_until(sub { divergence('one') =~ m{^fail: Partition second/1: }m && divergence('two') =~ m{^fail: Partition second/1: }m }, 150, 'it is noticed');
poll_until(
	sub {
		take_remedies();
		return counted('Anew', 'one') eq '2' && counted('Anew', 'two') eq '2';
	},
	150, 'the new topic is read');
pass('a topic made anew is noticed, and read when somebody has said so');

# ---- made anew, with nothing where the newest message stood: there is the end of a transaction now ----

sub transactions
{
	my ($n, $messages) = @_;
	return system(Tools::program('txnproducer'), '-b', $kafka->bootstrap, '-t', 'later', -n => $n, -m => $messages, -x => 'anew' . ++$ids, -f => 100 * $ids) == 0
	  || die 'no transaction';
}

my $later = q(SELECT last_offset, next_offset FROM report.progress WHERE topic = 'later');
transactions(2, 1);
foreach my $database ('one', 'two')
{
	poll_until(sub { db($later, $database) eq '4|6' }, 60, 'a transaction of one message ends behind it') ;
}
stop_reading();
$kafka->delete_topic('later');
$kafka->create_topic('later', 1);
transactions(1, 4);
transactions(1, 3);
db('SELECT report.start()', $_) foreach 'one', 'two';
foreach my $database ('one', 'two')
{
	poll_until(sub { divergence($database) =~ m{^fail: Partition later/0: There is a message at offset 5, where none was before}m }, 90, 'it is noticed');
}
pass('a topic made anew is noticed by what stands behind the newest message');
take_remedies();
foreach my $database ('one', 'two')
{
	poll_until(sub { db(q(SELECT count(*) FROM report.reported_events WHERE topic = 'later'), $database) eq '11' }, 60, 'all of it is read');
}

# ---- the group: never ahead of what a crash leaves ----

my %group = map { $_ => db(qq(SELECT 'carshop-report-' || system_identifier || '-$_' FROM pg_control_system())) } 'one', 'two';

sub shown
{
	my ($database, $topic) = @_;
	my $text = tool('consumer.group.ConsumerGroupCommand', '--describe', '--group', $group{$database});

	return $text =~ /\s\Q$topic\E\s+0\s+(\d+)\s/ ? $1 : -1;
}

my $next = q(SELECT next_offset FROM report.progress WHERE topic = 'first' AND partition = 0);
foreach my $database ('one', 'two')
{
	poll_until(sub { shown($database, 'first') == db($next, $database) }, 120, "the group of $database follows");
}
pass('each database shows its offsets under a group of its own');

$node->append_conf('postgresql.conf', "wal_writer_delay = '10s'");
$node->reload;
foreach my $round (1 .. 3)
{
	produce('first', "Round$round");
	poll_until(sub { counted("Round$round") eq '1' }, 60, 'an event is applied');
	my $at = shown('one', 'first');
	$node->stop('immediate');
	$node->append_conf('postgresql.conf', "carshop_outbox.report_databases = ''");
	$node->start;
	cmp_ok(db($next), '>=', $at, "a crash takes back nothing that the group has shown ($at)");
	$node->append_conf('postgresql.conf', "carshop_outbox.report_databases = 'one, two'");
	$node->reload;
	is_counted("Round$round", 'what it takes back is read again, once');
}

no_crash($node);
$node->stop;
done_testing();
