# From the row to the report table: events are UTF-8 whatever the encodings of
# database and session, what has no form in UTF-8 is refused when it is written,
# naming table and column, and the row image that the reporter stores turns back
# into the row (jsonb_populate_record), type by type.

use strict;
use utf8;
use warnings;

use Encode qw(encode decode);
use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my %encoding = (utf8 => 'UTF8', latin1 => 'LATIN1', win => 'WIN1251', ascii => 'SQL_ASCII');
my %perl = (UTF8 => 'UTF-8', LATIN1 => 'iso-8859-1', WIN1251 => 'cp1251', SQL_ASCII => 'UTF-8');
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('fidelity', kafka => $kafka,
	conf => { '.shop_databases' => join(', ', sort keys %encoding), '.report_databases' => 'reports', 'client_min_messages' => 'error' });
$node->start;

# Statements as bytes of an encoding; returns psql's status and error.
sub run_bytes
{
	my ($db, $client, $sql) = @_;
	my ($status, $output, $error) = $node->psql($db,
		encode('UTF-8', "\\set VERBOSITY verbose\nSET client_encoding = '$client';\n") . encode($perl{$client}, $sql));

	return ($status, $error);
}

# ---- encodings ----

my %word = (utf8 => 'Ärger “€” Привет 😀', latin1 => 'Ärger', win => 'Привет €', ascii => 'Ärger');
foreach my $db (sort keys %encoding)
{
	$node->safe_psql('postgres', "CREATE DATABASE $db ENCODING '$encoding{$db}' LOCALE 'C' TEMPLATE template0");
	$node->safe_psql($db, qq{
		CREATE EXTENSION carshop_outbox;
		CREATE TABLE word (id integer PRIMARY KEY, word text, more text[], "key" text);
		SELECT outbox.capture('word', 'Word', topic => 'words-$db', columns => '{id,word,more}', key => '{id}{key}', description => '{word}');
		SELECT outbox.capture('word', 'Header', topic => 'headers-$db', columns => '{id}', headers => '{"a": "b"}');
	});
}

# A session's encoding may be another than the database's.
foreach my $case ([ 'utf8', 'UTF8' ], [ 'latin1', 'LATIN1' ], [ 'latin1', 'UTF8' ], [ 'win', 'WIN1251' ], [ 'win', 'UTF8' ], [ 'ascii', 'SQL_ASCII' ])
{
	my ($db, $client) = @$case;
	my ($status, $error) = run_bytes($db, $client,
		"INSERT INTO word SELECT COALESCE(max(id), 0) + 1, '$word{$db}', ARRAY['$word{$db}', 'x'], '$word{$db}' FROM word;");
	is($status, 0, "$db: written by a session in $client") or note $error;
}
# In one that cannot show the text, only new ASCII can be written; what is there stays as it is.
is((run_bytes('utf8', 'LATIN1', q{UPDATE word SET id = 100 + id RETURNING id;}))[0], 0, 'utf8: a session in LATIN1 touches a text that it cannot show');

sub published
{
	my ($db) = @_;

	poll_until(sub { query_value($node, $db, q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, "$db publishes");
	return map { decode('UTF-8', $_->{value}, Encode::FB_CROAK) } $kafka->read_topic("words-$db");
}

foreach my $db (sort keys %encoding)
{
	my @values = published($db);
	cmp_ok(scalar(@values), '>=', 1, "$db: published, and valid UTF-8");
	foreach my $value (@values)
	{
		like($value, qr/"EventDescription":"\Q$word{$db}\E".*"Key":"\d+\Q$word{$db}\E","Data":\{"id":\d+,"word":"\Q$word{$db}\E","more":\["\Q$word{$db}\E","x"\]\}\}$/,
			"$db: the text in key, description and data");
	}
}
# The same text gives the same bytes, whatever the database's encoding.
my ($from_latin1) = map { s/.*"Data"://r } published('latin1');
my ($from_ascii) = map { s/.*"Data"://r } published('ascii');
is($from_ascii, $from_latin1, 'SQL_ASCII that holds UTF-8 and LATIN1 make the same event');

# ---- what has no form in UTF-8 ----

foreach my $case (
	[ 'ascii', q{INSERT INTO word VALUES (10, E'bad \xff', NULL, NULL)}, 'word', 'a column' ],
	[ 'ascii', q{INSERT INTO word VALUES (10, 'fine', ARRAY['fine', E'\xc3'], NULL)}, 'more', 'within an array' ],
	[ 'ascii', q{INSERT INTO word VALUES (10, 'fine', NULL, E'\xed\xa0\x80')}, 'key', 'a column of the key only' ],
	[ 'win', q{INSERT INTO word VALUES (10, E'\x98', NULL, NULL)}, 'word', 'a byte without a character' ])
{
	my ($db, $sql, $column, $what) = @$case;
	my ($status, $output, $error) = $node->psql($db, "\\set VERBOSITY verbose\nSET client_encoding = '$encoding{$db}'; $sql");

	isnt($status, 0, "$db: $what is refused");
	like($error, qr/ERROR:  OB002: column "$column" of table "word" has no form in UTF-8/, "$db: $what: with table and column");
	like($error, qr/HINT:/, "$db: $what: and a hint");
	is(query_value($node, $db, q{SELECT count(*) FROM word WHERE id = 10}), 0, "$db: $what: the row is not there either");
}
my ($status, $output, $error) = $node->psql('ascii', "\\set VERBOSITY verbose\nSELECT outbox.emit(E'\\xff')");
like($error, qr/OB002: type of an event has no form in UTF-8/, 'an emitted event as well');
my $before = scalar published('ascii');
$node->safe_psql('ascii', q{INSERT INTO word VALUES (11, 'after')});
is(scalar published('ascii'), $before + 1, 'publishing goes on');

# ---- round trip, type by type ----

# The matrix of test/sql/fidelity.sql, in the shop and where it is reported.
my $matrix = slurp_file("$FindBin::RealBin/../sql/fidelity.sql");
my ($types) = $matrix =~ /^(CREATE TYPE mood.*?)^-- ordinary values/ms;
my ($rows) = $matrix =~ /^(-- ordinary values.*?)^-- the matrix holds/ms;
$node->safe_psql('postgres', q{CREATE DATABASE reports ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('postgres', q{ALTER DATABASE reports SET carshop_outbox.report_topics = 'samples'; SELECT pg_reload_conf()});
$node->safe_psql('utf8', "$types; SELECT outbox.capture('sample', 'Sample', topic => 'samples'); SET xmloption = content; $rows");
$node->safe_psql('reports', "$types; CREATE EXTENSION carshop_outbox; SELECT report.start()");
poll_until(sub { query_value($node, 'utf8', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, 'published');
poll_until(sub { query_value($node, 'reports', q{SELECT count(*) FROM report.reported_events WHERE event_type = 'Sample'}) >= 6 }, 60, 'the rows are reported');

# A cell's text, the same way on both sides.
my $cells = q{
	SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET lc_monetary = 'C'; SET xmloption = content;
	CREATE FUNCTION cells(s sample) RETURNS TABLE (attname text, value text) LANGUAGE plpgsql AS $$
	BEGIN
		FOR attname IN SELECT a.attname FROM pg_attribute a WHERE attrelid = 'sample'::regclass AND attnum > 0 ORDER BY attnum LOOP
			EXECUTE format('SELECT ($1).%I::text', attname) INTO value USING s;
			RETURN NEXT;
		END LOOP;
	END $$;};
my %there = cells_of('utf8', 'SELECT s.id, c.attname, encode(convert_to(COALESCE(c.value, $$<null>$$), $$UTF8$$), $$hex$$) FROM sample s, cells(s) c');
my %back = cells_of('reports', q{SELECT (s).id, c.attname, encode(convert_to(COALESCE(c.value, '<null>'), 'UTF8'), 'hex')
	FROM (SELECT jsonb_populate_record(NULL::sample, data) AS s FROM report.reported_events WHERE event_type = 'Sample' OFFSET 0) r, cells(s) c});

sub cells_of
{
	my ($db, $query) = @_;
	my %cell;

	foreach my $line (split /\n(?=\d+\|)/, $node->safe_psql($db, "$cells $query"))
	{
		my ($id, $column, $hex) = $line =~ /^(\d+)\|(.*)\|([0-9a-f]*)$/s or die "unexpected: $line";
		$cell{"$id $column"} = $hex;
	}
	return %cell;
}

# What JSON cannot carry, and only that.
my %lost = (
	'2 ai' => 'lower bounds of arrays', '3 ai' => 'lower bounds of arrays',
	'1 js' => 'white space and repeated members of json', '1 ajs' => 'white space of json', '2 js' => 'how json spells its escapes',
	'5 js' => 'a JSON null is the SQL NULL', '5 jb' => 'a JSON null is the SQL NULL',
	'5 f4' => 'the sign of zero', '5 f8' => 'the sign of zero');
is_deeply([ sort keys %back ], [ sort keys %there ], scalar(keys %there) . ' cells are there and back');
my @different = sort grep { $back{$_} ne $there{$_} } keys %there;
is_deeply(\@different, [ sort keys %lost ], 'each is what it was, but for: ' . join('; ', map { "$_ ($lost{$_})" } sort keys %lost))
  or note map { my $cell = $_; "$cell: " . join(' became ', map { pack('H*', $_->{$cell}) =~ s/(.{80}).*/$1/sr } \%there, \%back) . "\n" }
  grep { !$lost{$_} } @different;

no_crash($node);
$node->stop;
done_testing();
