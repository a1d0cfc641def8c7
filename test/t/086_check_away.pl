# outbox.check() where Kafka is away, or brokers cannot be reached under the names that
# they advertise, or the server has no room for a process: it says so, is bounded in
# time, can be cancelled, and leaves no process behind.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Carshop::Check;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = Carshop->new_node('away', conf => { '.shop_databases' => '', '.report_databases' => '' });

$node->start;
check_node($node);
create_shop($node, 'shop', reports => 0);

# ---- Kafka away; time and cancel ----

# The processes that look: they are in no database, and so not in pg_stat_activity.
sub checkers
{
	my $postmaster = $node->{_pid};
	my $n = 0;

	foreach my $dir (glob '/proc/[0-9]*')
	{
		my $stat = eval { slurp_file("$dir/stat") } // next;
		my $title = eval { slurp_file("$dir/cmdline") } // next;

		$n++ if $stat =~ /\) \S $postmaster / && $title =~ /carshop_outbox check/;
	}
	return $n;
}

set('brokers', 'no-such-host.invalid:9092');
my $row = row('no such host', 'kafka', 'fail', qr/no-such-host.invalid.*resolve/i, check('outbox', timeout => '5s'));
like($row->{remedy}, qr/name resolution/, 'the remedy is about names');
set('brokers', '127.0.0.1:1');
my $started = time;
$row = row('nobody listens', 'kafka', 'fail', qr/127.0.0.1:1.*refused/i, check('outbox', timeout => '3s'));
like($row->{remedy}, qr/Start Kafka/, 'the remedy is about Kafka');
cmp_ok(time - $started, '<', 30, 'in its time');

$started = time;
my (undef, undef, $said) = $node->psql('shop', q{SET statement_timeout = '1s'; SELECT * FROM outbox.check('5 minutes')});
like($said, qr/statement timeout/, 'it can be cancelled');
cmp_ok(time - $started, '<', 60, 'at once');
poll_until(sub { checkers() == 0 }, 60, 'its process ends');
my $session = $node->background_psql('shop', on_error_stop => 0);
$session->query_until(qr/pid=/, qq{SELECT 'pid=' || pg_backend_pid();\nSELECT * FROM outbox.check('5 minutes');\n});
poll_until(sub { checkers() == 1 }, 60, 'a process looks');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM outbox.check(%' AND pid <> pg_backend_pid()});
poll_until(sub { checkers() == 0 }, 60, 'it ends with the session');
pass('the process ends with the statement, and with the session');
eval { $session->quit };

(undef, undef, $said) = $node->psql('shop', q{SELECT * FROM outbox.check('-1s')});
like($said, qr/timeout must be greater than zero/, 'a time that has passed');

# A broker that advertises what cannot be reached from here.
my $hidden = Carshop::Kafka->start(advertise => '127.0.0.1:1');
set('brokers', '127.0.0.1:' . $hidden->port);
row('hidden', 'brokers', 'fail', qr/Broker 1 at 127.0.0.1:1 cannot be reached/, check('outbox', timeout => '8s'));
$hidden->stop;

# ---- no room for processes ----

$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
set('shop_databases', '');
set('report_databases', '');
$node->restart;
# the launchers of ours and of logical replication are there for good
$row = row('no room', 'worker processes', 'fail', qr/Kafka was not asked: all background workers/, check('outbox'));
like($row->{remedy}, qr/^ALTER SYSTEM SET max_worker_processes = \d+; -- then restart/, 'how to make room');
set('shop_databases', 'a, b, c');
row('too many', 'worker processes', 'warn', qr/max_worker_processes = 2, and.*4 are ours/, check('outbox'));
set('shop_databases', '');
$node->safe_psql('postgres', 'ALTER SYSTEM SET max_worker_processes = 8');
$node->restart;

no_crash($node);
is(scalar(grep { /FATAL|PANIC|ERROR/ && !/statement timeout|timeout must be|administrator command/ } split /\n/, slurp_file($node->logfile)), 0, 'nothing else in the log');
$node->stop;
done_testing();
