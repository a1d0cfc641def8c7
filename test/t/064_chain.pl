# Reports that publish: Kafka -> SQL -> Kafka.  A report's statement calls
# outbox.emit; offsets, rows and the outgoing events are of one transaction.
#
# First what such an event says, what a refused event leaves, and that no report is
# given what it has caused itself.  Then a chain of three stages through three topics
# and three databases, while processes are killed and the server is stopped: what was
# committed in the first is in each topic once, in order, and in the last report.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Checker qw(audit_ok);
use IPC::Run ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Reader;
use Test::More;
use Time::HiRes qw(time usleep);
use Tools;
use Workload;

my $seed = $ENV{CARSHOP_TEST_SEED} // int(time() * 1000) % 1_000_000;
note("CARSHOP_TEST_SEED=$seed");
srand($seed);

# Each reads its topics and publishes into one of them.
my %reads = (play => 'play, far', shop => 'c', middle => 'a', last => 'b');
my %writes = (play => 'play', shop => 'a', middle => 'b', last => 'c');
my @databases = sort keys %reads;

my $kafka = Carshop::Kafka->start;
$kafka->create_topic($_, 2) foreach qw(a b c);
my $node = Carshop->new_node(
	'chain',
	kafka => $kafka,
	conf => {
		'restart_after_crash' => 'on',
		# a commit that need not wait for the disk is not there for long
		'wal_writer_delay' => '10s',
		'max_worker_processes' => '16',
		'.allowed_topics' => 'far',
		'.shop_databases' => join(',', @databases),
		'.report_databases' => join(',', @databases) });
$node->start;
foreach my $database (@databases)
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql('postgres', "ALTER DATABASE $database SET carshop_outbox.report_topics = '$reads{$database}'");
	$node->safe_psql('postgres', "ALTER DATABASE $database SET carshop_outbox.topic = '$writes{$database}'");
	$node->safe_psql($database, 'CREATE EXTENSION carshop_outbox');
}

# The answer, or nothing when there is none now.
sub ask
{
	my ($database, $query) = @_;
	my ($answer, $error);
	my @command = ($node->installed_command('psql'), '-XAtq', '-d', $node->connstr($database), '-v', 'ON_ERROR_STOP=1', '-c', $query);

	return if !eval { IPC::Run::run(\@command, '<', \undef, '>', \$answer, '2>', \$error, IPC::Run::timeout(60)) };
	chomp $answer;
	return $answer;
}

sub ask_until
{
	my ($database, $query, $wanted) = @_;
	return poll_until(sub { (ask($database, $query) // '') eq $wanted }, 180, "$database: $query");
}

# What was committed in a database is in Kafka, and what is there is applied.
sub moved
{
	my ($from, $to) = @_;

	ask_until($from, q{SELECT outbox.wait_published('5s')}, 't');
	ask_until($to, q{SELECT report.wait_applied(NULL, '5s')}, 't');
	return;
}

# ---- what such an event says ----

# Not a superuser: the right is EXECUTE on outbox.emit.
$node->safe_psql('play', q{
	CREATE ROLE forwarder;
	GRANT EXECUTE ON FUNCTION outbox.emit TO forwarder;
	GRANT EXECUTE ON FUNCTION report.define(text, text, regclass, text, interval, boolean), report.allow_loops(text, boolean) TO forwarder;
	CREATE SCHEMA f AUTHORIZATION forwarder;
	SET ROLE forwarder;
	CREATE TABLE f.sent (cause uuid, emitted uuid);
	CREATE TABLE f.total (n bigint);
	-- the second part writes an event whatever there is
	SELECT report.define('it''s forwarding', $$
		WITH total AS (INSERT INTO f.total SELECT count(*) FROM new_events WHERE event_type = 'Asked'
			RETURNING outbox.emit('Total', key => 'all'))
		INSERT INTO f.sent
		SELECT id, outbox.emit('Forwarded', data, event_key, topic => 'far', caused_by => id)
		FROM new_events WHERE event_type = 'Asked' ORDER BY log_seq
		$$, 'f.sent');
});
is($node->safe_psql('play', 'SELECT count(*) FROM outbox.event'), 0, 'the check of a definition writes nothing');

my $trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
my $asked = query_value($node, 'play', qq{SET carshop_outbox.traceparent = '$trace'; SELECT outbox.emit('Asked', '{"n": 1}', 'k')});
ask_until('play', 'SELECT count(*) FROM f.sent', '1');
moved('play', 'play');
my ($forwarded) = $kafka->read_topic('far');
my $identity = query_value($node, 'play', 'SELECT identity FROM report.definitions');
my $label = "it%27s%20forwarding\@$identity";
is($forwarded->{headers}{'caused-by'}, $asked, 'caused-by is the id of the causing event');
is($forwarded->{headers}{'caused-by-report'}, $label, 'caused-by-report is the report');
is($forwarded->{headers}{traceparent}, $trace, 'the trace goes on');
like($forwarded->{value}, qr/"EventType":"Forwarded".*"Key":"k","Data":\{"n":1\}/, 'the event itself');
is($forwarded->{headers}{id}, query_value($node, 'play', 'SELECT emitted FROM f.sent'), 'emit answers its id');
my ($total) = grep { $_->{value} =~ /"Total"/ } $kafka->read_topic('play');
is($total->{headers}{'caused-by'}, undef, 'an event about several names no cause');
is($total->{headers}{'caused-by-report'}, $label, '... but its report');

# Once more in a database that went back in time: the same event, the same id.
$node->safe_psql('play', q{UPDATE report.applied SET applied_seq = 0; SELECT report.enable(name) FROM report.definitions});
ask_until('play', 'SELECT count(*), count(DISTINCT emitted) FROM f.sent', '2|1');
pass('an event that is made again has the id it had');
moved('play', 'play');
is($node->safe_psql('play', q{SELECT count(*) FROM report.reported_events WHERE event_type = 'Forwarded'}), 1, '... and is counted once');
$node->safe_psql('play', q{SELECT report.drop('it''s forwarding')});

# ---- what fails leaves nothing ----

$node->safe_psql('play', q{
	CREATE TABLE mended ();
	CREATE TABLE share (sent uuid, share integer);
	SELECT report.define('share', $$
		INSERT INTO public.share
		SELECT outbox.emit('Shared', data, event_key, caused_by => id),
			100 / CASE WHEN data->>'n' = '13' AND NOT EXISTS (SELECT FROM public.mended) THEN 0 ELSE 1 END
		FROM new_events WHERE event_type = 'Share'
		$$, 'share')});
$node->safe_psql('play', q{SELECT outbox.emit('Share', jsonb_build_object('n', n), n::text) FROM generate_series(1, 40) n});
ask_until('play', 'SELECT count(*) FROM report.dead_letters', '1');
ask_until('play', 'SELECT count(*) FROM share', '39');
moved('play', 'play');
my $shared = q{SELECT count(*), count(DISTINCT data->>'n') FROM report.reported_events WHERE event_type = 'Shared'};
is($node->safe_psql('play', $shared), '39|39', 'a batch that was cut for one event has sent the others once');
$node->safe_psql('play', 'INSERT INTO mended DEFAULT VALUES; SELECT report.retry()');
ask_until('play', 'SELECT count(*) FROM share', '40');
moved('play', 'play');
is($node->safe_psql('play', $shared), '40|40', '... and that one when it is tried again');

# made anew: what it had applied has published what comes of it, what lies behind not yet
my @sent = split /\n/, $node->safe_psql('play', 'SELECT sent FROM share');
$node->safe_psql('play', q{SELECT report.disable('share'); SELECT outbox.emit('Share', '{"n": 41}', '41')});
moved('play', 'play');
$node->safe_psql('play', q{SELECT report.rebuild('share'); SELECT report.enable('share')});
moved('play', 'play') foreach 1 .. 2;
is($node->safe_psql('play', $shared), '41|41', 'a rebuild publishes what was not applied before, and that alone');
is($node->safe_psql('play', q{SELECT count(*) FROM share WHERE sent IN ('} . join(q{','}, @sent) . q{')}), 40, '... and its events have the ids they had');

# what was refused has sent nothing before a rebuild makes it good; what a rebuild refuses has
my $sent_of = q{SELECT count(*), count(DISTINCT id) FROM outbox.event WHERE type = 'Shared'};
$node->safe_psql('play', q{DELETE FROM mended; SELECT outbox.emit('Share', '{"n": 13}', '42')});
ask_until('play', 'SELECT count(*) FROM report.dead_letters', '1');
$node->safe_psql('play', q{INSERT INTO mended DEFAULT VALUES; SELECT report.rebuild('share')});
is($node->safe_psql('play', $sent_of), '42|42', 'an event that was a dead letter before a rebuild is sent by it');
$node->safe_psql('play', q{DELETE FROM mended; SELECT report.rebuild('share'); INSERT INTO mended DEFAULT VALUES; SELECT report.retry()});
ask_until('play', 'SELECT count(*) FROM share', '42');
ask_until('play', 'SELECT count(*) FROM report.dead_letters', '0');
is($node->safe_psql('play', $sent_of), '42|42', '... one that was refused by it is not sent again');

# an event that is refused is the fault of the one it comes of
$node->safe_psql('play', q{
	CREATE TABLE grown (id uuid);
	SELECT report.define('grow', $$
		INSERT INTO public.grown SELECT outbox.emit('Grown', to_jsonb(repeat('x', (data->>'size')::integer)), event_key, caused_by => id)
		FROM new_events WHERE event_type = 'Grow'
		$$, 'grown');
	SELECT outbox.emit('Grow', jsonb_build_object('size', size)) FROM unnest('{1, 2000000, 2}'::integer[]) size});
ask_until('play', 'SELECT count(*) FROM grown', '2');
ask_until('play', 'SELECT sqlstate FROM report.dead_letters', 'OB002');
pass('an event that may not be sent is a dead letter');

# ---- what a report has caused does not come back to it ----

sub count_events
{
	my ($type) = @_;
	return $node->safe_psql('play', "SELECT count(*) FROM report.reported_events WHERE event_type = '$type'");
}

$node->safe_psql('play', q{
	CREATE TABLE echo (id uuid);
	SELECT report.define('echo', $$
		INSERT INTO public.echo SELECT outbox.emit('Echo', data, event_key, caused_by => id)
		FROM new_events WHERE event_type IN ('Call', 'Echo')
		$$, 'echo');
	CREATE TABLE ping (id uuid);
	SELECT report.define('ping', $$
		INSERT INTO public.ping SELECT outbox.emit('Pong', data, event_key, topic => 'far', caused_by => id)
		FROM new_events WHERE event_type = 'Ping'
		$$, 'ping');
	CREATE TABLE pong (id uuid);
	SELECT report.define('pong', $$
		INSERT INTO public.pong SELECT outbox.emit('Ping', data, event_key, caused_by => id)
		FROM new_events WHERE event_type = 'Pong'
		$$, 'pong');
	CREATE TABLE mirrored (key text PRIMARY KEY);
	SELECT outbox.capture('mirrored', 'Mirrored');
	SELECT report.define('mirror', $$
		INSERT INTO public.mirrored SELECT event_key || '+' FROM new_events WHERE event_type = 'Mirrored'
		$$, 'mirrored')});
$node->safe_psql('play', q{
	SELECT outbox.emit('Call'), outbox.emit('Ping'), outbox.emit('Mirrored', key => 'k'); SELECT report.wait_applied()});
ask_until('play', 'SELECT count(*) FROM pong', '1');
ask_until('play', 'SELECT count(*) FROM mirrored', '1');
# a consequence that came back would have come with these
moved('play', 'play') foreach 1 .. 3;
is(count_events('Echo'), 1, 'a report is not given what it has emitted');
is(count_events('Ping') . count_events('Pong'), '21', '... nor what another one has made of that');
is(count_events('Mirrored'), 2, '... nor what a route makes of the rows that it writes');
is($node->safe_psql('play', q{SELECT headers ? 'caused-by', headers->>'caused-by-report' LIKE 'mirror@%' FROM report.reported_events WHERE event_key = 'k+'}),
	'f|t', 'a route\'s event names the report');
$node->safe_psql('play', q{SELECT report.allow_loops('echo'); SELECT outbox.emit('Call')});
ask_until('play', q{SELECT count(*) FROM report.dead_letters WHERE report = 'echo'}, '1');
is(count_events('Echo'), 17, 'with loops allowed it is, sixteen times');
like($node->safe_psql('play', q{SELECT message FROM report.dead_letters WHERE report = 'echo'}),
	qr/^event "Echo" has come through report "echo" 16 times$/, '... and then it is a dead letter that says so');
$node->safe_psql('play', 'SELECT report.stop()');

# ---- a chain under kills ----

Workload::install($node, 'shop', keys => 100);
foreach my $stage ([ middle => 'StockChanged', 'StockSeen' ], [ last => 'StockSeen', 'StockHeard' ])
{
	my ($database, $reads, $makes) = @$stage;

	$node->safe_psql($database, qq{
		CREATE TABLE forwarded (cause uuid PRIMARY KEY, event uuid UNIQUE);
		SELECT report.define('forward', \$\$
			INSERT INTO public.forwarded
			SELECT id, outbox.emit('$makes', data - 'note', event_key, caused_by => id)
			FROM new_events WHERE event_type = '$reads' ORDER BY log_seq
			\$\$, 'forwarded')});
}
$node->safe_psql('shop', q{
	CREATE TABLE sums (key integer PRIMARY KEY, changes bigint, versions bigint, latest integer);
	SELECT report.define('sums', $$
		INSERT INTO public.sums AS old
		SELECT (data->>'key')::integer, count(*), sum((data->>'version')::integer), max((data->>'version')::integer)
		FROM new_events GROUP BY 1
		ON CONFLICT (key) DO UPDATE SET changes = old.changes + excluded.changes,
			versions = old.versions + excluded.versions, latest = greatest(old.latest, excluded.latest)
		$$, 'sums')});
my %live = map {
	$_ => Reader->start(program => Tools::program('reader'), brokers => $kafka->bootstrap, topic => $_,
		file => PostgreSQL::Test::Utils::tempdir() . "/live_$_")
} qw(a b c);

my $full = $ENV{CARSHOP_TEST_FULL};
my @strikes = shuffle((qw(relay reporter) x 2, 'server') x ($full ? 12 : 2));
my @writers = map {
	Workload->start($node, 'shop', seed => $seed + 100_000 * $_, most => 8, chunk => 20, pause => 0.02, asynchronous => $_ == 2)
} 1, 2;
foreach my $strike (@strikes)
{
	my $database = (qw(shop middle last))[ rand 3 ];

	if ($strike eq 'server')
	{
		usleep(rand(1_000_000));
		$node->stop('immediate');
		$node->start;
		next;
	}
	my $pid = poll_until(
		sub {
			my $found = ask('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'carshop_outbox $strike%' AND datname = '$database'");
			return $found && kill(0, $found) ? $found : undef;
		},
		120, "a $strike of $database");
	usleep(rand(1_000_000));
	note("kill the $strike of $database");
	kill 'KILL', $pid;
	poll_until(sub { !kill 0, $pid }, 60, 'it is gone');
	ask_until('postgres', 'SELECT 1', '1');
}
$_->stop foreach @writers;
moved('shop', 'middle');
moved('middle', 'last');
moved('last', 'shop');

my $truth = Workload::truth($node, 'shop');
cmp_ok(scalar keys %$truth, '>', 100, scalar(keys %$truth) . ' changes were committed');
foreach my $topic (qw(a b c))
{
	my $log = Reader->read_all(program => Tools::program('reader'), brokers => $kafka->bootstrap, topic => $topic,
		file => PostgreSQL::Test::Utils::tempdir() . "/all_$topic");

	$live{$topic}->wait_for('M', $log->count('M'), 60);
	$live{$topic}->stop;
	# what the reporter takes at once may end within a transaction of the shop
	audit_ok("topic $topic: each change once, in order", truth => $truth, log => $log, live => $live{$topic},
		$topic eq 'a' ? () : (whole => 1));
}
is($node->safe_psql('shop', 'SELECT * FROM sums ORDER BY key'),
	$node->safe_psql('shop', 'SELECT key, count(*), sum(version), max(version) FROM shop.truth GROUP BY key ORDER BY key'),
	'the report at the end of the chain equals the truth at its beginning');
foreach my $database (qw(middle last))
{
	is($node->safe_psql($database, 'SELECT count(*) FROM report.dead_letters') . $node->safe_psql($database, q{SELECT count(*) FROM report.status WHERE level = 'fail'}),
		'00', "$database: nothing was refused, nothing fails");
}
no_crash($node);
$node->stop;
done_testing();
