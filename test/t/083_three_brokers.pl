# Three brokers, as in production: topics with three replicas of which one may be
# missing, the transactions' log as well.  Leaders move, brokers are killed, hang,
# restart one after the other, two of three are gone, partitions are reassigned,
# each while sessions work.  Each time nothing is lost, doubled, torn or out of order, in the
# topic and in the reports, and the status views were true all along: they
# complain when nothing is published, and only then.
#
# By default some of it; with CARSHOP_TEST_FULL=1 (and TEST_TIMEOUT=3600) all, also
# with brokers that are controllers themselves, and the latency of a commit beside
# that with one broker.  CARSHOP_TEST_ONLY, a pattern, chooses trials by their names.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Scenario;
use Test::More;
use Time::Local qw(timegm);
use Time::HiRes qw(sleep time);
use Watch;

# Longer than any failover takes on a machine that is busy otherwise.
use constant PATIENCE => 180;

# A silence is told after 2 s, and a machine that is busy may be late with it: that is
# for the relay; the reporter only knows after a request was given up.
use constant TOLD_AFTER => { relay => 8, reporter => 25 };

use constant TRANSACTIONS => '__transaction_state';
use constant GROUPS => '__consumer_offsets';

plan skip_all => 'CARSHOP_TEST_CLUSTERS=0' if !($ENV{CARSHOP_TEST_CLUSTERS} // 1);
my $full = $ENV{CARSHOP_TEST_FULL};
my $only = $ENV{CARSHOP_TEST_ONLY} // '.';
my ($scenario, $kafka, $node, %watch, $progress);

sub start
{
	my ($name, %cluster) = @_;

	$scenario = Scenario->new(name => $name, keys => 2_000, cluster => { brokers => 3, %cluster });
	$kafka = $scenario->kafka;
	$node = $scenario->node;
	$progress = $scenario->ask('shop', 'SELECT progress_topic FROM outbox.lineage');
	ok($scenario->applied(PATIENCE), "$name: the reports are current");
	$kafka->wait_in_sync(3, PATIENCE, topics());
	%watch = (
		relay => Watch->start($node, 'shop', 'relay', "$scenario->{dir}/relay"),
		reporter => Watch->start($node, 'report', 'reporter', "$scenario->{dir}/reporter"));
	return;
}

sub finish
{
	$_->stop foreach values %watch;
	$scenario->stop;
	return;
}

sub topics { return (Scenario::TOPIC, $progress, TRANSACTIONS, GROUPS); }

# Everything on its own broker, and led by it: (events 0, events 1, progress, transactions, groups).
sub lead
{
	my @first = @_;
	my @replicas = map { my $n = $_; [ $n, $n % 3 + 1, ($n + 1) % 3 + 1 ] } @first;

	$kafka->reassign({
		Scenario::TOPIC() => [ @replicas[ 0, 1 ] ],
		$progress => [ $replicas[2] ],
		TRANSACTIONS() => [ $replicas[3] ],
		GROUPS() => [ $replicas[4] ] });
	return;
}

# What is committed now comes into Kafka, while more is being written.
sub flows { return $scenario->published(PATIENCE); }

# ---- what the views said ----

# The longest time in which the number of events stood still.
sub standstill
{
	my (@looks) = @_;
	my ($longest, $since) = (0, undef);

	foreach my $i (0 .. $#looks)
	{
		$since = $looks[$i]{at} if !$i || $looks[$i]{count} != $looks[ $i - 1 ]{count};
		$longest = $looks[$i]{at} - $since if $looks[$i]{at} - $since > $longest;
	}
	return $longest;
}

# Between two messages of the reader that reads all along.
sub longest_gap
{
	my ($from, $to) = @_;
	my ($longest, $last) = (0, $from);

	$scenario->live->each(
		sub {
			my ($kind, $ms) = @_;
			return if $kind ne 'M' || $ms / 1000 < $from || $ms / 1000 > $to;
			$longest = $ms / 1000 - $last if $ms / 1000 - $last > $longest;
			$last = $ms / 1000;
		});
	return $longest;
}

# What was not true: silence about a standstill, a complaint while all goes well, a
# "since" that is not when the state began.
sub untrue
{
	my ($kind, @looks) = @_;
	my (@wrong, $still, $quiet, $fine, $before);

	foreach my $look (@looks)
	{
		my $moves = $before && $look->{count} != $before->{count};

		# with work waiting, nothing is done and nothing said
		$still = $look->{at} if !defined $still || $moves || !$look->{waiting} || $look->{complaint} ne '';
		push @wrong, sprintf('%s: nothing happens for %.1f s and nothing is said', $look->{state}, $look->{at} - $still)
		  if $look->{at} - $still > TOLD_AFTER->{$kind};

		# it goes on for seconds, and is said to fail
		$fine = $look->{at} if !defined $fine || !$moves || $look->{complaint} !~ /fail: kafka/;
		push @wrong, sprintf('for %.1f s said, although it goes on: %s', $look->{at} - $fine, $look->{complaint})
		  if $look->{at} - $fine > TOLD_AFTER->{$kind};

		push @wrong, "$look->{state} since the future" if $look->{since} > $look->{at} + 1;
		push @wrong, "$before->{state} became $look->{state}, and both began at the same time"
		  if $before && $look->{state} ne $before->{state} && $look->{since} == $before->{since};
		push @wrong, "no remedy: $look->{complaint}" if $look->{complaint} ne '' && $look->{complaint} !~ /->/;

		# nobody has changed a setting, and transactions are small
		push @wrong, "not the remedy: $look->{complaint}" if $look->{complaint} =~ /-> (Set security|Kafka took longer)/;
		$before = $look;
	}
	return @wrong;
}

# ---- one trial ----

# While two sessions work: the strike, which ends with everything repaired; then
# all must flow again, nothing be wrong any more, and the audit find nothing.
# unsaid => what outbox.status must never say.
sub trial
{
	my ($name, $strike, %arg) = @_;

	return if $name !~ /$only/;
	my @writers = map {
		Workload->start($node, 'shop', seed => $scenario->{seed} + 10_000 * ++$scenario->{works},
			most => 6, chunk => 10, pause => 0.05, asynchronous => $_ == 2)
	} 1, 2;

	note("---- $name");
	ok(flows(), "$name: events flow before") or diag($scenario->status);
	my $begun = time();
	$strike->();
	my $repaired = time();
	ok(flows(), "$name: and afterwards") or diag($scenario->status);
	ok($scenario->until(PATIENCE, 'shop', q{SELECT count(*) FROM outbox.status WHERE level <> 'ok'}, qr/^0$/),
		"$name: outbox.status complains of nothing any more") or diag($scenario->status);
	ok($scenario->until(PATIENCE, 'report', q{SELECT count(*) FROM report.status WHERE level <> 'ok'}, qr/^0$/),
		"$name: nor does report.status") or diag($scenario->status);
	my $ended = time();
	$_->stop foreach @writers;
	my $result = $scenario->settle(PATIENCE, go_on => 1);
	Scenario::exactly_once_ok($result, "$name: each committed event is there once, everywhere");

	my %looks = map { $_ => [ $watch{$_}->looks($begun, $ended) ] } keys %watch;
	diag(sprintf '%s: strike %.1f s, publishing stood still for %.1f s, applying for %.1f s, a reader saw nothing for %.1f s; %d events',
		$name, $repaired - $begun, standstill(@{ $looks{relay} }), standstill(@{ $looks{reporter} }),
		longest_gap($begun, $ended), $result->{figures}{events} // 0);
	foreach my $kind ('relay', 'reporter')
	{
		diag("  $kind, $_") foreach Watch::story(@{ $looks{$kind} });
		my %wrong = map { $_ => 1 } untrue($kind, @{ $looks{$kind} });
		cmp_ok(scalar @{ $looks{$kind} }, '>', 5, "$name: $kind was looked at");
		is(scalar keys %wrong, 0, "$name: what was said of the $kind was true") or diag(map { "$_\n" } sort keys %wrong);
	}
	is(scalar(grep { $_->{complaint} =~ $arg{unsaid} } @{ $looks{relay} }), 0, "$name: no transaction was given up")
	  if $arg{unsaid};
	return;
}

# ---- the trials ----

# Wait until nobody is led by a broker that is gone.
sub led_by_others
{
	my ($gone) = @_;
	my $deadline = time() + PATIENCE;

	foreach my $topic (topics())
	{
		while (1)
		{
			my @partitions = $kafka->partitions($topic);
			last if @partitions && !grep { $_->[0] < 0 || $_->[0] == $gone } @partitions;
			die "$topic is led by broker $gone" if time() > $deadline;
			sleep(0.1);
		}
	}
	return;
}

sub back
{
	my (@brokers) = @_;

	$kafka->restart(brokers => \@brokers);
	$kafka->wait_in_sync(3, PATIENCE, topics());
	return;
}

sub leaders_move
{
	lead(map { ($_ + $_[0]) % 3 + 1 } 0, 1, 2, 0, 1);
	return;
}

sub leader_killed
{
	my ($topic) = @_;
	my $broker = $kafka->leader($topic, 0);

	$kafka->kill9($broker);
	led_by_others($broker);
	ok(flows(), "broker $broker, the leader of $topic, is gone, and events flow") or diag($scenario->status);
	back($broker);
	return;
}

# The first in the list of brokers, which whoever begins anew asks first, or not at all.
sub one_gone_for_good
{
	my $broker = 1;

	$kafka->kill9($broker);
	led_by_others($broker);
	ok(flows(), 'one is gone for good: events flow') or diag($scenario->status);
	foreach my $kind ('relay', 'reporter')
	{
		my $pid = $scenario->worker($kind);
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
		ok($scenario->until(PATIENCE, 'postgres',
			"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'carshop_outbox $kind%' AND pid <> $pid", qr/^1$/),
			"one is gone for good: another $kind begins");
	}
	ok(flows(), 'one is gone for good: events flow from a relay that began then') or diag($scenario->status);
	ok($scenario->applied(PATIENCE), 'one is gone for good: and are applied') or diag($scenario->status);
	foreach my $view ([ 'shop', 'outbox.status' ], [ 'report', 'report.status' ])
	{
		ok($scenario->until(PATIENCE, $view->[0], "SELECT count(*) FROM $view->[1] WHERE level <> 'ok'", qr/^0$/),
			"one is gone for good: $view->[1] complains of nothing") or diag($scenario->status);
	}
	back($broker);
	return;
}

# What the status says of it at last is up to who can still be asked.
sub two_of_three_gone
{
	my ($message) = @_;
	my $stays = $kafka->leader(Scenario::TOPIC, 0);
	my @gone = grep { $_ != $stays } 1 .. 3;

	$kafka->kill9($_) foreach @gone;
	ok($scenario->until(PATIENCE, 'shop', q{SELECT level || ': ' || message || ' -> ' || remedy FROM outbox.status WHERE concern = 'kafka'},
		qr/^fail: .*$message.* -> .*(?:min\.insync\.replicas|brokers that are down)/), 'two of three gone: the status says so') or diag($scenario->status);

	my $change = q{SELECT shop.change(1, 5, ('x' || left(md5(gen_random_uuid()::text), 13))::bit(52)::bigint)};
	my ($slowest, $failed) = (0, 0);
	my $end = time() + ($full ? 60 : 5);
	do
	{
		my $begun = time();
		defined $scenario->ask('shop', $change) or $failed++;
		$slowest = time() - $begun if time() - $begun > $slowest;
		sleep(0.2);
	} while (time() < $end);
	is($failed, 0, 'two of three gone: the shop works');
	cmp_ok($slowest, '<', 10, sprintf('two of three gone: and does not wait (slowest statement with its session: %.2f s)', $slowest));
	back(@gone);
	return;
}

# Each partition leaves one of its brokers, and comes back to it later.
sub partitions_move
{
	foreach my $replicas ([ 2, 3 ], [ 3, 1 ], [ 1, 2 ], [ 1, 2, 3 ])
	{
		$kafka->reassign({
			Scenario::TOPIC() => [ $replicas, [ reverse @$replicas ] ],
			map { $_ => [$replicas] } $progress, TRANSACTIONS, GROUPS });
		ok(flows(), "partitions are on brokers @$replicas, and events flow") or diag($scenario->status);
	}
	$kafka->wait_in_sync(3, PATIENCE, topics());
	return;
}

sub rolling_restart
{
	back($_) foreach 1 .. 3;
	return;
}

sub leader_hangs
{
	my ($topic) = @_;
	my $broker = $kafka->leader($topic, 0);

	$kafka->pause($broker);
	led_by_others($broker);
	ok(flows(), "broker $broker, the leader of $topic, hangs, and events flow") or diag($scenario->status);
	$kafka->resume($broker);
	$kafka->wait_in_sync(3, PATIENCE, topics());
	return;
}

# Not long enough for the others to take over.
sub leader_hangs_shortly
{
	my $broker = $kafka->leader(Scenario::TOPIC, 0);

	foreach (1 .. 3)
	{
		$kafka->pause($broker);
		sleep(1);
		$kafka->resume($broker);
		sleep(1);
	}
	return;
}

# ---- latency ----

# From a change, right before its commit, to a reader of committed messages.
sub latency
{
	my ($name) = @_;
	my $begun = time();
	my @ms;

	Workload::work($node, 'shop', seed => ++$scenario->{works}, events => 1_000, most => 1, sessions => 1);
	$scenario->published(PATIENCE);
	$scenario->settle(PATIENCE, go_on => 1);
	$scenario->live->each(
		sub {
			my ($kind, $ms, undef, undef, undef, undef, $value) = @_;
			return if $kind ne 'M' || $ms / 1000 < $begun;
			my ($y, $mo, $d, $h, $mi, $s) = $value =~ /"OccuredOn":"(\d+)-(\d+)-(\d+)T(\d+):(\d+):([\d.]+)\+00:00"/ or return;
			push @ms, $ms - 1000 * (timegm(0, $mi, $h, $d, $mo - 1, $y) + $s);
		});
	@ms = sort { $a <=> $b } @ms;
	diag(sprintf '%s: from a change to a reader of committed messages: median %.1f ms, 95 %% %.1f ms, 99 %% %.1f ms, %d events',
		$name, map({ $ms[ $#ms * $_ ] } 0.5, 0.95, 0.99), scalar @ms);
	return;
}

# ---- which of them, and where ----

# Who hangs is given up before the transaction that waits for him.
my @hang = (unsaid => qr/Message timed out/);

start('separate', controller => 1);
latency('three brokers') if $full;
if ($full)
{
	trial("leaders move ($_)", sub { leaders_move($_) }) foreach 1 .. 3;
	trial('the leader of a topic of events is killed', sub { leader_killed(Scenario::TOPIC) });
	trial("the group's coordinator is killed", sub { leader_killed(GROUPS) });
	trial('one is gone for good', \&one_gone_for_good);
	trial('partitions move', \&partitions_move);
	trial('rolling restart', \&rolling_restart);
	trial('a leader hangs shortly', \&leader_hangs_shortly);
	trial("the transactions' coordinator hangs", sub { leader_hangs(TRANSACTIONS) }, @hang);
}
trial("the transactions' coordinator is killed", sub { leader_killed(TRANSACTIONS) });
# by default not for longer than a transaction may take
trial('two of three gone', sub { two_of_three_gone($full ? 'Partition \d+ of topic \S+ has only 1 of 3 replicas in sync' : '.') });
trial('a leader hangs', sub { leader_hangs(Scenario::TOPIC) }, @hang);
finish();

if ($full)
{
	# each is a controller as well: with two of them nobody is left to elect a leader
	start('combined');
	trial("the transactions' coordinator is killed", sub { leader_killed(TRANSACTIONS) });
	trial('two of three gone', sub { two_of_three_gone('.') });
	trial('rolling restart', \&rolling_restart);
	trial('a leader hangs', sub { leader_hangs(Scenario::TOPIC) }, @hang);
	finish();

	$scenario = Scenario->new(name => 'one', keys => 2_000);
	$node = $scenario->node;
	latency('one broker');
	$scenario->stop;
}
done_testing();
