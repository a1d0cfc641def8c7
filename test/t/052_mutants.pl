# The fault tests must be able to fail.  Builds of the extension in which one
# promise is broken on purpose (src/mutants.h) go through the scenarios of 050 and 051, and the
# auditor has to notice:
# The unharmed build goes through the same ones as the control.
#
# CARSHOP_TEST_MUTANTS=0 leaves it out; needs the sources beside the tests.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run;
use Mutants;
use PostgreSQL::Test::Utils;
use Scenario;
use Test::More;

plan skip_all => Mutants::missing() if Mutants::missing();

# The faults of 051 that leave nothing to chance.
sub result_of
{
	my ($mutant) = @_;
	my $stage = PostgreSQL::Test::Utils::tempdir() . '/stage.conf';

	append_to_file($stage, Mutants::conf($mutant));
	my $scenario = Scenario->new(name => $mutant || 'control', proxy => 1, reports => 0, stage => $stage);

	$scenario->late_end;
	my $result = $scenario->late_commit(settle => 40);
	$scenario->stop;
	return $result;
}

Scenario::exactly_once_ok(result_of(''), 'without a mutant the build passes');
foreach my $mutant ('stale_progress', 'read_first', 'keep_handle')
{
	my $findings = result_of($mutant)->{findings};

	ok(scalar(grep { /^(duplicate|lost|torn|phantom)/ } @$findings), "$mutant is noticed");
	note(join("\n", @$findings));
}

# The state machine's random histories notice it without a server.
my $machine = Mutants::unit('test_histories');
foreach my $mutant ('read_first', 'early_unpark')
{
	local $ENV{MUTANT} = $mutant;
	local $ENV{HISTORIES} = 500;
	my ($stdout, $stderr);

	IPC::Run::run([$machine], '>', \$stdout, '2>', \$stderr);
	like($stdout, qr/^not ok \d+ - every event once and in order/m, "$mutant is noticed by test_histories") or diag($stderr);
}

done_testing();
