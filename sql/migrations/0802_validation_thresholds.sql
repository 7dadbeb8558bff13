-- migrate:up
-- A threshold of validation that changes from a day on. Days before it are judged as they were, also when they run again. What no row says is as the
-- file of thresholds says.
CREATE TABLE ref.validation_thresholds (
    threshold text NOT NULL CONSTRAINT threshold_named CHECK (threshold ~ '^[a-z_]+([.][A-Za-z0-9_]+){1,2}$'),
    valid_from date NOT NULL,
    valid_to date,
    value numeric(18,6) NOT NULL CONSTRAINT threshold_in_range CHECK (value > -1e10 AND value < 1e10),
    PRIMARY KEY (threshold, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_of_validation_thresholds_at_a_time EXCLUDE USING gist
        (threshold WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.validation_thresholds IS 'Thresholds of validation and estimation that are otherwise on a stretch of billing days.';
COMMENT ON COLUMN ref.validation_thresholds.threshold IS 'name as in the file of thresholds, with dots: spike.percent, range.residential.kWh';
COMMENT ON COLUMN ref.validation_thresholds.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.validation_thresholds.valid_to IS 'billing day from which it no longer holds; empty while it does';
COMMENT ON COLUMN ref.validation_thresholds.value IS 'its value on these days; on others it is as the file says';
SELECT ref.keep_history('validation_thresholds');

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
