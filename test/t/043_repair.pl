# What is published again: retained events by outbox.replay(), dead letters by
# outbox.retry() and what is given up by outbox.skip(), each once, whatever is
# killed meanwhile; the reporter counts an id once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('repair', kafka => $kafka, conf => { '.shop_databases' => 'shop', '.report_databases' => 'shop' });

sub value { return query_value($node, 'shop', $_[0]) }

sub published
{
	poll_until(sub { value(q{SELECT outbox.wait_published('2s')}) eq 't' }, 60, 'all is published');
	return;
}

$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', q{
	CREATE EXTENSION carshop_outbox;
	CREATE TABLE item (id integer PRIMARY KEY, v text);
	CREATE TABLE note (id integer PRIMARY KEY, note text);
	SET client_min_messages = error;
	SELECT outbox.capture('item', 'Item', headers => '{"shop": "north"}');
	SELECT outbox.capture('note', 'Note', topic => 'narrow', format => 'payload');
	CREATE TABLE counted (type text PRIMARY KEY, n bigint);
	SELECT report.define('counted', $$
		INSERT INTO public.counted AS t SELECT event_type, count(*) FROM new_events GROUP BY 1
		ON CONFLICT (type) DO UPDATE SET n = t.n + excluded.n $$, target => 'counted')});

# ---- replay ----

my ($status, $output, $notice) = $node->psql('shop', q{SELECT outbox.replay('-infinity')});
is($output, 0, 'nothing is there yet');
like($notice, qr/NOTICE:  nothing is replayed.*keeps published events for 1d/s, 'it says so');
$node->safe_psql('shop', q{
	SET carshop_outbox.event_headers = '{"who": "Ada"}';
	SET carshop_outbox.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
	INSERT INTO item SELECT n, 'v' || n FROM generate_series(1, 5) n});
my $between = value('SELECT clock_timestamp()');
$node->safe_psql('shop', q{INSERT INTO item SELECT n, 'v' || n FROM generate_series(6, 8) n; SELECT outbox.emit('Other', '{}', 'o')});
$node->safe_psql('shop', 'SELECT outbox.pause()');
$node->safe_psql('shop', q{INSERT INTO item VALUES (9, 'v9')});
$node->safe_psql('shop', 'SELECT outbox.resume()');
published();
is(value("SELECT outbox.replay('-infinity', until => '$between')"), 5, 'five happened before');
published();
my @records = $kafka->read_topic('car-shop-reported-events');
my @again = grep { ($_->{headers}{replayed} // '') eq 'true' } @records;
is_deeply([ map { $_->{key} } @again ], [ 1 .. 5 ], 'these are there again, in order');
my ($first) = grep { $_->{key} eq '3' && !defined $_->{headers}{replayed} } @records;
my ($second) = grep { $_->{key} eq '3' } @again;
is($second->{value}, $first->{value}, 'the same bytes');
is_deeply({ %{ $second->{headers} }, replayed => undef }, { %{ $first->{headers} }, replayed => undef },
	'and headers: its id, the route\'s, the transaction\'s and the trace of then');
is(value(q{SELECT outbox.replay('-infinity', event_type => 'Other')}), 1, 'by type');
is(value(q{SELECT outbox.replay('-infinity', topic => 'elsewhere')}), 0, 'by topic: none');
is(value(q{SELECT outbox.replay('-infinity', topic => current_setting('carshop_outbox.topic'))}), 10, 'all of a topic, copies not again');
published();
is(scalar($kafka->read_topic('car-shop-reported-events')), 10 + 5 + 1 + 10, 'each as often as it was asked for');
is(value(q{SELECT report.wait_applied(timeout => '30s')}), 't', 'all is applied');
is(value(q{SELECT string_agg(type || ' ' || n, ', ' ORDER BY type) FROM counted}), 'Item 9, Other 1', 'the report counts an id once');
($status, $output, my $error) = $node->psql('shop', q{SELECT outbox.replay(NULL)});
like($error, qr/since and until must not be NULL.*HINT/s, 'NULL is refused');

# not yet in Kafka: not replayed; rolled back: nothing
$node->safe_psql('shop', 'SELECT outbox.pause()');
$node->safe_psql('shop', q{INSERT INTO item VALUES (10, 'v10')});
is(value(q{SELECT outbox.replay('-infinity', event_type => 'Item')}), 9, 'what waits is not repeated before it was sent');
$node->safe_psql('shop', q{BEGIN; SELECT outbox.replay('-infinity'); ROLLBACK});
$node->safe_psql('shop', 'SELECT outbox.resume()');
published();
is(scalar($kafka->read_topic('car-shop-reported-events')), 26 + 1 + 9, 'a replay that was rolled back is none');

# under kills
$node->safe_psql('shop', q{INSERT INTO item SELECT n, 'v' FROM generate_series(1001, 6000) n});
published();
is(value(q{SELECT outbox.replay('-infinity', event_type => 'Item')}), 5010, 'many');
$node->stop('immediate');
$node->start;
for (1 .. 3)
{
	wait_for_worker($node, 'relay', 'shop');
	kill 'TERM', worker_pids($node, 'relay', 'shop');
}
published();
my %times;
$times{ $_->{key} }++ foreach grep { $_->{key} =~ /^\d+$/ && $_->{key} > 1000 } $kafka->read_topic('car-shop-reported-events');
is_deeply([ scalar(keys %times), [ grep { $times{$_} != 2 } keys %times ] ], [ 5000, [] ], 'each exactly twice, although the server crashed and the relay was ended on the way');

# ---- dead letters ----

$kafka->create_topic('narrow', 1, 'max.message.bytes' => 2000);
$node->safe_psql('shop', q{
	INSERT INTO note SELECT n, CASE WHEN n IN (3, 5) THEN string_agg(md5(i::text), '') ELSE 'n' || n END
	FROM generate_series(1, 6) n, generate_series(1, 200) i GROUP BY n ORDER BY n});
published();
is(value('SELECT string_agg(key, $$,$$ ORDER BY key) FROM outbox.dead_letters'), '3,5', 'two are refused');
my $five = value(q{SELECT id FROM outbox.dead_letters WHERE key = '5'});
is(value("SELECT outbox.skip('$five')"), 1, 'one is given up');
is(value("SELECT outbox.skip('$five')"), 0, 'once');
is(value('SELECT string_agg(key, $$,$$) FROM outbox.dead_letters'), '3', 'the other one is left');
is(value('SELECT outbox.retry()'), 1, 'it is tried again');
published();
is(value('SELECT string_agg(key, $$,$$) FROM outbox.dead_letters'), '3', 'and refused again');
is(value('SELECT count(*) FROM outbox.stat_dead_letters'), 1, 'counted once');
# the class has moved between 4.2 and 4.4
my @larger = ('--alter', '--entity-type', 'topics', '--entity-name', 'narrow', '--add-config', 'max.message.bytes=100000');
eval { $kafka->tool('kafka.admin.ConfigCommand', @larger) } or $kafka->tool('org.apache.kafka.tools.ConfigCommand', @larger);
is(value('SELECT outbox.retry(id) FROM outbox.dead_letters'), 1, 'the topic takes larger ones now');
published();
is(value('SELECT count(*) FROM outbox.dead_letters'), 0, 'nothing is left');
is(value(q{SELECT level FROM outbox.status WHERE concern = 'dead letters'}), 'ok', 'the status is content');
is_deeply([ map { $_->{key} } $kafka->read_topic('narrow') ], [ 1, 2, 4, 6, 3 ], 'each once; the retried one behind the others, the skipped one never');
is(value('SELECT outbox.retry()'), 0, 'nothing to retry');

# what was decided holds after a restart, and is forgotten with its segment
$node->restart;
$node->safe_psql('shop', q{INSERT INTO note VALUES (7, 'n7')});
published();
is_deeply([ map { $_->{key} } $kafka->read_topic('narrow') ], [ 1, 2, 4, 6, 3, 7 ], 'nor after a restart');
is(value('SELECT count(*) FROM outbox.dead_letter'), 3, 'it is remembered');
$node->append_conf('postgresql.conf', "carshop_outbox.retention = '0'");
$node->reload;
$node->safe_psql('shop', q{INSERT INTO note VALUES (8, 'n8')});
poll_until(sub { value('SELECT count(*) FROM outbox.dead_letter') == 0 }, 60, 'as long as the events are there');

# what cannot be read cannot be retried
$node->safe_psql('shop', q{SELECT outbox.pause(); INSERT INTO item VALUES (11, 'v11')});
$node->safe_psql('shop', "UPDATE outbox.event_$_ SET format = 'unheard' WHERE aggregateid = '11'") foreach 0 .. 2;
$node->safe_psql('shop', 'SELECT outbox.resume()');
published();
($status, undef, $error) = $node->psql('shop', 'SELECT outbox.retry()');
like($error, qr/cannot have been written before/, 'an event of an unknown format');
is(value('SELECT count(*) FROM outbox.dead_letters'), 1, 'is kept');

no_crash($node);
$node->stop;
done_testing();
