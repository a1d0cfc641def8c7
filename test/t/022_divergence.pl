# Fail closed (I13): a copied server, a restored backup, another cluster, a lost
# progress topic.  The relay stops, says so with the remedy, fences nobody, and
# goes on when a person has decided.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('original', kafka => $kafka, conf => { '.report_databases' => '', 'log_line_prefix' => '%m [%p] %b %e ' });
my $cars = 0;

sub add_car
{
	my ($where) = @_;

	$cars++;
	$where->safe_psql('shop', qq{INSERT INTO "Cars" VALUES ($cars, NULL)});
	return $cars;
}

sub published
{
	my ($where, $what) = @_;

	poll_until(sub { query_value($where, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, $what);
	pass("$what: published");
}

sub in_topic
{
	my ($car) = @_;

	return scalar grep { $_->{key} eq $car } $kafka->read_topic($topic);
}

# The relay has stopped for that reason, later than then, and names the function.
sub stopped
{
	my ($where, $pattern, $remedy, $what, $then) = @_;
	my $row;

	poll_until(sub {
		$row = $where->safe_psql('shop', q{SELECT s.message, s.remedy FROM outbox.status s, outbox.stat_relay r
			WHERE s.concern = 'divergence' AND r.state = 'stopped' AND r.since > '} . ($then // '-infinity') . q{'});
		$row =~ $pattern;
	}, 60, $what);
	like($row, $remedy, "$what: stopped, the remedy names what to call");
}

# A copy of a server that is down, started beside it.
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
add_car($node);
published($node, 'the original');
$node->stop;
my $copy = copy_of($node, 'copy');
my $backup = copy_of($node, 'backup');
my $moved = copy_of($node, 'moved');
$node->start;

# --- a copy beside the original ---
$copy->start;
my $of_copy = add_car($copy);
stopped($copy, qr/written by another server/, qr/outbox\.claim\(\).*outbox\.start_lineage\(\)/s, 'a copy');
add_car($node);
published($node, 'the original beside its copy');
is($node->safe_psql('shop', 'SELECT errors FROM outbox.stat_relay'), 0, 'the original was not fenced');
is(in_topic($of_copy), 0, 'nothing of the copy is in the topic');

# A person says what it is: from now on it publishes for itself.
$copy->safe_psql('shop', 'SELECT outbox.start_lineage()');
published($copy, 'the copy with a lineage of its own');
is(in_topic($of_copy), 1, 'the event that waited is published, once');
add_car($node);
published($node, 'the original goes on');
isnt(query_value($copy, 'shop', 'SELECT lineage FROM outbox.stat_relay'),
	query_value($node, 'shop', 'SELECT lineage FROM outbox.stat_relay'), 'two lineages');
$copy->stop;

# --- 'nothing': only what comes from now on ---
$backup->start;
my $before = add_car($backup);
stopped($backup, qr/written by another server/, qr/start_lineage/, 'a restored backup');
$backup->safe_psql('shop', q{SELECT outbox.start_lineage('nothing')});
my $after = add_car($backup);
published($backup, 'the backup with a new lineage');
is(in_topic($after), 1, 'an event after start_lineage is published');
is(in_topic($before), 0, 'an event before start_lineage(nothing) is not');
$backup->stop;

# --- moved: the original is gone, the copy claims its lineage ---
# The backup is older than what Kafka has: claiming cannot help.
$node->stop;
$moved->start;
add_car($moved);
stopped($moved, qr/does not know.*written by another server/, qr/start_lineage/, 'a move to an older copy');
my $claimed = $moved->safe_psql('shop', 'SELECT clock_timestamp() FROM outbox.claim()');
stopped($moved, qr/does not know/, qr/start_lineage/, 'claimed, but Kafka knows more', $claimed);
$moved->stop;

my $heir = copy_of($node, 'heir');
$heir->start;
my $of_heir = add_car($heir);
stopped($heir, qr/written by another server/, qr/claim/, 'a move');
$heir->safe_psql('shop', 'SELECT outbox.claim()');
published($heir, 'the server after its move');
is(in_topic($of_heir), 1, 'its event, once');

# The original comes back nevertheless: it stops, it is not the home any more.
$node->start;
add_car($node);
stopped($node, qr/written by another server/, qr/start_lineage/, 'the original after its lineage was claimed');
add_car($heir);
published($heir, 'the heir goes on');
$node->stop;

# --- another cluster ---
my $other = Carshop::Kafka->start;
$heir->safe_psql('postgres', sprintf q{ALTER SYSTEM SET carshop_outbox.brokers = '%s'}, $other->bootstrap);
$heir->reload;
stopped($heir, qr/another Kafka cluster/, qr/start_lineage/, 'another cluster');
is_deeply([ grep { /carshop/ } keys %{ $other->topics } ], [], 'nothing was made there');
$heir->safe_psql('postgres', sprintf q{ALTER SYSTEM SET carshop_outbox.brokers = '%s'}, $kafka->bootstrap);
$heir->reload;
my $again = add_car($heir);
published($heir, 'back at its cluster');
is(in_topic($again), 1, 'the event that waited, once');
$other->stop;

# --- Kafka has lost its newest data; the tick of what is left has been rotated away ---
my $lineage = query_value($heir, 'shop', 'SELECT lineage FROM outbox.stat_relay');
my $older = ($kafka->read_topic("carshop-outbox-progress-$lineage"))[-1];
add_car($heir), published($heir, 'more') for 1 .. 2;
poll_until(sub { query_value($heir, 'shop', 'SELECT l.confirmed_tick = (SELECT max(tick_id) FROM outbox.tick) FROM outbox.lineage l') eq 't' }, 60, 'it is written down');
$kafka->produce("carshop-outbox-progress-$lineage", $older->{value}, key => $older->{key});
$heir->safe_psql('shop', 'DELETE FROM outbox.tick t USING outbox.lineage l WHERE t.tick_id < l.confirmed_tick');
$heir->restart;
stopped($heir, qr/behind what was confirmed: the cluster has lost committed data/, qr/Find out what was lost/, 'an older progress');
$heir->safe_psql('shop', 'SELECT outbox.start_lineage()');
add_car($heir);
published($heir, 'when a person has looked');

# --- the progress topic is gone ---
$lineage = query_value($heir, 'shop', 'SELECT lineage FROM outbox.stat_relay');
$kafka->delete_topic("carshop-outbox-progress-$lineage");
$heir->restart;
add_car($heir);
stopped($heir, qr/progress topic is missing/, qr/start_lineage/, 'a lost progress topic');
ok(!exists $kafka->topics->{"carshop-outbox-progress-$lineage"}, 'it is not made again');
$heir->safe_psql('shop', 'SELECT outbox.start_lineage()');
published($heir, 'with a new lineage');

like(slurp_file($copy->logfile), qr/ carshop_outbox relay OB003 WARNING: .*written by another server/, 'the log has the SQLSTATE of a divergence');
foreach my $server ($node, $copy, $backup, $moved, $heir)
{
	unlike(slurp_file($server->logfile), qr/PANIC|terminated by signal/, $server->name . ': nothing crashed');
}
$heir->stop;
done_testing();
