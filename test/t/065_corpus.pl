# The corpus of foreign messages (test/corpus), each with its fate: through a real
# broker into a report database, beside the car shop's reports.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Tools;

my $topic = 'foreign';
my @files = sort glob "$FindBin::RealBin/../corpus/*.txt";

# What must become of each message; how it is made is for the program that sends it.
sub expectations
{
	my @expected;
	my $column = qr/type|description|time|key-is|data|headers|id/;

	foreach my $file (@files)
	{
		foreach my $line (split /\n/, slurp_file($file))
		{
			my ($word, $rest) = $line =~ /^([^ #]\S*) ?(.*)$/ or next;
			my $last = $expected[-1];

			utf8::decode($rest);
			if ($word eq '=')
			{
				push @expected, { kafka_offset => scalar @expected, name => $rest, type => 'CarSold',
					description => 'd', time => '2026-11-22 20:27:03.512756' };
			}
			elsif ($word eq 'event' || $word eq 'skip') { $last->{fate} = $word; }
			elsif ($word eq 'reject' || $word eq 'database')
			{
				$last->{fate} = 'reject';
				@$last{qw(sqlstate reason)} = split / /, $rest, 2;
			}
			elsif ($word =~ /^$column$/) { $last->{$word} = $rest eq 'none' ? undef : $rest; }
		}
	}
	return @expected;
}

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('main', kafka => $kafka,
	conf => { '.shop_databases' => '', '.report_databases' => 'shop', '.report_topics' => $topic });

$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', 'CREATE EXTENSION carshop_outbox; SELECT report.create_car_shop()');
$kafka->create_topic($topic, 1, 'max.message.bytes' => 2_000_000);

my @expected = expectations();
my $sent = run_log([ Tools::program('corpus_writer'), $kafka->bootstrap, $topic, @files ], '>', \my $number);

ok($sent, 'the corpus is sent');
is($number + 0, scalar @expected, 'all of it');
cmp_ok(scalar @expected, '>=', 200, 'at least 200 messages');
poll_until(
	sub { return ($node->psql('shop', q(SELECT report.wait_applied(timeout => '30s'))))[1] eq 't' },
	300, 'all is applied');

# Compared by PostgreSQL, as jsonb.
my $json = JSON::PP->new->ascii->canonical->encode(\@expected);

$node->safe_psql('shop', qq{CREATE TABLE public.expected (kafka_offset bigint, name text, fate text, sqlstate text,
	reason text, type text, description text, "time" text, "key-is" text, data text, headers text, id uuid);
	INSERT INTO public.expected SELECT * FROM json_populate_recordset(NULL::public.expected, \$json\$$json\$json\$)});

# One test for each message: what became of it.
sub check_fates
{
	my ($when) = @_;
	my %difference = map { split /\|/, $_, 2 } split /\n/, $node->safe_psql('shop', q(
	SELECT e.kafka_offset, CASE
		WHEN e.fate <> CASE WHEN r.id IS NOT NULL THEN 'event' WHEN d.id IS NOT NULL THEN 'reject' ELSE 'skip' END
			THEN concat_ws(' ', 'another fate:', r.event_type, d.sqlstate, d.message)
		WHEN e.fate = 'event' THEN concat_ws(', ',
			CASE WHEN e.type <> '*' AND e.type <> r.event_type THEN 'type ' || left(r.event_type, 100) END,
			CASE WHEN e.description IS DISTINCT FROM '*' AND e.description IS DISTINCT FROM r.event_description
				THEN 'description ' || coalesce(left(r.event_description, 100), 'none') END,
			CASE WHEN e.time <> to_char(r.occurred_on AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') OR r.occurred_on IS NULL
				THEN 'time ' || r.occurred_on END,
			CASE WHEN e."key-is" IS DISTINCT FROM r.event_key THEN 'key ' || coalesce(r.event_key, 'none') END,
			CASE WHEN CASE e.data WHEN '*' THEN r.data IS NULL ELSE e.data::jsonb IS DISTINCT FROM r.data END
				THEN 'data ' || coalesce(left(r.data::text, 100), 'none') END,
			CASE WHEN CASE e.headers WHEN '*' THEN r.headers IS NULL ELSE e.headers::jsonb IS DISTINCT FROM r.headers END
				THEN 'headers ' || coalesce(left(r.headers::text, 100), 'none') END,
			CASE WHEN e.id <> r.id THEN 'id ' || r.id END)
		WHEN e.fate = 'reject' THEN concat_ws(', ',
			CASE WHEN e.sqlstate <> d.sqlstate THEN 'SQLSTATE ' || d.sqlstate END,
			CASE WHEN strpos(d.message, e.reason) = 0 THEN 'reason ' || d.message END)
		END
	FROM public.expected e
		LEFT JOIN report.reported_events r USING (kafka_offset)
		LEFT JOIN report.dead_letters d ON d.kafka_offset = e.kafka_offset AND d.report IS NULL
	ORDER BY 1));

	foreach my $message (@expected)
	{
		my $difference = $difference{ $message->{kafka_offset} } // 'it is not there';

		ok($difference eq '', "$when$message->{name}") or diag("not as expected: $difference");
	}
	return;
}

check_fates('');

# Tried again, a dead letter is the message that it was.
my $refused = grep { $_->{fate} eq 'reject' } @expected;

$node->safe_psql('shop', 'SELECT report.retry()');
poll_until(
	sub { $node->safe_psql('shop', 'SELECT count(*) FROM report.dead_letters WHERE report IS NULL AND attempts < 2') == 0 },
	300, 'all dead letters are tried again');
is($node->safe_psql('shop', 'SELECT count(*) FROM report.dead_letters WHERE report IS NULL'), $refused,
	'what was refused is refused again');
check_fates('again: ');

# What the messages hold may be nonsense to a report, which must live through it.
my $events = grep { $_->{fate} eq 'event' } @expected;

is($node->safe_psql('shop', 'SELECT sum(events) FROM report.events_by_day'), $events, 'each event is counted');
is($node->safe_psql('shop', q(SELECT string_agg(name || ' is ' || state || coalesce(': ' || last_error, ''), E'\n')
	FROM report.stat_reports WHERE state <> 'current')), '', 'no report of the car shop has stopped');
is($node->safe_psql('shop', q(SELECT sum(skipped) FROM report.stat_reporter)), scalar(grep { $_->{fate} eq 'skip' } @expected),
	'what is skipped is counted');
is($node->safe_psql('shop', q(SELECT count(*) FROM report.dead_letters WHERE report IS NULL AND value IS NULL)), 0,
	'each dead letter keeps its bytes');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|was terminated by signal/, 'nothing crashed');

$node->stop;
$kafka->stop;
done_testing();
