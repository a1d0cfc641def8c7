# delivery = at_least_once: published without transactions, told in the status;
# switched back and forth by a reload, nothing is lost, and without a crash nothing
# is doubled either.  After a kill -9 of the relay nothing is lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Test::More;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('alo', kafka => $kafka,
	conf => { '.report_databases' => '', '.delivery' => 'at_least_once', 'restart_after_crash' => 'on' });
my $cars = 0;

sub add_cars
{
	my ($n) = @_;

	$node->safe_psql('shop', qq{INSERT INTO "Cars" SELECT $cars + i, NULL FROM generate_series(1, $n) i});
	$cars += $n;
}

sub published
{
	my ($what) = @_;

	poll_until(sub {
		my ($status, $answer) = $node->psql('shop', q{SELECT outbox.wait_published('1s')});
		$status == 0 && $answer eq 't';
	}, 60, $what);
}

# How often each car is in the topic.
sub times_seen
{
	my %seen;

	$seen{ $_->{key} }++ foreach $kafka->read_topic($topic);
	return \%seen;
}

sub switch_to
{
	my ($delivery) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.delivery = '$delivery'");
	$node->reload;
}

$node->start;
create_shop($node, 'shop', reports => 0);
add_cars(10);
published('at least once');
is_deeply(times_seen(), { map { $_ => 1 } 1 .. 10 }, 'published, each once');
like($node->safe_psql('shop', 'SELECT level, message FROM outbox.status'), qr/warn\|With delivery = at_least_once/,
	'the status tells what is suspended');
my $end = ($kafka->read_topic($topic))[-1]{offset};
is($end, 9, 'no control records: no transactions');

switch_to('exactly_once');
add_cars(10);
published('exactly once');
is(scalar(() = $kafka->read_topic($topic)), 20, 'switched to exactly_once: nothing lost, nothing twice');
unlike($node->safe_psql('shop', 'SELECT message FROM outbox.status'), qr/at_least_once/, 'the warning is gone');

switch_to('at_least_once');
add_cars(10);
published('at least once again');
is(scalar(() = $kafka->read_topic($topic)), 30, 'and back');

# A relay that dies in the middle.
add_cars(50_000);
kill9_worker($node, 'relay', 'shop');
poll_until(sub { ((eval { $node->psql('postgres', 'SELECT 1') })[0] // 1) == 0 }, 60, 'the server is back');
published('after kill -9');
my $seen = times_seen();
is(scalar(keys %$seen), $cars, 'after kill -9 nothing is lost');

no_crash($node);
$node->stop;
done_testing();
