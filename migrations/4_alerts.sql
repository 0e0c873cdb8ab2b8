-- Quotas that are watched: what a tenant is told at which percent, by which calendar its periods are made, and
-- the outbox of what is to be told.
--
-- Everything that a count depends on is in the tenant's row itself, not in a table beside it: a worker that had to
-- wait for the row's lock then sees all of a change, where a join would show it the rest as it was before the wait.

ALTER TABLE tenants
    -- Percents of the quota that are recorded when usage reaches them, ascending, each once. None: nothing is recorded.
    ADD COLUMN thresholds   integer[] NOT NULL DEFAULT '{80}'
        CHECK (cardinality(thresholds) <= 10 AND 1 <= ALL (thresholds) AND 1000 >= ALL (thresholds)),
    -- A suspended tenant takes no events. What waits in the queue is counted all the same.
    ADD COLUMN suspended    boolean   NOT NULL DEFAULT false,
    -- Raises of the quota for a time: [{"tokens", "from", "until", "reason"}], half-open. The quota at an instant is
    -- monthly_quota and the tokens of all that hold it (core::quota).
    ADD COLUMN quota_boosts jsonb     NOT NULL DEFAULT '[]'
        CHECK (jsonb_typeof(quota_boosts) = 'array' AND jsonb_array_length(quota_boosts) <= 16),
    -- The calendars by which periods are made, oldest first: [{"since", "billingDay", "timeZone"}]. Each holds from its
    -- `since`, the first since ever, to that of the next (core::calendar). billing_day and time_zone say what is wanted,
    -- this says what counts, so that an event that comes late is counted where its time was billed. Empty: the wanted
    -- one, since ever.
    ADD COLUMN calendars    jsonb     NOT NULL DEFAULT '[]'
        CHECK (jsonb_typeof(calendars) = 'array');

-- The quota that a period which is over is held against, where the tenant has another by now.
ALTER TABLE usage_periods
    ADD COLUMN monthly_quota bigint CHECK (monthly_quota BETWEEN 1 AND 9007199254740991);

-- Where a tenant's alerts go in the form of Standard Webhooks. Sealed as slack_webhooks.url is.
CREATE TABLE webhooks (
    tenant          text        PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    url             bytea       NOT NULL CHECK (length(url) BETWEEN 28 AND 4096),
    -- What messages are signed with, as text of the form that Standard Webhooks gives it.
    secret          bytea       NOT NULL CHECK (length(secret) BETWEEN 28 AND 4096),
    -- The secret before this one. Messages are signed with both until `previous_until`, so that a receiver can change over.
    previous_secret bytea       CHECK (length(previous_secret) BETWEEN 28 AND 4096),
    previous_until  timestamptz,
    enabled         boolean     NOT NULL,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);

-- A threshold that the usage of a period reached, or that a raise of the quota put out of reach again. Written in the
-- transaction in which usage or quota changed, once for each quota, period and threshold.
CREATE TABLE alerts (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant        text        NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    period_start  timestamptz NOT NULL,
    period_end    timestamptz NOT NULL CHECK (period_end > period_start),
    -- In percent.
    threshold     integer     NOT NULL CHECK (threshold BETWEEN 1 AND 1000),
    -- The quota it was held against, with the boosts of that instant.
    monthly_quota bigint      NOT NULL CHECK (monthly_quota BETWEEN 1 AND 9007199254740991),
    -- What was used by then.
    total_tokens  bigint      NOT NULL,
    -- 'test' is a person's question whether a channel works; it may be put again and again.
    kind          text        NOT NULL CHECK (kind IN ('crossed', 'recovered', 'test')),
    -- Names it to receivers, who may be told of it twice.
    event_id      uuid        NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    -- Of several that were crossed at once only the highest is told; the others name it here.
    superseded_by bigint,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX alerts_once ON alerts (tenant, period_start, threshold, monthly_quota, kind) WHERE kind <> 'test';
-- Serves a tenant's list, newest first.
CREATE INDEX alerts_by_tenant ON alerts (tenant, id);

-- A message to be sent: the outbox. A row for each channel that was enabled when the threshold was crossed.
CREATE TABLE alert_deliveries (
    alert           bigint      NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    channel         text        NOT NULL CHECK (channel IN ('slack', 'webhook')),
    -- 'skipped': there is no such channel any more. 'failed': it was given up.
    state           text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed', 'skipped')),
    attempts        integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz,
    -- Why the last attempt failed; neither the URL nor what it answered.
    last_error      text        CHECK (length(last_error) <= 1024),
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (alert, channel)
);
-- Serves the notifier, which asks for what is due.
CREATE INDEX alert_deliveries_pending ON alert_deliveries (next_attempt_at) WHERE state = 'pending';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_worker') THEN
        GRANT SELECT ON slack_webhooks, webhooks TO flagmeter_worker;
        GRANT SELECT, INSERT ON alerts TO flagmeter_worker;
        GRANT SELECT, INSERT, UPDATE ON alert_deliveries TO flagmeter_worker;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_operator') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks TO flagmeter_operator;
        GRANT SELECT, INSERT ON alerts, alert_deliveries TO flagmeter_operator;
        -- A change of billing day or zone makes the open period anew from its minutes.
        GRANT SELECT ON rollups TO flagmeter_operator;
        GRANT INSERT, UPDATE, DELETE ON usage_periods, usage_features TO flagmeter_operator;
    END IF;
END
$$;
