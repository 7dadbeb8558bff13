-- migrate:up
CREATE TABLE raw.breaker (
    name text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    open_until timestamptz,
    changed_at timestamptz NOT NULL,
    holder text NOT NULL,
    times_opened bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE raw.breaker IS 'Circuit breakers that every process shares: one that opens here is open for all.';
COMMENT ON COLUMN raw.breaker.name IS 'What it guards.';
COMMENT ON COLUMN raw.breaker.state IS 'closed, open or half_open.';
COMMENT ON COLUMN raw.breaker.open_until IS 'When a trial may be made, by the server''s clock, UTC.';
COMMENT ON COLUMN raw.breaker.changed_at IS 'When it last changed, UTC.';
COMMENT ON COLUMN raw.breaker.holder IS 'Run that changed it.';
COMMENT ON COLUMN raw.breaker.times_opened IS 'How often it opened.';

-- migrate:down
DROP TABLE raw.breaker;
