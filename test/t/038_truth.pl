# The relay tells the truth and does not stall: what is confirmed stays
# confirmed, a claim takes effect when it is called, lasting trouble is told once
# and with the remedy that fits, start_lineage() may come at any moment, two
# servers do not share a transactional.id, and commits without end do not keep
# ticks from being published.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('truth', kafka => $kafka,
	conf => { '.report_databases' => '', '.progress_topic' => 'progress-of-{database}' });
my $events = 0;

sub emit
{
	my ($where, %options) = @_;

	$events++;
	$where->safe_psql('shop', sprintf q{SELECT outbox.emit('Told', key => 'e%d'%s)}, $events,
		$options{topic} ? ", topic => '$options{topic}'" : '');
	return "e$events";
}

sub published
{
	my ($where, $what) = @_;

	poll_until(sub { query_value($where, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, $what);
	pass("$what: published");
}

sub times_in_topic
{
	my ($key, $name) = @_;

	return scalar grep { $_->{key} eq $key } $kafka->read_topic($name // $topic);
}

sub stat_relay
{
	my ($where, $columns) = @_;

	return $where->safe_psql('shop', "SELECT $columns FROM outbox.stat_relay");
}

sub idle
{
	my ($where, $what) = @_;

	poll_until(sub { stat_relay($where, 'state') eq 'idle' }, 60, $what);
}

# Every row of outbox.status that is not ok.
sub complaints
{
	my ($where) = @_;

	return $where->safe_psql('shop', q{SELECT concern, message, remedy FROM outbox.status WHERE level <> 'ok'});
}

# Lines of the log since that place.
sub logged
{
	my ($where, $from, $pattern) = @_;

	return grep { $_ =~ $pattern } split /\n/, substr(slurp_file($where->logfile), $from);
}

sub set
{
	my ($where, $name, $value) = @_;

	$where->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.$name = '$value'");
	$where->reload;
}

# A copy of a server that is down.
sub copy_of
{
	my ($from, $name) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);

	system_or_bail('cp', '-a', $from->data_dir, $copy->data_dir);
	my $host = $copy->host;
	$copy->append_conf('postgresql.conf', 'port = ' . $copy->port . "\nunix_socket_directories = '$host'\n");
	return $copy;
}

$node->start;
create_shop($node, 'shop', reports => 0);

# ---- what is confirmed stays confirmed ----

emit($node);
published($node, 'the first event');
is(stat_relay($node, 'tick, confirmed_tick, unconfirmed_events'), '1|1|0', 'confirmed');

# The handle is replaced by the first reload, not by the second.
my ($relay) = worker_pids($node, 'relay', 'shop');
my $inits = sub { return scalar $kafka->tool('org.apache.kafka.tools.TransactionsCommand', 'describe',
		'--transactional-id', 'progress-of-shop') =~ /progress-of-shop\s+\d+\s+(\d+)/ ? $1 : -1 };
my $epoch = $inits->();
set($node, 'compression', 'none');
poll_until(sub { $inits->() > $epoch && stat_relay($node, 'state') eq 'idle' }, 60, 'another handle');
is(stat_relay($node, 'tick, confirmed_tick, unconfirmed_events'), '1|1|0', 'still confirmed with a new handle');
$epoch = $inits->();
set($node, 'poll_interval', '7s');
emit($node);
published($node, 'after a reload that does not concern Kafka');
is($inits->(), $epoch, 'the handle was kept');
is((worker_pids($node, 'relay', 'shop'))[0], $relay, 'by the same process');

$node->restart;
idle($node, 'after a restart');
is(stat_relay($node, 'tick = confirmed_tick, unconfirmed_events'), 't|0', 'confirmed after a restart');

# Who looks while a tick is made may not see it yet: then not all that is kept waits again.
{
	my $look = $node->background_psql('shop');

	$look->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox.event');
	emit($node);
	published($node, 'beside a snapshot that is older');
	is($look->query_safe('SELECT unconfirmed_events FROM outbox.stat_relay'), 0, 'nothing waits for who sees less');
	$look->quit;
}

# Written down when the relay rests, so that a copy knows it without Kafka.
poll_until(sub { $node->safe_psql('shop', 'SELECT confirmed_tick = (SELECT max(tick_id) FROM outbox.tick) FROM outbox.lineage') eq 't' },
	60, 'what is confirmed is written down');
pass('what is confirmed is written down');

# ---- a drained copy begins a new lineage: nothing comes twice ----

my $last = emit($node);
published($node, 'the last event before the copy');
poll_until(sub { $node->safe_psql('shop', 'SELECT confirmed_tick = (SELECT max(tick_id) FROM outbox.tick) FROM outbox.lineage') eq 't' },
	60, 'written down');
$node->stop;
my $copy = copy_of($node, 'copy');
$node->start;
$copy->start;
poll_until(sub { complaints($copy) =~ /written by another server/ }, 60, 'the copy stops');

# It would use the topic and the transactional.id of the original.
$copy->safe_psql('shop', 'SELECT outbox.start_lineage()');
poll_until(sub { complaints($copy) =~ /used by another lineage/ }, 60, 'the copy must not use the same topic');
like(complaints($copy), qr/progress_topic/, 'the remedy names the setting');
emit($node);
published($node, 'the original beside it');
is(stat_relay($node, 'errors'), 0, 'the original was never fenced');

set($copy, 'progress_topic', 'progress-of-a-copy');
$copy->safe_psql('shop', 'SELECT outbox.start_lineage()');
my $of_copy = emit($copy);
published($copy, 'the copy with a topic of its own');
is(times_in_topic($of_copy), 1, 'its event');
is(times_in_topic($last), 1, 'what was confirmed is not published again');
$copy->stop;

# The same server may begin another lineage in a topic that is named for the database.
emit($node);
published($node, 'before another lineage');
$node->safe_psql('shop', 'SELECT outbox.start_lineage()');
my $in_new = emit($node);
published($node, 'in the next lineage on the same topic');
is(times_in_topic($in_new), 1, 'its event, once');

# ---- a claim takes effect when it is called ----

$node->safe_psql('postgres', q{ALTER SYSTEM RESET carshop_outbox.progress_topic});
$node->reload;
$node->safe_psql('shop', 'SELECT outbox.start_lineage()');
emit($node);
published($node, 'in a lineage of its own topic');
$node->stop;
my $heir = copy_of($node, 'heir');
$heir->start;
poll_until(sub { complaints($heir) =~ /written by another server/ }, 60, 'the heir stops');
$heir->safe_psql('shop', 'SELECT outbox.claim()');
idle($heir, 'claimed');
poll_until(sub { $heir->safe_psql('shop', 'SELECT NOT claimed FROM outbox.lineage') eq 't' }, 60, 'the claim is used');
foreach my $round (1 .. 2)
{
	$heir->restart;
	idle($heir, "idle after restart $round");
	is(complaints($heir), '', "claimed once, still the owner after restart $round");
}
emit($heir);
published($heir, 'the heir');

# ... and the former home knows it at once, although nothing was published.
$heir->stop;
my $second = copy_of($heir, 'second');
$second->start;
poll_until(sub { complaints($second) =~ /written by another server/ }, 60, 'the second heir stops');
$second->safe_psql('shop', 'SELECT outbox.claim()');
idle($second, 'claimed by the second');
$heir->start;
poll_until(sub { complaints($heir) =~ /written by another server/ }, 60, 'the first heir stops');
pass('a claim is seen by the former home before the next event');
$heir->stop;
$node = $second;

# ---- lasting trouble is told once ----

my $lost = $node->logfile;
$node->safe_psql('postgres', q{ALTER SYSTEM SET carshop_outbox.create_topics = off});
set($node, 'allowed_topics', 'missing-topic');
poll_until(sub { $node->safe_psql('shop', 'SHOW carshop_outbox.create_topics') eq 'off' }, 30, 'reloaded');
my $from = -s $node->logfile;
emit($node, topic => 'missing-topic');
poll_until(sub { complaints($node) =~ /missing-topic/ }, 60, 'the status tells of the topic');
my $seen = 0;
my $wrong = 0;
my $tries = stat_relay($node, 'errors');
poll_until(sub {
	$seen++;
	$wrong++ if complaints($node) !~ /missing-topic" does not exist.*create_topics/s;
	return stat_relay($node, 'errors') >= $tries + 6;
}, 120, 'some more tries');
ok($seen > 3, "looked at the status $seen times meanwhile");
is($wrong, 0, 'it said the same, with its remedy, each time');
my @lines = logged($node, $from, qr/relay for shop: /);
is(scalar @lines, 1, 'and the log says it once') or diag(@lines);
is(scalar(logged($node, $from, qr/publishing again/)), 0, 'nothing is called mended');

# Other events wait behind it; all go out when the topic is there.
my $behind = emit($node);
$kafka->create_topic('missing-topic', 1);
published($node, 'when the topic is there');
is(times_in_topic($behind), 1, 'what waited behind it, once');
is(scalar(logged($node, $from, qr/publishing again/)), 1, 'then it is mended, once');
is(complaints($node), '', 'nothing is wrong any more');
$node->safe_psql('postgres', q{ALTER SYSTEM RESET carshop_outbox.create_topics});
$node->reload;

# ---- a topic that is made anew with fewer partitions ----

# Records to partitions that are gone: nobody's fault, and no worker ends for them.
# (smoke_faults has what librdkafka itself does then.)
{
	my $postmaster = slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr;
	my @keys;

	set($node, 'allowed_topics', 'remade');
	poll_until(sub { query_value($node, 'shop', 'SHOW carshop_outbox.allowed_topics') eq 'remade' }, 30, 'the reload');
	$kafka->create_topic('remade', 8);
	emit($node, topic => 'remade');
	published($node, 'with eight partitions');
	$kafka->delete_topic('remade');
	$kafka->create_topic('remade', 1);
	push @keys, emit($node, topic => 'remade') foreach 1 .. 16;
	published($node, 'with one partition');
	is_deeply([ map { $_->{key} } $kafka->read_topic('remade') ], \@keys, 'all that came after are in the new topic, in order');
	no_crash($node);
	is(slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr, $postmaster, 'the server is the same');
}

# ---- start_lineage() at any moment ----

foreach my $round (1 .. 8)
{
	set($node, 'compression', $round % 2 ? 'lz4' : 'none');	# another handle
	$node->safe_psql('shop', 'SELECT outbox.start_lineage()');
	my $key = emit($node);
	published($node, "lineage $round");
	is(times_in_topic($key), 1, "lineage $round: its event, once");
}

# ---- commits without end ----

my $script = PostgreSQL::Test::Utils::tempdir() . '/busy.sql';
append_to_file($script, "SET synchronous_commit = off;\nSELECT outbox.emit('Busy');\n");
my ($ticks, $transactions) = split /\|/, stat_relay($node, 'tick, transactions');
my $waited = 0;
my $writer = IPC::Run::start([ 'pgbench', '-n', '-d', $node->connstr('shop'), '-c', 8, '-j', 2, '-t', 2500, '-f', $script ],
	'>', '/dev/null', '2>&1');
$waited++ while query_value($node, 'shop', q{SELECT outbox.wait_published('30s')}) eq 't' && $waited < 5;
$writer->finish;
is($waited, 5, 'wait_published answers on a busy shop');
published($node, 'all of them');
my ($ticks2, $transactions2) = split /\|/, stat_relay($node, 'tick, transactions');
note(sprintf '%d ticks, %d Kafka transactions', $ticks2 - $ticks, $transactions2 - $transactions);
cmp_ok($ticks2 - $ticks, '<=', 1.2 * ($transactions2 - $transactions) + 5, 'about one tick for each Kafka transaction');

# ---- a topic whose limits our timestamps break: the clock's fault, not the event's ----

# The broker measures its own marker of the aborted transaction by the same limit,
# so nothing more is published with that transactional.id: this comes last.
$kafka->create_topic('clock', 1, 'message.timestamp.before.max.ms' => 0);
set($node, 'allowed_topics', 'clock');
emit($node, topic => 'clock');
poll_until(sub { complaints($node) =~ /clock/ }, 60, 'a wrong clock is told');
like(complaints($node), qr/clock of the PostgreSQL server.*clocks of the Kafka brokers/, 'the remedy names both clocks');
is(stat_relay($node, 'dead_letters'), 0, 'no dead letter');

no_crash($node);
$node->stop;
done_testing();
