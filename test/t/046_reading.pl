# Messages that nobody expects, and what people do to the reporter while it reads:
# no message stops it, none is passed over, and what the status says is so.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Tools;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop' });
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');

sub db { return $node->safe_psql('shop', $_[0]); }

# A new id for each number.
sub id { return sprintf '01998a5e-0000-7000-8000-%012d', $_[0]; }

sub event
{
	my ($type, %more) = @_;
	my $description = $more{description} // '"d"';
	my $text = qq({"EventType":"$type","EventDescription":$description,"OccuredOn":"2026-11-22T20:27:03.512756+00:00");

	$text .= qq(,"EventId":"$more{id}") if $more{id};
	$text .= qq(,"Data":$more{data}) if $more{data};
	return "$text}";
}

sub produce { return $kafka->produce($topic, $_[0], partition => $_[1] // 0); }

# One event through each partition, read and reported: the reporter works.
my $alive = 0;

sub works
{
	my ($what) = @_;

	$alive++;
	produce(event("Alive", id => id(1_000_000 + $alive)), 0);
	produce(event('Alive', id => id(2_000_000 + $alive)), 1);
	poll_until(
		sub {
			my $n = eval { db(q(SELECT COALESCE(sum(events), 0) FROM report.events_by_day WHERE event_type = 'Alive')) };
			return ($n // 0) == 2 * $alive;
		},
		90, "the reporter goes on after $what");
	return pass("$what: the reporter goes on");
}

sub applied { return all_applied($node, 'shop') }

sub status
{
	my ($concern) = @_;
	return db("SELECT level || ': ' || message FROM report.status WHERE concern = '$concern'");
}

# How often an event stands in the log, and how often in a report.
sub counted
{
	my ($type) = @_;
	return db("SELECT (SELECT count(*) FROM report.reported_events WHERE event_type = '$type'),
		(SELECT COALESCE(sum(events), 0) FROM report.events_by_day WHERE event_type = '$type')");
}

$kafka->create_topic($topic, 2, 'message.timestamp.after.max.ms' => '9223372036854775807');
db('CREATE EXTENSION carshop_outbox; SELECT report.create_car_shop()');
works('the start');

# ---- who could not see it does not wait for it ----

foreach my $call ('report.wait_applied()', sprintf q{report.wait_applied('%s')}, id(0))
{
	my (undef, undef, $refused) = $node->psql('shop', "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT $call");
	like($refused, qr/report\.wait_applied needs isolation level READ COMMITTED/, "$call in a transaction that sees nothing new");
}

# ---- a description that is null ----

produce(event('Silent', description => 'null'));
applied();
is(db(q(SELECT event_description IS NULL FROM report.reported_events WHERE event_type = 'Silent')), 't', 'a null description is NULL');

# ---- retry: what can be read now is an event like any other ----

sub make_readable
{
	my ($value) = @_;
	return db("UPDATE report.dead_letter SET value = convert_to('$value', 'UTF8'); SELECT report.retry()");
}

produce('not JSON') foreach 1 .. 2;
works('two unreadable messages');
make_readable(event('Retried', id => id(1)));
poll_until(sub { eval { db('SELECT count(*) FROM report.dead_letter') } == 0 }, 60, 'both are tried again');
applied();
is(counted('Retried'), '1|1', 'two dead letters of one event are one event, and it reaches the reports');
works('a retry');

# ---- what a type or an index cannot hold ----

my $long = join '', map { ('a' .. 'z', 'A' .. 'Z', 0 .. 9)[ rand 62 ] } 1 .. 9000;
produce(event('CarAdded', id => id(10), data => qq({"Number":"$long"})));
produce(event('Large', id => id(11), data => '{"Number":1e1000000}'));
produce(event('Fine', id => id(12)));
works('a value that no index holds');
is(db('SELECT sqlstate, message FROM report.dead_letters ORDER BY kafka_offset'),
	"54000|index row requires 9024 bytes, maximum size is 8191\n22003|value overflows numeric format",
	'what cannot be stored is a dead letter, with the reason');
is(counted('Fine'), '1|1', 'its neighbours are events');
is(db('SELECT report.skip(id) FROM report.dead_letters'), "1\n1", 'skipped');

# ---- timestamps that only Kafka can hold ----

# As a foreign producer may write them: 9.3e15 ms is the year 296,700.
sub produce_at
{
	my ($ms, $value) = @_;
	my @command = (Tools::program('txnproducer'), '-b', $kafka->bootstrap, '-t', $topic, -n => 1, -m => 1, -d => $ms, -v => $value);

	IPC::Run::run(\@command, '>', \my $said) or die 'txnproducer failed';
	return;
}

produce_at('9300000000000000', 'not JSON');
produce_at('9300000000000000', '{"specversion":"1.0","id":"x1","source":"s","type":"Late"}');
produce_at('9223372036854775807', '{"specversion":"1.0","id":"x2","source":"s","type":"Late"}');
works('a timestamp beyond PostgreSQL\'s');
is(db('SELECT sqlstate FROM report.dead_letters'), '22032', 'an unreadable message of that time is a dead letter');
is(db(q(SELECT count(*) FROM report.reported_events WHERE event_type = 'Late' AND occurred_on BETWEEN now() - interval '1 hour' AND now())),
	2, 'an event without a time of its own is of the time at which it was read');
cmp_ok(length db('TABLE report.reported_events'), '>', 100, 'every row of the event log can be read');

# ---- read once more: one dead letter; and its id is that of the first reading ----

produce('also not JSON', 1);
applied();
is(db('SELECT count(*) FROM report.dead_letters'), 2, 'two dead letters');
my @letters = split /\n/, db('SELECT id FROM report.dead_letters ORDER BY id');
db("SELECT report.stop()");
poll_until(sub { status('reporter') =~ /stopped by report.stop/ }, 30, 'it stops');
my $nameless = event('Nameless');
db("UPDATE report.dead_letter SET value = convert_to('$nameless', 'UTF8') WHERE id = $letters[1];
	SELECT report.seek('$topic', p, -2) FROM generate_series(0, 1) p;
	SELECT report.retry(); SELECT report.start()");
applied();
poll_until(sub { db("SELECT count(*) FROM report.dead_letters WHERE attempts = 2 AND id = $letters[0]") == 1 }, 60, 'the other was tried');
is(counted('Nameless'), '1|1', 'tried again after a seek, a message without an id is one event');
is(db("SELECT count(*) FILTER (WHERE id = $letters[0]), count(*) - count(DISTINCT (partition, kafka_offset)) FROM report.dead_letters"), '1|0',
	'what is read again and tried again in vain is the same dead letter');
db('SELECT report.skip(id) FROM report.dead_letters');

# ---- letters of a report that is halted wait ----

db(q(CREATE TABLE public.picky (event_type text PRIMARY KEY CHECK (event_type <> 'Bad'), n bigint);
	SELECT report.define('picky', 'INSERT INTO public.picky AS t SELECT event_type, count(*) FROM new_events GROUP BY 1
		ON CONFLICT (event_type) DO UPDATE SET n = t.n + excluded.n', 'public.picky')));
produce(event('Bad', id => id(20)));
poll_until(sub { db(q(SELECT count(*) FROM report.dead_letters WHERE report = 'picky')) == 1 }, 60, 'an event is refused');
db(q(ALTER TABLE public.picky DROP CONSTRAINT picky_event_type_check; SELECT report.disable('picky'); SELECT report.retry()));
works('a retry for a report that is disabled');
is(db(q(SELECT attempts FROM report.dead_letters WHERE report = 'picky')), 1, 'what was not tried does not count as tried');
db(q(SELECT report.enable('picky')));
poll_until(sub { db('SELECT count(*) FROM report.dead_letters') == 0 }, 60, 'it is tried when the report is enabled');
is(db(q(SELECT n FROM public.picky WHERE event_type = 'Bad')), 1, 'and applied');
db(q(SELECT report.drop('picky')));

# ---- what is skipped costs no memory ----

my ($pid) = worker_pids($node, 'reporter', 'shop');
my $peak = sub { return slurp_file("/proc/$pid/status") =~ /VmHWM:\s+(\d+) kB/ ? $1 : die 'no VmHWM' };
my $peak_before = $peak->();
my $nulls = join '', map { 'null' . (' ' x 100_000) . "\n" } 1 .. 2000;

IPC::Run::run([ 'kcat', '-b', $kafka->bootstrap, '-P', '-t', $topic, '-p', 0, '-X', 'linger.ms=100' ], '<', \$nulls)
  or die 'kcat failed';
undef $nulls;
works('200 MB of nulls');
is(db('SELECT sum(skipped) FROM report.stat_reporter'), 2000, 'they were skipped');
cmp_ok($peak->() - $peak_before, '<', 130_000, 'the reporter has not kept them');

# That all is read is proven by reading the newest messages again: that is not news.
sub stays_so
{
	my ($state) = @_;
	my $says = q(SELECT concat_ws(' ', w.state, w.since, min(p.held_since)) FROM report.worker() w, report.worker_partitions() p GROUP BY w.state, w.since);

	poll_until(sub { db($says) =~ /^$state/ }, 60, "it is $state");
	my $said = db($says);
	db(q(SELECT report.wait_applied(timeout => '2s')));
	return is(db($says), $said, "it is $state all the time");
}

# ---- an open transaction of somebody's ----

sub open_transaction
{
	my ($in) = @_;
	my $harness = IPC::Run::start(
		[ Tools::program('txnproducer'), '-b', $kafka->bootstrap, '-t', $in, -n => 1, -m => 1, -w => 600_000, -o => 600_000, -x => 'holds', -v => event('Held') ],
		'>', \my $said, '2>&1');

	return $harness;
}

$kafka->create_topic('held', 1);
db("ALTER SYSTEM SET carshop_outbox.report_topics = '$topic, held'");
$node->reload;
$kafka->produce('held', event('Free', id => id(30)));
poll_until(sub { counted('Free') eq '1|1' }, 60, 'the other topic is read');
my $holder = open_transaction('held');
poll_until(sub { $kafka->_ends('held', 'read_committed') ne $kafka->_ends('held', 'read_uncommitted') }, 60, 'a transaction is open');
$kafka->produce('held', event('Behind', id => id(31)));
is(db(q(SELECT report.wait_applied(timeout => '3s'))), 'f', 'while it is open, not all that is in the topics is applied');
is(db(q(SELECT state, stable_offset, high_watermark, kafka_offset, lag FROM report.stat_reporter WHERE topic = 'held')),
	'held|1|3|1|2', 'the view shows where it stands');
poll_until(sub { status('transactions') =~ m{^warn: Partition held/0 is held up at offset 1 since } }, 60, 'the status says so');
like(db(q(SELECT remedy FROM report.status WHERE concern = 'transactions')), qr/ abort --topic held --partition 0 --start-offset 1$/, 'and what ends it');
like(status('reporter'), qr/held by an open transaction/, 'the reporter as well');
stays_so('held by an open transaction');
works('an open transaction elsewhere');
$kafka->tool('org.apache.kafka.tools.TransactionsCommand', 'abort', '--topic', 'held', '--partition', 0, '--start-offset', 1);
applied();
is(counted('Behind') . ' ' . counted('Held'), '1|1 0|0', 'the command of the remedy ends it');
like(status('transactions'), qr/^ok: /, 'the status is well again');
$holder->kill_kill;
db('ALTER SYSTEM RESET carshop_outbox.report_topics');
$node->reload;

# ---- counters go on ----

my $counters = q(SELECT string_agg(concat_ws(' ', events_applied, duplicates, skipped, dead_letters), ',' ORDER BY partition)
	FROM report.stat_reporter WHERE topic = 'car-shop-reported-events');

applied();
my $counted = db($counters);
db("SELECT report.seek('$topic', partition, next_offset) FROM report.progress WHERE topic = '$topic'; ALTER DATABASE shop SET carshop_outbox.report_batch_events = 1000");
$node->reload;
wait_for_worker($node, 'reporter', 'shop', $pid);
applied();
is(db($counters), $counted, 'counters stay when a setting of the database starts another process');
stays_so('current');
works('the new process');

# ---- wrong cluster: nothing is done until somebody acts ----

my $other = Carshop::Kafka->start;
$other->create_topic($topic, 2);
db("ALTER SYSTEM SET carshop_outbox.brokers = '" . $other->bootstrap . "'");
$node->reload;
poll_until(sub { status('kafka') =~ /^fail: .*belong to Kafka cluster/ }, 60, 'the other cluster is noticed');
($pid) = worker_pids($node, 'reporter', 'shop');
my $ticks = sub { my @field = split / /, slurp_file("/proc/$pid/stat"); return $field[13] + $field[14]; };
my $ticks_before = $ticks->();
db('SELECT pg_sleep(5)');
cmp_ok($ticks->() - $ticks_before, '<', 20, 'it does not spin meanwhile');
is(db(q(SELECT string_agg(DISTINCT state, ',') FROM report.stat_reporter WHERE topic = 'car-shop-reported-events')), 'waiting', 'its partitions wait');
db('ALTER SYSTEM RESET carshop_outbox.brokers');
$node->reload;
$other->stop;
works('another cluster');

# ---- a topic made anew, and empty at first ----

$kafka->create_topic($_, 1) foreach 'fresh', 'damaged';
db("ALTER SYSTEM SET carshop_outbox.report_topics = '$topic, fresh, damaged'");
$node->reload;
$kafka->produce('fresh', event('First', id => id(40)));
poll_until(sub { counted('First') eq '1|1' }, 60, 'the first event is read');

# Each in a batch of its own; the second is damaged on the broker's disk.
sub halt
{
	db('SELECT report.stop()');
	return poll_until(sub { status('reporter') =~ /stopped by report.stop/ }, 60, 'it stops');
}

halt();
$kafka->produce('damaged', event("Damaged$_", id => id(50 + $_))) foreach 1 .. 3;
$kafka->delete_topic('fresh');
$kafka->create_topic('fresh', 1);
$kafka->stop;
my ($log) = split /\n/, `find $kafka->{dir} -path '*/damaged-0/*.log'`;
my $content = slurp_file($log);
my $place = index $content, 'Damaged2';
cmp_ok($place, '>', 0, 'the batch is found');
open my $fh, '+<:raw', $log or die "$log: $!";
seek $fh, $place, 0;
print $fh 'X';
close $fh;
$kafka->restart;
db('SELECT report.start()');
poll_until(sub { db(q(SELECT high_watermark FROM report.stat_reporter WHERE topic = 'fresh')) eq '0' }, 90, 'the empty topic is looked at');
$kafka->produce('fresh', event('Second', id => id(41)));
poll_until(sub { counted('Second') eq '1|1' || status('divergence') =~ m{fresh/0: .*made anew} }, 90, 'it is noticed');
like(status('divergence'), qr{^fail: Partition fresh/0: }m, 'an event of the new topic is not passed over in silence');
db(q(SELECT report.seek('fresh', 0, -2)));
poll_until(sub { counted('Second') eq '1|1' }, 60, 'after a seek it is read');

# ---- a batch that is damaged on the broker's disk ----

poll_until(sub { status('divergence') =~ m{damaged/0: What stands from offset 1 on cannot be read} }, 120, 'the damage is told');
is(counted('Damaged1') . ' ' . counted('Damaged3'), '1|1 0|0', 'what stands behind it is not read as if nothing was missing');
works('a damaged batch');
is(db(q(SELECT report.wait_applied(timeout => '2s'))), 'f', 'while a partition has stopped, not all is applied');
my $remedy = db(q(SELECT remedy FROM report.status WHERE concern = 'divergence' AND message LIKE 'Partition damaged/0%'));
like($remedy, qr/^SELECT report\.seek\('damaged', 0, 2\);/, 'the remedy leads behind it');
db($remedy);
applied();
is(counted('Damaged3'), '1|1', 'and leaves it out');
db('ALTER SYSTEM RESET carshop_outbox.report_topics');
$node->reload;

no_crash($node);
$node->stop;
done_testing();
