# Administration is not in the way.  Commands that need a database for themselves
# (DROP, RENAME, SET TABLESPACE, CREATE DATABASE ... TEMPLATE) make its relay and its
# reporter leave in the middle of their work, and both come back if the database is
# still there and still named; nothing is lost or doubled.  ALLOW_CONNECTIONS false
# ends them until it is true again.  A copy that such a command makes has the
# lineage of its original and does not publish.  Who may not run the command makes
# nobody leave; a command that fails, is rolled back or terminated lets them come
# back.  A worker that waits for a synchronous standby stays.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Checker qw(audit_ok audit_reports);
use PostgreSQL::Test::Utils;
use Reader;
use Test::More;
use Time::HiRes qw(time);
use Tools;
use Workload;

use constant EVENTS => 4000;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
# Small Kafka transactions: there is one open whenever a command comes.
my $node = Carshop->new_node('administration', kafka => $kafka,
	conf => { '.shop_databases' => 'shop, mart, copy_wal, copy_file', '.report_databases' => 'shop, mart, copy_wal',
		'.max_transaction_events' => 50, '.report_batch_events' => 200, '.topic_partitions' => 2,
		'max_worker_processes' => 16, 'wal_level' => 'replica', 'max_wal_senders' => 4 });
$node->start;

my $dir = PostgreSQL::Test::Utils::tempdir();
my %tablespace = map { $_ => "$dir/$_" } qw(aisle);
foreach my $name (keys %tablespace)
{
	mkdir $tablespace{$name} or die "$tablespace{$name}: $!";
	$node->safe_psql('postgres', "CREATE TABLESPACE $name LOCATION '$tablespace{$name}'");
}

sub log_lines
{
	my ($pattern, $from) = @_;

	return grep { $_ =~ $pattern } split /\n/, substr(slurp_file($node->logfile), $from // 0);
}

sub log_end { return -s $node->logfile; }

# ---- a database that is made comes at once; the workers wait for it ----

my $name = 'shop';				# what it is called now
poll_until(sub { log_lines(qr/database "shop" .* does not exist/) == 2 }, 30, 'no database yet');
my $began = time;
$node->safe_psql('postgres', q{
	CREATE ROLE keeper LOGIN CREATEDB;
	CREATE ROLE guest LOGIN CREATEDB;
	CREATE DATABASE shop OWNER keeper});
wait_for_worker($node, 'relay', 'shop');
cmp_ok(time - $began, '<', 20, 'CREATE DATABASE: what is named is looked for at once');
$node->safe_psql('shop', 'CREATE EXTENSION carshop_outbox');
Workload::install($node, 'shop');
$node->safe_psql('shop', q{
	CREATE TABLE public.stock_sums (key integer PRIMARY KEY, changes bigint, versions bigint, latest integer);
	CREATE FUNCTION public.slowly() RETURNS integer LANGUAGE sql AS 'SELECT 1';
	SELECT report.define('stock_sums', $$
		INSERT INTO public.stock_sums AS old
		SELECT (data->>'key')::integer, count(*), sum((data->>'version')::integer), max((data->>'version')::integer)
		FROM new_events WHERE event_type = 'StockChanged' AND public.slowly() = 1 GROUP BY 1
		ON CONFLICT (key) DO UPDATE SET changes = old.changes + excluded.changes,
			versions = old.versions + excluded.versions, latest = greatest(old.latest, excluded.latest)
		$$, 'public.stock_sums')});

my $works = 0;
my %pid;

sub work
{
	my ($events) = @_;

	Workload::work($node, $name, events => $events, seed => 1000 * ++$works);
}

work(20);
is(query_value($node, $name, q{SELECT outbox.wait_published('60s')}), 't', 'the first events make the topic');
my @reader = (program => Tools::program('reader'), brokers => $kafka->bootstrap, topic => $topic);
my $live = Reader->start(@reader, file => "$dir/live");

sub know_workers
{
	%pid = map { $_ => wait_for_worker($node, $_, $name) } qw(relay reporter);
}

# Both are in the middle of a backlog.
sub busy
{
	$node->safe_psql($name, 'SELECT outbox.pause()');
	poll_until(sub { query_value($node, $name, 'SELECT state FROM outbox.stat_relay') eq 'paused' }, 30, 'the relay pauses');
	work(EVENTS);
	know_workers();
	my $before = query_value($node, $name, 'SELECT events_published FROM outbox.stat_relay');

	$node->safe_psql($name, 'SELECT outbox.resume()');
	poll_until(sub { query_value($node, $name, 'SELECT events_published FROM outbox.stat_relay') > $before + 200 }, 30, 'the relay is busy');
}

# All is published and applied.
sub drained
{
	my ($database, $reports_only) = @_;

	foreach my $wait ($reports_only ? () : q{outbox.wait_published('5s')}, q{report.wait_applied(NULL, '5s')})
	{
		my $start = time;

		poll_until(sub { query_value($node, $database, "SELECT $wait") eq 't' }, 60, "$database: $wait");
		note(sprintf '%s: %s: %.1f s', $database, $wait, time - $start);
	}
}

# Other processes than before.
sub come_back
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $kind (qw(relay reporter))
	{
		ok(wait_for_worker($node, $kind, $name, $pid{$kind}), "$what: the $kind comes back");
	}
	know_workers();
}

# A command while both are busy.
sub administer
{
	my ($what, $command, $after) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	busy();
	my $from = log_end();
	my $start = time;
	ref $command ? $command->() : $node->safe_psql('postgres', $command);
	note(sprintf '%s: %.0f ms', $what, (time - $start) * 1000);
	$name = $after if defined $after;
	come_back($what);
	is(scalar(log_lines(qr/leaves: a command needs/, $from)), 2, "$what: both left by themselves");
	is(scalar(log_lines(qr/FATAL|ERROR|exited with/, $from)), 0, "$what: and that is no failure")
	  or diag(join "\n", log_lines(qr/FATAL|ERROR|exited with/, $from));
}

# ---- commands ----

administer('RENAME', 'ALTER DATABASE shop RENAME TO mart', 'mart');
$node->safe_psql('postgres', 'ALTER DATABASE mart RENAME TO shop');
$name = 'shop';
come_back('RENAME back');
administer('SET TABLESPACE', 'ALTER DATABASE shop SET TABLESPACE aisle');
administer('SET TABLESPACE back', 'ALTER DATABASE shop SET TABLESPACE pg_default');
$node->safe_psql('postgres', 'DROP TABLESPACE aisle');

# A name that nobody wants; a name that somebody does.
busy();
my $from = log_end();
$node->safe_psql('postgres', 'ALTER DATABASE shop RENAME TO nobodys');
poll_until(sub { log_lines(qr/database "shop" .* does not exist/, $from) == 2 }, 30, 'the launcher has looked');
is(join(',', worker_pids($node, '', 'nobodys')), '', 'RENAME to a name that is not wanted: nobody works there');
cmp_ok(query_value($node, 'nobodys', 'SELECT outbox.count_unconfirmed()'), '>', 0, 'they have left in the middle of a backlog');
$node->safe_psql('postgres', 'ALTER DATABASE nobodys RENAME TO shop');
come_back('RENAME to one that is wanted');

# Kafka does not answer while its transaction is open.
busy();
kill 'STOP', $kafka->pid;
$node->safe_psql($name, 'SELECT shop.change(1, 10, ' . ++$works . ')');
$began = time;
$node->safe_psql('postgres', 'ALTER DATABASE shop RENAME TO mart');
cmp_ok(time - $began, '<', 8, 'RENAME while Kafka hangs: both leave all the same');
$name = 'mart';
come_back('while Kafka hangs');
kill 'CONT', $kafka->pid;
administer('RENAME back', 'ALTER DATABASE mart RENAME TO shop', 'shop');

# ---- copies ----

sub stopped_as_copy
{
	my ($copy) = @_;

	poll_until(
		sub {
			query_value($node, $copy, q{SELECT message FROM outbox.status WHERE concern = 'divergence' AND message LIKE '%another server%'});
		}, 60, "the relay of $copy finds that it is a copy");
	is(query_value($node, $copy, q{SELECT (SELECT state FROM outbox.stat_relay), (SELECT events_published FROM outbox.stat_relay)}), 'stopped|0',
		"$copy: the relay stops, it works for a copy");
	is(query_value($node, $copy, 'SELECT lineage FROM outbox.lineage'), query_value($node, $name, 'SELECT lineage FROM outbox.lineage'),
		'which has the lineage of the original');
}

administer('CREATE DATABASE, by WAL', 'CREATE DATABASE copy_wal TEMPLATE shop OWNER keeper STRATEGY wal_log');
stopped_as_copy('copy_wal');
# Its reporter is another reader of the topic, from where the original's stood.
drained($name);
drained('copy_wal', 'reports only');
is($node->safe_psql('copy_wal', 'TABLE public.stock_sums ORDER BY key'), $node->safe_psql($name, 'TABLE public.stock_sums ORDER BY key'),
	'copy_wal: its reports go on by themselves, and say the same');
administer('CREATE DATABASE, by files', 'CREATE DATABASE copy_file TEMPLATE shop STRATEGY file_copy');
stopped_as_copy('copy_file');
administer('createdb', sub { $node->command_ok([ 'createdb', '-T', 'shop', 'copy_plain' ], 'createdb -T') });

# ---- DROP ----

foreach my $drop (
	[ 'copy_wal', 'DROP DATABASE ... WITH (FORCE), by its owner',
		sub { $node->safe_psql('postgres', 'DROP DATABASE copy_wal WITH (FORCE)', extra_params => [ '-U', 'keeper' ]) } ],
	[ 'copy_file', 'DROP DATABASE', sub { $node->safe_psql('postgres', 'DROP DATABASE copy_file') } ],
	[ 'copy_plain', 'dropdb', sub { $node->command_ok([ 'dropdb', 'copy_plain' ], 'dropdb') } ])
{
	my ($copy, $what, $command) = @$drop;
	my $kinds = $copy eq 'copy_wal' ? 2 : $copy eq 'copy_file' ? 1 : 0;

	$from = log_end();
	$command->();
	poll_until(sub { log_lines(qr/database "$copy" .* does not exist/, $from) == $kinds }, 30, 'the launcher has looked');
	$node->reload;
	my $nobody = "nobody_" . ++$works;
	$node->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.shop_databases = 'shop, mart, copy_wal, copy_file, $nobody'");
	$node->reload;
	poll_until(sub { log_lines(qr/database "$nobody"/, $from) }, 30, 'and again');
	is(scalar(log_lines(qr/launcher .*database "$copy"/, $from)), $kinds, "$what: told once for each setting");
	is(scalar(log_lines(qr/FATAL|ERROR|exited with/, $from)), 0, "$what: the workers are gone in peace")
	  or diag(join "\n", log_lines(qr/FATAL|ERROR|exited with/, $from));
}

# ---- ALLOW_CONNECTIONS, IS_TEMPLATE ----

busy();
$from = log_end();
$node->safe_psql('postgres', 'ALTER DATABASE shop ALLOW_CONNECTIONS false');
is(query_value($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'}), 0, 'a closed database: both have left');
poll_until(sub { log_lines(qr/database "shop" .* does not accept connections/, $from) == 2 }, 30, 'the launcher has looked');
$node->safe_psql('postgres', "CREATE DATABASE sample TEMPLATE shop");
$node->safe_psql('postgres', "DROP DATABASE sample");
$node->reload;
my $nobody = "nobody_" . ++$works;
$node->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.shop_databases = 'shop, mart, $nobody'");
$node->reload;
poll_until(sub { log_lines(qr/database "$nobody"/, $from) }, 30, 'and again');
is(scalar(log_lines(qr/database "shop"/, $from)), 2, 'a closed database: told once for each setting, whatever happens to it');
is(scalar(log_lines(qr/FATAL|ERROR|exited with/, $from)), 0, 'a closed database: nobody tries to get in');
$node->safe_psql('postgres', 'ALTER DATABASE shop ALLOW_CONNECTIONS true');
come_back('an open database');

my %before = %pid;
$node->safe_psql('postgres', 'ALTER DATABASE shop IS_TEMPLATE true');
my ($status, $output, $error) = $node->psql('postgres', 'DROP DATABASE shop');
like($error, qr/cannot drop a template database/, 'a template cannot be dropped');
know_workers();
is_deeply(\%pid, \%before, 'nor does that make anybody leave');
foreach my $command ('CREATE DATABASE sample TEMPLATE shop', 'DROP DATABASE sample')
{
	$node->safe_psql('postgres', $command, extra_params => [ '-U', 'guest' ]);
}
come_back('a template that others copy');
$node->safe_psql('postgres', 'ALTER DATABASE shop IS_TEMPLATE false');

# ---- who may not, what cannot be ----

sub refused
{
	my ($what, $pattern, $command, @as) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %known = %pid;

	my (undef, undef, $words) = $node->psql('postgres', $command, extra_params => \@as);
	like($words, $pattern, "$what: refused");
	know_workers();
	is_deeply(\%pid, \%known, "$what: nobody leaves");
}

foreach my $command ('DROP DATABASE shop', 'DROP DATABASE shop WITH (FORCE)', 'ALTER DATABASE shop RENAME TO mine',
	'ALTER DATABASE shop SET TABLESPACE pg_global', 'ALTER DATABASE shop ALLOW_CONNECTIONS false', 'CREATE DATABASE mine TEMPLATE shop')
{
	refused("guest: $command", qr/must be owner|permission denied/, $command, '-U', 'guest');
}
$node->safe_psql('postgres', 'ALTER ROLE keeper NOCREATEDB');
refused('an owner without CREATEDB', qr/permission denied/, $_, '-U', 'keeper')
  foreach 'ALTER DATABASE shop RENAME TO mine', 'CREATE DATABASE mine TEMPLATE shop';
refused('a name that is taken', qr/already exists/, $_)
  foreach 'ALTER DATABASE shop RENAME TO postgres', 'CREATE DATABASE postgres TEMPLATE shop';
refused('in a transaction', qr/cannot run inside a transaction block/, "BEGIN; $_")
  foreach 'DROP DATABASE shop', 'CREATE DATABASE mine TEMPLATE shop', 'ALTER DATABASE shop SET TABLESPACE pg_global';

# Another session is connected: it fails, for the reason that it has without us.
my $session = $node->background_psql($name);
(undef, undef, $error) = $node->psql('postgres', 'DROP DATABASE shop');
like($error, qr/is being accessed by other users.*There is 1 other session/s, 'another session: DROP DATABASE fails');
come_back('another session');
$session->quit;

# ---- open transactions ----

my $administrator = $node->background_psql('postgres');
$administrator->query_safe('BEGIN');
$administrator->query_safe('ALTER DATABASE shop RENAME TO mart');
is(query_value($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname IN ('shop', 'mart')}), 0, 'an open RENAME: both have left');
$administrator->query_safe('ROLLBACK');
come_back('ROLLBACK');

$administrator->query_safe('BEGIN');
$administrator->query_safe('SAVEPOINT a');
$administrator->query_safe('ALTER DATABASE shop RENAME TO mart');
$administrator->query_safe('ROLLBACK TO SAVEPOINT a');
come_back('ROLLBACK TO SAVEPOINT, while the transaction goes on');
$administrator->query_safe('COMMIT');

# It locks the database for those who connect; the workers wait for that, and who
# asks them then, asks workers that are connecting.
$administrator->query_safe(q{BEGIN});
$administrator->query_safe(q{ALTER DATABASE shop RENAME TO mart});
$administrator->query_safe(q{PREPARE TRANSACTION 'rename'});
my $connecting = q{SELECT string_agg(pid::text, ',') FROM pg_locks WHERE classid = 'pg_database'::regclass AND NOT granted AND mode = 'RowExclusiveLock'};
my $waiting;
poll_until(sub { ($waiting = query_value($node, 'postgres', $connecting) // '') =~ /,/ }, 30, 'both wait for the lock');
my $maker = $node->background_psql('postgres');
$maker->query_until(qr/begun/, "\\echo begun\nCREATE DATABASE sample TEMPLATE shop;\n");
# others may wait there soon
poll_until(sub { query_value($node, 'postgres', "SELECT count(*) FROM pg_locks WHERE pid IN ($waiting)") == 0 }, 30, 'both have left');
pass('workers that are connecting leave');
$administrator->query_safe(q{ROLLBACK PREPARED 'rename'});
$maker->quit;
come_back('after workers that were connecting');
is(query_value($node, 'postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'sample'}), 1, 'the copy was made');
$node->safe_psql('postgres', 'DROP DATABASE sample');

# ---- in the middle of SQL ----

my $sleeping = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'carshop_outbox reporter' AND wait_event = 'PgSleep'};

$node->safe_psql($name, q{CREATE OR REPLACE FUNCTION public.slowly() RETURNS integer LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(600)'});
work(100);
foreach my $round (1, 2)
{
	poll_until(sub { query_value($node, 'postgres', $sleeping) == 1 }, 30, 'a report takes long');
	know_workers();
	$began = time;
	$node->safe_psql('postgres', $round == 1 ? 'ALTER DATABASE shop RENAME TO mart' : 'ALTER DATABASE mart RENAME TO shop');
	cmp_ok(time - $began, '<', 5, 'a report that takes long is interrupted');
	$name = $round == 1 ? 'mart' : 'shop';
	come_back('in the middle of SQL');
	$node->safe_psql($name, q{CREATE OR REPLACE FUNCTION public.slowly() RETURNS integer LANGUAGE sql AS 'SELECT 1'}) if $round == 1;
}

# ---- a synchronous standby that does not answer ----

sub standbys
{
	my ($names) = @_;

	$node->safe_psql('postgres', "SET synchronous_commit = local; ALTER SYSTEM SET synchronous_standby_names = '$names'");
	$node->reload;
	poll_until(sub { query_value($node, 'postgres', q{SELECT current_setting('synchronous_standby_names') || '.'}) eq "$names." }, 30, 'the reload');
}

sub sql_of
{
	my ($what) = @_;

	return query_value($node, 'postgres', "SELECT $what FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE%' AND backend_type = 'client backend'");
}

know_workers();
standbys('nobody');
poll_until(
	sub {
		$node->safe_psql($name, 'SET synchronous_commit = local; SELECT shop.change(1, 1, ' . ++$works . ')');
		(query_value($node, 'postgres', "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid{relay}") // '') eq 'SyncRep';
	}, 30, 'the relay waits for the standby');
$from = log_end();
$administrator->query_until(qr/begun/, "\\echo begun\nALTER DATABASE shop RENAME TO mart;\n");
poll_until(sub { (sql_of('wait_event') // '') =~ /^(?:Extension|CarshopStepAside)$/ && !worker_pids($node, 'reporter', $name) }, 30, 'the command waits, the reporter has left');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE%' AND backend_type = 'client backend'});
ok(wait_for_worker($node, 'reporter', $name, $pid{reporter}), 'terminated while it waits: the reporter comes back');
is((worker_pids($node, 'relay', $name))[0], $pid{relay}, 'the relay has stayed');
eval { $administrator->quit };

($status, $output, $error) = $node->psql('postgres', 'ALTER DATABASE shop RENAME TO mart');
like($error, qr/database "shop" is being accessed by other users.*There is 1 other session/s, 'a worker that waits for a standby stays, and PostgreSQL says so');
is((worker_pids($node, 'relay', $name))[0], $pid{relay}, 'it waits on');
is(scalar(log_lines(qr/canceling the wait for synchronous replication/, $from)), 0, 'its commit is not taken for done');
standbys('');
is(query_value($node, $name, q{SELECT outbox.wait_published('30s')}), 't', 'without the standby it goes on');
is((worker_pids($node, 'relay', $name))[0], $pid{relay}, 'the same relay');

# ---- nothing lost, nothing doubled ----

work(1000);
drained($name);
my $log = Reader->read_all(@reader, file => "$dir/committed");
my $uncommitted = Reader->read_all(@reader, file => "$dir/uncommitted", isolation => 'read_uncommitted');
$live->wait_for('M', $log->count('M'), 30);
$live->stop;
note('events of aborted Kafka transactions: ' . ($uncommitted->count('M') - $log->count('M')));
audit_ok('each committed event is there once', truth => Workload::truth($node, $name), log => $log, live => $live);
is_deeply(
	audit_reports(
		events => [ split /\n/, $node->safe_psql($name, 'SELECT id, partition, kafka_offset FROM report.reported_events') ],
		offsets => [ split /\n/, $node->safe_psql($name, 'SELECT partition, next_offset FROM report.progress') ],
		log => $log,
		sums => [ split /\n/, $node->safe_psql($name, 'SELECT key, changes, versions, latest FROM public.stock_sums ORDER BY key') ],
		direct => [ split /\n/, $node->safe_psql($name, 'SELECT key, count(*), sum(version), max(version) FROM shop.truth GROUP BY key ORDER BY key') ]),
	[], 'and each stands in the reports once');
is(query_value($node, $name, q{SELECT string_agg(message, ', ') FROM outbox.status WHERE level = 'fail'}), undef, 'the status has nothing to complain about');

no_crash($node);
$node->stop;
done_testing();
