# A build of the extension that can break one promise on purpose: all names stand
# in src/mutants.h, the setting carshop_outbox.mutant chooses one.
package Mutants;

use strict;
use warnings;

use Cwd qw(abs_path);
use Fcntl qw(:flock);
use File::Path qw(make_path);
use FindBin;

use PostgreSQL::Test::Utils;
use Test::More;

my $root = abs_path("$FindBin::RealBin/../..");
my %built;						# flags => folder

# Why there is none; nothing: there is one.
sub missing
{
	return 'CARSHOP_TEST_MUTANTS=0' if !($ENV{CARSHOP_TEST_MUTANTS} // 1);
	return 'the sources are not here' if !-e "$root/src/mutants.h";
	return;
}

# The names in src/mutants.h, all or those that a test (its number) tries; in
# scalar context a hash from name to promise.
sub names
{
	my ($number) = @_;
	my ($list) = slurp_file("$root/src/mutants.h") =~ /All names(.*?)\*\//s;
	my (%promise, @names);
	my $tried_by = '';

	foreach my $line (split /\n/, $list)
	{
		$tried_by = $1 if $line =~ /\((\d{3})\)$/;
		next if $line !~ /^ \*\t (\w+)\t+(I\d+) / || (defined $number && $number ne $tried_by);
		push @names, $1;
		$promise{$1} = $2;
	}
	return wantarray ? @names : \%promise;
}

# The numbers of the tests that src/mutants.h names.
sub tests
{
	my ($list) = slurp_file("$root/src/mutants.h") =~ /All names(.*?)\*\//s;
	my %numbers = map { $_ => 1 } $list =~ /\((\d{3})\)$/mg;

	my @sorted = sort keys %numbers;
	return @sorted;
}

# Run make in a folder of its own for these flags, which all tests of a run share;
# one at a time.  %s in a command is the folder.
sub _make
{
	my ($flags, @commands) = @_;
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
	my $base = $ENV{CARSHOP_TOOLS} // PostgreSQL::Test::Utils::tempdir();

	make_path($base);
	my $dir = abs_path($base) . '/build' . $flags =~ s/\W+/_/gr;
	open(my $lock, '>', "$dir.lock") or BAIL_OUT("$dir.lock: $!");
	flock($lock, LOCK_EX);
	if (!-d $dir)
	{
		make_path($dir);
		system("cp -r '$root/src' '$root/sql' '$root/Makefile' '$root/carshop_outbox.control' '$root/test' '$dir/'") == 0
		  or BAIL_OUT('could not copy the sources');
		system("find '$dir/src' -name '*.o' -delete");
	}
	foreach my $command (@commands)
	{
		my $goals = $command =~ s/%s/$dir/r;
		my $output = `make -s -C '$dir' PG_CONFIG='$pg_config' COPT='$flags' $goals 2>&1`;

		BAIL_OUT("could not build: $output") if $? != 0;
	}
	return $dir;
}

sub _build
{
	my ($flags) = @_;

	return $built{$flags} //= _make($flags, '-j2 all', 'install DESTDIR=%s/stage');
}

# Settings that make a server load that build, and break this promise if one is
# named: the usual ones, with the folder and the mutant exchanged.  Further flags
# make a build of their own.
sub conf
{
	my ($mutant, $more_flags) = @_;
	my $flags = '-DMUTANTS' . ($more_flags ? " $more_flags" : '');
	my $conf = slurp_file($ENV{CARSHOP_CONF});
	my ($usual) = $conf =~ m{^dynamic_library_path = '(.*?)/usr/}m;

	BAIL_OUT("unexpected stage settings: $conf") if !defined $usual;
	my $dir = _build($flags);
	$conf =~ s/\Q$usual\E/$dir\/stage/g;
	return $conf . ($mutant ? "carshop_outbox.mutant = '$mutant'\n" : '');
}

# A unit test of that build; the environment's MUTANT chooses.
sub unit
{
	my ($name) = @_;

	return _make('-DMUTANTS', "-j2 build/unit/$name") . "/build/unit/$name";
}

1;
