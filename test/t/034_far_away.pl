# Kafka is far away: 80 ms in each direction, a round trip of 160 ms.  Everything
# that the server asks takes longer than any of its slices: topics are made and
# looked up, events arrive, a backlog drains, the reporter reads it, and both
# workers find their way back after a restart.  How fast is only said.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Scenario;
use Test::More;
use Time::HiRes qw(time);

my $events = 20_000;
my $begun = time();
# Making it waits until the first events are published.
my $scenario = Scenario->new(name => 'far', proxy => 1, distance => 80,
	conf => { '.allowed_topics' => 'far-away' });
my $node = $scenario->node;

pass('the topics are made and the first events arrive');
diag(sprintf('first events after %.1f s, with the making of server, broker and topics', time() - $begun));
ok($scenario->applied(60), 'the reporter applies them') or diag($scenario->status);
cmp_ok($scenario->proxy->seen(Proxy::END_TXN), '>', 0, 'all of that went through the proxy');

$scenario->backlog('relay', $events);
$begun = time();
ok($scenario->published(120), "$events events drain") or diag($scenario->status);
diag(sprintf('%.0f events/s published', $events / (time() - $begun)));
ok($scenario->applied(120), 'and are applied') or diag($scenario->status);
diag(sprintf('%.0f events/s published and applied', $events / (time() - $begun)));

# A second topic in the middle of the work, made and looked up at this distance.
$node->safe_psql('shop', q{SELECT outbox.emit('Far', '{}'::jsonb, topic => 'far-away')});
ok($scenario->published(60), 'an event for a new topic is published') or diag($scenario->status);
is(scalar $scenario->kafka->read_topic('far-away'), 1, 'it is there');

foreach my $kind ('relay', 'reporter')
{
	my $pid = $scenario->worker($kind);

	$begun = time();
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 10000)");
	$scenario->work(events => 100);
	ok($scenario->published(60), "a new $kind: published") or diag($scenario->status);
	ok($scenario->applied(60), "a new $kind: applied") or diag($scenario->status);
	diag(sprintf('%.1f s until 100 events were applied after the end of the %s', time() - $begun, $kind));
	isnt($scenario->worker($kind), $pid, "it was a new $kind");
}

Scenario::exactly_once_ok($scenario->settle(120), 'each event is there once');
$scenario->stop;
done_testing();
