# The Kafka proxy that the fault tests rely on, in front of a real broker: every
# rule is shown to act, and what is not touched by a rule passes unharmed.  The
# client is a plain transactional producer, so no server is needed.  The last
# part shows on this broker and this librdkafka why the relay replaces its
# handle: a late EndTxn commits half of another transaction.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Checker qw(audit audit_ok);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Proxy;
use Reader;
use Test::More;
use Time::HiRes qw(time);
use Tools;

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $kafka = Carshop::Kafka->start(advertise => "127.0.0.1:$port");
my $proxy = Proxy->start(
	program => Tools::program('kafka_proxy'),
	dir => $dir,
	port => $port,
	broker_port => $kafka->port);
my $topic = 'proxy-test';
my %truth;
my $transactions = 0;
my @events_per = (-m => 20);

# So many transactions have arrived.
sub expect
{
	my ($count) = @_;

	foreach my $n ($transactions * 20 .. ($transactions + $count) * 20 - 1)
	{
		$truth{ ($n % 10) . ',' . (int($n / 10) + 1) } = int($n / 20) + 1;
	}
	$transactions += $count;
	return;
}

# Run the producer for so many transactions more; status, output and seconds.
# Transactions that are expected to arrive are added to the truth.
sub produce
{
	my ($count, $arrives, @options) = @_;
	my $begun = time();
	my @command = (
		Tools::program('txnproducer'), '-b', $proxy->brokers, '-t', $topic,
		-n => $count, -f => $transactions + 1, @events_per, @options);
	my $output = `@command 2>&1`;
	my $status = $?;

	expect($count) if $arrives;
	return ($status, $output, time() - $begun);
}

sub read_all
{
	my ($isolation, $name) = @_;
	return Reader->read_all(
		program => Tools::program('reader'),
		brokers => $proxy->brokers,
		topic => $topic,
		isolation => $isolation,
		file => "$dir/$name");
}

# A rule that must strike once while a transaction commits all the same.
sub strikes
{
	my ($rule, $log, $name, @options) = @_;
	my $from = $proxy->log_position;

	$proxy->command('clear');
	$proxy->command($rule);
	my ($status, $output, $seconds) = produce(1, 1, @options);
	is($status, 0, "$name: the client commits") or diag($output);
	is($proxy->hits, 1, "$name: the rule has struck once");
	ok($proxy->wait_for_log($log, $from, 5), "$name: and says so in the log");
	return $seconds;
}

# ---- what passes ----

is(system(Tools::program('txnproducer'), '-b', $proxy->brokers, '-t', $topic, -n => 0, -c => 1),
	0, 'a topic is made through the proxy');
my $live = Reader->start(
	program => Tools::program('reader'),
	brokers => $proxy->brokers,
	topic => $topic,
	file => "$dir/live");

my ($status, $output) = produce(3, 1);
is($status, 0, 'transactions pass through the proxy') or diag($output);
is($proxy->seen(Proxy::END_TXN), 3, 'each EndTxn was counted');
cmp_ok($proxy->seen(Proxy::PRODUCE), '>=', 3, 'and so was each Produce');

system(Tools::program('txnproducer'), '-b', $proxy->brokers, '-t', 'plain', -n => 0, -c => 1);
my $lines = join('', map { "line $_\n" } 1 .. 1000);
IPC::Run::run([ 'kcat', '-q', '-P', '-b', $proxy->brokers, '-t', 'plain' ], '<', \$lines);
IPC::Run::run([ 'kcat', '-q', '-C', '-e', '-b', $proxy->brokers, '-t', 'plain' ], '>', \my $read);
is($read, $lines, 'kcat reads through the proxy what kcat wrote through it');

# ---- each rule ----

strikes('drop-response api=26', qr/answer dropped api=26/, 'answer to EndTxn lost');
is($proxy->seen(Proxy::END_TXN), 5, 'the client has sent that EndTxn twice');
cmp_ok(
	strikes(
		'drop-response api=0 keep=1',
		qr/answer dropped api=0/,
		'answer to Produce lost, connection open',
		-T => 1000),
	'>', 1, 'the client waited for its socket timeout');
strikes('close api=26 when=request', qr/closed, request not forwarded api=26/, 'EndTxn lost');
strikes('close api=0 when=response', qr/closed, answer not delivered api=0/, 'answer to Produce lost');
cmp_ok(strikes('delay-response api=0 ms=700', qr/answer held back api=0/, 'answer to Produce late'),
	'>', 0.7, 'it was late');
cmp_ok(
	strikes(
		'delay-request api=24 ms=700 producer=1 client=carshop',
		qr/held request goes to the broker: api=24/,
		'AddPartitionsToTxn late'),
	'>', 0.7, 'it was late');

# ---- distance ----

# A lower bound: with load beside the test everything may take longer, nothing
# less.
$proxy->command('clear');
$proxy->command('delay ms=80 client=carshop');
my ($far_status, $far_output, $far) = produce(2, 1);
is($far_status, 0, 'transactions pass over a distance') or diag($far_output);
# connecting, the versions, the producer's id, then partition, records and end
cmp_ok($far, '>', 9 * 0.16, 'each round trip takes its time');
$proxy->command('delay ms=0');

# ---- restrictions ----

$proxy->command('clear');
$proxy->command('close api=26 when=request client=somebody-else');
$proxy->command('close api=1 when=request producer=1');
$proxy->command('close api=26 when=request skip=5');
($status, $output) = produce(3, 1);
is($status, 0, 'transactions pass beside rules for others') or diag($output);
is($proxy->hits, 0, 'rules for other clients, for producers and for later requests do not strike');
$proxy->command('clear');
foreach my $wrong ('delay', 'close api=26', 'drop-response', 'delay-request api=1', 'drop-response api=1 x=1', 'cut', 'no')
{
	eval { $proxy->command($wrong); };
	like($@, qr/ERROR/, "the command \"$wrong\" is refused");
}

# ---- holding back ----

# A producer in the background, for so many transactions; its pid.
sub produce_beside
{
	my ($count, @options) = @_;
	my @command = (
		Tools::program('txnproducer'), '-b', $proxy->brokers, '-t', $topic,
		-n => $count, -f => $transactions + 1, @events_per, @options);
	my $pid = fork();

	if ($pid == 0)
	{
		exec(@command)
		  or POSIX::_exit(127);
	}
	return $pid;
}

my $from = $proxy->log_position;
my ($rule) = $proxy->command('hold-request api=26');
my $pid = produce_beside(1);
ok($proxy->wait_for_log(qr/request held back api=26/, $from), 'an EndTxn is held back');
is($live->count('M'), $transactions * 20, 'its transaction is not visible');
is(join(' ', $proxy->command('release ' . $rule =~ s/\D//gr)), 'released 1', 'it is released');
waitpid($pid, 0);
is($?, 0, 'and the client has its commit');
expect(1);

$from = $proxy->log_position;
($rule) = $proxy->command('hold-request api=26');
$pid = produce_beside(1);
$proxy->wait_for_log(qr/request held back api=26/, $from);
kill 'KILL', $pid;
waitpid($pid, 0);
$proxy->command('release ' . $rule =~ s/\D//gr);
ok($proxy->wait_for_log(qr/late answer from the broker: api=26 correlation=\d+ error=0/, $from),
	'an EndTxn arrives after its sender was killed');
expect(1);
ok($live->wait_for('M', $transactions * 20), 'and its transaction becomes visible');

# ---- cuts ----

$pid = produce_beside(2, -q => 1500);
ok($live->wait_for('M', ($transactions + 1) * 20), 'the first of two transactions has arrived');
like(join(' ', $proxy->command('cut producer')), qr/^cut [1-9]/, 'the producer is cut off while idle');
like(join(' ', $proxy->command('cut all')), qr/^cut [1-9]/, 'everybody is cut off');
waitpid($pid, 0);
is($?, 0, 'it goes on with its second transaction');
expect(2);

$proxy->command('pause');
isnt(system("kcat -L -m 1 -b " . $proxy->brokers . " >/dev/null 2>&1"), 0, 'a paused proxy answers nobody');
$proxy->command('resume');
is(system("kcat -L -m 10 -b " . $proxy->brokers . " >/dev/null 2>&1"), 0, 'a resumed one does');

# ---- everything once, whatever happened ----

($status) = produce(1, 0, '-a');
is($status, 0, 'a transaction is aborted');
my $uncommitted = read_all('read_uncommitted', 'uncommitted');
cmp_ok($uncommitted->count('M'), '>=', ($transactions + 1) * 20, 'its events are in the log');
my $committed = read_all('read_committed', 'committed');
$live->wait_for('M', $committed->count('M'));
$live->stop;
audit_ok('every event is there once, whole and in order, also for a reader that read all along',
	truth => \%truth, log => $committed, live => $live);

# ---- the anomaly ----

# The client notices the closed connection, retries EndTxn, is told "committed"
# and begins the next transaction with the same epoch; the old EndTxn arrives in
# its middle and commits the half that is written.
$from = $proxy->log_position;
$proxy->command('delay-request api=26 ms=800 detach=1');
($status, $output) = produce(2, 0, -w => 1500);
ok($proxy->wait_for_log(qr/late answer from the broker: api=26 correlation=\d+ error=0/, $from),
	'an EndTxn reaches the broker 0.8 s after its connection was closed');
my $first = $transactions + 1;
like($output, qr/^$first committed/, 'its transaction was committed by the second try');
isnt($status, 0, 'the transaction after it fails');
($status, $output) = audit(truth => \%truth, log => read_all('read_committed', 'anomaly'));
cmp_ok($output->{events}, '>', keys(%truth) + 20, 'but a part of it is visible');
cmp_ok($output->{events}, '<', keys(%truth) + 40, 'and only a part: a handle that has met trouble must be replaced');

$proxy->stop;
done_testing();
