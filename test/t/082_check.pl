# Before the first event: outbox.check() and report.check() say of each concern
# what is wrong, with the remedy, and after the remedy that it is in order; they
# leave no trace in Kafka and fence nobody.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Carshop::Check;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my $progress = 'progress-of-shop';
my %tool = (configs => 'kafka.admin.ConfigCommand', topics => 'org.apache.kafka.tools.TopicCommand');
our ($kafka, $node);

# Do what a remedy says, with Kafka's tools or in SQL.
sub apply
{
	my ($remedy) = @_;

	$remedy =~ s/ # .*//;
	return $node->safe_psql('shop', $remedy) unless $remedy =~ /^(?:[^:]*: )?kafka-(configs|topics) --bootstrap-server (\S+) (.*)/;
	is($2, $kafka->bootstrap, 'the remedy names the broker');
	$kafka->tool($tool{$1}, split / /, $3);
}

# Bad, then its remedy, then good.
sub mended
{
	my ($what, $concern, $bad, $bad_pattern, $good_pattern, %options) = @_;
	my $schema = $options{schema} // 'outbox';
	my $row = row($what, $concern, $bad, $bad_pattern, check($schema));
	my @rows;

	apply($options{remedy} // $row->{remedy});
	# settings reach sessions and brokers a moment later
	eval { poll_until(sub { @rows = check($schema); grep { $_->{concern} eq $concern && $_->{level} eq 'ok' && $_->{message} =~ $good_pattern } @rows }, 60, $what) };
	row("$what, mended", $concern, 'ok', $good_pattern, @rows);
	ok(!(grep { $_->{concern} eq $concern && $_->{message} =~ $bad_pattern } @rows), "$what: it is not said any more");
}

sub configure { $kafka->tool($tool{configs}, '--alter', '--entity-type', 'topics', '--entity-name', @_[ 0, 1 ], $_[2]); }

# ---- the server, and a broker that is not as it should be ----

$kafka = Carshop::Kafka->start(set => [ 'transaction.max.timeout.ms=10000', 'transaction.partition.verification.enable=false' ]);
$node = Carshop->new_node('check', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => '', '.progress_topic' => 'progress-of-{database}' });
$node->start;
check_node($node);
create_shop($node, 'shop', reports => 0);

my @rows = check('outbox');
is(join(' ', map { $_->{level} } @rows), join(' ', sort { index('fail warn ok', $a) <=> index('fail warn ok', $b) } map { $_->{level} } @rows), 'the worst first');
row('preloaded', 'library', 'ok', qr/is preloaded/, @rows);
row('reachable', 'kafka', 'ok', qr/cluster ".+", 1 broker/, @rows);
row('reachable', 'brokers', 'ok', qr/1 at \Q${\ $kafka->bootstrap}\E/, @rows);
row('room', 'worker processes', 'ok', qr/max_worker_processes = \d+/, @rows);
row('not there', 'topic', 'ok', qr/"$topic" does not exist; the relay may make it/, @rows);
row('not there', 'topic', 'ok', qr/"$progress" does not exist; the relay may make it/, @rows);
row('one broker', 'replication', 'warn', qr/"$topic" will have one replica/, @rows);

mended('verification', 'verification', 'fail', qr/Broker 1 does not say/, qr/verify/);
mended('timeout', 'transactions', 'fail', qr/10000 ms.*30000 ms/, qr/brokers allow 10000 ms/);
row('transactions', 'transactional id', 'ok', qr/"$progress" may be used/, check('outbox'));

# Nothing of this has left a trace.
is_deeply([ grep { !/^__transaction_state$/ } keys %{ $kafka->topics } ], [], 'no topic was made but Kafka\'s own');
unlike($kafka->tool('org.apache.kafka.tools.TransactionsCommand', 'list'), qr/progress/, 'no transactional id is known');

# ---- topics ----

set('create_topics', 'off');
mended('no topic', 'topic', 'fail', qr/"$topic" does not exist, and carshop_outbox.create_topics is off/, qr/"$topic" has 1 partition/);
mended('no progress topic', 'topic', 'fail', qr/"$progress" does not exist, and/, qr/"$progress" has 1 partition/);
@rows = check('outbox');
row('there', 'message size', 'ok', qr/"$topic" takes 1048588 bytes/, @rows);
row('there', 'cleanup', 'ok', qr/"$topic" is not compacted/, @rows);
row('there', 'cleanup', 'ok', qr/"$progress" is compacted, as/, @rows);
row('one broker', 'replication', 'warn', qr/"$topic" has one replica/, @rows);

my $tells = query_value($node, 'shop', q{SELECT string_to_array(librdkafka, '.')::integer[] >= '{2,3}' FROM outbox.library}) eq 't';
row('a right', 'rights', $tells ? 'ok' : 'warn', $tells ? qr/may write to topic "$topic"/ : qr/write to topic "$topic" is not known with this librdkafka/, @rows);

configure($topic, '--add-config', 'max.message.bytes=5000,cleanup.policy=compact,min.insync.replicas=2,unclean.leader.election.enable=true');
configure($progress, '--add-config', 'cleanup.policy=[compact,delete]');
mended('small topic', 'message size', 'warn', qr/"$topic" takes 5000 bytes/, qr/"$topic" takes \d{7} bytes/);
my $unclean = row('unclean', 'replication', 'warn', qr/"$topic" that lags behind/, check('outbox'));
apply($unclean->{remedy});
poll_until(sub { !grep { $_->{message} =~ /lags behind/ } check('outbox') }, 60, 'clean again');
pass('unclean, mended');
my $too_few = row('too few', 'replication', 'fail', qr/1 replica\(s\) in sync and min.insync.replicas = 2/, check('outbox'));
apply($too_few->{remedy});
poll_until(sub { !grep { $_->{message} =~ /replica\(s\) in sync/ } check('outbox') }, 60, 'enough replicas');
pass('too few, mended');
mended('progress is deleted', 'cleanup', 'fail', qr/"$progress" is for the relay's progress/, qr/"$progress" is compacted, as/);

# Compaction takes nothing away where the newest state is all that is sent.
$node->safe_psql('shop', q{SELECT outbox.release('"Cars"'); SELECT outbox.release('"Customers"')});
$node->safe_psql('shop', q{SELECT outbox.capture('"Cars"', 'Car', 'insert, update, delete', format => 'payload')});
row('state', 'cleanup', 'ok', qr/"$topic" is compacted, and all that goes there/, check('outbox'));
$node->safe_psql('shop', q{SELECT outbox.capture_car_shop()});
mended('compacted', 'cleanup', 'warn', qr/"$topic" is compacted: Kafka refuses/, qr/"$topic" is not compacted/);

$node->safe_psql('shop', q{SELECT outbox.capture('"Cars"', 'Apart', topic => 'of-{Number}')});
row('of columns', 'topic', 'ok', qr/Route "Apart"/, check('outbox'));
set('allowed_topics', 'audit, logs-*');
row('allowed', 'topic', 'fail', qr/"audit" does not exist/, check('outbox'));
set('allowed_topics', '');

$kafka->create_topic('two-parts', 2, 'cleanup.policy' => 'compact');
set('progress_topic', 'two-parts');
row('two partitions', 'topic', 'fail', qr/"two-parts" is for the relay's progress and must have one partition; it has 2/, check('outbox'));
set('progress_topic', 'progress-of-{database}');

# ---- reading ----

set('report_topics', "$topic, later");
@rows = check('report');
row('reading', 'topic', 'warn', qr/"later" does not exist yet/, @rows);
row('reading', 'topic', 'ok', qr/"$topic" has 1 partition/, @rows);
row('reading', 'rights', 'ok', qr/may read topic "$topic"/, @rows);
set('report_topics', $topic);
mended('not named', 'database', 'fail', qr/report_databases does not name database "shop"/, qr/report_databases names database "shop"/, schema => 'report');
$node->safe_psql('shop', 'SELECT report.create_car_shop()');

# ---- with a relay at work: nobody is fenced ----

set('create_topics', 'on');
mended('not named', 'database', 'fail', qr/shop_databases does not name database "shop"/, qr/shop_databases names database "shop"/);
wait_for_worker($node, 'relay', 'shop');
$node->safe_psql('shop', 'INSERT INTO "Cars" VALUES (1, NULL)');
is(query_value($node, 'shop', q{SELECT outbox.wait_published('60s')}), 't', 'published');
my $epoch = sub { return $kafka->tool('org.apache.kafka.tools.TransactionsCommand', 'describe', '--transactional-id', $progress) =~ /$progress\s+\d+\s+(\d+)\s+(\d+)/ ? "$1 $2" : 'none' };
my ($before, $messages) = ($epoch->(), scalar $kafka->read_topic($topic));
poll_until(sub { grep { $_->{concern} eq 'transactional id' && $_->{level} eq 'ok' } check('outbox') }, 60, 'the relay is at rest');
@rows = check('outbox');
row('at work', 'relay', 'ok', qr/The relay runs/, @rows);
row('at work', 'transactional id', 'ok', qr/The relay uses transactional id "$progress"/, @rows);
is_deeply([ grep { $_->{level} eq 'fail' } @rows ], [], 'nothing fails');

# A second server by the same name is no reason to fence the first.
my $other = Carshop->new_node('other', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => '', '.progress_topic' => $progress, '.transaction_timeout' => '5s' });
$other->start;
create_shop($other, 'shop', reports => 0);
check_node($other);
row('another server', 'transactional id', 'ok', qr/"$progress" may be used/, check('outbox'));
$other->stop;
is($epoch->(), $before, 'the producer is the same, of the same epoch');
is(scalar($kafka->read_topic($topic)), $messages, 'and no message was added');
is(query_value($node, 'shop', 'SELECT errors FROM outbox.stat_relay'), 0, 'the relay has met nothing');

no_crash($node);
is(scalar(grep { /FATAL|PANIC|ERROR/ && !/statement timeout|timeout must be|administrator command/ } split /\n/, slurp_file($node->logfile)), 0, 'nothing else in the log');
$node->stop;
done_testing();
