# A shop under faults: workload, strikes, repair, audit.
#
#	my $scenario = Scenario->new(name => 'storm', proxy => 1);
#	my $result = $scenario->storm(relay => 10, server => 5, broker => 5, events => 200_000);
#	is_deeply($result->{findings}, []);
#
# A scenario only reports; what it finds is judged by its caller: the tests of
# the extension want no finding, the tests of the tests (mutants) want some.
# Everything random comes from one seed, which is printed.

package Scenario;

use strict;
use warnings;

use Carp qw(croak);
use Carshop;
use Checker qw(audit audit_reports);
use IPC::Run ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Proxy;
use Reader;
use Test::More;
use Time::HiRes qw(time usleep);
use Tools;
use Workload;

use constant TOPIC => 'car-shop-reported-events';

# The report of the storms: sums over the events, to be compared with sums over
# the truth.  The text form of both rows is the same.
our $report_sums = 'SELECT key, changes, versions, latest FROM public.stock_sums ORDER BY key';
our $direct_sums = 'SELECT key, count(*), sum(version), max(version) FROM shop.truth GROUP BY key ORDER BY key';

# new(name => text, stage => file, proxy => bool, distance => ms, reports => bool, partitions => n,
#	  keys => n, conf => {name => value}, seed => n, cluster => {option => value})
# stage: settings that make the server load another build (a mutant's).
# distance: of Kafka from the server, one way; only with the proxy.
# cluster: options of Carshop::Kafka for several brokers.
sub new
{
	my ($class, %arg) = @_;
	my $self = bless { reports => 1, partitions => 2, %arg }, $class;

	$self->{dir} = PostgreSQL::Test::Utils::tempdir_short();
	$self->{seed} //= $ENV{CARSHOP_TEST_SEED} // int(time() * 1000) % 1_000_000;
	note("$self->{name}: CARSHOP_TEST_SEED=$self->{seed}");
	srand($self->{seed});

	if ($self->{proxy})
	{
		my $port = PostgreSQL::Test::Cluster::get_free_port();

		$self->{kafka} = Carshop::Kafka->start(advertise => "127.0.0.1:$port");
		$self->{proxy} = Proxy->start(
			program => Tools::program('kafka_proxy'),
			dir => $self->{dir},
			port => $port,
			broker_port => $self->{kafka}->port);
		$self->{proxy}->command("delay ms=$self->{distance} client=carshop_outbox") if $self->{distance};
	}
	else
	{
		$self->{kafka} = Carshop::Kafka->start(%{ $self->{cluster} // {} });
	}
	$self->_start_server;
	return $self;
}

# The database "shop" has the relay, the database "report" the reporter.
sub _start_server
{
	my ($self) = @_;
	local $ENV{CARSHOP_CONF} = $self->{stage} // $ENV{CARSHOP_CONF};
	my $node = $self->{node} = Carshop->new_node(
		$self->{name},
		kafka => $self->{kafka},
		conf => {
			'.report_databases' => $self->{reports} ? 'report' : '',
			'.topic_partitions' => $self->{partitions},
			'restart_after_crash' => 'on',
			%{ $self->{conf} // {} }
		});

	$node->start;
	foreach my $database ('shop', $self->{reports} ? 'report' : ())
	{
		$node->safe_psql('postgres', "CREATE DATABASE $database");
		$node->safe_psql($database, 'CREATE EXTENSION carshop_outbox');
	}
	Workload::install($node, 'shop', keys => $self->{keys} // Workload::KEYS);
	$self->_define_report('report') if $self->{reports};

	# The first events make the topic, which the reader needs.
	$self->work(events => 20);
	$self->published(60) or croak 'the first events were not published: ' . $self->status;
	$self->{live} = Reader->start($self->reader_options('live'));
	return;
}

# What a Reader of the topic needs to know.
sub reader_options
{
	my ($self, $name) = @_;
	return (
		program => Tools::program('reader'),
		brokers => $self->{kafka}->bootstrap,
		topic => TOPIC,
		file => "$self->{dir}/$name");
}

sub _define_report
{
	my ($self, $database) = @_;

	$self->{node}->safe_psql($database, q{
		CREATE TABLE public.stock_sums (key integer PRIMARY KEY, changes bigint, versions bigint, latest integer);
		SELECT report.define('stock_sums', $$
			INSERT INTO public.stock_sums AS old
			SELECT (data->>'key')::integer, count(*), sum((data->>'version')::integer),
				max((data->>'version')::integer)
			FROM new_events WHERE event_type = 'StockChanged' GROUP BY 1
			ON CONFLICT (key) DO UPDATE SET changes = old.changes + excluded.changes,
				versions = old.versions + excluded.versions,
				latest = greatest(old.latest, excluded.latest)
			$$, 'public.stock_sums')});
	return;
}

sub node { return $_[0]->{node}; }
sub proxy { return $_[0]->{proxy}; }
sub kafka { return $_[0]->{kafka}; }
sub live { return $_[0]->{live}; }

# ---- asking a server that may be restarting ----

# The answer, or nothing when there is none now.  Not by the node's own psql():
# that writes to the standard input, which may be closed before it is read.
sub ask
{
	my ($self, $database, $query) = @_;
	my ($answer, $error);
	my @command = (
		$self->{node}->installed_command('psql'),
		'-XAtq', '-d', $self->{node}->connstr($database), '-v', 'ON_ERROR_STOP=1', '-c', $query);

	return
	  if !eval {
		IPC::Run::run(\@command, '<', \undef, '>', \$answer, '2>', \$error, IPC::Run::timeout(60));
	  };
	chomp $answer;
	return $answer;
}

# Ask again until the answer is as wanted, at most so many seconds.
sub until
{
	my ($self, $seconds, $database, $query, $wanted) = @_;
	my $deadline = time() + $seconds;

	while (1)
	{
		my $answer = $self->ask($database, $query);
		return 1 if defined $answer && $answer =~ $wanted;
		return 0 if time() > $deadline;
		usleep(30_000);
	}
}

# The status views, for messages about what went wrong.
sub status
{
	my ($self) = @_;
	my $text = '';

	foreach my $query ([ 'shop', 'outbox.status' ], [ 'shop', 'outbox.stat_relay' ],
		$self->{reports} ? ([ 'report', 'report.status' ], [ 'report', 'report.stat_reporter' ]) : ())
	{
		my $rows = $self->ask($query->[0], "SELECT * FROM $query->[1]") // 'no answer';
		$text .= "$query->[1]:\n$rows\n";
	}
	return $text;
}

# Wait until there is a living worker of the kind.
sub worker
{
	my ($self, $kind) = @_;
	my $deadline = time() + 60;

	while (time() < $deadline)
	{
		my $pid = $self->ask('postgres',
			"SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'carshop_outbox $kind%'");
		return $pid if $pid && kill(0, $pid);
		usleep(20_000);
	}
	croak "no $kind is running: " . $self->status;
}

# ---- work and repair ----

sub work
{
	my ($self, %arg) = @_;
	Workload::work($self->{node}, 'shop', seed => $self->{seed} + 1000 * ++$self->{works}, %arg);
	return;
}

# Everything that was committed before the call is in Kafka, the server says.
sub published
{
	my ($self, $seconds) = @_;
	return $self->until($seconds, 'shop', "SELECT outbox.wait_published('5s')", qr/^t$/);
}

sub applied
{
	my ($self, $seconds) = @_;
	return 1 if !$self->{reports};
	return $self->until($seconds, 'report', "SELECT report.wait_applied(NULL, '5s')", qr/^t$/);
}

# ---- strikes ----

# Let a backlog gather behind a worker, then let go of it.  By the extension's
# own switches: a worker under SIGSTOP may stand in the queue of one of
# PostgreSQL's locks, and then the whole server waits for it.
sub backlog
{
	my ($self, $kind, $events) = @_;

	if ($kind eq 'relay')
	{
		$self->until(60, 'shop', 'SELECT outbox.pause()', qr/^/) or croak 'could not pause';
		$self->until(60, 'shop', 'SELECT state FROM outbox.stat_relay', qr/^paused$/)
		  or croak 'the relay does not pause';
		$self->work(events => $events);
		$self->until(60, 'shop', 'SELECT outbox.resume()', qr/^/) or croak 'could not resume';
	}
	else
	{
		$self->until(60, 'report', 'SELECT report.stop()', qr/^/) or croak 'could not stop';
		$self->work(events => $events);
		$self->until(60, 'shop', "SELECT outbox.wait_published('30s')", qr/^t$/);
		$self->until(60, 'report', 'SELECT report.start()', qr/^/) or croak 'could not start';
	}
	return $self->worker($kind);
}

sub strike
{
	my ($self, $kind) = @_;
	my $node = $self->{node};

	if ($kind eq 'relay' || $kind eq 'reporter')
	{
		my $pid = $self->worker($kind);
		kill 'KILL', $pid;
		# PostgreSQL ends every session and recovers
		usleep(5_000) while kill(0, $pid);
		$self->until(60, 'postgres', 'SELECT 1', qr/1/) or croak 'the server did not come back';
	}
	elsif ($kind eq 'server')
	{
		$node->stop('immediate');
		$node->start;
	}
	elsif ($kind eq 'broker')
	{
		$self->{kafka}->kill9;
		usleep(rand(1_000_000));
		$self->{kafka}->restart;
	}
	else
	{
		croak "no such strike: $kind";
	}
	return;
}

# storm(relay => n, reporter => n, server => n, broker => n, events => per drain,
#		window => seconds, settle => seconds)
# So many strikes in random order, two per drain, each at a random moment (within
# the window after its begin, or after the first strike), while two sessions work all along, one of them without waiting for its commits.
sub storm
{
	my ($self, %arg) = @_;
	my @kinds = grep { $_ ne 'reporter' || $self->{reports} } qw(relay reporter server broker);
	my @strikes = shuffle(map { ($_) x ($arg{$_} // 0) } @kinds);
	my $begun = time();
	my @writers = map {
		Workload->start($self->{node}, 'shop', seed => $self->{seed} - 100_000 * $_,
			most => 8, chunk => 20, pause => 0.02, asynchronous => $_ == 2)
	} 1, 2;

	foreach my $number (1 .. @strikes)
	{
		my $kind = $strikes[ $number - 1 ];
		# strikes on the server and the broker hit both workers in turn
		my $drain = $kind eq 'reporter' || ($kind ne 'relay' && $self->{reports} && $number % 4 > 1)
		  ? 'reporter' : 'relay';
		my $delay = rand($arg{window} // 0.5);

		if ($number % 2)
		{
			$self->backlog($drain, $arg{events});
		}
		else
		{
			$self->worker($_) foreach 'relay', $self->{reports} ? 'reporter' : ();
		}
		usleep($delay * 1_000_000);
		note(sprintf('%.1f s: strike %d of %d: %s, %.0f ms into the %s of the %s',
			time() - $begun, $number, scalar @strikes, $kind, $delay * 1000,
			$number % 2 ? 'drain' : 'new start', $drain));
		$self->strike($kind);
	}
	$_->stop foreach @writers;
	return $self->settle($arg{settle} // 120);
}

# An EndTxn that is under way while its relay dies and the next one starts: it is
# held back until the new relay asks for its producer id, which is held back in
# its turn until the old transaction is committed.  Whoever has read the progress
# before that must read it again.  Needs the proxy.
sub late_commit
{
	my ($self, %arg) = @_;
	my $proxy = $self->{proxy} or croak 'late_commit needs the proxy';

	$self->published(60);
	$self->worker('relay');
	foreach my $round (1 .. $arg{rounds} // 1)
	{
		my $from = $proxy->log_position;

		$proxy->command('clear');
		my ($end) = $proxy->command('hold-request api=26 producer=1');
		my $pid = $self->worker('relay');
		$self->work(events => 60, sessions => 1);
		$proxy->wait_for_log(qr/request held back api=26/, $from) or croak 'no EndTxn came';
		my ($init) = $proxy->command('hold-request api=22');
		kill 'KILL', $pid;
		# a relay that waits for the open transaction never asks: let it be
		$proxy->wait_for_log(qr/request held back api=22/, $from, $arg{patience} // 20)
		  or note('the new relay has not asked for its producer id yet');
		$proxy->command("release $1") if $end =~ /^rule (\d+)/;
		$proxy->wait_for_log(qr/late answer from the broker: api=26/, $from);
		usleep(300_000);		# the markers are written after the answer
		$proxy->command("release $1") if $init =~ /^rule (\d+)/;
		$proxy->command('clear');
		$self->until(60, 'postgres', 'SELECT 1', qr/1/);
	}
	return $self->settle($arg{settle} // 60);
}

# An EndTxn that reaches the broker in the middle of a later transaction, long
# after its own one was committed by librdkafka's second try: it is held back
# until the next transaction has written a part of its events.  Needs the proxy.
# Returns the broker's answer to it, 0 if it was taken for the later one's.
sub late_end
{
	my ($self) = @_;
	my $proxy = $self->{proxy} or croak 'late_end needs the proxy';
	my $from = $proxy->log_position;

	$self->published(60);
	$proxy->command('clear');
	my ($end) = $proxy->command('hold-request api=26 producer=1 detach=1');
	$self->work(events => 60, sessions => 1);
	$proxy->wait_for_log(qr/closed, request delivered later api=26/, $from) or croak 'no EndTxn came';
	$self->published(60) or croak 'the second try did not succeed: ' . $self->status;

	my ($produce) = $proxy->command('hold-request api=0 producer=1 skip=1');
	$self->work(events => 60, sessions => 1);
	$proxy->wait_for_log(qr/request held back api=0/, $from) or croak 'no second Produce came';
	usleep(200_000);			# the first one is written by now
	$proxy->command("release $1") if $end =~ /^rule (\d+)/;
	$proxy->wait_for_log(qr/late answer from the broker: api=26/, $from) or croak 'no answer came';
	usleep(300_000);			# the markers are written after the answer
	$proxy->command("release $1") if $produce =~ /^rule (\d+)/;
	$proxy->command('clear');
	my ($error) = substr($proxy->log_contents, $from) =~ /late answer .* error=(-?\d+)/;
	return $error;
}

# Everything is repaired: wait until all is published and applied, then audit.
# go_on: the reader that reads all along does so beyond this.
# Returns { findings => [text, ...], figures => {name => number, ...} }.
sub settle
{
	my ($self, $seconds, %arg) = @_;
	my @findings;
	my $begun = time();

	$self->until(60, 'postgres', 'SELECT 1', qr/1/) or croak 'the server does not answer';
	push @findings, "stuck: not published after $seconds s\n" . $self->status
	  if !$self->published($seconds);
	push @findings, "stuck: not applied after $seconds s\n" . $self->status
	  if !@findings && !$self->applied($seconds);
	my $drained = time() - $begun;

	my $log = eval { Reader->read_all($self->reader_options('committed')) };
	return { findings => [ @findings, "stuck: $@" ], figures => {} } if !$log;
	my $uncommitted =
	  Reader->read_all($self->reader_options('uncommitted'), isolation => 'read_uncommitted');
	my $visible = $log->count('M');
	$self->{live}->wait_for('M', $visible, 30);
	$self->{live}->stop if !$arg{go_on};

	my ($found, $figures) = audit(
		truth => Workload::truth($self->{node}, 'shop'), log => $log, live => $self->{live});
	push @findings, @$found;
	push @findings, @{ $self->_audit_reports($log) } if $self->{reports} && !@findings;

	# how much was under way when something struck: what read_committed hides
	$figures->{aborted_events} = $uncommitted->count('M') - $visible;
	$figures->{drained_s} = sprintf('%.1f', $drained);
	note("$self->{name}: " . join(', ', map { "$_ $figures->{$_}" } sort keys %$figures));
	return { findings => \@findings, figures => $figures };
}

sub _audit_reports
{
	my ($self, $log) = @_;
	my $node = $self->{node};

	return audit_reports(
		events => [ split /\n/, $node->safe_psql('report', 'SELECT id, partition, kafka_offset FROM report.reported_events') ],
		offsets => [ split /\n/, $node->safe_psql('report', 'SELECT partition, next_offset FROM report.progress') ],
		log => $log,
		sums => [ split /\n/, $node->safe_psql('report', $report_sums) ],
		direct => [ split /\n/, $node->safe_psql('shop', $direct_sums) ]);
}

# One TAP test about a result.
sub exactly_once_ok
{
	my ($result, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = is(scalar @{ $result->{findings} }, 0, $name);
	diag(join("\n", @{ $result->{findings} })) if !$ok;
	return $ok;
}

# End what was started.
sub stop
{
	my ($self) = @_;
	$self->{live}->stop if $self->{live};
	if ($self->{node})
	{
		$self->{node}->stop('fast', fail_ok => 1);
		Carshop::no_crash($self->{node});
	}
	$self->{kafka}->kill9 if $self->{kafka};
	$self->{proxy}->stop if $self->{proxy};
	return;
}

1;
