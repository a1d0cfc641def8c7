# Without Kafka the server must start, work and stop as quickly as ever: nobody
# listens at the brokers' address.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = Carshop->new_node('server');

# Runs it and tells whether it took less than $limit seconds.
sub quick
{
	my ($limit, $what, $code) = @_;
	my $began = time;

	$code->();
	cmp_ok(time - $began, '<', $limit, sprintf('%s quickly (%.2f s)', $what, time - $began));
}

quick(5, 'the server starts', sub { $node->start });
is($node->safe_psql('postgres', 'SHOW shared_preload_libraries'),
	'carshop_outbox', 'the library under test is loaded');
wait_for_worker($node, 'launcher');
pass('the launcher runs');

quick(5, 'it stops', sub { $node->stop('fast') });

# The same with workers that have something to publish.
$node->start;
create_shop($node, 'shop');
is(query_value($node, 'shop',
		"SELECT extversion FROM pg_extension WHERE extname = 'carshop_outbox'"),
	'1.0', 'the extension of the staging folder is installed');
wait_for_worker($node, 'relay', 'shop');
pass('the relay of the database runs');
my $names = query_value($node, 'postgres', q{SELECT current_setting('server_version_num')}) >= 170000 ? 'CarshopLauncher,CarshopRelay,CarshopReporter' : 'Extension';
poll_until(sub {
	(query_value($node, 'shop', q{SELECT string_agg(DISTINCT wait_event, ',' ORDER BY wait_event) FROM pg_stat_activity WHERE backend_type LIKE 'carshop_outbox %'}) // '') eq $names;
}, 30, "what the workers wait for has a name ($names)");
$node->safe_psql('shop', 'INSERT INTO public."Cars" VALUES (1, \'{"$type":"HandEngineEntity"}\')');
is(query_value($node, 'shop', 'SELECT count(*) FROM outbox.event'),
	1, 'an event waits in the outbox');
quick(5, 'it stops with workers that cannot reach Kafka', sub { $node->stop('fast') });
quick(5, 'it starts again', sub { $node->start });
wait_for_worker($node, 'relay', 'shop');
is(query_value($node, 'shop', 'SELECT count(*) FROM outbox.event'),
	1, 'the event still waits');
quick(5, 'it restarts', sub { $node->restart });

# A crash takes no seq back, whether its WAL was written before a checkpoint or behind it.
foreach my $last (45, 1)
{
	$node->safe_psql('shop', "SELECT count(outbox.emit('Counted')) FROM generate_series(1, $_)") foreach 40, 3;
	$node->safe_psql('shop', 'CHECKPOINT');
	$node->safe_psql('shop', "SELECT count(outbox.emit('Counted')) FROM generate_series(1, $last)");
	$node->stop('immediate');
	$node->start;
	$node->safe_psql('shop', q{SELECT outbox.emit('Counted')});
	is(query_value($node, 'shop', 'SELECT count(*) - count(DISTINCT seq) FROM outbox.event'),
		0, "no seq comes twice after a crash, $last behind a checkpoint");
}
$node->stop('immediate');

unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal|server process .* exit code [^01]/,
	'nothing crashed');

done_testing();
