# Faults of the network that only something between client and broker can make.
# librdkafka retries an EndTxn whose answer is lost without a word, and a broker
# may apply the first one later, to another transaction.  So the relay replaces
# its handle after any connection failure, also one while idle: init_transactions
# raises the epoch, and what is still under way is refused.  Seen from outside a
# replaced handle is an InitProducerId.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Proxy;
use Scenario;
use Test::More;

my $scenario = Scenario->new(name => 'network', proxy => 1);
my $proxy = $scenario->proxy;

# Run the sub, then one small load; the handle must have been replaced by the
# time that the load is published.
sub replaces_handle
{
	my ($name, $code) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = $proxy->seen(Proxy::INIT_PRODUCER_ID);

	$code->();
	$scenario->work(events => 50, sessions => 1);
	ok($scenario->published(60), "$name: events are published") or diag($scenario->status);
	cmp_ok($proxy->seen(Proxy::INIT_PRODUCER_ID), '>', $before, "$name: the handle was replaced");
	return;
}

# Hold so many EndTxn back (0: all that come); the number for "release".
sub hold_commit
{
	my ($count) = @_;
	my ($answer) = $proxy->command("hold-request api=26 producer=1 count=$count");

	$answer =~ /^rule (\d+)$/ or die "the proxy says $answer";
	return $1;
}

ok($scenario->published(60), 'the relay publishes through the proxy');
ok($scenario->applied(60), 'and the reporter reads');

# ---- nothing happens: the handle is kept ----

my $before = $proxy->seen(Proxy::INIT_PRODUCER_ID);
foreach (1 .. 5)
{
	$scenario->work(events => 50, sessions => 1);
	$scenario->published(30);
}
is($proxy->seen(Proxy::INIT_PRODUCER_ID), $before, 'without trouble the handle is kept');

# ---- connections cut twice while idle, then the answer to EndTxn lost ----

# Identical errors are reported once in 30 s only, and this one is the third.
replaces_handle('cut while idle', sub { $proxy->command('cut all'); });
replaces_handle('cut again while idle', sub { $proxy->command('cut all'); });
foreach my $time (1, 2)
{
	replaces_handle(
		"the answer to EndTxn lost ($time)",
		sub {
			$proxy->command('clear');
			$proxy->command('drop-response api=26 producer=1');
			$scenario->work(events => 50, sessions => 1);
			ok($scenario->published(60), "a transaction whose answer is lost is published ($time)");
			is($proxy->hits, 1, "its answer was lost ($time)");
		});
}

# ---- other requests ----

foreach my $api (Proxy::PRODUCE, Proxy::ADD_PARTITIONS, Proxy::INIT_PRODUCER_ID)
{
	foreach my $when ('request', 'response')
	{
		$proxy->command('clear');
		# the broker's own clients send AddPartitionsToTxn too
		$proxy->command("close api=$api when=$when producer=1");
		$proxy->command('cut producer') if $api == Proxy::INIT_PRODUCER_ID;
		replaces_handle("connection closed at the $when of api $api", sub { });
		is($proxy->hits, 1, "connection closed at the $when of api $api: it was closed");
	}
}
$proxy->command('clear');

# ---- an EndTxn that arrives seconds after its connection was closed ----

foreach my $ms (300, 1500, $ENV{CARSHOP_TEST_FULL} ? (5000, 12_000) : ())
{
	my $writer = Workload->start($scenario->node, 'shop',
		seed => $scenario->{seed} + $ms, most => 20, chunk => 5, pause => 0.01);
	my $from = $proxy->log_position;

	replaces_handle(
		"an EndTxn $ms ms late",
		sub {
			$proxy->command("delay-request api=26 ms=$ms detach=1 producer=1");
			ok($proxy->wait_for_log(qr/late answer from the broker: api=26/, $from),
				"an EndTxn reaches the broker $ms ms after its connection was closed");
		});
	# 0 would mean that the epoch was still the same one
	my ($error) = substr($proxy->log_contents, $from) =~ /late answer .* error=(\d+)/;
	note("the broker's answer to it: $error");
	isnt($error, 0, "an EndTxn $ms ms late: the broker refuses it") if $ms > 1000;
	$writer->stop;
	$proxy->command('clear');
}

# ---- a broker that keeps a commit waiting is told, once, and is no event's fault ----

{
	my $complaint = q{SELECT message || ' / ' || remedy FROM outbox.status WHERE level <> 'ok' AND concern = 'kafka'};
	my $log = -s $scenario->node->logfile;

	my $rule = hold_commit(1);
	$scenario->work(events => 1, sessions => 1);
	$scenario->until(60, 'shop', $complaint, qr/./);
	like($scenario->ask('shop', $complaint), qr/brokers are up.*min\.insync\.replicas/, 'a commit without an answer: the status says what to look at');
	is_deeply([ $proxy->command("release $rule") ], ['released 1'], 'the broker gets the request');
	ok($scenario->published(60), 'the answer came');
	$scenario->until(60, 'shop', $complaint, qr/^$/);
	is($scenario->ask('shop', $complaint) // '', '', 'nothing is wrong any more');
	is($scenario->ask('shop', 'SELECT count(*) FROM outbox.dead_letters'), 0, 'no event is blamed');
	my @said = substr(PostgreSQL::Test::Utils::slurp_file($scenario->node->logfile), $log) =~ /(relay for shop: .*)/g;
	is(scalar @said, 2, 'the log says it once, and its end once') or diag(@said);
	$proxy->command('clear');
}

# ---- a commit that takes too long, and transactions of many events behind it ----

# Kafka ends the transaction; the next ones are smaller, and none of them torn for
# that (the audit at the end looks).
{
	my $node = $scenario->node;
	my $change = q{SELECT shop.change(1, %d, ('x' || left(md5(gen_random_uuid()::text), 13))::bit(52)::bigint)};

	$node->safe_psql('postgres', q{ALTER SYSTEM SET carshop_outbox.transaction_timeout = '4s'});
	$node->reload;
	$scenario->work(events => 50, sessions => 1);
	$scenario->published(60);
	my $errors = $scenario->ask('shop', 'SELECT errors FROM outbox.stat_relay');
	my $rule = hold_commit(0);
	$node->safe_psql('shop', sprintf($change, 1));
	$scenario->until(60, 'shop', q{SELECT count(*) FROM outbox.status WHERE level <> 'ok' AND concern = 'kafka'}, qr/[^0]/);
	$node->safe_psql('shop', sprintf($change, 9)) foreach 1 .. 5;
	$scenario->until(60, 'shop', "SELECT errors > $errors FROM outbox.stat_relay", qr/t/);
	$proxy->command('clear');
	$proxy->command("release $rule");
	ok($scenario->published(90), 'a commit that takes too long: what was in it is published');
	$node->safe_psql('postgres', q{ALTER SYSTEM RESET carshop_outbox.transaction_timeout});
	$node->reload;
	$scenario->published(60);
}

# ---- an EndTxn that reaches the broker in the middle of a later transaction ----

isnt($scenario->late_end, 0, 'an EndTxn amid a later transaction is refused');

# ---- and while a relay dies ----

my $result = $scenario->late_commit(rounds => $ENV{CARSHOP_TEST_FULL} ? 5 : 1);
Scenario::exactly_once_ok($result, 'nothing is lost, doubled or torn, reports are right');
cmp_ok($scenario->ask('shop', 'SELECT errors FROM outbox.stat_relay') // -1, '>=', 0,
	'the relay counts its errors');

$scenario->stop;
done_testing();
