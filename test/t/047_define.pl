# Reports as people write them: one that is slow or fails holds up no other, one that
# takes a key once is right all the same, and a dead letter is applied exactly once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Mutants;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop' });
my $numbers = 0;

sub db { return $node->safe_psql('shop', $_[0]); }

sub event
{
	my ($type, $key, $value) = @_;
	return sprintf '{"EventType":"%s","EventDescription":"d","OccuredOn":"2026-11-22T20:27:03+00:00","EventId":"01998a5e-0000-7000-8000-%012d","Key":"%s","Data":{"v":%s}}',
	  $type, ++$numbers, $key, $value // $numbers;
}

sub produce { return $kafka->produce_lines($topic, @_); }

sub applied
{
	return poll_until(sub { db(q(SELECT report.wait_applied(timeout => '5s'))) eq 't' }, 180, 'all is applied');
}

sub status
{
	my ($like) = @_;
	return db("SELECT level || ': ' || message || ' -> ' || COALESCE(remedy, '') FROM report.status
		WHERE concern = 'reports' AND message LIKE '$like'");
}

sub seconds
{
	my ($what) = @_;
	my $began = time;

	$what->();
	return time - $began;
}

sub define { my ($name, $statement, $more) = @_; return db("SELECT report.define('$name', \$s\$$statement\$s\$, 'public.$name'" . ($more // '') . ')'); }

sub quick { return db(qq(SELECT COALESCE(sum(n), 0) FROM public.quick WHERE event_type = '$_[0]')); }

sub define_quick
{
	return define('quick', 'INSERT INTO public.quick AS t SELECT event_type, count(*) FROM new_events GROUP BY 1
		ON CONFLICT (event_type) DO UPDATE SET n = t.n + excluded.n');
}

# What is wrong with a quick report beside one that sleeps for three seconds.
sub beside_a_sleeper
{
	my @took;

	define('sleeper', q(INSERT INTO public.sleeper SELECT log_seq, event_key FROM new_events, pg_sleep(3) WHERE event_type = 'Tick'), ', from_now => true');
	define_quick();
	produce(event('Tick', 'first'));
	poll_until(sub { db('SELECT count(*) FROM public.sleeper') > 0 }, 120, 'the slow one is applied');
	foreach my $i (1 .. 5)
	{
		produce(event('Tick', $i));
		push @took, seconds(sub { poll_until(sub { quick('Tick') == $i + 1 }, 60, 'the quick one is applied') });
	}
	note 'quick beside a report that sleeps for 3 s: ', join ' ', map { sprintf '%.2f s', $_ } @took;
	return (sort { $a <=> $b } @took)[2] < 2 ? '' : "it takes @took";
}

# What is wrong with a report that begins anew while its dead letters are tried again.
sub retried_beside_a_rebuild
{
	define('once', q(INSERT INTO public.once SELECT event_key, 1 FROM new_events WHERE event_type = 'Once'), ', from_now => true');
	produce(event('Once', 'x'), event('Once', 'y'), event('Once', 'x'));
	applied();
	return 'not refused' if db(q(SELECT count(*) FROM report.dead_letters WHERE report = 'once')) != 2;

	# as a rebuild does it: the report comes by the refused events again
	db(q(ALTER TABLE public.once DROP CONSTRAINT once_key_check;
		BEGIN; TRUNCATE public.once; SELECT report.retry();
		UPDATE report.applied SET applied_seq = (SELECT start_seq FROM report.definitions WHERE definitions.name = 'once') WHERE name = 'once'; COMMIT;
		SELECT report.enable('once')));
	poll_until(sub { db(q(SELECT count(*) FROM report.dead_letters WHERE report = 'once')) == 0 }, 60, 'no letter is left');
	applied();
	my $keys = db(q(SELECT string_agg(key, ' ' ORDER BY key) FROM public.once));
	return $keys eq 'x x y' ? '' : "applied were $keys";
}

$kafka->create_topic($topic);
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
db(q{CREATE EXTENSION carshop_outbox;
	CREATE TABLE public.quick (event_type text PRIMARY KEY, n bigint);
	CREATE TABLE public.upsert (key text PRIMARY KEY, v bigint);
	CREATE TABLE public.sleeper (log_seq bigint PRIMARY KEY, key text)});
define_quick();

# ---- a key twice in a batch ----

define('upsert', q(INSERT INTO public.upsert SELECT event_key, (data ->> 'v')::bigint FROM new_events WHERE event_type = 'Set'
	ON CONFLICT (key) DO UPDATE SET v = excluded.v));
db('SELECT report.stop()');
my $first = $numbers;
produce(map { event('Set', $_ % 10) } 1 .. 20_000);
my $last = $numbers;
my $started = time;
db('SELECT report.start()');
applied();
is(db('SELECT count(*), min(v), max(v) FROM public.upsert'), join('|', 10, $last - 9, $last), '20,000 updates of 10 rows: the newest stands');
note sprintf 'applied after %.1f s', time - $started;
my ($runs, $ms) = split /\|/, db(q(SELECT runs, round(total_ms) FROM report.stat_reports WHERE name = 'upsert'));
note "$runs runs, $ms ms";
is(db(q(SELECT events, dead_letters FROM report.stat_reports WHERE name = 'upsert')), '20000|0', 'each event was given to it once');
cmp_ok($runs, '<=', 2_500, 'in pieces as long as there are keys');
like(status('%key%'), qr/^warn: Report "upsert" takes one event of a key at a time .* -> .*DISTINCT ON \(key\) \.\.\. FROM new_events ORDER BY key, log_seq DESC/,
	'the status says it, with the pattern');
is(db(q(SELECT count(*) FROM report.status WHERE message LIKE '%one event of a key%')), 1, 'once');
define('upsert', q(INSERT INTO public.upsert SELECT DISTINCT ON (event_key) event_key, (data ->> 'v')::bigint FROM new_events WHERE event_type = 'Set'
	ORDER BY event_key, log_seq DESC ON CONFLICT (key) DO UPDATE SET v = excluded.v));
is(status('%one event of a key%'), '', 'no more, with the pattern');
produce(map { event('Set', $_ % 10) } 1 .. 100);
applied();
is(status('%one event of a key%'), '', 'which needs no event by event');

# the statement's key is not the event's: single events, which is right as well
define('upsert', q(INSERT INTO public.upsert SELECT 'all', (data ->> 'v')::bigint FROM new_events WHERE event_type = 'Set'
	ON CONFLICT (key) DO UPDATE SET v = upsert.v + excluded.v));
db('SELECT report.stop()');
produce(map { event('Set', $_, $_) } 1 .. 600);
db('SELECT report.start()');
applied();
is(db(q(SELECT v FROM public.upsert WHERE key = 'all')), 600 * 601 / 2, 'a key of its own, met in every event');

# an event that fails among them
define('upsert', q(INSERT INTO public.upsert SELECT event_key, 100 / (data ->> 'v')::bigint FROM new_events WHERE event_type = 'Set'
	ON CONFLICT (key) DO UPDATE SET v = upsert.v + excluded.v));
db('TRUNCATE public.upsert; SELECT report.stop()');
produce(map { event('Set', $_ % 3, $_ % 700 == 5 ? 0 : 100) } 1 .. 2100);
db('SELECT report.start()');
applied();
is(db('SELECT sum(v) FROM public.upsert'), 2097, 'what comes before and after it is applied once');
is(db(q(SELECT count(*), min(sqlstate) FROM report.dead_letters WHERE report = 'upsert')), '3|22012', 'it is a dead letter');
db(q(SELECT report.drop('upsert')));

# ---- one that sleeps ----

is(beside_a_sleeper(), '', 'a report that sleeps for three seconds holds up no other');
cmp_ok(db('SELECT count(*) FROM public.sleeper'), '<', 6, 'it is behind meanwhile');
is(db(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'carshop_outbox catch-up')), 1, 'in a process of its own');
applied();
is(db('SELECT count(*), count(DISTINCT key) FROM public.sleeper'), '6|6', 'and has each event once in the end');
is(status('%of their own%'), '', 'nothing to complain about');

# the time is the definition's; and the process ends when nothing is behind
define('sleeper', q(INSERT INTO public.sleeper SELECT log_seq, event_key FROM new_events, pg_sleep(3) WHERE event_type = 'Tick'), q(, timeout => '100ms'));
produce(event('Tick', 'in time'));
poll_until(sub { status('%sleeper%') =~ /is tried again: Canceling statement due to statement timeout \(1 event\(s\), 100 ms allowed: timeout of report\.define\)/ }, 60, 'it is told that the time is over');
is(quick('Tick'), 7, 'the other one goes on');
define('sleeper', q(INSERT INTO public.sleeper SELECT log_seq, event_key FROM new_events, pg_sleep(0) WHERE event_type = 'Tick'), q(, timeout => '1 min'));
applied();
is(db(q(SELECT count(*), (SELECT timeout FROM report.definitions WHERE name = 'sleeper') FROM public.sleeper)), '7|00:01:00', 'with more time it is applied');
poll_until(sub { db(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'carshop_outbox catch-up')) == 0 }, 60, 'the process ends');

# ---- a lock on its target ----

my $holder = $node->background_psql('shop', on_error_die => 1);
$holder->query_safe('BEGIN; LOCK TABLE public.sleeper');
produce(event('Tick', 'locked out'));
poll_until(sub { quick('Tick') == 8 }, 60, 'a lock on one target holds up no other');
$holder->query_safe('COMMIT');
$holder->quit;
applied();
is(db('SELECT count(*) FROM public.sleeper'), 8, 'it is applied when the lock is gone');

# ---- a database is dropped under its feet ----

define('sleeper', q(INSERT INTO public.sleeper SELECT log_seq, event_key FROM new_events, pg_sleep(30) WHERE event_type = 'Tick'));
produce(event('Tick', 'asleep'));
poll_until(sub { db(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'carshop_outbox catch-up' AND wait_event = 'PgSleep')) == 1 }, 60, 'it sleeps again');
$node->safe_psql('postgres', 'ALTER DATABASE shop RENAME TO store');
$node->safe_psql('postgres', 'ALTER DATABASE store RENAME TO shop');
poll_until(sub { eval { db(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'carshop_outbox catch-up')) == 1 } }, 60, 'the process left for a command, and came back');
db(q(SELECT report.stop()));
poll_until(sub { db(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'carshop_outbox catch-up')) == 0 }, 60, 'report.stop() ends it, too');
define('sleeper', q(INSERT INTO public.sleeper SELECT log_seq, event_key FROM new_events WHERE event_type = 'Tick'));
db(q(SELECT report.start()));
applied();
is(db('SELECT count(*), count(DISTINCT log_seq) FROM public.sleeper'), db(q(SELECT count(*), count(*) FROM report.reported_events WHERE event_type = 'Tick')), 'nothing is lost or doubled');

# ---- a batch that is too large for what the server has ----

db(q{CREATE TABLE public.modest (log_seq bigint);
	CREATE FUNCTION public.at_most(n bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN
		IF n > 300 THEN RAISE 'out of shared memory' USING ERRCODE = 'out_of_memory'; END IF;
		RETURN n;
	END $$});
define('modest', q(INSERT INTO public.modest SELECT log_seq FROM new_events, (SELECT public.at_most(count(*)) FROM new_events) n WHERE event_type = 'Many'), ', from_now => true');
db('SELECT report.stop()');
produce(map { event('Many', $_) } 1 .. 2000);
db('SELECT report.start()');
applied();
is(db('SELECT count(*) FROM public.modest'), 2000, 'it is cut until there is enough for it');
db(q(SELECT report.drop('modest')));

# ---- from now ----

db(q{CREATE TABLE public.late (event_type text)});
define('late', 'INSERT INTO public.late SELECT event_type FROM new_events', ', from_now => true');
is(db(q(SELECT start_seq = (SELECT max(log_seq) FROM report.reported_events) FROM report.definitions WHERE name = 'late')), 't', 'its beginning is kept');
produce(event('Now', 1));
applied();
is(db('SELECT string_agg(event_type, \' \') FROM public.late'), 'Now', 'a report from now on has what comes from now on');
define('late', 'INSERT INTO public.late SELECT lower(event_type) FROM new_events', ', from_now => true');
produce(event('Now', 1));
applied();
is(db('SELECT string_agg(event_type, \' \' ORDER BY event_type COLLATE "C") FROM public.late'), 'Now now', 'replaced, it goes on where it stands');

# ---- too many refusals ----

$node->safe_psql('postgres', q{ALTER SYSTEM SET carshop_outbox.report_max_failures = 20; SELECT pg_reload_conf()});
db(q{CREATE TABLE public.strict (key text PRIMARY KEY CHECK (key = 'good'), v bigint)});
define('strict', q(INSERT INTO public.strict AS t SELECT event_key, max((data ->> 'v')::bigint) FROM new_events WHERE event_type = 'Strict' GROUP BY 1
	ON CONFLICT (key) DO UPDATE SET v = excluded.v WHERE excluded.v > t.v), ', from_now => true');
produce((map { event('Strict', 'bad') } 1 .. 15), event('Strict', 'good'), map { event('Strict', "bad") } 1 .. 40);
poll_until(sub { status('%strict%') =~ /^fail/ }, 120, 'it stops');
like(status('%strict%'), qr/Report "strict" has failed: It has refused 20 events in a row \(carshop_outbox\.report_max_failures\), the last one with 23514: .* -> SELECT report\.enable\('strict'\); SELECT report\.retry\(id\)/,
	'and the status says why, and what to do');
is(db(q(SELECT count(*) FROM report.dead_letters WHERE report = 'strict')), 35, 'the table is not filled; one that is good begins the count anew');
produce(event('Tick', 'beside'));
applied();
pass('the others go on');

# retry, after successors: guarded by the value, it is right
db(q(ALTER TABLE public.strict DROP CONSTRAINT strict_key_check; SELECT report.enable('strict'); SELECT report.retry()));
poll_until(sub { db(q(SELECT count(*) FROM report.dead_letters WHERE report = 'strict')) == 0 }, 60, 'all are tried');
applied();
is(db(q(SELECT string_agg(key || ' ' || (v = (SELECT max((data ->> 'v')::bigint) FROM report.reported_events WHERE event_key = key AND event_type = 'Strict')), ', ' ORDER BY key) FROM public.strict)),
	'bad true, good true', 'a dead letter tried after its successors leaves the newest');

# ---- exactly once ----

db(q{CREATE TABLE public.once (key text CHECK (key <> 'x'), n bigint)});
is(retried_beside_a_rebuild(), '', 'a retry beside a rebuild applies once');

# one whose event has left the log is applied from the letter
db(q{ALTER TABLE public.once ADD CONSTRAINT no_z CHECK (key <> 'z')});
produce(event('Once', 'z'));
poll_until(sub { db(q(SELECT count(*) FROM report.dead_letters WHERE report = 'once')) == 1 }, 60, 'refused');
db(q{DELETE FROM report.reported_events WHERE event_key = 'z'; ALTER TABLE public.once DROP CONSTRAINT no_z; SELECT report.retry()});
poll_until(sub { db(q(SELECT count(*) FROM report.dead_letters WHERE report = 'once')) == 0 }, 60, 'tried');
is(db(q(SELECT count(*) FROM public.once WHERE key = 'z')), 1, 'an event that has left the log is applied from its dead letter');

# ---- many are tried again ----

# so slow that each takes nearly all the time that a report has among the others
db(q{CREATE TABLE public.heavy (key text CHECK (key <> 'h')); CREATE TABLE public.light (key text CHECK (key <> 'l'))});
define($_->[0], qq(INSERT INTO public.$_->[0] SELECT event_key FROM new_events, pg_sleep($_->[1]) WHERE event_key = '$_->[2]'), ', from_now => true')
  foreach [ 'heavy', 0.7, 'h' ], [ 'light', 0, 'l' ];
my $letters = q(SELECT count(*) FROM report.dead_letters WHERE report = ');
produce((map { event('Heavy', 'h') } 1 .. 8), event('Light', 'l'));
poll_until(sub { db("${letters}heavy'") == 8 && db("${letters}light'") == 1 }, 180, 'all are refused');
applied();
my $ticks = quick('Tick');
db(q(ALTER TABLE public.heavy DROP CONSTRAINT heavy_key_check; ALTER TABLE public.light DROP CONSTRAINT light_key_check;
	SELECT report.retry(id) FROM report.dead_letters WHERE report = 'heavy'));
poll_until(sub { db("${letters}heavy'") < 8 }, 60, 'some are tried');
cmp_ok(db("${letters}heavy'"), '>', 0, 'a few at a time, between what the others do');
produce(event('Tick', 'between'));
poll_until(sub { quick('Tick') == $ticks + 1 && db("${letters}heavy'") == 0 }, 120, 'all are tried');
is(db('SELECT count(*) FROM public.heavy'), 8, 'each once');

# more than are tried at once, of a report that somebody holds: the others' are tried
db(q(INSERT INTO report.dead_letter (topic, partition, kafka_offset, report, sqlstate, message, value, log_seq)
	SELECT d.topic, d.partition, d.kafka_offset, 'heavy', d.sqlstate, d.message, NULL, 0 FROM report.dead_letter d, generate_series(1, 150) WHERE d.report = 'light';
	UPDATE report.dead_letter SET id = DEFAULT WHERE report = 'light'));
$holder = $node->background_psql('shop', on_error_die => 1);
$holder->query_safe(q(BEGIN; SELECT FROM report.applied WHERE name = 'heavy' FOR UPDATE));
db('SELECT report.retry()');
poll_until(sub { db("${letters}light'") == 0 }, 60, 'the letter of the other report is tried');
is(db('SELECT count(*) FROM public.light') . ' ' . db("${letters}heavy'"), '1 150', 'dead letters of a report that is held do not keep those of others from being tried');
$holder->query_safe('ROLLBACK');
$holder->quit;
db(q(DELETE FROM report.dead_letter; SELECT report.drop('heavy'), report.drop('light')));

# ---- bytes that can be read ----

$kafka->produce($topic, "caf\xc3\xa9 {");
$kafka->produce($topic, "caf\xe9 {");
$kafka->produce($topic, "\x00\x00\x00\x00\x05binary");
poll_until(sub { db(q(SELECT count(*) FROM report.dead_letters WHERE report IS NULL)) == 3 }, 60, 'three that are no events');
is(db(q(SELECT COALESCE(value_text, 'no text') FROM report.dead_letters WHERE report IS NULL ORDER BY kafka_offset)), "caf\xc3\xa9 {\nno text\nno text",
	'the text is readable where it is text');

# ---- no process to be had ----

$node->safe_psql('postgres', q{ALTER SYSTEM SET max_worker_processes = 3});
$node->restart;
define('sleeper', q(INSERT INTO public.sleeper SELECT log_seq, event_key FROM new_events, pg_sleep(2) WHERE event_type = 'Tick'));
produce(event('Tick', 'crowded'));
poll_until(sub { status('%of their own%') =~ /^warn: 1 report\(s\).* -> ALTER SYSTEM SET max_worker_processes = 7; -- then restart the server/ }, 60, 'the status says that a process is missing');
applied();
is(db(q(SELECT count(*) FROM public.sleeper WHERE key = 'crowded')), 1, 'the reporter serves it itself');
no_crash($node);
$node->stop;

# ---- can this test fail? ----

SKIP:
{
	skip Mutants::missing(), 2 if Mutants::missing();
	foreach my $mutant (qw(no_budget retry_anyway))
	{
		my $broken = Carshop->new_node($mutant, kafka => $kafka,
			conf => { '.shop_databases' => '', '.report_databases' => 'shop', '.report_topics' => $mutant });

		$broken->append_conf('postgresql.conf', Mutants::conf($mutant));
		$broken->start;
		$kafka->create_topic($mutant);
		($node, $topic) = ($broken, $mutant);
		$broken->safe_psql('postgres', 'CREATE DATABASE shop');
		db(q{CREATE EXTENSION carshop_outbox;
			CREATE TABLE public.quick (event_type text PRIMARY KEY, n bigint);
			CREATE TABLE public.sleeper (log_seq bigint, key text);
			CREATE TABLE public.once (key text CHECK (key <> 'x'), n bigint)});
		isnt($mutant eq 'no_budget' ? beside_a_sleeper() : retried_beside_a_rebuild(), '', "$mutant is noticed");
		$broken->stop('immediate');
	}
}

done_testing();
