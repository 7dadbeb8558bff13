-- migrate:up
-- Limits on estimated bills in a row: dated rules, what they found, and cases with evidence of their own.
CREATE TABLE ref.estimate_limits (
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal', '*')),
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas', '*')),
    cause text NOT NULL CHECK (cause IN ('no_read', 'rejected', '*')),
    most_bills integer NOT NULL CONSTRAINT estimate_limit_in_range CHECK (most_bills >= 0),
    action text NOT NULL CHECK (action IN ('hold', 'read_request')),
    count_on_bill boolean NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (customer_class, commodity, cause, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.estimate_limits IS 'How many estimated bills may follow each other, and what happens to the next. The rule of the period''s last day holds; * is every other class, commodity or cause.';
COMMENT ON COLUMN ref.estimate_limits.customer_class IS 'class of the account; * every other one';
COMMENT ON COLUMN ref.estimate_limits.commodity IS 'electricity, water or gas; * every other one';
COMMENT ON COLUMN ref.estimate_limits.cause IS 'no_read (nothing came), rejected (what came failed validation), or * (estimated bills of any cause count)';
COMMENT ON COLUMN ref.estimate_limits.most_bills IS 'how many estimated bills in a row are issued';
COMMENT ON COLUMN ref.estimate_limits.action IS 'the next one: hold (a case, and the bill waits for a read or a person) or read_request (it is issued, and a read is asked for)';
COMMENT ON COLUMN ref.estimate_limits.count_on_bill IS 'true: each estimated bill says how many there were in a row';
COMMENT ON COLUMN ref.estimate_limits.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.estimate_limits.valid_to IS 'billing day from which it no longer holds; empty while it does';
ALTER TABLE ref.estimate_limits ADD CONSTRAINT one_estimate_limit_at_a_time EXCLUDE USING gist
    (customer_class WITH =, commodity WITH =, cause WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
SELECT ref.keep_history('estimate_limits');

CREATE TABLE billing.estimated_bill (
    account_id text COLLATE "C" NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    cycle_id text COLLATE "C" NOT NULL,
    period_start date NOT NULL,
    period_end date NOT NULL,
    cause text NOT NULL CHECK (cause IN ('no_read', 'rejected')),
    in_a_row integer NOT NULL CHECK (in_a_row > 0),
    of_cause integer NOT NULL CHECK (of_cause BETWEEN 1 AND in_a_row),
    action text NOT NULL CHECK (action IN ('none', 'hold', 'read_request')),
    most_bills integer,
    shown boolean NOT NULL,
    rule text NOT NULL,
    noted_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, service_point_id, cycle_id, period_start)
);
CREATE INDEX estimated_bill_by_period ON billing.estimated_bill (cycle_id, period_start);
COMMENT ON TABLE billing.estimated_bill IS 'Services of a billing period without a read: how many such bills there were in a row, and what the rule does. Written when the period''s bills are issued.';
COMMENT ON COLUMN billing.estimated_bill.account_id IS 'Account.';
COMMENT ON COLUMN billing.estimated_bill.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.estimated_bill.cycle_id IS 'Billing cycle.';
COMMENT ON COLUMN billing.estimated_bill.period_start IS 'First day of the period.';
COMMENT ON COLUMN billing.estimated_bill.period_end IS 'Day after its last.';
COMMENT ON COLUMN billing.estimated_bill.cause IS 'no_read or rejected.';
COMMENT ON COLUMN billing.estimated_bill.in_a_row IS 'Estimated bills in a row, this one included.';
COMMENT ON COLUMN billing.estimated_bill.of_cause IS 'The latest of them that have its cause.';
COMMENT ON COLUMN billing.estimated_bill.action IS 'none, hold or read_request.';
COMMENT ON COLUMN billing.estimated_bill.most_bills IS 'How many the rule allows; null without a rule.';
COMMENT ON COLUMN billing.estimated_bill.shown IS 'Whether the bill says how many there were.';
COMMENT ON COLUMN billing.estimated_bill.rule IS 'Class, commodity, cause and first day of the rule; empty without one.';
COMMENT ON COLUMN billing.estimated_bill.noted_at IS 'When it was written, UTC.';

CREATE VIEW analyst.estimated_bills AS
SELECT e.account_id, e.service_point_id, e.cycle_id, e.period_start, e.period_end, e.cause, e.in_a_row, e.of_cause, e.most_bills, e.action, e.shown, e.rule,
    s.statement_id
FROM billing.estimated_bill AS e LEFT JOIN billing.statement AS s USING (account_id, cycle_id, period_start);
COMMENT ON VIEW analyst.estimated_bills IS 'Bills without a read, how many in a row, and what the limit does.';
COMMENT ON COLUMN analyst.estimated_bills.account_id IS 'Account.';
COMMENT ON COLUMN analyst.estimated_bills.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.estimated_bills.cycle_id IS 'Billing cycle.';
COMMENT ON COLUMN analyst.estimated_bills.period_start IS 'First day.';
COMMENT ON COLUMN analyst.estimated_bills.period_end IS 'Day after the last.';
COMMENT ON COLUMN analyst.estimated_bills.cause IS 'no_read or rejected.';
COMMENT ON COLUMN analyst.estimated_bills.in_a_row IS 'Estimated bills in a row, this one included.';
COMMENT ON COLUMN analyst.estimated_bills.of_cause IS 'The latest of them that have its cause.';
COMMENT ON COLUMN analyst.estimated_bills.most_bills IS 'How many the rule allows.';
COMMENT ON COLUMN analyst.estimated_bills.action IS 'none, hold or read_request.';
COMMENT ON COLUMN analyst.estimated_bills.shown IS 'Whether the bill says how many there were.';
COMMENT ON COLUMN analyst.estimated_bills.rule IS 'The rule.';
COMMENT ON COLUMN analyst.estimated_bills.statement_id IS 'Statement; null while it waits.';

CREATE TABLE anomaly.case_evidence (
    case_id text COLLATE "C" NOT NULL,
    billing_day date NOT NULL,
    kind text NOT NULL,
    unit text NOT NULL,
    expected double precision,
    observed double precision,
    evidence jsonb NOT NULL,
    PRIMARY KEY (case_id, billing_day)
);
COMMENT ON TABLE anomaly.case_evidence IS 'What cases rest on that no flag of a day opened: limits on estimated bills, losses of zones.';
COMMENT ON COLUMN anomaly.case_evidence.case_id IS 'Case.';
COMMENT ON COLUMN anomaly.case_evidence.billing_day IS 'Day it was found for.';
COMMENT ON COLUMN anomaly.case_evidence.kind IS 'Kind of the case.';
COMMENT ON COLUMN anomaly.case_evidence.unit IS 'Unit of the figures.';
COMMENT ON COLUMN anomaly.case_evidence.expected IS 'What was expected.';
COMMENT ON COLUMN anomaly.case_evidence.observed IS 'What was found.';
COMMENT ON COLUMN anomaly.case_evidence.evidence IS 'Figures and names.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
