# The rights that relay and reporter need in Kafka (README, "Securing the
# connection"), against the broker's StandardAuthorizer: with exactly these all
# goes well; each that is taken away is named by the status, and when it is given
# back the work goes on by itself, with nothing lost and nothing doubled.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Carshop::Acls;
use Carshop::Secure;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my %password = (shop => 'geheim-1', desk => 'geheim-2');
my $secure = Carshop::Secure->new;
my $kafka = $secure->start_kafka(users => \%password, set => [
	'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer', 'super.users=User:ANONYMOUS' ]);
my $acls = Carshop::Acls->new($kafka);
my $node = Carshop->new_node('acls', kafka => $kafka, conf => { '.report_databases' => 'desk', '.group_id' => 'desk-group' });
my $sold = 0;

# Publishing and reading are two users: the setting is of the database.
foreach my $user (sort keys %password)
{
	$secure->put($user, join "\n", 'bootstrap.servers=' . $kafka->bootstrap('SASL'), 'security.protocol=sasl_ssl',
		'ssl.ca.location=' . $secure->path('ca.pem'), 'sasl.mechanism=PLAIN', "sasl.username=$user", "sasl.password=$password{$user}", '');
}

# README's table (DescribeConfigs on a topic is not needed: "other" is without); the
# progress topic's name is also the transactional id.
my @relay = (
	[ 'topic', $topic, 'Write' ], [ 'topic', $topic, 'Create' ],
	[ 'topic', 'other', 'Write' ], [ 'topic', 'other', 'Create' ],
	[ 'topic', 'carshop-outbox-progress-*', 'Write' ], [ 'topic', 'carshop-outbox-progress-*', 'Read' ],
	[ 'topic', 'carshop-outbox-progress-*', 'Create' ],
	[ 'transactional_id', 'carshop-outbox-progress-*', 'Write' ],
	[ 'topic', $topic, 'DescribeConfigs' ],
	[ 'cluster', 'kafka-cluster', 'DescribeConfigs' ]);
my @reporter = ([ 'topic', $topic, 'Read' ], [ 'group', 'desk-group', 'Read' ]);

$acls->grant('shop', @$_) foreach @relay;
$acls->grant('desk', @$_) foreach @reporter;

$node->start;
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach 'shop', 'desk';
$node->safe_psql('postgres', sprintf "ALTER DATABASE %s SET carshop_outbox.kafka_config_file = '%s'", @$_)
  foreach [ 'shop', $secure->path('shop') ], [ 'desk', $secure->path('desk') ];
create_shop($node, 'shop', reports => 0);
$node->safe_psql('desk', 'CREATE EXTENSION carshop_outbox; SELECT report.create_car_shop()');

sub sell { $node->safe_psql('shop', sprintf q{INSERT INTO "Cars" VALUES (%d, NULL)}, ++$sold); }

sub complaints
{
	my ($db, $schema) = @_;

	return $node->safe_psql($db, "SELECT level, message, remedy FROM $schema.status WHERE concern IN ('kafka', 'divergence', 'dead letters') AND level <> 'ok'");
}

sub works
{
	my ($what) = @_;
	my $said;

	sell();
	poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, "$what: published");
	poll_until(sub { query_value($node, 'desk', q{SELECT count(*) FROM report.cars}) == $sold }, 60, "$what: reported");
	poll_until(sub { ($said = complaints('shop', 'outbox') . complaints('desk', 'report')) eq '' }, 60, "$what: nothing is wrong");
	is($said, '', "$what: published and reported, and nothing is wrong");
}

# A new process reads progress anew, and asks the cluster.
sub restart_worker
{
	my ($kind, $db) = @_;
	my ($pid) = worker_pids($node, $kind, $db);

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_for_worker($node, $kind, $db, $pid);
}

# Without the right: the status of that database says so.
sub without
{
	my ($user, $acl, $pattern, $remedy, $cause, %options) = @_;
	my ($schema, $worker) = $user eq 'shop' ? ('outbox', 'relay') : ('report', 'reporter');
	my $what = "without $acl->[2] on $acl->[0] $acl->[1]";
	my $from = -s $node->logfile;
	my $row = '';

	$acls->revoke($user, @$acl);
	# The broker hears of it a moment later: what came through is followed by more.
	my $next = 0;
	eval { poll_until(sub {
		if (time >= $next)
		{
			$cause->();
			$next = time + 2;
		}
		($row = complaints($user, $schema)) =~ /$pattern.*$remedy/s;
	}, 40, $what) };
	like($row, qr/$pattern.*$remedy/s, "$what: $schema.status");
	my @logged;
	# Nor does anybody say meanwhile that it is over.
	if ($options{lasting})
	{
		is(scalar(grep { complaints($user, $schema) !~ $pattern } 1 .. 50), 0, "$what: the status says the same each time");
	}
	poll_until(sub { @logged = grep { /(WARNING:|is over).*\b\Q$worker\E|\b\Q$worker\E.*is over/ } split /\n/, substr(slurp_file($node->logfile), $from) }, 30, "$what: logged");
	is(scalar @logged, 1, "$what: logged once") or diag(map { "$_\n" } @logged);
	$acls->grant($user, @$acl);
	works("$acl->[2] on $acl->[0] $acl->[1] again");
}

works('with the rights of the table');
poll_until(sub { $kafka->tool('org.apache.kafka.tools.consumer.group.ConsumerGroupCommand', '--describe', '--group', 'desk-group') =~ /$topic/ }, 30,
	'offsets are shown');

# ---- the relay ----

my $again = sub { restart_worker('relay', 'shop'); sell(); };

without('shop', [ 'topic', $topic, 'Write' ], qr/$topic.*authorization/i, qr/Write/, \&sell);
without('shop', [ 'topic', 'carshop-outbox-progress-*', 'Write' ], qr/carshop-outbox-progress.*authorization/i, qr/Write/, \&sell);
without('shop', [ 'topic', 'carshop-outbox-progress-*', 'Read' ], qr/carshop-outbox-progress.*authorization/i, qr/Read.*progress topic/, $again);
without('shop', [ 'transactional_id', 'carshop-outbox-progress-*', 'Write' ], qr/Transactional Id authorization failed/i, qr/Write and Describe on the transactional id/, $again);
$node->safe_psql('shop', q{SELECT outbox.capture('"Customers"', 'Elsewhere', topic => 'other')});
without('shop', [ 'topic', 'other', 'Create' ], qr/other.*authorization/i, qr/Create/,
	sub { $node->safe_psql('shop', q{INSERT INTO "Customers" SELECT 'Customer ' || count(*) FROM "Customers"}); });
is(scalar($kafka->read_topic('other')), query_value($node, 'shop', 'SELECT count(*) FROM "Customers"'), 'its events are there');

# Without this one publishing goes on, and says what it does not know.
my @ask = ('cluster', 'kafka-cluster', 'DescribeConfigs');
$acls->revoke('shop', @ask);
$again->();
poll_until(sub { complaints('shop', 'outbox') =~ /^warn\|The broker's settings may not be read.*DescribeConfigs on the cluster/ }, 30, 'the warning');
is(query_value($node, 'shop', q{SELECT outbox.wait_published('60s')}), 't', 'without DescribeConfigs on the cluster: a warning, and it publishes');
$acls->grant('shop', @ask);
$node->reload;
$again->();
works('DescribeConfigs on the cluster again');

$node->safe_psql('postgres', q{ALTER SYSTEM SET carshop_outbox.delivery = 'at_least_once'});
$node->reload;
works('at least once, without IdempotentWrite on the cluster');
$node->safe_psql('postgres', q{ALTER SYSTEM RESET carshop_outbox.delivery});
$node->reload;
works('exactly once');

# ---- the reporter ----

my $read = sub { restart_worker('reporter', 'desk'); sell(); };

without('desk', [ 'topic', $topic, 'Read' ], qr/$topic.*authorization/i, qr/Read/, \&sell);
$acls->grant('desk', 'topic', $topic, 'Describe');
without('desk', [ 'topic', $topic, 'Read' ], qr/$topic.*authorization/i, qr/Read/, $read, lasting => 1);
without('desk', [ 'group', 'desk-group', 'Read' ], qr/desk-group.*authorization/i, qr/Read and Describe on the consumer group/, \&sell);

# ---- nothing lost, nothing doubled ----

my @keys = map { $_->{key} } grep { $_->{value} =~ /CarAdded/ } $kafka->read_topic($topic);
is_deeply(\@keys, [ 1 .. $sold ], 'every event once, and in order');
is(query_value($node, 'desk', 'SELECT sum(duplicates) FROM report.stat_reporter'), 0, 'the reporter has met none twice');
no_crash($node);
$node->stop;
done_testing();
