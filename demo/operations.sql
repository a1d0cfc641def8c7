-- The examples of README.md, in its order: test/t/060_readme.pl runs them, after
-- quickstart.sql and with car_shop.sql, as somebody does who reads and tries.  A line "-- [name]"
-- begins a section.

-- [car shop]
SELECT outbox.capture_car_shop();
SELECT report.create_car_shop();
INSERT INTO "Cars" VALUES (7, '{"$type":"PedalEngineEntity","PedalSize":3}');
INSERT INTO "Customers" VALUES ('Ada', 70, 30, NULL);
UPDATE "Customers" SET "CarNumber" = 7 WHERE "Name" = 'Ada';
SELECT outbox.wait_published();
SELECT report.wait_applied();

-- [car shop reports]
SELECT engine, cars_sold FROM report.sales_by_day;
SELECT number, engine, pedal_size, customer FROM report.cars;

-- [capture]
SELECT outbox.capture('orders', 'OrderChanged',
    operations  => 'update, delete',
    condition   => 'OLD.total > 0',
    key         => '{customer}',
    description => 'order {id} of {customer}, before: {old.total}',
    columns     => '{id, customer, total}',
    include_old => true,
    headers     => '{"team": "sales"}');

-- [routes]
SELECT source, event_type, operation, condition, key FROM outbox.routes
 WHERE source = 'orders'::regclass ORDER BY event_type, operation;

-- [by hand]
CREATE TRIGGER "00_outbox_OrderTouched" AFTER INSERT OR UPDATE ON orders
    FOR EACH ROW EXECUTE FUNCTION outbox.capture_row('event_type=OrderTouched', 'key={id}', 'columns={id, total}');
DROP TRIGGER "00_outbox_OrderTouched" ON orders;

-- [backfill]
BEGIN;
SELECT outbox.capture('orders', 'OrderKnown', key => '{id}');
CALL outbox.backfill('orders', 'OrderKnown', batch => 0);
COMMIT;
CALL outbox.backfill('orders', 'OrderKnown');
SELECT outbox.release('orders', 'OrderKnown');

-- [release]
SELECT outbox.release('orders', 'OrderChanged');

-- [emit]
SELECT outbox.emit('PricesChanged', '{"models": 12}', key => 'winter', description => 'winter prices');

-- [insert]
INSERT INTO outbox.event (type, aggregateid, payload) VALUES ('StockCounted', '7', '{"left": 3}');

-- [context]
BEGIN;
SET LOCAL carshop_outbox.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
SET LOCAL carshop_outbox.event_headers = '{"user": "ada"}';
INSERT INTO orders VALUES (4, 'Edsger', 20);
COMMIT;

-- [comment]
UPDATE orders SET total = 21 WHERE id = 4
/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/;

-- [capture off]
BEGIN;
SET LOCAL carshop_outbox.capture = off;
INSERT INTO orders VALUES (5, 'Edsger', 21);
COMMIT;

-- [truncate]
CREATE FUNCTION orders_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM outbox.emit('OrdersTruncated');
    RETURN NULL;
END $$;
CREATE TRIGGER truncated AFTER TRUNCATE ON orders
    FOR EACH STATEMENT EXECUTE FUNCTION orders_truncated();

-- [pause]
SELECT outbox.pause();
SELECT outbox.resume();

-- [wait_published]
SELECT outbox.wait_published('30s');

-- [claim]
SELECT outbox.claim();

-- [start_lineage]
SELECT outbox.start_lineage('nothing');

-- [dead letters]
SELECT id, type, key, reason FROM outbox.dead_letters;
SELECT outbox.retry();                                            -- all of them, when the cause is mended; or retry(id)
SELECT outbox.skip('01990000-0000-7000-8000-000000000000');      -- this one never

-- [park]
SELECT outbox.park('audit');
SELECT topic, events, reason FROM outbox.parked;
SELECT outbox.unpark('audit');

-- [replay]
SELECT outbox.replay(now() - interval '1 hour', event_type => 'OrderPlaced');

-- [event log]
SELECT log_seq, event_type, event_key, event_description, data FROM report.reported_events
 WHERE event_key = '7' AND event_type LIKE 'Car%' ORDER BY log_seq;

-- [select]
SELECT report.define_select('sales', $$
    SELECT data ->> 'customer' AS customer,
           count(*) AS orders,
           sum((data ->> 'total')::numeric) AS total,
           avg((data ->> 'total')::numeric)::numeric(10, 2) AS mean,
           report.latest((data ->> 'id')::int) AS last_order
      FROM new_events
     WHERE event_type = 'OrderPlaced'
     GROUP BY 1
$$, target => 'sales');
SELECT report.wait_applied();
TABLE sales ORDER BY customer;

-- [questions]
-- by day of the shop's time zone; without one, days are those of UTC
SELECT report.define_select('revenue', $$
    SELECT (occurred_on AT TIME ZONE 'Europe/Berlin')::date AS day, sum((data ->> 'total')::numeric) AS revenue
      FROM new_events WHERE event_type = 'OrderPlaced' GROUP BY 1
$$, target => 'revenue');
CREATE VIEW revenue_week AS     -- a moving average
    SELECT day, avg(revenue) OVER (ORDER BY day RANGE '6 days' PRECEDING) AS mean FROM revenue;

-- how many different ones: they are rows, and rows are counted
SELECT report.define_select('buyers', $$
    SELECT occurred_on::date AS day, data ->> 'customer' AS customer, count(*) AS orders
      FROM new_events WHERE event_type = 'OrderPlaced' GROUP BY 1, 2
$$, target => 'buyers');
CREATE VIEW buyers_by_day AS SELECT day, count(*) AS buyers FROM buyers GROUP BY day;

SELECT * FROM revenue WHERE day > current_date - 7;     -- the last seven days
SELECT * FROM sales ORDER BY total DESC LIMIT 10;       -- the ten best

-- [explain]
SELECT event_type, event_key, data FROM report.explain('sales', '{"customer": "Ada"}');

-- [drop]
SELECT report.drop('customer_totals');

-- [mirror]
CREATE TABLE car_list ("Number" integer PRIMARY KEY, "Engine" text, "Note" text DEFAULT 'none');
SELECT report.mirror('car_list', 'car_list', event_types => '{CarAdded}');
SELECT report.wait_applied();
SELECT "Number", "Note" FROM car_list WHERE "Number" = 7;

-- [publishing report]
CREATE TABLE large_orders (order_key text PRIMARY KEY, event uuid);
SELECT report.define('large_orders', $$
    INSERT INTO public.large_orders
    SELECT event_key, outbox.emit('LargeOrderPlaced', data, event_key, caused_by => id)
      FROM new_events
     WHERE event_type = 'OrderPlaced' AND (data ->> 'total')::numeric > 90
     ORDER BY log_seq
$$, target => 'large_orders');
INSERT INTO orders VALUES (6, 'Grace', 99);
SELECT outbox.wait_published();     -- OrderPlaced is in Kafka
SELECT report.wait_applied();       -- the report has read it, and written LargeOrderPlaced
SELECT outbox.wait_published();     -- which is in Kafka, too
SELECT report.wait_applied();       -- and read by all reports of this database
SELECT cause.event_type AS cause, e.event_type, e.event_key, e.id = l.event AS as_answered
  FROM large_orders l
  JOIN report.reported_events e ON e.id = l.event
  JOIN report.reported_events cause ON cause.id = (e.headers ->> 'caused-by')::uuid;

-- [allow loops]
SELECT report.allow_loops('large_orders');
SELECT report.allow_loops('large_orders', false);
SELECT report.drop('large_orders');

-- [disable]
SELECT report.disable('sales');
SELECT report.enable('sales');

-- [rebuild]
SELECT report.rebuild('sales');

-- [as of]
SELECT s.customer, s.orders, s.total
  FROM report.as_of('sales', (SELECT log_seq FROM report.reported_events WHERE event_type = 'OrderPlaced' AND event_key = '2')) r,
       jsonb_populate_record(NULL::sales, r) s
 ORDER BY s.customer;

-- [report dead letters]
SELECT id, topic, report, sqlstate, message FROM report.dead_letters;
SELECT report.retry();

-- [stop]
SELECT report.stop();
SELECT report.start();

-- [seek]
SELECT report.seek('car-shop-reported-events', 0, -2);
SELECT report.wait_applied();

-- [event log retention]
SELECT retention, complete_from, removed, held_by FROM report.stat_event_log;

-- [erase]
SELECT report.erase('nobody');

-- [status]
TABLE outbox.status;
TABLE report.status;

-- [stat]
SELECT state, tick, confirmed_tick, unconfirmed_events, events_published FROM outbox.stat_relay;
SELECT topic, partition, kafka_offset, lag, events_applied FROM report.stat_reporter;
SELECT name, state, events, runs, last_ms FROM report.stat_reports;
SELECT outbox.stat_reset(), report.stat_reset();

-- [latency]
SELECT up_to, events, percent FROM outbox.latency WHERE events > 0;

-- [metrics]
SELECT name, labels, value FROM outbox.metrics WHERE name LIKE 'outbox_published%' UNION ALL TABLE report.metrics;

-- [grant]
CREATE ROLE support;
GRANT SELECT ON outbox.dead_letters, report.dead_letters TO support;
GRANT EXECUTE ON FUNCTION report.retry, report.skip TO support;
GRANT EXECUTE ON FUNCTION outbox.pause, outbox.resume, outbox.park, outbox.unpark, outbox.retry, outbox.skip, outbox.replay TO support;

-- [roles]
CREATE ROLE developer;      -- makes routes on tables that it owns, and sends events
GRANT EXECUTE ON FUNCTION outbox.capture, outbox.capture_row, outbox.release, outbox.emit, outbox.wait_published TO developer;
GRANT SELECT ON outbox.routes TO developer;

CREATE ROLE analyst;        -- defines reports, and whoever does reads every event
CREATE SCHEMA reports AUTHORIZATION analyst;
GRANT SELECT ON report.reported_events TO analyst;
GRANT EXECUTE ON FUNCTION report.define, report.define_select, report.mirror, report.drop, report.enable, report.disable, report.rebuild,
    report.explain, report.as_of(text, bigint), report.as_of(text, timestamptz), report.wait_applied TO analyst;

CREATE ROLE operator;       -- looks after both
GRANT pg_monitor TO operator;
GRANT EXECUTE ON FUNCTION outbox.pause, outbox.resume, outbox.park, outbox.unpark, outbox.retry, outbox.skip, outbox.replay,
    report.start, report.stop, report.retry, report.skip TO operator;

SET ROLE analyst;
SELECT report.define_select('types', 'SELECT event_type, count(*) AS n FROM new_events GROUP BY 1', target => 'reports.types');
SELECT report.wait_applied();
RESET ROLE;
SELECT n FROM reports.types WHERE event_type = 'OrderPlaced';

-- [segments]
SELECT segment, current, settled_at IS NOT NULL AS settled, empty_after, held_by FROM outbox.segments ORDER BY segment;

-- [uninstall]
DROP EXTENSION carshop_outbox CASCADE;
