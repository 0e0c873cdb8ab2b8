-- What the delivery of alerts needs beside the outbox.

-- Since when a message is tried: it is given up a day later. A person who sends it again begins anew.
ALTER TABLE alert_deliveries ADD COLUMN tried_since timestamptz NOT NULL DEFAULT now();

-- When the next message may go to a URL, so that all workers together send about one a second, and none while the
-- receiver has asked for rest. A URL stands here as its fingerprint, which says nothing without the key.
CREATE TABLE webhook_turns (
    url     text        PRIMARY KEY CHECK (length(url) = 16),
    next_at timestamptz NOT NULL
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_worker') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_turns TO flagmeter_worker;
    END IF;
END
$$;
