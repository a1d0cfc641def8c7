# The auditor of the fault tests must itself be able to see every fault: here it
# is given logs that are wrong in one known way each.  No server, no broker.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Checker qw(audit audit_reports);
use Test::More;

# What stands in for a Reader: lines that are there already.
package Lines;	## no critic (RequireFilenameMatchesPackage)

sub each
{
	my ($self, $function) = @_;
	$function->(@$_) foreach @$self;
	return;
}

package main;

sub message
{
	my ($offset, $key, $version, $txn, %other) = @_;
	my $id = $other{id} // sprintf('00000000-0000-7000-8000-%06d%06d', $key, $version);
	return [
		'M', 1000, $other{partition} // 0, $offset, $other{header} // $id, $key,
		qq({"EventType":"StockChanged","EventDescription":"a \\"change\\"",)
		  . qq("OccuredOn":"2026-11-22T20:27:03.512756+00:00","EventId":"$id","Key":"$key",)
		  . qq("Data":{"key":$key,"version":$version,"txn":$txn,"note":"{x}"}}) ];
}

sub end_at
{
	my ($offset, $partition) = @_;
	return [ 'E', 1000, $partition // 0, $offset ];
}

# Three database transactions: 11 and 12 in one Kafka transaction (its control
# record takes offset 4), 13 in the next.
my %truth = ('1,1' => 11, '2,1' => 11, '1,2' => 12, '2,2' => 12, '1,3' => 13, '3,1' => 13);
my @log = (
	message(0, 1, 1, 11),
	message(1, 2, 1, 11),
	message(2, 1, 2, 12),
	message(3, 2, 2, 12),
	message(5, 1, 3, 13),
	message(6, 3, 1, 13));
my @live = (
	@log[ 0 .. 3 ], end_at(5),
	@log[ 4 .. 5 ], end_at(8));

sub findings_of
{
	my (%change) = @_;
	my ($findings) = audit(
		truth => $change{truth} // \%truth,
		log => bless($change{log} // \@log, 'Lines'),
		live => bless($change{live} // \@live, 'Lines'));
	return @$findings;
}

sub finds
{
	my ($pattern, $name, %change) = @_;
	my @findings = findings_of(%change);
	ok(scalar(grep { $_ =~ $pattern } @findings), $name) or diag("found: @findings");
	return;
}

my ($none, $figures) = audit(
	truth => \%truth,
	log => bless([@log], 'Lines'),
	live => bless([@live], 'Lines'));
is("@$none", '', 'a right log has no finding');
is_deeply(
	$figures,
	{
		committed => 6, events => 6, kafka_transactions => 2,
		database_transactions => 3, taken_back => 0, reader_ends => 2
	},
	'and its figures are counted');

finds(qr/^lost: 3,1 of txn 13/, 'a lost event', log => [ @log[ 0 .. 4 ] ]);
finds(qr/^duplicate: 1,3 again/, 'an event twice', log => [ @log, message(8, 1, 3, 13) ]);
finds(qr/^duplicate: id .* again/, 'an id twice, for another event',
	truth => { %truth, '3,2' => 14 },
	log => [ @log, message(8, 3, 2, 14, id => $log[0][4]) ]);
finds(qr/^phantom: 4,1/, 'an event that nobody committed', log => [ @log, message(8, 4, 1, 15) ]);
finds(qr/^phantom: 3,1 of txn 99/, 'an event of another transaction than the one that committed it',
	log => [ @log[ 0 .. 4 ], message(6, 3, 1, 99) ]);
finds(qr/^order: 1,2 after version 0/, 'versions of a key exchanged',
	log => [ message(0, 1, 2, 12), message(1, 2, 1, 11), message(2, 1, 1, 11), @log[ 3 .. 5 ] ]);
finds(qr/^order: key 1 in partitions 0 and 1/, 'a key in two partitions',
	log => [ @log[ 0 .. 3 ], message(0, 1, 3, 13, partition => 1), message(5, 3, 1, 13) ]);
finds(qr/^torn: txn 12 goes on in another Kafka transaction/, 'a transaction in two Kafka transactions',
	log => [ @log[ 0 .. 2 ], message(4, 2, 2, 12), message(6, 1, 3, 13), message(7, 3, 1, 13) ]);
finds(qr/^torn: a reader at the end of partition 0 \(offset 3\) had seen 1 of 2 events of txn 12/,
	'a reader that saw a part', live => [ @log[ 0 .. 2 ], end_at(3), @log[ 3 .. 5 ], end_at(8) ]);
finds(qr/^reader: id .* seen twice/, 'a reader that saw an event twice', live => [ @live, $log[5] ]);
finds(qr/^reader: id .* never seen/, 'a reader that missed an event', live => [ @live[ 0 .. 5 ] ]);
finds(qr/^reader: id .* not there afterwards/, 'a reader that saw what was taken back',
	live => [ @live, message(8, 4, 1, 15) ]);
finds(qr/^reader: error in partition 0/, 'a reader that met an error',
	live => [ @live, [ 'X', 1000, 0, 'offset out of range' ] ]);
finds(qr/^unreadable: /, 'a message that is no event', log => [ @log, [ 'M', 1, 0, 8, '-', '-', '{}' ] ]);
finds(qr/^identity: header id other/, 'a header that names another id',
	log => [ @log[ 0 .. 4 ], message(6, 3, 1, 13, header => 'other') ]);
finds(qr/^lost: 60 in all/, 'many findings of a kind are counted',
	truth => { %truth, map { ("7,$_" => 70) } 1 .. 60 });

# ---- reports ----

my @events = map { "$_->[4]|$_->[2]|$_->[3]" } @log;

sub report_finds
{
	my ($pattern, $name, %change) = @_;
	my $findings = audit_reports(
		events => \@events,
		offsets => ['0|7'],
		log => bless([ @log, end_at(8) ], 'Lines'),
		sums => [ '1|3', '2|2', '3|1' ],
		direct => [ '1|3', '2|2', '3|1' ],
		%change);
	like("@$findings", $pattern, $name);
	return;
}

report_finds(qr/^$/, 'right reports have no finding');
report_finds(qr/report: lacks 1 events/, 'an event that the reports lack', events => [ @events[ 1 .. 5 ] ]);
report_finds(qr/report: holds 1 events twice/, 'an event that was applied twice', events => [ @events, $events[0] ]);
report_finds(qr/report: holds 1 events not in the topic/, 'an event from nowhere', events => [ @events, 'x|0|9' ]);
report_finds(qr/report: holds 1 events with another place/, 'an event with a place that is not its own',
	events => [ @events[ 0 .. 4 ], $events[5] . '1' ]);
report_finds(qr/report: goes on at offset 6 of partition 0, although 6 is applied/,
	'an offset behind its rows', offsets => ['0|6']);
report_finds(qr/report: goes on at offset 9 of partition 0, which ends at 8/,
	'an offset ahead of the topic', offsets => ['0|9']);
report_finds(qr/report: sum 2\|3 instead of 2\|2/, 'a wrong sum', sums => [ '1|3', '2|3', '3|1' ]);
report_finds(qr/report: sum nothing instead of 3\|1/, 'a missing row', sums => [ '1|3', '2|2' ]);

done_testing();
