# Exactly once under faults: while events drain, the relay and the reporter are
# killed with SIGKILL (PostgreSQL then restarts every process), PostgreSQL is
# stopped at once, and the broker is killed, each at random moments, beside
# sessions that go on working.  Afterwards the topic holds exactly the committed
# events, each once, in order and untorn, also for a reader that read all along;
# the reports hold the same set and their sums equal a direct computation.
#
# By default some strikes of each kind in drains of 30,000 events; with
# CARSHOP_TEST_FULL=1 (and TEST_TIMEOUT=3600) 10 of each worker, 10 of the server,
# 10 of the broker, in drains of 200,000.  CARSHOP_TEST_SEED repeats the random
# choices of a run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Scenario;
use Test::More;

my %size = $ENV{CARSHOP_TEST_FULL}
  ? (relay => 10, reporter => 10, server => 10, broker => 10, events => 200_000,
	window => 1, settle => 600)
  : (relay => 4, reporter => 3, server => 3, broker => 2, events => 30_000,
	window => 0.2, settle => 120);

# Enough rows that none gets thousands of versions while a stopped worker's
# snapshot keeps them all.
my $scenario = Scenario->new(name => 'storm', keys => $ENV{CARSHOP_TEST_FULL} ? 20_000 : 2_000);
my $result = $scenario->storm(%size);
my $figures = $result->{figures};

Scenario::exactly_once_ok($result, 'each committed event is there once, everywhere');
cmp_ok($figures->{events}, '>', $size{events} * 3, 'there were events to lose');
cmp_ok($figures->{aborted_events}, '>', 0, 'strikes hit transactions that were under way')
  if $ENV{CARSHOP_TEST_FULL};	# 051 makes sure of it with its proxy
cmp_ok($figures->{reader_ends}, '>', 10, 'the reader stood at the end many times');

is($scenario->until(30, 'shop', "SELECT count(*) FROM outbox.status WHERE level = 'fail'", qr/^0$/),
	1, 'the status view has nothing to complain about')
  or diag($scenario->status);

$scenario->stop;
done_testing();
