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

no_crash($node);
$node->stop;
done_testing();
