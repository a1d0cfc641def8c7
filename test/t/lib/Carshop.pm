# What the TAP tests share: servers that load the build under test, the car
# shop's tables, the workers, and waiting for conditions.
#
#	use Carshop;
#	my $kafka = Carshop::Kafka->start;
#	my $node = Carshop->new_node('main', kafka => $kafka);
#	$node->start;
#	create_shop($node, 'shop');
#	poll_until(sub { … }, 30, 'the event is in the topic');
#
# test/run must have made the staging folder: run tests with
# `test/run test/t/NAME.pl`.

package Carshop;

use strict;
use warnings;

use Carp qw(croak);
use Carshop::Kafka;
use Exporter 'import';
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(poll_until create_car_shop_tables create_shop worker_pids
  wait_for_worker kill9_worker query_value all_applied no_crash start_killed);

# A test that is told to end must still stop what it started: without these
# the END blocks are skipped.
$SIG{TERM} = $SIG{INT} = sub { die "ended by a signal\n" };

# A server with the extension preloaded, initialised but not started.
#   kafka  a Carshop::Kafka; without it, brokers is a port where nobody listens
#   conf   further settings; the names of ours may leave the prefix away when
#          written as '.shop_databases'
#   init   hash of further parameters for PostgreSQL::Test::Cluster::init
# By default the database "shop" has both a relay and a reporter.
sub new_node
{
	my ($class, $name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my %conf = (
		# A crash must be able to lose what is not on the disk.
		'fsync' => 'on',
		'synchronous_commit' => 'on',
		'log_statement' => 'none',
		'log_line_prefix' => '%m [%p] %b %d ',
		'max_prepared_transactions' => '20',
		'timezone' => 'UTC',
		'.brokers' => $options{kafka} ? $options{kafka}->bootstrap : '127.0.0.1:1',
		'.shop_databases' => 'shop',
		'.report_databases' => 'shop',
		%{ $options{conf} // {} });

	croak 'CARSHOP_CONF is not set: use test/run' unless $ENV{CARSHOP_CONF};
	$node->init(extra => [ '--locale=C.UTF-8', '-E', 'UTF8' ], %{ $options{init} // {} });
	$node->append_conf('postgresql.conf', slurp_file($ENV{CARSHOP_CONF}));
	foreach my $setting (sort keys %conf)
	{
		my $value = $conf{$setting};

		$value =~ s/'/''/g;
		$setting = "carshop_outbox$setting" if $setting =~ /^\./;
		$node->append_conf('postgresql.conf', "$setting = '$value'");
	}
	return $node;
}

# Calls the sub until it returns something true, and returns that.  Dies after
# $timeout seconds (60), naming what was waited for.  CARSHOP_TEST_PATIENCE: so many
# times as long, for a server under valgrind.
sub poll_until
{
	my ($condition, $timeout, $what) = @_;
	my $deadline = time + ($timeout // 60) * ($ENV{CARSHOP_TEST_PATIENCE} // 1);

	while (1)
	{
		my $value = $condition->();

		return $value if $value;
		croak 'waited in vain: ' . ($what // 'a condition') if time > $deadline;
		sleep 0.02;
	}
}

# The one value of a query; undef for null or no row at all.
sub query_value
{
	my ($node, $db, $sql) = @_;
	my $value = $node->safe_psql($db, $sql);

	return $value eq '' ? undef : $value;
}

# Waits until all that is in the topics stands in the reports of a database.
sub all_applied
{
	my ($node, $db) = @_;

	return poll_until(sub { return ($node->psql($db, q(SELECT report.wait_applied(timeout => '5s'))))[1] eq 't' }, 120, 'all is applied');
}

# The car shop's tables exactly as its ORM makes them.
sub create_car_shop_tables
{
	my ($node, $db) = @_;

	$node->safe_psql($db, slurp_file("$FindBin::RealBin/../../demo/car_shop.sql"));
}

# A database with the extension, the tables, their routes and the reports.
sub create_shop
{
	my ($node, $db, %options) = @_;

	$node->safe_psql('postgres', qq(CREATE DATABASE "$db"))
	  unless query_value($node, 'postgres', "SELECT 1 FROM pg_database WHERE datname = '$db'");
	create_car_shop_tables($node, $db);
	$node->safe_psql($db, 'CREATE EXTENSION carshop_outbox');
	$node->safe_psql($db, 'SELECT outbox.capture_car_shop()');
	$node->safe_psql($db, 'SELECT report.create_car_shop()') if $options{reports} // 1;
}

# The pids of the workers of a kind (launcher, relay, reporter), of one
# database or of all.
sub worker_pids
{
	my ($node, $kind, $db) = @_;
	my $sql = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'carshop_outbox $kind%'";

	$sql .= " AND datname = '$db'" if defined $db;
	return split /\n/, $node->safe_psql('postgres', $sql);
}

# Waits until the worker runs (and is another than $not, if given); its pid.
sub wait_for_worker
{
	my ($node, $kind, $db, $not) = @_;

	return poll_until(
		sub {
			my ($pid) = worker_pids($node, $kind, $db);
			return $pid && $pid != ($not // 0) ? $pid : undef;
		},
		30, "a $kind runs");
}

# No process of the server ended by a fault of its own (kill -9 is the tests').
sub no_crash
{
	my ($node) = @_;
	my @log = split /\n/, slurp_file($node->logfile);
	my @crashes = grep { $log[$_] =~ /PANIC|terminated by signal (?!9\b)/ } 0 .. $#log;

	# What a library said on the standard error before it gave up stands shortly before.
	is_deeply([ @log[@crashes] ], [], $node->name . ': nothing crashed')
	  or diag(map { "... $_\n" } map { @log[ ($_ > 15 ? $_ - 15 : 0) .. $_ ] } @crashes);
}

# Start a server that was ended by kill9.  Who should take note of the former
# process may do so late (a container's first process, for one): until then
# PostgreSQL would think it alive.
sub start_killed
{
	my ($node) = @_;
	my $file = $node->data_dir . '/postmaster.pid';
	my ($pid) = -e $file ? slurp_file($file) =~ /\A(\d+)$/m : ();

	poll_until(sub { !kill 0, $pid }, 120, 'the killed server is taken note of') if $pid;
	return $node->start;
}

# kill -9, as the operating system's out-of-memory killer does it.  Note that
# the postmaster then restarts every process, where the node allows it
# (restart_after_crash, which PostgreSQL::Test turns off).
sub kill9_worker
{
	my ($node, $kind, $db) = @_;
	my ($pid) = worker_pids($node, $kind, $db);

	croak "no $kind to kill" unless $pid;
	kill 'KILL', $pid;
	return $pid;
}

1;
