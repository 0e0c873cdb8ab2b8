-- No function of this schema looks into a caller's temporary schema first.
--
-- PostgreSQL looks for a table in the temporary schema before any other, even before pg_catalog, unless the search path
-- names pg_temp at its end. A function with its owner's rights would otherwise run a caller's view in the place of a
-- catalogue, and the functions in it, as the owner (PostgreSQL 18, "CREATE FUNCTION", section "Writing SECURITY DEFINER
-- Functions Safely"). pg_catalog comes first where a path does not name it, and new tables belong into this schema.
DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT pg_proc.oid::regprocedure
        FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace
          -- What else is in the schema is not FlagMeter's to change.
          AND proname IN (
              'delete_tenant_rows', 'ensure_event_id_partition', 'ensure_event_partitions', 'forget_event_ids',
              'forget_events', 'let_workers_copy_into', 'other_ids_by_day', 'partitions_by_day', 'tenant_relations',
              'tenants_changed'
          )
          AND proowner = current_user::regrole
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', function, current_schema());
    END LOOP;
END
$$;

-- Nothing in FlagMeter needs temporary tables. Where the database has another owner the right stays, and
-- `flagmeter migrate` says so.
DO $$
BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$$;
