# Histories from seeds: sessions with savepoints, prepared transactions and switches
# of segments, under faults at named places (src/fault.h), of processes, of the
# network and of the broker, and with failovers (t/lib/History.pm says what there
# is).  After each everything that was committed is in the topic once, in order and
# untorn, and the reports agree.
#
# `make torture SEEDS=n SEED=first` runs many: here they are
# CARSHOP_TEST_SEEDS=5, CARSHOP_TEST_SEED=1.  CARSHOP_TEST_MUTANTS=0 leaves it out: it
# needs a build of its own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Mutants;
use PostgreSQL::Test::Utils;
use Test::More;
use Torture;

plan skip_all => Mutants::missing() if Mutants::missing();

my $seeds = $ENV{CARSHOP_TEST_SEEDS} // 5;
my $first = $ENV{CARSHOP_TEST_SEED} // 1;
my $stage = PostgreSQL::Test::Utils::tempdir() . '/stage.conf';
append_to_file($stage, Mutants::conf($ENV{CARSHOP_TEST_MUTANT} // '', '-DHASTE'));
my $torture = Torture->new(name => 'torture', stage => $stage);
my %sum;

foreach my $seed ($first .. $first + $seeds - 1)
{
	my $result = eval { $torture->history($seed) }
	  // { findings => ["broken: $@"], figures => {}, told => $torture->{told} };
	my $figures = $result->{figures};

	note("seed $seed: $_") foreach @{ $result->{told} };
	my $ok = is(scalar @{ $result->{findings} }, 0,
		"seed $seed: " . join(', ', map { "$_ $figures->{$_}" } sort keys %$figures));
	$sum{$_} += $figures->{$_} // 0 foreach qw(events kafka_transactions seconds);
	next if $ok;
	diag($_) foreach @{ $result->{findings} };
	diag("again: make torture SEEDS=1 SEED=$seed");
	last if grep { /^broken/ } @{ $result->{findings} };
}
note("$seeds histories: " . join(', ', map { "$_ $sum{$_}" } sort keys %sum));
note("struck: $_ " . $torture->{figures}{$_}) foreach sort keys %{ $torture->{figures} };

$torture->stop;
done_testing();
