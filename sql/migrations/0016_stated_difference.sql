-- migrate:up
-- A period for which a file states another consumption than its own two dials show (NEM13). The dials are billed; the statement may be the sign of
-- a dial multiplier nobody declared, which would bill a current-transformer meter at a fraction of what it used.
CREATE TABLE raw.stated_difference (
    sha256 bytea NOT NULL REFERENCES raw.feed_file,
    line bigint NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    stated_micro bigint NOT NULL,
    dials_micro bigint NOT NULL,
    unit text NOT NULL,
    PRIMARY KEY (sha256, line)
);
COMMENT ON TABLE raw.stated_difference IS 'Periods for which a file states another consumption than the two dials it gives: the dials are billed, and somebody should look.';
COMMENT ON COLUMN raw.stated_difference.sha256 IS 'The file.';
COMMENT ON COLUMN raw.stated_difference.line IS 'Line of the record, from 1.';
COMMENT ON COLUMN raw.stated_difference.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.stated_difference.channel IS 'Register.';
COMMENT ON COLUMN raw.stated_difference.period_start IS 'Time of the previous read.';
COMMENT ON COLUMN raw.stated_difference.period_end IS 'Time of the current read.';
COMMENT ON COLUMN raw.stated_difference.stated_micro IS 'Consumption as stated, in millionths of the unit.';
COMMENT ON COLUMN raw.stated_difference.dials_micro IS 'Current minus previous read in millionths of the unit; across the last digit where that is the shorter way.';
COMMENT ON COLUMN raw.stated_difference.unit IS 'Base unit.';

-- migrate:down
DROP TABLE raw.stated_difference;
