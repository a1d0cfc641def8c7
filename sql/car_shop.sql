-- sql/car_shop.sql: the example. Nothing else in the extension depends on it.

--
-- The routes
--

CREATE FUNCTION outbox.capture_car_shop(
	cars regclass DEFAULT to_regclass('public."Cars"'),
	customers regclass DEFAULT to_regclass('public."Customers"'))
RETURNS SETOF text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $car_shop$
BEGIN
	IF cars IS NULL OR customers IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'OB001',
			MESSAGE = 'the car shop''s tables are missing',
			DETAIL = 'Expected are public."Cars" and public."Customers", as the application''s ORM makes them.',
			HINT = 'Name others: outbox.capture_car_shop(cars => ..., customers => ...).';
	END IF;
	RETURN QUERY SELECT outbox.capture(cars, 'CarAdded', key => '{Number}');
	RETURN QUERY SELECT outbox.capture(customers, 'CustomerAdded', key => '{Name}');
	RETURN QUERY SELECT outbox.capture(customers, 'CarSold', 'insert', key => '{CarNumber}',
		condition => 'NEW."CarNumber" IS NOT NULL');
	RETURN QUERY SELECT outbox.capture(customers, 'CarSold', 'update', key => '{CarNumber}',
		condition => 'OLD."CarNumber" IS NULL AND NEW."CarNumber" IS NOT NULL');
END
$car_shop$;
COMMENT ON FUNCTION outbox.capture_car_shop(regclass, regclass) IS
'The car shop''s routes: CarAdded, CustomerAdded, CarSold';
REVOKE ALL ON FUNCTION outbox.capture_car_shop(regclass, regclass) FROM PUBLIC;

--
-- The reports
--

-- What the car of a sale was: CarSold carries the customer only.
CREATE INDEX reported_events_car_number ON report.reported_events
	((data ->> 'Number'), log_seq) WHERE event_type = 'CarAdded';
COMMENT ON INDEX report.reported_events_car_number IS 'CarAdded events by car, for report.sales_by_day';

CREATE FUNCTION report.create_car_shop()
	RETURNS SETOF text LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $function$
BEGIN
	PERFORM report.define_select('events_by_day', $query$
SELECT (occurred_on AT TIME ZONE 'UTC')::date AS day, event_type, count(*) AS events
FROM new_events
GROUP BY 1, 2
$query$, 'report.events_by_day', 'Events of each type per day (UTC)');
	RETURN NEXT 'events_by_day';

	IF to_regclass('report.cars') IS NULL THEN
		CREATE TABLE report.cars (
			number		integer NOT NULL PRIMARY KEY,
			engine		text,
			pedal_size	integer,
			added_on	timestamptz,
			sold_on		timestamptz,
			customer	text
		);
		COMMENT ON TABLE report.cars IS 'Every car: its engine ($type without "EngineEntity", in lower case: pedal, hand), when it was added, when and to whom it was sold last';
	END IF;
	-- The newest value that is known wins: input of the aggregates is ordered
	-- by log_seq, and the last element of each array is taken.
	PERFORM report.define('cars', $statement$
INSERT INTO report.cars AS t
	(number, engine, pedal_size, added_on, sold_on, customer)
SELECT number,
	(array_agg(engine) FILTER (WHERE engine <> ''))[(count(*) FILTER (WHERE engine <> ''))::integer],
	(array_agg(pedal_size) FILTER (WHERE pedal_size IS NOT NULL))[count(pedal_size)::integer],
	(array_agg(added_on) FILTER (WHERE added_on IS NOT NULL))[count(added_on)::integer],
	(array_agg(sold_on) FILTER (WHERE sold_on IS NOT NULL))[count(sold_on)::integer],
	(array_agg(customer) FILTER (WHERE customer IS NOT NULL))[count(customer)::integer]
FROM (
	SELECT (data ->> 'Number')::integer AS number, log_seq,
		lower(replace(split_part(split_part(split_part(split_part(replace(
			data ->> 'Engine', ' ', ''), '"$type":"', 2), '"', 1), ',', 1), '.', -1), 'EngineEntity', '')) AS engine,
		NULLIF(split_part(split_part(split_part(replace(
			data ->> 'Engine', ' ', ''), '"PedalSize":', 2), ',', 1), '}', 1), '')::integer AS pedal_size,
		occurred_on AS added_on, NULL::timestamptz AS sold_on, NULL::text AS customer
	FROM new_events WHERE event_type = 'CarAdded'
	UNION ALL
	SELECT (data ->> 'CarNumber')::integer, log_seq, NULL, NULL,
		NULL, occurred_on, data ->> 'Name'
	FROM new_events WHERE event_type = 'CarSold'
	ORDER BY 1, 2
) e
WHERE number IS NOT NULL
GROUP BY number
ON CONFLICT (number) DO UPDATE SET
	engine = COALESCE(excluded.engine, t.engine),
	pedal_size = COALESCE(excluded.pedal_size, t.pedal_size),
	added_on = COALESCE(excluded.added_on, t.added_on),
	sold_on = COALESCE(excluded.sold_on, t.sold_on),
	customer = COALESCE(excluded.customer, t.customer)
$statement$, 'report.cars', 'every car, when it was added, when and to whom it was sold');
	RETURN NEXT 'cars';

	IF to_regclass('report.customers') IS NULL THEN
		CREATE TABLE report.customers (
			name		text NOT NULL PRIMARY KEY,
			leg_power	integer,
			hand_power	integer,
			added_on	timestamptz,
			cars		bigint NOT NULL
		);
		COMMENT ON TABLE report.customers IS 'Every customer: powers as last reported, when added, how many cars bought';
	END IF;
	PERFORM report.define('customers', $statement$
INSERT INTO report.customers AS t (name, leg_power, hand_power, added_on, cars)
SELECT name,
	(array_agg(leg_power) FILTER (WHERE leg_power IS NOT NULL))[count(leg_power)::integer],
	(array_agg(hand_power) FILTER (WHERE hand_power IS NOT NULL))[count(hand_power)::integer],
	(array_agg(added_on) FILTER (WHERE added_on IS NOT NULL))[count(added_on)::integer],
	count(*) FILTER (WHERE event_type = 'CarSold')
FROM (
	SELECT log_seq, event_type,
		data ->> 'Name' AS name,
		(data ->> 'LegPower')::integer AS leg_power,
		(data ->> 'HandPower')::integer AS hand_power,
		CASE event_type WHEN 'CustomerAdded' THEN occurred_on END AS added_on
	FROM new_events
	WHERE event_type IN ('CustomerAdded', 'CarSold')
	ORDER BY data ->> 'Name', log_seq
) e
WHERE name IS NOT NULL
GROUP BY name
ON CONFLICT (name) DO UPDATE SET
	leg_power = COALESCE(excluded.leg_power, t.leg_power),
	hand_power = COALESCE(excluded.hand_power, t.hand_power),
	added_on = COALESCE(excluded.added_on, t.added_on),
	cars = t.cars + excluded.cars
$statement$, 'report.customers', 'every customer and how many cars were bought');
	RETURN NEXT 'customers';

	-- The engine is what the event log knew before the sale: so the result
	-- depends on nothing but the log, however it is cut into batches.
	PERFORM report.define_select('sales_by_day', $query$
SELECT (s.occurred_on AT TIME ZONE 'UTC')::date AS day,
	COALESCE(NULLIF(lower(replace(split_part(split_part(split_part(split_part(replace(
		c.engine, ' ', ''), '"$type":"', 2), '"', 1), ',', 1), '.', -1), 'EngineEntity', '')), ''), 'unknown') AS engine,
	count(*) AS cars_sold
FROM new_events s
LEFT JOIN LATERAL (
	SELECT a.data ->> 'Engine' AS engine
	FROM report.reported_events a
	WHERE a.event_type = 'CarAdded'
		AND (a.data ->> 'Number') = (s.data ->> 'CarNumber')
		AND a.log_seq < s.log_seq
	ORDER BY a.log_seq DESC
	LIMIT 1
) c ON true
WHERE s.event_type = 'CarSold'
GROUP BY 1, 2
$query$, 'report.sales_by_day', 'Cars sold per day (UTC) and engine; unknown: no CarAdded of that car came before');
	RETURN NEXT 'sales_by_day';
END
$function$;
COMMENT ON FUNCTION report.create_car_shop() IS 'Makes the car shop''s reports: events_by_day, cars, customers, sales_by_day';
REVOKE ALL ON FUNCTION report.create_car_shop() FROM PUBLIC;
