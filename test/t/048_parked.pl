# outbox.park() and outbox.unpark(): a topic that cannot be published to does not
# hold up the rest; its events go aside and are published in order, once each,
# whatever crashes meanwhile.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Checker qw(parse_event);
use Mutants;
use PostgreSQL::Test::Utils;
use Test::More;
use Workload;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('parked', kafka => $kafka, conf => {
	'.shop_databases' => 'shop', '.report_databases' => '', '.create_topics' => 'off', '.retention' => '5s',
	'.progress_topic' => 'carshop-outbox-progress-{database}', '.allowed_topics' => 'mine' });

sub value { return query_value($node, 'shop', $_[0]) }

sub published
{
	poll_until(sub { value(q{SELECT outbox.wait_published('2s')}) eq 't' }, 120, 'all is published');
	return;
}

sub status
{
	my ($concern) = @_;
	return value("SELECT level || ': ' || message || ' -> ' || COALESCE(remedy, '') FROM outbox.status WHERE concern = '$concern'") // '';
}

sub keys_of { return join ' ', map { $_->{key} } $kafka->read_topic($_[0]); }

sub not_parked
{
	my ($topic) = @_;
	poll_until(sub { !value("SELECT topic FROM outbox.parked WHERE topic = '$topic'") }, 120, "$topic is not parked any more");
	published();
	return;
}

$kafka->create_topic('car-shop-reported-events');
$kafka->create_topic('carshop-outbox-progress-shop', 1, 'cleanup.policy' => 'compact');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', q{
	CREATE EXTENSION carshop_outbox;
	CREATE TABLE item (id integer PRIMARY KEY, v text);
	CREATE TABLE note (id integer PRIMARY KEY, note text);
	SELECT outbox.capture('item', 'Item');
	SELECT outbox.capture('note', 'Note', topic => 'notes', headers => '{"shop": "north"}');
	SELECT outbox.capture('note', 'Noted', operations => 'update', topic => 'no{id}')});

# ---- what cannot be ----

foreach my $call ("park('carshop-outbox-progress-shop')", "park('no topic')", "unpark('notes')", 'park(NULL)')
{
	my ($status, $output, $error) = $node->psql('shop', "SELECT outbox.$call");
	like($error, qr/ERROR:.*(progress|topic)/, "$call is refused");
}
my ($failed, $nothing, $error) = $node->psql('shop', q{BEGIN; SELECT outbox.park('notes'); PREPARE TRANSACTION 'p'});
like($error, qr/cannot PREPARE a transaction that has called outbox.park/, 'it cannot be prepared');
like(status('parked'), qr/^ok: No topic is parked/, 'the status knows of none');

# ---- one topic is missing, and all waits for it ----

$node->safe_psql('shop', q{
	BEGIN; INSERT INTO item VALUES (1); INSERT INTO note VALUES (1, 'n1'); INSERT INTO item VALUES (2); COMMIT;
	INSERT INTO note VALUES (2, 'n2'); INSERT INTO item VALUES (3)});
my $trouble = poll_until(sub { my $now = status('kafka'); $now =~ /^fail/ ? $now : undef }, 60, 'the relay is in trouble');
like($trouble, qr/Topic "notes" does not exist.*Routes: "Note" on public\.note, "Noted" on public\.note\..*outbox\.park\('notes'\)/i,
	'the status names topic, reason and routes, and what to do');
$node->safe_psql('shop', q{SELECT outbox.park('notes')});
published();
is(keys_of('car-shop-reported-events'), '1 2 3', 'the rest is published');
like(status('parked'), qr/^warn: Topic "notes" is parked since .*: 2 event\(s\) are aside\. Reason: Topic "notes" does not exist.* -> SELECT outbox\.unpark\('notes'\);/,
	'how many are aside, and why, stands in the status');
is(value(q{SELECT value FROM outbox.metrics WHERE name = 'outbox_parked_events' AND labels = '{"topic": "notes"}'}), 2, 'and in the metrics');
is(value(q{SELECT unconfirmed_events FROM outbox.stat_relay}), 0, 'they are not waited for');
($failed, $nothing, my $notice) = $node->psql('shop', q{SELECT outbox.park('notes')});
like($notice, qr/NOTICE:  topic "notes" is parked already/, 'a second time changes nothing');

# ---- what is aside outlives its segment ----

$node->safe_psql('shop', q{INSERT INTO note VALUES (3, repeat('long', 20000))});
poll_until(sub { $node->safe_psql('shop', q{INSERT INTO item SELECT max(id) + 1 FROM item}); value('SELECT count(*) FROM outbox.event WHERE type = $$Note$$') == 0 },
	120, 'the events have left the outbox');
is(value(q{SELECT outbox.replay('-infinity', event_type => 'Note')}), 0, 'what is aside is not replayed');

# ---- it cannot be written again; then it can ----

$node->safe_psql('postgres', q{ALTER SYSTEM SET carshop_outbox.max_message_bytes = 10000; SELECT pg_reload_conf()});
is(value(q{SELECT outbox.unpark('notes')}), 3, 'three events are aside');
my $reason = poll_until(sub { value(q{SELECT reason FROM outbox.parked WHERE NOT leaving}) }, 60, 'that fails');
like($reason, qr/^it could not be unparked: .*bytes/, 'the reason is kept');
is(value(q{SELECT events FROM outbox.parked}), 3, 'and so are the events');
$node->safe_psql('postgres', q{ALTER SYSTEM RESET carshop_outbox.max_message_bytes; SELECT pg_reload_conf()});
$node->safe_psql('shop', q{INSERT INTO note VALUES (4, 'n4')});
$kafka->create_topic('notes');
is(value(q{SELECT outbox.unpark('notes')}) >= 3, 1, 'again');
$node->safe_psql('shop', q{INSERT INTO note VALUES (5, 'n5')});
not_parked('notes');
is(keys_of('notes'), '1 2 3 4 5', 'all are published, in order');
my ($first) = $kafka->read_topic('notes');
is($first->{headers}{shop}, 'north', 'with their headers');
like($first->{value}, qr/^\{"EventType":"Note",.*"note":"n1"/, 'and as they were');
is(value('SELECT count(*) FROM outbox.parked_event'), 0, 'nothing is aside any more');
is(value(q{SELECT outbox.replay('-infinity', event_type => 'Note') > 0}), 't', 'now they can be replayed');
published();
my %again;
$again{ $_->{key} }++ foreach grep { ($_->{headers}{replayed} // '') eq 'true' } $kafka->read_topic('notes');
is(join(' ', map { "$_=$again{$_}" } sort keys %again), '1=1 2=1 3=1 4=1 5=1', 'each once');

# ---- parked again while it is to leave; the default topic; nothing aside ----

$node->safe_psql('shop', q{
	SELECT outbox.park('car-shop-reported-events');
	SELECT outbox.park('mine')});
$node->safe_psql('shop', q{
	INSERT INTO item VALUES (10001); SELECT outbox.emit('Mine', key => 'm', topic => 'mine');
	BEGIN; SELECT outbox.unpark('car-shop-reported-events'); SELECT outbox.park('car-shop-reported-events'); COMMIT;
	SELECT outbox.unpark('mine'); SELECT outbox.park('mine');
	SELECT outbox.park('empty')});
published();
is(value(q{SELECT string_agg(topic || ' ' || leaving || ' ' || events, ', ' ORDER BY topic) FROM outbox.parked}),
	'car-shop-reported-events false 1, empty false 0, mine false 1', 'who parks again while it leaves, keeps it');
$kafka->create_topic('mine');
$node->safe_psql('shop', q{SELECT outbox.unpark(topic) FROM outbox.parked});
not_parked($_) foreach qw(car-shop-reported-events mine empty);
like(keys_of('car-shop-reported-events'), qr/ 10001$/, 'three topics leave one after the other');
is(keys_of('mine'), 'm', 'each with what was aside');

# ---- under load, with crashes ----

Workload::install($node, 'shop', keys => 40);
$node->safe_psql('shop', q{SELECT outbox.capture('shop.stock', 'StockChanged', operations => 'update', key => '{key}', topic => 'stock')});
$kafka->create_topic('stock', 3);

# Topic against truth: what is missing, doubled, or in the wrong order in its key.
sub findings
{
	my ($at, $topic) = @_;
	my %missing = map { $_ => 1 } split /\n/, $at->safe_psql('shop', q{SELECT key || ',' || version FROM shop.truth});
	my $events = keys %missing;
	my (%newest, %found);

	foreach my $record ($kafka->read_topic($topic))
	{
		my ($key, $version) = parse_event($record->{value});

		$found{doubled}++ if !delete $missing{"$key,$version"};
		$found{'out of order'}++ if $version <= ($newest{$key} // 0);
		$newest{$key} = $version;
	}
	$found{missing} = keys %missing if %missing;
	note("$events events in $topic");
	return join ', ', map { "$found{$_} $_" } sort keys %found;
}

my @sessions = map { Workload->start($node, 'shop', most => 6, seed => $_ * 1000, chunk => 20, pause => 0.02) } 1 .. 2;
foreach my $crash (0, 1, 1)
{
	$node->safe_psql('shop', q{SELECT outbox.park('stock')});
	poll_until(sub { value(q{SELECT events FROM outbox.parked WHERE topic = 'stock'}) > 100 }, 60, 'events go aside');
	if ($crash)
	{
		$node->stop('immediate');
		$node->start;
		my $before = value(q{SELECT events FROM outbox.parked WHERE topic = 'stock'});
		poll_until(sub { value(q{SELECT events FROM outbox.parked WHERE topic = 'stock'}) > $before }, 60, 'more go aside');
	}
	$node->safe_psql('shop', q{SELECT outbox.unpark('stock')});
	if ($crash)
	{
		$node->stop('immediate');
		$node->start;
	}
	poll_until(sub { !value('SELECT topic FROM outbox.parked') }, 60, 'it is published again, under load');
}
$_->stop foreach @sessions;
published();
is(findings($node, 'stock'), '', 'each event is published once, in the order of its key');
no_crash($node);
$node->stop;

# ---- can this test fail? ----

SKIP:
{
	skip Mutants::missing(), 2 if Mutants::missing();
	foreach my $mutant (qw(aside_lost any_order))
	{
		my $broken = Carshop->new_node($mutant, kafka => $kafka, conf => { '.report_databases' => '', '.topic' => $mutant });
		$broken->append_conf('postgresql.conf', Mutants::conf($mutant));
		$broken->start;
		$broken->safe_psql('postgres', 'CREATE DATABASE shop');
		$broken->safe_psql('shop', 'CREATE EXTENSION carshop_outbox');
		Workload::install($broken, 'shop', keys => 1);
		$broken->safe_psql('shop', "SELECT outbox.park('$mutant')");
		$broken->safe_psql('shop', q{CALL shop.work(20, 1)});
		poll_until(sub { query_value($broken, 'shop', q{SELECT outbox.wait_published('2s')}) eq 't' }, 60, 'all is aside');

		# it is to leave, and one more is committed before the relay has seen that
		my ($relay) = worker_pids($broken, 'relay', 'shop');
		kill 'STOP', $relay;
		$broken->safe_psql('shop', "SELECT outbox.unpark('$mutant')");
		$broken->safe_psql('shop', q{CALL shop.work(20, 1)});
		kill 'CONT', $relay;
		poll_until(sub { !query_value($broken, 'shop', 'SELECT topic FROM outbox.parked') }, 60, 'it has left');
		poll_until(sub { query_value($broken, 'shop', q{SELECT outbox.wait_published('2s')}) eq 't' }, 60, 'all is published');
		isnt(findings($broken, $mutant), '', "$mutant is noticed");
		$broken->stop('immediate');
	}
}

done_testing();
