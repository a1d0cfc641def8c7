# The small C programs of the tests: built once per test run, on first use.
#
#	my $path = Tools::program('reader');	# reader, txnproducer, corpus_writer, clock.so, kafka_proxy

package Tools;

use strict;
use warnings;

use Carp qw(croak);
use Cwd qw(abs_path);
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use PostgreSQL::Test::Utils;

my $source = abs_path(dirname(__FILE__) . '/../..');
my %home = (reader => 'tools', txnproducer => 'tools', corpus_writer => 'tools', 'clock.so' => 'tools', kafka_proxy => 'proxy');

sub program
{
	my ($name) = @_;
	my $dir = $home{$name} or croak "no such program: $name";
	my $out = $ENV{CARSHOP_TOOLS} // "$PostgreSQL::Test::Utils::tmp_check/tools";

	make_path($out);
	$out = abs_path($out);
	open(my $lock, '>', "$out/lock") or croak "$out/lock: $!";
	flock($lock, LOCK_EX);
	my $output = `make -s -C '$source/$dir' OUT='$out' '$out/$name' 2>&1`;
	croak "could not build $name: $output" if $? != 0;
	return "$out/$name";
}

1;
