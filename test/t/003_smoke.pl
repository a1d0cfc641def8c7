# The plain C client of src/kafka against a real broker, without any server:
# the programs test/unit/smoke_*.c, which print assertions of their own.  Once
# more with a round trip of 160 ms, longer than any slice of theirs.  One of them
# waits for the broker to abort a transaction for its time.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use File::Basename qw(basename);
use PostgreSQL::Test::Utils;
use PostgreSQL::Test::Cluster;
use Proxy;
use Test::More;
use Tools;

my @programs = glob "$FindBin::RealBin/../../build/unit/smoke_*";
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $kafka = Carshop::Kafka->start(
	advertise => "127.0.0.1:$port",
	set => ['transaction.abort.timed.out.transaction.cleanup.interval.ms=100']);
my $proxy = Proxy->start(
	program => Tools::program('kafka_proxy'),
	dir => PostgreSQL::Test::Utils::tempdir_short(),
	port => $port,
	broker_port => $kafka->port);

foreach my $distance (0, 80)
{
	$proxy->command("delay ms=$distance client=carshop_outbox");
	foreach my $program (grep { -x && -f } @programs)
	{
		my $name = basename($program) . " at $distance ms";
		my ($output, $errors) = run_command([ $program, $proxy->brokers ]);

		is($?, 0, "$name succeeds") or diag("$output\n$errors");
		unlike($output, qr/^not ok/m, 'and none of its assertions fails');
		note(join "\n", $output =~ /^# (last record .*|transaction in .*|the longest .*)$/mg);
	}
}

$proxy->stop;
done_testing();
