# What the tests of outbox.check() and report.check() share.
#
#	check_node($node);       # the server that is asked
#	my $row = row('nobody listens', 'kafka', 'fail', qr/refused/, check('outbox'));

package Carshop::Check;

use strict;
use warnings;

use Carshop;
use Exporter 'import';
use JSON::PP;
use Test::More;

our @EXPORT = qw(check check_node row set);

my $node;

# The server that the following are about.
sub check_node
{
	($node) = @_;
	return;
}

# The rows of a check, as hashes.  Schema: outbox or report.
sub check
{
	my ($schema, %options) = @_;
	my $timeout = $options{timeout} // '60s';

	return @{ decode_json($node->safe_psql($options{db} // 'shop', "SELECT json_agg(c) FROM $schema.check('$timeout') c")) };
}

# The row about a concern whose message fits; all rows are told when there is none.
sub row
{
	my ($what, $concern, $level, $pattern, @rows) = @_;
	my ($row) = grep { $_->{concern} eq $concern && $_->{message} =~ $pattern } @rows;

	is($row ? $row->{level} : undef, $level, "$what: $concern, $level")
	  or diag($pattern, map { "\n$_->{concern} $_->{level}: $_->{message}" } @rows);
	ok(!$row || ($level eq 'ok') == !defined $row->{remedy}, "$what: what is not ok has a remedy, and only that");
	return $row // {};
}

# A setting of the extension, in force when this returns.
sub set
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.$name = '$value'");
	$node->reload;
	poll_until(sub { query_value($node, 'shop', "SELECT current_setting('carshop_outbox.$name')") eq $value }, 30, "$name = $value");
	return;
}

1;
