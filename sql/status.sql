----------------------------------------------------------------------------
-- Seeing: the relay
----------------------------------------------------------------------------

CREATE FUNCTION outbox.relay_report(
    OUT pid integer, OUT state text, OUT since timestamptz, OUT stopped boolean,
    OUT trouble text, OUT remedy text, OUT broker_warning text,
    OUT tick bigint, OUT confirmed_tick bigint,
    OUT events_published bigint, OUT bytes_published bigint, OUT transactions bigint,
    OUT last_transaction_ms double precision, OUT settle_ms double precision,
    OUT errors bigint, OUT last_error text, OUT last_error_at timestamptz,
    OUT stats_reset timestamptz, OUT preloaded boolean, OUT wanted boolean)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_relay_report';
COMMENT ON FUNCTION outbox.relay_report() IS 'What this database''s relay says about itself; use outbox.stat_relay';
REVOKE ALL ON FUNCTION outbox.relay_report() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.relay_report() TO pg_monitor;

CREATE VIEW outbox.unconfirmed AS
    WITH confirmed AS (
        SELECT t.snapshot FROM outbox.tick t
         WHERE t.tick_id = (SELECT GREATEST(max(n.confirmed_tick),
                                            (SELECT r.confirmed_tick FROM outbox.relay_report() r))
                              FROM outbox.tick n)
    ), waiting AS (
        SELECT e.seq, e.occurred_at FROM outbox.event e
         WHERE e.xid >= (SELECT pg_snapshot_xmin(snapshot) FROM confirmed)
           AND NOT pg_visible_in_snapshot(e.xid, (SELECT snapshot FROM confirmed))
        UNION ALL
        SELECT e.seq, e.occurred_at FROM outbox.event e
         WHERE NOT EXISTS (SELECT FROM confirmed)
    )
    SELECT count(*) AS events, min(occurred_at) AS oldest
      FROM waiting w
     WHERE NOT EXISTS (SELECT FROM outbox.dead_letter d WHERE d.seq = w.seq);
COMMENT ON VIEW outbox.unconfirmed IS
'Events not known to be in Kafka and the oldest one''s time; counts them, so it costs time in proportion to the backlog';

CREATE VIEW outbox.stat_relay AS
    SELECT r.pid, r.state, r.since, l.lineage, r.tick, r.confirmed_tick,
           u.events AS unconfirmed_events, clock_timestamp() - u.oldest AS oldest_unconfirmed,
           r.events_published, r.bytes_published, r.transactions,
           (SELECT count(*) FROM outbox.dead_letter) AS dead_letters,
           r.last_transaction_ms, r.settle_ms, r.errors, r.last_error, r.last_error_at,
           r.stats_reset
      FROM outbox.relay_report() r
     CROSS JOIN outbox.lineage l
     CROSS JOIN outbox.unconfirmed u;
COMMENT ON VIEW outbox.stat_relay IS
'The relay of this database: state, progress, counters since stats_reset or its start';

CREATE FUNCTION outbox.stat_reset() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'outbox_stat_reset';
COMMENT ON FUNCTION outbox.stat_reset() IS 'Sets the counters of outbox.stat_relay to zero';
REVOKE ALL ON FUNCTION outbox.stat_reset() FROM PUBLIC;

CREATE VIEW outbox.status AS
    WITH r AS (SELECT * FROM outbox.relay_report()),
    rows AS (
        SELECT 'preload' AS concern, 'fail' AS level,
               'The library is not preloaded: events are stored and nothing publishes them.' AS message,
               'Put shared_preload_libraries = ''carshop_outbox'' into postgresql.conf and restart the server.' AS remedy
          FROM r WHERE NOT preloaded
        UNION ALL
        SELECT 'relay', CASE WHEN EXISTS (SELECT FROM outbox.routes) THEN 'fail' ELSE 'warn' END,
               format('carshop_outbox.shop_databases does not name database "%s": its events are stored and not published.', current_database()),
               format('ALTER SYSTEM SET carshop_outbox.shop_databases = ''%s''; SELECT pg_reload_conf();',
                      concat_ws(',', NULLIF(current_setting('carshop_outbox.shop_databases'), ''), current_database()))
          FROM r WHERE preloaded AND NOT wanted
        UNION ALL
        SELECT 'relay', 'fail', 'The relay is not running.',
               'See the server''s log; raise max_worker_processes if all slots are in use.'
          FROM r WHERE preloaded AND wanted AND pid IS NULL
        UNION ALL
        SELECT 'divergence', 'fail', trouble, remedy
          FROM r WHERE pid IS NOT NULL AND stopped
        UNION ALL
        SELECT 'kafka', 'fail', trouble, remedy
          FROM r WHERE pid IS NOT NULL AND NOT stopped AND trouble IS NOT NULL
        UNION ALL
        SELECT 'kafka', 'warn', broker_warning,
               'Allow the relay''s principal DescribeConfigs on the cluster, or check transaction.partition.verification.enable yourself.'
          FROM r WHERE pid IS NOT NULL AND broker_warning IS NOT NULL
        UNION ALL
        SELECT 'delivery', 'warn',
               'delivery = at_least_once: events may be doubled, torn or out of order after a crash.',
               'ALTER SYSTEM SET carshop_outbox.delivery = ''exactly_once''; SELECT pg_reload_conf();'
          FROM r WHERE preloaded AND wanted AND current_setting('carshop_outbox.delivery') = 'at_least_once'
        UNION ALL
        SELECT 'paused', 'warn', 'Publishing is paused; events are stored.', 'SELECT outbox.resume();'
          FROM outbox.lineage WHERE paused
        UNION ALL
        SELECT 'dead letters', 'warn', format('Kafka refuses %s event(s) for good.', count(*)),
               'SELECT * FROM outbox.dead_letters;'
          FROM outbox.dead_letter HAVING count(*) > 0
        UNION ALL
        SELECT 'sequence', 'fail', 'outbox.event_seq has a cache: the order per key is not kept.',
               'ALTER SEQUENCE outbox.event_seq CACHE 1;'
          FROM pg_sequence WHERE seqrelid = 'outbox.event_seq'::regclass AND seqcache <> 1
        UNION ALL
        SELECT 'backlog', 'warn',
               format('%s event(s) wait for Kafka, the oldest for %s.', events,
                      date_trunc('second', clock_timestamp() - oldest)),
               'SELECT * FROM outbox.stat_relay;'
          FROM outbox.unconfirmed
         WHERE clock_timestamp() - oldest > interval '1 minute'
        UNION ALL
        SELECT 'relay', 'ok', format('The relay is %s.', state), NULL
          FROM r WHERE pid IS NOT NULL AND NOT stopped AND trouble IS NULL
    )
    SELECT concern, level, message, remedy FROM rows
     ORDER BY CASE level WHEN 'fail' THEN 0 WHEN 'warn' THEN 1 ELSE 2 END, concern;
COMMENT ON VIEW outbox.status IS 'What is wrong with publishing, worst first, and what to do about it';

----------------------------------------------------------------------------
-- Rights
----------------------------------------------------------------------------

-- Writers of captured tables need nothing.  Members of pg_monitor see the
-- state and not the events.
GRANT SELECT ON outbox.status, outbox.stat_relay, outbox.routes TO pg_monitor;

DO $warn$
BEGIN
    IF NOT (SELECT preloaded FROM outbox.relay_report()) THEN
        RAISE WARNING USING
            MESSAGE = 'carshop_outbox is not preloaded: events will be stored, and nothing publishes or reads them',
            HINT = 'Put shared_preload_libraries = ''carshop_outbox'' into postgresql.conf and restart the server.';
    END IF;
END
$warn$;

-- a worker that waits for the extension looks again at once
SELECT outbox.wake();
