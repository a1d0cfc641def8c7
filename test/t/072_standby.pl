# A hot standby: its workers start at promotion, and until then the status says
# that, and nothing else is wrong.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Cluster;
use Test::More;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('primary', kafka => $kafka, init => { allows_streaming => 1 });
$node->start;
create_shop($node, 'shop');
$node->safe_psql('shop', 'SET client_min_messages = warning; SELECT report.create_car_shop()');
$node->safe_psql('shop', 'INSERT INTO "Cars" VALUES (1, NULL)');
poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, 'the primary publishes');
poll_until(sub { query_value($node, 'shop', q{SELECT report.wait_applied(timeout => '1s')}) eq 't' }, 60, 'and reads');

$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;

# ---- while the primary works ----

sub rows
{
	my ($schema, $where) = @_;

	return $standby->safe_psql('shop', "SELECT concern, level, message FROM $schema.status WHERE $where");
}

my %worker = (outbox => 'relay', report => 'reporter');
$node->wait_for_catchup($standby);
foreach my $schema (sort keys %worker)
{
	is(rows($schema, "concern = '$worker{$schema}'"), "$worker{$schema}|ok|This is a standby; workers start at promotion.",
		"$schema.status says why there is no $worker{$schema}");
	is(rows($schema, q{level <> 'ok'}), '', "$schema.status: all is in order");
}

# Nothing is published meanwhile: what waits for long is the primary's matter.
$node->safe_psql('shop', q{
	SELECT outbox.pause();
	SELECT outbox.emit('Old', occurred_at => now() - interval '1 hour')});
$node->wait_for_catchup($standby);
poll_until(sub { query_value($standby, 'shop', 'SELECT unconfirmed_events FROM outbox.stat_relay') == 1 }, 30, 'an event waits');
is(rows('outbox', q{level <> 'ok'}), 'publishing|warn|Publishing is paused; events are stored.',
	'a pause is told, the backlog is not the standby\'s');
is(query_value($standby, 'shop', 'SELECT outbox.count_unconfirmed()'), 1, 'it can be counted there');
$node->safe_psql('shop', 'SELECT outbox.resume()');
poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, 'the primary goes on');
$node->wait_for_catchup($standby);

# ---- waiting there ----

foreach my $call ('outbox.wait_published()', 'report.wait_applied()')
{
	my (undef, undef, $refused) = $standby->psql('shop', "\\set VERBOSITY verbose\nSELECT $call");
	like($refused, qr/OB005: no (?:relay|reporter) runs on a standby/, "$call on a standby says why it cannot be waited for");
}
my $event = query_value($node, 'shop', q{SELECT outbox.emit('Awaited')});
is(query_value($standby, 'shop', "SELECT report.wait_applied('$event', '60s')"), 't', 'an event comes with the rows that are made of it');
is(query_value($standby, 'shop', q{SELECT sum(events) FROM report.events_by_day WHERE event_type = 'Awaited'}), 1, 'and these are there');

# ---- promotion ----

$node->stop('immediate');
$standby->promote;
foreach my $schema (sort keys %worker)
{
	poll_until(sub { rows($schema, "concern = '$worker{$schema}'") =~ /\|ok\|The $worker{$schema} runs \(pid \d+\)/ }, 60,
		"the $worker{$schema} starts");
	pass("promoted, $schema.status shows the $worker{$schema}");
}
$standby->safe_psql('shop', 'INSERT INTO "Cars" VALUES (2, NULL)');
poll_until(sub { query_value($standby, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, 'the heir publishes');
poll_until(sub { query_value($standby, 'shop', q{SELECT report.wait_applied(timeout => '1s')}) eq 't' }, 60, 'and reads');
is(query_value($standby, 'shop', 'SELECT count(*) FROM report.cars'), 2, 'both cars are reported');
foreach my $schema (sort keys %worker)
{
	is(rows($schema, q{level <> 'ok'}), '', "promoted, $schema.status: all is in order");
}

no_crash($standby);
$standby->stop;
done_testing();
