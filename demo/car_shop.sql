-- The car shop's tables, exactly as its ORM makes them.
CREATE TABLE public."Cars" (
    "Number" integer PRIMARY KEY,
    "Engine" text
);
CREATE TABLE public."Customers" (
    "Name" text PRIMARY KEY,
    "LegPower" integer,
    "HandPower" integer,
    "CarNumber" integer NULL REFERENCES public."Cars"
);
