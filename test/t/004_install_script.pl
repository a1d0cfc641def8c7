# The install script gives nobody a foothold: it locks its search_path first, makes
# everything by plain CREATE under qualified names, raises no rights, closes and
# describes what it makes (CVE-2020-14350, CVE-2022-2625, CVE-2023-39417).  And
# proven from outside: with hostile objects of every name that it uses, first in
# the path of the superuser who installs it, none of them is ever called.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Carshop;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";

# As make has joined them.
my @scripts = glob("$root/sql/carshop_outbox--*.sql");
cmp_ok(scalar @scripts, '>', 0, 'there is a script');
foreach my $file (@scripts)
{
	my $name = $file =~ s{.*/}{}r;
	my $script = slurp_file($file);
	my $code = $script;

	like($script, qr/^\\echo Use "(?:CREATE|ALTER) EXTENSION [^"]*" to load this file\. \\quit$/m, "$name: cannot be run by psql");
	$code =~ s{/\*.*?\*/}{}sg;
	$code =~ s/--[^\n]*//g;
	$code =~ s/^\\[^\n]*//mg;
	my ($first) = $code =~ /^\s*(.*?;)/s;
	is($first, 'SET LOCAL search_path = pg_catalog, pg_temp;', "$name: the path is set first");
	unlike($code, qr/\bOR\s+REPLACE\b(?!\s+TRIGGER)/i, "$name: replaces nothing");
	unlike($code, qr/\bIF\s+NOT\s+EXISTS\b/i, "$name: adopts nothing");
	unlike($code, qr/\bSECURITY\s+DEFINER\b(?!\s+SET\s+search_path\s*=\s*pg_catalog,\s*pg_temp\b)/i, "$name: raises no rights without pinning the path");
	unlike($code, qr/\@\w+\@/, "$name: nothing is substituted");

	# Bodies are looked at by the catalog below; here the statements around them.
	my $outside = $code =~ s/\$(\w*)\$.*?\$\1\$/''/sgr;
	my @unqualified;
	while ($outside =~ /\bCREATE\s+(?:UNIQUE\s+)?(TABLE|VIEW|SEQUENCE|FUNCTION|PROCEDURE|TYPE|DOMAIN|OPERATOR|AGGREGATE)\s+([^\s(]+)/gi)
	{
		push @unqualified, "$1 $2" if $2 !~ /^(?:outbox|report)\./;
	}
	while ($outside =~ /\b(?:INDEX|TRIGGER)\s+\S+\s+(?:[A-Z ]+?\s)?ON\s+([^\s(]+)/g)
	{
		push @unqualified, "ON $1" if $1 !~ /^(?:outbox|report)\./ && $1 !~ /^(?:%|ddl_command_end|sql_drop)/;
	}
	is_deeply(\@unqualified, [], "$name: objects are made under qualified names");
}

# ---- from outside ----

my $node = Carshop->new_node('install', conf => { '.shop_databases' => '', '.report_databases' => '' });
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');

# A function of every name that our objects' sources mention and pg_catalog has,
# for the argument types that would make it the better match; the operators; tables.
$node->safe_psql('shop', q{
	CREATE TABLE public.called (what text);
	CREATE SCHEMA hostile;
	CREATE FUNCTION hostile.note(what text) RETURNS void LANGUAGE sql AS 'INSERT INTO public.called VALUES (what)';
	DO $do$
	DECLARE
		f record;
	BEGIN
		FOR f IN
			SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, p.proretset,
				   format_type(p.prorettype, NULL) AS result, p.oid
			  FROM pg_proc p
			 WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0
			   AND NOT p.proretset AND p.prorettype NOT IN ('internal'::regtype, 'trigger'::regtype, 'cstring'::regtype, 'void'::regtype)
			   AND NOT EXISTS (SELECT FROM unnest(p.proargtypes::oid[]) a JOIN pg_type t ON t.oid = a WHERE t.typtype = 'p')
			   AND (SELECT typtype FROM pg_type t WHERE t.oid = p.prorettype) <> 'p'
			   AND p.proname ~ '^(format|quote_|current_setting|set_config|to_reg|concat|string_to|array_|octet_length|length|btrim|lower|now|clock_timestamp|statement_timestamp|pg_current|pg_snapshot|pg_visible|pg_relation_size|gen_random|date_trunc|has_|text|name|bool|int[48]|numeric|interval|timestamptz|obj_description|pg_get_|substring|left|right|coalesce|jsonb?_)'
		LOOP
			BEGIN
				EXECUTE format($f$CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS $body$ BEGIN PERFORM hostile.note(%L); RETURN NULL; END $body$ $f$,
							   f.proname, f.arguments, f.result, f.proname);
			EXCEPTION WHEN OTHERS THEN NULL;
			END;
		END LOOP;
		FOR f IN
			SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result, o.oid
			  FROM pg_operator o WHERE o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '||', '+', '-', '&', '%', '~', '~~', '@>', '->>')
			   AND o.oprleft <> 0 AND o.oprkind = 'b'
		LOOP
			BEGIN
				EXECUTE format($f$CREATE FUNCTION hostile.o%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $body$ BEGIN PERFORM hostile.note(%L); RETURN NULL; END $body$ $f$,
							   f.oid, f.l, f.r, f.result, 'operator ' || f.oprname);
				EXECUTE format('CREATE OPERATOR hostile.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = hostile.o%s)', f.oprname, f.l, f.r, f.oid);
			EXCEPTION WHEN OTHERS THEN NULL;
			END;
		END LOOP;
	END $do$;
	CREATE TABLE hostile.pg_class (a integer);
	CREATE TABLE hostile.pg_trigger (a integer);
	CREATE TABLE hostile.pg_proc (a integer);
	CREATE TABLE hostile.pg_extension (a integer);
});
cmp_ok(query_value($node, 'shop', q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'hostile'::regnamespace}), '>', 500,
	'there are many hostile functions');
cmp_ok(query_value($node, 'shop', q{SELECT count(*) FROM pg_operator WHERE oprnamespace = 'hostile'::regnamespace}), '>', 100,
	'and operators');
# The trap works: without our care a name is taken from it.
my ($status, $out, $error) = $node->psql('shop', q{SET search_path = hostile, pg_catalog; SELECT quote_ident('x'::text)});
is(query_value($node, 'shop', 'SELECT count(*) > 0 FROM public.called'), 't', 'a name without a schema falls into the trap');
$node->safe_psql('shop', 'TRUNCATE public.called');

my $path = 'SET search_path = hostile, pg_catalog, public; SET client_min_messages = error;';
$node->safe_psql('shop', "$path CREATE EXTENSION carshop_outbox");
$node->safe_psql('shop', qq{$path
	CREATE TABLE public.t (id pg_catalog.int4 PRIMARY KEY, v pg_catalog.text, j pg_catalog.jsonb, a pg_catalog.timestamptz[]);
	SELECT outbox.capture('public.t', 'T', 'insert, update, delete', include_old => true, headers => '{"a": "b"}', topic => 'x-{v}');
	INSERT INTO public.t VALUES (1, 'v', '{"a": 1}', '{2026-01-01}');
	UPDATE public.t SET v = 'w';
	SELECT outbox.capture('public.t', 'Filled');
	CALL outbox.backfill('public.t', 'Filled');
	ALTER TABLE public.t ADD COLUMN more pg_catalog.int4;
	ALTER TABLE public.t DROP COLUMN more;
	TABLE outbox.routes;
	TABLE outbox.status;
	TABLE outbox.stat_relay;
	TABLE report.status;
	TABLE report.stat_reports;
	TABLE report.stat_reporter;
	SELECT outbox.emit('E', '{"a": 1}', headers => '{"c": "d"}', topic => 'car-shop-reported-events');
	INSERT INTO outbox.event (type, payload) VALUES ('I', '{}');
	SELECT outbox.pause(), outbox.resume(), outbox.start_lineage('nothing'), outbox.claim();
	SELECT report.create_car_shop();
	SELECT outbox.release('public.t');
	DELETE FROM public.t;
});
is($node->safe_psql('shop', 'SELECT DISTINCT what FROM public.called ORDER BY 1'), '', 'nothing hostile was called');
is(query_value($node, 'shop', q{SELECT count(*) FROM outbox.event}), 5, 'and all of it worked');
$node->safe_psql('shop', "$path DROP EXTENSION carshop_outbox CASCADE");
is($node->safe_psql('shop', 'SELECT DISTINCT what FROM public.called ORDER BY 1'), '', 'nor by DROP EXTENSION');

# ---- what the catalog says about each object ----

$node->safe_psql('postgres', 'CREATE DATABASE plain');
$node->safe_psql('plain', 'SET client_min_messages = error; CREATE EXTENSION carshop_outbox');
is($node->safe_psql('plain', q{
	SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	 WHERE p.pronamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND l.lanname <> 'c' AND p.prokind <> 'a'
	   AND NOT 'search_path=pg_catalog, pg_temp' = ANY (COALESCE(p.proconfig, '{}'))}), '', 'each body pins its path');
is($node->safe_psql('plain', q{
	SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d
	 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'carshop_outbox')
	   AND d.classid <> 'pg_type'::regclass
	   AND obj_description(d.objid, d.classid::regclass::name) IS NULL
	 UNION ALL
	SELECT pg_describe_object('pg_class'::regclass, c.oid, 0) FROM pg_class c
	 WHERE c.relnamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND c.relkind = 'i' AND obj_description(c.oid, 'pg_class') IS NULL
	   AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid)
	 UNION ALL
	SELECT pg_describe_object('pg_class'::regclass, a.attrelid, a.attnum) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
	 WHERE c.relnamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND c.relkind IN ('r', 'v') AND a.attnum > 0
	   AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NULL
	 UNION ALL
	SELECT pg_describe_object('pg_trigger'::regclass, t.oid, 0) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	 WHERE c.relnamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND NOT t.tgisinternal
	   AND obj_description(t.oid, 'pg_trigger') IS NULL}), '', 'each object is described');

# One grammar: a phrase without a full stop, or sentences that all have one.
is($node->safe_psql('plain', q{
	SELECT d.description FROM pg_description d
	  JOIN pg_depend e ON e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e'
	 WHERE e.refclassid = 'pg_extension'::regclass AND e.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'carshop_outbox')
	   AND d.description ~ '\.$' AND d.description !~ '\. '}), '', 'a single phrase has no full stop');
is($node->safe_psql('plain', q{
	SELECT c.relname, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
	 WHERE c.relnamespace IN ('outbox'::regnamespace, 'report'::regnamespace) AND a.grantee = 0}), '', 'no relation is open to PUBLIC');

no_crash($node);
$node->stop;
done_testing();
