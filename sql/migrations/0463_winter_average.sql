-- migrate:up
-- Winter averages worked out from issued bills, for sewer charges.
CREATE TABLE ref.winter_average_rules (
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal', '*')),
    months text NOT NULL,
    drop_high integer NOT NULL,
    drop_low integer NOT NULL,
    least_periods integer NOT NULL,
    default_per_day numeric(18,6) CHECK (default_per_day > -1e12 AND default_per_day < 1e12),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (customer_class, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.winter_average_rules IS 'How a service''s winter average is worked out, by customer class; * is every class without a rule of its own.';
COMMENT ON COLUMN ref.winter_average_rules.customer_class IS 'class of the account; * every other one';
COMMENT ON COLUMN ref.winter_average_rules.months IS 'months whose billing periods count, by the month of a period''s last day: numbers from 1 to 12, with blanks between';
COMMENT ON COLUMN ref.winter_average_rules.drop_high IS 'how many of the highest periods are left out';
COMMENT ON COLUMN ref.winter_average_rules.drop_low IS 'how many of the lowest periods are left out';
COMMENT ON COLUMN ref.winter_average_rules.least_periods IS 'periods that must be left for an average; else the default holds';
COMMENT ON COLUMN ref.winter_average_rules.default_per_day IS 'quantity a day, in the unit of the service''s tariff, where too few periods are left; empty: none';
COMMENT ON COLUMN ref.winter_average_rules.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.winter_average_rules.valid_to IS 'billing day from which it no longer holds; empty while it does';
ALTER TABLE ref.winter_average_rules ADD CONSTRAINT one_rule_at_a_time EXCLUDE USING gist
    (customer_class WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ref.winter_average_rules ADD CONSTRAINT leaves_something CHECK (drop_high >= 0 AND drop_low >= 0 AND least_periods > 0);
SELECT ref.keep_history('winter_average_rules');

CREATE TABLE billing.winter_average (
    effective date NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    per_day bigint,
    source text NOT NULL CHECK (source IN ('computed', 'default', 'none')),
    periods jsonb NOT NULL,
    PRIMARY KEY (effective, service_point_id, account_id),
    CHECK ((per_day IS NULL) = (source = 'none'))
);
COMMENT ON TABLE billing.winter_average IS 'A service''s winter average from a day on, and the billing periods that it stands on.';
COMMENT ON COLUMN billing.winter_average.effective IS 'Day from which it holds.';
COMMENT ON COLUMN billing.winter_average.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.winter_average.account_id IS 'Account.';
COMMENT ON COLUMN billing.winter_average.unit IS 'Unit of the tariff.';
COMMENT ON COLUMN billing.winter_average.per_day IS 'Average a day, millionths of unit; null where there is none.';
COMMENT ON COLUMN billing.winter_average.source IS 'Computed, default (too few periods), or none (too few, and no default).';
COMMENT ON COLUMN billing.winter_average.periods IS 'Every billing period of the winter: its days, quantity, and why it was left out where it was.';

CREATE VIEW analyst.winter_averages AS
SELECT w.effective, w.service_point_id, w.account_id, w.per_day::numeric / 1000000 AS per_day, w.unit, w.source, w.periods FROM billing.winter_average AS w;
COMMENT ON VIEW analyst.winter_averages IS 'Winter averages and the billing periods that they stand on.';
COMMENT ON COLUMN analyst.winter_averages.effective IS 'Day from which it holds.';
COMMENT ON COLUMN analyst.winter_averages.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.winter_averages.account_id IS 'Account.';
COMMENT ON COLUMN analyst.winter_averages.per_day IS 'Average a day, in unit.';
COMMENT ON COLUMN analyst.winter_averages.unit IS 'Unit.';
COMMENT ON COLUMN analyst.winter_averages.source IS 'computed, default or none.';
COMMENT ON COLUMN analyst.winter_averages.periods IS 'Billing periods, and why some were left out.';

-- migrate:down
DROP VIEW analyst.winter_averages;
DROP TABLE billing.winter_average;
DROP FUNCTION ref.winter_average_rules_as_of(timestamptz);
DROP TABLE ref.winter_average_rules_version;
DROP TABLE ref.winter_average_rules;
