# The server's clock is set back: what the reporter waits for comes when it would have
# come, and nobody is told that what has not been read is applied.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;
use Tools;

plan skip_all => 'something else is preloaded' if $ENV{LD_PRELOAD};

my $topic = 'car-shop-reported-events';
my $clock = PostgreSQL::Test::Utils::tempdir() . '/clock';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => 'shop', '.report_databases' => 'shop' });
my $n = 0;

sub db { return $node->safe_psql('shop', $_[0]) }

# In place: the server's processes have it mapped.
sub set_clock
{
	my ($seconds) = @_;

	open(my $file, -e $clock ? '+<' : '>', $clock) or die "$clock: $!";
	print $file pack('q', $seconds * 1_000_000);
	return close $file;
}

sub produce
{
	my ($type) = @_;
	return $kafka->produce_lines($topic, sprintf '{"EventType":"%s","EventDescription":"d","OccuredOn":"2026-11-22T20:27:03+00:00","EventId":"01998a5e-0000-7000-8000-%012d"}', $type, ++$n);
}

set_clock(2 * 3600);
{
	local $ENV{LD_PRELOAD} = Tools::program('clock.so');
	local $ENV{CARSHOP_TEST_CLOCK} = $clock;
	$node->start;
}
$kafka->create_topic($topic);
$node->safe_psql('postgres', 'CREATE DATABASE shop');
is($node->safe_psql('postgres', 'SELECT clock_timestamp() > to_timestamp(' . (time + 3600) . ')'), 't', 'the server is two hours ahead');
db(q{CREATE EXTENSION carshop_outbox;
	CREATE TABLE public.counted (n bigint);
	SELECT report.define('counted', 'INSERT INTO public.counted SELECT count(*) FROM new_events HAVING count(*) > 0', 'public.counted')});
produce('Before');
all_applied($node, 'shop');
# a report that is tried again after some seconds
db(q{CREATE TABLE public.needed (n bigint);
	CREATE FUNCTION public.need() RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN
		IF NOT EXISTS (SELECT FROM public.needed) THEN RAISE 'not yet' USING ERRCODE = 'object_in_use'; END IF;
		RETURN 1;
	END $$;
	CREATE TABLE public.needing (n bigint);
	SELECT report.define('needing', 'INSERT INTO public.needing SELECT count(*) * public.need() FROM new_events HAVING count(*) > 0', 'public.needing')});
poll_until(sub { db(q(SELECT state FROM report.stat_reports WHERE name = 'needing')) eq 'trying again' }, 60, 'a report is tried again');
$kafka->kill9;
poll_until(sub { db(q(SELECT count(*) FROM report.stat_reporter WHERE state = 'waiting')) ne '0' }, 120, 'Kafka is away');

# who waits for publishing waits as long as was said
db(q{SELECT outbox.emit('Waits')});
$n++;
my $waiter = $node->background_psql('shop');
$waiter->query_until(qr/begun/, "\\echo begun\nSELECT outbox.wait_published('10s');\n");
my $waits = q(SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT outbox.wait_published' AND state = 'active');
poll_until(sub { db("$waits AND wait_event IS NOT NULL") eq '1' }, 8, 'it waits');

set_clock(0);
poll_until(sub { db($waits) eq '0' }, 90, 'waiting for publishing ends');
$waiter->quit;
pass('outbox.wait_published() ends when its time is over, though the clock was set back');
db('INSERT INTO public.needed VALUES (1)');
poll_until(sub { db(q(SELECT sum(n) FROM public.needing)) eq '1' }, 90, 'the report goes on');
pass('a report that was to be tried again is tried when the clock was set back');
$kafka->restart;
poll_until(sub { db(q(SELECT string_agg(DISTINCT state, ',') FROM report.stat_reporter)) eq 'current' }, 90, 'reading goes on');
pass('so are brokers that were away');
is(db(q{SELECT outbox.wait_published('60s')}), 't', 'what waited is published');
my @missed;
foreach (1 .. 20)
{
	produce('After');
	next if db('SELECT report.wait_applied()') ne 't';
	my $counted = db('SELECT sum(n) FROM public.counted');
	push @missed, "$counted of $n" if $counted != $n;
}
is("@missed", '', 'what is said to be applied is applied');

no_crash($node);
$node->stop;
done_testing();
