# Logical replication in both directions between two shops that have the extension:
# what one applies makes no event there, its own writes do, so each event is
# published once, by the server on which it happened.  A publication FOR ALL TABLES
# takes the extension's own tables along: the subscriber leaves them out, in the
# first copy and afterwards, and refuses to have them emptied.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('replication', kafka => $kafka,
	init => { allows_streaming => 'logical' },
	conf => { '.shop_databases' => 'north, south', '.report_databases' => '',
		'max_worker_processes' => 20, 'max_logical_replication_workers' => 8, 'wal_retrieve_retry_interval' => '100ms' });
$node->start;

foreach my $db ('north', 'south')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, qq{
		SET client_min_messages = error;
		CREATE TABLE sale (id integer PRIMARY KEY, shop text, note text);
		CREATE EXTENSION carshop_outbox;
		INSERT INTO sale VALUES (CASE '$db' WHEN 'north' THEN 1 ELSE 2 END, '$db', 'from before');
		SELECT outbox.capture('sale', 'Sale', 'insert, update, delete', include_old => true, description => '$db');
		INSERT INTO sale VALUES (CASE '$db' WHEN 'north' THEN 11 ELSE 12 END, '$db', 'waits in the outbox');
		SELECT report.seek('some-topic', 0, 5);
	});
}
is(query_value($node, $_, q{SELECT outbox.wait_published('30s')}), 't', "$_ publishes") foreach 'north', 'south';

# An event's source: the database in which it was captured is its description.
sub events
{
	my ($db) = @_;

	return $node->safe_psql($db, q{SELECT string_agg(concat_ws(' ', aggregateid, payload -> 'new' ->> 'note'), ', ' ORDER BY seq) FROM outbox.event});
}

my %before = map { $_ => $node->safe_psql($_, 'SELECT count(*), max(seq) FROM outbox.event') } 'north', 'south';
my %own = map { $_ => $node->safe_psql($_, 'SELECT lineage, (SELECT count(*) > 0 FROM outbox.tick) FROM outbox.lineage') } 'north', 'south';

# One way, FOR ALL TABLES.
sub subscribe
{
	my ($from, $to, $copy) = @_;

	$node->safe_psql($from, "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert, update, delete')");
	$node->safe_psql($from, "SELECT pg_create_logical_replication_slot('from_$from', 'pgoutput')");
	$node->safe_psql($to, "CREATE SUBSCRIPTION from_$from CONNECTION '" . ($node->connstr($from) =~ s/'/''/gr) . "' PUBLICATION everything
		WITH (create_slot = false, slot_name = 'from_$from', copy_data = $copy)");
}
sub synced
{
	my ($from, $to) = @_;

	poll_until(sub { query_value($node, $to, q{SELECT count(*) FROM pg_subscription_rel WHERE srsubstate NOT IN ('r', 's')}) == 0 }, 60, "$to has copied");
	$node->wait_for_catchup("from_$from");
}

subscribe('north', 'south', 'true');
synced('north', 'south');
is($node->safe_psql('south', 'SELECT string_agg(id::text, $$,$$ ORDER BY id) FROM sale'), '1,2,11,12', 'the rows are copied');
is($node->safe_psql('south', 'SELECT count(*), max(seq) FROM outbox.event'), $before{south}, 'the copy made no event, and brought none');
is($node->safe_psql('south', 'SELECT lineage, (SELECT count(*) > 0 FROM outbox.tick) FROM outbox.lineage'), $own{south}, 'the lineage is its own');

# Single changes and transactions of several statements; reports' tables too.
$node->safe_psql('north', q{
	INSERT INTO sale VALUES (21, 'north', 'replicated');
	BEGIN;
	UPDATE sale SET note = 'changed' WHERE id = 21;
	INSERT INTO sale SELECT n, 'north', 'many' FROM generate_series(31, 40) n;
	DELETE FROM sale WHERE id = 31;
	COMMIT;
	SELECT report.seek('some-topic', 0, 6);
	SELECT outbox.emit('Emitted');
});
$node->safe_psql('south', q{INSERT INTO sale VALUES (22, 'south', 'own')});
synced('north', 'south');
is($node->safe_psql('south', q{SELECT count(*) FROM sale WHERE shop = 'north'}), 12, 'the changes are applied');
is(events('south'), '12 waits in the outbox, 22 own', 'the subscriber has the events of its own writes only');
is(query_value($node, 'south', 'SELECT next_offset FROM report.progress'), 5, 'offsets are its own');

# A route that is to fire ALWAYS sees replicated rows, in the apply worker, where no
# executor hook comes by; several statements in one transaction.
$node->safe_psql('south', q{
	SET client_min_messages = error;
	SELECT outbox.capture('sale', 'Seen', 'insert, update');
	ALTER TABLE sale ENABLE ALWAYS TRIGGER "00_outbox_i_Seen";
	ALTER TABLE sale ENABLE ALWAYS TRIGGER "00_outbox_u_Seen"});
$node->safe_psql('north', q{
	BEGIN;
	INSERT INTO sale SELECT n, 'north', 'always' FROM generate_series(51, 53) n;
	UPDATE sale SET note = 'always changed' WHERE id BETWEEN 51 AND 53;
	INSERT INTO sale VALUES (54, 'north', 'always');
	COMMIT;
	BEGIN;
	INSERT INTO sale VALUES (55, 'north', 'undone');
	ROLLBACK});
poll_until(sub { query_value($node, 'south', q{SELECT count(*) FROM sale WHERE id = 54}) == 1 }, 60, 'applied');
is($node->safe_psql('south', q{SELECT string_agg(aggregateid || ' ' || (payload ->> 'note'), ', ' ORDER BY seq) FROM outbox.event WHERE type = 'Seen'}),
	'51 always, 52 always, 53 always, 51 always changed, 52 always changed, 53 always changed, 54 always', 'a route that fires always has them, in order');
$node->safe_psql('south', q{SELECT outbox.release('sale', 'Seen')});

# A replicated TRUNCATE would take the subscriber's own events: refused, with the way out.
my $log = -s $node->logfile;
$node->safe_psql('north', q{ALTER PUBLICATION everything SET (publish = 'truncate')});
my $kept = query_value($node, 'south', 'SELECT count(*) FROM outbox.event');
$node->safe_psql('north', 'TRUNCATE outbox.event_2');
poll_until(sub { slurp_file($node->logfile, $log) =~ /a replicated TRUNCATE must not empty table "event_2" of extension carshop_outbox/ }, 60,
	'the refusal is in the log');
like(slurp_file($node->logfile, $log), qr/HINT:.*publish no truncates/, 'with a hint');
is(query_value($node, 'south', 'SELECT count(*) FROM outbox.event'), $kept, 'no event is lost');

# Both directions at once, each side's own rows: nothing goes round in circles.
$node->safe_psql('south', 'ALTER SUBSCRIPTION from_north DISABLE; ALTER SUBSCRIPTION from_north SET (slot_name = NONE); DROP SUBSCRIPTION from_north');
poll_until(sub { query_value($node, 'postgres', q{SELECT count(*) FROM pg_replication_slots WHERE active}) == 0 }, 60, 'the walsender has ended');
$node->safe_psql('north', q{SELECT pg_drop_replication_slot('from_north'); DROP PUBLICATION everything});
foreach my $pair ([ 'north', 'south' ], [ 'south', 'north' ])
{
	my ($from, $to) = @$pair;

	$node->safe_psql($from, "CREATE PUBLICATION sales FOR TABLE sale WHERE (shop = '$from') WITH (publish = 'insert')");
	$node->safe_psql($from, "SELECT pg_create_logical_replication_slot('from_$from', 'pgoutput')");
	$node->safe_psql($to, "CREATE SUBSCRIPTION from_$from CONNECTION '" . ($node->connstr($from) =~ s/'/''/gr) . "' PUBLICATION sales
		WITH (create_slot = false, slot_name = 'from_$from', copy_data = false)");
}
my %count = map { $_ => query_value($node, $_, 'SELECT count(*) FROM outbox.event') } 'north', 'south';
$node->safe_psql($_, "INSERT INTO sale SELECT n, '$_', 'both ways' FROM generate_series(" . ($_ eq 'north' ? '101, 120' : '201, 210') . ') n') foreach 'north', 'south';
foreach my $db ('north', 'south')
{
	poll_until(sub { query_value($node, $db, q{SELECT count(*) FROM sale WHERE note = 'both ways'}) == 30 }, 60, "$db has the rows of both");
}
is(query_value($node, 'north', 'SELECT count(*) FROM outbox.event') - $count{north}, 20, 'north: events of its own rows');
is(query_value($node, 'south', 'SELECT count(*) FROM outbox.event') - $count{south}, 10, 'south: events of its own rows');

# In Kafka: each event once.
foreach my $db ('north', 'south')
{
	poll_until(sub { query_value($node, $db, q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, "$db has published");
}
my %seen;
my %stored = map { $_ => 1 } map { split /\n/, $node->safe_psql($_, 'SELECT id FROM outbox.event') } 'north', 'south';
$seen{ $_->{value} =~ /"EventId":"([^"]*)"/ ? $1 : '?' }++ foreach $kafka->read_topic('car-shop-reported-events');
is_deeply([ sort keys %seen ], [ sort keys %stored ], 'the topic has the events of both');
is(scalar(grep { $_ != 1 } values %seen), 0, 'each once');

foreach my $pair ([ 'north', 'south' ], [ 'south', 'north' ])
{
	my ($from, $to) = @$pair;

	$node->safe_psql($to, "ALTER SUBSCRIPTION from_$from DISABLE; ALTER SUBSCRIPTION from_$from SET (slot_name = NONE); DROP SUBSCRIPTION from_$from");
}

# A subscriber of everything goes on when segments are emptied and ticks rotated:
# neither a TRUNCATE nor rows that are written again come its way.
poll_until(sub { query_value($node, 'postgres', q{SELECT count(*) FROM pg_replication_slots WHERE active}) == 0 }, 60, 'the walsenders have ended');
$node->safe_psql('north', q{SELECT pg_drop_replication_slot('from_north')});
$node->safe_psql('north', 'CREATE PUBLICATION everything FOR ALL TABLES');
$node->safe_psql('north', q{SELECT pg_create_logical_replication_slot('from_north', 'pgoutput')});
$node->safe_psql('south', "CREATE SUBSCRIPTION from_north CONNECTION '" . ($node->connstr('north') =~ s/'/''/gr) . "' PUBLICATION everything
	WITH (create_slot = false, slot_name = 'from_north', copy_data = false)");
synced('north', 'south');
$node->safe_psql('north', q{SELECT pg_create_logical_replication_slot('look', 'test_decoding')});
$log = -s $node->logfile;
$node->append_conf('postgresql.conf', "carshop_outbox.retention = '0'");
$node->reload;
$node->safe_psql('north', q{CREATE PROCEDURE sell(first integer) LANGUAGE plpgsql AS 'BEGIN FOR i IN first .. first + 299 LOOP INSERT INTO sale VALUES (i, $$north$$, $$emptied$$); COMMIT; END LOOP; END'});
my $sold = 0;
poll_until(
	sub {
		$node->safe_psql('north', sprintf 'CALL sell(%d)', 1001 + $sold);
		$sold += 300;
		return query_value($node, 'north', q{SELECT min(tick_id) > 1 FROM outbox.tick}) eq 't' && query_value($node, 'north', q{SELECT min(seq) > 200 FROM outbox.event}) eq 't';
	}, 60, 'segments are emptied and ticks rotated');
synced('north', 'south');
is(query_value($node, 'south', q{SELECT count(*) FROM sale WHERE note = 'emptied'}), $sold, 'a subscriber of FOR ALL TABLES has what came meanwhile');
unlike(substr(slurp_file($node->logfile), $log), qr/replicated TRUNCATE|logical replication.*ERROR/, 'and nothing of the emptying');
$node->safe_psql('north', q{CREATE TABLE decoded AS SELECT data FROM pg_logical_slot_get_changes('look', NULL, NULL)});
is(query_value($node, 'north', q{SELECT count(*) FROM decoded WHERE data LIKE '%TRUNCATE%'}), 0, 'no TRUNCATE is decoded');
is($node->safe_psql('north', q{SELECT m[1], count(*) FROM decoded, regexp_match(data, '^table outbox.tick: INSERT: tick_id\[bigint\]:(\d+)') m WHERE m IS NOT NULL GROUP BY 1 HAVING count(*) > 1}),
	'', 'no tick is decoded twice');
cmp_ok(query_value($node, 'north', q{SELECT count(*) FROM decoded WHERE data LIKE 'table outbox.tick: INSERT%'}), '>', 0, 'and each once');

no_crash($node);
$node->stop;
done_testing();
