-- What waits for Kafka, told at a cost that does not grow with it.
SET client_min_messages = error;
CREATE TABLE waiting (id integer PRIMARY KEY);
SELECT outbox.capture('waiting', 'Waiting');

-- A tick of our own making confirms all that is there.
CREATE FUNCTION confirm(seen pg_snapshot) RETURNS void LANGUAGE sql AS $$
	INSERT INTO outbox.tick (tick_id, nonce, snapshot, confirmed_tick)
	SELECT COALESCE(max(tick_id), 0) + 1, gen_random_uuid(), seen, 0 FROM outbox.tick;
	UPDATE outbox.lineage SET confirmed_tick = (SELECT max(tick_id) FROM outbox.tick);
$$;
CREATE VIEW look AS
	SELECT unconfirmed_events AS about, oldest_unconfirmed IS NOT NULL AS oldest, outbox.count_unconfirmed() AS exact
	  FROM outbox.stat_relay;
SELECT confirm(pg_current_snapshot());
TABLE look;
INSERT INTO waiting VALUES (1), (2);
TABLE look;
SELECT confirm(pg_current_snapshot());
TABLE look;

-- three transactions; the tick came while the second one was under way
INSERT INTO waiting VALUES (3);
BEGIN;
INSERT INTO waiting VALUES (4), (5);
SELECT pg_current_xact_id() AS second \gset
COMMIT;
INSERT INTO waiting VALUES (6);
SELECT confirm(format('%s:%s:%s', :'second', pg_snapshot_xmax(pg_current_snapshot()), :'second')::pg_snapshot);
TABLE look;
INSERT INTO waiting VALUES (7);
TABLE look;
-- dead letters do not wait
INSERT INTO outbox.dead_letter (seq, xid, tick_id, id, type, topic, reason)
	SELECT seq, xid, 0, id, type, 'topic', 'refused' FROM outbox.event WHERE aggregateid IN ('4', '7') AND type = 'Waiting';
TABLE look;
SELECT type, topic, events FROM outbox.stat_dead_letters;
SELECT level, substring(message FROM '^[^,.]*') AS message FROM outbox.status WHERE concern IN ('backlog', 'dead letters') ORDER BY concern;
TRUNCATE outbox.dead_letter;

-- What a look reads (blocks), with a thousand events waiting and with a hundred
-- thousand: the index may be a level deeper, which is all.
CREATE FUNCTION blocks_read(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || query INTO plan;
	RETURN (plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::bigint + (plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::bigint;
END $$;
CREATE TABLE cost (query text PRIMARY KEY, few bigint, many bigint);
INSERT INTO waiting SELECT generate_series(1001, 2000);
INSERT INTO cost (query) VALUES ('TABLE outbox.status'), ('TABLE outbox.stat_relay'), ('SELECT outbox.count_unconfirmed()');
UPDATE cost SET few = blocks_read(query);	-- fills caches
UPDATE cost SET few = blocks_read(query);
INSERT INTO waiting SELECT generate_series(10001, 109000);
TABLE look;
UPDATE cost SET many = blocks_read(query);
UPDATE cost SET many = blocks_read(query);
-- (the PostgreSQL of make cassert keeps no catalogs in its caches)
SELECT query, many - few < 60 AS constant, few < 500 OR current_setting('debug_assertions')::boolean AS little FROM cost ORDER BY query;

SELECT confirm(pg_current_snapshot());
TABLE look;
SELECT outbox.release('waiting');
TRUNCATE outbox.tick;
UPDATE outbox.lineage SET confirmed_tick = 0;
DROP TABLE waiting, cost;
DROP VIEW look;
DROP FUNCTION confirm, blocks_read;
