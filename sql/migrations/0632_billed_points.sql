-- migrate:up
-- The ledger's check after billing looks at what was billed.
ALTER TABLE billing.usage_seen ADD COLUMN service_points text[] COLLATE "C";
COMMENT ON COLUMN billing.usage_seen.service_points IS 'Service points that were billed then; null where it was the whole day.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
