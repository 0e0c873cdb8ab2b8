-- Keys that somebody else changed, and that were put back, have a line in the trail as a tenant's row does. It has how many
-- there were before and after, and is no word on the row: whoever looks for what the row said last leaves it out.
ALTER TABLE tenant_changes DROP CONSTRAINT tenant_changes_kind_check;
ALTER TABLE tenant_changes ADD CONSTRAINT tenant_changes_kind_check CHECK (kind IN (
    'created', 'changed', 'drift_repaired', 'keys_repaired', 'detached', 'adopted', 'deletion_started', 'deleted'
));
