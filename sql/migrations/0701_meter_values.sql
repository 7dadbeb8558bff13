-- migrate:up
-- A meter may move to another head-end or radio collector while it stays: a network is replaced, a collector is set up nearer by.
-- ref.meters says what holds for the meter's whole life; a row here says otherwise for a stretch of billing days.
CREATE TABLE ref.meter_values (
    meter_id text COLLATE "C" NOT NULL REFERENCES ref.meters DEFERRABLE INITIALLY DEFERRED,
    valid_from date NOT NULL,
    valid_to date,
    head_end text COLLATE "C" CHECK (head_end ~ '^[A-Z0-9-]{1,64}$'),
    collector_id text COLLATE "C" CHECK (collector_id ~ '^[A-Z0-9-]{1,64}$'),
    PRIMARY KEY (meter_id, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_of_meter_values_at_a_time EXCLUDE USING gist
        (meter_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.meter_values IS 'What of a meter is otherwise on a stretch of billing days: an empty value is as meters says.';
COMMENT ON COLUMN ref.meter_values.meter_id IS 'the device, as its head-end names it';
COMMENT ON COLUMN ref.meter_values.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.meter_values.valid_to IS 'billing day from which it no longer holds; empty while it does';
COMMENT ON COLUMN ref.meter_values.head_end IS 'head-end whose files carry its reads on these days; empty: as meters says';
COMMENT ON COLUMN ref.meter_values.collector_id IS 'radio collector it speaks through on these days; empty: as meters says';
SELECT ref.keep_history('meter_values');

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
