# The bytes on the wire (README, "What goes onto the wire") as kcat reads them, for the car
# shop's events and for each format; topics that are made when they are needed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Test::More;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('wire', kafka => $kafka,
	conf => { '.report_databases' => '', '.topic_partitions' => 3 });
$node->start;
create_shop($node, 'shop');

my $before = int(time) * 1000;
$node->safe_psql('shop', q{
	INSERT INTO "Cars" VALUES (7, '{"$type":"PedalEngineEntity","PedalSize":3}');
	INSERT INTO "Customers" VALUES ('Ann "A" Ä', 3, 4, NULL);
	UPDATE "Customers" SET "CarNumber" = 7;
});
is(query_value($node, 'shop', 'SELECT outbox.wait_published()'), 't', 'all is published');

my %stored = map { my ($type, $id, $at) = split /\|/; $type => [ $id, $at ] } split /\n/,
  $node->safe_psql('shop', q{
	SELECT type, id, to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00'
	  FROM outbox.event});
my %read = map { $_->{value} =~ /"EventType":"(\w+)"/; $1 => $_ } $kafka->read_topic($topic);
my %expected = (
	CarAdded => [ '7', 'CarAdded 7', '{"Number":7,"Engine":"{\"$type\":\"PedalEngineEntity\",\"PedalSize\":3}"}' ],
	CustomerAdded => [ 'Ann "A" Ä', 'CustomerAdded Ann \"A\" Ä',
		'{"Name":"Ann \"A\" Ä","LegPower":3,"HandPower":4,"CarNumber":null}' ],
	CarSold => [ '7', 'CarSold 7', '{"Name":"Ann \"A\" Ä","LegPower":3,"HandPower":4,"CarNumber":7}' ]);
foreach my $type (sort keys %expected)
{
	my ($key, $description, $data) = @{ $expected{$type} };
	my ($id, $at) = @{ $stored{$type} };
	my $message = $read{$type};

	is($message->{key}, $key, "$type: key");
	(my $json_key = $key) =~ s/"/\\"/g;
	is($message->{value},
		qq({"EventType":"$type","EventDescription":"$description","OccuredOn":"$at","EventId":"$id","Key":"$json_key","Data":$data}),
		"$type: value");
	is($message->{header_text}, "id=$id", "$type: one header");
	cmp_ok($message->{ts}, '>=', $before, "$type: the timestamp is that of publication");
}
is($kafka->topics->{$topic}, 3, 'the missing topic was made with topic_partitions');
is($read{CarAdded}{partition}, $read{CarSold}{partition}, 'one key, one partition');

# Further formats, topics and headers.
$node->safe_psql('shop', q{
	ALTER DATABASE shop SET carshop_outbox.allowed_topics = 'bare,ce,raw';
	ALTER DATABASE shop SET carshop_outbox.event_source = 'urn:test';
	SELECT pg_reload_conf();
});
$node->safe_psql('shop', q{
	SELECT outbox.emit('Bare', '{"a": [1, 2]}', 'k', topic => 'bare', format => 'payload',
		headers => '{"who": "me"}', occurred_at => '2026-01-02 03:04:05.6Z');
	SELECT outbox.emit('Gone', NULL, 'k', topic => 'bare', format => 'payload', occurred_at => '2026-01-02 03:04:05.6Z');
	SELECT outbox.emit('Ce', '{"a": 1}', 'k', topic => 'ce', format => 'cloudevents', occurred_at => '2026-01-02 03:04:05.6Z');
	SELECT outbox.emit('Raw', NULL, 'k', topic => 'raw', format => 'raw', value => '\x41ff');
	BEGIN;
	SET LOCAL carshop_outbox.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
	SELECT outbox.emit('Traced', topic => 'ce');
	COMMIT;
});
is(query_value($node, 'shop', 'SELECT outbox.wait_published()'), 't', 'all is published');
my %id = map { split /\|/ } split /\n/, $node->safe_psql('shop', 'SELECT type, id FROM outbox.event');

my ($bare, $gone) = $kafka->read_topic('bare');
is($bare->{value}, '{"a":[1,2]}', 'payload: the bare data');
is($bare->{header_text},
	"id=$id{Bare},ce_specversion=1.0,ce_id=$id{Bare},ce_source=urn:test,ce_type=Bare,"
	  . 'ce_time=2026-01-02T03:04:05.600000+00:00,ce_subject=k,content-type=application/json,who=me',
	'payload: CloudEvents binary mode, then the event\'s own headers');
is($gone->{value}, undef, 'payload without data: a tombstone');

# Without a key an event goes to any partition.
my @ce = $kafka->read_topic('ce');
is(scalar @ce, 2, 'both are there');
my ($ce) = grep { defined $_->{key} } @ce;
my ($traced) = grep { !defined $_->{key} } @ce;
is($ce->{value},
	qq({"specversion":"1.0","id":"$id{Ce}","source":"urn:test","type":"Ce","time":"2026-01-02T03:04:05.600000+00:00",)
	  . '"subject":"k","datacontenttype":"application/json","data":{"a":1}}',
	'cloudevents: structured mode');
is($ce->{header_text}, "id=$id{Ce},content-type=application/cloudevents+json", 'cloudevents: headers');
is($traced->{header_text},
	"id=$id{Traced},traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	'traceparent of the transaction');
is($traced->{key}, undef, 'no key');

my ($raw) = $kafka->read_topic('raw');
is($raw->{value}, "A\xff", 'raw: the bytes given');

# The progress record stands in its own compacted topic.
my $lineage = query_value($node, 'shop', 'SELECT lineage FROM outbox.stat_relay');
my @progress = $kafka->read_topic("carshop-outbox-progress-$lineage");
is($progress[-1]{key}, $lineage, 'progress: keyed by the lineage');
like($progress[-1]{value}, qr/"lineage":"$lineage".*"tick":\d+.*"partitions":"[^"]*\Q$topic\E=3/,
	'progress: tick and partition counts');

$node->stop;
done_testing();
