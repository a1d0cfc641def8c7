# The broker that the other tests rely on: it starts and answers, keeps what it
# was given over kill -9 and over a polite stop, and shows transactions only as
# far as the reader asked for.  Messages come back byte for byte.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;
use Tools;

my $kafka = Carshop::Kafka->start;
like($kafka->bootstrap, qr/^127\.0\.0\.1:\d+$/, 'the broker tells its address');

$kafka->create_topic('plain', 2, 'retention.ms' => -1);
is($kafka->topics->{plain}, 2, 'a topic has the partitions that were asked for');

# What a message may hold.
my $value = "line\nbreak, \"quotes\" and \xc3\xa9\x01\x00\xff";
$kafka->produce('plain', $value, key => 'a key', partition => 1,
	headers => { id => '0199', other => 'x=y' });
$kafka->produce('plain', '', key => 'empty', partition => 1);
$kafka->produce('plain', 'x', partition => 1);
$kafka->produce('plain', undef, key => 'gone', partition => 1);
my @messages = $kafka->read_topic('plain');
is(scalar @messages, 4, 'all messages are read');
is($messages[0]{value}, $value, 'a value comes back byte for byte');
is($messages[0]{key}, 'a key', 'so does a key');
is_deeply($messages[0]{headers}, { id => '0199', other => 'x=y' }, 'and headers');
is($messages[0]{partition}, 1, 'in the partition that was asked for');
cmp_ok($messages[0]{ts} / 1000, '>', time - 600, 'with a timestamp of now');
is($messages[1]{value}, '', 'an empty value is not null');
is($messages[2]{key}, undef, 'a missing key is null');
is($messages[3]{value}, undef, 'a tombstone is null');

# Committed and aborted transactions, by a small C program.
my $producer = Tools::program('txnproducer');
$kafka->create_topic('transactions');
my @producer = ($producer, '-b', $kafka->bootstrap, '-t', 'transactions');
command_ok([ @producer, '-n', 3, '-m', 4 ], 'three transactions are committed');
is(scalar $kafka->read_topic('transactions'), 12, 'a reader of committed messages sees them');
is(scalar $kafka->read_topic('transactions', 'read_uncommitted'),
	12, 'and so does a reader of everything');

# What was acknowledged survives.
my $pid = $kafka->pid;
my $address = $kafka->bootstrap;
$kafka->kill9;
ok(!kill(0, $pid) || PostgreSQL::Test::Utils::slurp_file("/proc/$pid/stat") =~ /\) Z /,
	'kill -9 ends the broker');
$kafka->restart;
isnt($kafka->pid, $pid, 'a new process serves');
is($kafka->bootstrap, $address, 'at the same address');
is(scalar $kafka->read_topic('transactions'), 12, 'the data is still there after kill -9');
$kafka->stop;
$kafka->restart(set => ['message.max.bytes=2000000']);
is(scalar $kafka->read_topic('plain'), 4, 'and after a polite stop');

# Two brokers beside each other are strangers.
my $second = Carshop::Kafka->start;
isnt($second->bootstrap, $kafka->bootstrap, 'a second broker has an address of its own');
is_deeply($second->topics, {}, 'and knows nothing of the first one');

done_testing();
