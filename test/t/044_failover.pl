# Failover.  A standby that has everything goes on by itself, the former primary
# stops, whether it comes back later or has been alive all along.  One that lacks
# what was published stops, says what is missing, and goes on after
# outbox.start_lineage(): nothing that it has is lost, and nothing is sent twice,
# not even what came to it without the tick that published it.  What is lost is in
# Kafka, and nothing else that it does not have.  A synchronous standby lacks
# nothing, and with publish_after_standby neither does an asynchronous one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Failover;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);
use Workload;

my $kafka = Carshop::Kafka->start;

sub event_in
{
	my ($node) = @_;

	return query_value($node, 'shop', q{SELECT outbox.emit('Probe')});
}

sub in_topic
{
	my ($failover, $id) = @_;

	return scalar grep { $_->{value} =~ /$id/ } $kafka->read_topic($failover->{topic});
}

# The former primary stops, and the new one does not even notice it.
sub former_stops
{
	my ($failover, $former, $heir, $case) = @_;

	my $id = event_in($former);
	$failover->stopped($former, qr/written by another server, which was promoted/, qr/pg_rewind/, $case);
	Failover::published($heir, "$case: the new primary");
	is(in_topic($failover, $id), 0, "$case: nothing of it is published");
	is(Failover::wrong($heir, 'divergence'), undef, "$case: the new primary goes on");
	Failover::result('publishes nothing, fences nobody');
	return;
}

# ---- a standby that has everything; the former primary comes back ----
{
	my $failover = Failover->new(name => 'complete', kafka => $kafka);
	my $primary = $failover->primary;
	my $standby = $failover->standby('complete_heir');

	$failover->load;
	$failover->more_published($primary, 200);
	$failover->unload;
	Failover::published($primary, 'before the failover');
	$primary->wait_for_catchup($standby);
	$primary->kill9;
	my $began = time;
	$standby->promote;
	my $promoted = time;
	$failover->load($standby);
	poll_until(sub { (query_value($standby, 'shop', 'SELECT events_published FROM outbox.stat_relay') // 0) > 0 }, 60, 'the heir publishes');
	diag(sprintf 'promotion: %.2f s, and %.2f s to the first event', $promoted - $began, time - $promoted);
	$failover->more_published($standby, 200);
	$failover->unload;
	$failover->went_on('promotion of a standby that has everything');
	$failover->audit_ok($standby, 'promoted');
	is(query_value($standby, 'shop', 'SELECT errors FROM outbox.stat_relay'), 0, 'promoted: without an error');

	start_killed($primary);
	former_stops($failover, $primary, $standby, 'the former primary comes back');
	is(query_value($standby, 'shop', 'SELECT errors FROM outbox.stat_relay'), 0, 'the new primary was not fenced');
	no_crash($_), $_->stop foreach $primary, $standby;
}

# ---- the same, and the former primary is alive all along ----
{
	my $failover = Failover->new(name => 'alive', kafka => $kafka);
	my $standby = $failover->standby('alive_heir');

	$failover->primary->wait_for_catchup($standby);
	$standby->promote;
	my $id = event_in($standby);
	Failover::published($standby, 'the heir beside the former primary');
	is(in_topic($failover, $id), 1, 'the new primary publishes beside the former one');
	former_stops($failover, $failover->primary, $standby, 'the former primary is still alive');
	$id = event_in($standby);
	Failover::published($standby, 'the heir, later');
	is(in_topic($failover, $id), 1, 'and goes on');
	no_crash($_), $_->stop foreach $failover->primary, $standby;
}

# ---- an asynchronous standby lacks the last commits ----
foreach my $round (1, 2)
{
	my $failover = Failover->new(name => "late$round", kafka => $kafka);
	my $primary = $failover->primary;
	my $standby = $failover->late;
	my $case = 'promotion of a standby that lacks what was published';
	my $message = $failover->stopped($standby, qr/does not know \(ticks \d+ to \d+, about \d+ events/, qr/outbox\.start_lineage\(\)/, $case,
		'outbox.start_lineage()');
	note($message);
	if ($round == 2)
	{
		# what it knows is kept when the server starts again
		$failover->unload;
		$standby->stop('immediate');
		$standby->start;
		$failover->load($standby);
		poll_until(sub { (Failover::wrong($standby, 'divergence') // '') =~ /does not know/ }, 60, 'stopped again');
	}
	$standby->safe_psql('shop', 'SELECT outbox.start_lineage()');
	$failover->more_published($standby, 200);
	$failover->unload;
	my $figures = $failover->audit_ok($standby, $case, lost => [$primary]);
	cmp_ok($figures->{taken_back}, '>', 0, "$case: there were some");
	my ($about) = $message =~ /about (\d+) events/;
	cmp_ok($about, '>=', $figures->{taken_back} * 0.8, "$case: about so many as was said");
	is(Failover::wrong($standby, 'divergence'), undef, "$case: all is in order");
	no_crash($standby);
	$standby->stop;
}

# ---- a synchronous standby lacks nothing that was published ----
{
	my $failover = Failover->new(name => 'synchronous', kafka => $kafka);
	my $primary = $failover->primary;
	my $standby = $failover->standby('synchronous_heir');

	$primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = '*'});
	$primary->reload;
	poll_until(sub { query_value($primary, 'postgres', q{SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'}) == 1 }, 60, 'synchronous');
	# some sessions wait for nothing, the relay does for them
	$failover->load($primary, asynchronous => 1);
	$failover->load($primary);
	$failover->more_published($primary, 500);
	$primary->kill9;
	$failover->unload;
	$standby->promote;
	$failover->load($standby);
	$failover->more_published($standby, 200);
	$failover->unload;
	$failover->went_on('promotion of a synchronous standby');
	$failover->audit_ok($standby, 'a synchronous standby');
	is(Failover::wrong($standby, 'divergence'), undef, 'a synchronous standby: nothing was missing');
	no_crash($standby);
	$standby->stop;
}

# ---- the postmaster is killed while the relay waits for that standby ----
{
	my $failover = Failover->new(name => 'widowed', kafka => $kafka);
	my ($standby, $id) = $failover->widowed('widowed_heir');

	Failover::published($standby, 'the heir') if event_in($standby);
	is(in_topic($failover, $id), 0, 'killed in its wait, the relay publishes nothing');
	is(Failover::wrong($standby, 'divergence'), undef, 'the standby lacks nothing that was published');
	no_crash($standby);
	$standby->stop;
}

# ---- publish_after_standby ----
{
	my $failover = Failover->new(name => 'after', kafka => $kafka, init => { allows_streaming => 'logical' });
	my $primary = $failover->primary;
	my $standby = $failover->after(sub {
		is(Failover::wrong($primary, 'publishing'), undef, 'after a standby: nothing is wrong while it is there');
	});
	my $said = poll_until(sub { Failover::wrong($primary, 'publishing') }, 60, 'the wait is told');
	like($said, qr/^Events wait until 1 standby\(s\) have them .*\. Since 20/, 'after a standby: the status says what is waited for');
	is(Failover::wrong($primary, 'kafka'), undef, 'after a standby: which is no trouble with Kafka');
	is(query_value($primary, 'shop', 'SELECT state FROM outbox.stat_relay'), 'waiting for a standby', 'after a standby: state');
	like(query_value($primary, 'shop', q{SELECT remedy FROM outbox.status WHERE concern = 'publishing' AND level = 'fail'}), qr/pg_stat_replication.*publish_after_standby = 0/, 'after a standby: remedy');
	my $count = query_value($primary, 'shop', 'SELECT events_published FROM outbox.stat_relay');
	my $waits = query_value($primary, 'shop', 'SELECT count(*) FROM shop.truth');
	poll_until(sub { query_value($primary, 'shop', 'SELECT count(*) FROM shop.truth') > $waits + 100 }, 60, 'the shop works');
	Failover::published_nothing($primary, $count, 'after a standby: nothing is published meanwhile');

	# nobody can be promoted to a subscriber, however far it is
	$primary->safe_psql('shop', q{SELECT pg_create_logical_replication_slot('subscriber', 'test_decoding')});
	my $subscriber = IPC::Run::start([ $primary->installed_command('pg_recvlogical'), '-d', $primary->connstr('shop'), '--slot', 'subscriber', '--start',
			'-f', '-', '-F', '1', '-s', '1' ], '>', '/dev/null', '2>', '/dev/null');
	my $lsn = query_value($primary, 'postgres', 'SELECT pg_current_wal_lsn()');
	poll_until(sub { query_value($primary, 'postgres', "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn > '$lsn'") == 1 }, 60, 'a subscriber has it');
	Failover::published_nothing($primary, $count, 'after a standby: a subscriber does not count');
	$subscriber->kill_kill(grace => 2);

	# the wait does not hold up the end of the process, nor is it forgotten by the next
	my ($pid) = worker_pids($primary, 'relay', 'shop');
	my $began = time;
	$primary->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_for_worker($primary, 'relay', 'shop', $pid);
	cmp_ok(time - $began, '<', 20, 'after a standby: SIGTERM ends the relay');
	poll_until(sub { Failover::wrong($primary, 'publishing') }, 60, 'the next relay waits, too');
	is(query_value($primary, 'shop', 'SELECT events_published FROM outbox.stat_relay'), $count, 'after a standby: the next relay waits, too');

	$primary->kill9;
	$failover->unload;
	$standby->promote;
	$failover->load($standby);
	$failover->more_published($standby, 200);
	$failover->unload;
	$failover->went_on('promotion of an asynchronous standby, with publish_after_standby');
	$failover->audit_ok($standby, 'after a standby');
	is(Failover::wrong($standby, 'divergence'), undef, 'after a standby: nothing was missing');
	no_crash($standby);
	$standby->stop;
}

diag($_) foreach Failover::table();
done_testing();
