# A history for Torture.pm, made from a seed and from nothing else: settings, what
# sessions do, which faults strike and when.
#
#	my $history = History->new($seed, \%points);	# Faults::names
#	$history->{settings}	name => value
#	$history->{faults}		[{ kind, delay, ... }, ...]
#	History::script($seed, $session, $number, $keys)	a piece of a session's SQL
package History;

use strict;
use warnings;

# One of several, each as often as its number says.
sub _choose
{
	my (@weighted) = @_;
	my $sum = 0;

	$sum += $weighted[ 2 * $_ + 1 ] for 0 .. $#weighted / 2;
	my $dice = rand($sum);
	while (@weighted)
	{
		my ($what, $weight) = splice @weighted, 0, 2;

		return $what if ($dice -= $weight) < 0;
	}
	return;
}

sub _one_of { return $_[ int(rand(scalar @_)) ]; }

sub new
{
	my ($class, $seed, $points) = @_;
	my $self = bless { seed => $seed }, $class;

	srand($seed);
	$self->{keys} = _one_of(20, 100, 400);
	$self->{sessions} = 2 + int(rand(3));
	$self->{asynchronous} = int(rand(2));
	$self->{partitions} = _one_of(1, 2, 5);

	# too short for a broker that is asleep: then transactions are cut, and torn
	$self->{hasty_broker} = rand() < 0.15;
	$self->{settings} = {
		retention => _one_of(0, 0, 1, 2),
		max_transaction_events => _one_of(7, 50, 1000, 50000),
		poll_interval => _one_of(50, 1000),
		linger => _one_of(0, 0, 20),
		report_batch_events => _one_of(5, 500, 20000),
		transaction_timeout => $self->{hasty_broker} ? 2000 : 30000
	};
	$self->{failover} = rand() < 0.12;
	$self->{faults} = [ map { $self->_fault($points, 1) } 1 .. 1 + int(rand(4)) ];
	push @{ $self->{faults} }, _failover() if $self->{failover};
	# while the lineage is born
	$self->{early} = _one_of(qw(birth_recorded opened progress_read init_done tick_committed event_sent end_answered)) if rand() < 0.1;
	return $self;
}

sub _fault
{
	my ($self, $points, $may_nest) = @_;
	my $fault = { delay => rand(0.8) };
	my $kind = $fault->{kind} = _choose(
		point => $may_nest ? 14 : 0,
		kill_relay => 2, kill_reporter => 1, kill_session => 1,
		end_relay => 1, end_reporter => 1,
		stop_server => 2, restart_server => 0.5,
		kill_broker => 1, freeze_broker => 2,
		proxy => 5, cut => 1, reload => 1, pause => 1, switch => 2);

	if ($kind eq 'point')
	{
		$fault->{point} = _one_of(sort keys %$points);
		$fault->{action} = _choose(error => $points->{ $fault->{point} } ? 3 : 0, kill => 2, wait => 4);
		$fault->{nth} = $fault->{point} eq 'event_sent' ? 1 + int(rand(40)) : 1 + int(rand(1 + rand(4)));
		if ($fault->{point} =~ /^(opened|progress_read|init_done)$/)
		{
			$fault->{nth} = 1;
			$fault->{provoke} = { kind => _one_of('end_relay', 'reload'), delay => 0 };
		}
		# what happens while it stands there
		$fault->{meanwhile} = $self->_fault($points, 0) if $fault->{action} eq 'wait' && rand() < 0.6;
		$fault->{time} = rand(1.2);
	}
	elsif ($kind eq 'kill_broker' || $kind eq 'freeze_broker' || $kind eq 'pause')
	{
		$fault->{time} = $kind eq 'freeze_broker' ? rand($self->{hasty_broker} ? 4 : 1.5) : rand(1);
	}
	elsif ($kind eq 'proxy')
	{
		# Produce, Metadata, InitProducerId, AddPartitions, EndTxn, Fetch
		my $api = _choose(0 => 2, 3 => 1, 22 => 2, 24 => 2, 26 => 6, 1 => 1);
		my $rule = _choose('drop-response' => 4, 'close request' => 1, 'close response' => 1,
			'delay-request' => 3, 'delay-response' => 1, 'hold-request' => 2, 'hold-response' => 1);
		my $command = $rule =~ /^close (\w+)/ ? "close api=$api when=$1" : "$rule api=$api";

		$command .= ' ms=' . int(rand(1500)) if $rule =~ /^delay/;
		$command .= ' detach=1' if $rule eq 'delay-request' && rand() < 0.7;
		$command .= ' count=' . (1 + int(rand(2))) . ' skip=' . int(rand(3));
		$command .= $api == 3 || $api == 1 ? ' client=carshop_outbox' : ' producer=1';
		$fault->{command} = $command;
		$fault->{time} = rand(1.5);
	}
	elsif ($kind eq 'cut')
	{
		$fault->{command} = 'cut ' . _one_of('all', 'idle', 'producer');
	}
	return $fault;
}

sub _failover
{
	my $fault = { kind => 'failover', delay => rand(0.5), zombie => rand() < 0.5 };

	if (rand() < 0.5)
	{
		$fault->{point} = _one_of(qw(home_recorded opened init_done record_sent end_answered));
		$fault->{action} = _one_of('error', 'kill');
	}
	return $fault;
}

sub describe
{
	my ($self) = @_;
	my $settings = $self->{settings};

	return ($self->{early} ? "early error at $self->{early}, " : '') . "$self->{sessions} sessions on $self->{keys} keys, $self->{partitions} partitions, "
	  . join(', ', map { "$_=$settings->{$_}" } sort keys %$settings);
}

sub describe_fault
{
	my ($fault) = @_;
	my $text = sprintf('+%.2f s %s', $fault->{delay}, $fault->{kind});

	$text .= " $fault->{point}:$fault->{action}:" . ($fault->{nth} // 1) if $fault->{point};
	$text .= ", by $fault->{provoke}{kind}" if $fault->{provoke};
	$text .= " \"$fault->{command}\"" if $fault->{command};
	$text .= sprintf(' for %.2f s', $fault->{time}) if $fault->{time};
	$text .= ' with a zombie' if $fault->{zombie};
	$text .= ' (meanwhile ' . describe_fault($fault->{meanwhile}) . ')' if $fault->{meanwhile};
	return $text;
}

# ---- what a session does ----

# One transaction; its events carry the label.
sub _transaction
{
	my ($seed, $session, $number, $keys, $label) = @_;
	my $most = _choose(3 => 5, 20 => 4, $keys => 1);
	my $change = sub {
		my $n = 1 + int(rand($most));
		my $first = 1 + int(rand($keys - $n + 1));

		return "SELECT shop.change($first, $n, $label);\n";
	};
	my $begin = 'BEGIN' . _choose('' => 4, ' ISOLATION LEVEL REPEATABLE READ' => 1, ' ISOLATION LEVEL SERIALIZABLE' => 0.5) . ";\n";
	my $body = $change->();
	my $kind = _choose(plain => 6, rollback => 1, savepoints => 4, nested => 1, slow => 0.5, prepared => 1.5, lone => 2, switch => 0.7);

	$most = 20 if $most > 20;
	if ($kind eq 'lone')
	{
		return $change->();
	}
	elsif ($kind eq 'switch')
	{
		return "SELECT outbox.switch_segment();\n";
	}
	elsif ($kind eq 'savepoints')
	{
		$body = '' if rand() < 0.3;		# the first event is a subtransaction's
		foreach my $level (1 .. 1 + int(rand(3)))
		{
			$body .= "SAVEPOINT s$level;\n" . $change->();
			$body .= _choose("ROLLBACK TO s$level;\n" => 3, "RELEASE s$level;\n" => 2, '' => 1);
			$body .= $change->() if rand() < 0.5;
		}
	}
	elsif ($kind eq 'nested')
	{
		$body .= "DO \$\$ BEGIN PERFORM shop.change(1, 2, $label); RAISE 'no' USING ERRCODE = 'P0001'; EXCEPTION WHEN raise_exception THEN NULL; END \$\$;\n";
		$body .= $change->();
	}
	elsif ($kind eq 'slow')
	{
		$body .= sprintf("SELECT pg_sleep(%.2f);\n", rand(0.8)) . $change->();
	}
	elsif ($kind eq 'prepared')
	{
		my $name = "torture-$seed-$session-$number";
		my $later = _choose("COMMIT PREPARED '$name';\n" => 3, "ROLLBACK PREPARED '$name';\n" => 1, '' => 1);

		return ("${begin}${body}PREPARE TRANSACTION '$name';\n", $later);
	}
	return $begin . $body . ($kind eq 'rollback' ? "ROLLBACK;\n" : "COMMIT;\n");
}

# SQL for one call of psql.
sub script
{
	my ($seed, $session, $number, $keys) = @_;
	my ($text, @later) = ('');

	srand($seed * 1000 + $session * 101 + $number * 7919);
	foreach my $i (1 .. 3 + int(rand(6)))
	{
		my $label = (($seed % 100_000) * 100 + $session) * 100_000 + $number * 10 + $i;
		my ($now, $later) = _transaction($seed, $session, $number * 10 + $i, $keys, $label);

		$text .= $now;
		push @later, $later if $later;
		$text .= shift @later if @later && rand() < 0.5;
	}
	return $text . join('', @later);
}

1;
