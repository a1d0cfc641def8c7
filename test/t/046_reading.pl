# Messages that nobody expects, and what people do to the reporter while it reads:
# no message stops it, none is passed over, and what the status says is so.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Tools;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop' });
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');

sub db { return $node->safe_psql('shop', $_[0]); }

# A new id for each number.
sub id { return sprintf '01998a5e-0000-7000-8000-%012d', $_[0]; }

sub event
{
	my ($type, %more) = @_;
	my $description = $more{description} // '"d"';
	my $text = qq({"EventType":"$type","EventDescription":$description,"OccuredOn":"2026-11-22T20:27:03.512756+00:00");

	$text .= qq(,"EventId":"$more{id}") if $more{id};
	$text .= qq(,"Data":$more{data}) if $more{data};
	return "$text}";
}

sub produce { return $kafka->produce($topic, $_[0], partition => $_[1] // 0); }

# One event through each partition, read and reported: the reporter works.
my $alive = 0;

sub works
{
	my ($what) = @_;

	$alive++;
	produce(event("Alive", id => id(1_000_000 + $alive)), 0);
	produce(event('Alive', id => id(2_000_000 + $alive)), 1);
	poll_until(
		sub {
			my $n = eval { db(q(SELECT COALESCE(sum(events), 0) FROM report.events_by_day WHERE event_type = 'Alive')) };
			return ($n // 0) == 2 * $alive;
		},
		90, "the reporter goes on after $what");
	return pass("$what: the reporter goes on");
}

sub applied
{
	return poll_until(
		sub { return ($node->psql('shop', q(SELECT report.wait_applied(timeout => '5s'))))[1] eq 't' },
		90, 'all is applied');
}

sub status
{
	my ($concern) = @_;
	return db("SELECT level || ': ' || message FROM report.status WHERE concern = '$concern'");
}

# How often an event stands in the log, and how often in a report.
sub counted
{
	my ($type) = @_;
	return db("SELECT (SELECT count(*) FROM report.reported_events WHERE event_type = '$type'),
		(SELECT COALESCE(sum(events), 0) FROM report.events_by_day WHERE event_type = '$type')");
}

$kafka->create_topic($topic, 2, 'message.timestamp.after.max.ms' => '9223372036854775807');
db('CREATE EXTENSION carshop_outbox; SELECT report.create_car_shop()');
works('the start');

# ---- retry: what can be read now is an event like any other ----

sub make_readable
{
	my ($value) = @_;
	return db("UPDATE report.dead_letter SET value = convert_to('$value', 'UTF8'); SELECT report.retry()");
}

produce('not JSON') foreach 1 .. 2;
works('two unreadable messages');
make_readable(event('Retried', id => id(1)));
poll_until(sub { eval { db('SELECT count(*) FROM report.dead_letter') } == 0 }, 60, 'both are tried again');
applied();
is(counted('Retried'), '1|1', 'two dead letters of one event are one event, and it reaches the reports');
works('a retry');

# ---- what a type or an index cannot hold ----

my $long = join '', map { ('a' .. 'z', 'A' .. 'Z', 0 .. 9)[ rand 62 ] } 1 .. 9000;
produce(event('CarAdded', id => id(10), data => qq({"Number":"$long"})));
produce(event('Large', id => id(11), data => '{"Number":1e1000000}'));
produce(event('Fine', id => id(12)));
works('a value that no index holds');
is(db('SELECT sqlstate, message FROM report.dead_letters ORDER BY kafka_offset'),
	"54000|index row requires 9024 bytes, maximum size is 8191\n22003|value overflows numeric format",
	'what cannot be stored is a dead letter, with the reason');
is(counted('Fine'), '1|1', 'its neighbours are events');
is(db('SELECT report.skip(id) FROM report.dead_letters'), "1\n1", 'skipped');

no_crash($node);
$node->stop;
done_testing();
