-- migrate:up
-- The first day this utility is billed from here. Bills of a period that had begun before it cover the days from it on; nothing waits for days before.
CREATE TABLE billing.going_live (
    first_billing_day date NOT NULL,
    single boolean PRIMARY KEY DEFAULT true CHECK (single)
);
COMMENT ON TABLE billing.going_live IS 'The first billing day of the deployment (utility.toml), as billing knows it: one row, or none where every day is billed.';
COMMENT ON COLUMN billing.going_live.first_billing_day IS 'First day that is billed.';
COMMENT ON COLUMN billing.going_live.single IS 'Always true: there is one row.';

-- migrate:down
DROP TABLE billing.going_live;
