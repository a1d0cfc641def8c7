# Before the first event, where Kafka's listeners want certificates, passwords and
# rights: outbox.check() and report.check() name what is missing, each by itself, tell
# no secret, and say when it is there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Carshop::Acls;
use Carshop::Check;
use Carshop::Secure;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my $progress = 'progress-of-shop';
my %password = (shop => 'geheim-1');
my $secure = Carshop::Secure->new;
my $kafka = $secure->start_kafka(users => \%password, set => [
	'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer', 'super.users=User:ANONYMOUS' ]);
my $node = Carshop->new_node('secured', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => '', '.progress_topic' => 'progress-of-{database}' });
my ($row, @rows);

$node->start;
check_node($node);
create_shop($node, 'shop', reports => 0);

my $tells = query_value($node, 'shop', q{SELECT string_to_array(librdkafka, '.')::integer[] >= '{2,3}' FROM outbox.library}) eq 't';

# ---- another cluster ----

row('none before', 'kafka', 'ok', qr/Kafka answers/, check('outbox'));
$node->safe_psql('shop', q{UPDATE outbox.lineage SET cluster_id = 'elsewhere'});
$row = row('another cluster', 'kafka', 'fail', qr/the database has published to cluster "elsewhere"/, check('outbox'));
$node->safe_psql('shop', 'SELECT outbox.start_lineage()');
row('another cluster, taken', 'kafka', 'ok', qr/Kafka answers/, check('outbox'));

# ---- the connection's security: each its own message and remedy ----

my $file = $secure->path('shop');

sub connection
{
	my ($what, $listener, $level, $pattern, $remedy, @properties) = @_;

	$secure->put('shop', join "\n", 'bootstrap.servers=' . $kafka->bootstrap($listener), @properties, '');
	my @answer = check('outbox', timeout => '20s');
	my $kafka_row = row($what, 'kafka', $level, $pattern, @answer);
	like($kafka_row->{remedy} // '', $remedy, "$what: the remedy");
	unlike(encode_json(\@answer), qr/geheim|falsch/, "$what: no secret is told");
}

my @ca = ('security.protocol=ssl', 'ssl.ca.location=' . $secure->path('ca.pem'));
my @sasl = ('security.protocol=sasl_ssl', $ca[1], 'sasl.mechanism=PLAIN', 'sasl.username=shop');

$secure->put('shop', '');
set('kafka_config_file', $file);
connection('a CA nobody knows', 'TLS', 'fail', qr/certificate/i, qr/ssl\.ca\.location/, 'security.protocol=ssl', 'ssl.ca.location=' . $secure->path('other.pem'));
connection('an old certificate', 'EXPIRED', 'fail', qr/expired/, qr/Renew the certificate/, @ca);
connection('another name', 'ELSEWHERE', 'fail', qr/another (?:host name|IP address)/, qr/advertised\.listeners/, @ca);
connection('a wrong password', 'SASL', 'fail', qr/Authentication failed/i, qr/sasl\.password/, @sasl, 'sasl.password=falsch');
connection('an unknown property', 'SASL', 'fail', qr/no\.such/, qr/property/, @sasl, 'no.such=falsch');
connection('TLS and a password', 'SASL', 'ok', qr/Kafka answers/, qr/^$/, @sasl, 'sasl.password=geheim-1');

# ---- rights: without any, then one after the other ----

my $acls = Carshop::Acls->new($kafka);

sub granted
{
	my ($what, $acl, $concern, $bad, $bad_pattern, $remedy, $good, $good_pattern) = @_;
	my $without = row("without $what", $concern, $bad, $bad_pattern, check('outbox'));

	like($without->{remedy} // '', $remedy, "without $what: the remedy names it");
	$acls->grant('shop', @$acl);
	eval { poll_until(sub { grep { $_->{concern} eq $concern && $_->{level} eq $good && $_->{message} =~ $good_pattern } check('outbox') }, 40, "with $what") };
	row("with $what", $concern, $good, $good_pattern, check('outbox'));
}

granted('DescribeConfigs on the cluster', [ 'cluster', 'kafka-cluster', 'DescribeConfigs' ], 'verification', 'warn', qr/may not be read/,
	qr/^kafka-acls .* --operation DescribeConfigs --cluster$/, 'ok', qr/The brokers verify/);
granted('Write on the transactional id', [ 'transactional_id', $progress, 'Write' ], 'transactional id', 'fail', qr/Transactional Id authorization failed/i,
	qr/Write and Describe on the transactional id/, 'ok', qr/may be used/);
$acls->grant('shop', 'topic', $_, 'Describe') foreach $topic, $progress;
granted('Create', [ 'topic', $topic, 'Create' ], 'topic', 'fail', qr/"$topic" does not exist and could not be made.*authorization/i,
	qr/Create/, 'ok', qr/"$topic" does not exist; the relay may make it/);
$kafka->create_topic($topic, 1);
$kafka->create_topic($progress, 1, 'cleanup.policy' => 'compact');
granted('DescribeConfigs on the topic', [ 'topic', $topic, 'DescribeConfigs' ], 'cleanup', 'warn', qr/settings of topic "$topic" could not be read.*authorization/i,
	qr/^kafka-acls .* --operation DescribeConfigs --topic $topic$/, 'ok', qr/"$topic" is not compacted/);
granted('Read on the progress topic', [ 'topic', $progress, 'Read' ], 'rights', 'fail', $tells ? qr/may not read nor write to topic "$progress"/ : qr/$progress.*authorization/i,
	qr/Read/, $tells ? 'fail' : 'warn', $tells ? qr/may not write to topic "$progress"/ : qr/write to topic "$progress" is not known/);
granted('Write', [ 'topic', $topic, 'Write' ], 'rights', $tells ? 'fail' : 'warn', $tells ? qr/may not write to topic "$topic"/ : qr/"$topic" is not known/,
	qr/^kafka-acls .*--topic $topic$/, $tells ? 'ok' : 'warn', $tells ? qr/may write to topic "$topic"/ : qr/"$topic" is not known/);
is(scalar($kafka->read_topic($topic)), 0, 'the topic of events is as empty as it was');

# The reporter's, of the same user.
my $unread = row('without Read', 'rights', 'fail', $tells ? qr/may not read topic "$topic"/ : qr/$topic.*authorization/i, check('report'));
$acls->grant('shop', 'topic', $topic, 'Read');
eval { poll_until(sub { grep { $_->{concern} eq 'rights' && $_->{level} eq 'ok' } check('report') }, 40, 'with Read') };
row('with Read', 'rights', 'ok', qr/may read topic "$topic"/, check('report'));

no_crash($node);
is(scalar(grep { /FATAL|PANIC|ERROR/ && !/statement timeout|timeout must be|administrator command/ } split /\n/, slurp_file($node->logfile)), 0, 'nothing else in the log');
$node->stop;
done_testing();
