# TLS and SASL, relay and reporter, against a real broker: what is right works,
# what is wrong is said once, clearly, with the property that mends it, and heals by
# itself.  Certificates, keys and tokens that are renewed in their files are taken
# up without a reload, while events flow.  No secret is ever shown.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use Carshop::Secure;
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Test::More;

my $topic = 'car-shop-reported-events';
my %password = (shop => 'geheim-plain-7', scram => 'geheim-scram-8');
my $secure = Carshop::Secure->new;
my $kafka = $secure->start_kafka(users => { shop => $password{shop} });
my $node = Carshop->new_node('secure', kafka => $kafka, conf => {
	'.kafka_config_file' => $secure->path('kafka.properties'), 'log_min_messages' => 'warning' });
my $running = 0;
my $sold = 0;
# What the library that the server uses can do: kcat uses the same.
my ($library) = `kcat -V` =~ /librdkafka (\S+)/;
my $oidc = `kcat -V` =~ /oidc/;
my $scram = $ENV{KAFKA_VERSION} =~ /^3\./ || (join '', map { sprintf '%03d', $_ } split /\./, $library) ge '002006001';
my @secrets = (values %password, 'falsch-9', 'geheim-oidc-5');

$secure->certificate('shop');
$secure->certificate('shop.old', user => 'shop', days => 0);
$secure->certificate('shop.other', user => 'shop', ca => 'other');

# What a line of the file may be: value, or the path of one of our files.
sub file { return $secure->path($_[0]); }

my %tls = ('security.protocol' => 'ssl', 'ssl.ca.location' => file('ca.pem'));
my %mtls = (%tls, 'ssl.certificate.location' => file('client.pem'), 'ssl.key.location' => file('client.key'));
my %sasl = ('security.protocol' => 'sasl_ssl', 'ssl.ca.location' => file('ca.pem'));
my %plain = (%sasl, 'sasl.mechanism' => 'PLAIN', 'sasl.username' => 'shop', 'sasl.password' => $password{shop});

# The file as it shall be; the listener is named by its broker.
sub configure
{
	my ($listener, %properties) = @_;

	$secure->put('kafka.properties', join '', "bootstrap.servers=" . $kafka->bootstrap($listener) . "\n",
		map { "$_=$properties{$_}\n" } sort keys %properties);
	$node->reload if $running;
}

sub sell
{
	$node->safe_psql('shop', sprintf q{INSERT INTO "Cars" VALUES (%d, NULL)}, ++$sold);
}

# What was sold is in Kafka, and in the report, once.
sub works
{
	my ($what) = @_;
	my $status;

	sell();
	poll_until(sub { query_value($node, 'shop', q{SELECT outbox.wait_published('1s')}) eq 't' }, 60, "$what: published");
	poll_until(sub { query_value($node, 'shop', qq{SELECT count(*) FROM report.cars WHERE number <= $sold}) == $sold }, 60, "$what: reported");
	poll_until(sub {
		$status = $node->safe_psql('shop', q{SELECT message FROM outbox.status WHERE concern = 'kafka' AND level <> 'ok'
			UNION ALL SELECT message FROM report.status WHERE concern = 'kafka' AND level <> 'ok'});
		$status eq '';
	}, 60, "$what: nothing is wrong");
	is($status, '', "$what: published and reported");
}

sub warnings_since
{
	my ($from, $who) = @_;

	return grep { /WARNING:.*\b\Q$who\E/ } split /\n/, substr(slurp_file($node->logfile), $from);
}

my $said = 0;

# Both workers say so, in the status and once in the log, with that remedy.
sub fails
{
	my ($pattern, $remedy, $what, %options) = @_;

	foreach my $where ([ 'outbox', 'relay' ], [ 'report', 'reporter' ])
	{
		my ($schema, $worker) = @$where;
		my $row = '';

		eval { poll_until(sub {
			$row = $node->safe_psql('shop', "SELECT message || ' => ' || remedy FROM $schema.status WHERE concern = 'kafka' AND level <> 'ok'");
			$row =~ /$pattern.* => .*$remedy/s;
		}, 30, $what) };
		like($row, qr/$pattern.* => .*$remedy/s, "$what: $schema.status");
		next if $options{known};
		eval { poll_until(sub { warnings_since($said, $worker) }, 30, "$what: logged") };
		my @lines = warnings_since($said, $worker);
		is(scalar @lines, 1, "$what: the $worker has logged it once") or diag(@lines);
		like($lines[0] // '', $pattern, "$what: in the same words");
	}
	$said = -s $node->logfile;
}

configure('TLS', %tls);
$node->start;
$running = 1;
create_shop($node, 'shop');
works('TLS with a CA of our own');
my $ca_pem = slurp_file(file('ca.pem')) =~ s/\n/\\n/gr;
configure('TLS', 'security.protocol' => 'ssl', 'ssl.ca.pem' => $ca_pem);
works('a CA in the file of properties');

# ---- what can be wrong with TLS ----

$said = -s $node->logfile;
configure('TLS', %tls, 'ssl.ca.location' => file('other.pem'));
sell();
fails(qr/refused: .*CA is not known here/, qr/ssl\.ca\.location/, 'another CA');
configure('EXPIRED', %tls);
fails(qr/refused: it has expired/, qr/Renew the certificate/, 'a broker whose certificate has expired');
configure('ELSEWHERE', %tls);
fails(qr/refused: it is for another IP address/, qr/advertised\.listeners/, 'a broker of another name');
configure('MTLS', %tls);
fails(qr/alert (bad )?certificate/, qr/ssl\.certificate\.location/, 'no certificate of ours');
configure('TLS');
fails(qr/Disconnected/, qr/security\.protocol/, 'a plaintext client at a TLS listener');
configure('TLS', %tls, 'ssl.ca.location' => '/nowhere/ca.pem');
fails(qr/"ssl\.ca\.location" cannot be read: "\/nowhere\/ca\.pem": No such file/, qr/property/, 'a file that is not there');
# ---- what the library does not know, or was built without ----

if (!$oidc)
{
	configure('TLS', %tls, 'sasl.oauthbearer.client.secret' => 'geheim-oidc-5');
	fails(qr/librdkafka \Q$library\E was built here without what property "sasl\.oauthbearer\.client\.secret" needs/, qr/Debian 12.*sasl\.oauthbearer\.token\.file/, 'OIDC');
	configure('TLS', %tls, 'https.ca.location' => file('ca.pem'));
	fails(qr/librdkafka \Q$library\E does not know property "https\.ca\.location", which came with version 2\.11\.0/, qr/another librdkafka/, 'a newer property', known => 1);
}

configure('MTLS', %mtls);
$secure->replace('client.pem', 'shop.pem');
$secure->replace('client.key', 'shop.key');
works('a certificate of ours');
$said = -s $node->logfile;

# ---- files that are replaced while events flow ----

sub replace_client
{
	my ($name) = @_;

	$secure->replace("client.$_", "$name.$_") foreach 'pem', 'key';
}

$node->safe_psql('shop', 'CREATE SEQUENCE more START 100000');
append_to_file(file('shop.sql'), qq{INSERT INTO "Cars" VALUES (nextval('more'), NULL) \\watch 0.005\n});
my ($output, $complaint) = ('', '');
my $shop = start([ 'psql', '-XAtq', '-d', $node->connstr('shop'), '-f', file('shop.sql') ], '<', \undef, '>', \$output, '2>', \$complaint);
replace_client('shop.old');
fails(qr/alert certificate/, qr/ssl\.certificate\.location.*not expired/, 'a certificate of ours that expires');
replace_client('shop');
works('a new certificate, without a reload');
replace_client('shop.other');
fails(qr/alert (certificate|unknown)/, qr/ssl\.certificate\.location.*signed by a CA/, 'a certificate of another CA');
chmod 0, file('shop.key') or die;
replace_client('shop.old');
chmod 0600, file('shop.key');
chmod 0, file('client.key') or die;
fails(qr/"ssl\.key\.location" cannot be read: .*Permission denied/, qr/operating system user/, 'a key that may not be read');
chmod 0600, file('client.key') or die;
$secure->replace('client.pem', 'shop.pem');
fails(qr/key values mismatch/, qr/certificate, key or password/, 'a key of another certificate');
$secure->replace('client.key', 'shop.key');
works('certificate and key again, without a reload');
$shop->signal('TERM');
$shop->finish;
cmp_ok(query_value($node, 'shop', q{SELECT last_value FROM more}), '>', 100500, 'meanwhile the shop went on');
works('and all that it has sold');

# ---- SASL ----

configure('SASL', %plain);
works('SASL PLAIN');
foreach my $mechanism ('SCRAM-SHA-256', 'SCRAM-SHA-512')
{
	$secure->scram_user($kafka, $mechanism, 'scram', $password{scram});
	configure('SASL', %sasl, 'sasl.mechanism' => $mechanism, 'sasl.username' => 'scram', 'sasl.password' => $password{scram});
	if ($scram) { works($mechanism); }
	else { fails(qr/SCRAM-SHA/, qr/librdkafka 2\.6\.1 or newer/, "$mechanism with this librdkafka", known => $mechanism =~ /512/); }
}
configure('SASL', %plain);
works('SASL PLAIN again');
$said = -s $node->logfile;
configure('SASL', %plain, 'sasl.password' => 'falsch-9');
sell();
fails(qr/Authentication failed: Invalid username or password/, qr/sasl\.password/, 'a wrong password');
configure('', %tls);
fails(qr/SSL handshake failed|Disconnected|unexpected eof while reading/, qr/security\.protocol/, 'a TLS client at a plaintext listener');
configure('TLS', %plain);
fails(qr/SASL/, qr/security\.protocol/, 'SASL at a listener without', known => 1);

# ---- tokens ----

my %token = (%sasl, 'sasl.mechanism' => 'OAUTHBEARER', 'sasl.oauthbearer.token.file' => file('token'));
my $good = $secure->token('shop', 600);
push @secrets, $good, (split /\./, $good)[1];
configure('SASL', %token);
fails(qr/"sasl\.oauthbearer\.token\.file" cannot be read: .*No such file/, qr/property/, 'no file of a token');
$secure->put('token', "$good\n");
works('a token out of a file, as soon as it is there');
$said = -s $node->logfile;
$secure->put('token', $secure->token('shop', -5));
fails(qr/token in the file of property "sasl\.oauthbearer\.token\.file" has expired at 20/, qr/renews the file/, 'a token that has expired');
$secure->put('token', "$good\n");
works('another token in the file, without a reload');
$said = -s $node->logfile;
$secure->put('token', 'kein-jwt-4');
push @secrets, 'kein-jwt-4';
sell();
fails(qr/invalid_token/, qr/issuer, audience/, 'a token that the broker refuses');
configure('SASL', %sasl, 'sasl.mechanism' => 'OAUTHBEARER');
fails(qr/needs "sasl\.oauthbearer\.token\.file"/, qr/property/, 'a mechanism without a token');

# ---- OIDC, where the library was built with it ----

if ($oidc)
{
	my $issuer = $secure->start_issuer('shop', 'geheim-oidc-5');
	my %oidc = (%sasl, 'sasl.mechanism' => 'OAUTHBEARER', 'sasl.oauthbearer.method' => 'oidc', 'sasl.oauthbearer.client.id' => 'shop',
		'sasl.oauthbearer.token.endpoint.url' => $issuer->{url});

	configure('SASL', %oidc, 'sasl.oauthbearer.client.secret' => 'geheim-oidc-5');
	works('OIDC');
	configure('SASL', %oidc, 'sasl.oauthbearer.client.secret' => 'falsch-9');
	sell();
	fails(qr/SASL OAUTHBEARER token/, qr/token\.endpoint\.url/, 'a secret that the issuer refuses', known => 1);
	$issuer->stop;
}

configure('SASL', %token);
$secure->put('token', $secure->token('shop', 600));
works('a token again');

# ---- nothing lost, nothing doubled, nothing shown ----

my $cars = query_value($node, 'shop', 'SELECT count(*) FROM "Cars"');
poll_until(sub { query_value($node, 'shop', 'SELECT count(*) FROM report.cars') == $cars }, 60, 'all of it is reported');
my @keys = map { $_->{key} } $kafka->read_topic($topic);
my %keys = map { $_ => 1 } @keys;
is(scalar @keys . ' ' . scalar keys %keys, "$cars $cars", "$cars events in Kafka: none lost, none doubled");
is(query_value($node, 'shop', 'SELECT count(*) FROM report.reported_events'), $cars, 'and in the event log');
is(query_value($node, 'shop', 'SELECT sum(duplicates) FROM report.stat_reporter'), 0, 'none came twice');

foreach my $place (
	[ 'the log', slurp_file($node->logfile) ],
	[ 'the settings', $node->safe_psql('shop', 'SHOW ALL') ],
	[ 'the views', $node->safe_psql('shop', 'SELECT s::text FROM outbox.status s UNION ALL SELECT s::text FROM report.status s
		UNION ALL SELECT s::text FROM outbox.stat_relay s UNION ALL SELECT s::text FROM report.stat_reporter s
		UNION ALL SELECT s::text FROM pg_stat_activity s') ])
{
	my ($name, $content) = @$place;
	my @shown = grep { index($content, $_) >= 0 } @secrets;

	cmp_ok(length $content, '>', 100, "$name: there is something to search");
	is_deeply(\@shown, [], "$name: no secret");
}

no_crash($node);
$node->stop;
done_testing();
