-- migrate:up
-- Dagster keeps its runs, events and schedules here, on the same server; its own migrations own the tables inside.
CREATE SCHEMA IF NOT EXISTS dagster;
COMMENT ON SCHEMA dagster IS 'Dagster''s own storage: runs, event log, schedules. Not the pipeline''s data.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
