-- What outbox.status and report.status say, and how.
SET client_min_messages = error;
-- the same concerns in the same order; each has a row when all is in order
SELECT schemaname,
       ARRAY(SELECT m[2] FROM regexp_matches(definition, 'SELECT (\d+)(?: AS place| AS "\?column\?")?,\s+''([a-z ]+)''', 'g') WITH ORDINALITY AS r (m, n)
              GROUP BY m[1], m[2] ORDER BY m[1]::integer) AS concerns
  FROM pg_views WHERE viewname = 'status' AND schemaname IN ('outbox', 'report') ORDER BY schemaname;
SELECT array_agg(concern) AS both FROM outbox.library_concerns(true, '');
-- messages are sentences
SELECT message FROM outbox.status WHERE message !~ '^[A-Z0-9].*\.$' UNION SELECT message FROM report.status WHERE message !~ '^[A-Z0-9].*\.$';
SELECT outbox.sentence(m) FROM unnest(ARRAY['the broker is away', 'It is away.', 'carshop_outbox.topic is wrong', 'localhost:9092: refused', '']) m;

-- a segment that should be empty is late, and named
SELECT segment, current, empty_after IS NULL AS stays, late_since IS NULL AS in_time, held_by FROM outbox.segments ORDER BY segment;
SELECT level, regexp_replace(message, 'takes \S+ \S+;', 'takes …;') AS message FROM outbox.status WHERE concern = 'retention';

-- a remedy changes a setting where it is set
SET carshop_outbox.delivery = at_least_once;
SELECT level, remedy FROM outbox.status WHERE concern = 'delivery';
RESET carshop_outbox.delivery;
SELECT format('ALTER DATABASE %I SET carshop_outbox.delivery = at_least_once', current_database()) \gexec
\c
SELECT level, replace(remedy, format('%I', current_database()), '<this>') AS remedy FROM outbox.status WHERE concern = 'delivery';
SELECT format('ALTER DATABASE %I RESET carshop_outbox.delivery', current_database()) \gexec
\c
SELECT level, remedy FROM outbox.status WHERE concern = 'delivery';

-- a list of databases is added to, and no name stands in it twice
SELECT replace(outbox.name_database_remedy('carshop_outbox.shop_databases'), quote_ident(current_database()), '<this>');
-- a list as the workers read it: quotes or not, case counts
SELECT replace(list, current_database(), '<this>') AS list, current_database()::text = ANY (outbox.list_names(list)) AS names_database
  FROM (SELECT unnest(ARRAY['%s', ' x ,%s ', '"%s"', 'x,"%s" , y', '"x,%s"', '"%s""', '"%s"""', '%sx', '']) AS form) f
       CROSS JOIN LATERAL (SELECT format(form, current_database()) AS list) l;

-- nothing is published from here: in order as long as there is nothing to publish
SELECT level, replace(message, current_database(), '<this>') AS message, replace(remedy, quote_ident(current_database()), '<this>') AS remedy
  FROM outbox.status WHERE concern = 'relay';

-- metrics: names in Prometheus' form, labels objects of strings, counters end in _total
SELECT name, count(*), min(labels::text) AS labels FROM outbox.metrics WHERE name <> 'outbox_info' GROUP BY name ORDER BY name;
SELECT DISTINCT name FROM report.metrics ORDER BY name;
SELECT name FROM (TABLE outbox.metrics UNION ALL TABLE report.metrics) m
 WHERE name !~ '^outbox_[a-z_]+$' OR jsonb_typeof(labels) <> 'object' OR EXISTS (SELECT FROM jsonb_each(labels) WHERE jsonb_typeof(value) <> 'string');
SELECT array_agg(k ORDER BY k) AS info FROM outbox.metrics, jsonb_object_keys(labels) k WHERE name = 'outbox_info';
