# Reports that are a SELECT, with a real broker: however the topic is cut into
# batches, and whenever the report was defined, its table says what the query says
# over the whole event log.  Dead letters that come late, explain, and a dump.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{CARSHOP_TEST_SEED} // time;
srand $seed;
note "CARSHOP_TEST_SEED=$seed";

my $topic = 'sales';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop', '.report_topics' => $topic });
$kafka->create_topic($topic, 3);
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', q{
	CREATE EXTENSION carshop_outbox;
	CREATE SCHEMA shop;
	CREATE TABLE shop.rates (currency text PRIMARY KEY, rate numeric NOT NULL);
	INSERT INTO shop.rates VALUES ('EUR', 1), ('USD', 0.92), ('CZK', 0.0412)});

sub db { return $node->safe_psql('shop', $_[0]); }

sub one_of { return $_[ int rand @_ ]; }

# Events with holes, repeated keys and values of many sizes.
my $n_events = 0;

sub event
{
	my ($type, $key, $data) = @_;

	return sprintf '{"EventType":"%s","EventDescription":"d","OccuredOn":"2026-11-%02dT%02d:17:03.512756Z","EventId":"%s","Key":%s,"Data":%s}',
	  $type, 20 + rand 6, rand 24, sprintf('01998a5e-0000-7000-8000-%012d', ++$n_events), $key, $data;
}

sub random_event
{
	my @members;

	push @members, '"amount":' . one_of('null', 0, -5, int rand 100, int rand 2e9) if rand > 0.2;
	push @members, '"price":' . one_of('null', sprintf('%.' . int(rand 5) . 'f', rand 1000), '0.1', '1e-7') if rand > 0.2;
	push @members, '"currency":' . one_of('"EUR"', '"USD"', '"CZK"', '"ZZZ"', 'null') if rand > 0.1;
	push @members, '"note":' . one_of('null', '""', '"x"', '"\u00e9' . int(rand 9) . '"') if rand > 0.4;
	push @members, '"items":[' . join(',', map { int rand 4 } 0 .. rand 3) . ']' if rand > 0.5;
	return event(one_of(qw(Sold Sold Sold Returned Counted)), one_of('null', map { "\"k$_\"" } 0 .. 5), '{' . join(',', @members) . '}');
}

# A random query of what the language has.
my %keys = (
	shop => 'event_key', type => 'event_type', day => q{(occurred_on AT TIME ZONE 'UTC')::date}, local => 'occurred_on::date',
	currency => q{data ->> 'currency'}, large => q{(data ->> 'amount')::bigint > 50}, fixed => q{'all'::text}, note => q{data -> 'note'});
my $amount = q{(data ->> 'amount')::int};
my $price = q{(data ->> 'price')::numeric};
my %columns = (
	n => 'count(*)', amounts => "count($amount)", amount => "sum($amount)", big => "sum(($amount)::bigint)", price => "sum($price)",
	lowest => "min($amount)", highest => "max($price)", mean => "avg($amount)", mean_price => "avg($price)", mean_big => "avg(($amount)::bigint)",
	first => 'min(occurred_on)', last_note => q{max(data ->> 'note')}, all_sold => q{bool_and(event_type = 'Sold')},
	any_free => "bool_or($amount = 0)", every => "every($price > 0)", newest => q{report.latest(data ->> 'note')}, newest_price => "report.latest($price)",
	kept => q{report.latest(data ->> 'note') FILTER (WHERE data ? 'note')}, id => 'report.latest(new_events.id)',
	ratio => "sum($price) / NULLIF(count(*) - count($amount), 0)", gap => 'max(occurred_on) - min(occurred_on)',
	text => "COALESCE(report.latest(data ->> 'note'), '-') || count(*)", age => "avg(occurred_on - '2026-01-01Z'::timestamptz)",
	filtered => "sum($amount) FILTER (WHERE event_type = 'Sold')", euros => "sum($price * COALESCE(r.rate, 0))");
my @conditions = ('', 'WHERE event_type = \'Sold\'', "WHERE $amount > 3", 'WHERE event_key IS NOT NULL AND data ? \'note\'',
	q{WHERE EXISTS (SELECT FROM shop.rates e WHERE e.currency = data ->> 'currency')});

sub random_query
{
	my %key = map { $_ => 1 } map { one_of(sort keys %keys) } 0 .. rand 2;
	my %column = map { $_ => 1 } map { one_of(sort keys %columns) } 0 .. rand 7;
	my @list = map { "$keys{$_} AS $_" } sort keys %key;
	my $from = 'new_events';

	push @list, map { "$columns{$_} AS $_" } sort keys %column;
	if ($column{euros} || rand > 0.7)
	{
		$from .= q{ LEFT JOIN shop.rates r ON r.currency = new_events.data ->> 'currency'};
	}
	if (rand > 0.7)
	{
		$from .= q{ CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN data ? 'items' THEN data -> 'items' ELSE '[1, 2]' END) AS item};
		push @list, 'sum(item::int) AS items';
	}
	return "SELECT " . join(', ', shuffle @list) . " FROM $from " . one_of(@conditions)
	  . ' GROUP BY ' . join(', ', map { $keys{$_} } sort keys %key);
}

# Differences between the table and the query over the log.
sub differences
{
	my ($name, $query) = @_;
	my $whole = $query =~ s/report[.]latest\((.*?)\)( FILTER| AS|, '-')/report.latest($1 ORDER BY new_events.log_seq)$2/gr;

	return db(qq{
		WITH new_events AS (SELECT * FROM report.reported_events),
			whole AS ($whole), one AS (SELECT md5(w::text) AS row FROM whole w), other AS (SELECT md5(t::text) AS row FROM shop.$name t)
		SELECT (SELECT count(*) FROM (TABLE one EXCEPT ALL TABLE other) x) + (SELECT count(*) FROM (TABLE other EXCEPT ALL TABLE one) x)});
}

sub applied
{
	return poll_until(sub { ($node->psql('shop', q(SELECT report.wait_applied(timeout => '5s'))))[1] eq 't' }, 120, 'all is applied');
}

my %queries;

sub define
{
	my ($n) = @_;

	for (1 .. $n)
	{
		my $name = 'r' . (1 + keys %queries);

		$queries{$name} = random_query();
		db("SELECT report.define_select('$name', \$q\$$queries{$name}\$q\$, 'shop.$name')");
	}
	return;
}

# ---- any query, cut anywhere ----

define(10);
for my $round (1 .. 6)
{
	$node->append_conf('postgresql.conf', 'carshop_outbox.report_batch_events = ' . one_of(1, 2, 7, 30, 20000));
	$node->reload;
	$kafka->produce_lines($topic, map { random_event() } 0 .. 20 + rand 100);
	applied() if $round % 2;
	define(2) if $round == 3;
}
define(2);
applied();
is(db('SELECT count(*) FROM report.reported_events'), $n_events, 'all events are in the log');
is(db('SELECT count(*) FROM report.dead_letters'), 0, 'and none was refused');
for my $name (sort keys %queries)
{
	is(differences($name, $queries{$name}), 0, "$name is what its query says") or diag $queries{$name};
}

# ---- the events behind each row ----

db(q{SELECT report.define_select('counted', 'SELECT event_key AS shop, (occurred_on AT TIME ZONE $$UTC$$)::date AS day, count(*) AS n, avg(log_seq) AS mean
	FROM new_events WHERE event_type <> $$Counted$$ GROUP BY 1, 2', 'shop.counted')});
applied();
is(db(q{SELECT count(*) FROM shop.counted c CROSS JOIN LATERAL (SELECT count(*) AS n, avg(log_seq) AS mean
	FROM report.explain('counted', to_jsonb(c))) e WHERE (c.n, c.mean) IS DISTINCT FROM (e.n, e.mean)}), 0, 'each row is explained by its events');
is(db(q{SELECT sum(n) FROM shop.counted}), db(q{SELECT count(*) FROM report.reported_events WHERE event_type <> 'Counted'}), 'and they are all');

# ---- a dead letter that comes late ----

my $strict = 'SELECT event_key AS shop, count(*) AS n, sum((data ->> $$amount$$)::int) AS amount, report.latest(data ->> $$note$$) AS note
	FROM new_events WHERE event_type = $$Paid$$ GROUP BY 1';
db(q{SELECT report.drop(name) FROM report.definitions});
db("SELECT report.define_select('paid', '$strict', 'shop.paid')");
$kafka->produce($topic, $_, partition => 0)
  for event('Paid', '"a"', '{"amount":1,"note":"first"}'), event('Paid', '"a"', '{"amount":"two","note":"second"}'),
  event('Paid', '"b"', '{"amount":"three","note":"only"}'), event('Paid', '"a"', '{"amount":4,"note":"last"}');
applied();
is(db('TABLE shop.paid'), 'a|2|5|last', 'what the query cannot take is left out');
is(db('SELECT count(*), min(report), min(sqlstate) FROM report.dead_letters'), '2|paid|22P02', 'and is a dead letter');
is(db(q{SELECT data ->> 'note' FROM report.explain('paid', '{"shop": "a"}')}), "first\nlast", 'it is not among the events behind the row');
my $lenient = $strict =~ s/\(data ->> \$\$amount\$\$\)::int/CASE WHEN data ->> \$\$amount\$\$ ~ \$\$^[0-9]+\$\$ THEN (data ->> \$\$amount\$\$)::int END/r;
db("SELECT report.define_select('paid', '$lenient', 'shop.paid'); SELECT report.retry()");
poll_until(sub { db('SELECT count(*) FROM report.dead_letters') == 0 }, 60, 'the retry is done');
is(db('SELECT * FROM shop.paid ORDER BY shop'), "a|3|5|last\nb|1||only", 'tried again later it is counted, and replaces nothing newer');
is(db(q{SELECT data ->> 'note' FROM report.explain('paid', '{"shop": "a"}')}), "first\nsecond\nlast", 'and explains the row');

# ---- a dump carries it ----

my $dump = "$PostgreSQL::Test::Utils::tmp_check/shop.sql";
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('shop') ], 'a dump');
$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('other') ], 'and its restore');
is($node->safe_psql('other', 'SELECT * FROM shop.paid ORDER BY shop'), "a|3|5|last\nb|1||only", 'the rows are there');
is($node->safe_psql('other', q{SELECT target, kind FROM report.definitions WHERE name = 'paid'}), 'shop.paid_state|select', 'and so is the report');
is($node->safe_psql('other', q{SELECT count(*) FROM report.explain('paid', '{"shop": "a"}')}), 3, 'which can be explained there');

$node->stop;
$kafka->stop;
done_testing();
