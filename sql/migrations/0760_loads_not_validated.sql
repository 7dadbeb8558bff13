-- migrate:up
-- A run that ends between loading and validating a day of reads leaves them out of every bill, and no request asked for
-- the day again: a file that is loaded waits no more.
ALTER TABLE raw.touched_meter ADD COLUMN read_day date;
COMMENT ON COLUMN raw.touched_meter.read_day IS 'Day of the reads; empty for what was noted before the column was there.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
