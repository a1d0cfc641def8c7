# Copies of a server that take its place: a restored base backup, point-in-time
# recovery, pg_upgrade, a data directory that was moved.  Under load, and the
# original has published more than the copy knows, where that can be.  Each stops,
# names the way on, and after that nothing that it has is lost or doubled.
#
# Elsewhere: a copy beside its original, start_lineage('nothing'), another cluster
# (022); CREATE DATABASE ... TEMPLATE (039); promotion (044).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Failover;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = Carshop::Kafka->start;

# It works, stops and is told what it is; then it goes on.
sub resolved
{
	my ($failover, $node, $pattern, $call, $case, %arg) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$failover->load($node);
	$failover->stopped($node, $pattern, qr/\Q$call\E/, $case, $call);
	$node->safe_psql('shop', "SELECT $call");
	$failover->more_published($node, 100);
	$failover->unload;
	my $figures = $failover->audit_ok($node, $case, %arg);
	is(Failover::wrong($node, 'divergence'), undef, "$case: all is in order");
	no_crash($node);
	$node->stop;
	return $figures;
}

# ---- a base backup, taken under load ----
{
	my $failover = Failover->new(name => 'backup', kafka => $kafka);
	my $primary = $failover->primary;

	$failover->load;
	$failover->more_published($primary, 100);
	my $restored = $failover->from_backup('backup_restored');
	$failover->more_published($primary, 200);
	$primary->kill9;
	$failover->unload;
	$restored->start;
	my $figures = resolved($failover, $restored, qr/does not know \(ticks \d+ to \d+, about \d+ events.*restored backup/, 'outbox.start_lineage()',
		'a restored base backup', lost => [$primary]);
	cmp_ok($figures->{taken_back}, '>', 0, 'a restored base backup: more had been published');
}

# ---- recovery to a point in time ----
{
	my $failover = Failover->new(name => 'pitr', kafka => $kafka, init => { has_archiving => 1 });
	my $primary = $failover->primary;

	$primary->backup('base');
	$failover->load;
	$failover->more_published($primary, 100);
	$primary->safe_psql('postgres', q{SELECT pg_create_restore_point('here')});
	$failover->more_published($primary, 200);
	$failover->unload;
	Failover::published($primary, 'before the end');
	my $wal = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
	$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
	poll_until(sub { query_value($primary, 'postgres', "SELECT last_archived_wal >= '$wal' FROM pg_stat_archiver") eq 't' }, 60, 'archived');
	$primary->kill9;
	my $restored = $failover->from_backup('pitr_restored', backup => 'base', has_restoring => 1, standby => 0,
		conf => "recovery_target_name = 'here'\nrecovery_target_action = promote\narchive_mode = off\n");
	$restored->start;
	poll_until(sub { query_value($restored, 'postgres', 'SELECT pg_is_in_recovery()') eq 'f' }, 60, 'recovered');
	my $figures = resolved($failover, $restored, qr/does not know \(ticks \d+ to \d+, about \d+ events.*restored from a backup/, 'outbox.start_lineage()',
		'recovery to a point in time', lost => [$primary]);
	cmp_ok($figures->{taken_back}, '>', 0, 'recovery to a point in time: more had been published');
}

# ---- pg_upgrade, and after that the data directory is moved ----
{
	my $failover = Failover->new(name => 'upgraded', kafka => $kafka);
	my $old = $failover->primary;
	my $new = Carshop->new_node('upgraded_new', kafka => $kafka, conf => { '.report_databases' => '', '.topic' => $failover->{topic} });
	my $bin = $old->config_data('--bindir');
	my $dir = PostgreSQL::Test::Utils::tempdir_short();

	$failover->load;
	$failover->more_published($old, 100);
	$old->stop('fast');
	$failover->unload;
	{
		# it writes its log here
		chdir $dir or die "$dir: $!";
		command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin, '-s', $dir, '-p', $old->port, '-P', $new->port ],
			'pg_upgrade') or map { diag("$_:\n" . slurp_file($_)) } glob($new->data_dir . '/pg_upgrade_output.d/*/*.txt');
		chdir $FindBin::RealBin or die "$FindBin::RealBin: $!";
	}
	$new->start;
	resolved($failover, $new, qr/written by another server: this is a copy, or it was moved/, 'outbox.claim()', 'pg_upgrade');

	my $moved = PostgreSQL::Test::Cluster->new('upgraded_moved');
	system_or_bail('cp', '-a', $new->data_dir, $moved->data_dir);
	system_or_bail('rm', '-r', $new->data_dir);
	my $host = $moved->host;
	$moved->append_conf('postgresql.conf', 'port = ' . $moved->port . "\nunix_socket_directories = '$host'\n");
	$moved->start;
	resolved($failover, $moved, qr/written by another server: this is a copy, or it was moved/, 'outbox.claim()', 'a data directory that was moved');
}

diag($_) foreach Failover::table();
done_testing();
