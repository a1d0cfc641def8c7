# Kafka is stopped, or hangs: the shop's transactions run at the speed they have
# with it, the server and each worker end within seconds, workers stay small and
# say little, and when Kafka is back the backlog drains by itself and whole.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Scenario;
use Test::More;
use Time::HiRes qw(time usleep);

my $sessions = 4;
my $transactions = $ENV{CARSHOP_TEST_FULL} ? 10_000 : 4_000;
my $scenario = Scenario->new(name => 'down');
my $node = $scenario->node;
my $kafka = $scenario->kafka;
my $script = "$scenario->{dir}/shop.sql";
append_to_file($script, "CALL shop.work(1, 3);\n");

# Seconds for one run of the shop's transactions.
sub run_shop
{
	my $begun = time();
	my $output;
	IPC::Run::run(
		[
			'pgbench', '-n', '-d', $node->connstr('shop'), '-c', $sessions, '-j', 2,
			'-t', $transactions / $sessions, '-f', $script
		],
		'>', \$output, '2>&1') or BAIL_OUT("pgbench: $output");
	return time() - $begun;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}

# Private memory of a process in MB.
sub memory
{
	my ($pid) = @_;
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;
	return $kb / 1024;
}

sub log_lines
{
	my ($from) = @_;
	return scalar grep { /carshop_outbox/ } split /\n/, substr(slurp_file($node->logfile), $from);
}

# ---- as fast as with Kafka ----

my %seconds;
my $ticks = "SELECT max(tick_id) FROM outbox.tick";
run_shop();						# once to warm up
foreach my $round (1 .. 2)
{
	push @{ $seconds{up} }, run_shop() for 1 .. 2;

	my $from = -s $node->logfile;
	my $before = $node->safe_psql('shop', $ticks);
	$kafka->kill9;
	push @{ $seconds{down} }, run_shop() for 1 .. 2;
	# one per poll_interval at least, however quick the shop was
	poll_until(sub { $node->safe_psql('shop', $ticks) > $before }, 60, "ticks are made while Kafka is down ($round)");
	pass("ticks are made while Kafka is down ($round)");
	cmp_ok(log_lines($from), '<', 40, "and little is logged ($round)");
	$kafka->restart;
	ok($scenario->published(60), "the backlog drains when Kafka is back ($round)")
	  or diag($scenario->status);

	kill 'STOP', $kafka->pid;
	push @{ $seconds{hangs} }, run_shop() for 1 .. 2;
	kill 'CONT', $kafka->pid;
	ok($scenario->published(60), "the backlog drains when Kafka answers again ($round)")
	  or diag($scenario->status);
}
my %median = map { ($_ => median(@{ $seconds{$_} })) } keys %seconds;
note("$transactions transactions of $sessions sessions, median of " . @{ $seconds{up} } . ': '
	  . join(', ', map { sprintf '%s %.2f s', $_, $median{$_} } qw(up down hangs)));
cmp_ok($median{down} / $median{up}, '<', 1.5, 'without Kafka the shop is as fast');
cmp_ok($median{hangs} / $median{up}, '<', 1.5, 'with a Kafka that hangs as well');

# ---- workers end in seconds, alone ----

my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $session = $node->background_psql('postgres');
foreach my $state ('down', 'hanging')
{
	if ($state eq 'down') { $kafka->kill9; }
	else { kill 'STOP', $kafka->pid; }

	$scenario->work(events => $ENV{CARSHOP_TEST_FULL} ? 200_000 : 50_000);
	foreach my $kind ('relay', 'reporter')
	{
		my $pid = $scenario->worker($kind);
		cmp_ok(memory($pid), '<', 150, sprintf('Kafka %s: the %s is small (%.0f MB)', $state, $kind, memory($pid)));

		my $begun = time();
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
		usleep(10_000) while kill(0, $pid) && time() < $begun + 10;
		cmp_ok(time() - $begun, '<', 5, sprintf('Kafka %s: SIGTERM ends the %s (%.1f s)', $state, $kind, time() - $begun));
		isnt($scenario->worker($kind), $pid, "Kafka $state: another $kind takes its place");
	}

	if ($state eq 'down') { $kafka->restart; }
	else { kill 'CONT', $kafka->pid; }
	my $begun = time();
	ok($scenario->published(120), "Kafka was $state: the backlog drains") or diag($scenario->status);
	note(sprintf('drained in %.1f s', time() - $begun));
	ok($scenario->applied(120), "Kafka was $state: and is applied") or diag($scenario->status);
	cmp_ok(memory($scenario->worker($_)), '<', 150, "Kafka was $state: the $_ is small afterwards")
	  foreach 'relay', 'reporter';
}
is($session->query_safe('SELECT 1'), 1, 'a session went on all the time: nothing crashed');
$session->quit;

# ---- the server stops in seconds ----

foreach my $state ('down', 'hanging')
{
	if ($state eq 'down') { $kafka->kill9; }
	else { kill 'STOP', $kafka->pid; }
	$scenario->work(events => 1000);

	my $begun = time();
	$node->stop('fast');
	cmp_ok(time() - $begun, '<', 5, sprintf('Kafka %s: fast shutdown (%.1f s)', $state, time() - $begun));
	$begun = time();
	$node->start;
	cmp_ok(time() - $begun, '<', 5, sprintf('Kafka %s: start (%.1f s)', $state, time() - $begun));
	$scenario->work(events => 1000);

	if ($state eq 'down') { $kafka->restart; }
	else { kill 'CONT', $kafka->pid; }
}

my $result = $scenario->settle(120);
Scenario::exactly_once_ok($result, 'after all that each event is there once');

$scenario->stop;
done_testing();
