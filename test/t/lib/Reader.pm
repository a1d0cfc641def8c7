# test/tools/reader as an object: a consumer that notes every message and every
# moment at which it had seen all that was visible.
#
#	my $reader = Reader->start(program => $path, brokers => $b, topic => $t, file => $f);
#	...
#	$reader->stop;
#	$reader->each(sub { my ($kind, $ms, $partition, @rest) = @_; ... });
#
#	my $log = Reader->read_all(..., isolation => 'read_committed', timeout => 60);
#
# Kinds and what follows: M offset id key value (a message), E offset (the end
# of the partition: the last stable offset), X text (an error).  The output stays
# in its file and is gone through line by line: a drain fills gigabytes otherwise.

package Reader;

use strict;
use warnings;

use Carp qw(croak);
use POSIX ();
use Time::HiRes qw(time usleep);

sub start
{
	my ($class, %arg) = @_;
	my $self = bless { file => $arg{file}, errors => "$arg{file}.err" }, $class;
	my @command = ($arg{program}, '-b', $arg{brokers}, '-t', $arg{topic},
		'-i', $arg{isolation} // 'read_committed');
	push @command, '-e', $arg{timeout} if $arg{timeout};

	my $pid = fork();
	croak "fork: $!" if !defined $pid;
	if ($pid == 0)
	{
		open(STDOUT, '>', $self->{file});
		open(STDERR, '>', $self->{errors});
		exec(@command)
		  or POSIX::_exit(127);		# no destructors, no END blocks
	}
	$self->{pid} = $pid;
	return $self;
}

# Everything that was ever written and is visible at this isolation.  Dies when
# the topic cannot be read to its end: an open transaction hides what follows.
sub read_all
{
	my ($class, %arg) = @_;
	my $self = $class->start(timeout => 60, %arg);
	my $status = $self->wait_for_exit;

	croak "reader failed ($status): " . _slurp($self->{errors}) if $status != 0;
	return $self;
}

sub wait_for_exit
{
	my ($self) = @_;
	my $pid = delete $self->{pid} or return 0;
	waitpid($pid, 0);
	return $?;
}

# End it; what it has read by now stays.
sub stop
{
	my ($self) = @_;
	kill 'TERM', $self->{pid} if $self->{pid};
	return $self->wait_for_exit;
}

sub running
{
	my ($self) = @_;
	return $self->{pid} && waitpid($self->{pid}, 1) == 0;	# 1: WNOHANG
}

# Wait until the output holds that many lines of a kind (M, E or X).
sub wait_for
{
	my ($self, $kind, $count, $seconds) = @_;
	my $deadline = time() + ($seconds // 30);

	do
	{
		return 1 if $self->count($kind) >= $count;
		usleep(20_000);
	} while (time() < $deadline);
	return 0;
}

sub count
{
	my ($self, $kind) = @_;
	my $count = 0;
	open(my $fh, '<', $self->{file}) or return 0;
	while (my $line = <$fh>)
	{
		$count++ if substr($line, 0, 1) eq $kind;
	}
	return $count;
}

# Call a function for every complete line, with its fields.
sub each
{
	my ($self, $function) = @_;

	open(my $fh, '<', $self->{file}) or croak "$self->{file}: $!";
	while (my $line = <$fh>)
	{
		# the last line of a reader that was killed may be cut
		last if $line !~ s/\n\z//;
		$function->(split /\t/, $line, 7);
	}
	close($fh);
	return;
}

sub _slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	local $/;
	return <$fh> // '';
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	$self->stop;
	return;
}

1;
