# The tests of capture must be able to fail.  One build of the extension knows a
# setting that breaks one promise on purpose (src/mutants.h); each such
# mutant goes through the regress and isolation tests that ought to notice it, and
# has to fail them.  Without the setting the same build passes all of them.
#
# CARSHOP_TEST_MUTANTS=0 leaves it out; needs the sources beside the tests.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Mutants;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = abs_path("$FindBin::RealBin/../..");

plan skip_all => Mutants::missing() if Mutants::missing();

# mutant => the tests that have to notice it
my %notice = (
	no_pins => ['fidelity'],
	no_escape_check => ['application_events'],
	no_size_check => ['application_events'],
	any_topic => ['application_events'],
	any_header => ['application_events'],
	any_header_size => ['application_events', 'context'],
	stale_topics => ['route_topics'],
	any_trace => ['application_events'],
	any_ddl => ['routes'],
	stale_routes => ['routes'],
	partition_shape => ['partitions'],
	virtual_null => ['virtual_columns'],
	always_capture => ['emit'],
	late_rows => ['statements'],
	keep_aborted => ['statements'],
	no_second_look => ['rotation'],
	follow_current => ['rotation'],
	no_key_lock => ['lock_key'],
	lastval => ['statements'],
	ghosts => ['routes'],
	backfill_no_lock => ['backfill_writers'],
	backfill_waits => ['backfill_writers'],
	late_states => ['mirrors']);

# Columns that this server does not have cannot be wrong.
my ($major) = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --version` =~ /(\d+)/;
delete $notice{virtual_null} if $major < 18;

# mutant => a query on database "ascii", and its answer where nothing is broken;
# for what the tests above cannot look at (024 and 073 do, with Kafka and two shops)
my %answer = (
	no_encoding_check => [ q{
		CREATE FUNCTION pg_temp.refused() RETURNS boolean LANGUAGE plpgsql AS
			$$ BEGIN PERFORM outbox.emit(E'\xff'); RETURN false; EXCEPTION WHEN SQLSTATE 'OB002' THEN RETURN true; END $$;
		SELECT pg_temp.refused()}, 't' ],
	replicated_rows => [ q{
		SET session_replication_role = replica;
		INSERT INTO outbox.event_1 (seq, xid, occurred_at, id, type, format) VALUES (1, '3', now(), gen_random_uuid(), 'Replicated', 'envelope');
		SELECT count(*) FROM outbox.event WHERE type = 'Replicated'}, '0' ]);

# ---- a server that loads it, set up as the layers of tests do ----

my $node = PostgreSQL::Test::Cluster->new('mutants');
$node->init(extra => [ '--locale=C.UTF-8', '-E', 'UTF8' ]);
$node->append_conf('postgresql.conf', Mutants::conf());
$node->append_conf('postgresql.conf', slurp_file("$root/test/regress.conf"));
# a mutant may end a backend by a fault, and with it the server
$node->append_conf('postgresql.conf', "fsync = off\nrestart_after_crash = on\n");
$node->start;

my $regress_dir = dirname(dirname($ENV{PG_REGRESS}));
my %layer_of = map { basename($_) =~ s/\.spec$//r => 'isolation' } glob("$root/test/isolation/specs/*.spec");

# Runs tests; returns a hash of their results, true for passed.
sub run_tests
{
	my ($layer, @tests) = @_;
	my $program = $layer eq 'regress' ? "$regress_dir/regress/pg_regress" : "$regress_dir/isolation/pg_isolation_regress";
	my $input = $layer eq 'regress' ? "$root/test" : "$root/test/isolation";
	my @load = $layer eq 'regress' ? () : ('--load-extension=carshop_outbox');
	my $output = PostgreSQL::Test::Utils::tempdir();
	my %result;

	# expected/ is looked for in the working directory
	symlink "$root/expected", "$output/expected";
	my $log = `cd '$output' && '$program' --inputdir='$input' --outputdir=. --bindir='@{[ dirname($ENV{PG_CONFIG} // 'pg_config') ]}' \\
		--host='@{[ $node->host ]}' --port=@{[ $node->port ]} --dbname=${layer}_regression @load @tests 2>&1`;
	while ($log =~ /^(?:test |ok \d+ +- |not ok \d+ +- )(\w+)\s*(\.\.\. (?:ok|FAILED))?/mg)
	{
		my ($name, $word) = ($1, $2 // '');

		$result{$name} = $word ? $word =~ /ok/ : $& =~ /^ok/;
	}
	note($log) if grep { !defined $result{$_} } @tests;
	return \%result;
}

# The tests of a layer that a mutant names, with what they need before them.
sub notices
{
	my ($test) = @_;

	return ($layer_of{$test} // 'regress') eq 'isolation'
	  ? run_tests('isolation', $test)
	  : run_tests('regress', 'car_shop_routes', $test eq 'car_shop_routes' ? () : $test);
}

$node->safe_psql('postgres', q{CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('ascii', q{SET client_min_messages = error; CREATE EXTENSION carshop_outbox});
is($node->safe_psql('ascii', $answer{$_}[0]), $answer{$_}[1], "without $_ the answer is right") foreach sort keys %answer;
foreach my $test (sort { $a cmp $b } keys %{ { map { $_ => 1 } map { @$_ } values %notice } })
{
	ok(notices($test)->{$test}, "without a mutant $test passes");
}
foreach my $mutant (sort keys %notice, keys %answer)
{
	poll_until(sub { $node->psql('postgres', 'SELECT 1') == 0 }, 60, 'the server is there');
	foreach my $left (split /\n/, $node->safe_psql('postgres', 'SELECT database, gid FROM pg_prepared_xacts'))
	{
		my ($database, $gid) = split /\|/, $left;
		$node->safe_psql($database, "ROLLBACK PREPARED '$gid'");
	}
	$node->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.mutant = '$mutant'");
	$node->reload;
	poll_until(sub { query_value($node, 'postgres', 'SHOW carshop_outbox.mutant') eq $mutant }, 30, 'the reload');
	isnt($node->safe_psql('ascii', $answer{$mutant}[0]), $answer{$mutant}[1], "$mutant is noticed") if $answer{$mutant};
	foreach my $test (@{ $notice{$mutant} // [] })
	{
		my $passed = notices($test)->{$test};
		ok(defined $passed && !$passed, "$mutant is noticed by $test");
	}
}

my %tried = map { $_ => 1 } keys %notice, keys %answer, 'virtual_null';
my @names = Mutants::names('054');
is_deeply([ sort keys %tried ], [ sort @names ], 'every mutant of src/mutants.h that names this test is tried');

# The other tests that src/mutants.h names try theirs.
my @elsewhere = map { my $n = $_; map { [ $n, $_ ] } Mutants::names($n) } grep { $_ ne '054' } Mutants::tests();
foreach (@elsewhere)
{
	my ($number, $name) = @$_;
	my ($file) = glob("$root/test/t/${number}_*.pl");

	ok(index(slurp_file($file), $name) >= 0, "$name is tried by $number");
}
my @all = Mutants::names();
is(scalar(@names) + scalar(@elsewhere), scalar(@all), 'none is tried by nobody');

$node->stop;
done_testing();
