# The Kafka proxy of the fault tests (test/proxy): start, command, stop.
#
#	my $proxy = Proxy->start(program => $path, port => $port, broker_port => $broker);
#	$proxy->command('drop-response api=26 count=1');
#	$proxy->wait_for_log(qr/answer dropped/);
#	$proxy->stop;
#
# The broker behind it must advertise the proxy's port, else clients that have
# found the broker through the proxy go past it.

package Proxy;

use strict;
use warnings;

use Carp qw(croak);
use POSIX ();
use IO::Socket::UNIX;
use Time::HiRes qw(time usleep);

# API keys of the protocol that tests name.
use constant {
	PRODUCE => 0,
	FETCH => 1,
	METADATA => 3,
	FIND_COORDINATOR => 10,
	INIT_PRODUCER_ID => 22,
	ADD_PARTITIONS => 24,
	END_TXN => 26,
};

sub start
{
	my ($class, %arg) = @_;
	my $dir = $arg{dir} or croak 'dir is missing';
	my $self = bless {
		port => $arg{port},
		control => "$dir/proxy.control",
		log => "$dir/proxy.log",
	}, $class;

	my $pid = fork();
	croak "fork: $!" if !defined $pid;
	if ($pid == 0)
	{
		open(STDOUT, '>>', $self->{log});
		open(STDERR, '>&', \*STDOUT);
		exec($arg{program}, '--listen', $arg{port}, '--broker', $arg{broker_port},
			'--control', $self->{control})
		  or POSIX::_exit(127);		# no destructors, no END blocks
	}
	$self->{pid} = $pid;
	$self->wait_for_log(qr/listening on/) or croak 'the proxy does not run: ' . $self->log_contents;
	return $self;
}

sub port { return $_[0]->{port}; }
sub brokers { return "127.0.0.1:$_[0]->{port}"; }

# Send one command; its answer's lines without the final OK.
sub command
{
	my ($self, $line) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $self->{control})
	  or croak "proxy control: $!";
	my @answer;

	print $socket "$line\n";
	while (my $got = <$socket>)
	{
		chomp $got;
		return @answer if $got eq 'OK';
		croak "proxy: $line: $got" if $got =~ /^ERROR/;
		push @answer, $got;
	}
	croak "proxy: $line: no answer";
}

# Requests seen so far of one API key.
sub seen
{
	my ($self, $api) = @_;
	my ($line) = grep { /^api $api / } $self->command('stats');
	return $line ? (split / /, $line)[2] : 0;
}

# How often the rules have struck.
sub hits
{
	my ($self) = @_;
	my $hits = 0;
	$hits += /hits=(\d+)/ ? $1 : 0 for $self->command('rules');
	return $hits;
}

sub log_contents
{
	my ($self) = @_;
	open(my $fh, '<', $self->{log}) or return '';
	local $/;
	return <$fh> // '';
}

# Where the log ends now; what follows can be looked at with wait_for_log.
sub log_position { return -s $_[0]->{log} // 0; }

# True when the log holds the pattern (after a position) within the deadline.
sub wait_for_log
{
	my ($self, $pattern, $from, $seconds) = @_;
	my $deadline = time() + ($seconds // 30);

	do
	{
		return 1 if substr($self->log_contents, $from // 0) =~ $pattern;
		usleep(20_000);
	} while (time() < $deadline);
	return 0;
}

sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid} or return;
	kill 'TERM', $pid;
	waitpid($pid, 0);
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	$self->stop;
	return;
}

1;
