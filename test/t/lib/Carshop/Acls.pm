# Rights in Kafka, given and taken within milliseconds: the requests are written by
# hand, because librdkafka before 2.3 has no transactional ids in its
# ACLs and Kafka's own tool takes seconds.
#
#	my $acls = Carshop::Acls->new($kafka);	# by the plain listener: a super user
#	$acls->grant('shop', topic => 'orders', 'Write');	# literal; 'orders*': a prefix
#	$acls->revoke('shop', topic => 'orders', 'Write');
#
# The controller has answered then; the broker goes by it some moments later.

package Carshop::Acls;

use strict;
use warnings;

use Carp qw(croak);
use IO::Socket::INET;

# org.apache.kafka.common.resource.ResourceType, acl.AclOperation
my %type = (topic => 2, group => 3, cluster => 4, transactional_id => 5);
my %operation = (Read => 3, Write => 4, Create => 5, Describe => 8, DescribeConfigs => 10, IdempotentWrite => 12);

sub new
{
	my ($class, $kafka) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $kafka->bootstrap) or croak "no connection: $@";

	return bless { socket => $socket, number => 0 }, $class;
}

sub _string { return pack 'n/a*', $_[0]; }

sub _read
{
	my ($self, $length) = @_;
	my $bytes = '';

	while (length $bytes < $length)
	{
		sysread($self->{socket}, $bytes, $length - length $bytes, length $bytes) or croak 'the broker has hung up';
	}
	return $bytes;
}

# CreateAcls (30) or DeleteAcls (31) of one binding, in version 1.
sub _ask
{
	my ($self, $api_key, $user, $type, $name, $operation) = @_;
	my $pattern = $name =~ s/\*$// ? 4 : 3;
	my $acl = pack('c', $type{$type} // croak "no such type: $type") . _string($name) . pack('c', $pattern)
	  . _string("User:$user") . _string('*') . pack('c c', $operation{$operation} // croak("no such operation: $operation"), 3);
	my $request = pack('n n N', $api_key, 1, ++$self->{number}) . _string('acls') . pack('N', 1) . $acl;

	syswrite($self->{socket}, pack('N/a*', $request)) or croak "could not write: $!";
	# correlation id, throttle time, number of answers, code of the first
	my (undef, undef, $n, $code) = unpack 'N N N n', $self->_read(unpack 'N', $self->_read(4));
	croak "$operation on $type $name: error $code" if $n != 1 || $code != 0;
}

sub grant { my ($self, @acl) = @_; $self->_ask(30, @acl); }
sub revoke { my ($self, @acl) = @_; $self->_ask(31, @acl); }

1;
