# Segments and batches as nobody in good order would use them: the current segment
# moves while transactions write, tables are rewritten while the relay reads them,
# rows are there that it cannot read, batches are many times what it may keep in
# mind.  Each event is published once, in order; what cannot be read becomes a dead
# letter.  (Isolation test rotation has the switches themselves.)

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Mutants;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = Carshop::Kafka->start;

# A server of one database "shop" with a captured table.
sub shop
{
	my ($name, %options) = @_;
	my $node = Carshop->new_node($name, kafka => $kafka, conf => {
		'.report_databases' => '', '.topic' => $name, '.worker_memory' => '8MB', %{ $options{conf} // {} } });

	$node->start;
	$node->safe_psql('postgres', 'CREATE DATABASE shop ' . ($options{encoding} ? "ENCODING '$options{encoding}' LOCALE 'C' TEMPLATE template0" : ''));
	$node->safe_psql('shop', q{
		CREATE EXTENSION carshop_outbox;
		CREATE TABLE item (id bigint PRIMARY KEY);
		SET client_min_messages = error;
		SELECT outbox.capture('item', 'Item')});
	return $node;
}

sub set
{
	my ($node, %settings) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.$_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;
}

sub published
{
	my ($node) = @_;

	poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('2s')}) eq 't' }, 120, 'all is published');
	return [ map { $_->{key} } $kafka->read_topic($node->name) ];
}

# ---- a transaction that goes on when another segment is current ----

my $node = shop('turned', conf => { '.max_transaction_events' => 4 });
$node->safe_psql('shop', q{SELECT outbox.pause()});
my $writer = $node->background_psql('shop');
$writer->query_safe(q{BEGIN; INSERT INTO item SELECT generate_series(1, 5)});
$node->safe_psql('shop', 'SELECT outbox.switch_segment()');
$writer->query_safe(q{
	DO $$ BEGIN
		BEGIN
			INSERT INTO item SELECT generate_series(6, 8);
			PERFORM 1 / 0;
		EXCEPTION WHEN division_by_zero THEN
			INSERT INTO item VALUES (9);
		END;
		INSERT INTO item SELECT generate_series(10, 14);
	END $$;
	COMMIT});
$writer->quit;
$node->safe_psql('shop', 'INSERT INTO item VALUES (15); SELECT outbox.resume()');
is_deeply(published($node), [ 1 .. 5, 9 .. 15 ], 'its events are published once, in order');
is(query_value($node, 'shop', q{SELECT string_agg(DISTINCT tableoid::regclass || '', ' ') FROM outbox.event_0 WHERE aggregateid < '15'}),
	'outbox.event_0', 'and stand in one segment');
is(query_value($node, 'shop', 'SELECT aggregateid FROM outbox.event_1'), 15, 'the next transaction is in the other');

# ---- which segment is current is never a matter of what memory remembers ----

my ($status, undef, $error) = $node->psql('shop', q{BEGIN; SELECT outbox.switch_segment(); PREPARE TRANSACTION 's'});
like($error, qr/cannot PREPARE.*switch_segment.*HINT:  Call it in a transaction of its own/s, 'a switch cannot be prepared');
$node->safe_psql('shop', 'INSERT INTO item VALUES (16)');
is(query_value($node, 'shop', 'SELECT count(*) FROM outbox.event_1'), 2, 'and was none');
$node->safe_psql('shop', 'SELECT outbox.switch_segment()');
($status, undef, $error) = $node->psql('shop', 'SELECT outbox.switch_segment()');
like($error, qr/segment outbox\.event_0 is not empty.*HINT:/s, 'one that is not empty is not switched to');
published($node);

# Memory knows nothing after a restart, and what it learns first is rolled back.
$node->safe_psql('shop', 'TRUNCATE outbox.event_0');
$node->restart;
$node->safe_psql('shop', q{
	BEGIN; SELECT outbox.switch_segment(); INSERT INTO item VALUES (17); ROLLBACK;
	INSERT INTO item VALUES (17)});
is(query_value($node, 'shop', q{SELECT tableoid::regclass FROM outbox.event_2}), 'outbox.event_2', 'a switch that was rolled back first of all');
is_deeply(published($node), [ 1 .. 5, 9 .. 17 ], 'published once');

# In one session: dropped and created again, the first segment is current.
$node->safe_psql('shop', q{
	SET client_min_messages = error;
	DROP EXTENSION carshop_outbox CASCADE; CREATE EXTENSION carshop_outbox; SELECT outbox.capture('item', 'Item');
	INSERT INTO item VALUES (18)});
is(query_value($node, 'shop', 'SELECT count(*) FROM outbox.event_0'), 1, 'created again, it begins with the first segment');
$node->safe_psql('shop', q{
	SET client_min_messages = error;
	BEGIN; SELECT outbox.switch_segment(); DROP EXTENSION carshop_outbox CASCADE; COMMIT;
	CREATE EXTENSION carshop_outbox; SELECT outbox.capture('item', 'Item');
	INSERT INTO item VALUES (19)});
is(query_value($node, 'shop', 'SELECT count(*) FROM outbox.event_0'), 1, 'also after a switch in the transaction that dropped it');
$node->stop;

# Without shared memory everybody reads the table.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
$node->safe_psql('shop', 'SELECT outbox.switch_segment()');
$node->safe_psql('shop', 'INSERT INTO item VALUES (20)');
is(query_value($node, 'shop', 'SELECT count(*) FROM outbox.event_1'), 1, 'not preloaded, writers follow a switch all the same');
$node->stop;

# ---- rows that it cannot read ----

$node = shop('unreadable', encoding => 'SQL_ASCII');
$node->safe_psql('shop', 'SELECT outbox.pause(); INSERT INTO item VALUES (1)');
# As nobody may: round the view, as a superuser.
my %bad = (
	odd_format => q{format => 'odd'},
	bytes => q{traceparent => E'01-\xff'},
	key => q{aggregateid => E'\xfe'},
	header_value => q{headers => '{"a": 1}'},
	header_list => q{headers => '["a"]'},
	time => q{occurred_at => 'infinity'});
$node->safe_psql('shop', q{
	CREATE FUNCTION bad(type text, format text DEFAULT 'envelope', traceparent text DEFAULT NULL, aggregateid text DEFAULT '7',
						headers jsonb DEFAULT NULL, occurred_at timestamptz DEFAULT now()) RETURNS void LANGUAGE sql AS $$
		INSERT INTO outbox.event_0 (seq, xid, occurred_at, id, type, aggregateid, format, traceparent, headers)
		VALUES (nextval('outbox.event_seq'), pg_current_xact_id(), occurred_at, gen_random_uuid(), type, aggregateid, format, traceparent, headers) $$});
$node->safe_psql('shop', "INSERT INTO item VALUES (10); SELECT bad('$_', $bad{$_}); INSERT INTO item VALUES (11); DELETE FROM item WHERE id > 1") foreach sort keys %bad;
$node->safe_psql('shop', 'INSERT INTO item VALUES (2); SELECT outbox.resume()');
is_deeply(published($node), [ 1, (10, 11) x keys %bad, 2 ], 'all others are published, in order');
is($node->safe_psql('shop', 'SELECT type, reason FROM outbox.dead_letters ORDER BY type'),
	join("\n",
		'bytes|traceparent is not valid in the database\'s encoding',
		'header_list|headers is not a JSON object',
		'header_value|headers holds a value that is not a string',
		'key|aggregateid is not valid in the database\'s encoding',
		'odd_format|its format is unknown',
		'time|occurred_at is outside the years 1 to 9999'),
	'each of them is a dead letter that says why');
is(query_value($node, 'shop', q{SELECT level FROM outbox.status WHERE concern = 'dead letters'}), 'warn', 'and the status says so');
unlike(slurp_file($node->logfile), qr/exited with exit code/, 'no worker has ended for it');

# In the midst of a transaction: the rest of it is published whole, in one Kafka
# transaction.
my $before = query_value($node, 'shop', 'SELECT transactions FROM outbox.stat_relay');
$node->safe_psql('shop', q{BEGIN; INSERT INTO item VALUES (20), (21); SELECT bad('within', format => 'odd'); INSERT INTO item VALUES (22); COMMIT});
is_deeply([ @{ published($node) }[-3 .. -1] ], [ 20, 21, 22 ], 'one in the midst of a transaction: the others are published');
is(query_value($node, 'shop', 'SELECT transactions FROM outbox.stat_relay') - $before, 1, 'in one Kafka transaction');
$node->stop;

# ---- tables that are rewritten between two Kafka transactions ----

# A backlog of many small transactions, a giant one and small ones again, behind
# rows that a rewrite leaves out, so that it moves all others; while the relay is in
# the midst of it the table is rewritten.  What comes out?
sub rewritten
{
	my ($name) = @_;
	my $shop = shop($name, conf => { '.max_transaction_events' => 50 });

	$shop->safe_psql('shop', q{
		SELECT outbox.pause();
		BEGIN; INSERT INTO item SELECT generate_series(1, 5000); ROLLBACK});
	$shop->safe_psql('shop', 'DO $$ BEGIN FOR n IN 1 .. 3000 LOOP INSERT INTO item VALUES (n); COMMIT; END LOOP; END $$');
	$shop->safe_psql('shop', q{
		BEGIN; INSERT INTO item SELECT generate_series(100001, 105000); ROLLBACK;
		INSERT INTO item SELECT generate_series(3001, 60000);
		SELECT outbox.resume()});
	my %order = (500 => 'xid, seq', 10_000 => 'type, seq DESC');
	foreach my $at (sort { $a <=> $b } keys %order)
	{
		poll_until(sub { query_value($shop, 'shop', 'SELECT events_published FROM outbox.stat_relay') > $at }, 60, "$at events are published");
		$shop->safe_psql('shop', "CREATE INDEX order_$at ON outbox.event_0 ($order{$at})");
		# It waits for our lock, so it is still in the midst of it afterwards.
		my $seen = $shop->safe_psql('shop', qq{
			BEGIN; LOCK TABLE outbox.event_0 IN ACCESS EXCLUSIVE MODE;
			CLUSTER outbox.event_0 USING order_$at;
			SELECT events_published FROM outbox.stat_relay;
			COMMIT});
		cmp_ok($seen, '<', 60_000, "$name: rewritten in the midst");
	}
	my $keys = eval { published($shop) } // [ $kafka->read_topic($name) ];
	$shop->stop;
	return $keys;
}
is_deeply(rewritten('rewritten'), [ 1 .. 60_000 ], 'the table was rewritten under the relay: each event once, in order');

SKIP:
{
	skip Mutants::missing(), 1 if Mutants::missing();
	my $stage = PostgreSQL::Test::Utils::tempdir() . '/stage.conf';
	append_to_file($stage, Mutants::conf('any_tuple'));
	local $ENV{CARSHOP_CONF} = $stage;
	my $keys = rewritten('any_tuple');

	ok("@$keys" ne join(' ', 1 .. 60_000), 'any_tuple is noticed');
}

done_testing();
