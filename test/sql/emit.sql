-- outbox.emit and INSERT INTO outbox.event
SET client_min_messages = error;	-- the warning that no relay works here names the database
SELECT outbox.emit('Hello') IS NOT NULL AS id;
SELECT type, aggregateid, description, payload, format FROM outbox.event ORDER BY seq DESC LIMIT 1;
SELECT outbox.emit('Hello', '{"a": 1, "b": [1, 2]}', 'k', 'said hello', headers => '{"who": "me"}', lock_key => true) IS NOT NULL AS id;
SELECT type, aggregateid, description, payload, headers FROM outbox.event ORDER BY seq DESC LIMIT 1;
SELECT outbox.emit('Raw', key => 'k', format => 'raw', value => '\x0001ff') IS NOT NULL AS id;
SELECT type, format, value FROM outbox.event ORDER BY seq DESC LIMIT 1;
-- what caused it
SELECT outbox.emit('Caused', headers => '{"who": "me"}', caused_by => '01234567-89ab-cdef-0123-456789abcdef') IS NOT NULL AS id;
SELECT type, headers FROM outbox.event ORDER BY seq DESC LIMIT 1;
SELECT outbox.emit('X', headers => '{"caused-by": "1"}');
SELECT outbox.emit('X', headers => '{"caused-by-report": "r"}');
-- the transaction's own context
BEGIN;
SET LOCAL carshop_outbox.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
SET LOCAL carshop_outbox.event_headers = '{"user": "ann"}';
SELECT outbox.emit('Traced', headers => '{"a": "b"}') IS NOT NULL AS id;
COMMIT;
SELECT traceparent, headers FROM outbox.event ORDER BY seq DESC LIMIT 1;
-- refused
SELECT outbox.emit(NULL);
SELECT outbox.emit('X', topic => 'other');
SELECT outbox.emit('X', topic => 'a b');
SELECT outbox.emit('X', topic => 'carshop-outbox-progress-1');
SELECT outbox.emit('X', headers => '{"id": "1"}');
SELECT outbox.emit('X', format => 'raw');
SELECT outbox.emit('X', format => 'yaml');
SELECT outbox.emit('X', value => 'x', format => 'envelope');
SELECT outbox.emit('X', lock_key => true);
SELECT outbox.emit('X', key => repeat('k', 65537));
SELECT outbox.emit('X', occurred_at => '10000-01-01');
SELECT outbox.emit('X', occurred_at => 'infinity');
-- too large: refused, and the transaction goes on behind a savepoint
BEGIN;
SAVEPOINT s;
SELECT outbox.emit('Large', to_jsonb(repeat('x', 1000000)));
ROLLBACK TO s;
SELECT outbox.emit('Small') IS NOT NULL AS id;
COMMIT;
SELECT type FROM outbox.event ORDER BY seq DESC LIMIT 1;
-- a topic of the administrator's, and one of a route
SET carshop_outbox.allowed_topics = 'other, shop-*-x';
SELECT outbox.emit('X', topic => 'other') IS NOT NULL AS id, outbox.emit('X', topic => 'shop-1-x') IS NOT NULL AS id;
SELECT outbox.emit('X', topic => 'shop-1-y');
RESET carshop_outbox.allowed_topics;
CREATE TABLE t (a integer);
SELECT outbox.capture('t', 'T', topic => 'of-a-route');
SELECT outbox.emit('X', topic => 'of-a-route') IS NOT NULL AS id;
DROP TABLE t;

-- the view
INSERT INTO outbox.event (type) VALUES ('Inserted');
SELECT type, description, payload, format FROM outbox.event ORDER BY seq DESC LIMIT 1;
INSERT INTO outbox.event (id, aggregatetype, aggregateid, type, payload)
VALUES ('01234567-89ab-cdef-0123-456789abcdef', 'Order', '42', 'OrderMade', '{"b": 1, "a": 1, "a": 2}')
RETURNING id, type;
SELECT id, aggregatetype, aggregateid, type, payload FROM outbox.event ORDER BY seq DESC LIMIT 1;
-- RETURNING shows what is stored
BEGIN;
SET LOCAL carshop_outbox.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
SET LOCAL carshop_outbox.event_headers = '{"user": "ann"}';
INSERT INTO outbox.event (type, aggregateid, headers) VALUES ('Returned', '1', '{"a": "b"}') RETURNING description, format, traceparent, headers;
COMMIT;
-- seq and xid are never the writer's
INSERT INTO outbox.event (type, seq, xid) VALUES ('Forged', 1, '1');
SELECT type, seq > 1 AS own_seq, xid <> '1' AS own_xid FROM outbox.event ORDER BY seq DESC LIMIT 1;
INSERT INTO outbox.event (aggregatetype) VALUES ('no type');
UPDATE outbox.event SET type = 'x';
DELETE FROM outbox.event;
-- COPY
COPY outbox.event (type, aggregateid) FROM stdin;
Copied	1
Copied	2
\.
SELECT type, aggregateid FROM outbox.event ORDER BY seq DESC LIMIT 2;
-- a superuser's repair makes no events
CREATE TABLE t (a integer);
SELECT outbox.capture('t', 'T');
SELECT count(*) AS before FROM outbox.event \gset
SET carshop_outbox.capture = off;
INSERT INTO t VALUES (1);
RESET carshop_outbox.capture;
SELECT count(*) - :before AS written FROM outbox.event;
DROP TABLE t;
