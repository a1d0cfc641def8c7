# What tests of secured connections share: certificates (openssl), tokens, and a
# broker whose listeners use them.
#
#	my $secure = Carshop::Secure->new;		# a CA and certificates of its own
#	my $kafka = $secure->start_kafka(set => [...]);
#	$secure->certificate('shop', extensions => '…', days => 1, ca => 'other');
#	$secure->path('shop.pem'), $secure->put('token', $content)
#
# Listeners: TLS, MTLS (wants a client's certificate), EXPIRED, ELSEWHERE (a
# certificate of that kind), SASL (TLS; PLAIN, SCRAM, OAUTHBEARER with tokens
# that nobody signed).

package Carshop::Secure;

use strict;
use warnings;

use Carp qw(croak);
use Carshop::Kafka;
use IO::Socket::INET;
use IPC::Run qw(run);
use MIME::Base64 qw(encode_base64 encode_base64url);
use POSIX ();
use PostgreSQL::Test::Utils ();

sub new
{
	my ($class) = @_;
	my $self = bless { dir => "$PostgreSQL::Test::Utils::tmp_check/secure" }, $class;

	mkdir $self->{dir} or croak "$self->{dir}: $!";
	foreach my $ca ('ca', 'other')
	{
		$self->_openssl('req', '-x509', @{ _new_key() }, '-keyout', "$ca.key", '-out', "$ca.pem",
			'-days', 10, '-subj', "/CN=$ca");
	}
	$self->certificate('broker', extensions => 'subjectAltName=IP:127.0.0.1,DNS:localhost');
	$self->certificate('expired', extensions => 'subjectAltName=IP:127.0.0.1', days => 0);
	$self->certificate('elsewhere', extensions => 'subjectAltName=DNS:elsewhere.example');
	return $self;
}

sub path { return "$_[0]->{dir}/$_[1]"; }

sub _new_key { return [ '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes' ]; }

sub _openssl
{
	my ($self, @command) = @_;
	my $said;
	my $dir = $self->{dir};

	run([ 'openssl', @command ], '<', \undef, '>&', \$said, init => sub { chdir $dir or die }) or croak "openssl @command: $said";
}

# NAME.pem, NAME.key and NAME.both (as a broker wants it).  Options: days (0:
# it has expired), ca ('other': one that the brokers do not trust), extensions,
# user (its name; default: NAME).
sub certificate
{
	my ($self, $name, %options) = @_;
	my $ca = $options{ca} // 'ca';

	$self->put("$name.ext", $options{extensions} // 'basicConstraints=CA:FALSE');
	$self->_openssl('req', @{ _new_key() }, '-keyout', "$name.key", '-out', "$name.csr", '-subj', '/CN=' . ($options{user} // $name));
	$self->_openssl('x509', '-req', '-in', "$name.csr", '-CA', "$ca.pem", '-CAkey', "$ca.key", '-CAcreateserial',
		'-out', "$name.pem", '-days', $options{days} // 10, '-extfile', "$name.ext");
	$self->put("$name.both", join '', map { PostgreSQL::Test::Utils::slurp_file($self->path("$name.$_")) } 'key', 'pem');
}

# A file of that content, there in one step, as whoever renews one should do it.
sub put
{
	my ($self, $name, $content) = @_;
	my $path = $self->path($name);

	open my $fh, '>', "$path.new" or croak "$path.new: $!";
	print $fh $content;
	close $fh or croak "$path.new: $!";
	chmod 0600, "$path.new" or croak "$path.new: $!";
	rename "$path.new", $path or croak "$path: $!";
	return $path;
}

# A copy of a file in the place of another, likewise.
sub replace
{
	my ($self, $name, $with) = @_;

	return $self->put($name, PostgreSQL::Test::Utils::slurp_file($self->path($with)));
}

# A token that is valid for so many seconds.
sub token
{
	my ($self, $user, $seconds) = @_;

	return join '.', (map { encode_base64url($_) } '{"alg":"none"}', sprintf('{"sub":"%s","iat":%d,"exp":%d}', $user, time - 1000, time + $seconds)), '';
}

# Users of PLAIN: hash of passwords.  Other options as Carshop::Kafka->start.
sub start_kafka
{
	my ($self, %options) = @_;
	my %certificates = (TLS => 'broker', MTLS => 'broker', EXPIRED => 'expired', ELSEWHERE => 'elsewhere', SASL => 'broker');
	my $module = 'org.apache.kafka.common.security';
	my $users = join ' ', map { qq(user_$_="$options{users}{$_}") } sort keys %{ $options{users} };
	my @set;

	foreach my $listener (sort keys %certificates)
	{
		my $prefix = 'listener.name.' . lc $listener;

		push @set, "$prefix.ssl.keystore.type=PEM", "$prefix.ssl.keystore.location=" . $self->path("$certificates{$listener}.both");
	}
	return Carshop::Kafka->start(
		listeners => { map { $_ => $_ eq 'SASL' ? 'SASL_SSL' : 'SSL' } keys %certificates },
		set => [
			@set,
			'listener.name.mtls.ssl.client.auth=required', 'listener.name.mtls.ssl.truststore.type=PEM',
			'listener.name.mtls.ssl.truststore.location=' . $self->path('ca.pem'),
			# the whole name would be CN=shop
			'listener.name.mtls.ssl.principal.mapping.rules=RULE:^CN=(.*)$/$1/',
			'connection.failed.authentication.delay.ms=10',
			'sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
			"listener.name.sasl.plain.sasl.jaas.config=$module.plain.PlainLoginModule required $users;",
			(map { "listener.name.sasl.scram-sha-$_.sasl.jaas.config=$module.scram.ScramLoginModule required;" } 256, 512),
			"listener.name.sasl.oauthbearer.sasl.jaas.config=$module.oauthbearer.OAuthBearerLoginModule required;",
			@{ $options{set} // [] } ]);
}

# A user of SCRAM.
sub scram_user
{
	my ($self, $kafka, $mechanism, $user, $password) = @_;

	$kafka->tool('kafka.admin.ConfigCommand', '--alter', '--entity-type', 'users', '--entity-name', $user,
		'--add-config', "$mechanism=[iterations=4096,password=$password]");
}

# An issuer of tokens for one client, as OIDC has it: {url}, stop.  It grants
# without a signature, which the broker here does not ask for.
sub start_issuer
{
	my ($self, $client, $secret) = @_;
	my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or croak "no listener: $@";
	my $wanted = 'Basic ' . encode_base64("$client:$secret", '');
	my $pid = fork // croak "fork: $!";

	if ($pid == 0)
	{
		while (my $connection = $server->accept)
		{
			my ($head, $form, $length) = ('', '', 0);

			while (defined(my $line = <$connection>))
			{
				$head .= $line;
				$length = $1 if $line =~ /^Content-Length: (\d+)/i;
				last if $line =~ /^\r?\n$/;
			}
			read $connection, $form, $length;
			my $known = $head =~ /^Authorization: \Q$wanted\E\r/im;
			my $answer = $known ? sprintf('{"access_token":"%s","token_type":"Bearer","expires_in":600}', $self->token($client, 600)) : '{"error":"invalid_client"}';

			print $connection 'HTTP/1.1 ' . ($known ? '200 OK' : '401 Unauthorized') . "\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
			  . length($answer) . "\r\n\r\n$answer";
			close $connection;
		}
		POSIX::_exit(0);
	}
	return bless { url => 'http://127.0.0.1:' . $server->sockport . '/token', pid => $pid }, 'Carshop::Secure::Issuer';
}

package Carshop::Secure::Issuer;    ## no critic (Modules::ProhibitMultiplePackages)

sub stop
{
	my ($self) = @_;

	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
}

1;
