-- migrate:up
-- What the law said of each billing day when it was last asked: for pages that cannot wait for the queries.
CREATE TABLE billing.law_day (
    billing_day date PRIMARY KEY,
    ok boolean NOT NULL,
    service_points integer NOT NULL,
    waiting integer NOT NULL,
    open integer NOT NULL,
    detail text NOT NULL,
    computed_at timestamptz NOT NULL,
    CHECK (ok = (open = 0))
);
COMMENT ON TABLE billing.law_day IS 'Whether all validated usage of a day was billed, accrued or waiting for a reason, when that was last computed (meter_pipeline/revenue_assurance).';
COMMENT ON COLUMN billing.law_day.billing_day IS 'Day.';
COMMENT ON COLUMN billing.law_day.ok IS 'Whether nothing was open.';
COMMENT ON COLUMN billing.law_day.service_points IS 'Service points with service or usage on the day.';
COMMENT ON COLUMN billing.law_day.waiting IS 'Service days and bills that waited for a reason.';
COMMENT ON COLUMN billing.law_day.open IS 'Service days and bills without one.';
COMMENT ON COLUMN billing.law_day.detail IS 'In words; the first three that are open.';
COMMENT ON COLUMN billing.law_day.computed_at IS 'When, UTC.';

-- migrate:down
DROP TABLE billing.law_day;
