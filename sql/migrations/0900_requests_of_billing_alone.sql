-- migrate:up
-- A corrected tariff document, a class or an attribute moves charges and no quantity: the day is billed again and its
-- reads are not judged again.
ALTER TABLE vee.true_up ADD COLUMN validates boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN vee.true_up.validates IS 'Whether validation reads what changed. False: billing alone does, and the day''s usage stays as it is.';
COMMENT ON TABLE vee.true_up IS 'Requests to validate or bill a day again because a register read of another day, an edit or a correction of reference data changed what it comes to. The same finding asks one time.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
