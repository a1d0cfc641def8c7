CREATE EXTENSION carshop_outbox;

-- a table of yours, and the event that its new rows make
CREATE TABLE orders (id integer PRIMARY KEY, customer text, total numeric);
SELECT outbox.capture('orders', 'OrderPlaced', format => 'payload');

-- a report: a table, and one statement that folds new events into it
CREATE TABLE customer_totals (customer text PRIMARY KEY, orders bigint, total numeric);
SELECT report.define('customer_totals', $$
    INSERT INTO public.customer_totals AS t
    SELECT data ->> 'customer', count(*), sum((data ->> 'total')::numeric)
      FROM new_events
     WHERE event_type = 'OrderPlaced'
     GROUP BY 1
    ON CONFLICT (customer) DO UPDATE
       SET orders = t.orders + excluded.orders, total = t.total + excluded.total
$$, target => 'customer_totals');

INSERT INTO orders VALUES (1, 'Ada', 12.50), (2, 'Grace', 8), (3, 'Ada', 3);
SELECT outbox.wait_published();
SELECT report.wait_applied();
TABLE customer_totals ORDER BY customer;
