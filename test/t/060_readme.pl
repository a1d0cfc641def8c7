# README.md tells the truth: every block of commands in it equals a script of
# demo/, the scripts run on a server and a broker in README's order, and they answer
# what README shows.  Every setting that the server knows stands in README.
#
# A comment before a block names its source: <!-- demo/FILE --> or, for a part
# between "-- [NAME]" lines, <!-- demo/FILE: NAME -->.  <!-- answer --> marks what
# the block before it answers; … in it stands for any text.

use strict;
use utf8;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my @blocks = blocks(content('README.md'));
my %sections = sections(content('demo/operations.sql'));
my %file = map { $_ => content($_) } qw(demo/quickstart.conf demo/quickstart.sql demo/car_shop.sql);
my %answer;
my %shown;
my @order;

sub content
{
	my ($name) = @_;

	open my $fh, '<:encoding(UTF-8)', "$root/$name" or die "$name: $!";
	local $/ = undef;
	return scalar <$fh>;
}

# Code blocks: { language, source, text }.
sub blocks
{
	my ($text) = @_;
	my @found;

	while ($text =~ /(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```\n/msg)
	{
		push @found, { source => $1 // '', language => $2, text => $3 };
	}
	return @found;
}

sub sections
{
	my ($text) = @_;
	my %found;

	while ($text =~ /^-- \[([^\]]+)\]\n(.*?)(?=^-- \[|\z)/msg)
	{
		my ($name, $sql) = ($1, $2);

		$sql =~ s/\n+\z/\n/;
		$found{$name} = $sql;
	}
	return %found;
}

# --- the blocks are the scripts ---
my $before;
foreach my $block (@blocks)
{
	my ($source, $text) = @$block{qw(source text)};

	if ($source eq 'answer')
	{
		$answer{$before} = $text;
	}
	elsif ($source =~ m{^demo/operations\.sql: (.*)})
	{
		is($text, $sections{$1} // 'no such section', "README shows $source");
		$shown{$1} = 1;
		push @order, $1;
	}
	elsif ($source =~ m{^demo/})
	{
		is($text, $file{$source} // 'no such file', "README shows $source");
		$shown{$source} = 1;
	}
	else
	{
		unlike($block->{language}, qr/^(sql|conf|ini)$/, 'a block of commands names its script')
		  or diag($text);
	}
	$before = $source;
}
is_deeply([ grep { !$shown{$_} } sort(keys %sections, keys %file) ], [], 'README shows all that the scripts have');
is_deeply(\@order, [ content('demo/operations.sql') =~ /^-- \[([^\]]+)\]/mg ], 'in the same order');

# The shell's part cannot run here: packages and targets must at least exist.
my $shell = join '', map { $_->{text} } grep { $_->{language} eq 'sh' } @blocks;
my $setup = content('test/setup');
my $makefile = content('Makefile');
like($setup, qr/\Q$1\E/, "test/setup knows the package of README, $1")
  while $shell =~ /((?:lib|postgresql)[\w-]+-dev)/g;
like($makefile, qr{^#   make \Q$1\E\b}m, "Makefile knows the target of README, $1")
  while $shell =~ /make ((?:test-)?[a-z]+)/g;

# --- and the scripts run ---
my $kafka = Carshop::Kafka->start;
my $node = Carshop->new_node('readme', conf => { '.shop_databases' => '', '.report_databases' => '' });
$node->append_conf('postgresql.conf', $file{'demo/quickstart.conf'});
$node->append_conf('postgresql.conf', "carshop_outbox.brokers = '" . $kafka->bootstrap . "'");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->restart;

# Trailing blanks and the rows' number are not shown in README.
sub tidy
{
	my ($text) = @_;

	$text =~ s/[ \t]+$//mg;
	$text =~ s/^\(\d+ rows?\)\n//mg;
	$text =~ s/^\s*\n//mg;
	return $text;
}

sub answers
{
	my ($source, $sql) = @_;
	my ($output, $complaint) = ('', '');
	my $status = IPC::Run::run(
		[ $node->installed_command('psql'), '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('shop'), '-f', '-' ],
		'<', \$sql, '>', \$output, '2>', \$complaint);

	ok($status, "$source runs") or diag($complaint);
	return if !defined $answer{$source};
	utf8::decode($output);
	my $pattern = join '.*', map { quotemeta } split /…/, tidy($answer{$source}), -1;
	like(tidy($output), qr/^$pattern\z/s, "$source answers what README shows");
}

answers('demo/quickstart.sql', $file{'demo/quickstart.sql'});
answers('demo/car_shop.sql', $file{'demo/car_shop.sql'});
foreach my $section (@order)
{
	answers("demo/operations.sql: $section", $sections{$section});
	# the relay does it when the command is committed
	poll_until(sub { (query_value($node, 'shop', q{SELECT state FROM outbox.stat_relay WHERE NOT EXISTS (SELECT FROM outbox.parked)}) // '') eq 'idle' }, 60, 'the topic is published again')
	  if $section eq 'park';
}

my ($settings) = content('README.md') =~ /^## Settings\n(.*?)^## /ms;
is_deeply([ grep { $settings !~ /^\| `\Q$_\E` \| /m } split /\n/,
		$node->safe_psql('postgres', q{SELECT substr(name, 16) FROM pg_settings WHERE name LIKE 'carshop\_outbox.%' AND name NOT LIKE '%.mutant' ORDER BY 1}) ],
	[], 'README has every setting');

is(query_value($node, 'shop', q{SELECT string_agg(nspname, ',') FROM pg_namespace WHERE nspname IN ('outbox', 'report')}),
	undef, 'nothing is left after the uninstallation');
is(query_value($node, 'shop', q{SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE '00@_outbox%' ESCAPE '@'}), 0, 'no route either');

$node->stop;
done_testing();
