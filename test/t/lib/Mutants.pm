# A build of the extension that can break one promise on purpose: all names stand
# in src/mutants.h, the setting carshop_outbox.mutant chooses one.
package Mutants;

use strict;
use warnings;

use Cwd qw(abs_path);
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

sub _build
{
	my ($flags) = @_;
	return $built{$flags} if $built{$flags};
	my $dir = abs_path(PostgreSQL::Test::Utils::tempdir());
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';

	system("cp -r '$root/src' '$root/sql' '$root/Makefile' '$root/carshop_outbox.control' '$root/test' '$dir/'") == 0
	  or BAIL_OUT('could not copy the sources');
	my $output = `find '$dir/src' -name '*.o' -delete;
		make -s -j2 -C '$dir' PG_CONFIG='$pg_config' COPT='$flags' all 2>&1 &&
		make -s -C '$dir' PG_CONFIG='$pg_config' COPT='$flags' install DESTDIR='$dir/stage' 2>&1`;
	BAIL_OUT("could not build: $output") if $? != 0;
	return $built{$flags} = $dir;
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

	my $dir = _build('-DMUTANTS');
	my $output = `make -s -j2 -C '$dir' PG_CONFIG='@{[ $ENV{PG_CONFIG} // 'pg_config' ]}' COPT=-DMUTANTS build/unit/$name 2>&1`;
	BAIL_OUT("could not build $name: $output") if $? != 0;
	return "$dir/build/unit/$name";
}

1;
