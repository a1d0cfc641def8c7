# Whose rights the code around reports runs with, and what becomes of offsets and rows
# under faults: they agree, whatever ends, locks, refuses or is missing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop', '.report_batch_events' => '500', 'restart_after_crash' => 'on' });
my $sent = 0;

sub db { return $node->safe_psql('shop', $_[0]) }
sub ask { return query_value($node, 'shop', $_[0]) }

# So many events, in both partitions.
sub produce
{
	my ($n) = @_;

	foreach my $partition (0, 1)
	{
		my @numbers = grep { $_ % 2 == $partition } $sent + 1 .. $sent + $n;
		$kafka->produce_lines_to($topic, $partition, map {
			my $key = $_ % 20;
			sprintf qq({"EventType":"T%d","EventDescription":"d","OccuredOn":"2026-11-22T20:27:03Z","EventId":"01998a5e-0000-7000-8000-%012d","Key":"%d","Data":{"id":%d,"n":%d}}), $_ % 3, $_, $key, $key, $_
		} @numbers);
	}
	$sent += $n;
	return;
}

sub applied { return all_applied($node, 'shop') }

sub stopped
{
	my ($report) = @_;
	return poll_until(sub { ask("SELECT state FROM report.stat_reports WHERE name = '$report'") eq 'failed' }, 60, "$report stops");
}

$node->start;
$kafka->create_topic($topic, 2);
$node->safe_psql('postgres', 'CREATE DATABASE shop');
db(q{CREATE EXTENSION carshop_outbox; CREATE ROLE mallory; CREATE ROLE eve; CREATE SCHEMA mallory AUTHORIZATION mallory; CREATE SCHEMA eve AUTHORIZATION eve;
	GRANT USAGE ON SCHEMA eve, mallory TO PUBLIC;
	GRANT EXECUTE ON FUNCTION report.define, report.define_select, report.mirror, report.rebuild, report.as_of(text, bigint) TO mallory});

# ---- rights: every place where code of a table's owner can stand ----

db(q{
	SET ROLE eve;
	CREATE FUNCTION eve.spy(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE LOG 'spy: % as %', what, current_user; RETURN true; END $$;
	CREATE TABLE eve.names (id integer, name text);
	INSERT INTO eve.names VALUES (0, 'zero');
	GRANT SELECT ON eve.names TO mallory;
	SET ROLE mallory;
	CREATE DOMAIN mallory.watched AS text CHECK (eve.spy('domain'));
	CREATE FUNCTION mallory.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM eve.spy('operator'); RETURN $1 = $2; END $$;
	CREATE OPERATOR mallory.=== (FUNCTION = mallory.equal, LEFTARG = text, RIGHTARG = text);
	CREATE FUNCTION mallory.row_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM eve.spy(tg_when || ' ' || tg_level || ' trigger'); RETURN COALESCE(new, old); END $$;
	CREATE TABLE mallory.trap (
		type mallory.watched,
		n bigint CHECK (eve.spy('check')),
		d boolean DEFAULT eve.spy('default'),
		g boolean GENERATED ALWAYS AS (eve.spy('generated ' || (n < 0))) STORED);
	CREATE INDEX ON mallory.trap ((eve.spy('index expression ' || (n < 0))));
	CREATE INDEX ON mallory.trap (n) WHERE eve.spy('index predicate ' || (n < 0));
	CREATE TRIGGER before_row BEFORE INSERT OR DELETE ON mallory.trap FOR EACH ROW EXECUTE FUNCTION mallory.row_trigger();
	CREATE TRIGGER after_statement AFTER INSERT OR DELETE ON mallory.trap FOR EACH STATEMENT EXECUTE FUNCTION mallory.row_trigger();
	ALTER TABLE mallory.trap DISABLE TRIGGER before_row;
	SELECT report.define('trap', $$INSERT INTO mallory.trap (type, n)
		SELECT event_type, count(*) + (SELECT count(*) FROM eve.names) FROM new_events WHERE event_type OPERATOR(mallory.===) 'T1' GROUP BY 1$$, 'mallory.trap');
	ALTER TABLE mallory.trap ENABLE TRIGGER before_row;
	SELECT report.define_select('sums', 'SELECT event_type, sum((data ->> ''n'')::bigint) AS n, count(*) AS events FROM new_events GROUP BY 1', 'mallory.sums');
	CREATE TRIGGER sums_row BEFORE INSERT ON mallory.sums FOR EACH ROW EXECUTE FUNCTION mallory.row_trigger();
	CREATE TABLE mallory.newest (id integer PRIMARY KEY, n bigint CHECK (eve.spy('check of a mirror')));
	SELECT report.mirror('newest', 'mallory.newest');
	RESET ROLE;
	-- what somebody attaches to the log by accident is not executed
	ALTER TABLE report.reported_events ADD CHECK (eve.spy('check of the log')) NOT VALID;
	CREATE TRIGGER accident BEFORE INSERT ON report.reported_events FOR EACH ROW EXECUTE FUNCTION mallory.row_trigger();
	ALTER TABLE report.reported_events ENABLE ALWAYS TRIGGER accident;
});
my @places = ('domain', 'operator', 'check', 'default', 'generated', 'index expression', 'index predicate', 'BEFORE ROW trigger', 'AFTER STATEMENT trigger', 'check of a mirror');
my $offset = -s $node->logfile;

# What was seen since then, as "place as role".
sub spied
{
	my %seen = map { $_ => 1 } slurp_file($node->logfile, $offset) =~ /spy: (.*? as \w+)/g;
	my @places = sort keys %seen;
	return @places;
}

sub as_owner
{
	my ($what) = @_;
	my @seen = spied();

	is(join(', ', grep { !/ as mallory$/ } @seen), '', "$what: nothing runs with other rights than the owner's");
	foreach my $place (@places)
	{
		ok((grep { index($_, $place) == 0 } @seen), "$what: code at this place was executed: $place");
	}
	ok(!(grep { /of the log/ } @seen), "$what: nothing of the log's");
}

# A policy would leave rows out silently.
db(q{SET ROLE eve; CREATE TABLE eve.hidden (id integer); GRANT SELECT ON eve.hidden TO mallory; ALTER TABLE eve.hidden ENABLE ROW LEVEL SECURITY;
	CREATE POLICY look ON eve.hidden USING (eve.spy('policy'))});
like(($node->psql('shop', q{SET ROLE mallory; SELECT report.define('hidden', 'INSERT INTO mallory.trap (n) SELECT h.id FROM new_events, eve.hidden h', 'mallory.trap')}))[2],
	qr/would be affected by row-level security policy for table "hidden"/, 'what a policy would filter is refused when it is defined');

produce(100);
applied();
as_owner('the reporter');
$offset = -s $node->logfile;
db('SELECT report.rebuild(name) FROM report.definitions ORDER BY name');
as_owner("a superuser's rebuild");
$offset = -s $node->logfile;
is(ask(q{SELECT count(*) FROM report.as_of('sums', 100)}), 3, 'a superuser looks back');
is(join(', ', grep { !/ as mallory$/ } spied()), '', "and runs nothing but with the owner's rights");
db('DROP TRIGGER accident ON report.reported_events; ALTER TABLE report.reported_events DROP CONSTRAINT reported_events_check; SET ROLE mallory; ' .
	q{DROP TRIGGER before_row ON mallory.trap; DROP TRIGGER after_statement ON mallory.trap; ALTER TABLE mallory.newest DROP CONSTRAINT newest_check});

# ---- faults ----

db(q{CREATE TABLE public.total (n bigint, events bigint); INSERT INTO public.total VALUES (0, 0);
	SELECT report.define('total', 'UPDATE public.total t SET n = t.n + e.n, events = t.events + e.events FROM (SELECT sum((data ->> ''n'')::bigint) AS n, count(*) AS events FROM new_events) e WHERE e.events > 0', 'public.total');
	SELECT report.drop('trap')});
applied();

# All say the same: Kafka, the offsets, the log, the reports.
sub agree
{
	my ($what) = @_;
	my $sum = $sent * ($sent + 1) / 2;

	applied();
	is(ask('SELECT sum(next_offset) FROM report.progress'), $sent, "$what: the offsets");
	is(ask('SELECT count(*) FROM report.reported_events'), $sent, "$what: the log");
	is(ask(q{SELECT n || ' ' || events FROM public.total}), "$sum $sent", "$what: a statement");
	is(ask(q{SELECT sum(n) || ' ' || sum(events) FROM mallory.sums}), "$sum $sent", "$what: a SELECT");
	is(ask(q{SELECT count(*) FROM (
		SELECT id, n FROM mallory.newest EXCEPT
		(SELECT DISTINCT ON ((data ->> 'id')::int) (data ->> 'id')::int, (data ->> 'n')::bigint FROM report.reported_events ORDER BY (data ->> 'id')::int, log_seq DESC)) d}),
		0, "$what: a mirror");
	return;
}

sub ended
{
	my ($signal) = @_;
	my ($pid) = worker_pids($node, 'reporter', 'shop');

	produce(1000);
	if ($signal eq 'KILL') { kill9_worker($node, 'reporter', 'shop') }
	else { $node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)") }
	produce(500);
	poll_until(sub { ($node->psql('postgres', 'SELECT 1'))[0] == 0 }, 60, 'the server is there');
	wait_for_worker($node, 'reporter', 'shop', $pid);
	return;
}

my @faults = (
	[ 'the reporter is told to end', sub { ended('TERM') } ],
	[ 'the reporter is killed', sub { ended('KILL') } ],
	[ 'the server is gone at once', sub { produce(1000); $node->stop('immediate'); $node->start } ],
	[ 'a target is dropped', sub {
		db('DROP TABLE public.total');
		produce(500);
		stopped('total');
		is(ask('SELECT sum(events) FROM mallory.sums') > 0, 1, 'the others go on');
		db(q{CREATE TABLE public.total (n bigint, events bigint); INSERT INTO public.total VALUES (0, 0);
			SELECT report.drop('total'), report.define('total', 'UPDATE public.total t SET n = t.n + e.n, events = t.events + e.events FROM (SELECT sum((data ->> ''n'')::bigint) AS n, count(*) AS events FROM new_events) e WHERE e.events > 0', 'public.total')});
	} ],
	[ 'a column is renamed', sub {
		db('ALTER TABLE public.total RENAME n TO m');
		produce(500);
		stopped('total');
		db(q{ALTER TABLE public.total RENAME m TO n; SELECT report.enable('total')});
	} ],
	[ 'the target becomes another one\'s', sub {
		db('ALTER TABLE mallory.newest OWNER TO eve');
		produce(500);
		stopped('newest');
		db(q{ALTER TABLE mallory.newest OWNER TO mallory; SELECT report.enable('newest')});
	} ],
	[ 'rights are taken away', sub {
		db('CREATE TABLE public.looked_up AS SELECT 1 AS a; ALTER TABLE public.looked_up OWNER TO eve; GRANT SELECT ON public.looked_up TO mallory;' .
			q{CREATE TABLE mallory.with_rights (n bigint); ALTER TABLE mallory.with_rights OWNER TO mallory; SET ROLE mallory;
			SELECT report.define('rights', 'INSERT INTO mallory.with_rights SELECT count(*) FROM new_events, public.looked_up HAVING count(*) > 0', 'mallory.with_rights');
			RESET ROLE; REVOKE ALL ON public.looked_up FROM mallory});
		produce(500);
		stopped('rights');
		db(q{GRANT SELECT ON public.looked_up TO mallory; SELECT report.enable('rights')});
		applied();
		is(ask('SELECT sum(n) FROM mallory.with_rights'), $sent, 'nothing is missing afterwards');
		db(q{SELECT report.drop('rights')});
	} ],
	[ 'the disk is full, as far as the table can tell', sub {
		db(q{CREATE FUNCTION public.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
			CREATE TRIGGER full_disk BEFORE UPDATE ON public.total EXECUTE FUNCTION public.full()});
		produce(500);
		poll_until(sub { ask(q{SELECT last_error FROM report.stat_reports WHERE name = 'total'}) =~ /could not extend file/ }, 60, 'it is said');
		is(ask(q{SELECT count(*) FROM report.dead_letters}), 0, 'no event is to blame');
		db('DROP TRIGGER full_disk ON public.total');
	} ],
	[ 'a reader and the report wait for each other', sub {
		my $reader = $node->background_psql('shop');

		db('CREATE TABLE public.gate (a int); INSERT INTO public.gate VALUES (1);' .
			q{CREATE FUNCTION public.through() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM public.gate FOR UPDATE; RETURN new; END $$;
			CREATE TRIGGER gate AFTER UPDATE ON public.total EXECUTE FUNCTION public.through()});
		$reader->query_safe('BEGIN; SELECT * FROM public.gate FOR UPDATE');
		produce(500);
		poll_until(sub { ask(q{SELECT count(*) FROM pg_locks WHERE NOT granted}) > 0 }, 60, 'the report waits for the reader');
		# either of them is ended by deadlock_timeout or lock_timeout; the report is tried again
		$reader->query('SELECT count(*) FROM (SELECT FROM public.total FOR UPDATE) t');
		$reader->query('ROLLBACK');
		$reader->quit;
		db('DROP TRIGGER gate ON public.total');
	} ],
	[ 'the broker restarts', sub { produce(500); $kafka->kill9; $kafka->restart; produce(500) } ]);

foreach my $fault (@faults)
{
	my ($what, $strike) = @$fault;

	produce(200);
	$strike->();
	agree($what);
}
is(ask('SELECT count(*) FROM report.dead_letters'), 0, 'no dead letters');

$node->stop('immediate');
done_testing();
