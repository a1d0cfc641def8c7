# Databases that are not UTF-8: events are, and what has no form in UTF-8 is
# refused when it is written, so that it cannot stop the relay.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Test::More;

my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('encoding', kafka => $kafka,
	conf => { '.shop_databases' => 'ascii, latin1', '.report_databases' => '' });
$node->start;

foreach my $case ([ 'ascii', 'SQL_ASCII', "\xc3\xa4" ], [ 'latin1', 'LATIN1', "\xe4" ])
{
	my ($db, $encoding, $umlaut) = @$case;

	$node->safe_psql('postgres',
		"CREATE DATABASE $db ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	$node->safe_psql($db, qq{
		CREATE EXTENSION carshop_outbox;
		CREATE TABLE word (id integer PRIMARY KEY, word text);
		SELECT outbox.capture('word', '$db', topic => '$db');
		SET client_encoding = '$encoding';
		INSERT INTO word VALUES (1, '$umlaut');
	});
	if ($encoding eq 'SQL_ASCII')
	{
		my ($status, $output, $error) = $node->psql($db, "INSERT INTO word VALUES (2, E'\\xff')");
		isnt($status, 0, 'a byte that is not UTF-8 is refused');
		like($error, qr/column "word" of table "word" has no form in UTF-8/, 'with a clear error');
	}
	$node->safe_psql($db, q{INSERT INTO word VALUES (3, 'after')});
	poll_until(sub { query_value($node, $db, q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, $db);
	my @values = $kafka->read_values($db);
	is(scalar(@values), 2, "$db: both events are published");
	like($values[0], qr/"word":"\xc3\xa4"/, "$db: in UTF-8");
}

# ---- every way by which a text comes into an event ----

# What a database's sessions are told of a comment that was written in another encoding.
$node->safe_psql('postgres', q{CREATE DATABASE utf8 ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('postgres', q{CREATE DATABASE eucjp ENCODING 'EUC_JP' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('latin1', qq{SET client_encoding = 'LATIN1'; COMMENT ON DATABASE template0 IS '\xe4\xff'});
my $foreign = q{(SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'template0')};
my $trace = '0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

foreach my $case ([ 'ascii', q{E'\\xff'} ], [ 'latin1', undef ], [ 'utf8', $foreign ], [ 'eucjp', $foreign ])
{
	my ($db, $bad) = @$case;

	$node->safe_psql($db, q{
		SET client_min_messages = error;
		CREATE EXTENSION IF NOT EXISTS carshop_outbox;
		CREATE TABLE other (id integer PRIMARY KEY, word text);
		SELECT outbox.capture('other', 'Other', topic => 'other-' || current_database(), key => '{id}');
		SELECT outbox.capture('other', 'Key', topic => 'other-' || current_database(), key => '{word}', columns => '{id}', format => 'payload');
	});
	my $count = query_value($node, $db, 'SELECT count(*) FROM outbox.event');
	# any byte of LATIN1 is a character, of a trace context it is none
	my $trace_bad = $bad // q{chr(228)};

	my @ways = ([ 'traceparent', qq{INSERT INTO outbox.event (type, traceparent) VALUES ('T', '01-$trace-' || $trace_bad)}, qr/OB002: traceparent of event "T" is not one/ ],
		[ 'SET traceparent', qq{SELECT set_config('carshop_outbox.traceparent', '01-$trace-' || $trace_bad, false), outbox.emit('T')}, qr/22023: invalid value for parameter/ ],
		[ 'topic', qq{INSERT INTO outbox.event (type, topic) VALUES ('T', 'topic' || $trace_bad)}, qr/OB002: .* is not a legal topic name/ ]);
	push @ways, ([ 'type', qq{SELECT outbox.emit('T' || $bad)}, qr/OB002: type of an event has no form in UTF-8/ ],
		[ 'key', qq{SELECT outbox.emit('T', key => $bad)}, qr/OB002: key of an event has no form/ ],
		[ 'description', qq{INSERT INTO outbox.event (type, description) VALUES ('T', $bad)}, qr/OB002: description of an event has no form/ ],
		[ 'aggregate type', qq{SELECT outbox.emit('T', aggregate_type => $bad)}, qr/OB002: aggregatetype of an event has no form/ ],
		[ 'payload', qq{INSERT INTO outbox.event (type, payload) SELECT 'T', to_json(CAST($bad AS text))}, qr/OB002: payload of an event has no form/ ],
		[ 'value of a header', qq{SELECT outbox.emit('T', headers => jsonb_build_object('h', $bad))}, qr/OB002: the value of a header has no form/ ],
		[ 'name of a header', qq{INSERT INTO outbox.event (type, headers) SELECT 'T', jsonb_build_object($bad, 'h')}, qr/OB002: the name of a header has no form/ ],
		[ 'SET event_headers', qq{SELECT set_config('carshop_outbox.event_headers', jsonb_build_object('h', $bad)::text, false), outbox.emit('T')},
			qr/OB002: carshop_outbox.event_headers has no form/ ],
		[ 'a captured row', qq{INSERT INTO other VALUES (1, $bad)}, qr/OB002: column "word" of table "other" has no form/ ],
		map({ [ "a route's $_->[0]", qq{SELECT outbox.capture('other', $_->[1])}, $_->[2] ] }
			[ 'type', qq{'T' || $bad}, qr/OB001: event_type has no form/ ],
			[ 'key', qq{'T', key => $bad}, qr/OB001: key has no form/ ],
			[ 'description', qq{'T', description => '{id}' || $bad}, qr/OB001: description has no form/ ],
			[ 'headers', qq{'T', headers => jsonb_build_object('h', $bad)}, qr/OB001: headers has no form/ ])) if defined $bad;
	foreach my $way (@ways)
	{
		my ($name, $sql, $expected) = @$way;
		my ($status, $output, $error) = $node->psql($db, "\\set VERBOSITY verbose\n$sql");

		isnt($status, 0, "$db: $name: refused");
		like($error, $expected, "$db: $name: with its name");
	}
	$node->psql($db, "/*traceparent='01-$trace-\xff'*/ SELECT outbox.emit('Comment')");
	is(query_value($node, $db, q{SELECT count(traceparent) FROM outbox.event}), 0, "$db: no trace context of bytes");
	is(query_value($node, $db, q{SELECT count(*) FROM outbox.event WHERE type <> 'Comment'}), $count, "$db: nothing refused was stored");
}

# Settings that come from elsewhere, in another encoding, are looked at when they are used.
$node->safe_psql('latin1', qq{SET client_encoding = 'LATIN1'; ALTER DATABASE utf8 SET carshop_outbox.event_headers = '{"who": "\xe4"}'});
my ($status, $output, $error) = $node->psql('utf8', "\\set VERBOSITY verbose\nSELECT outbox.emit('T')");
like($error, qr/OB002: carshop_outbox.event_headers has no form in UTF-8/, 'event_headers of ALTER DATABASE in another encoding');
like($error, qr/HINT:/, 'with a hint');
$node->safe_psql('latin1', 'ALTER DATABASE utf8 RESET carshop_outbox.event_headers');
foreach my $db ('utf8', 'ascii', 'eucjp')
{
	local $ENV{PGOPTIONS} = qq{-c carshop_outbox.event_headers={"who":"\xff"}};

	($status, $output, $error) = $node->psql($db, "\\set VERBOSITY verbose\nSELECT outbox.emit('T')");
	like($error, qr/OB002: carshop_outbox.event_headers has no form in UTF-8/, "$db: event_headers of a startup packet");
}
($status, $output, $error) = $node->psql('latin1',
	qq{\\set VERBOSITY verbose\nSET client_encoding = 'LATIN1'; ALTER DATABASE utf8 SET carshop_outbox.traceparent = '01-$trace-\xe4'});
like($error, qr/22023: invalid value for parameter "carshop_outbox.traceparent"/, 'traceparent of ALTER DATABASE');

# A database that no text can be read from: refused at once, also what is ASCII.
SKIP:
{
	# PostgreSQL 19 has given up the only encoding without a conversion
	skip 'every encoding has a form in UTF-8', 1 if query_value($node, 'postgres', q{SELECT pg_char_to_encoding('MULE_INTERNAL')}) < 0;
	$node->safe_psql('postgres', q{CREATE DATABASE mule ENCODING 'MULE_INTERNAL' LOCALE 'C' TEMPLATE template0});
	$node->safe_psql('mule', 'SET client_min_messages = error; CREATE EXTENSION carshop_outbox');
	($status, $output, $error) = $node->psql('mule', "\\set VERBOSITY verbose\nSELECT outbox.emit('Plain')");
	like($error, qr/OB002: type of an event has no form in UTF-8/, 'an encoding without a conversion to UTF-8');
}

# ---- sizes are those of UTF-8 ----

sub size_of
{
	my ($db, $emit) = @_;
	my ($status, $output, $error) = $node->psql($db,
		"SET client_encoding = 'SQL_ASCII'; SET carshop_outbox.max_message_bytes = 2000; SELECT outbox.emit($emit)");

	return $status == 0 ? 'accepted' : ($error =~ /has (\d+) bytes, the limit is 2000/)[0] // $error;
}
foreach my $db ('utf8', 'latin1', 'ascii')
{
	is(size_of($db, q{'B', format => 'raw', value => decode(repeat('e4', 1855), 'hex')}), 'accepted', "$db: bytes of a raw value are no text");
	is(size_of($db, q{'B', format => 'raw', value => decode(repeat('e4', 1856), 'hex')}), 2001, "$db: and are counted");
}
# An umlaut is one byte of LATIN1 and two of UTF-8; an envelope does not name the database.
foreach my $emit (q{'B', to_jsonb(repeat(%s, 1500)), description => ''}, q{'B', to_jsonb('x'::text), description => repeat(%s, 1500)},
	q{'B', key => repeat(%s, 900)}, q{repeat(%s, 900), description => '', format => 'raw', value => decode(repeat('e4', 1900), 'hex')},
	q{'B', format => 'raw', value => '\x00', headers => jsonb_build_object('h', repeat(%s, 1500))})
{
	my $size = size_of('utf8', sprintf($emit, 'chr(228)'));

	cmp_ok($size, '>', 2000, "$emit: refused with its size");
	is(size_of('latin1', sprintf($emit, 'chr(228)')), $size, 'LATIN1: the same');
	is(size_of('ascii', sprintf($emit, q{E'\xc3\xa4'})), $size, 'SQL_ASCII: the same');
}
# In a source a database's name stands as a URI has it: this one as %C3%A4.
$node->safe_psql('latin1', qq{SET client_encoding = 'LATIN1'; CREATE DATABASE "\xe4" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
$node->safe_psql("\xe4", 'SET client_min_messages = error; CREATE EXTENSION carshop_outbox');
my $cloudevent = q{'B', to_jsonb(repeat('x', 3000)), format => 'cloudevents'};
is(size_of("\xe4", $cloudevent), size_of('latin1', $cloudevent), 'a source of a database whose name is not ASCII');

foreach my $db ('ascii', 'latin1')
{
	poll_until(sub { query_value($node, $db, q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, $db);
	pass("$db: publishing goes on");
}

no_crash($node);
$node->stop;
done_testing();
