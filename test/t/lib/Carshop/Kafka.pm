# One real broker for a test, and kcat as its client.
#
#	my $kafka = Carshop::Kafka->start;	# options of test/kafka: port, advertise, set
#	$kafka->create_topic('t', 3);
#	$kafka->produce('t', 'value', key => 'k', headers => { a => 'b' });
#	my @messages = $kafka->read_topic('t');
#	$kafka->kill9; $kafka->restart; $kafka->stop;
#
# Whatever a test starts ends with it.

package Carshop::Kafka;

use strict;
use warnings;

use Carp qw(croak);
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use IPC::Run qw(run);
use PostgreSQL::Test::Utils ();
use Time::HiRes qw(time);

my $script = abs_path(dirname(__FILE__) . '/../../../kafka');
my $test_pid = $$;
my @brokers;
my $folders = 0;

# Options: port, advertise ('host:port', for a proxy), set => ['key=value', …],
# listeners => { NAME => 'SSL', … } (besides the plain one), version.
sub start
{
	my ($class, %options) = @_;
	my $self = bless {
		dir => "$PostgreSQL::Test::Utils::tmp_check/kafka" . ++$folders,
		version => $options{version}
	}, $class;
	my @arguments = map { ('--set', $_) } @{ $options{set} // [] };

	push @arguments, '--port', $options{port} if $options{port};
	push @arguments, '--advertise', $options{advertise} if $options{advertise};
	push @arguments, map { ('--listener', "$_=$options{listeners}{$_}") } sort keys %{ $options{listeners} // {} };
	$self->{dir} = abs_path(dirname($self->{dir})) . "/kafka$folders";
	push @brokers, $self;
	$self->_script('start', @arguments);
	return $self;
}

sub _script
{
	my ($self, $action, @arguments) = @_;

	local $ENV{KAFKA_VERSION} = $self->{version} if $self->{version};
	system($script, $action, $self->{dir}, @arguments) == 0
	  or croak "test/kafka $action failed";
}

sub stop { my ($self) = @_; $self->_script('stop'); }
sub kill9 { my ($self) = @_; $self->_script('kill'); }

# The same node again: same ports, same data.  set => [...] adds properties.
sub restart
{
	my ($self, %options) = @_;

	$self->_script('restart', map { ('--set', $_) } @{ $options{set} // [] });
}

sub dir { return $_[0]->{dir}; }
sub log_file { return "$_[0]->{dir}/kafka.log"; }

# Of the plain listener, or of one that is named.
sub bootstrap
{
	my ($self, $listener) = @_;

	return $self->_content($listener ? "bootstrap.$listener" : 'bootstrap');
}

sub pid { return $_[0]->_content('pid'); }

# The broker's own port, which is not the one of bootstrap behind a proxy.
sub port { return $_[0]->_content('port'); }

sub _content
{
	my ($self, $name) = @_;
	my $content = PostgreSQL::Test::Utils::slurp_file("$self->{dir}/$name");

	chomp $content;
	return $content;
}

# One of Kafka's own tools, for example 'org.apache.kafka.tools.TopicCommand'
# (about a second each); returns what it prints.
sub tool
{
	my ($self, @command) = @_;
	my $output;

	local $ENV{KAFKA_VERSION} = $self->{version} if $self->{version};
	run([ $script, 'tool', $self->{dir}, @command ], '<', \undef, '>&', \$output)
	  or croak "@command: $output";
	return $output;
}

# The topic is there for clients when this returns.
sub create_topic
{
	my ($self, $topic, $partitions, %config) = @_;

	$self->tool('org.apache.kafka.tools.TopicCommand', '--create', '--topic', $topic,
		'--partitions', $partitions // 1, '--replication-factor', 1,
		map { ('--config', "$_=$config{$_}") } sort keys %config);
}

sub delete_topic
{
	my ($self, $topic) = @_;

	$self->tool('org.apache.kafka.tools.TopicCommand', '--delete', '--topic', $topic);
}

# topic => number of partitions, as the broker tells (internal ones as well).
sub topics
{
	my ($self) = @_;
	my $list = $self->_kcat(undef, '-L');

	return { $list =~ /^  topic "([^"]+)" with (\d+) partitions/mg };
}

# Runs kcat with the bytes of $input; croaks with its complaint.
sub _kcat
{
	my ($self, $input, @arguments) = @_;
	my ($output, $complaint) = ('', '');

	$input = '' unless defined $input;
	# An empty fetch must not wait for its usual half a second.
	run([ 'kcat', '-b', $self->bootstrap, '-X', 'fetch.wait.max.ms=10', @arguments ],
		'<', \$input, '>', \$output, '2>', \$complaint)
	  or croak "kcat @arguments: $complaint";
	return $output;
}

# One message.  Options: key, headers (hash), partition.  A value of undef is a
# tombstone; that and an empty one need a key.
sub produce
{
	my ($self, $topic, $value, %options) = @_;
	my @arguments = ('-P', '-t', $topic);
	my $headers = $options{headers} // {};

	push @arguments, '-p', $options{partition} if defined $options{partition};
	push @arguments, map { ('-H', "$_=$headers->{$_}") } sort keys %$headers;
	if (defined $value && length $value)
	{
		# A file is one message, whatever is in it.
		my $file = PostgreSQL::Test::Utils::tempdir() . '/value';
		open my $fh, '>:raw', $file or croak "$file: $!";
		print $fh $value;
		close $fh;
		push @arguments, '-k', $options{key} if defined $options{key};
		$self->_kcat(undef, @arguments, $file);
	}
	else
	{
		# kcat sends nothing for an empty file or line without a key in it.
		croak 'kcat can send an empty value with a key only' unless defined $options{key};
		$self->_kcat("$options{key}\x1f\n", @arguments, '-K', "\x1f",
			defined $value ? () : '-Z');
	}
}

# One message per value; values must not contain line breaks.
sub produce_lines
{
	my ($self, $topic, @values) = @_;

	$self->_kcat(join('', map { "$_\n" } @values), '-P', '-t', $topic);
}

# Where a reader of an isolation level meets the end of each partition.
sub _ends
{
	my ($self, $topic, $isolation) = @_;
	my ($input, $output, $said) = ('', '', '');

	run([ 'kcat', '-b', $self->bootstrap, '-X', 'fetch.wait.max.ms=10', '-X', "isolation.level=$isolation",
			'-C', '-e', '-t', $topic, '-o', 'beginning', '-f', '' ],
		'<', \$input, '>', \$output, '2>', \$said);
	return join(' ', sort $said =~ /Reached end of topic \S+ (\[\d+\] at offset \d+)/g);
}

# A transaction is decided when its producer has the answer; the broker writes the
# markers that let readers see it a moment later.  Wait for them, unless a
# transaction is left open on purpose (then not long).
sub _wait_for_markers
{
	my ($self, $topic) = @_;
	my $deadline = time + 3;

	until ($self->_ends($topic, 'read_committed') eq $self->_ends($topic, 'read_uncommitted'))
	{
		last if time > $deadline;
	}
}

# All that a reader sees now, in the order of partition and offset: a list of
# { topic, partition, offset, ts, key, value, headers, header_text }.  key and
# value are undef where they are null.  Bytes, not characters.  Second argument:
# read_committed (the default) or read_uncommitted.  Options: partition, offset
# (where to begin).  read_committed waits for transactions that are decided.
sub read_topic
{
	my ($self, $topic, $isolation, %options) = @_;
	my @arguments = (
		'-C', '-e', '-q', '-t', $topic,
		'-o', $options{offset} // 'beginning',
		'-X', 'isolation.level=' . ($isolation // 'read_committed'),
		'-f', '%p %o %T %K %S\n%k%s%h\x1e');

	push @arguments, '-p', $options{partition} if defined $options{partition};
	$self->_wait_for_markers($topic) if ($isolation // 'read_committed') eq 'read_committed';
	my $output = $self->_kcat(undef, @arguments);
	my @messages;

	while ($output =~ /\G(-?\d+) (-?\d+) (-?\d+) (-?\d+) (-?\d+)\n/gc)
	{
		my %message = (topic => $topic, partition => $1, offset => $2, ts => $3);
		my ($key_length, $value_length) = ($4, $5);
		my $at = pos $output;

		foreach (['key', $key_length], ['value', $value_length])
		{
			my ($name, $length) = @$_;
			$message{$name} = $length < 0 ? undef : substr($output, $at, $length);
			$at += $length if $length > 0;
		}
		my $end = index($output, "\x1e", $at);
		$message{header_text} = substr($output, $at, $end - $at);
		$message{headers} =
		  { map { split /=/, $_, 2 } split /,(?=[^,=]+=)/, $message{header_text} };
		push @messages, \%message;
		pos($output) = $end + 1;
	}
	croak 'could not understand what kcat printed' if (pos($output) // 0) != length $output;
	# An array, because the result of sort has no number in scalar context.
	@messages = sort { $a->{partition} <=> $b->{partition} || $a->{offset} <=> $b->{offset} } @messages;
	return @messages;
}

# Only the values.
sub read_values
{
	my ($self, @arguments) = @_;

	my @messages = $self->read_topic(@arguments);

	return map { $_->{value} } @messages;
}

# test/kafka refuses to signal a process that is not this broker any more.
END
{
	my $exit_code = $?;

	# Not in a child that a test forked.
	if ($$ == $test_pid)
	{
		system($script, 'kill', $_->{dir}) foreach @brokers;
	}
	$? = $exit_code;
}

1;
