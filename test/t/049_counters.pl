# Numbers of the relay: they outlive its process, latencies are those from COMMIT
# to Kafka, failures are counted by cause and time by state.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('counters', kafka => $kafka, conf => { '.shop_databases' => 'shop', '.report_databases' => 'books' });

sub value { return query_value($node, 'shop', $_[0]) }

sub published
{
	poll_until(sub { value(q{SELECT outbox.wait_published('2s')}) eq 't' }, 120, 'all is published');
	return;
}

sub metric
{
	my ($name, $labels) = @_;
	return value("SELECT value FROM outbox.metrics WHERE name = 'outbox_$name' AND labels = '" . ($labels // '{}') . q{'});
}

# Events that have waited for longer.
sub slower { return value("SELECT sum(events) FILTER (WHERE COALESCE(up_to > '$_[0]', true)) FROM outbox.latency"); }

$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', q{CREATE EXTENSION carshop_outbox; CREATE TABLE item (id integer PRIMARY KEY); SELECT outbox.capture('item', 'Item')});
is(value('SELECT sum(events) FROM outbox.latency'), 0, 'nothing was published yet');
is(value('SELECT max(percent) FROM outbox.latency'), undef, 'a share of nothing is not known');

# ---- latency ----

$node->safe_psql('shop', "INSERT INTO item VALUES ($_)") foreach 1 .. 20;
$node->safe_psql('shop', 'INSERT INTO item SELECT generate_series(21, 100)');
published();
is(value('SELECT sum(events) FROM outbox.latency'), 100, 'each event has its latency');
is(value('SELECT max(percent) = 100 AND bool_and(percent >= former) FROM (SELECT percent, COALESCE(lag(percent) OVER (ORDER BY up_to NULLS LAST), 0) AS former FROM outbox.latency) l'),
	't', 'the shares add up');
is(metric('publish_latency_seconds_bucket', '{"le": "+Inf"}'), 100, 'the histogram of the metrics has them all');
is(metric('publish_latency_seconds_count'), 100, 'and so has its count');
cmp_ok(metric('publish_latency_seconds_sum'), '>', 0, 'its sum is a time');

# ---- the process ends ----

my ($pid) = worker_pids($node, 'relay', 'shop');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_for_worker($node, 'relay', 'shop', $pid);
$node->safe_psql('shop', 'INSERT INTO item VALUES (101)');
published();
is(value('SELECT events_published FROM outbox.stat_relay'), 101, 'the number of events goes on');
is(value('SELECT sum(events) FROM outbox.latency'), 101, 'the latencies do, too');

# ---- Kafka is away ----

my $slow = slower('1 second');
$kafka->kill9;
$node->safe_psql('shop', 'INSERT INTO item VALUES (102)');
poll_until(sub { metric('state_seconds_total', '{"state": "waiting for Kafka"}') > 3 }, 120, 'it waits for Kafka');
my $waited = metric('state_seconds_total', '{"state": "waiting for Kafka"}');
poll_until(sub { metric('state_seconds_total', '{"state": "waiting for Kafka"}') > $waited + 0.2 }, 60, 'the time goes on while it waits');
cmp_ok(value(q{SELECT sum(value) FROM outbox.metrics WHERE name = 'outbox_failures_total'}), '>', 0, 'failures are counted by their cause');
$kafka->restart;
published();
is(slower('1 second') - $slow, 1, 'an event that has waited for Kafka is known as a slow one');

# ---- idle time, and a new beginning ----

my $idle = metric('state_seconds_total', '{"state": "idle"}');
poll_until(sub { metric('state_seconds_total', '{"state": "idle"}') > $idle + 0.5 }, 60, 'time passes while nothing happens');
$node->safe_psql('shop', 'SELECT outbox.stat_reset()');
poll_until(sub { value('SELECT sum(events) FROM outbox.latency') == 0 && value('SELECT events_published FROM outbox.stat_relay') == 0 }, 60, 'stat_reset() begins anew');
cmp_ok(metric('state_seconds_total', '{"state": "idle"}'), '<', $idle + 60, 'with time as well');
is(value(q{SELECT sum(value) FROM outbox.metrics WHERE name = 'outbox_failures_total'}), 0, 'and with failures');

# ---- reading ----

sub book { return query_value($node, 'books', $_[0]) }
sub applied { return poll_until(sub { book(q{SELECT report.wait_applied(timeout => '2s')}) eq 't' }, 120, 'all is applied') }

$node->safe_psql('postgres', 'CREATE DATABASE books');
$node->safe_psql('books', 'CREATE EXTENSION carshop_outbox');
is(book('SELECT sum(events) FROM report.latency'), 0, 'nothing was read yet');
$node->safe_psql('books', 'SELECT report.start()');
applied();
my $read = book('SELECT count(*) FROM report.reported_events');
poll_until(sub { book('SELECT sum(events) FROM report.latency') == $read }, 60, 'each event that is read has its latency');
cmp_ok(book(q{SELECT sum(events) FILTER (WHERE COALESCE(up_to > '1 second', true)) FROM report.latency}), '>=', 1, 'what has waited for its reader is a slow one');
is(book(q{SELECT value FROM report.metrics WHERE name = 'outbox_apply_latency_seconds_bucket' AND labels = '{"le": "+Inf"}'}), $read, 'the metrics have them all');
is(book(q{SELECT value FROM report.metrics WHERE name = 'outbox_apply_latency_seconds_count'}), $read, 'and count them');
cmp_ok(book(q{SELECT value FROM report.metrics WHERE name = 'outbox_apply_latency_seconds_sum'}), '>', 0, 'and sum them up');

my ($reader) = worker_pids($node, 'reporter', 'books');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($reader)");
wait_for_worker($node, 'reporter', 'books', $reader);
$node->safe_psql('shop', 'INSERT INTO item VALUES (200)');
applied();
poll_until(sub { book('SELECT sum(events) FROM report.latency') == $read + 1 }, 60, 'another process goes on with the numbers');

my $topic = book('SELECT min(topic) FROM report.progress');
$node->safe_psql('books', "SELECT report.seek('$topic', partition, -2) FROM report.progress");
$node->safe_psql('shop', 'INSERT INTO item VALUES (201)');
poll_until(sub { book('SELECT sum(duplicates) FROM report.stat_reporter') > 0 }, 60, 'events are read again');
applied();
cmp_ok(book('SELECT sum(events) FROM report.latency'), '<=', $read + 2, 'and do not count again');
$node->safe_psql('books', 'SELECT report.stat_reset()');
poll_until(sub { book('SELECT sum(events) FROM report.latency') == 0 }, 60, 'report.stat_reset() begins anew');

no_crash($node);
$node->stop;
done_testing();
