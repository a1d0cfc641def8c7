# The reporter against a real broker, fed by kcat as a foreign producer would: what
# it takes, what it refuses, each event once, reports that fail, stop and seek,
# Kafka away, a crash in the middle of a load.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop', 'restart_after_crash' => 'on' });
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');

sub db { return $node->safe_psql('shop', $_[0]); }

sub event
{
	my ($type, %more) = @_;
	my $on = $more{on} // '2026-11-22T20:27:03.512756+00:00';
	my $text = qq({"EventType":"$type","EventDescription":"d","OccuredOn":"$on");

	$text .= qq(,"EventId":"$more{id}") if $more{id};
	$text .= qq(,"Key":"$more{key}") if $more{key};
	$text .= qq(,"Data":$more{data}) if $more{data};
	return "$text}";
}

# A new id for each number.
sub id { return sprintf '01998a5e-0000-7000-8000-%012d', $_[0]; }

sub produce_lines { return $kafka->produce_lines_to($topic, @_) }

sub applied { return all_applied($node, 'shop') }

sub status
{
	my ($concern) = @_;
	return db("SELECT level || ': ' || message FROM report.status WHERE concern = '$concern'");
}

# ---- waiting: for the extension, for a definition, for the topic ----

wait_for_worker($node, 'reporter', 'shop');
db('CREATE EXTENSION carshop_outbox');
poll_until(sub { status('reporter') =~ /not started/ }, 30, 'the reporter sees the extension');
like(status('reading'), qr/^warn: Reading was never started/, 'nothing is read before somebody says so');
db('SELECT report.create_car_shop()');
poll_until(sub { status('kafka') =~ /does not exist/ }, 30, 'the missing topic is named');
pass('a topic that does not exist is waited for');
$kafka->create_topic($topic, 2);
applied();
is(status('kafka'), 'ok: No trouble with Kafka.', 'it is read as soon as it is there');

# ---- what is taken and what is refused ----

$kafka->produce($topic, event('CarSold'), partition => 0);
applied();
is(db('SELECT event_type, event_description, occurred_on, event_key, data, headers, topic, partition, kafka_offset, log_seq
	FROM report.reported_events'), "CarSold|d|2026-11-22 20:27:03.512756+00||||$topic|0|0|1",
	'a foreign message of three members is an event');
is(db('SELECT * FROM report.events_by_day'), '2026-11-22|CarSold|1', 'and counted');
is(db('SELECT * FROM report.sales_by_day'), '2026-11-22|unknown|1', 'the engine of an unknown car is unknown');

my $twice = event('CarAdded', id => id(1), key => 7, data => '{"Number":7,"Engine":"{\"$type\":\"PedalEngineEntity\",\"PedalSize\":30}"}');
produce_lines(0, $twice, $twice);
$kafka->produce($topic, $twice, partition => 1);
applied();
$kafka->produce($topic, $twice, partition => 1);
applied();
is(db(q(SELECT count(*) FROM report.reported_events WHERE event_type = 'CarAdded')), 1, 'an id counts once');
is(db(q(SELECT events FROM report.events_by_day WHERE event_type = 'CarAdded')), 1, 'in the reports as well');
is(db(q(SELECT sum(duplicates) FROM report.stat_reporter)), 3, 'and the others are counted as duplicates');

produce_lines(0, 'not JSON', '[1]', '{"EventType":"X"}', 'null', event('CarRepaired', on => 'yesterday'),
	event('CustomerAdded', id => id(2), key => 'Bob', data => '{"Name":"Bob","LegPower":5,"HandPower":6,"CarNumber":null}'),
	event('CarSold', id => id(3), key => 7, data => '{"Name":"Bob","LegPower":5,"HandPower":6,"CarNumber":7}'));
$kafka->produce($topic, undef, key => 'k', partition => 0);
$kafka->produce($topic, "\xff\x00", partition => 0, headers => { a => 'b' });
$kafka->produce($topic, '{"Number":8,"Engine":"{\"$type\":\"HandEngineEntity\"}"}', partition => 1, key => 8,
	headers => { ce_specversion => '1.0', ce_id => id(4), ce_source => 'urn:shop', ce_type => 'CarAdded',
		ce_time => '2026-11-23T00:00:00Z', ce_subject => 8 });
applied();
is(db(q(SELECT sqlstate, message, convert_from(value, 'UTF8'), headers FROM report.dead_letters
	WHERE kafka_offset < 11 ORDER BY kafka_offset)), join("\n",
	'22032|the message is not JSON: expected a value at byte 1, found "not JSON"|not JSON|',
	'22023|the message is JSON but not an object: an array, while each event is a message of its own|[1]|',
	'22023|"EventDescription" is missing|{"EventType":"X"}|',
	'22007|"OccuredOn" is not an ISO 8601 date and time: "yesterday"|' . event('CarRepaired', on => 'yesterday') . '|'),
	'what is no event goes to the dead letters, with its reason');
is(db(q(SELECT value, headers FROM report.dead_letters ORDER BY id DESC LIMIT 1)), '\xff00|{"a": "b"}',
	'bytes are kept as they are');
is(db(q(SELECT sum(skipped) FROM report.stat_reporter)), 2, 'null and a tombstone are skipped');
is(db('SELECT number, engine, pedal_size, added_on, sold_on, customer FROM report.cars ORDER BY number'),
	"7|pedal|30|2026-11-22 20:27:03.512756+00|2026-11-22 20:27:03.512756+00|Bob\n8|hand||2026-11-23 00:00:00+00||",
	'what follows them is applied: the cars');
is(db('SELECT name, leg_power, hand_power, cars FROM report.customers'), 'Bob|5|6|1', 'the customers');
is(db('SELECT * FROM report.sales_by_day ORDER BY engine'), "2026-11-22|pedal|1\n2026-11-22|unknown|1", 'the sales');
like(status('dead letters'), qr/^warn: 5 /, 'the status tells of dead letters');

# ---- retry and skip ----

db('SELECT report.retry()');
poll_until(sub { db('SELECT count(*) FROM report.dead_letters WHERE attempts = 2') == 5 }, 30, 'they are tried again');
pass('a dead letter that is tried in vain says how often');
db('SELECT report.skip(id) FROM report.dead_letters');
is(status('dead letters'), 'ok: No message or event was refused.', 'skipped ones are gone');

# ---- a report that refuses an event, one that is broken, one that comes late ----

db(q(CREATE TABLE public.picky (event_type text PRIMARY KEY CHECK (event_type <> 'Bad'), n bigint);
	SELECT report.define('picky', 'INSERT INTO public.picky AS t SELECT event_type, count(*) FROM new_events GROUP BY 1
		ON CONFLICT (event_type) DO UPDATE SET n = t.n + excluded.n', 'public.picky')));
applied();
is(db(q(SELECT sum(n) FROM public.picky)), db('SELECT count(*) FROM report.reported_events'), 'a late report catches up');
produce_lines(0, (map { event($_ % 50 == 17 ? 'Bad' : 'Good', id => id(100 + $_)) } 0 .. 199));
applied();
is(db(q(SELECT n FROM public.picky WHERE event_type = 'Good')), 196, 'the other events of the batch are applied');
is(db(q(SELECT count(*), min(sqlstate), min(report) FROM report.dead_letters)), '4|23514|picky',
	'the refused ones are dead letters of the report');
is(db(q(SELECT (convert_from(value, 'UTF8')::json) ->> 'event_type' FROM report.dead_letters LIMIT 1)), 'Bad', 'with the event');
is(db(q(SELECT events FROM report.events_by_day WHERE event_type = 'Bad')), 4, 'other reports have taken them');
db('ALTER TABLE public.picky DROP CONSTRAINT picky_event_type_check; SELECT report.retry()');
poll_until(sub { db('SELECT count(*) FROM report.dead_letters') == 0 }, 30, 'the retry is done');
is(db(q(SELECT n FROM public.picky WHERE event_type = 'Bad')), 4, 'once repaired, a retry applies them');

db('ALTER TABLE public.picky RENAME n TO m');
$kafka->produce($topic, event('Good', id => id(400)), partition => 0);
poll_until(sub { status('reports') =~ /^fail: Report "picky" has failed: 42703/m }, 30, 'the broken report stops');
is(db(q(SELECT state FROM report.stat_reports WHERE name = 'picky')), 'failed', 'it is shown as failed');
is(db(q(SELECT count(*) FROM report.stat_reports WHERE state = 'current')), 4, 'the others go on');
db(q(ALTER TABLE public.picky RENAME m TO n; SELECT report.enable('picky')));
applied();
is(db(q(SELECT n FROM public.picky WHERE event_type = 'Good')), 197, 'enabled again, it catches up');

# A locked target: tried again, nobody else waits.
my $locker = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('shop') ], '<', \my $commands, '>', \my $answers);
$commands = "BEGIN; LOCK TABLE public.picky; SELECT 'locked';\n";
IPC::Run::pump($locker) until $answers =~ /locked/;
$kafka->produce($topic, event('Good', id => id(401)), partition => 0);
poll_until(sub { status('reports') =~ /^warn: Report "picky" is tried again: .*lock/m }, 30, 'the report waits');
is(db(q(SELECT count(*) FROM report.stat_reports WHERE state = 'current')), 4, 'a locked target delays its report alone');
$commands = "COMMIT;\n";
IPC::Run::finish($locker);
applied();
is(db(q(SELECT n FROM public.picky WHERE event_type = 'Good')), 198, 'and nothing of it is missing');

# Rights: the statement runs as its owner, restricted; the owner must own the target.
db(q(CREATE ROLE owner; CREATE SCHEMA owner AUTHORIZATION owner;
	GRANT EXECUTE ON FUNCTION report.define(text, text, regclass, text, interval, boolean) TO owner;
	SET ROLE owner;
	CREATE TABLE owner.seen (who text, path text, level integer);
	CREATE FUNCTION owner.look() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		new.who = current_user; new.path = current_setting('search_path');
		PERFORM set_config('search_path', 'owner', false), set_config('role', 'none', false);
		RETURN new;
	EXCEPTION WHEN OTHERS THEN
		new.path = sqlerrm;
		RETURN new;
	END $$;
	CREATE TRIGGER look BEFORE INSERT ON owner.seen FOR EACH ROW EXECUTE FUNCTION owner.look();
	SELECT report.define('seen', 'INSERT INTO owner.seen SELECT NULL, pg_advisory_lock(1)::text, count(*) FROM new_events', 'owner.seen')));
applied();
is(db('SELECT DISTINCT who, path FROM owner.seen'), 'owner|cannot set parameter "role" within security-definer function',
	'code of the owner runs as the owner, who cannot become another role');
is(db(q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')), 0, 'and leaves no lock behind');
db('ALTER TABLE owner.seen OWNER TO CURRENT_USER');
$kafka->produce($topic, event('Good', id => id(402)), partition => 0);
poll_until(sub { status('reports') =~ /^fail: .*does not own its target/m }, 30, 'the report stops');
pass('who does not own the target any more runs nothing');
db(q(SELECT report.drop('seen'), report.drop('picky')));

# ---- stop and start, seek ----

db('SELECT report.stop()');
poll_until(sub { status('reporter') =~ /stopped by report.stop/ }, 30, 'it stops');
my $before = db('SELECT count(*) FROM report.reported_events');
$kafka->produce($topic, event('Late', id => id(500)), partition => 0);
is(db('SELECT count(*) FROM report.reported_events'), $before, 'stopped, nothing is read');
db('SELECT report.start()');
applied();
is(db('SELECT count(*) FROM report.reported_events'), $before + 1, 'started, reading goes on where it stood');
db(qq(SELECT report.seek('$topic', 0, -2), report.seek('$topic', 1, 0)));
applied();
is(db('SELECT count(*) FROM report.reported_events'), $before + 1, 'after a seek to the beginning nothing is counted again');
is(db('SELECT sum(events) FROM report.events_by_day'), $before + 1, 'in the reports neither');

# A leader that was replaced and does not know yet may say so of what is there.
my $ahead = db(qq(SELECT next_offset FROM report.progress WHERE topic = '$topic' AND partition = 1)) + 3;
db(qq(SELECT report.seek('$topic', 1, $ahead)));
poll_until(sub { db(qq(SELECT last_error FROM report.stat_reporter WHERE topic = '$topic' AND partition = 1)) =~ /^offset $ahead is not there/ }, 30, 'an offset that is not there is met');
$kafka->produce($topic, event('Ahead', id => id(510 + $_)), partition => 1) foreach 1 .. 4;
poll_until(sub { db(q(SELECT count(*) FROM report.reported_events WHERE event_type = 'Ahead')) > 0 || status('divergence') !~ /^ok/ }, 60, 'and comes');
like(status('divergence'), qr/^ok: /, 'one answer that something is not there is not believed');

db(qq(SELECT report.seek('$topic', 1, 1000000)));
poll_until(sub { status('divergence') =~ m{^fail: Partition \Q$topic\E/1: .*1000000 is not there}i }, 30, 'the lost range is found');
$kafka->produce($topic, event('Other', id => id(501)), partition => 0);
poll_until(sub { db(qq(SELECT count(*) FROM report.reported_events WHERE id = '@{[id(501)]}')) }, 30, 'the other partition goes on');
pass('a lost range stops its partition alone');
db(db("SELECT remedy FROM report.status WHERE concern = 'divergence'"));
applied();
like(status('divergence'), qr/^ok: /, 'the remedy in the status resolves it');

# ---- the topic is made anew, and is longer than before ----

$node->stop;
$kafka->delete_topic($topic);
$kafka->create_topic($topic, 2);
produce_lines(0, (map { event('New', id => id(600 + $_)) } 1 .. 400));
$node->start;
poll_until(sub { status('divergence') =~ m{^fail: Partition \Q$topic\E/0: .*made anew}m }, 60, 'it is noticed');
is(db(q(SELECT count(*) FROM report.reported_events WHERE event_type = 'New')), 0, 'nothing of a topic made anew is read by mistake');
db(qq(SELECT report.seek('$topic', 0, -2), report.seek('$topic', 1, -2)));
applied();
is(db(q(SELECT count(*) FROM report.reported_events WHERE event_type = 'New')), 400, 'after a seek all of it is');

# ---- offsets for lag tools ----

my $group = db(q(SELECT 'carshop-report-' || system_identifier || '-shop' FROM pg_control_system()));
poll_until(
	sub {
		my $text = $kafka->tool('org.apache.kafka.tools.consumer.group.ConsumerGroupCommand', '--describe', '--group', $group);
		return $text =~ /\Q$topic\E\s+0\s+400\s+400\s+0\s/;
	},
	60, 'the group shows the offsets');
pass('lag tools see the offsets under the group');

# ---- Kafka away ----

$kafka->stop;
poll_until(sub { status('kafka') =~ /^fail: / }, 60, 'the status tells of it');
is(db('SELECT count(*) FROM report.worker() WHERE pid IS NOT NULL'), 1, 'the reporter lives through it');
my $started = time;
$node->restart;
cmp_ok(time - $started, '<', 10, 'the server restarts quickly without Kafka');
poll_until(sub { status('kafka') =~ /^fail: / }, 60, 'without Kafka, the status tells of it again');
$kafka->restart;
$kafka->produce($topic, event('Back', id => id(1200)), partition => 0);
applied();
is(db(q(SELECT events FROM report.events_by_day WHERE event_type = 'Back')), 1, 'when Kafka is back, reading goes on');
is(scalar(() = slurp_file($node->logfile) =~ /WARNING:.*(?:broker|Connect)/gi) < 20 ? 'few' : 'many', 'few', 'the log is not flooded');

# ---- a load with crashes: offsets and rows are one ----

my $n = $ENV{CARSHOP_TEST_FULL} ? 200_000 : 60_000;
my $sum_before = db('SELECT sum(events) FROM report.events_by_day');
db('SELECT report.stop(); ALTER DATABASE shop SET carshop_outbox.report_batch_events = 2000');
foreach my $part (0 .. $n / 10_000 - 1)
{
	produce_lines($part % 2, (map { event('Load', id => sprintf('01998a5e-0000-7000-9000-%012d', $part * 10_000 + $_)) } 0 .. 9_999));
}
db('SELECT report.start()');
foreach my $i (1 .. 3)
{
	my $enough = $n * $i / 5;
	poll_until(sub {
			# psql may be gone before it was given the query
			my ($rc, $count) = eval { $node->psql('shop', q(SELECT count(*) FROM report.reported_events WHERE event_type = 'Load')) };
			return defined $rc && $rc == 0 && $count >= $enough;
		}, 60, 'some of the load is applied');
	if ($i == 2)
	{
		$node->stop('immediate');
		$node->start;
	}
	else
	{
		kill9_worker($node, 'reporter', 'shop');
		poll_until(sub { ((eval { $node->psql('shop', 'SELECT 1') })[0] // 1) == 0 }, 60, 'the server is back');
	}
}
applied();
is(db(q(SELECT count(*), count(DISTINCT id), count(DISTINCT (partition, kafka_offset)) FROM report.reported_events WHERE event_type = 'Load')),
	"$n|$n|$n", 'kill -9 and an immediate shutdown during a load: every event is there once');
is(db('SELECT sum(events) FROM report.events_by_day'), $sum_before + $n, 'and counted once');
is(db(q(SELECT count(*) = max(log_seq) - min(log_seq) + 1 OR count(*) = count(DISTINCT log_seq) FROM report.reported_events)), 't',
	'log_seq is unique');

no_crash($node);
$node->stop;
done_testing();
