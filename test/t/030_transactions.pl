# Only what is committed is published, and all of it: nothing of transactions,
# savepoints and prepared transactions that roll back, everything of those that
# commit, also when the server restarts between PREPARE and COMMIT PREPARED.  A
# transaction that stays open for long neither holds up the others nor loses its
# own events when it commits last: with a horizon of transaction ids it would do
# the one, with a cursor on a sequence the other.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('transactions', kafka => $kafka);
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', q{
	CREATE EXTENSION carshop_outbox;
	CREATE TABLE public.item (name text PRIMARY KEY, price integer);
	SELECT outbox.capture('public.item', 'ItemAdded');
	SELECT outbox.capture('public.item', 'PriceChanged', operations => 'update', key => '{name}');
});

my @expected;

# The names of the events in the topic, in order: all that was published.
sub published
{
	return map { /"EventType":"(\w+)".*"Data":\{"name":"([^"]+)","price":(\d+)/ ? "$1 $2 $3" : $_ }
	  $kafka->read_values($topic);
}

# Everything committed so far is in the topic, and nothing else.
sub publishes
{
	my ($name, @events) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	push @expected, @events;
	is(query_value($node, 'shop', "SELECT outbox.wait_published('30s')"), 't',
		"$name: the relay says that all is published");
	is_deeply([ published() ], \@expected, "$name: exactly that is in the topic");
	return;
}

sub sql
{
	my ($text) = @_;
	$node->safe_psql('shop', $text);
	return;
}

# ---- commit and rollback ----

sql(q{INSERT INTO public.item VALUES ('first', 1)});
publishes('a committed row', 'ItemAdded first 1');

sql(q{
	BEGIN;
	INSERT INTO public.item VALUES ('rolled back', 1);
	UPDATE public.item SET price = 2 WHERE name = 'first';
	ROLLBACK;
});
publishes('a rolled back transaction');

my ($status, $output, $error) = $node->psql('shop', q{
	BEGIN;
	INSERT INTO public.item VALUES ('failed', 1);
	SELECT 1 / 0;
	COMMIT;
});
publishes('a transaction that failed');

# ---- savepoints ----

sql(q{
	BEGIN;
	INSERT INTO public.item VALUES ('before', 1);
	SAVEPOINT a;
	INSERT INTO public.item VALUES ('undone', 1);
	SAVEPOINT b;
	INSERT INTO public.item VALUES ('undone too', 1);
	RELEASE SAVEPOINT b;
	ROLLBACK TO SAVEPOINT a;
	INSERT INTO public.item VALUES ('again', 1);
	RELEASE SAVEPOINT a;
	INSERT INTO public.item VALUES ('after', 1);
	COMMIT;
});
publishes('a transaction with a rolled back savepoint',
	'ItemAdded before 1', 'ItemAdded again 1', 'ItemAdded after 1');

sql(q{
	DO $$
	BEGIN
		FOR i IN 1 .. 200 LOOP
			BEGIN
				INSERT INTO public.item VALUES ('many ' || i, i);
				IF i % 2 = 0 THEN
					RAISE EXCEPTION 'even';
				END IF;
			EXCEPTION WHEN raise_exception THEN
				NULL;
			END;
		END LOOP;
	END
	$$
});
publishes('more subtransactions than a snapshot holds, every other one rolled back',
	map { 'ItemAdded many ' . (2 * $_ - 1) . ' ' . (2 * $_ - 1) } 1 .. 100);

# ---- prepared transactions ----

sql(q{
	BEGIN;
	INSERT INTO public.item VALUES ('prepared', 1);
	PREPARE TRANSACTION 'rolled back';
});
sql(q{
	BEGIN;
	INSERT INTO public.item VALUES ('prepared too', 1);
	UPDATE public.item SET price = 2 WHERE name = 'prepared too';
	PREPARE TRANSACTION 'committed';
});
sql(q{
	BEGIN;
	INSERT INTO public.item VALUES ('prepared before a restart', 1);
	PREPARE TRANSACTION 'restart';
});
publishes('transactions that are only prepared');

sql(q{INSERT INTO public.item VALUES ('beside', 1)});
publishes('a transaction beside prepared ones', 'ItemAdded beside 1');

sql(q{ROLLBACK PREPARED 'rolled back'});
publishes('ROLLBACK PREPARED');

sql(q{COMMIT PREPARED 'committed'});
publishes('COMMIT PREPARED', 'ItemAdded prepared too 1', 'PriceChanged prepared too 2');

$node->restart;
publishes('a restart');
sql(q{COMMIT PREPARED 'restart'});
publishes('COMMIT PREPARED after a restart', 'ItemAdded prepared before a restart 1');

sql(q{
	BEGIN;
	INSERT INTO public.item VALUES ('prepared before a crash', 1);
	PREPARE TRANSACTION 'crash';
});
$node->stop('immediate');
$node->start;
publishes('a crash');
sql(q{COMMIT PREPARED 'crash'});
publishes('COMMIT PREPARED after a crash', 'ItemAdded prepared before a crash 1');

# It must also wake the relay: nobody asks wait_published here.
sql(q{BEGIN; INSERT INTO public.item VALUES ('prepared, nobody asks', 1); PREPARE TRANSACTION 'wake'});
sql(q{COMMIT PREPARED 'wake'});
push @expected, 'ItemAdded prepared, nobody asks 1';
poll_until(sub { published() == @expected }, 10, 'COMMIT PREPARED wakes the relay');
pass('COMMIT PREPARED wakes the relay');

# ---- an old transaction ----

my $old = $node->background_psql('shop');
$old->query_safe(q{BEGIN});
$old->query_safe(q{INSERT INTO public.item VALUES ('old', 1)});

my $reader = $node->background_psql('shop');
$reader->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ});
$reader->query_safe(q{SELECT count(*) FROM public.item});

my $prepared = 'old prepared';
sql(qq{BEGIN; INSERT INTO public.item VALUES ('$prepared', 1); PREPARE TRANSACTION 'old'});

foreach my $round (1 .. 3)
{
	sql(qq{INSERT INTO public.item VALUES ('young $round', $round)});
	publishes("an old transaction does not hold up a younger one ($round)",
		"ItemAdded young $round $round");
}

# Three sessions in a row on one key, beginning before and ending after each
# other: the order in the topic is the order of the lock.
my $waiter = $node->background_psql('shop');
$waiter->query_safe(q{BEGIN});
$waiter->query_safe(q{SELECT pg_current_xact_id()});	# an early id
sql(q{UPDATE public.item SET price = 10 WHERE name = 'first'});
$waiter->query_safe(q{UPDATE public.item SET price = 11 WHERE name = 'first'});
publishes('a younger transaction changed the row first', 'PriceChanged first 10');
$waiter->query_safe(q{COMMIT});
publishes('the older one changed it afterwards', 'PriceChanged first 11');
$waiter->quit;

$old->query_safe(q{INSERT INTO public.item VALUES ('old, second row', 2)});
$old->query_safe(q{COMMIT});
$old->quit;
publishes('the old transaction commits last and has all its events',
	'ItemAdded old 1', 'ItemAdded old, second row 2');

sql(q{COMMIT PREPARED 'old'});
publishes('so does the old prepared one', "ItemAdded $prepared 1");
$reader->query_safe(q{COMMIT});
$reader->quit;

# The reporter of the same database has the same events.
sql('SELECT report.start()');
is(query_value($node, 'shop', "SELECT report.wait_applied(NULL, '30s')"), 't', 'the reporter has read all');
is(query_value($node, 'shop', 'SELECT count(*) FROM report.reported_events'),
	scalar @expected, 'and stored each event once');

no_crash($node);
$node->stop;
done_testing();
