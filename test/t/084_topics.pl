# Trouble of topics that comes while the relay works is seen in outbox.status, with
# the remedy, and not before it looks: more partitions, a topic deleted and made
# anew, compaction, settings with which acknowledged events can be lost.  It is said
# until it is mended, or accepted; an idle relay asks nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('topics', kafka => $kafka, conf => { '.report_databases' => '' });
my $cars = 0;

$node->start;
create_shop($node, 'shop', reports => 0);

sub sell
{
	$node->safe_psql('shop', sprintf 'INSERT INTO "Cars" VALUES (%d, NULL)', ++$cars);
	poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 90, "car $cars is published");
}

sub concerns { return $node->safe_psql('shop', q{SELECT level, message, remedy FROM outbox.status WHERE concern = 'topics'}); }

# A reload has the relay look with its next event.
sub look
{
	my ($condition, $what) = @_;

	$node->reload;
	poll_until(sub { sell(); $condition->() }, 60, $what);
}

sub tool { $kafka->tool(@_); }
sub configure { $kafka->tool('kafka.admin.ConfigCommand', '--alter', '--entity-type', 'topics', '--entity-name', $topic, @_); }

# Seen after a look, with the remedy, which is done; then it is said no more.
sub seen
{
	my ($what, $pattern, $remedy) = @_;
	my ($row) = ('');

	eval { look(sub { ($row) = grep { $_ =~ $pattern } split /\n/, concerns(); $row }, $what) };
	like($row, qr/^warn\|/, "$what: a warning") or diag(concerns());
	my ($command) = $row =~ /\|(SELECT outbox.accept_topic.*|kafka-configs .*)$/;
	like($command // $row, $remedy, "$what: the remedy");
	if ($command =~ /^kafka-configs --bootstrap-server (\S+) (.*)/)
	{
		is($1, $kafka->bootstrap, "$what: names the broker");
		$kafka->tool('kafka.admin.ConfigCommand', split / /, $2);
		eval { look(sub { concerns() !~ $pattern }, "$what: mended") };
	}
	else
	{
		is($node->safe_psql('shop', $command), 't', "$what: accepted");
	}
	unlike(concerns(), $pattern, "$what: said no more");
}

sell();
like(concerns(), qr/^ok\|1 topic\(s\) are as they were/, 'nothing is wrong');
is($node->safe_psql('shop', q{SELECT topic, partitions, replicas, min_insync, compacted, unclean FROM outbox.topic}), "$topic|1|1|1|f|f", 'what the relay has seen');

# ---- more partitions ----

tool('org.apache.kafka.tools.TopicCommand', '--alter', '--topic', $topic, '--partitions', 3);
seen('more partitions', qr/"$topic" has 3 partition\(s\) and had 1/, qr/^SELECT outbox.accept_topic\('$topic'\)/);

# What was seen outlives the process; and two changes are one to accept.
tool('org.apache.kafka.tools.TopicCommand', '--alter', '--topic', $topic, '--partitions', 4);
look(sub { concerns() =~ /has 4 partition\(s\) and had 3/ }, 'four partitions');
my ($relay) = worker_pids($node, 'relay', 'shop');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($relay)");
wait_for_worker($node, 'relay', 'shop', $relay);
sell();
like(concerns(), qr/has 4 partition\(s\) and had 3/, 'also after a restart of the relay');

# While the relay is away, likewise.
$node->stop;
tool('org.apache.kafka.tools.TopicCommand', '--alter', '--topic', $topic, '--partitions', 5);
$node->start;
poll_until(sub { concerns() =~ /has 5 partition\(s\) and had 3/ }, 60, 'seen when it connects');
is($node->safe_psql('shop', "SELECT outbox.accept_topic('$topic')"), 't', 'accepted');
is($node->safe_psql('shop', "SELECT outbox.accept_topic('$topic')"), 'f', 'there is nothing to accept any more');
like(concerns(), qr/^ok\|/, 'in order again');

# ---- settings ----

configure('--add-config', 'cleanup.policy=compact');
seen('compacted', qr/"$topic" is compacted/, qr/cleanup.policy=delete$/);
configure('--add-config', 'unclean.leader.election.enable=true');
seen('unclean', qr/"$topic" that lags behind may become leader/, qr/unclean.leader.election.enable=false$/);

# A look that finds nothing new writes nothing.
my $row = $node->safe_psql('shop', 'SELECT xmin, ctid FROM outbox.topic');
$node->reload;
sell() foreach 1 .. 3;
is($node->safe_psql('shop', 'SELECT xmin, ctid FROM outbox.topic'), $row, 'nothing new, nothing written');

# One broker has no replicas: the row is written as the relay writes it.
$node->safe_psql('shop', "SELECT outbox.note_topic('$topic', false, 5, 3, 1, false, false)");
like(concerns(), qr/^warn\|Topic "$topic" has 3 replicas and min.insync.replicas = 1: .*\|kafka-configs .*min.insync.replicas=2$/, 'replicas that are not waited for');

# ---- deleted and made anew ----

$node->safe_psql('shop', "SELECT outbox.note_topic('$topic', false, 5, 1, 1, false, false)");
$kafka->delete_topic($topic);
poll_until(sub { !exists $kafka->topics->{$topic} }, 60, 'deleted');
my $anew = '';
eval { look(sub { ($anew) = grep { /deleted and made anew/ } split /\n/, concerns(); $anew }, 'made anew') };
like($anew, qr/^warn\|Topic "$topic" has been deleted and made anew, as it seems.*\|SELECT outbox.accept_topic\('$topic'\); -- .*outbox.replay/, 'made anew: a warning with the remedy');
$node->safe_psql('shop', "SELECT outbox.accept_topic('$topic')");
unlike(concerns(), qr/made anew/, 'accepted: said no more');

no_crash($node);
$node->stop;
done_testing();
