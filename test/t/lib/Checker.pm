# The auditor: compares what a topic holds with what the shop committed.
#
# The truth is a table that the workload itself writes, in the same transaction
# as the change and never by the extension: (key, version, txn).  Every event of
# the workload carries the same three in its Data, so an event is known by (key,
# version) whatever happened to its id.
#
# audit() returns findings, each a line "kind: what":
#	unreadable	a message that is no event of the workload
#	lost		committed, not in the topic						(I1)
#	duplicate	an event or an event id more than once			(I2)
#	phantom		in the topic, never committed					(I3)
#	order		versions of a key do not grow by one each, or
#				a key lies in two partitions					(I4)
#	torn		a database transaction was not visible all at
#				once: see audit() and _check_reader()			(I6)
#	reader		what a reader saw that read all along differs
#	identity	the header id is not the event's id
# No finding means: exactly once, in order, untorn.

package Checker;

use strict;
use warnings;

use Carp qw(croak);
use Exporter qw(import);
use Test::More;

our @EXPORT_OK = qw(audit audit_ok audit_reports parse_event);

# Findings of one kind that are spelled out; the rest is only counted.
use constant MOST => 5;

# (key, version, txn, event id) of a message, or nothing.  A pattern and not a
# JSON parser: the wire format is exact, and a drain holds 200,000 of them.
sub parse_event
{
	my ($value) = @_;
	return if !defined $value;
	return
	  if $value !~ /^\{"EventType":"[^"]*","EventDescription":"(?:[^"\\]|\\.)*",
			"OccuredOn":"[-0-9T:.+]+","EventId":"([-0-9a-f]{36})","Key":"[^"]*",
			"Data":\{(?:[^{}]*,)?"key":(-?\d+),(?:"version":(\d+),"txn":(\d+)|"txn":(\d+),"version":(\d+))[,}]/x;
	return ($2, $3 // $6, $4 // $5, $1);	# jsonb has its own order of members
}

# audit(truth => {'key,version' => txn}, log => Reader, live => Reader)
#	log		everything that read_committed shows afterwards (Reader->read_all)
#	live	a reader that ran all along (optional)
#	taken_back	what a server had committed and published that was then lost, as
#			truth: its events count for nothing (optional)
#	whole	transactions with more events may be torn (optional; 0: all)
# Returns (\@findings, \%figures).
sub audit
{
	my (%arg) = @_;
	my $truth = $arg{truth};
	my (%found, @findings);
	my $note = sub {
		my ($kind, $text) = @_;
		push @findings, "$kind: $text" if ++$found{$kind} <= MOST;
	};
	my (%times, %ids, %partition_of, %last_version, %total);
	my (%next_offset, %run, %run_of);
	my ($events, $runs, $taken_back) = (0, 0, 0);
	my $large = _large($truth, $arg{whole});

	# Offset order within each partition is the order of reading.
	_each_event(
		$arg{log}, $note,
		sub {
			my ($partition, $offset, $id, $key, $version, $txn) = @_;
			my $name = "$key,$version";
			my $place = "partition $partition offset $offset";

			if (($truth->{$name} // -1) != $txn && ($arg{taken_back}{$name} // -1) == $txn)
			{
				$taken_back++;
				return;
			}
			$events++;
			if (!exists $truth->{$name})
			{
				$note->('phantom', "$name of txn $txn at $place");
			}
			elsif ($truth->{$name} != $txn)
			{
				$note->('phantom', "$name of txn $txn at $place, committed by txn $truth->{$name}");
			}
			$note->('duplicate', "$name again at $place") if $times{$name}++;
			$note->('duplicate', "id $id again at $place") if $ids{$id}++;

			my $home = $partition_of{$key} //= $partition;
			my $before = $last_version{$key} // 0;
			$note->('order', "key $key in partitions $home and $partition") if $home != $partition;
			$note->('order', "$name after version $before at $place") if $version != $before + 1;
			$last_version{$key} = $version;

			# Each Kafka transaction ends with a control record in every
			# partition that it wrote to, and a control record takes an offset.
			# With one producer and no compaction a gap in the offsets therefore
			# is the end of a transaction (or an aborted one), and none may lie
			# between two events of one database transaction: that finds every
			# tear, whether or not a reader was there at the right moment.
			if ($offset != ($next_offset{$partition} // -1))
			{
				$run{$partition}++;
				$runs++;
			}
			$next_offset{$partition} = $offset + 1;
			my $run = $run_of{"$partition,$txn"} // $run{$partition};
			$note->('torn', "txn $txn goes on in another Kafka transaction at $place")
			  if $run != $run{$partition} && !$large->{$txn};
			$run_of{"$partition,$txn"} = $run{$partition};
			$total{"$partition,$txn"}++;
		});
	foreach my $name (keys %$truth)
	{
		$note->('lost', "$name of txn $truth->{$name}") if !$times{$name};
	}

	my %figures = (
		committed => scalar keys %$truth,
		events => $events,
		kafka_transactions => $runs,
		database_transactions => scalar keys %total,
		taken_back => $taken_back);
	$figures{reader_ends} = _check_reader($arg{live}, \%ids, \%total, $large, $note) if $arg{live};
	foreach my $kind (sort keys %found)
	{
		push @findings, "$kind: $found{$kind} in all" if $found{$kind} > MOST;
	}
	return (\@findings, \%figures);
}

# One TAP test: no finding.  The figures go into the log.
sub audit_ok
{
	my ($name, %arg) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($findings, $figures) = audit(%arg);

	note("$name: " . join(', ', map { "$_ $figures->{$_}" } sort keys %$figures));
	my $ok = is(scalar @$findings, 0, $name);
	diag(join("\n", @$findings)) if !$ok;
	return $ok;
}

# The report side: the event log holds the topic's ids, each once and with its
# place, offsets stand behind what was applied, and a report that sums them up
# equals the direct computation over the truth.
#	events	['id|partition|offset', ...] of report.reported_events
#	offsets	['partition|next offset', ...] of report.progress
#	log		as in audit
#	sums	[row, ...] of the report's table as text, in some order
#	direct	the same rows computed from the truth, in the same order
sub audit_reports
{
	my (%arg) = @_;
	my (%ids, %newest, %end, %stored, @findings, @elsewhere);

	_each_event(
		$arg{log}, sub { },
		sub {
			my ($partition, $offset, $id) = @_;
			$ids{$id} = "$partition|$offset";
			$newest{$partition} = $offset;
		},
		sub { $end{ $_[0] } = $_[1] });
	foreach my $event (@{ $arg{events} })
	{
		my ($id, $place) = split /\|/, $event, 2;
		$stored{$id}++;
		push @elsewhere, $id if ($ids{$id} // $place) ne $place;
	}
	my @missing = grep { !$stored{$_} } keys %ids;
	my @extra = grep { !$ids{$_} } keys %stored;
	my @twice = grep { $stored{$_} > 1 } keys %stored;
	push @findings, 'report: lacks ' . @missing . " events, e.g. $missing[0]" if @missing;
	push @findings, 'report: holds ' . @extra . " events not in the topic, e.g. $extra[0]" if @extra;
	push @findings, 'report: holds ' . @twice . " events twice, e.g. $twice[0]" if @twice;
	push @findings, 'report: holds ' . @elsewhere . " events with another place, e.g. $elsewhere[0]" if @elsewhere;
	foreach my $stored (@{ $arg{offsets} // [] })
	{
		my ($partition, $next) = split /\|/, $stored;
		push @findings, "report: goes on at offset $next of partition $partition, which ends at $end{$partition}"
		  if $next > ($end{$partition} // 0);
		push @findings, "report: goes on at offset $next of partition $partition, although $newest{$partition} is applied"
		  if defined $newest{$partition} && $next <= $newest{$partition};
	}

	my @sums = @{ $arg{sums} // [] };
	my @direct = @{ $arg{direct} // [] };
	my ($wrong) = grep { ($sums[$_] // 'nothing') ne ($direct[$_] // 'nothing') }
	  0 .. (@sums > @direct ? $#sums : $#direct);
	push @findings, sprintf('report: sum %s instead of %s',
		$sums[$wrong] // 'nothing', $direct[$wrong] // 'nothing')
	  if defined $wrong;
	return \@findings;
}

# ---------------------------------------------------------------------------

# The transactions that may be torn, as a hash.
sub _large
{
	my ($truth, $whole) = @_;
	my %events;

	return {} if !defined $whole;
	$events{$_}++ foreach values %$truth;
	return { map { $_ => 1 } grep { $events{$_} > $whole } keys %events };
}

# Call a function for each message that is an event of the workload: partition,
# offset, id, key, version, txn.
sub _each_event
{
	my ($reader, $note, $function, $at_end) = @_;

	$reader->each(
		sub {
			my ($kind, $ms, $partition, $offset, $header, $message_key, $value) = @_;

			if ($kind eq 'E')
			{
				$at_end->($partition, $offset) if $at_end;
				return;
			}
			if ($kind ne 'M')
			{
				$note->('reader', "error in partition $partition: $offset");
				return;
			}
			my ($key, $version, $txn, $id) = parse_event($value);
			if (!defined $key)
			{
				$note->('unreadable', "partition $partition offset $offset: $value");
				return;
			}
			$note->('identity', "header id $header of event $id") if $header ne $id;
			$function->($partition, $offset, $id, $key, $version, $txn);
		});
	return;
}

# A reader that read all along: every event once, and whenever it stood at the
# end of a partition, each database transaction was there as a whole or not at
# all.  Returns how many such moments there were.
sub _check_reader
{
	my ($live, $expected, $total, $large, $note) = @_;
	my (%seen, %open, %ids);
	my $ends = 0;

	_each_event(
		$live, $note,
		sub {
			my ($partition, $offset, $id, $key, $version, $txn) = @_;
			my $group = "$partition,$txn";

			$note->('reader', "id $id seen twice, again at partition $partition offset $offset")
			  if $ids{$id}++;
			$note->('reader', "id $id seen at partition $partition offset $offset, not there afterwards")
			  if !$expected->{$id};
			if (++$seen{$group} == ($total->{$group} // 0))
			{
				delete $open{$partition}{$txn};
			}
			else
			{
				$open{$partition}{$txn} = 1;
			}
		},
		sub {
			my ($partition, $offset) = @_;

			$ends++;
			foreach my $txn (keys %{ $open{$partition} // {} })
			{
				my $group = "$partition,$txn";

				next if $large->{$txn};
				$note->('torn', "a reader at the end of partition $partition (offset $offset) had seen "
					  . "$seen{$group} of " . ($total->{$group} // 0) . " events of txn $txn");
			}
		});
	foreach my $id (keys %$expected)
	{
		$note->('reader', "id $id never seen") if !$ids{$id};
	}
	return $ends;
}

1;
