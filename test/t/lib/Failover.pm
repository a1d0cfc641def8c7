# Servers that take each other's place: a shop under load (Workload.pm), its
# standbys and copies, what the status says, and the audit over what was committed.
#
#	my $failover = Failover->new(name => 'async', kafka => $kafka);
#	my $standby = $failover->standby('async_standby');
#	$failover->load; ...; $failover->primary->kill9; $standby->promote;
#	$failover->stopped($standby, qr/does not know/, qr/start_lineage/);
#	$failover->audit_ok($standby, 'async', lost => [$failover->primary]);

package Failover;

use strict;
use warnings;

use Carshop;
use Checker qw(audit);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Reader;
use Test::More;
use Time::HiRes qw(time);
use Tools;
use Workload;

my @table;						# what was said and done in each case

# new(name => text, kafka => Carshop::Kafka, conf => {}, init => {}, stage => file): a
# server with the shop, its first events in a topic of its own.  stage: settings that
# load another build (a mutant's).
sub new
{
	my ($class, %arg) = @_;
	my $self = bless { topic => "events-$arg{name}", seed => 1, dir => PostgreSQL::Test::Utils::tempdir(), %arg }, $class;
	local $ENV{CARSHOP_CONF} = $arg{stage} // $ENV{CARSHOP_CONF};
	my $primary = $self->{primary} = Carshop->new_node($arg{name}, kafka => $arg{kafka},
		conf => { '.report_databases' => '', '.topic' => $self->{topic}, %{ $arg{conf} // {} } },
		init => { allows_streaming => 1, %{ $arg{init} // {} } });

	$primary->start;
	$primary->safe_psql('postgres', 'CREATE DATABASE shop');
	$primary->safe_psql('shop', 'CREATE EXTENSION carshop_outbox');
	Workload::install($primary, 'shop', keys => 100);
	Workload::work($primary, 'shop', events => 20, seed => $self->{seed}++);
	published($primary, "$arg{name}: the first events");
	return $self;
}

sub primary { return $_[0]->{primary}; }

# A server from a base backup; options of init_from_backup, and conf => text.
sub from_backup
{
	my ($self, $name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $conf = delete $options{conf} // '';
	my $backup = delete $options{backup} // $name;

	$self->{primary}->backup($name) if $backup eq $name;
	$node->init_from_backup($self->{primary}, $backup, %options);
	$node->append_conf('postgresql.conf', $conf);
	return $node;
}

sub standby
{
	my ($self, $name) = @_;
	my $node = $self->from_backup($name, has_streaming => 1);

	$node->start;
	poll_until(sub { query_value($self->{primary}, 'postgres', 'SELECT count(*) FROM pg_stat_replication') > 0 }, 60, "$name streams");
	return $node;
}

# Sessions that work until unload(), also on a server that is not up yet.
sub load
{
	my ($self, $node, %arg) = @_;

	$node //= $self->{primary};
	push @{ $self->{load} }, Workload->start($node, 'shop', seed => 1000 * $self->{seed}++, chunk => 20, %arg) for 1 .. 2;
	return;
}

sub unload
{
	my ($self) = @_;

	$_->stop foreach @{ delete $self->{load} // [] };
	return;
}

# So many more events are in Kafka.
sub more_published
{
	my ($self, $node, $events) = @_;
	my $count = sub { query_value($node, 'shop', 'SELECT events_published FROM outbox.stat_relay') // 0 };
	my $before = $count->();

	poll_until(sub { $count->() >= $before + $events }, 90, "$events more events are published");
	return;
}

# No WAL comes to the standby any more, from wherever it is at.
sub cut_off
{
	my ($self, $standby) = @_;

	$standby->safe_psql('postgres', q{ALTER SYSTEM SET primary_conninfo = ''});
	$standby->reload;
	poll_until(sub { $standby->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_wal_receiver') == 0 }, 60, 'the standby is cut off');
	return;
}

sub published
{
	my ($node, $what) = @_;

	poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('2s')}) eq 't' }, 90, "$what: published");
	return;
}

# The number of published events is still that.
sub published_nothing
{
	my ($node, $count, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(query_value($node, 'shop', 'SELECT events_published FROM outbox.stat_relay'), $count, $what);
}

# The message of a concern that is not in order, or nothing.
sub wrong
{
	my ($node, $concern) = @_;

	return query_value($node, 'shop', "SELECT message FROM outbox.status WHERE concern = '$concern' AND level = 'fail'");
}

# The relay has stopped for that reason, and names the way on; the message.
sub stopped
{
	my ($self, $node, $pattern, $remedy, $case, $call) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $message = poll_until(sub { my $said = wrong($node, 'divergence') // ''; $said =~ $pattern && $said }, 90, "$case: the relay stops");

	like(query_value($node, 'shop', q{SELECT remedy FROM outbox.status WHERE concern = 'divergence'}), $remedy, "$case: the relay stops and names the way on");
	is(query_value($node, 'shop', 'SELECT state FROM outbox.stat_relay'), 'stopped', "$case: state");
	push @table, [ $case, $message, $call // 'none' ];
	return $message;
}

sub went_on
{
	my ($self, $case, $message) = @_;

	push @table, [ $case, $message // 'nothing is wrong', 'none' ];
	return;
}

# What a server that is down had committed, asked of it while it publishes nothing.
sub truth_of_dead
{
	my ($node) = @_;

	$node->append_conf('postgresql.conf', "carshop_outbox.shop_databases = ''\nsynchronous_standby_names = ''\narchive_mode = off\n");
	start_killed($node) if !defined $node->{_pid};
	my $truth = Workload::truth($node, 'shop');
	$node->stop;
	return $truth;
}

# All that the heir has committed is in Kafka once, in order, untorn; and nothing
# else but what servers that are lost had committed.  Returns findings and figures.
sub look
{
	my ($self, $heir, $case, %arg) = @_;
	my %taken_back = map { %{ truth_of_dead($_) } } @{ $arg{lost} // [] };

	published($heir, $case);
	my $log = Reader->read_all(program => Tools::program('reader'), brokers => $self->{kafka}->bootstrap,
		topic => $self->{topic}, file => "$self->{dir}/log");
	return audit(truth => Workload::truth($heir, 'shop'), log => $log, taken_back => \%taken_back);
}

# The same as a test; returns the figures.
sub audit_ok
{
	my ($self, $heir, $case, %arg) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($findings, $figures) = $self->look($heir, $case, %arg);
	my $ids = $heir->safe_psql('shop', 'SELECT count(*) - count(DISTINCT seq), count(*) - count(DISTINCT id) FROM outbox.event');

	note("$case: " . join(', ', map { "$_ $figures->{$_}" } sort keys %$figures));
	is(scalar @$findings, 0, "$case: nothing is lost, doubled, out of order or torn") or diag(join("\n", @$findings));
	is($ids, '0|0', "$case: seq and id are used once");
	result(scalar @$findings ? $findings->[0] : "each event once ($figures->{events}; $figures->{taken_back} of commits that are lost)");
	return $figures;
}

# ---- what 044 does with the build, and 056 with mutants ----

# A standby is cut off under load, the primary goes on publishing and dies, the
# standby is promoted and works.
sub late
{
	my ($self) = @_;
	my $primary = $self->{primary};
	my $standby = $self->standby("$self->{name}_heir");

	$self->load;
	$self->more_published($primary, 150);
	$self->cut_off($standby);
	$self->more_published($primary, 250);
	$primary->kill9;
	$self->unload;
	$standby->promote;
	# transactions and ticks of its own, with numbers that Kafka knows already
	$self->load($standby);
	return $standby;
}

# The same, but nothing is to be published that the standby lacks.
sub after
{
	my ($self, $look) = @_;
	my $primary = $self->{primary};
	my $standby = $self->standby("$self->{name}_heir");

	$primary->safe_psql('postgres', 'ALTER SYSTEM SET carshop_outbox.publish_after_standby = 1');
	$primary->reload;
	$self->load($primary, asynchronous => 1);
	$self->more_published($primary, 250);
	$look->($standby) if $look;
	my $committed = 'SELECT count(*) FROM shop.truth';
	$self->cut_off($standby);
	my $before = query_value($primary, 'shop', $committed);
	poll_until(sub { query_value($primary, 'shop', $committed) > $before + 200 }, 60, 'the shop works');
	return $standby;
}

# What came of the newest case.
sub result
{
	my ($text) = @_;

	$table[-1][3] = $text;
	return;
}

# What was said, called, and came of it.
sub table
{
	return map { sprintf "%s: %s -- call: %s -- %s\n", @$_[ 0 .. 2 ], $_->[3] // '' } @table;
}

# The postmaster is killed while the relay waits for a synchronous standby, which
# gets nothing.  The standby, promoted, and the id of what it lacks.
sub widowed
{
	my ($self, $name) = @_;
	my $primary = $self->primary;
	my $standby = $self->standby($name);

	published($primary, 'before the wait') if query_value($primary, 'shop', q{SELECT outbox.emit('Probe')});
	$primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = '*'});
	$primary->reload;
	poll_until(sub { query_value($primary, 'postgres', q{SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'}) == 1 }, 60, 'synchronous');
	my $sender = query_value($primary, 'postgres', 'SELECT pid FROM pg_stat_replication');
	kill 'STOP', $sender;
	my $id = query_value($primary, 'shop', q{SET synchronous_commit = local; SELECT outbox.emit('Probe')});
	my ($relay) = worker_pids($primary, 'relay', 'shop');
	poll_until(sub { (query_value($primary, 'postgres', "SELECT wait_event FROM pg_stat_activity WHERE pid = $relay") // '') eq 'SyncRep' }, 60, 'the relay waits');
	$primary->kill9;
	poll_until(sub { !kill(0, $relay) || slurp_file("/proc/$relay/stat") =~ /\) Z / }, 60, 'the relay has left');
	kill 'KILL', $sender;
	$standby->promote;
	return ($standby, $id);
}

1;
