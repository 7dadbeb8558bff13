-- migrate:up
CREATE TABLE raw.pull_request (
    head_end text NOT NULL,
    billing_day date NOT NULL,
    times integer NOT NULL DEFAULT 1,
    first_asked timestamptz NOT NULL,
    last_asked timestamptz NOT NULL,
    outcome text NOT NULL,
    reads bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (head_end, billing_day)
);
COMMENT ON TABLE raw.pull_request IS 'Days asked of head-ends that are pulled: how often, and what came.';
COMMENT ON COLUMN raw.pull_request.head_end IS 'Head-end asked.';
COMMENT ON COLUMN raw.pull_request.billing_day IS 'Day asked for.';
COMMENT ON COLUMN raw.pull_request.times IS 'How often.';
COMMENT ON COLUMN raw.pull_request.first_asked IS 'First time, UTC.';
COMMENT ON COLUMN raw.pull_request.last_asked IS 'Latest time, UTC.';
COMMENT ON COLUMN raw.pull_request.outcome IS 'pulled, empty, or why it failed.';
COMMENT ON COLUMN raw.pull_request.reads IS 'Reads that came the last time.';

-- migrate:down
DROP TABLE raw.pull_request;
