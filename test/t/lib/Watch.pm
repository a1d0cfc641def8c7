# Somebody who looks at a database's status views all the time, and notes what
# they say: while something is broken they must be true as well.
#
#	my $watch = Watch->start($node, 'shop', 'relay', $file);
#	...
#	$watch->stop;
#	foreach my $look ($watch->looks($from, $to)) { ... }
#
# A look is { at, state, since, count, waiting, complaint }: times in seconds since
# the epoch; count: events published (relay) or applied (reporter), waiting: events
# that are not; complaint: every row of the status view that is not ok, in one line.

package Watch;

use strict;
use warnings;

use Carp qw(croak);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time);

# Several looks a second, by one session, so that looking costs little.
use constant PAUSE => 0.2;

my $status = q{(SELECT string_agg(concat_ws(': ', level, concern, message) || COALESCE(' -> ' || remedy, ''), ' / ')
	FROM %s WHERE level <> 'ok')};
my %query = (
	relay => q{SELECT extract(epoch FROM clock_timestamp()), state, extract(epoch FROM since), events_published, unconfirmed_events, }
	  . sprintf($status, 'outbox.status') . q{ FROM outbox.stat_relay},
	reporter => q{SELECT extract(epoch FROM clock_timestamp()), w.state, extract(epoch FROM w.since), s.applied, s.lag, }
	  . sprintf($status, 'report.status')
	  . q{ FROM report.worker() w, (SELECT sum(events_applied) AS applied, sum(lag) AS lag FROM report.stat_reporter) s});

sub start
{
	my ($class, $node, $database, $kind, $file) = @_;
	my $self = bless { file => $file }, $class;

	append_to_file("$file.sql", $query{$kind} =~ s/\s+/ /gr . ' \watch ' . PAUSE . "\n");
	$self->{session} = IPC::Run::start(
		[ $node->installed_command('psql'), '-XAtq', '-F', "\t", '-d', $node->connstr($database), '-f', "$file.sql" ],
		'<', \undef, '>', $file, '2>', "$file.err");
	return $self;
}

sub stop
{
	my ($self) = @_;
	my $session = delete $self->{session} or return;
	$session->kill_kill(grace => 5);
	return;
}

# What was seen from one time to another.
sub looks
{
	my ($self, $from, $to) = @_;
	my @looks;

	open(my $fh, '<', $self->{file}) or croak "$self->{file}: $!";
	while (my $line = <$fh>)
	{
		next if $line !~ s/\n\z//;
		my ($at, $state, $since, $count, $waiting, $complaint) = split /\t/, $line, 6;
		next if !defined $complaint || $at < $from || $at > $to;
		push @looks, {
			at => $at, state => $state, since => $since || 0, count => $count || 0,
			waiting => $waiting || 0, complaint => $complaint };
	}
	return @looks;
}

# What became of the looks, in one sentence for each that is new: the state, how
# long it was seen, and the complaint.
sub story
{
	my (@looks) = @_;
	my (@parts, $last);

	foreach my $look (@looks)
	{
		my $what = $look->{complaint} eq '' ? 'all is well' : "$look->{state}: $look->{complaint}";
		if (!@parts || $what ne $parts[-1]{what})
		{
			push @parts, { what => $what, from => $look->{at} };
		}
		$parts[-1]{to} = $look->{at};
	}
	return map { sprintf('%.1f s to %.1f s: %s', $_->{from} - $looks[0]{at}, $_->{to} - $looks[0]{at}, $_->{what}) } @parts;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	$self->stop;
	return;
}

1;
