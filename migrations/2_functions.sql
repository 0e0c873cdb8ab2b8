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

-- Tells the api that its picture of the tenants is old.
CREATE FUNCTION tenants_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('flagmeter_tenants', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER tenants_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tenants
    FOR EACH STATEMENT EXECUTE FUNCTION tenants_changed();
