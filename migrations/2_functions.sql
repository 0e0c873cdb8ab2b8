-- What the parts may do beyond plain rows, as functions with the rights of the schema's owner.

-- Makes the partitions of `events` for the UTC days that [from_day, to_day] touches. Safe to call again, and from several workers.
CREATE FUNCTION ensure_event_partitions(from_day date, to_day date) RETURNS void
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
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION ensure_event_partitions(date, date) FROM PUBLIC;

-- Makes the partition of `event_ids` for the UUIDv7 of a UTC day. Safe to call again, and from several workers.
CREATE FUNCTION ensure_event_id_partition(day date) RETURNS void
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
END
$$;
REVOKE ALL ON FUNCTION ensure_event_id_partition(date) FROM PUBLIC;

-- The partitions of `parent` that hold a day, and how large they are.
CREATE FUNCTION partitions_by_day(parent regclass) RETURNS TABLE (day date, partition regclass, bytes bigint)
LANGUAGE sql STABLE AS $$
    SELECT to_date(right(child.relname, 8), 'YYYYMMDD'), child.oid::regclass, pg_total_relation_size(child.oid)
    FROM pg_inherits
    JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
    WHERE pg_inherits.inhparent = parent AND child.relname ~ '_[0-9]{8}$'
    ORDER BY 1
$$;

-- Forgets the events that were received before a UTC day, but for their sums. Answers how many days it forgot.
CREATE FUNCTION forget_events(first_day_kept date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    old       record;
    forgotten integer := 0;
BEGIN
    FOR old IN SELECT * FROM partitions_by_day('events') WHERE day < first_day_kept LOOP
        -- Nobody adds a row between the sum and the end.
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', old.partition);
        EXECUTE format(
            'INSERT INTO forgotten (tenant, source, events, tokens)
             SELECT tenant, ''events'', count(*), sum(tokens) FROM %s GROUP BY tenant ORDER BY tenant
             ON CONFLICT (tenant, source) DO UPDATE
             SET events = forgotten.events + EXCLUDED.events, tokens = forgotten.tokens + EXCLUDED.tokens',
            old.partition
        );
        EXECUTE format('DROP TABLE %s', old.partition);
        forgotten := forgotten + 1;
    END LOOP;
    RETURN forgotten;
END
$$;
REVOKE ALL ON FUNCTION forget_events(date) FROM PUBLIC;

-- Forgets the UUIDv7 that were made before a UTC day. Answers how many days it forgot.
CREATE FUNCTION forget_event_ids(first_day_kept date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    old       record;
    forgotten integer := 0;
BEGIN
    FOR old IN SELECT * FROM partitions_by_day('event_ids') WHERE day < first_day_kept LOOP
        EXECUTE format('DROP TABLE %s', old.partition);
        forgotten := forgotten + 1;
    END LOOP;
    RETURN forgotten;
END
$$;
REVOKE ALL ON FUNCTION forget_event_ids(date) FROM PUBLIC;

-- Tells the api that its picture of the tenants is old.
CREATE FUNCTION tenants_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('flagmeter_tenants', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER tenants_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tenants
    FOR EACH STATEMENT EXECUTE FUNCTION tenants_changed();
