# The fault tests must be able to fail.  Builds of the extension in which one
# promise is broken on purpose go through the scenarios of 050 and 051, and the
# auditor has to notice:
#	MUTANT_NO_PROGRESS	the progress record is left out of the transaction
#	MUTANT_READ_FIRST	the authoritative read of the progress comes before
#						init_transactions
#	MUTANT_KEEP_HANDLE	a handle that has met trouble is not replaced
# The unharmed build goes through the same ones as the control.
#
# CARSHOP_TEST_MUTANTS=0 leaves it out; needs the sources beside the tests.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Scenario;
use Test::More;

my $root = abs_path("$FindBin::RealBin/../..");

plan skip_all => 'CARSHOP_TEST_MUTANTS=0' if !($ENV{CARSHOP_TEST_MUTANTS} // 1);
plan skip_all => 'the sources are not here' if !-d "$root/src/relay";

# Build and stage the extension with a macro defined; the settings that make a
# server load it, which differ from the usual ones in the folder only.
sub stage
{
	my ($macro) = @_;
	my $dir = abs_path(PostgreSQL::Test::Utils::tempdir());
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';

	system("cp -r '$root/src' '$root/sql' '$root/Makefile' '$root/carshop_outbox.control' '$dir/'") == 0
	  or BAIL_OUT('could not copy the sources');
	my $output = `find '$dir/src' -name '*.o' -delete;
		make -s -j2 -C '$dir' PG_CONFIG='$pg_config' COPT=-D$macro all 2>&1 &&
		make -s -C '$dir' PG_CONFIG='$pg_config' COPT=-D$macro install DESTDIR='$dir/stage' 2>&1`;
	BAIL_OUT("could not build $macro: $output") if $? != 0;

	my $conf = slurp_file($ENV{CARSHOP_CONF});
	my ($usual) = $conf =~ m{^dynamic_library_path = '(.*?)/usr/}m;
	BAIL_OUT("unexpected stage settings: $conf") if !defined $usual;
	$conf =~ s/\Q$usual\E/$dir\/stage/g;
	append_to_file("$dir/stage.conf", $conf);
	return "$dir/stage.conf";
}

# The faults of 051 that leave nothing to chance.
sub result_of
{
	my ($name, $stage) = @_;
	my $scenario = Scenario->new(name => $name, proxy => 1, reports => 0, stage => $stage);

	$scenario->late_end;
	my $result = $scenario->late_commit(settle => 40);
	$scenario->stop;
	return $result;
}

Scenario::exactly_once_ok(result_of('control'), 'the unharmed build passes');
foreach my $macro ('MUTANT_NO_PROGRESS', 'MUTANT_READ_FIRST', 'MUTANT_KEEP_HANDLE')
{
  SKIP:
	{
		skip("the sources do not know $macro", 1) if system("grep -rq $macro '$root/src'") != 0;
		my $findings = result_of(lc($macro), stage($macro))->{findings};
		ok(scalar(grep { /^(duplicate|lost|torn|phantom)/ } @$findings), "$macro is noticed");
		note(join("\n", @$findings));
	}
}

done_testing();
