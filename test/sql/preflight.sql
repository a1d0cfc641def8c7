-- outbox.check() and report.check(): who may call them, and what they say where no
-- Kafka is.  Nobody listens at port 1.
\set SHOW_CONTEXT never
SET client_min_messages = error;
CREATE ROLE check_stranger;
CREATE ROLE check_monitor IN ROLE pg_monitor;
SET carshop_outbox.brokers = '127.0.0.1:1';
SET carshop_outbox.topic = 'check-events';
SET carshop_outbox.report_topics = '';
CREATE FUNCTION pg_temp.told(text) RETURNS text LANGUAGE sql AS
$$ SELECT replace($1, quote_ident(current_database()), 'DATABASE') $$;

SET ROLE check_stranger;
SELECT * FROM outbox.check();
SELECT * FROM report.check();
SELECT * FROM outbox.inspect_kafka(true, '{}', '{}', NULL, NULL, NULL, '1s');
SELECT * FROM outbox.known_topics;
RESET ROLE;

SET ROLE check_monitor;
SELECT concern, level, regexp_replace(pg_temp.told(message), '^127.0.0.1:1.*refused.*', '<refused>') AS message, pg_temp.told(remedy) AS remedy
FROM outbox.check('2s') WHERE concern NOT IN ('library', 'librdkafka', 'worker processes');
SELECT concern, level, pg_temp.told(message) AS message, pg_temp.told(remedy) AS remedy
FROM report.check('2s') WHERE concern NOT IN ('library', 'librdkafka', 'worker processes', 'kafka');
SELECT * FROM outbox.check('0');
RESET ROLE;

-- which topics are known, and where nothing but the newest state of a key goes
CREATE TABLE check_keyed (id integer PRIMARY KEY);
CREATE TABLE check_keyless (id integer);
SET carshop_outbox.allowed_topics = 'check-audit, check-logs-*,';
SELECT outbox.capture('check_keyed', 'State', topic => 'check-state', format => 'payload');
SELECT outbox.capture('check_keyed', 'State2', topic => 'check-state', format => 'payload', key => '{id}');
SELECT outbox.capture('check_keyed', 'Both', topic => 'check-both', format => 'payload');
SELECT outbox.capture('check_keyed', 'Both2', topic => 'check-both');
SELECT outbox.capture('check_keyless', 'Keyless', topic => 'check-keyless', format => 'payload');
SELECT outbox.capture('check_keyed', 'Column', topic => 'check-{id}');
SELECT * FROM outbox.known_topics WHERE topic LIKE 'check-%' AND topic <> 'check-events' ORDER BY topic;
SELECT concern, level, message FROM outbox.check('2s') WHERE message LIKE 'Route%';

-- a file that cannot be used
SET carshop_outbox.kafka_config_file = '/nonexistent/check.properties';
SELECT concern, level, message, remedy FROM outbox.check('2s') WHERE concern = 'kafka';

DROP TABLE check_keyed, check_keyless;
DROP ROLE check_stranger, check_monitor;
