# The shop of the fault tests, its truth, and sessions that work in it.
#
# shop.stock holds rows with a version counter; a route makes an event of each
# update.  shop.truth is written by hand in the same transaction: what is in it
# after the storm is what was committed, whatever a session was told.  Each
# transaction changes a run of rows and marks them with a label of its own, txn: a
# transaction id could be used again after a crash.  Some transactions roll back,
# some roll back a part.

package Workload;

use strict;
use warnings;

use Carp qw(croak);
use PostgreSQL::Test::Utils;
use POSIX ();
use Time::HiRes qw(time usleep);

use constant KEYS => 500;

my $schema = q{
CREATE SCHEMA shop;
CREATE TABLE shop.stock (key integer PRIMARY KEY, version integer NOT NULL, txn bigint NOT NULL, note text);
CREATE TABLE shop.truth (key integer, version integer, txn bigint NOT NULL, PRIMARY KEY (key, version));

-- change the rows first .. first + n - 1; locks in one order, so no deadlock
CREATE FUNCTION shop.change(first integer, n integer, label bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM shop.stock WHERE key >= first AND key < first + n ORDER BY key FOR UPDATE;
	WITH changed AS (
		UPDATE shop.stock SET version = version + 1, txn = label
		WHERE key >= first AND key < first + n
		RETURNING key, version, txn)
	INSERT INTO shop.truth SELECT key, version, txn FROM changed;
END
$$;

-- 1 to most rows per transaction; 1 in 20 rolls back, 1 in 10 a part of it
CREATE PROCEDURE shop.work(transactions integer, most integer)
LANGUAGE plpgsql AS $$
DECLARE
	keys integer := (SELECT count(*) FROM shop.stock);
	n integer;
	first integer;
	label bigint;
	dice float8;
BEGIN
	FOR i IN 1 .. transactions LOOP
		n := 1 + floor(random() * most);
		first := 1 + floor(random() * (keys - n + 1));
		label := ('x' || left(md5(gen_random_uuid()::text), 13))::bit(52)::bigint;
		dice := random();
		PERFORM shop.change(first, n, label);
		IF dice < 0.1 THEN
			BEGIN
				PERFORM shop.change(first, n, label);
				RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = 'no';
			EXCEPTION WHEN raise_exception THEN
				NULL;
			END;
		END IF;
		IF dice > 0.95 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END
$$;
};

# Make the shop in a database that has the extension.
sub install
{
	my ($node, $database, %arg) = @_;
	my $keys = $arg{keys} // KEYS;

	$node->safe_psql($database, $schema);
	$node->safe_psql($database,
		"INSERT INTO shop.stock SELECT key, 0, 0, repeat('x', key % 100) FROM generate_series(1, $keys) AS key");
	$node->safe_psql($database,
		"SELECT outbox.capture('shop.stock', 'StockChanged', operations => 'update', key => '{key}')");
	return;
}

# What was committed, as the auditor wants it: 'key,version' => txn.
sub truth
{
	my ($node, $database) = @_;
	my %truth;

	my $rows = $node->safe_psql($database, q{SELECT key || ',' || version, txn FROM shop.truth});
	foreach my $row (split /\n/, $rows)
	{
		my ($name, $txn) = split /\|/, $row;
		$truth{$name} = $txn;
	}
	return \%truth;
}

# A session's worth of work in the foreground: about so many events.
sub work
{
	my ($node, $database, %arg) = @_;
	my $most = $arg{most} // 40;
	my $transactions = int($arg{events} / ($most + 1) * 2) + 1;
	my $sessions = $arg{sessions} // 2;

	my @writers = map {
		Workload->start($node, $database, most => $most, seed => $arg{seed} + $_ * 100_000,
			transactions => int($transactions / $sessions) + 1)
	} 1 .. $sessions;
	$_->wait foreach @writers;
	return;
}

# A session in the background: works until it has tried so many transactions
# (none given: until it is stopped), and begins anew when its connection breaks.
#	seed => number, most => rows per transaction, chunk => transactions per call,
#	asynchronous => with synchronous_commit off, pause => seconds between calls
sub start
{
	my ($class, $node, $database, %arg) = @_;
	my $self = bless {}, $class;
	my $psql = $node->installed_command('psql');
	my $connstr = $node->connstr($database);
	my $options = $arg{asynchronous} ? '-c synchronous_commit=off' : '';

	my $parent = $$;
	my $pid = fork();
	croak "fork: $!" if !defined $pid;
	if ($pid == 0)
	{
		my $stop = 0;
		my $left = $arg{transactions};
		my $chunk = $arg{chunk} // 200;
		my $most = $arg{most} // 40;
		my $seed = $arg{seed} // 0;

		local $SIG{TERM} = sub { $stop = 1; };
		local $ENV{PGOPTIONS} = $options;
		open(STDOUT, '>', '/dev/null');
		open(STDERR, '>', '/dev/null');
		while (!$stop && getppid() == $parent && (!defined $left || $left > 0))
		{
			my $now = defined $left && $left < $chunk ? $left : $chunk;
			my $start = abs(sin(++$seed));		# setseed wants -1 .. 1
			my $status = system($psql, '-X', '-q', '-d', $connstr, '-v', 'ON_ERROR_STOP=1',
				'-c', "SELECT setseed($start)", '-c', "CALL shop.work($now, $most)");

			$left -= $now if defined $left && $status == 0;
			usleep(50_000) if $status != 0;
			usleep($arg{pause} * 1_000_000) if $arg{pause};
		}
		POSIX::_exit(0);
	}
	$self->{pid} = $pid;
	return $self;
}

sub wait
{
	my ($self) = @_;
	my $pid = delete $self->{pid} or return;
	waitpid($pid, 0);
	return;
}

# Let it finish what it is at.
sub stop
{
	my ($self) = @_;
	kill 'TERM', $self->{pid} if $self->{pid};
	return $self->wait;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	$self->stop;
	return;
}

1;
