# Histories from seeds (History.pm) on a real server and broker, one after the
# other: sessions work, faults strike, everything is repaired, the auditor looks.
#
#	my $torture = Torture->new(name => 'torture', stage => $file);
#	my $result = $torture->history($seed);	# { findings, figures, told }
#	$torture->stop;
#
# Server and broker live on between histories; a database, a topic and with them a
# lineage belong to one.
package Torture;

use strict;
use warnings;

use Carp qw(croak);
use Carshop;
use Checker qw(audit audit_reports);
use Faults;
use History;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Proxy;
use Reader;
use Scenario;
use Test::More;
use Time::HiRes qw(time usleep);
use Tools;
use Workload;

our @ISA = ('Scenario');

use constant DRAIN_SECONDS => 120;

sub new
{
	my ($class, %arg) = @_;
	my $self = bless { points => Faults::names(), reports => 1, %arg }, $class;
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	# many processes at once, on a machine that does other things, too
	$ENV{KAFKA_START_TIMEOUT} //= 240;

	$self->{dir} = PostgreSQL::Test::Utils::tempdir_short();
	$self->{kafka} = Carshop::Kafka->start(advertise => "127.0.0.1:$port");
	$self->{proxy} = Proxy->start(
		program => Tools::program('kafka_proxy'), dir => $self->{dir},
		port => $port, broker_port => $self->{kafka}->port);

	local $ENV{CARSHOP_CONF} = $self->{stage} // $ENV{CARSHOP_CONF};
	$self->{node} = Carshop->new_node(
		$self->{name},
		kafka => $self->{kafka},
		init => { allows_streaming => 1 },
		conf => {
			'.shop_databases' => '',
			'.report_databases' => '',
			'restart_after_crash' => 'on',
			'max_prepared_transactions' => '200',
			'max_connections' => '60',
			# nothing here ends the operating system
			'fsync' => 'off',
			# a commit that need not wait for the disk is lost for long
			'wal_writer_delay' => '2s',
			'deadlock_timeout' => '200ms',
			# the sessions' errors are part of the game
			'log_min_error_statement' => 'panic'
		});
	$self->{node}->start;
	return $self;
}

# ---- one history ----

sub history
{
	my ($self, $seed) = @_;
	my $history = History->new($seed, $self->{points});
	my $begun = time();
	my @told = ($history->describe);
	my @findings;
	my $clock = sub { push @told, sprintf('%.1f s: %s', time() - $begun, $_[0]) };

	$self->{told} = \@told;
	$self->_begin($history);
	$clock->('set up');
	$self->_start_sessions($history);
	foreach my $fault (@{ $history->{faults} })
	{
		usleep($fault->{delay} * 1_000_000);
		push @told, History::describe_fault($fault);
		$self->_strike($history, $fault);
	}
	usleep(200_000);
	$clock->('repair');
	push @findings, $self->_repair($history);
	$clock->('audit');
	my ($found, $figures) = $self->_audit($history, @findings ? 1 : 0);

	push @findings, @$found;
	$figures->{seconds} = sprintf('%.1f', time() - $begun);
	return { findings => \@findings, figures => $figures, told => \@told };
}

# A database and a topic of its own, and the settings.
sub _begin
{
	my ($self, $history) = @_;
	my $node = $self->{node};
	my $database = "t$history->{seed}";
	my $former = $self->{database};
	my %settings = (
		%{ $history->{settings} },
		shop_databases => $database,
		report_databases => $database,
		topic => "torture-$history->{seed}",
		report_topics => "torture-$history->{seed}",
		topic_partitions => $history->{partitions});

	my $sql = join('', map { "ALTER SYSTEM SET carshop_outbox.$_ = '$settings{$_}';\n" } sort keys %settings);

	$self->{database} = $database;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION carshop_outbox');
	Faults::arm($node, $history->{early}, 'error') if $history->{early};
	$node->safe_psql('postgres', $sql . 'SELECT pg_reload_conf()');
	$self->_make_standby($history) if $history->{failover};
	Workload::install($node, $database, keys => $history->{keys});
	$self->_define_report($database);
	$self->_drop($former) if $former;

	# the reader needs the topic
	$node->safe_psql($database, 'SELECT shop.change(1, 1, 1)');
	$self->published(60) or croak 'the first event was not published: ' . $self->status;
	$self->{live} = Reader->start($self->reader_options('live'));
	Faults::clear($node);
	return;
}

# One that has the settings already, and has every commit that was answered.
sub _make_standby
{
	my ($self, $history) = @_;
	my $node = $self->{node};
	my $standby = PostgreSQL::Test::Cluster->new("heir$history->{seed}");

	$node->backup("for$history->{seed}");
	$standby->init_from_backup($node, "for$history->{seed}", has_streaming => 1);
	$standby->start;
	$self->{standby} = $standby;
	$node->safe_psql('postgres', $_) foreach q{ALTER SYSTEM SET synchronous_standby_names = '*'}, 'SELECT pg_reload_conf()';
	return;
}

sub _drop
{
	my ($self, $database) = @_;

	return if $self->{keep}{$database};
	$self->until(60, 'postgres', "DROP DATABASE IF EXISTS $database WITH (FORCE)", qr/^/)
	  or note("$database stays");
	unlink glob("$self->{dir}/live-$database*"), glob("$self->{dir}/committed-$database*");
	return;
}

sub reader_options
{
	my ($self, $name) = @_;
	my %options = $self->SUPER::reader_options("$name-$self->{database}");

	return (%options, topic => "torture-" . substr($self->{database}, 1));
}

sub published
{
	my ($self, $seconds) = @_;
	return $self->until($seconds, $self->{database}, "SELECT outbox.wait_published('5s')", qr/^t$/);
}

sub applied
{
	my ($self, $seconds) = @_;
	return $self->until($seconds, $self->{database}, "SELECT report.wait_applied(NULL, '5s')", qr/^t$/);
}

sub status
{
	my ($self) = @_;
	my $text = '';

	foreach my $view ('outbox.status', 'outbox.stat_relay', 'report.status', 'report.stat_reporter')
	{
		$text .= "$view:\n" . ($self->ask($self->{database}, "SELECT * FROM $view") // 'no answer') . "\n";
	}
	return $text;
}

# ---- sessions ----

sub _start_sessions
{
	my ($self, $history) = @_;

	$self->{sessions} = [ map { $self->_start_session($history, $_) } 1 .. $history->{sessions} ];
	return;
}

# A process that works until it is told to stop.
sub _start_session
{
	my ($self, $history, $session) = @_;
	my $node = $self->{node};
	my @command = ($node->installed_command('psql'), '-X', '-q', '-d', $node->connstr($self->{database}), '-f', '-');
	my $parent = $$;
	my $from = $self->{scripts}{"$history->{seed}.$session"} // 0;
	my $pid = fork() // croak "fork: $!";

	return $pid if $pid;
	my $stop = 0;

	local $SIG{TERM} = sub { $stop = 1 };
	local $ENV{PGOPTIONS} = '-c lock_timeout=300ms' . ($history->{asynchronous} && $session % 2 ? ' -c synchronous_commit=off' : '');
	local $ENV{PGCONNECT_TIMEOUT} = 5;
	open(STDOUT, '>', '/dev/null');
	open(STDERR, '>', '/dev/null');
	for (my $number = $from; !$stop && getppid() == $parent; $number++)
	{
		local $SIG{PIPE} = 'IGNORE';
		my $script = History::script($history->{seed}, $session, $number, $history->{keys});

		open(my $psql, '|-', @command) or POSIX::_exit(1);
		print $psql $script;
		close($psql);
		usleep(30_000);
	}
	POSIX::_exit(0);
}

sub _stop_sessions
{
	my ($self) = @_;
	my @pids = @{ delete $self->{sessions} // [] };

	kill 'TERM', @pids if @pids;
	waitpid($_, 0) foreach @pids;
	return;
}

# ---- faults ----

sub _strike
{
	my ($self, $history, $fault) = @_;
	my $kind = $fault->{kind};
	my $node = $self->{node};
	my $database = $self->{database};

	if ($kind eq 'point')
	{
		Faults::arm($node, $fault->{point}, $fault->{action}, $fault->{nth});
		$self->_strike($history, $fault->{provoke}) if $fault->{provoke};
		if (!Faults::struck($node, $fault->{point}, 1))
		{
			Faults::disarm($node, $fault->{point});
			push @{ $self->{told} }, "($fault->{point} was not passed so often)";
			return;
		}
		$self->{figures}{"$fault->{point} $fault->{action}"}++;
		return if $fault->{action} ne 'wait';
		$self->_strike($history, $fault->{meanwhile}) if $fault->{meanwhile};
		usleep($fault->{time} * 1_000_000);
		Faults::release($node, $fault->{point});
		return;
	}
	$self->{figures}{$kind}++;
	if ($kind =~ /^(kill|end)_(relay|reporter|session)$/)
	{
		my $who = $2 eq 'session' ? "backend_type = 'client backend' AND datname = '$database'" : "backend_type LIKE 'carshop_outbox $2%'";
		my $pid = $self->ask('postgres', "SELECT pid FROM pg_stat_activity WHERE $who AND pid <> pg_backend_pid() LIMIT 1");

		kill $1 eq 'kill' ? 'KILL' : 'TERM', $pid if $pid;
	}
	elsif ($kind eq 'stop_server' || $kind eq 'restart_server')
	{
		$node->stop($kind eq 'stop_server' ? 'immediate' : 'fast', fail_ok => 1);
		$node->start;
	}
	elsif ($kind eq 'kill_broker')
	{
		$self->{kafka}->kill9;
		usleep($fault->{time} * 1_000_000);
		$self->{kafka}->restart;
	}
	elsif ($kind eq 'freeze_broker')
	{
		my $pid = $self->{kafka}->pid;

		kill 'STOP', $pid;
		usleep($fault->{time} * 1_000_000);
		kill 'CONT', $pid;
	}
	elsif ($kind eq 'proxy')
	{
		my ($rule) = map { /^rule (\d+)/ } $self->{proxy}->command($fault->{command});

		push @{ $self->{rules} }, $rule;
		usleep($fault->{time} * 1_000_000);
		$self->{proxy}->command("release $rule") if $fault->{command} =~ /^hold/ && $fault->{time} > 0.7;
	}
	elsif ($kind eq 'cut')
	{
		$self->{proxy}->command($fault->{command});
	}
	elsif ($kind eq 'reload')
	{
		# another handle
		$self->ask('postgres', $_) foreach "ALTER SYSTEM SET carshop_outbox.compression = 'gzip'", 'SELECT pg_reload_conf()';
	}
	elsif ($kind eq 'pause')
	{
		$self->ask($database, 'SELECT outbox.pause()');
		usleep($fault->{time} * 1_000_000);
		$self->ask($database, 'SELECT outbox.resume()');
	}
	elsif ($kind eq 'switch')
	{
		$self->ask($database, 'SELECT outbox.switch_segment()');
	}
	elsif ($kind eq 'failover')
	{
		$self->_fail_over($history, $fault);
	}
	else
	{
		croak "no such fault: $kind";
	}
	return;
}

# The standby takes over, which has every commit that was answered.  A zombie: the
# former relay comes to itself afterwards.
sub _fail_over
{
	my ($self, $history, $fault) = @_;
	my $former = $self->{node};
	my $heir = delete $self->{standby} or croak 'there is no standby';
	my $relay = $fault->{zombie} ? $self->ask('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'carshop_outbox relay%'") : undef;

	kill 'STOP', $relay if $relay;
	$self->_stop_sessions;
	Faults::clear($former);
	$former->stop('immediate', fail_ok => 1) if !$relay;
	Faults::arm($heir, $fault->{point}, $fault->{action}) if $fault->{point};
	$heir->promote;
	$self->{node} = $heir;
	$self->until(60, 'postgres', 'SELECT pg_is_in_recovery()', qr/^f$/) or croak 'the heir did not take over';
	# its sessions go on with what they have not done
	$self->{scripts}{"$history->{seed}.$_"} = 50_000 foreach 1 .. $history->{sessions};
	$self->_start_sessions($history);
	if ($relay)
	{
		usleep($fault->{delay} * 2_000_000);
		kill 'CONT', $relay;
		usleep(800_000);
		$former->stop('immediate', fail_ok => 1);
	}
	$former->clean_node;
	return;
}

# ---- the end ----

# Nothing is broken any more; what does not drain then is a finding.
sub _repair
{
	my ($self, $history) = @_;
	my $node = $self->{node};
	my $database = $self->{database};
	my $begun = time();

	$self->_stop_sessions;
	Faults::clear($node);
	$self->{proxy}->command('clear');
	$self->{proxy}->command('resume');
	foreach my $rule (splice @{ $self->{rules} // [] })
	{
		eval { $self->{proxy}->command("release $rule") };
	}
	if ($history->{failover} && $self->{standby})
	{
		(delete $self->{standby})->stop('immediate');
	}
	$self->until(60, 'postgres', 'SELECT 1', qr/1/) or croak 'the server does not answer';
	$self->until(30, 'postgres', "ALTER SYSTEM RESET $_", qr/^/) foreach 'carshop_outbox.compression', 'synchronous_standby_names';
	$self->until(30, 'postgres', 'SELECT pg_reload_conf()', qr/^t/);

	# those that nobody has decided about
	my $prepared = $self->ask($database, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid') // '';
	my $number = 0;
	foreach my $gid (split /\n/, $prepared)
	{
		my $how = ($history->{seed} + ++$number) % 3 ? 'COMMIT' : 'ROLLBACK';

		$self->until(30, $database, "$how PREPARED '$gid'", qr/^/);
	}
	$self->until(30, $database, 'SELECT outbox.resume()', qr/^/);

	return 'stuck: not published in time' . "\n" . $self->status if !$self->published(DRAIN_SECONDS);
	return 'stuck: not applied in time' . "\n" . $self->status if !$self->applied(DRAIN_SECONDS);
	push @{ $self->{told} }, sprintf('drained in %.1f s', time() - $begun);

	# and nothing is said to be wrong, or put aside
	my $complaint = q{SELECT concern || ': ' || message FROM outbox.status WHERE level = 'fail'
		UNION ALL SELECT concern || ': ' || message FROM report.status WHERE level = 'fail'
		UNION ALL SELECT 'dead letter: ' || reason FROM outbox.dead_letters};
	return 'status: ' . ($self->ask($database, $complaint) // '') if !$self->until(20, $database, $complaint, qr/^$/);
	return;
}

sub _audit
{
	my ($self, $history, $stuck) = @_;
	my $node = $self->{node};
	my $database = $self->{database};
	my $log = eval { Reader->read_all($self->reader_options('committed')) };

	return ([ $stuck ? () : "stuck: $@" ], {}) if !$log;
	$self->{live}->wait_for('M', $log->count('M'), 30);
	$self->{live}->stop;
	my ($found, $figures) = audit(
		truth => Workload::truth($node, $database),
		log => $log,
		live => $self->{live},
		# what is too much for the broker at once is cut
		whole => $history->{hasty_broker} ? 0 : $history->{settings}{max_transaction_events});
	my @findings = @$found;

	push @findings, @{ audit_reports(
			events => [ split /\n/, $node->safe_psql($database, 'SELECT id, partition, kafka_offset FROM report.reported_events') ],
			offsets => [ split /\n/, $node->safe_psql($database, 'SELECT partition, next_offset FROM report.progress') ],
			log => $log,
			sums => [ split /\n/, $node->safe_psql($database, $Scenario::report_sums) ],
			direct => [ split /\n/, $node->safe_psql($database, $Scenario::direct_sums) ]) }
	  if !$stuck && !@findings;
	$self->{keep}{$database} = 1 if $stuck || @findings;
	return (\@findings, $figures);
}

1;
