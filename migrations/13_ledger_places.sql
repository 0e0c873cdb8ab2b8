-- Parts of the ledger that are forgotten by rules of their own, and forgetting that holds up nobody.

-- What was taken back is known for as long as the event that it takes back can be found, or it would be taken back again.
CREATE TABLE event_ids_reversals PARTITION OF event_ids
    FOR VALUES FROM ('fe000000-0000-0000-0000-000000000000') TO ('ff000000-0000-0000-0000-000000000000');
-- Serves forgetting the oldest.
CREATE INDEX event_ids_reversals_by_receipt ON event_ids_reversals USING brin (received_at);
SELECT let_workers_copy_into('event_ids_reversals');

-- Rows go from the two by their place, without a look at all other partitions.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_worker') THEN
        GRANT SELECT, DELETE ON event_ids_reversals, event_ids_others, event_conflicts TO flagmeter_worker;
    END IF;
END
$$;

-- About how many bytes the ids take that have no time in them, by the UTC day on which they were received. They lie in one
-- table, whose file does not shrink when rows go, so this is what the planner knows of it: its rows, at which instants
-- many of them were received, and the bounds between which equally many of the others were. Nothing, until it was first
-- analysed.
CREATE FUNCTION other_ids_by_day() RETURNS TABLE (day date, bytes bigint)
LANGUAGE sql STABLE AS $$
    WITH receipts AS (
        SELECT most_common_vals::text::timestamptz[] AS common, most_common_freqs AS shares,
               histogram_bounds::text::timestamptz[] AS bounds
        FROM pg_stats
        WHERE schemaname = current_schema() AND tablename = 'event_ids_others' AND attname = 'received_at'
    ), parts AS (
        SELECT common.received_at, common.share::numeric
        FROM receipts, UNNEST(receipts.common, receipts.shares) AS common (received_at, share)
        UNION ALL
        SELECT other.received_at,
               GREATEST(1 - COALESCE((SELECT sum(share) FROM UNNEST(receipts.shares) AS share), 0), 0)::numeric
               / cardinality(receipts.bounds)
        FROM receipts, UNNEST(receipts.bounds) AS other (received_at)
    ), size AS (
        -- A row: 24 bytes before it, 4 of its pointer, 28 of id, time and checksum, and the tenant. In the index: 8 before
        -- it, 4 of its pointer, 16 of the id, and the tenant, in pages that are two thirds full.
        SELECT GREATEST(reltuples, 0)::numeric * (56 + tenant + (28 + tenant) * 3 / 2) AS bytes
        FROM pg_class, (
            SELECT COALESCE(max(avg_width), 0) AS tenant
            FROM pg_stats
            WHERE schemaname = current_schema() AND tablename = 'event_ids_others' AND attname = 'tenant'
        ) AS widths
        WHERE pg_class.oid = 'event_ids_others'::regclass
    )
    SELECT (received_at AT TIME ZONE 'UTC')::date, sum(share * size.bytes)::bigint
    FROM parts, size
    GROUP BY 1
    ORDER BY 1
$$;

-- Forgets the oldest day of events that were received before a UTC day, but for its sums. Answers how many days it forgot:
-- none where there is none, or another worker is at it.
--
-- One day a call, so that the lock that removes a partition is never held while another is summed; and it waits for no
-- lock for long, since whoever reads or counts events would queue up behind it.
CREATE OR REPLACE FUNCTION forget_events(first_day_kept date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    old record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('flagmeter.forget_events')) THEN
        RETURN 0;
    END IF;
    SELECT * INTO old FROM partitions_by_day('events') WHERE day < first_day_kept LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
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
    RETURN 1;
END
$$;

-- Forgets the oldest day of UUIDv7 that were made before a UTC day. Answers as forget_events does.
CREATE OR REPLACE FUNCTION forget_event_ids(first_day_kept date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    old record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('flagmeter.forget_event_ids')) THEN
        RETURN 0;
    END IF;
    SELECT * INTO old FROM partitions_by_day('event_ids') WHERE day < first_day_kept LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    EXECUTE format('DROP TABLE %s', old.partition);
    RETURN 1;
END
$$;

-- Whoever adds a partition would queue up behind a long reader, such as a dump, and everybody else behind that.
ALTER FUNCTION ensure_event_partitions(date, date) SET lock_timeout = '2s';
ALTER FUNCTION ensure_event_id_partition(date) SET lock_timeout = '2s';

-- What was written since the last vacuum is summarised block range by block range, so that the look-up of a young event
-- does not read all of it. Made anew: an option of a partitioned index cannot be changed.
DROP INDEX events_by_receipt;
CREATE INDEX events_by_receipt ON events USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);
ALTER INDEX event_ids_others_by_receipt SET (autosummarize = on);
ALTER INDEX event_ids_reversals_by_receipt SET (autosummarize = on);
