-- migrate:up
-- A billing day whose run failed is asked for again, at growing intervals: who asked how often stands here and not in Dagster, whose run keys are for
-- ever. A hundred days that fail take no turn from the hundred and first.
CREATE TABLE raw.day_request (
    billing_day date PRIMARY KEY,
    evidence bytea NOT NULL CHECK (length(evidence) = 32),
    times integer NOT NULL CHECK (times > 0),
    first_asked timestamptz NOT NULL,
    last_asked timestamptz NOT NULL
);
COMMENT ON TABLE raw.day_request IS 'Billing days that wait and were asked for: how often for the same files and register reads.';
COMMENT ON COLUMN raw.day_request.billing_day IS 'The day.';
COMMENT ON COLUMN raw.day_request.evidence IS 'SHA-256 over the files and requests for which it waits; others begin anew.';
COMMENT ON COLUMN raw.day_request.times IS 'How often it was asked for.';
COMMENT ON COLUMN raw.day_request.first_asked IS 'First time, UTC.';
COMMENT ON COLUMN raw.day_request.last_asked IS 'Latest time, UTC.';

-- migrate:down
DROP TABLE raw.day_request;
