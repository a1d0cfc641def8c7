# A test for each promise that can fail: one build of the extension knows a
# setting that breaks one promise on purpose (src/mutants.h).  Each of the small
# tests below asks whether a promise is held: unharmed it is, with its mutant it
# is not.
#
# A mutant is given some seconds in which an unharmed build would long have done
# what it ought to.  CARSHOP_TEST_MUTANT is a pattern of those to try;
# CARSHOP_TEST_MUTANTS=0 leaves it out; needs the sources beside the tests.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Faults;
use Mutants;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

plan skip_all => Mutants::missing() if Mutants::missing();

my $kafka = Carshop::Kafka->start;
my $stage = PostgreSQL::Test::Utils::tempdir() . '/stage.conf';
append_to_file($stage, Mutants::conf('', '-DHASTE'));
local $ENV{CARSHOP_CONF} = $stage;
my $node = Carshop->new_node(
	'promises',
	kafka => $kafka,
	conf => {
		'restart_after_crash' => 'on',
		# nothing but the shops writes
		'autovacuum' => 'off',
		'.max_databases' => '64',
		'.poll_interval' => '60s' });
$node->start;

my ($shops, $patience) = (0, 60);

# A database with relay, reporter, topic and report of its own; the settings too.
sub shop
{
	my (%settings) = @_;
	my $name = 'shop' . ++$shops;
	my %all = (shop_databases => $name, report_databases => $name, topic => $name, report_topics => $name, %settings);

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION carshop_outbox; SELECT report.start()');
	$node->safe_psql('postgres', join('', map { "ALTER SYSTEM SET carshop_outbox.$_ = '$all{$_}';\n" } sort keys %all) . 'SELECT pg_reload_conf()');
	$node->safe_psql($name, q{SELECT outbox.emit('First')});
	poll_until(sub { ask($name, q{SELECT outbox.wait_published('5s')}) eq 't' }, 60, 'the first event is published');
	return $name;
}

# The answer, or '' when there is none now.
sub ask
{
	my ($database, $query) = @_;
	my ($status, $answer) = $node->psql($database, $query);

	return $status == 0 ? $answer : '';
}

# Does it become so, while there is patience?
sub becomes
{
	my ($condition, $seconds) = @_;
	my $deadline = time + ($seconds // $patience);

	while (time < $deadline)
	{
		return 1 if $condition->();
		usleep(50_000);
	}
	return 0;
}

# Is there an event of the type in the topic?
sub published
{
	my ($shop, $type) = @_;
	return scalar grep { index($_->{value}, "\"EventType\":\"$type\"") >= 0 } $kafka->read_topic($shop);
}

# From here to the crash a commit that does not wait for the disk does not get
# there: who would write it stands still.
sub nothing_flushes
{
	my @writers = split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type IN ('walwriter', 'checkpointer')});

	die 'WAL writer or checkpointer is missing' if kill('STOP', @writers) != 2;
	return;
}

# ---- each: is the promise held? ----

my %held = (
	# I1: a transaction that was under way when a later one was published
	skip_late => sub {
		my $shop = shop();
		my $session = $node->background_psql($shop);

		$session->query_safe(q{BEGIN; SELECT outbox.emit('Late')});
		$node->safe_psql($shop, q{SELECT outbox.emit('Early')});
		return 'nothing was published' if !becomes(sub { published($shop, 'Early') });
		$session->query_safe('COMMIT');
		$session->quit;
		return becomes(sub { published($shop, 'Late') });
	},

	# I3: what Kafka shows is still there after a crash
	lazy_tick => sub {
		my $shop = shop(report_databases => '');

		nothing_flushes();
		$node->safe_psql($shop, q{SET synchronous_commit = off; SELECT outbox.emit('Phantom')});
		poll_until(sub { published($shop, 'Phantom') }, 60, 'it is published');
		$node->stop('immediate');
		$node->start;
		return $node->safe_psql($shop, q{SELECT count(*) FROM outbox.event WHERE type = 'Phantom'}) == 1;
	},

	# I4: the order of commit is the order of seq
	cached_seq => sub {
		my $shop = shop();
		my @sessions = map { $node->background_psql($shop) } 1 .. 2;

		foreach my $n (1 .. 4)
		{
			$sessions[ $n % 2 ]->query_safe("SELECT outbox.emit('E$n')");
		}
		$_->quit foreach @sessions;
		return $node->safe_psql($shop, q{SELECT string_agg(type, ' ' ORDER BY seq) FROM outbox.event WHERE type ~ '^E'}) eq 'E1 E2 E3 E4';
	},

	# I6: between two transactions a Kafka transaction ends with a control record,
	# which takes an offset; inside of one none does
	cut_anywhere => sub {
		my $shop = shop(max_transaction_events => 3);

		$node->safe_psql($shop, 'SELECT outbox.pause()');
		$node->safe_psql($shop, "SELECT outbox.emit('T$_') FROM generate_series(1, $_)") foreach 2, 3;
		$node->safe_psql($shop, 'SELECT outbox.resume()');
		poll_until(sub { $kafka->read_topic($shop) == 6 }, 60, 'all are published');
		my @offsets = map { $_->{offset} } grep { $_->{value} =~ /"EventType":"T3"/ } $kafka->read_topic($shop);
		return $offsets[2] - $offsets[0] == 2;
	},

	# I2: what a report has written is not written again when it is made anew
	loud_rebuild => sub {
		my $shop = shop();

		$node->safe_psql($shop, q{
			CREATE TABLE counted (id uuid);
			SELECT report.define('counted', $$
				INSERT INTO public.counted SELECT outbox.emit('Counted', caused_by => id) FROM new_events WHERE event_type = 'Order'
				$$, 'counted');
			SELECT outbox.emit('Order')});
		poll_until(sub { published($shop, 'Counted') }, 60, 'it is published');
		$node->safe_psql($shop, q{SELECT report.rebuild('counted')});
		$node->safe_psql($shop, q{SELECT outbox.wait_published('30s')});
		return published($shop, 'Counted') == 1;
	},

	# I1: in a batch whose events came through different reports, a route's event is of one of them
	mixed_causes => sub {
		my $shop = shop();
		my $reported = sub { ask($shop, "SELECT count(*) FROM report.reported_events WHERE event_type = '$_[0]'") };

		$node->safe_psql($shop, q{
			CREATE TABLE tagged (id uuid);
			CREATE TABLE items (key text PRIMARY KEY);
			SELECT outbox.capture('items', 'Out');
			SELECT report.define('tag', $$
				INSERT INTO public.tagged SELECT outbox.emit('In', key => 'tagged', caused_by => id) FROM new_events WHERE event_type = 'Seed'
				$$, 'tagged');
			SELECT report.define('item', $$
				INSERT INTO public.items SELECT event_key FROM new_events WHERE event_type = 'In'
				$$, 'items');
			SELECT report.disable('item'), outbox.emit('Seed')});
		return 'no event' if !becomes(sub { $reported->('In') == 1 });
		$node->safe_psql($shop, q{SELECT outbox.emit('In', key => 'plain')});
		return 'no second event' if !becomes(sub { $reported->('In') == 2 });
		$node->safe_psql($shop, q{SELECT report.enable('item')});
		return 'no row' if !becomes(sub { $reported->('Out') == 2 });
		return $node->safe_psql($shop, q{
			SELECT string_agg(event_key || ' ' || regexp_replace(headers->>'caused-by-report', '@[-0-9a-f]*', '', 'g'), '; ' ORDER BY event_key)
			FROM report.reported_events WHERE event_type = 'Out'}) eq 'plain item; tagged tag,item';
	},

	# I8: what a report makes of an event is not given to it, to make it again
	loops => sub {
		my $shop = shop();
		my $reported = sub { ask($shop, "SELECT count(*) FROM report.reported_events WHERE event_type = '$_[0]'") };

		$node->safe_psql($shop, q{
			CREATE TABLE echo (id uuid);
			SELECT report.define('echo', $$
				INSERT INTO public.echo SELECT outbox.emit('Echo', caused_by => id) FROM new_events WHERE event_type IN ('Call', 'Echo')
				$$, 'echo');
			SELECT outbox.emit('Call')});
		return 'no echo' if !becomes(sub { $reported->('Echo') >= 1 });
		# what the echo has caused comes before this one
		$node->safe_psql($shop, q{SELECT outbox.emit('Mark')});
		return 'no mark' if !becomes(sub { $reported->('Mark') >= 1 });
		return $reported->('Echo') == 1;
	},

	# I8: what is in Kafka leaves
	never_empty => sub {
		my $shop = shop(retention => 0, poll_interval => '100ms');
		my $blocks = q{SELECT sum(pg_relation_size('outbox.event_' || n)) FROM generate_series(0, 2) n};

		return becomes(
			sub {
				# in time the segments are switched by themselves
				$node->safe_psql($shop, q{SELECT outbox.emit('More')}) if rand() < 0.1;
				ask($shop, $blocks) eq '0';
			});
	},

	# I9: a transaction that does nothing holds up nobody
	horizon => sub {
		my $shop = shop();
		my $session = $node->background_psql($shop);

		$session->query_safe('BEGIN; SELECT pg_current_xact_id()');
		$node->safe_psql($shop, q{SELECT outbox.emit('Other')});
		my $held = becomes(sub { published($shop, 'Other') });
		$session->query_safe('COMMIT');
		$session->quit;
		return $held;
	},

	# I9, and a commit is noticed
	lost_wake => sub {
		my $shop = shop();

		$node->safe_psql($shop, q{SELECT outbox.emit('Noticed')});
		return becomes(sub { published($shop, 'Noticed') });
	},

	# I10: offsets and rows, both or neither
	offsets_apart => sub {
		my $shop = shop();

		poll_until(sub { ask($shop, q{SELECT report.wait_applied(timeout => '5s')}) eq 't' }, 60, 'it is read');
		Faults::arm($node, 'log_stored', 'error');
		$node->safe_psql($shop, q{SELECT outbox.emit('Counted')});
		poll_until(sub { Faults::struck($node, 'log_stored', 1) }, 60, 'reading was disturbed');
		return becomes(sub { ask($shop, q{SELECT count(*) FROM report.reported_events WHERE event_type = 'Counted'}) eq '1' });
	},

	# I10: an event that a report refused, and takes later, is older all the same
	last_come => sub {
		my $shop = shop();
		my $query = q{SELECT event_type AS type, report.latest(data ->> 'note') AS note, sum(%s) AS n FROM new_events WHERE event_type = 'Paid' GROUP BY 1};
		my $define = sub { $node->safe_psql($shop, q{SELECT report.define_select('paid', $q$} . sprintf($query, $_[0]) . q{$q$, 'public.paid')}) };
		my $letters = sub { ask($shop, 'SELECT count(*) FROM report.dead_letters') };

		$define->(q{(data ->> 'n')::int});
		$node->safe_psql($shop, q{SELECT outbox.emit('Paid', '{"n": "one", "note": "first"}')});
		$node->safe_psql($shop, q{SELECT outbox.emit('Paid', '{"n": "2", "note": "last"}')});
		poll_until(sub { $letters->() eq '1' && ask($shop, 'SELECT n FROM public.paid') eq '2' }, 60, 'one is refused, one taken');
		$define->(q{length(data ->> 'n')});
		$node->safe_psql($shop, 'SELECT report.retry()');
		poll_until(sub { $letters->() eq '0' }, 60, 'the other is taken later');
		return ask($shop, 'SELECT note, n FROM public.paid') eq 'last|5';
	},

	# I11: an event that Kafka refuses is set aside, and the next one published
	refused_stays => sub {
		my $shop = shop();

		$kafka->tool('kafka.admin.ConfigCommand', qw(--alter --entity-type topics --entity-name), $shop, '--add-config', 'max.message.bytes=2000');
		$node->safe_psql($shop, q{SELECT outbox.emit('Wide', to_jsonb((SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n)))});
		$node->safe_psql($shop, q{SELECT outbox.emit('Next')});
		return becomes(sub { published($shop, 'Next') });
	},

	# I11: a message that cannot be read is set aside, and the next one counted
	bad_message => sub {
		my $shop = shop();

		$kafka->produce($shop, 'no JSON');
		$node->safe_psql($shop, q{SELECT outbox.emit('Next')});
		return becomes(sub { ask($shop, q{SELECT count(*) FROM report.reported_events WHERE event_type = 'Next'}) eq '1' });
	},

	# I10: the group shows what a crash leaves
	eager_group => sub {
		my $shop = shop();
		my $group = $node->safe_psql($shop, qq(SELECT 'carshop-report-' || system_identifier || '-$shop' FROM pg_control_system()));
		my $next = 'SELECT next_offset FROM report.progress';
		my $shown = 0;

		poll_until(sub { ask($shop, q{SELECT report.wait_applied(timeout => '5s')}) eq 't' }, 60, 'it is read');
		$node->safe_psql('postgres', q{ALTER SYSTEM SET carshop_outbox.shop_databases = ''; SELECT pg_reload_conf()});
		poll_until(sub { !worker_pids($node, 'relay', $shop) }, 60, 'the relay has left');
		$node->safe_psql('postgres', 'CHECKPOINT');
		nothing_flushes();
		my $before = $node->safe_psql($shop, $next);
		$kafka->produce($shop, '{"EventType":"Shown","EventDescription":"d","OccuredOn":"2026-11-22T20:27:03Z"}');
		becomes(
			sub {
				my $text = $kafka->tool('org.apache.kafka.tools.consumer.group.ConsumerGroupCommand', '--describe', '--group', $group);
				$shown = $text =~ /\s\Q$shop\E\s+0\s+(\d+)\s/ ? $1 : 0;
				return $shown > $before;
			},
			8);	# nothing is to be shown: who is patient waits in vain
		$node->stop('immediate');
		$node->append_conf('postgresql.auto.conf', "carshop_outbox.report_databases = ''");
		$node->start;
		return $node->safe_psql($shop, $next) >= $shown;
	},

	# I2: what has left the event log is not counted again
	recount => sub {
		my $shop = shop();

		poll_until(sub { ask($shop, q{SELECT report.wait_applied(timeout => '5s')}) eq 't' }, 60, 'it is read');
		$node->safe_psql('postgres', q{ALTER SYSTEM SET carshop_outbox.report_retention = '1s'; SELECT pg_reload_conf()});
		poll_until(sub { ask($shop, 'SELECT count(*) FROM report.reported_events') eq '0' }, 60, 'the log is empty');
		$node->safe_psql('postgres', 'ALTER SYSTEM RESET carshop_outbox.report_retention; SELECT pg_reload_conf()');
		# Kafka's times are the shop's: a clock that is right is right by much less than this
		$node->safe_psql($shop, qq{UPDATE report.removed SET written_before = written_before + interval '1 minute'; SELECT report.seek('$shop', 0, -2)});
		poll_until(sub { ask($shop, q{SELECT report.wait_applied(timeout => '5s')}) eq 't' }, 60, 'it is read again');
		return $node->safe_psql($shop, 'SELECT count(*) FROM report.reported_events') == 0;
	},

	# I1: an event that a report has not applied stays
	hasty_removal => sub {
		my $shop = shop();

		$node->safe_psql($shop, q{CREATE TABLE public.seen (event_type text);
			SELECT report.define('seen', 'INSERT INTO public.seen (event_type) SELECT event_type FROM new_events', 'public.seen')});
		poll_until(sub { ask($shop, q{SELECT report.wait_applied(timeout => '5s')}) eq 't' }, 60, 'it is read');
		$node->safe_psql($shop, q{ALTER TABLE public.seen RENAME TO away; SELECT outbox.emit('Kept')});
		poll_until(sub { ask($shop, 'SELECT failed FROM report.applied') eq 't' }, 60, 'the report fails');
		$node->safe_psql('postgres', q{ALTER SYSTEM SET carshop_outbox.report_retention = '1s'; SELECT pg_reload_conf()});
		poll_until(sub { ask($shop, q{SELECT count(*) FROM report.reported_events WHERE event_type = 'First'}) eq '0' }, 60, 'the others leave');
		my $left = becomes(sub { ask($shop, q{SELECT count(*) FROM report.reported_events WHERE event_type = 'Kept'}) eq '0' });
		$node->safe_psql('postgres', 'ALTER SYSTEM RESET carshop_outbox.report_retention; SELECT pg_reload_conf()');
		return $left ? 0 : 1;
	},

	# I13: a copy does not publish
	any_home => sub {
		my $shop = shop();

		$node->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.shop_databases = 'copy_of_$shop'");
		$node->reload;
		poll_until(sub { !worker_pids($node, 'relay', $shop) }, 60, 'the relay has left');
		$node->safe_psql('postgres', "CREATE DATABASE copy_of_$shop TEMPLATE $shop");
		return becomes(sub { ask("copy_of_$shop", 'SELECT state FROM outbox.stat_relay') eq 'stopped' });
	},

	# I14: who is told to end ends, without Kafka as well
	deaf => sub {
		my $shop = shop();

		$kafka->kill9;
		$node->safe_psql($shop, q{SELECT outbox.emit('Waits')});
		poll_until(sub { ask($shop, 'SELECT state FROM outbox.stat_relay') eq 'waiting for Kafka' }, 60, 'it waits for Kafka');
		my ($pid) = worker_pids($node, 'relay', $shop);
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
		my $held = becomes(sub { !kill 0, $pid });
		$kafka->restart;
		return $held;
	},

	# I15: what is wrong is said
	rosy_status => sub {
		my $shop = shop();

		$kafka->kill9;
		$node->safe_psql($shop, q{SELECT outbox.emit('Waits')});
		my $held = becomes(sub { ask($shop, q{SELECT count(*) FROM outbox.status WHERE concern = 'kafka' AND level <> 'ok'}) eq '1' });
		$kafka->restart;
		return $held;
	});

$ENV{CARSHOP_TEST_MUTANT} //= '';
my %promise = %{ scalar Mutants::names('055') };
is_deeply([ sort keys %held ], [ sort keys %promise ], 'every mutant of src/mutants.h that names this test is tried');

sub set_mutant
{
	my ($mutant) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET carshop_outbox.mutant = '$mutant'");
	$node->reload;
	poll_until(sub { ask('postgres', 'SHOW carshop_outbox.mutant') eq $mutant }, 30, 'the reload');
	return;
}

my @chosen = grep { /$ENV{CARSHOP_TEST_MUTANT}/ } sort keys %held;
foreach my $mutant (@chosen)
{
	$patience = 60;
	is($held{$mutant}->(), 1, "without $mutant the promise $promise{$mutant} is held");
	$patience = 8;
	set_mutant($mutant);
	is($held{$mutant}->() || 0, 0, "$mutant is noticed");
	set_mutant('');
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET carshop_outbox.max_transaction_events') if $mutant eq 'cut_anywhere';
}

$node->stop('immediate');
done_testing();
