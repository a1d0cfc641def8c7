-- The car shop's tables as its application makes them, and their routes.
SET client_min_messages = error;	-- the warning that no relay works here names the database
CREATE EXTENSION carshop_outbox;
CREATE TABLE "Cars" ("Number" integer PRIMARY KEY, "Engine" text);
CREATE TABLE "Customers" ("Name" text PRIMARY KEY, "LegPower" integer, "HandPower" integer,
    "CarNumber" integer NULL REFERENCES "Cars");
SELECT outbox.capture_car_shop();
SELECT source, event_type, operation, condition, key, format FROM outbox.routes ORDER BY trigger_name;

INSERT INTO "Cars" VALUES (1, '{"$type":"PedalEngineEntity","PedalSize":3}'),
                          (7, '{"$type":"HandEngineEntity"}');
INSERT INTO "Customers" VALUES ('Ann', 3, 4, NULL);
-- becomes non-null by update
UPDATE "Customers" SET "CarNumber" = 1 WHERE "Name" = 'Ann';
-- is non-null already: no sale
UPDATE "Customers" SET "CarNumber" = 7 WHERE "Name" = 'Ann';
UPDATE "Customers" SET "LegPower" = 9 WHERE "Name" = 'Ann';
-- becomes non-null by insert
INSERT INTO "Customers" VALUES ('Bob', 1, 2, 7);
-- nothing of what is rolled back
BEGIN;
INSERT INTO "Cars" VALUES (8, NULL);
ROLLBACK;
BEGIN;
INSERT INTO "Cars" VALUES (9, NULL);
SAVEPOINT s;
INSERT INTO "Cars" VALUES (10, NULL);
ROLLBACK TO s;
INSERT INTO "Cars" VALUES (11, NULL);
COMMIT;

SELECT type, aggregatetype, aggregateid, description, payload, topic, headers, format
  FROM outbox.event ORDER BY seq;
-- order and identity
SELECT count(*) = count(DISTINCT id) AS ids_differ,
       bool_and(substr(id::text, 15, 1) = '7') AS version_7,
       count(DISTINCT xid) AS transactions
  FROM outbox.event;

SELECT outbox.release('"Customers"', 'CarSold');
SELECT outbox.release('"Customers"');
SELECT source, event_type, operation FROM outbox.routes;

-- other names of the tables
ALTER TABLE "Cars" RENAME TO cars_2;
SELECT outbox.capture_car_shop();
SELECT outbox.capture_car_shop(cars => 'cars_2', customers => '"Customers"');

DROP TABLE "Customers", cars_2;
SELECT count(*) FROM outbox.routes;
