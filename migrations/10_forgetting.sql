-- The right to look for old ids where those lie that have no time in them. The worker deletes them through event_ids, for
-- which it has the right, but finds them by the partition itself; refused there, it forgot neither these ids, nor applied
-- batches, nor minutes.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_worker') THEN
        GRANT SELECT ON event_ids_others TO flagmeter_worker;
    END IF;
END
$$;
