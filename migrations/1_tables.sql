-- Everything FlagMeter keeps. Instants are timestamptz, token counts are JSON-safe integers (below 2^53).

-- One row a Tenant resource; the operator writes it, everybody else reads it.
CREATE TABLE tenants (
    id              text        PRIMARY KEY CHECK (id ~ '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$'),
    name            text        NOT NULL CHECK (length(name) BETWEEN 1 AND 256),
    monthly_quota   bigint      NOT NULL CHECK (monthly_quota BETWEEN 1 AND 9007199254740991),
    billing_day     smallint    NOT NULL CHECK (billing_day BETWEEN 1 AND 31),
    time_zone       text        NOT NULL CHECK (length(time_zone) BETWEEN 1 AND 64),
    -- The resource that owns the row. Of two resources that claim one id, the older one does.
    owner_namespace text        NOT NULL,
    owner_uid       text        NOT NULL,
    -- Set when the resource was deleted and its usage kept. A detached tenant takes no events.
    detached_at     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- Where a tenant's alerts go.
CREATE TABLE slack_webhooks (
    tenant     text        PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    -- AES-256-GCM: a nonce of 12 bytes, the ciphertext, a tag of 16; the tenant's id is the associated data.
    url        bytea       NOT NULL CHECK (length(url) BETWEEN 28 AND 4096),
    enabled    boolean     NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Who changed what: the trail of settings and of repaired drift. A webhook's URL never appears in it.
CREATE TABLE tenant_changes (
    id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text        NOT NULL,
    at     timestamptz NOT NULL DEFAULT now(),
    actor  text        NOT NULL,
    kind   text        NOT NULL CHECK (kind IN ('created', 'changed', 'drift_repaired', 'detached', 'adopted')),
    before jsonb,
    after  jsonb
);
CREATE INDEX tenant_changes_by_tenant ON tenant_changes (tenant, id);

-- What was counted, event by event. No unique key of its own: applied_batches and event_ids decide what counts.
CREATE TABLE events (
    id          uuid        NOT NULL,
    tenant      text        NOT NULL,
    feature     text        NOT NULL,
    -- Negative in a row that reverses another.
    tokens      bigint      NOT NULL,
    -- When it happened, as the client says; minutes and periods follow this.
    occurred_at timestamptz NOT NULL,
    -- When it was received; partitions follow this.
    created_at  timestamptz NOT NULL
) PARTITION BY RANGE (created_at);
-- Serves the look-up of one event, whose id or ledger row says when it was received. Rows are written in
-- nearly that order, so a summary of each block range finds them, at next to no cost for the writer.
CREATE INDEX events_by_receipt ON events USING brin (created_at) WITH (pages_per_range = 32);

-- Entries of the queue that are counted. An id that is here already is only acknowledged.
CREATE TABLE applied_batches (
    batch_id   uuid        PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Ids that clients chose, as 128 bits (core::event::EventId): a UUIDv7 as it is, so that ids lie in order of time
-- and a day of them is a partition; whatever has no time in it lies in the last partition.
CREATE TABLE event_ids (
    id          uuid        NOT NULL,
    tenant      text        NOT NULL,
    received_at timestamptz NOT NULL,
    -- A checksum of what the event said: a repeat that says something else is seen by it.
    content     integer     NOT NULL,
    PRIMARY KEY (id, tenant)
) PARTITION BY RANGE (id);
CREATE TABLE event_ids_others PARTITION OF event_ids
    FOR VALUES FROM ('ff000000-0000-0000-0000-000000000000') TO (MAXVALUE);
-- Serves forgetting the oldest ids.
CREATE INDEX event_ids_others_by_receipt ON event_ids_others USING brin (received_at);

-- Events that came under an id that was taken by another content. The first counts; this is the first that did not.
CREATE TABLE event_conflicts (
    tenant      text        NOT NULL,
    id          uuid        NOT NULL,
    feature     text        NOT NULL,
    tokens      bigint      NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- Tokens by tenant, feature and UTC minute.
CREATE TABLE rollups (
    tenant       text        NOT NULL,
    feature      text        NOT NULL,
    minute       timestamptz NOT NULL,
    total_tokens bigint      NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, feature, minute)
) WITH (fillfactor = 70);
-- Serves forgetting the oldest minutes.
CREATE INDEX rollups_by_minute ON rollups USING brin (minute);

-- Tokens by tenant and billing period: what GET /usage answers from.
CREATE TABLE usage_periods (
    tenant       text        NOT NULL,
    period_start timestamptz NOT NULL,
    period_end   timestamptz NOT NULL CHECK (period_end > period_start),
    total_tokens bigint      NOT NULL,
    events       bigint      NOT NULL,
    -- The start of the newest minute with usage in the period.
    last_minute  timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, period_start)
) WITH (fillfactor = 50);

CREATE TABLE usage_features (
    tenant       text        NOT NULL,
    period_start timestamptz NOT NULL,
    feature      text        NOT NULL,
    total_tokens bigint      NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, period_start, feature)
) WITH (fillfactor = 50);

-- What could not be counted, and why. Nothing that was taken in is ever dropped.
CREATE TABLE dead_letters (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The queue's id of the entry it came in.
    entry_id   text        NOT NULL,
    -- NULL if the entry as a whole could not be read.
    batch_id   uuid,
    tenant     text,
    reason     text        NOT NULL,
    -- One event as JSON, or the entry's bytes, whichever can be had.
    event      jsonb,
    payload    bytea,
    created_at timestamptz NOT NULL DEFAULT now()
);
-- A malformed entry that is delivered again is kept once.
CREATE UNIQUE INDEX dead_letters_by_unreadable_entry ON dead_letters (entry_id) WHERE batch_id IS NULL;
-- Serves the look-up of one event.
CREATE INDEX dead_letters_by_event ON dead_letters (tenant, (event ->> 'id')) WHERE event IS NOT NULL;

-- What is no longer kept in detail, in sums: with it the books balance for ever.
CREATE TABLE forgotten (
    tenant text   NOT NULL,
    source text   NOT NULL CHECK (source IN ('events', 'rollups')),
    events bigint NOT NULL,
    tokens bigint NOT NULL,
    PRIMARY KEY (tenant, source)
);
