-- migrate:up
-- A tariff's document that is corrected for 20,000 accounts over 60 days puts a million rows on the list, which each
-- day's run looks through for its own.
CREATE INDEX late_change_day ON billing.late_change (billing_day);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
