-- The least that each part needs, for installations that give each a role of its own.
-- A role that does not exist is left out: then the parts share the owner's role.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_api') THEN
        GRANT SELECT ON tenants, usage_periods, usage_features, rollups, _sqlx_migrations TO flagmeter_api;
        -- For the look-up of one event.
        GRANT SELECT ON events, event_ids, event_conflicts, dead_letters TO flagmeter_api;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_worker') THEN
        GRANT SELECT ON tenants, _sqlx_migrations TO flagmeter_worker;
        -- FOR SHARE asks for a right to write. Nothing in a tenant's settings hangs on this column.
        GRANT UPDATE (updated_at) ON tenants TO flagmeter_worker;
        GRANT SELECT, INSERT ON events, dead_letters, event_conflicts TO flagmeter_worker;
        GRANT SELECT, INSERT, DELETE ON applied_batches, event_ids TO flagmeter_worker;
        GRANT SELECT, INSERT, UPDATE ON usage_periods, usage_features, forgotten TO flagmeter_worker;
        GRANT SELECT, INSERT, UPDATE, DELETE ON rollups TO flagmeter_worker;
        GRANT EXECUTE ON FUNCTION ensure_event_partitions(date, date), ensure_event_id_partition(date),
            forget_events(date), forget_event_ids(date)
            TO flagmeter_worker;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_operator') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON tenants, slack_webhooks TO flagmeter_operator;
        GRANT SELECT, INSERT ON tenant_changes TO flagmeter_operator;
        GRANT SELECT ON usage_periods, usage_features, _sqlx_migrations TO flagmeter_operator;
    END IF;
END
$$;
