-- docker/shop.sql - after demo/car_shop.sql, in the database shop of a new cluster.
CREATE EXTENSION carshop_outbox;
SELECT outbox.capture_car_shop();
SELECT report.create_car_shop();

-- Who sells cars needs no right on anything of the extension.
CREATE ROLE seller LOGIN PASSWORD 'seller';
GRANT SELECT, INSERT ON "Cars", "Customers" TO seller;
