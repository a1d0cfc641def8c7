# What leaves the event log: old events, by carshop_outbox.report_retention, in small
# steps that hold up nobody, and not while somebody needs them; events of a person,
# by report.erase().  Nothing of it is counted again when its message is read again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'log';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop', '.report_topics' => $topic });
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$kafka->create_topic($topic, 2);

sub db { return $node->safe_psql('shop', $_[0]); }

# A new id for each number.
sub id { return sprintf '01998a5e-0000-7000-8000-%012d', $_[0]; }

sub event
{
	my ($type, $n, $key) = @_;
	return qq({"EventType":"$type","EventDescription":"d","OccuredOn":"2026-11-22T20:27:03Z","EventId":"@{[id($n)]}")
	  . (defined $key ? qq(,"Key":"$key"}) : '}');
}

sub produce_lines { return $kafka->produce_lines_to($topic, @_) }

sub applied { return all_applied($node, 'shop') }

sub status
{
	my ($concern) = @_;
	return db("SELECT level || ': ' || message FROM report.status WHERE concern = '$concern'");
}

# How many events of the type stand in the log, and how many were counted.
sub counted
{
	my ($type) = @_;
	return db("SELECT (SELECT count(*) FROM report.reported_events WHERE event_type = '$type'),
		(SELECT COALESCE(sum(n), 0) FROM public.by_type WHERE event_type = '$type')");
}

sub set_retention
{
	my ($retention) = @_;

	db("ALTER SYSTEM SET carshop_outbox.report_retention = '$retention'");
	$node->reload;
	return;
}

# What was stored until now was received long ago.
sub grow_old
{
	return db(q(UPDATE report.reported_events SET received_at = received_at - interval '1 day' WHERE received_at > now() - interval '1 hour'));
}

db(q(CREATE EXTENSION carshop_outbox;
	CREATE TABLE public.by_type (event_type text PRIMARY KEY, n bigint);
	SELECT report.define('by_type', 'INSERT INTO public.by_type AS t SELECT event_type, count(*) FROM new_events GROUP BY 1
		ON CONFLICT (event_type) DO UPDATE SET n = t.n + excluded.n', 'public.by_type')));
produce_lines($_, map { event('Old', $_) } $_ * 10_000 + 1 .. $_ * 10_000 + 2500) foreach 0, 1;
applied();
is(counted('Old'), '5000|5000', 'events are read');
like(status('event log'), qr/^ok: Events are kept for ever\.$/, 'and kept for ever, if nobody says otherwise');
is(db('SELECT report.event_log_removed_before()'), 0, 'nothing is missing from the log');

# ---- what holds removal up: who needs the events ----

# A report that has not applied the last of them, one that is being rebuilt, a dead letter.
db(q(CREATE TABLE public.picky (event_type text CHECK (event_type <> 'Bad'));
	SELECT report.define('picky', 'INSERT INTO public.picky (event_type) SELECT event_type FROM new_events', 'public.picky')));
produce_lines(0, event('Bad', 20_000));
applied();
db('ALTER TABLE public.picky RENAME event_type TO wrong');
produce_lines(0, event('Late', 20_001));
poll_until(sub { db(q(SELECT failed FROM report.applied WHERE name = 'picky')) eq 't' }, 60, 'a report fails');
my $late = db(q(SELECT log_seq FROM report.reported_events WHERE event_type = 'Late'));

grow_old();
my $rebuild = $node->background_psql('shop');
$rebuild->query_safe(q(BEGIN; SELECT FROM report.applied WHERE name = 'by_type' FOR UPDATE));
set_retention('1h');
produce_lines(0, event('New', 20_002));
poll_until(sub { db(q(SELECT count(*) FROM report.reported_events WHERE event_type = 'New')) eq '1' }, 60, 'reading goes on');
poll_until(sub { db(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'carshop_outbox reporter%' AND query LIKE '%current%')) eq '1' }, 60, 'it is at the end');
is(counted('Old'), '5000|5000', 'while somebody holds a report, as a rebuild does, nothing is removed');
$rebuild->query_safe('COMMIT');
$rebuild->quit;
$node->reload;
set_retention('59min');
poll_until(sub { counted('Old') eq '0|5000' }, 150, 'old events are removed');
pass('old events leave the log, and stay counted');
is(counted('Late'), '1|1', 'what an enabled report has not applied stays');
is(db(q(SELECT count(*) FROM report.reported_events WHERE event_type = 'Bad')), 1, 'and what a dead letter is about');
is(db(q(SELECT count(*) FROM report.reported_events WHERE event_type = 'New')), 1, 'and what is young');
like(status('event log'), qr/^warn: Events older than 59min stay in the event log: report "picky" has not applied them\. It is complete from log_seq 5001 on; 5000 older event\(s\) were removed/,
	'the status says what holds the rest, and what is gone');
is(db('SELECT report.event_log_removed_before()'), 5001, 'and from where on the log is complete');
is(db("SELECT partition, kafka_offset, events FROM report.removed ORDER BY partition"), "0|2499|2500\n1|2499|2500", 'a mark per partition');

# ---- read again ----

# They are older in the log than in Kafka, where nobody can change it: the day by which
# they were made older is given back to the marks.
db(q(UPDATE report.removed SET written_before = written_before + interval '1 day'));

sub read_again
{
	db(qq(SELECT report.seek('$topic', 0, -2), report.seek('$topic', 1, -2)));
	return applied();
}

read_again();
is(counted('Old'), '0|5000', 'removed events that are read again are not counted again');
cmp_ok(db('SELECT sum(duplicates) FROM report.stat_reporter'), '>=', 5000, 'they are duplicates');
produce_lines(1, event('Newer', 20_003));
applied();
is(counted('Newer'), '1|1', 'new ones are counted');

# The dead letter awaits its event no more; the report is repaired.
db(q(ALTER TABLE public.picky RENAME wrong TO event_type; SELECT report.enable('picky')));
applied();
db('SELECT report.skip(id) FROM report.dead_letters');
set_retention('58min');
poll_until(sub { db(q(SELECT count(*) FROM report.reported_events WHERE event_type IN ('Late', 'Bad'))) eq '0' }, 150, 'the rest leaves');
like(status('event log'), qr/^ok: /, 'when nothing holds them any more, they leave, too');
is(db(q(SELECT count(*) FROM public.picky WHERE event_type = 'Late')), 1, 'applied once');

# ---- a topic that was made anew: its messages are at offsets that were removed ----

db(q(UPDATE report.removed SET written_before = written_before - interval '1 day'));
$kafka->delete_topic($topic);
$kafka->create_topic($topic, 2);
produce_lines(0, map { event('Anew', $_) } 30_001 .. 30_100);
poll_until(sub { status('divergence') =~ /^fail: /m }, 150, 'the new topic is noticed');
is(counted('Anew'), '0|0', 'a topic made anew is not read by mistake');
poll_until(
	sub {
		db(qq(SELECT report.seek(topic, partition, -2) FROM report.progress WHERE lost IS NOT NULL));
		return counted('Anew') eq '100|100';
	},
	150, 'its messages are read');
pass('messages of a topic made anew are not taken for those that were removed');

# ---- a mark that is forgotten ----

set_retention(0);
db(qq(UPDATE report.removed SET written_before = 'infinity', kafka_offset = 1000000 WHERE partition = 1;
	SELECT report.seek('$topic', 1, -2)));
produce_lines(1, event('Passed', 40_000));
applied();
is(counted('Passed'), '0|0', 'what a mark covers is passed over');
is(db(qq(SELECT report.forget_removed('$topic', 1), report.seek('$topic', 1, -2))), 't|', 'the mark is forgotten');
applied();
is(counted('Passed'), '1|1', 'then every message counts that is not in the log');

# ---- a person is erased ----

produce_lines(0, (map { event('Visit', 50_000 + $_, $_ % 2 ? 'Ann' : 'Bob') } 1 .. 10));
$kafka->produce($topic, 'not JSON', key => 'Ann', partition => 0);
applied();
is(counted('Visit'), '10|10', 'events of two persons');
is(db(q(SELECT count(*) FROM report.dead_letters WHERE value = 'not JSON')), 1, 'and a message that cannot be read');
is(db(q(SELECT report.erase('Ann'))), 6, 'one is erased');
is(counted('Visit'), '5|10', 'from the log; what reports have made of it stays');
is(db('SELECT count(*) FROM report.dead_letters'), 0, 'and from the dead letters');
read_again();
is(counted('Visit'), '5|10', 'it is not counted again when it is read again');
is(db('SELECT count(*) FROM report.dead_letters'), 0, 'nor kept as a dead letter again');
produce_lines(1, event('Visit', 50_001, 'Ann'), event('Visit', 50_100, 'Ann'));
applied();
is(counted('Visit'), '6|11', 'nor when it is sent again; what happens later is new');

# one of his events is just being refused: whoever refuses it has read it before, and the letter is not to be seen yet
db(q(CREATE TABLE public.choosy (event_type text, event_key text CHECK (event_key <> 'Bob'));
	SELECT report.define('choosy', 'INSERT INTO public.choosy SELECT event_type, event_key FROM new_events', 'public.choosy')));
applied();
db(q(DELETE FROM report.dead_letter));
$rebuild = $node->background_psql('shop', on_error_die => 1);
$rebuild->query_safe(q(SET client_min_messages = warning; BEGIN; SELECT report.rebuild('choosy', true)));
is(db(q(SELECT report.erase('Bob'))), 5, 'another one is erased, while a report refuses his events');
$rebuild->query_safe('COMMIT');
$rebuild->quit;
poll_until(sub { db('SELECT report.wait_applied()'); db('SELECT count(*) FROM report.dead_letters') eq '0' }, 60, 'no letter is left of him');
pass('what is refused meanwhile is erased, too');

# ---- dump and restore carry the marks ----

db('CREATE INDEX CONCURRENTLY of_a_key ON report.reported_events (event_key, log_seq)');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('shop') ], 'a dump');
$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'a restore');
my $marks = q(SELECT (SELECT string_agg(r::text, ' ' ORDER BY r::text) FROM report.removed r), (SELECT count(*) FROM report.erased));
is($node->safe_psql('copy', $marks), db($marks), 'a copy knows what was removed and erased');
is($node->safe_psql('copy', q(SELECT to_regclass('report.of_a_key') IS NULL)), 't', 'an index that somebody made on the log is to be made again, as README says');
$node->safe_psql('copy', 'SELECT report.create_car_shop()');
is($node->safe_psql('copy', q(SELECT to_regclass('report.reported_events_car_number'))), 'report.reported_events_car_number', 'the car shop\'s by its own function');

no_crash($node);
$node->stop;
done_testing();
