-- Dead letters are kept for a time and up to a size, like everything else; their sums stay, so that the books balance.

-- A tenant's sums over years, however large, must never keep the days of all others from being forgotten.
ALTER TABLE forgotten ALTER COLUMN tokens TYPE numeric;
ALTER TABLE forgotten DROP CONSTRAINT forgotten_source_check;
ALTER TABLE forgotten ADD CONSTRAINT forgotten_source_check CHECK (source IN ('events', 'rollups', 'dead_letters'));

-- Serves forgetting the oldest.
CREATE INDEX dead_letters_by_time ON dead_letters USING brin (created_at);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_worker') THEN
        GRANT DELETE ON dead_letters TO flagmeter_worker;
    END IF;
END
$$;
