-- docker/writer.sql - each second a new car, and a new customer who has bought it.
WITH car AS (
    INSERT INTO "Cars" ("Number", "Engine")
    SELECT coalesce(max("Number"), 0) + 1,
           CASE WHEN random() < 0.5 THEN '{"$type":"PedalEngineEntity","PedalSize":3}'
                ELSE '{"$type":"HandEngineEntity"}' END
      FROM "Cars"
    RETURNING "Number"
)
INSERT INTO "Customers" ("Name", "LegPower", "HandPower", "CarNumber")
SELECT 'Customer ' || "Number", 70, 30, "Number" FROM car
RETURNING "Name" || ' has bought car ' || "CarNumber"
\watch 1
