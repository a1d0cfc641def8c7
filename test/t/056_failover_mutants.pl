# The failovers of 044 must be able to fail: builds that break a promise on purpose
# (src/mutants.h), and what the auditor says.
#
# CARSHOP_TEST_MUTANTS=0 leaves it out; needs the sources beside the tests.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Failover;
use Mutants;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => Mutants::missing() if Mutants::missing();

my $kafka = Carshop::Kafka->start;

sub broken
{
	my ($mutant) = @_;
	my $stage = PostgreSQL::Test::Utils::tempdir() . '/stage.conf';

	append_to_file($stage, Mutants::conf($mutant));
	return Failover->new(name => $mutant, kafka => $kafka, stage => $stage);
}

sub noticed
{
	my ($failover, $heir, $pattern, @lost) = @_;

	my ($findings) = $failover->look($heir, $failover->{name}, lost => \@lost);
	ok(scalar(grep { $_ =~ $pattern } @$findings), "$failover->{name} is noticed") or diag(join("\n", @$findings));
	note(join("\n", @$findings));
	$heir->stop;
	return;
}

foreach my $mutant ([ 'inherit_none', qr/^duplicate/ ], [ 'inherit_all', qr/^lost/ ])
{
	my $failover = broken($mutant->[0]);
	my $heir = $failover->late;

	poll_until(sub { (Failover::wrong($heir, 'divergence') // '') =~ /does not know/ }, 60, 'the relay stops');
	$heir->safe_psql('shop', 'SELECT outbox.start_lineage()');
	$failover->more_published($heir, 100);
	$failover->unload;
	noticed($failover, $heir, $mutant->[1], $failover->primary);
}

# What the standby lacks is published.
my ($widow) = broken('widowed')->widowed('widowed_heir');
like(poll_until(sub { Failover::wrong($widow, 'divergence') }, 60, 'it stops'), qr/does not know/, 'widowed is noticed');
$widow->stop;

# What was published and is lost: the tick that the new primary does not know says so.
my $failover = broken('standby_blind');
my $heir = $failover->after;
$failover->primary->kill9;
$failover->unload;
$heir->promote;
like(poll_until(sub { Failover::wrong($heir, 'divergence') }, 60, 'it stops'), qr/does not know/, 'standby_blind is noticed');
$heir->stop;
done_testing();
