-- migrate:up
-- A late file is validated and billed for the service points that it touches, and not for the whole day.
CREATE TABLE raw.touched_meter (
    touch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    billing_day date NOT NULL,
    meter_id text COLLATE "C" NOT NULL
);
CREATE INDEX touched_meter_by_day ON raw.touched_meter (billing_day);
COMMENT ON TABLE raw.touched_meter IS 'Meters of which reads came or changed since the billing day was last validated; its validation takes them out.';
COMMENT ON COLUMN raw.touched_meter.touch_id IS 'Order of writing.';
COMMENT ON COLUMN raw.touched_meter.billing_day IS 'Day whose validation looks at the reads: their own, and the days before and after.';
COMMENT ON COLUMN raw.touched_meter.meter_id IS 'Meter; empty for the first load of the day, which touches everyone.';

CREATE TABLE vee.usage_change (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    billing_day date NOT NULL,
    service_points text[] COLLATE "C"
);
CREATE INDEX usage_change_by_day ON vee.usage_change (billing_day, change_id);
COMMENT ON TABLE vee.usage_change IS 'Validations of each day in order, with the service points that were judged: what billing of the day has to look at.';
COMMENT ON COLUMN vee.usage_change.change_id IS 'Order of validations.';
COMMENT ON COLUMN vee.usage_change.billing_day IS 'The day.';
COMMENT ON COLUMN vee.usage_change.service_points IS 'Those judged; null where it was the whole day.';

CREATE TABLE billing.usage_seen (
    billing_day date PRIMARY KEY,
    change_id bigint NOT NULL
);
COMMENT ON TABLE billing.usage_seen IS 'Up to which validation (vee.usage_change) each day was billed.';
COMMENT ON COLUMN billing.usage_seen.billing_day IS 'The day.';
COMMENT ON COLUMN billing.usage_seen.change_id IS 'The last validation that it was billed after.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
