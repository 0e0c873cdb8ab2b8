-- A worker copies into a partition by its name, since PostgreSQL needs a tenth of a COPY's time to find it for each row.
-- A right to the partitioned table is none to its partitions, so each comes with one.

CREATE FUNCTION let_workers_copy_into(partition text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_worker') THEN
        EXECUTE format('GRANT INSERT ON %I TO flagmeter_worker', partition);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION let_workers_copy_into(text) FROM PUBLIC;

-- As they were, but for the right.
CREATE OR REPLACE FUNCTION ensure_event_partitions(from_day date, to_day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET client_min_messages = warning AS $$
DECLARE
    day  date;
    name text;
BEGIN
    IF to_day - from_day > 60 THEN
        RAISE EXCEPTION 'at most 60 days at once';
    END IF;
    FOR day IN SELECT generate_series(from_day, to_day, '1 day')::date LOOP
        name := 'events_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(quote_ident(name)) IS NOT NULL;
        -- Two workers at midnight: the second waits here. That another has made the table meanwhile is seen
        -- only by IF NOT EXISTS: waiting for an advisory lock does not refresh the cache of the catalogue.
        PERFORM pg_advisory_xact_lock(hashtext('flagmeter.ensure_event_partitions'));
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)',
            name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
        );
        PERFORM let_workers_copy_into(name);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION ensure_event_id_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET client_min_messages = warning AS $$
DECLARE
    name text := 'event_ids_' || to_char(day, 'YYYYMMDD');
    -- A UUIDv7 starts with its milliseconds since 1970, in 48 bits (RFC 9562, section 5.7).
    ms   bigint := extract(epoch FROM day::timestamp AT TIME ZONE 'UTC')::bigint * 1000;
BEGIN
    IF day < date '2000-01-01' OR day > date '2200-01-01' THEN
        RAISE EXCEPTION 'no UUIDv7 of such a day is taken';
    END IF;
    IF to_regclass(quote_ident(name)) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('flagmeter.ensure_event_partitions'));
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS %I PARTITION OF event_ids FOR VALUES FROM (%L) TO (%L)',
        name,
        (lpad(to_hex(ms), 12, '0') || repeat('0', 20))::uuid,
        (lpad(to_hex(ms + 86400000), 12, '0') || repeat('0', 20))::uuid
    );
    PERFORM let_workers_copy_into(name);
END
$$;

SELECT let_workers_copy_into(child.relname)
FROM pg_inherits
JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
WHERE pg_inherits.inhparent IN ('events'::regclass, 'event_ids'::regclass);
