# report.rebuild and report.as_of against a real broker: readers and the other
# reports go on while a rebuild is under way, its progress is seen, whatever ends it
# leaves the former content, and what it makes is what the reporter made event by
# event.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use IPC::Run;
use Mutants;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop', 'restart_after_crash' => 'on', 'max_connections' => 30 });
$node->start;
$kafka->create_topic($topic, 2);

sub db { return $node->safe_psql('shop', $_[0]); }

my $n = 0;

# So many events of the car shop, or of a type, read by the reporter or not yet.
sub produce
{
	my ($count, $only) = @_;

	foreach my $partition (0, 1)
	{
		my @values;
		foreach my $i (grep { $_ % 2 == $partition } $n + 1 .. $n + $count)
		{
			my $id = sprintf '01998a5e-0000-7000-8000-%012d', $i;
			my $day = 1 + $i % 28;
			my $car = $i % 500;
			my ($type, $data) =
				$i % 3 == 0 ? ('CarSold', qq({"Name":"c$car","LegPower":5,"HandPower":$i,"CarNumber":$car}))
			  : $i % 3 == 1 ? ('CustomerAdded', qq({"Name":"c$car","LegPower":$i,"HandPower":6,"CarNumber":null}))
			  :				  ('CarAdded', qq({"Number":$car,"Engine":"{\\"\$type\\":\\"PedalEngineEntity\\",\\"PedalSize\\":$i}"}));
			push @values, sprintf qq({"EventType":"%s","EventDescription":"d","OccuredOn":"2026-11-%02dT20:27:03Z","EventId":"%s","Key":"%d","Data":%s}),
			  $only // $type, $day, $id, $car, $data;
		}
		$kafka->produce_lines_to($topic, $partition, @values);
	}
	$n += $count;
	return;
}

sub applied { return all_applied($node, 'shop') }

# A session that does one thing while others do theirs.
sub session
{
	my ($sql) = @_;
	my %session = (out => '', err => '', in => $sql);

	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('shop') ],
		'<', \$session{in}, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

sub ended
{
	my ($session) = @_;

	IPC::Run::finish($session->{run});
	return $session->{err} eq '' || $session->{err} !~ /ERROR|FATAL|lost|closed/ ? "ok $session->{out}" : $session->{err};
}

# All rows of a report's table; what it was made of, applied once more.
sub content { return db("SELECT to_jsonb(t) FROM $_[0] t ORDER BY 1") }
sub computed { return db("SELECT r FROM report.as_of('$_[0]', (SELECT max(log_seq) FROM report.reported_events)) r ORDER BY 1") }

my @car_shop = qw(events_by_day cars customers sales_by_day);

# ---- the first run, then the same again ----

sub install
{
	$node->safe_psql('postgres', 'CREATE DATABASE shop');
	db(q{
		CREATE EXTENSION carshop_outbox;
		CREATE TABLE gated (event_type text PRIMARY KEY, events bigint NOT NULL);
		-- whoever holds this lock holds up the report's statement in a rebuild
		CREATE FUNCTION gate() RETURNS bigint LANGUAGE plpgsql AS $$
		BEGIN
			IF EXISTS (SELECT FROM report.rebuilds() WHERE pid = pg_catalog.pg_backend_pid()) THEN
				PERFORM pg_catalog.pg_advisory_xact_lock_shared(63);
			END IF;
			RETURN 0;
		END $$;
	});
	return;
}

sub define_gated
{
	db(q{SELECT report.define('gated', $$
		INSERT INTO public.gated AS t SELECT event_type, count(*) + public.gate() FROM new_events GROUP BY 1
		ON CONFLICT (event_type) DO UPDATE SET events = t.events + excluded.events
	$$, 'gated')});
	applied();
	return;
}

install();
my $first = $ENV{CARSHOP_TEST_FULL} ? 200_000 : 20_000;
produce($first);
my $started = time;
db('SELECT report.create_car_shop()');
applied();
my $took = time - $started;
is(db('SELECT sum(events) FROM report.events_by_day'), $n, 'the reporter has made the reports');
my %made = map { $_ => content("report.$_") } @car_shop;

$started = time;
is(db(join ';', map { "SELECT report.rebuild('$_')" } @car_shop), join("\n", ($n) x 4), 'each is rebuilt from all events');
my $again = time - $started;
note sprintf 'first run %.1f s (%.0f events/s), four rebuilds %.1f s (%.0f events/s): %.1f times as fast',
  $took, $n / $took, $again, $n / $again, $took / $again;
is(content("report.$_"), $made{$_}, "and is what the reporter had made of them: $_") foreach @car_shop;
is(computed($_), $made{$_}, "so is what is computed beside the table: $_") foreach @car_shop;
is(db(q(SELECT string_agg(DISTINCT state, ',') FROM report.stat_reports)), 'current', 'the reporter has nothing to do');

# ---- while a rebuild is under way ----

define_gated();
my $true = 'SELECT event_type, count(*) FROM report.reported_events GROUP BY 1 ORDER BY 1';
my $shown = 'SELECT * FROM gated ORDER BY 1';
my $before = db($shown);
is($before, db($true), 'a report that can be held up');

my $lock;

# Begin a rebuild that stands still in its statement.
sub hold_up
{
	$lock = session("SELECT pg_advisory_lock(63), 'locked';\n");
	IPC::Run::pump($lock->{run}) until $lock->{out} =~ /locked/;
	my $rebuild = session("SELECT report.rebuild('gated');\n");
	# input is sent, and the session ends when it is done
	$rebuild->{run}->pump_nb;
	poll_until(
		sub {
			$rebuild->{run}->pump_nb;
			return db(q(SELECT count(*) FROM report.rebuilds() r JOIN pg_locks l USING (pid) WHERE l.locktype = 'advisory' AND NOT l.granted)) eq '1';
		}, 60, 'the rebuild is under way');
	return $rebuild;
}

sub let_go
{
	$lock->{in} .= "SELECT pg_advisory_unlock(63);\n\\q\n";
	IPC::Run::finish($lock->{run});
	return;
}

my $rebuild = hold_up();
is(db($shown), $before, 'readers see the former content');
is(db(q(SELECT state, rebuild_done, rebuild_total FROM report.stat_reports WHERE name = 'gated')), "rebuilding|0|$n", 'its progress is seen');
is(db(q(SELECT level, message FROM report.status WHERE concern = 'reports')), 'ok|5 report(s) are kept.', 'and it is no trouble');
my ($reset_rc, $reset_out, $reset_err) = $node->psql('shop', 'SELECT report.stat_reset()', timeout => 60);
like($reset_err, qr/NOTICE:  the counters of reports that are being rebuilt or changed now are left as they are/, 'the counters of the others are reset meanwhile');
is(db(q(SELECT bool_and(events = 0) FROM report.applied WHERE name <> 'gated')), 't', 'without waiting for it');
produce(3000, 'Traffic');
poll_until(sub { db('SELECT sum(events) FROM report.events_by_day') eq $n }, 60, 'other reports go on');
pass('the other reports go on');
is(db($shown), $before, 'the former content is still there');
is(db(q(SELECT report.wait_applied(timeout => '100ms'))), 'f', 'who waits for all reports waits for it as well');
let_go();
is(ended($rebuild), "ok $n\n", 'it takes what came meanwhile');
applied();
is(db($shown), db($true), 'it is complete, each event once');
is(db('SELECT count(*) FROM report.rebuilds()'), 0, 'nothing is under way');

# ---- whatever ends it leaves the former content ----

foreach my $way (qw(cancel terminate kill9))
{
	$before = db($shown);
	my $dead_seq = db(q(SELECT applied_seq FROM report.applied WHERE name = 'gated'));
	$rebuild = hold_up();
	my $pid = db('SELECT pid FROM report.rebuilds()');
	if ($way eq 'kill9')
	{
		kill 'KILL', $pid or die "no process $pid";
		eval { IPC::Run::finish($_->{run}) } foreach $rebuild, $lock;
		poll_until(sub { ((eval { $node->psql('shop', 'SELECT 1') })[0] // 1) == 0 }, 60, 'the server is back');
	}
	else
	{
		db("SELECT pg_${way}_backend($pid)");
		like(ended($rebuild), qr/canceling statement due to user request|terminating connection/, "$way ends it");
		let_go();
	}
	is(db($shown), $before, "$way: the former content is there");
	is(db(q(SELECT applied_seq FROM report.applied WHERE name = 'gated')), $dead_seq, "$way: and where it stands");
	is(db('SELECT count(*) FROM report.rebuilds()'), 0, "$way: nothing is under way");
	produce(100);
	applied();
	is(db($shown), db($true), "$way: the reporter goes on with it");
}

# ---- several at once, under traffic ----

my @sessions = map { session("SELECT report.rebuild('events_by_day');\nSELECT report.rebuild('cars');\nSELECT report.rebuild('gated');\n") } 1 .. 3;
produce(2000);
like(ended($_), qr/^ok \d+\n\d+\n\d+\n$/, 'rebuilds of the same reports at once wait for each other') foreach @sessions;
applied();
is(db('SELECT sum(events) FROM report.events_by_day'), $n, 'each event is counted once');
is(db($shown), db($true), 'in the other report, too');
is(content("report.$_"), computed($_), "and $_ is what the log says") foreach @car_shop;

# ---- dead letters ----

db(q{
	CREATE TABLE picky (log_seq bigint PRIMARY KEY, CONSTRAINT picked CHECK (log_seq % 5000 <> 0));
	SELECT report.define('picky', 'INSERT INTO public.picky SELECT log_seq FROM new_events', 'picky');
});
applied();
my $letters = q(SELECT array_agg(log_seq ORDER BY log_seq) FROM report.dead_letter WHERE report = 'picky');
my $refused = db($letters);
like($refused, qr/^\{5000,10000,15000,/, 'a report refuses some events');
my $rows = db('SELECT count(*) FROM picky');
is(db(q(SELECT report.rebuild('picky'))), $rows, 'a rebuild has the others');
is(db($letters), $refused, 'and refuses the same ones, once each');
db('SELECT report.stop(); ALTER TABLE picky DROP CONSTRAINT picked; SELECT report.retry()');
db(q(SELECT report.rebuild('picky'); SELECT report.start()));
applied();
is(db($letters), '', 'rebuilt before they were tried again: nothing is left to try');
is(db('SELECT count(*) = count(DISTINCT log_seq) AND count(*) = (SELECT count(*) FROM report.reported_events) FROM picky'), 't', 'and each is there once');

# ---- an earlier content ----

my $half = db('SELECT max(log_seq) / 2 FROM report.reported_events');
is(db("SELECT sum((r ->> 'events')::bigint) FROM report.as_of('events_by_day', $half) r"),
	db("SELECT count(*) FROM report.reported_events WHERE log_seq <= $half"), 'as of an event');
my $at = db("SELECT received_at FROM report.reported_events WHERE log_seq = $half");
is(db("SELECT sum((r ->> 'events')::bigint) FROM report.as_of('events_by_day', timestamptz '$at') r"),
	db("SELECT count(*) FROM report.reported_events WHERE received_at <= '$at'"), 'as of a time');
is(db('SELECT sum(events) FROM report.events_by_day'), $n, 'the table has not changed');

is(db("SELECT count(*), count(DISTINCT r) FROM report.as_of('picky', $half) r"), "$half|$half", 'of a large table, too');

# ---- the log has lost its beginning ----

db(q{
	DELETE FROM report.reported_events WHERE log_seq <= 1000;
	CREATE OR REPLACE FUNCTION report.event_log_removed_before() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 1001::bigint';
});
my ($rc, $out, $err) = $node->psql('shop', q(SELECT report.rebuild('gated')));
like($err, qr/cannot be rebuilt completely: the event log has lost what stood before log_seq 1001.*HINT:  SELECT report.rebuild\('gated', allow_partial => true\)/s,
	'a rebuild that would lose something is refused');
is(db('SELECT sum(events) FROM gated'), $n, 'nothing has happened');
($rc, $out, $err) = $node->psql('shop', q(SELECT report.as_of('gated', 5000)));
like($err, qr/cannot be computed: the event log has lost what stood before log_seq 1001/, 'so is an earlier content');
is(db(q(SELECT report.rebuild('gated', allow_partial => true))), db('SELECT count(*) FROM report.reported_events'), 'unless it is wanted');
is(db($shown), db($true), 'it is made of what is left');

$node->stop;

# ---- a build that goes on with a report that is being rebuilt ----

SKIP:
{
	skip Mutants::missing(), 1 if Mutants::missing();
	my $mutant = 'rebuild_unlocked';
	$node = Carshop->new_node($mutant, kafka => $kafka, conf => { '.shop_databases' => '', '.report_databases' => 'shop' });
	$node->append_conf('postgresql.conf', Mutants::conf($mutant));
	$node->start;
	install();
	db('SELECT report.create_car_shop()');
	define_gated();
	$rebuild = hold_up();
	produce(10, 'Twice');
	poll_until(sub { db(q(SELECT sum(events) FROM report.events_by_day WHERE event_type = 'Twice')) eq '10' }, 60, 'other reports go on');
	let_go();
	ended($rebuild);
	applied();
	isnt(db(q(SELECT events FROM gated WHERE event_type = 'Twice')), 10, "$mutant is noticed");
	$node->stop;
}

done_testing();
