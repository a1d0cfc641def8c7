# What somebody sets must not break a promise.  A reload that turns synchronous
# commits off leaves the relay's ticks synchronous: what Kafka shows is on the
# disk, and a crash takes none of it back.  Whatever a database's owner sets for
# it, publishing and reporting go on, and one bad message harms nobody.  A reload
# that changes nothing of the connection leaves the reporter's Kafka handle alone.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my $kafka = Carshop::Kafka->start;
# The WAL is flushed by those who wait for it, and by nobody else.
my $node = Carshop->new_node('settings', kafka => $kafka,
	conf => { 'wal_writer_delay' => '10s', 'wal_writer_flush_after' => '1GB',
		'wal_level' => 'replica', 'max_wal_senders' => 4, '.allowed_topics' => 'probe' });
$node->start;
create_shop($node, 'shop', reports => 0);
$node->safe_psql('shop', q{
	CREATE TABLE public.picky (event_type text PRIMARY KEY CHECK (event_type <> 'Bad'), n integer);
	SELECT report.start();
	SELECT report.define('picky', 'INSERT INTO public.picky AS t SELECT event_type, count(*) FROM new_events GROUP BY 1
		ON CONFLICT (event_type) DO UPDATE SET n = t.n + excluded.n', 'public.picky')});

my %pid;

sub know_workers
{
	%pid = map { $_ => wait_for_worker($node, $_, 'shop', $_[0] ? $pid{$_} : undef) } qw(relay reporter);
}
know_workers();

sub set
{
	my (%settings) = @_;

	$node->safe_psql('postgres', join '', map { "ALTER SYSTEM SET $_ = '$settings{$_}';\n" } keys %settings);
	$node->reload;
}

# The relay has read the settings again when its events come from another source.
my $sources = 0;

sub set_in_the_relay
{
	my $source = 'urn:reload:' . ++$sources;

	set(@_, 'carshop_outbox.event_source' => $source);
	poll_until(
		sub {
			$node->safe_psql('shop', q{SELECT outbox.emit('Probe', topic => 'probe', format => 'cloudevents'); SELECT outbox.wait_published('30s')});
			my @probes = $kafka->read_topic('probe');
			return @probes && $probes[-1]->{value} =~ /"source":"\Q$source\E"/;
		}, 60, 'the relay reads its settings again');
}

# ---- synchronous_commit ----

set_in_the_relay('synchronous_commit' => 'off');
my $flushed = 0;
foreach my $number (1 .. 20)
{
	my $answer = $node->safe_psql('shop', qq{
		BEGIN;
		INSERT INTO "Cars" VALUES ($number, NULL);
		SELECT pg_current_wal_insert_lsn() AS here \\gset
		COMMIT;
		SELECT outbox.wait_published('30s') AS published \\gset
		SELECT :'published', pg_current_wal_flush_lsn() >= :'here'::pg_lsn});
	$flushed++ if $answer eq 't|t';
}
is($flushed, 20, 'synchronous_commit = off: what is published has been flushed');
$node->stop('immediate');
my @in_kafka = map { $_->{headers}{id} } $kafka->read_topic($topic);
$node->start;
know_workers();
is(query_value($node, 'shop', sprintf 'SELECT count(*) FROM unnest(%s) id WHERE id NOT IN (SELECT id FROM outbox.event)',
		"'{" . join(',', @in_kafka) . "}'::uuid[]"), 0, 'and a crash has taken none of it back');

# A weaker setting than the disk of a standby, with a standby that never answers.
set('synchronous_commit' => 'local', 'synchronous_standby_names' => 'nobody');
poll_until(sub { query_value($node, 'postgres', 'SHOW synchronous_standby_names') eq 'nobody' }, 30, 'the reload');
poll_until(
	sub {
		$node->safe_psql('shop', q{SELECT outbox.emit('Waits')});
		(query_value($node, 'postgres', "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid{relay}") // '') eq 'SyncRep';
	}, 30, 'the relay waits for the standby');
pass('synchronous_commit = local: the relay waits for a synchronous standby all the same');
# Else whoever wants a segment for himself would wait behind it, and all writers behind him.
is(query_value($node, 'shop', qq{
	SELECT count(*) FROM pg_locks WHERE pid = $pid{relay} AND relation::regclass::text LIKE 'outbox.event_%'}), 0, 'it holds no lock on a segment meanwhile');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names; ALTER SYSTEM RESET synchronous_commit');
$node->reload;
is(query_value($node, 'shop', q{SELECT outbox.wait_published('60s')}), 't', 'without the standby it goes on');

# ---- what an owner can set ----

$node->safe_psql('postgres', 'CREATE ROLE keeper; ALTER DATABASE shop OWNER TO keeper');
my @user = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres', q{
	SELECT name, vartype, boot_val, min_val, max_val, enumvals[1], enumvals[array_upper(enumvals, 1)]
	  FROM pg_settings WHERE context = 'user' AND name NOT LIKE 'carshop%' AND vartype <> 'string' ORDER BY name});
my %texts = ('client_encoding' => 'LATIN1', 'DateStyle' => 'German, DMY', 'TimeZone' => 'Asia/Kathmandu',
	'search_path' => 'public', 'role' => 'keeper', 'session_authorization' => 'keeper', 'restrict_nonsystem_relation_kind' => 'view, foreign-table');

# Test sessions do without them.
my @options = map { "-c $_->[0]=" . ($_->[2] =~ s/ /\\ /gr) } grep { $_->[2] ne '' && $_->[0] !~ /^transaction_(?!timeout)/ } @user;
push @options, '-c session_authorization=' . query_value($node, 'postgres', 'SELECT current_user'), '-c role=none', '-c search_path=public', '-c client_encoding=UTF8', '-c DateStyle=ISO', '-c TimeZone=UTC';
push @options, '-c restrict_nonsystem_relation_kind='
  if query_value($node, 'postgres', q{SELECT 1 FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'});

sub hostile
{
	my ($round) = @_;
	my %set = %texts;

	foreach my $setting (@user)
	{
		my ($name, $type, $boot, $min, $max, $first, $last) = @$setting;

		$set{$name} =
			$type eq 'bool' ? ($boot eq 'on' ? 'off' : 'on')
		  : $type eq 'enum' ? ($round == 1 ? $last : $first)
		  : $round == 1 ? ($min > 1 ? $min : 1)
		  : $max;
	}
	return %set;
}

foreach my $round (1, 2)
{
	my %set = hostile($round);
	my $from = -s $node->logfile;
	# As the owner, who may set them; what this release does not know is left out.
	my $statements = join '', map { sprintf "BEGIN ALTER DATABASE shop SET %s = '%s'; n := n + 1;\n"
		. "EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%s: %%', SQLERRM; END;\n", $_, $set{$_}, $_ } sort keys %set;
	my ($status, $output, $refused) = $node->psql('postgres', 'SET SESSION AUTHORIZATION keeper;'
		. "DO \$\$ DECLARE n integer := 0; BEGIN $statements ASSERT n > 100; END \$\$");

	is($status, 0, "owner's settings $round: they are set");
	note($refused);
	$node->reload;
	know_workers('others');

	local $ENV{PGOPTIONS} = join ' ', @options;
	$node->safe_psql('shop', qq{INSERT INTO "Cars" VALUES (100 + $round, NULL); SELECT outbox.emit('Bad'), outbox.emit('Good')});
	poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, 'it is published');
	pass("owner's settings $round: events are published");
	poll_until(sub { (query_value($node, 'shop', q{SELECT n FROM public.picky WHERE event_type = 'Good'}) // 0) == $round }, 60,
		'it is applied');
	pass("owner's settings $round: events are applied");
	poll_until(sub { query_value($node, 'shop', q{SELECT count(*) FROM report.dead_letters WHERE report = 'picky'}) == $round }, 60,
		'the bad one is a dead letter');
	pass("owner's settings $round: the bad one is a dead letter");
	foreach my $kind ('relay', 'reporter')
	{
		is((worker_pids($node, $kind, 'shop'))[0], $pid{$kind}, "owner's settings $round: the $kind still runs");
	}
	my @lines = grep { /\] carshop_outbox \w+ (shop )?+(ERROR|FATAL|LOG: +(begin|parse|plan|rewritten|query))/ }
	  split /\n/, substr(slurp_file($node->logfile), $from);
	is_deeply(\@lines, [], "owner's settings $round: the workers log nothing of it");
}
$node->safe_psql('postgres', 'ALTER DATABASE shop RESET ALL');
$node->reload;
know_workers('others');

# ---- a reload and the reporter's handle ----

# The threads of the Kafka client tell one handle from another: that of the reader,
# and that which shows its offsets.
sub handle_threads
{
	my @threads;

	foreach my $file (glob "/proc/$pid{reporter}/task/*/comm")
	{
		push @threads, $file =~ m{task/(\d+)/} if slurp_file($file) =~ /^rdk:main/;
	}
	return join ' ', sort @threads;
}

# The topics that the reporter itself reads: what it does not is shown without an end.
sub reading
{
	return $node->safe_psql('shop', q{SELECT string_agg(topic, ',' ORDER BY topic) FROM report.stat_reporter WHERE state = 'current' AND high_watermark IS NOT NULL});
}

my $file = $node->basedir . '/kafka.properties';
append_to_file($file, "client.id=one\n");
chmod 0600, $file or die;
set('carshop_outbox.kafka_config_file' => $file);
my $threads;
poll_until(sub { reading() eq $topic && ($threads = handle_threads()) =~ /^\d+ \d+$/ }, 60, 'the reporter reads');

# Each change of the topics is a reload that the reporter has surely seen.
set('carshop_outbox.report_topics' => qq("$topic", probe), 'carshop_outbox.linger' => '1ms');
poll_until(sub { reading() eq "$topic,probe" }, 60, 'it reads another topic as well');
is(handle_threads(), $threads, 'a reload that changes other things keeps the Kafka handle');

append_to_file($file, "socket.keepalive.enable=false\n");
set('carshop_outbox.report_topics' => $topic);
poll_until(sub { reading() eq $topic && handle_threads() =~ /^\d+ \d+$/ }, 60, 'it reads one topic');
is($node->safe_psql('shop', q{SELECT state FROM report.stat_reporter WHERE topic = 'probe'}), 'not read', 'the other one is said not to be');
isnt(handle_threads(), $threads, 'a file with other properties makes another handle');

no_crash($node);
$node->stop;
done_testing();
