-- A threshold that recovered, because the quota was raised or a boost began, can be crossed again at the quota at which it was
-- crossed before. `episode` is how often it had recovered in its period by then: what is recorded once, is so in each episode.
--
-- Not concurrently: the table has a few rows for each tenant and period, and is locked for milliseconds. A worker of the
-- version before goes on with it: it knows of no episode but 0, and records nothing that is recorded already.
ALTER TABLE alerts ADD COLUMN episode integer NOT NULL DEFAULT 0 CHECK (episode >= 0);

CREATE UNIQUE INDEX alerts_once_an_episode
    ON alerts (tenant, period_start, threshold, monthly_quota, kind, episode)
    WHERE kind <> 'test';
DROP INDEX alerts_once;

-- Serves the workers, who look again each minute at the tenants of which something was recorded in the last five.
CREATE INDEX alerts_lately ON alerts (created_at) WHERE kind <> 'test';

COMMENT ON COLUMN alerts.superseded_by IS
    'The alert that was told in its place: of several that were crossed at once the highest; of one that was crossed again '
    'within a minute, the one before.';
