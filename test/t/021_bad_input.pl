# Bad settings and missing things: each gives one clear message with a remedy, in
# the log once and in outbox.status; nothing is lost, and it heals by itself when
# the cause is gone.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('bad', conf => { 'shared_preload_libraries' => 'auto_explain, "$libdir/auto_explain"', '.report_databases' => '' });
my $sold = 0;

sub sell
{
	$sold++;
	$node->safe_psql('shop', qq{INSERT INTO "Cars" VALUES ($sold, NULL)});
}

sub published
{
	my ($what) = @_;

	poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, $what);
	my @keys = map { $_->{key} } grep { $_->{value} =~ /CarAdded/ } $kafka->read_topic($topic);
	is_deeply(\@keys, [ 1 .. $sold ], "$what: nothing lost, nothing twice");
}

# The failing row of outbox.status with that text.
sub failing
{
	my ($pattern, $what) = @_;
	my $row;

	poll_until(sub {
		$row = $node->safe_psql('shop', q{SELECT message, remedy FROM outbox.status WHERE level = 'fail'});
		$row =~ $pattern;
	}, 60, $what);
	like($row, $pattern, "$what: outbox.status says so");
	like($row, qr/\|./, "$what: with a remedy");
}

sub set_and_reload
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.$name = '$value'");
	$node->reload;
}

sub logged
{
	my ($pattern) = @_;
	my @lines = grep { $_ =~ $pattern } split /\n/, slurp_file($node->logfile);

	return scalar @lines;
}

# --- not preloaded: events are stored ---
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
create_car_shop_tables($node, 'shop');
my ($status, $output, $warning) = $node->psql('shop', 'CREATE EXTENSION carshop_outbox');
is($status, 0, 'CREATE EXTENSION without preload');
like($warning, qr/WARNING:.*not preloaded.*HINT:.*shared_preload_libraries/s, 'warns with a hint');
my $warning_of_create = $warning;
my (undef, undef, $capture_says) = $node->psql('shop', 'SELECT outbox.capture_car_shop()');
sell();
failing(qr/not preloaded/, 'not preloaded');
($status, $output, $warning) = $node->psql('shop', 'SELECT outbox.wait_published()');
like($warning, qr/no relay publishes.*HINT:.*outbox\.status/s, 'wait_published says what is missing');

# --- no broker there ---
# The remedy is a command, and takes nothing away from what is preloaded.
my ($hint) = $warning_of_create =~ /HINT:\s+(.*)/;
my $remedy = $node->safe_psql('shop', q{SELECT remedy FROM outbox.status WHERE concern = 'library'});
is($remedy, q{ALTER SYSTEM SET shared_preload_libraries = 'auto_explain', '$libdir/auto_explain', 'carshop_outbox'; -- then restart the server},
	'the remedy keeps what is preloaded');
is($hint, $remedy, 'CREATE EXTENSION gives the same');
is($node->safe_psql('shop', q{SELECT remedy FROM report.status WHERE concern = 'library'}), $remedy, 'and report.status');
like($capture_says, qr/WARNING:  no relay publishes.*HINT:\s+\Q$remedy\E/s, 'and outbox.capture');
$node->safe_psql('postgres', 'CREATE ROLE stranger');
is($node->safe_psql('shop', 'SET ROLE stranger; SELECT outbox.preload_remedy()'),
	'Add carshop_outbox to shared_preload_libraries, behind what stands there, and restart the server.',
	'who may not read the setting is not shown it');
# A change that waits for a restart is not overwritten.
$node->safe_psql('postgres', q{ALTER SYSTEM SET shared_preload_libraries = 'auto_explain'});
$node->reload;
poll_until(sub { $node->safe_psql('shop', q{SELECT remedy FROM outbox.status WHERE concern = 'library'}) =~ /has been changed/ }, 30,
	'a change that waits for a restart is seen');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET shared_preload_libraries');
$node->reload;
poll_until(sub { $node->safe_psql('shop', q{SELECT remedy FROM outbox.status WHERE concern = 'library'}) eq $remedy }, 30, 'it is taken back');
$node->safe_psql('shop', $remedy);
$node->restart;
is($node->safe_psql('postgres', 'SHOW shared_preload_libraries'), 'auto_explain, "$libdir/auto_explain", carshop_outbox', 'all of them are preloaded');
failing(qr/127\.0\.0\.1:1\b/, 'unreachable broker');
is(query_value($node, 'shop', q{SELECT remedy FROM outbox.status WHERE remedy ~ 'outbox\.park|NULL'}), undef,
	'where no topic is to blame, none is to be parked');
sell();
sell();
is(query_value($node, 'shop', q{SELECT unconfirmed_events FROM outbox.stat_relay}), $sold,
	'what waits is counted');
cmp_ok(logged(qr/relay for shop: .*127\.0\.0\.1:1\b/), '==', 1, 'logged once');
set_and_reload('brokers', $kafka->bootstrap);
published('the right broker');
is(query_value($node, 'shop', q{SELECT count(*) FROM outbox.status WHERE level = 'fail'}), 0,
	'no failure is left in outbox.status');

# --- a wrong name ---
set_and_reload('brokers', 'no.such.host.invalid:9092');
failing(qr/no\.such\.host\.invalid/, 'unknown host');
sell();
set_and_reload('brokers', $kafka->bootstrap);
published('after the unknown host');

# --- a file of properties that cannot be used ---
my $file = $node->basedir . '/kafka.properties';
append_to_file($file, "sasl.password=geheim\nplugin.library.paths=/tmp/x.so\n");
chmod 0600, $file;
set_and_reload('kafka_config_file', $file);
$node->safe_psql('shop', q{SELECT pg_terminate_backend(pid) FROM outbox.stat_relay});
failing(qr/plugin\.library\.paths/, 'a property that is not allowed');
is(logged(qr/geheim/), 0, 'no secret in the log');
sell();
set_and_reload('kafka_config_file', '');
published('after the wrong property');

# --- a topic that is missing, and may not be made ---
set_and_reload('create_topics', 'off');
$node->safe_psql('shop', q{SELECT outbox.capture('"Customers"', 'Elsewhere', topic => 'elsewhere');
	INSERT INTO "Customers" VALUES ('Ann')});
failing(qr/"elsewhere" does not exist and .*create_topics is off/, 'missing topic');
like($node->safe_psql('shop', q{SELECT remedy FROM outbox.status WHERE concern = 'kafka'}),
	qr/ALTER SYSTEM SET carshop_outbox\.create_topics = on; .*SELECT outbox\.park\('elsewhere'\);$/, 'its remedy');
$node->safe_psql('postgres', q{ALTER DATABASE shop SET carshop_outbox.create_topics = off});
like($node->safe_psql('shop', q{SELECT remedy FROM outbox.status WHERE concern = 'kafka'}),
	qr/ALTER DATABASE shop SET carshop_outbox\.create_topics = on; /, 'its remedy where the setting is the database\'s');
$node->safe_psql('postgres', q{ALTER DATABASE shop RESET carshop_outbox.create_topics});
sell();
$kafka->create_topic('elsewhere');
published('after the topic was made');
is(scalar($kafka->read_topic('elsewhere')), 1, 'the event of the missing topic');

# --- an event that the broker refuses: a dead letter, the others go on ---
$kafka->create_topic('narrow', 1, 'max.message.bytes' => 2000);
$node->safe_psql('shop', q{CREATE TABLE note (id integer PRIMARY KEY, note text);
	SELECT outbox.capture('note', 'Narrow', topic => 'narrow');
	INSERT INTO note SELECT n, CASE n WHEN 3 THEN string_agg(md5(i::text), '') ELSE 'n' || n END
	  FROM generate_series(1, 6) n, generate_series(1, 200) i GROUP BY n ORDER BY n});
sell();
published('beside an event that is refused');
is(query_value($node, 'shop', 'SELECT string_agg(type, $$,$$) FROM outbox.dead_letters'), 'Narrow',
	'the refused event is in outbox.dead_letters');
is(scalar($kafka->read_topic('narrow')), 5, 'the other events of its transaction are in the topic');
like($node->safe_psql('shop', q{SELECT level, message FROM outbox.status}), qr/warn\|1 event\(s\) cannot be published/,
	'outbox.status tells of the dead letter');

# --- refused events and nothing else: what is behind is confirmed all the same ---
$node->safe_psql('shop', q{INSERT INTO note SELECT 7, string_agg(md5(i::text), '') FROM generate_series(1, 200) i});
published('a refused event alone');
poll_until(sub { query_value($node, 'shop', q{SELECT tick = confirmed_tick FROM outbox.stat_relay}) eq 't' }, 30,
	'confirmed past a dead letter');
$node->safe_psql('shop', q{SELECT pg_terminate_backend(pid) FROM outbox.stat_relay});
poll_until(sub { query_value($node, 'shop', q{SELECT state || ' ' || (tick = confirmed_tick) FROM outbox.stat_relay}) eq 'idle true' }, 30,
	'confirmed past a dead letter, with a new relay');
is(query_value($node, 'shop', 'SELECT count(*) FROM outbox.dead_letters'), 2, 'one dead letter more');

# --- a database without the extension, and one that is missing ---
$node->safe_psql('postgres', 'CREATE DATABASE empty');
set_and_reload('shop_databases', 'shop, empty, missing');
wait_for_worker($node, 'relay', 'empty');
poll_until(sub { logged(qr/database "missing" in carshop_outbox\.shop_databases does not exist/) }, 30,
	'the missing database is logged');
poll_until(sub {
	query_value($node, 'postgres', q{SELECT query FROM pg_stat_activity WHERE datname = 'empty' AND backend_type = 'carshop_outbox relay'})
	  eq 'waiting for CREATE EXTENSION carshop_outbox';
}, 30, 'the relay of a database without the extension waits');
$node->safe_psql('postgres', 'CREATE DATABASE missing');
wait_for_worker($node, 'relay', 'missing');
is(logged(qr/database "missing" .* does not exist/), 1, 'logged once');
sell();
published('beside them');

# --- a broker that does not verify partitions ---
$kafka->restart(set => ['transaction.partition.verification.enable=false']);
$node->safe_psql('shop', q{SELECT pg_terminate_backend(pid) FROM outbox.stat_relay});
failing(qr/does not verify partitions/, 'a broker without verification');
sell();
# Whoever knows that his brokers need none can say so.
set_and_reload('broker_verification', 'warn');
published('a warning is enough');
is($node->safe_psql('shop', q{SELECT concern, level, message FROM outbox.status WHERE level <> 'ok' AND concern = 'kafka'}),
	'kafka|warn|The broker does not say that it verifies partitions in transactions.', 'the status warns');
set_and_reload('broker_verification', 'require');
sell();
failing(qr/does not verify partitions/, 'required again, from the reload on');
$kafka->restart(set => ['transaction.partition.verification.enable=true']);
published('with verification again');
is(query_value($node, 'shop', q{SELECT count(*) FROM outbox.status WHERE concern = 'kafka' AND level <> 'ok'}), 0, 'and without a warning');

unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
