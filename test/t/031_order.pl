# Order and wholeness under concurrency: 8 sessions update 50 rows that carry a
# version counter, several rows per transaction.  In the topic each row's versions
# only grow and none is missing, each row stays in one partition, and a reader
# that runs all along never sees a part of a transaction.  One of the sessions is
# always in a long transaction, so that ids, snapshots and commits are out of
# step.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Scenario;
use Test::More;
use Workload;

my $transactions = $ENV{CARSHOP_TEST_FULL} ? 5_000 : 500;
my $scenario = Scenario->new(name => 'order', keys => 50, partitions => 3);
my $node = $scenario->node;

my $short = "$scenario->{dir}/short.sql";
append_to_file($short, 'CALL shop.work(1, 4);');
my $long = "$scenario->{dir}/long.sql";
append_to_file($long, q{
BEGIN;
SELECT pg_current_xact_id();
SELECT pg_sleep(0.2);
SELECT shop.change(1 + floor(random() * 47)::integer, 3, pg_current_xact_id()::text::bigint);
COMMIT;
});

my @bench = ('pgbench', '-n', '-d', $node->connstr('shop'), '-c', 7, '-j', 2);
my $late = Workload->start($node, 'shop', seed => $scenario->{seed}, most => 1, chunk => 1, pause => 0.1);
my $other = IPC::Run::start(
	[ 'pgbench', '-n', '-d', $node->connstr('shop'), '-c', 1, '-t', 20, '-f', $long ],
	'>', \my $long_output, '2>', \my $long_error);
command_ok([ @bench, '-t', $transactions, '-f', $short, '--random-seed', $scenario->{seed} ],
	'sessions work at the same time');
IPC::Run::finish($other);
is($long_error =~ /error/i ? $long_error : '', '', 'beside them one with long transactions');
$late->stop;

my $result = $scenario->settle(60);
Scenario::exactly_once_ok($result,
	'versions only grow, none is missing, no transaction is torn, reports are right');
cmp_ok($result->{figures}{events}, '>', $transactions * 7 * 1.5, 'there were enough events');
cmp_ok($result->{figures}{reader_ends}, '>', 10, 'the reader stood at the end often enough to see a tear');

$scenario->stop;
done_testing();
