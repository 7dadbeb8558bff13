-- migrate:up
-- What the old system billed before the first billing day: first history of high/low checks, estimates and baselines.
CREATE TABLE ref.past_usage (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]([A-Z0-9 ._/-]{0,62}[A-Z0-9-])?$'),
    flow text NOT NULL CHECK (flow IN ('import', 'export', 'net')),
    unit text NOT NULL,
    period_start date NOT NULL,
    period_end date NOT NULL,
    quantity numeric(18,6) NOT NULL CONSTRAINT past_usage_in_range CHECK (quantity > -1e10 AND quantity < 1e10),
    PRIMARY KEY (service_point_id, flow, period_start),
    CONSTRAINT past_usage_period CHECK (period_start < period_end)
);
CREATE INDEX past_usage_by_end ON ref.past_usage (period_end);
COMMENT ON TABLE ref.past_usage IS 'Usage that was billed before the first billing day, by service point and period: what the first months are compared with.';
COMMENT ON COLUMN ref.past_usage.service_point_id IS 'where the service is delivered and metered';
COMMENT ON COLUMN ref.past_usage.flow IS 'import, export or net';
COMMENT ON COLUMN ref.past_usage.unit IS 'unit of the quantity, any spelling that a feed may have';
COMMENT ON COLUMN ref.past_usage.period_start IS 'first day';
COMMENT ON COLUMN ref.past_usage.period_end IS 'day after the last';
COMMENT ON COLUMN ref.past_usage.quantity IS 'usage of the whole period, below zero only for net';
SELECT ref.keep_history('past_usage');

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
