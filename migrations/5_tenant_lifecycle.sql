-- How a tenant ends: what is kept of it goes in small steps, and a sweep that is in doubt asks a person.

-- Since when all that is kept of the tenant is being deleted. From then on nothing is counted for it: what still waits in
-- the queue goes to dead_letters. The row itself goes last, and with it the id becomes free.
ALTER TABLE tenants ADD COLUMN deletion_started_at timestamptz;

ALTER TABLE tenant_changes DROP CONSTRAINT tenant_changes_kind_check;
ALTER TABLE tenant_changes ADD CONSTRAINT tenant_changes_kind_check CHECK (kind IN (
    'created', 'changed', 'drift_repaired', 'detached', 'adopted', 'deletion_started', 'deleted'
));

-- Sweeps that would have detached so many tenants of a namespace at once that they were not believed.
CREATE TABLE refused_sweeps (
    -- Empty where the operator watches all namespaces.
    namespace      text        PRIMARY KEY,
    -- How many tenants seemed to be gone when it was last looked, of how many.
    gone           bigint      NOT NULL,
    known          bigint      NOT NULL,
    refused_at     timestamptz NOT NULL DEFAULT now(),
    -- A person has said that so many may really be gone, and who said so.
    confirmed      bigint,
    confirmed_by   text,
    confirmed_at   timestamptz
);

-- Where rows of tenants are: every table that has a column `tenant`, and of a partitioned one its partitions. A table that is
-- added later is among them by itself. The trail of changes is not: it says that there was such a tenant.
CREATE FUNCTION tenant_relations() RETURNS TABLE (relation regclass, pages bigint, partition boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT class.oid::regclass,
           COALESCE(pg_relation_size(class.oid), 0) / current_setting('block_size')::bigint,
           class.relispartition
    FROM pg_class AS class
    JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid
    WHERE attribute.attname = 'tenant'
      AND NOT attribute.attisdropped
      AND class.relkind = 'r'
      AND class.relnamespace = current_schema()::regnamespace
      AND class.relname <> 'tenant_changes'
    ORDER BY class.relname
$$;
REVOKE ALL ON FUNCTION tenant_relations() FROM PUBLIC;

-- Deletes at most `most` rows of a tenant whose deletion has begun; answers how many. A partition has no index by tenant, so
-- of it only the pages from `first_page` to before `end_page` are read.
CREATE FUNCTION delete_tenant_rows(doomed text, place text, first_page bigint, end_page bigint, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    started   timestamptz := (SELECT deletion_started_at FROM tenants WHERE id = doomed);
    target    record;
    condition text := '';
    deleted   bigint;
BEGIN
    IF started IS NULL THEN
        RAISE EXCEPTION 'the deletion of tenant % has not begun', doomed;
    END IF;
    SELECT * INTO target FROM tenant_relations() AS known WHERE known.relation = to_regclass(place);
    IF NOT FOUND THEN
        -- A partition whose time has come is dropped while this goes on.
        RETURN 0;
    END IF;
    IF target.partition THEN
        condition := format('AND ctid >= %L::tid AND ctid < %L::tid', format('(%s,0)', first_page), format('(%s,0)', end_page));
    ELSIF target.relation = 'dead_letters'::regclass THEN
        -- Those that came afterwards are all there is to say of events that were taken in and not counted.
        condition := format('AND created_at < %L::timestamptz', started);
    END IF;
    EXECUTE format(
        'DELETE FROM %1$s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$s WHERE tenant = $1 %2$s LIMIT $2))',
        target.relation, condition
    ) USING doomed, most;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
REVOKE ALL ON FUNCTION delete_tenant_rows(text, text, bigint, bigint, integer) FROM PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_operator') THEN
        GRANT EXECUTE ON FUNCTION tenant_relations(), delete_tenant_rows(text, text, bigint, bigint, integer)
            TO flagmeter_operator;
        GRANT SELECT, INSERT, UPDATE, DELETE ON refused_sweeps TO flagmeter_operator;
    END IF;
END
$$;
