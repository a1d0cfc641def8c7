# Faults at named places of a server (src/fault.h; a build with -DMUTANTS).
#
#	Faults::arm($node, 'event_sent', 'wait', 12);
#	Faults::struck($node, 'event_sent', 5) or note('it was not passed');
#	Faults::release($node, 'event_sent');
#	Faults::clear($node);
package Faults;

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;

use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

my $root = abs_path("$FindBin::RealBin/../..");

# name => may it be an error?
sub names
{
	my ($list) = slurp_file("$root/src/fault.h") =~ /All names(.*?)\*\//s;
	my %names;

	while ($list =~ /^ \*\t (\w+)\t+([^\n]*)/mg)
	{
		my ($name, $text) = ($1, $2);

		$names{$name} = index($text, '(no error)') < 0;
	}
	return \%names;
}

sub _path
{
	my ($node, $name) = @_;
	return $node->data_dir . "/carshop_fault.$name";
}

# The n-th time that the place is passed from now on.
sub arm
{
	my ($node, $name, $action, $nth) = @_;
	my $path = _path($node, $name);

	append_to_file("$path.new", "$action " . ($nth // 1) . "\n");
	rename "$path.new", $path or die "$path: $!";
	return;
}

# It does not strike any more.
sub disarm
{
	my ($node, $name) = @_;

	unlink _path($node, $name);
	release($node, $name);
	return;
}

# Has it struck?  Waits at most so many seconds.
sub struck
{
	my ($node, $name, $seconds) = @_;
	my $deadline = time() + $seconds;

	while (-e _path($node, $name))
	{
		return 0 if time() > $deadline;
		usleep(5_000);
	}
	return 1;
}

# Whoever waits at it goes on.
sub release
{
	my ($node, $name) = @_;

	unlink _path($node, $name) . '.waiting';
	return;
}

sub clear
{
	my ($node) = @_;

	unlink glob($node->data_dir . '/carshop_fault.*');
	return;
}

1;
