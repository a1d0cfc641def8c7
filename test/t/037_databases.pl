# A server's databases come and go.  The places in shared memory that they take
# are given back and begin anew; a database that only commits prepared
# transactions takes none.  What keeps a worker from being started is logged once,
# while the others work, and heals by itself.  CREATE EXTENSION starts the workers
# that wait for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('databases', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => '', '.max_databases' => 2, 'max_worker_processes' => 12 });
$node->start;

sub set
{
	my (%settings) = @_;

	$node->safe_psql('postgres', join '', map { "ALTER SYSTEM SET carshop_outbox.$_ = '$settings{$_}';\n" } keys %settings);
	$node->reload;
}

sub logged
{
	my ($pattern) = @_;

	return scalar grep { $_ =~ $pattern } split /\n/, slurp_file($node->logfile);
}

# A database that captures one table.
sub create
{
	my ($name) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	return capture_item($name);
}

sub capture_item
{
	my ($name) = @_;

	return $node->safe_psql($name, q{
		CREATE EXTENSION carshop_outbox;
		CREATE TABLE public.item (id integer PRIMARY KEY);
		SELECT outbox.capture('public.item', 'ItemAdded', 'insert')});
}

sub publishes
{
	my ($name, $what) = @_;

	$node->safe_psql($name, 'INSERT INTO public.item SELECT coalesce(max(id), 0) + 1 FROM public.item');
	poll_until(sub { query_value($node, $name, q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, $what);
	is(query_value($node, $name, 'SELECT events_published FROM outbox.stat_relay'),
		query_value($node, $name, 'SELECT count(*) FROM outbox.event'), $what);
}

# ---- more databases, one after another, than there are places ----

foreach my $n (1 .. 5)
{
	create("run_$n");
	set(shop_databases => "run_$n");
	publishes("run_$n", "database $n publishes");
	is($node->safe_psql("run_$n", 'SELECT (SELECT count(*) FROM outbox.event_0), (SELECT stats_reset IS NULL FROM outbox.stat_relay)'),
		'1|t', 'as if it were the first');
	# What it leaves behind must not become the next one's.
	$node->safe_psql("run_$n", q{
		SELECT outbox.stat_reset(), outbox.switch_segment();
		BEGIN; INSERT INTO public.item VALUES (100); PREPARE TRANSACTION 'p';
		COMMIT PREPARED 'p'});
	is(query_value($node, "run_$n", 'SELECT count(*) FROM outbox.event_1'), 1, 'it goes on in its second segment');
	$node->safe_psql('postgres', "DROP DATABASE run_$n WITH (FORCE)");
}

# ---- who takes none ----

foreach my $n (1 .. 3)
{
	$node->safe_psql('postgres', "CREATE DATABASE plain_$n");
	$node->safe_psql("plain_$n", q{
		BEGIN; CREATE TABLE public.t (id integer); PREPARE TRANSACTION 'p';
		COMMIT PREPARED 'p'});
}
create('one');
create('two');
set(shop_databases => 'one, two');
publishes('one', 'COMMIT PREPARED elsewhere takes no place: one database publishes');
publishes('two', 'and another');

# ---- all are taken ----

create('three');
my $full = qr/WARNING: +could not start the relay for database "three"/;
set(shop_databases => 'one, two, three');
poll_until(sub { logged($full) }, 30, 'it is logged that there is no room');
like(slurp_file($node->logfile), qr/DETAIL: +2 databases use carshop_outbox.*\n.*HINT: +Raise carshop_outbox.max_databases/, 'with the remedy');
publishes('one', 'the others publish');
$node->safe_psql('three', q{INSERT INTO public.item VALUES (100); SELECT outbox.wait_published('0s')});
is(query_value($node, 'three', 'SELECT count(*) FROM outbox.event'), 1, 'its events are stored');

# Looks again at each reload, and each time in vain.
foreach my $n (1 .. 3)
{
	my $seen = logged(qr/database "nobody_$n" .* does not exist/);

	set(shop_databases => "one, two, three, nobody_$n");
	poll_until(sub { logged(qr/database "nobody_$n" .* does not exist/) > $seen }, 30, 'the launcher has looked');
}
is(logged($full), 1, 'there is no room: logged once');
set(shop_databases => 'one, three');
$node->safe_psql('postgres', 'DROP DATABASE two WITH (FORCE)');
$node->reload;
publishes('three', 'the place of a dropped database is its');
is(logged(qr/another one works/), 0, 'nobody takes a missing place for another worker');

# ---- a database that lets nobody in ----

$node->safe_psql('postgres', 'ALTER DATABASE plain_1 ALLOW_CONNECTIONS false');
set(shop_databases => 'one, three, plain_1');
poll_until(sub { logged(qr/database "plain_1" .* does not accept connections/) }, 30, 'the closed database is logged');
$node->reload;
set(shop_databases => 'one, three, plain_1, nobody_4');
poll_until(sub { logged(qr/database "nobody_4" .* does not exist/) }, 30, 'the launcher has looked');
is(logged(qr/database "plain_1"/), 1, 'a closed database: logged once, and not called missing');

# ---- CREATE EXTENSION ----

my $states = q{SELECT string_agg(backend_type || ': ' || query, ', ' ORDER BY backend_type) FROM pg_stat_activity
	WHERE datname = 'late' AND backend_type LIKE 'carshop_outbox %' AND state = 'idle'};

sub both_wait
{
	my ($for) = @_;

	poll_until(
		sub {
			(query_value($node, 'postgres', $states) // '') eq
			  "carshop_outbox relay: waiting for $for, carshop_outbox reporter: waiting for $for";
		}, 60, "both workers wait for $for");
}

# They look by themselves once in a minute only.
sub both_work
{
	my ($what) = @_;

	my $now;

	eval {
		poll_until(
			sub {
				$now = query_value($node, 'postgres', $states) // '';
				$now =~ /relay: .*reporter: / && $now !~ /waiting for (?:CREATE|ALTER)/;
			}, 30, $what);
	};
	is($@, '', $what) or diag($now, $node->safe_psql('postgres', 'SELECT * FROM pg_stat_activity'), $node->safe_psql('late', 'SELECT extname, extversion FROM pg_extension'));
}

$node->safe_psql('postgres', 'DROP DATABASE three WITH (FORCE)');
$node->safe_psql('postgres', 'CREATE DATABASE late');
set(shop_databases => 'one, late', report_databases => 'late');
both_wait('CREATE EXTENSION carshop_outbox');
$node->safe_psql('late', 'CREATE EXTENSION carshop_outbox');
both_work('CREATE EXTENSION wakes both workers');

# A transaction too small to be noticed through its invalidation messages.
set(shop_databases => 'one', report_databases => '');
poll_until(sub { !defined query_value($node, 'postgres', $states) }, 30, 'they leave');
my $version = query_value($node, 'late', q{SELECT extversion FROM pg_extension WHERE extname = 'carshop_outbox'});
$node->safe_psql('late', q{UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'carshop_outbox'});
set(shop_databases => 'one, late', report_databases => 'late');
both_wait('ALTER EXTENSION carshop_outbox UPDATE');
$node->safe_psql('late', qq{
	SET client_min_messages = warning;
	BEGIN;
	UPDATE pg_extension SET extversion = '$version' WHERE extname = 'carshop_outbox';
	ALTER EXTENSION carshop_outbox UPDATE TO '$version';
	COMMIT});
both_work('ALTER EXTENSION wakes both workers');
is(logged(qr/extension carshop_outbox has version 0.9, the library is of/), 2, 'each has logged once that it waited for that');

# ---- names that SQL would want in quotes ----

set(shop_databases => '', report_databases => '');
my %written = ('car-Shop' => 'car-Shop', 'Shop' => '"Shop"', 'a, "b"' => '"a, ""b"""');
foreach my $name (sort keys %written)
{
	(my $quoted = $name) =~ s/"/""/g;
	$node->safe_psql('postgres', $_) foreach map { "DROP DATABASE IF EXISTS $_ WITH (FORCE)" } qw(one late);
	$node->safe_psql('postgres', qq(CREATE DATABASE "$quoted"));
	capture_item($name);
	$node->safe_psql($name, query_value($node, $name, q{SELECT remedy FROM outbox.status WHERE concern = 'relay'}));
	publishes($name, "$name, named as the status says it");
	set(shop_databases => '');
	poll_until(sub { !worker_pids($node, 'relay', $name) }, 60, 'the relay leaves');
	set(shop_databases => $written{$name});
	publishes($name, "$name, written as $written{$name}");
	is(query_value($node, $name, q{SELECT level FROM outbox.check('5s') WHERE concern = 'database'}), 'ok', "$name: and outbox.check() agrees");
	set(shop_databases => '');
	$node->safe_psql('postgres', qq(DROP DATABASE "$quoted" WITH (FORCE)));
}

no_crash($node);
$node->stop;
done_testing();
