# The whole chain, slowly: events with pauses between them.  After each Kafka
# transaction stands a control record; the reporter stores its position behind
# that without any event, and goes on from there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('chain', kafka => $kafka);
$node->start;
create_shop($node, 'shop');

sub position
{
	return query_value($node, 'shop', 'SELECT next_offset FROM report.progress') // 0;
}

foreach my $car (1 .. 3)
{
	$node->safe_psql('shop', qq{INSERT INTO "Cars" VALUES ($car, '{"\$type":"HandEngineEntity"}')});
	poll_until(sub { $node->safe_psql('shop', 'SELECT count(*) FROM report.cars') == $car }, 30, "car $car");
	pass("car $car is in the report");
	my $message = query_value($node, 'shop', 'SELECT max(kafka_offset) FROM report.reported_events');
	poll_until(sub { position() > $message + 1 }, 30, 'the position behind the control record is stored');
	pass('the position behind the control record is stored');
}
$node->safe_psql('shop', q{INSERT INTO "Customers" VALUES ('Ada', 70, 30, 2)});
poll_until(sub { $node->safe_psql('shop', 'SELECT sum(cars_sold) FROM report.sales_by_day') eq '1' }, 30, 'the sale');
is($node->safe_psql('shop', 'SELECT number, customer FROM report.cars WHERE customer IS NOT NULL'), '2|Ada',
	'the car is sold to its customer');
is($node->safe_psql('shop', 'SELECT event_type, events FROM report.events_by_day ORDER BY 1'),
	"CarAdded|3\nCarSold|1\nCustomerAdded|1", 'events by day');
no_crash($node);
$node->stop;
done_testing();
