# One real broker for a test, or a cluster of them, and kcat as its client.
#
#	my $kafka = Carshop::Kafka->start;	# options of test/kafka: port, advertise, set
#	$kafka->create_topic('t', 3);
#	$kafka->produce('t', 'value', key => 'k', headers => { a => 'b' });
#	my @messages = $kafka->read_topic('t');
#	$kafka->kill9; $kafka->restart; $kafka->stop; $kafka->pause; $kafka->resume;
#
#	my $cluster = Carshop::Kafka->start(brokers => 3);
#	$cluster->kill9($cluster->leader('__transaction_state', 0));	# one of them
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
# listeners => { NAME => 'SSL', … } (besides the plain one), version; for a cluster:
# brokers (how many), controller (true: of its own).
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
	push @arguments, '--brokers', $options{brokers} if $options{brokers};
	push @arguments, '--controller' if $options{controller};
	push @arguments, map { ('--listener', "$_=$options{listeners}{$_}") } sort keys %{ $options{listeners} // {} };
	$self->{dir} = abs_path(dirname($self->{dir})) . "/kafka$folders";
	push @brokers, $self;
	$self->_script('start', undef, @arguments);
	return $self;
}

# Of one broker of a cluster, or (no number) of all there are.
sub _folder
{
	my ($self, $number) = @_;

	return $number ? "$self->{dir}/$number" : $self->{dir};
}

sub _script
{
	my ($self, $action, $number, @arguments) = @_;

	local $ENV{KAFKA_VERSION} = $self->{version} if $self->{version};
	system($script, $action, $self->_folder($number), @arguments) == 0
	  or croak "test/kafka $action failed";
}

# In a cluster each takes the number of a broker; without it, all are meant.
sub stop { my ($self, $number) = @_; $self->_script('stop', $number); }
sub kill9 { my ($self, $number) = @_; $self->_script('kill', $number); }
sub pause { my ($self, $number) = @_; $self->_script('pause', $number); }
sub resume { my ($self, $number) = @_; $self->_script('resume', $number); }

# The same node again: same ports, same data.  set => [...] adds properties;
# brokers => [number, ...] are those of a cluster, at the same time.
sub restart
{
	my ($self, %options) = @_;
	my @arguments = map { ('--set', $_) } @{ $options{set} // [] };

	local $ENV{KAFKA_VERSION} = $self->{version} if $self->{version};
	my @runs = map { IPC::Run::start([ $script, 'restart', $self->_folder($_), @arguments ]) } @{ $options{brokers} // [undef] };
	# all are waited for, also when one fails
	my @failed = grep { !$_->finish } @runs;
	croak 'test/kafka restart failed' if @failed;
}

sub dir { return $_[0]->{dir}; }
sub log_file { my ($self, $number) = @_; return $self->_folder($number) . '/kafka.log'; }

# Of the plain listener, or of one that is named.
sub bootstrap
{
	my ($self, $listener) = @_;

	return $self->_content($listener ? "bootstrap.$listener" : 'bootstrap');
}

sub pid { my ($self, $number) = @_; return $self->_content($number ? "$number/pid" : 'pid'); }

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
		'--partitions', $partitions // 1,
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

# Who leads each partition of a topic, and which replicas are in sync, as one of
# the brokers knows: ([leader, [replica, …]], …); nothing when no broker answers.
sub partitions
{
	my ($self, $topic) = @_;
	my $list = eval { $self->_kcat(undef, '-L', '-m', 5, '-t', $topic) } // '';
	my @partitions;

	$partitions[$1] = [ $2, [ split /,/, $3 ] ]
	  while $list =~ /^    partition (\d+), leader (-?\d+), replicas: \S+, isrs: ([\d,]*)/mg;
	return @partitions;
}

sub leader
{
	my ($self, $topic, $partition) = @_;
	my @partitions = $self->partitions($topic);

	croak "partition $partition of $topic has no leader"
	  if ($partitions[$partition] // [ -1 ])->[0] < 0;
	return $partitions[$partition][0];
}

# Wait until so many replicas of each partition of these topics are in sync.
sub wait_in_sync
{
	my ($self, $replicas, $seconds, @topics) = @_;
	my $deadline = time + $seconds;

	foreach my $topic (@topics)
	{
		while (1)
		{
			my @partitions = $self->partitions($topic);
			last if @partitions && !grep { $_->[0] < 0 || @{ $_->[1] } != $replicas } @partitions;
			croak "$topic has not $replicas replicas in sync" if time > $deadline;
			Time::HiRes::sleep(0.1);
		}
	}
}

# Are the replicas in sync those that were asked for, and the first one the leader?
sub _as_assigned
{
	my ($self, $replicas, $with_leader) = @_;

	foreach my $topic (keys %$replicas)
	{
		my @partitions = $self->partitions($topic);

		foreach my $number (0 .. $#{ $replicas->{$topic} })
		{
			my @wanted = @{ $replicas->{$topic}[$number] };
			my ($leader, $in_sync) = @{ $partitions[$number] // return 0 };

			return 0 if join(',', sort @$in_sync) ne join(',', sort @wanted);
			return 0 if $with_leader && $leader != $wanted[0];
		}
	}
	return 1;
}

# { topic => [[broker, …] for each partition] }: the replicas are to be there, and
# the first one of each is to lead.  Returns when that is so.
sub reassign
{
	my ($self, $replicas, $seconds) = @_;
	my $json = PostgreSQL::Test::Utils::tempdir() . '/partitions.json';
	my $deadline = time + ($seconds // 180);
	my (@moves, @elections);

	foreach my $topic (sort keys %$replicas)
	{
		foreach my $number (0 .. $#{ $replicas->{$topic} })
		{
			my $where = join(',', @{ $replicas->{$topic}[$number] });
			push @moves, qq({"topic":"$topic","partition":$number,"replicas":[$where]});
			push @elections, qq({"topic":"$topic","partition":$number});
		}
	}
	PostgreSQL::Test::Utils::append_to_file("$json.moves", '{"version":1,"partitions":[' . join(',', @moves) . ']}');
	PostgreSQL::Test::Utils::append_to_file("$json.elections", '{"partitions":[' . join(',', @elections) . ']}');
	$self->tool('org.apache.kafka.tools.reassign.ReassignPartitionsCommand',
		'--reassignment-json-file', "$json.moves", '--execute');
	until ($self->_as_assigned($replicas, 0))
	{
		croak 'the reassignment does not end' if time > $deadline;
		Time::HiRes::sleep(0.1);
	}
	# the tool has a time limit of its own, which a busy machine exceeds
	until ($self->_as_assigned($replicas, 1))
	{
		croak 'the leaders are not elected' if time > $deadline;
		eval {
			$self->tool('org.apache.kafka.tools.LeaderElectionCommand', '--election-type', 'preferred',
				'--path-to-json-file', "$json.elections");
		};
	}
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

	return $self->_kcat(join('', map { "$_\n" } @values), '-P', '-t', $topic);
}

# The same, into one partition.
sub produce_lines_to
{
	my ($self, $topic, $partition, @values) = @_;

	return $self->_kcat(join('', map { "$_\n" } @values), '-P', '-t', $topic, '-p', $partition);
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
