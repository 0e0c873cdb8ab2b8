-- The keys that clients show. What is kept of a key is its hash: whoever reads this table can use none.
CREATE TABLE api_keys (
    -- SHA-256 of the key's text. A key is 256 random bits, so its hash needs neither salt nor slowness.
    hash       bytea       PRIMARY KEY CHECK (length(hash) = 32),
    tenant     text        NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    -- What it may be used for.
    scopes     text[]      NOT NULL DEFAULT '{ingest,read}'
        CHECK (cardinality(scopes) > 0 AND scopes <@ '{ingest,read}'),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- From then on it is worth nothing. NULL: the key that the tenant's Secret holds.
    expires_at timestamptz
);
-- Serves the operator, which compares a tenant's keys with its Secret, and the deletion of a tenant.
CREATE INDEX api_keys_by_tenant ON api_keys (tenant);

-- Tells the api, which reads the keys with the tenants, that its picture of them is old.
CREATE TRIGGER api_keys_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION tenants_changed();

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_api') THEN
        GRANT SELECT ON api_keys TO flagmeter_api;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_operator') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys TO flagmeter_operator;
    END IF;
END
$$;
