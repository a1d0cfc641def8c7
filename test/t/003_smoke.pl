# The plain C client of src/kafka against a real broker, without any server:
# the programs test/unit/smoke_*.c, which print assertions of their own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use File::Basename qw(basename);
use PostgreSQL::Test::Utils;
use Test::More;

my @programs = glob "$FindBin::RealBin/../../build/unit/smoke_*";
my $kafka = Carshop::Kafka->start;

foreach my $program (grep { -x && -f } @programs)
{
	my ($output, $errors) = run_command([ $program, $kafka->bootstrap ]);

	is($?, 0, basename($program) . ' succeeds') or diag("$output\n$errors");
	unlike($output, qr/^not ok/m, 'and none of its assertions fails');
}

done_testing();
