-- migrate:up
-- Back-billing policy: dated rules of how far back a correction may charge and credit, the results of meter tests, and what the rules made of each correction.
CREATE TABLE ref.back_billing_rules (
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas', '*')),
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal', '*')),
    covers text NOT NULL CHECK (covers IN ('corrections', 'corrections_and_reads')),
    charge_months integer,
    credit_months integer,
    unknown_beginning text NOT NULL CHECK (unknown_beginning IN ('last_good_test', 'half_since_test')),
    unknown_most_months integer,
    tolerance_percent numeric(18,6) NOT NULL,
    interest_percent numeric(18,6),
    day_count text NOT NULL CHECK (day_count IN ('actual/365', 'actual/360', '30/360')),
    instalments text NOT NULL CHECK (instalments IN ('none', 'months', 'error_time')),
    instalment_months integer,
    waive_below numeric(18,6),
    source text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (commodity, customer_class, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT back_billing_rule_in_range CHECK (coalesce(charge_months, 0) >= 0 AND coalesce(credit_months, 0) >= 0
        AND coalesce(unknown_most_months, 1) > 0 AND tolerance_percent BETWEEN 0 AND 100 AND coalesce(interest_percent, 0) BETWEEN 0 AND 100
        AND (instalment_months IS NULL) = (instalments <> 'months') AND coalesce(instalment_months, 1) > 0 AND coalesce(waive_below, 0) >= 0),
    CONSTRAINT one_back_billing_rule_at_a_time EXCLUDE USING gist
        (commodity WITH =, customer_class WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.back_billing_rules IS 'How far back a correction of issued bills may charge and credit, interest on refunds, instalments, and what is not charged. The rule that holds on the day of the correction; * is every other commodity or class.';
COMMENT ON COLUMN ref.back_billing_rules.commodity IS 'electricity, water or gas; * every other one';
COMMENT ON COLUMN ref.back_billing_rules.customer_class IS 'class of the account; * every other one';
COMMENT ON COLUMN ref.back_billing_rules.covers IS 'corrections of reference data, or corrections_and_reads: late and corrected reads too';
COMMENT ON COLUMN ref.back_billing_rules.charge_months IS 'months before the correction whose days may be charged; empty: all of them';
COMMENT ON COLUMN ref.back_billing_rules.credit_months IS 'months before the correction whose days are credited; empty: all of them';
COMMENT ON COLUMN ref.back_billing_rules.unknown_beginning IS 'where the beginning of a meter''s error is unknown: last_good_test (the day of the last good test, or of the installation) or half_since_test (half the time since)';
COMMENT ON COLUMN ref.back_billing_rules.unknown_most_months IS 'at most so many months before the test then; empty: no limit';
COMMENT ON COLUMN ref.back_billing_rules.tolerance_percent IS 'a meter test that is off 100 percent by no more is good: nothing is corrected';
COMMENT ON COLUMN ref.back_billing_rules.interest_percent IS 'interest on refunds, percent a year, from the day the bill was issued to the day of the correction; empty: none';
COMMENT ON COLUMN ref.back_billing_rules.day_count IS 'days of a year that interest counts by: actual/365, actual/360 or 30/360';
COMMENT ON COLUMN ref.back_billing_rules.instalments IS 'how a charge may be paid: none, months (instalment_months), or error_time (as many months as the error lasted)';
COMMENT ON COLUMN ref.back_billing_rules.instalment_months IS 'months of instalments, where instalments is months';
COMMENT ON COLUMN ref.back_billing_rules.waive_below IS 'a charge of one service on one bill below this amount is waived; empty: none';
COMMENT ON COLUMN ref.back_billing_rules.source IS 'the law, code or tariff sheet that says so';
COMMENT ON COLUMN ref.back_billing_rules.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.back_billing_rules.valid_to IS 'billing day from which it no longer holds; empty while it does';
SELECT ref.keep_history('back_billing_rules');

CREATE TABLE ref.meter_tests (
    meter_id text COLLATE "C" NOT NULL REFERENCES ref.meters DEFERRABLE INITIALLY DEFERRED,
    tested_on date NOT NULL,
    percent_registration numeric(18,6) NOT NULL CONSTRAINT meter_test_in_range CHECK (percent_registration >= 0 AND percent_registration <= 1000),
    wrong_since date,
    wrong_until date,
    evidence text NOT NULL,
    PRIMARY KEY (meter_id, tested_on),
    CHECK (wrong_since < coalesce(wrong_until, tested_on)),
    CHECK (wrong_until IS NULL OR wrong_until >= tested_on)
);
COMMENT ON TABLE ref.meter_tests IS 'Results of meter tests: what share of the quantity the meter registers, and since when where that is known. A test starts a correction of the meter''s multiplier.';
COMMENT ON COLUMN ref.meter_tests.meter_id IS 'the device, as its head-end names it';
COMMENT ON COLUMN ref.meter_tests.tested_on IS 'civil day of the test';
COMMENT ON COLUMN ref.meter_tests.percent_registration IS 'what the meter registers of 100 units: 80 is slow, 103 is fast, 0 is stopped';
COMMENT ON COLUMN ref.meter_tests.wrong_since IS 'first billing day on which it was wrong; empty where that is unknown';
COMMENT ON COLUMN ref.meter_tests.wrong_until IS 'billing day from which it is right again (adjusted or exchanged); empty: the day of the test';
COMMENT ON COLUMN ref.meter_tests.evidence IS 'the test''s report';
SELECT ref.keep_history('meter_tests');

-- Which days a correction asked for, until they are billed again: the bills that move then are corrected under the policy of the correction's day.
CREATE TABLE vee.corrected_day (
    billing_day date NOT NULL,
    evidence bytea NOT NULL CHECK (length(evidence) = 32),
    corrected_on date NOT NULL,
    service_points text[] COLLATE "C" NOT NULL,
    billed_at timestamptz,
    PRIMARY KEY (billing_day, evidence)
);
CREATE INDEX corrected_day_waiting ON vee.corrected_day (billing_day) WHERE billed_at IS NULL;
COMMENT ON TABLE vee.corrected_day IS 'Days that a correction of reference data asked for.';
COMMENT ON COLUMN vee.corrected_day.billing_day IS 'The day.';
COMMENT ON COLUMN vee.corrected_day.evidence IS 'The correction, as its requests in vee.true_up name it.';
COMMENT ON COLUMN vee.corrected_day.corrected_on IS 'Civil day of the correction: that of its preview, or of the import.';
COMMENT ON COLUMN vee.corrected_day.service_points IS 'Service points that it reaches on the day.';
COMMENT ON COLUMN vee.corrected_day.billed_at IS 'When the day was billed again, UTC; null while it waits.';

ALTER TABLE billing.late_change ADD COLUMN corrected_on date;
COMMENT ON COLUMN billing.late_change.corrected_on IS 'Day of the correction of reference data that moved the day; null where a read did.';

CREATE TABLE billing.back_billing (
    adjustment_id text COLLATE "C" NOT NULL REFERENCES billing.adjustment,
    service_point_id text COLLATE "C" NOT NULL,
    rule_commodity text NOT NULL,
    rule_class text NOT NULL,
    rule_from date NOT NULL,
    corrected_on date NOT NULL,
    limit_day date,
    full_amount numeric(20,6) NOT NULL,
    allowed numeric(20,6) NOT NULL,
    waived numeric(20,6) NOT NULL,
    interest numeric(20,6) NOT NULL,
    why text NOT NULL,
    instalments integer CHECK (instalments > 0),
    policy_adjustment text COLLATE "C",
    PRIMARY KEY (adjustment_id, service_point_id),
    CONSTRAINT nothing_vanishes CHECK (full_amount = allowed + waived)
);
CREATE INDEX back_billing_by_policy ON billing.back_billing (policy_adjustment);
COMMENT ON TABLE billing.back_billing IS 'What the back-billing rule made of a correction of an issued bill, for each service on it: full amount = allowed + waived. What is waived, and interest, are lines of the policy adjustment.';
COMMENT ON COLUMN billing.back_billing.adjustment_id IS 'The correction: cancel and rebill in full.';
COMMENT ON COLUMN billing.back_billing.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.back_billing.rule_commodity IS 'Commodity of the rule; * for all.';
COMMENT ON COLUMN billing.back_billing.rule_class IS 'Customer class of the rule; * for all.';
COMMENT ON COLUMN billing.back_billing.rule_from IS 'First day of the rule.';
COMMENT ON COLUMN billing.back_billing.corrected_on IS 'Day from which the rule counts back.';
COMMENT ON COLUMN billing.back_billing.limit_day IS 'First day that may be charged or credited; null without a limit.';
COMMENT ON COLUMN billing.back_billing.full_amount IS 'What the correction comes to for the service: its lines.';
COMMENT ON COLUMN billing.back_billing.allowed IS 'What of it the rule allows.';
COMMENT ON COLUMN billing.back_billing.waived IS 'What of it the rule does not allow: taken back by the policy adjustment.';
COMMENT ON COLUMN billing.back_billing.interest IS 'Interest on the refund, credited by the policy adjustment; negative where an earlier refund with interest is taken back.';
COMMENT ON COLUMN billing.back_billing.why IS 'How the amounts follow from the rule, in words.';
COMMENT ON COLUMN billing.back_billing.instalments IS 'Months of instalments that are offered for a charge; null for none.';
COMMENT ON COLUMN billing.back_billing.policy_adjustment IS 'Adjustment that takes back what is waived and credits interest; null where both are 0.';

CREATE VIEW analyst.back_billing AS
SELECT b.adjustment_id, a.account_id, b.service_point_id, s.period_start, s.period_end, b.full_amount, b.allowed, b.waived, b.interest, a.status,
    b.rule_commodity, b.rule_class, b.rule_from, b.corrected_on, b.limit_day, b.why, b.instalments, b.policy_adjustment, a.posting_month
FROM billing.back_billing AS b JOIN billing.adjustment AS a USING (adjustment_id) JOIN billing.statement AS s USING (statement_id);
COMMENT ON VIEW analyst.back_billing IS 'Corrections of issued bills under a back-billing rule: full, allowed and waived amount, interest, instalments.';
COMMENT ON COLUMN analyst.back_billing.adjustment_id IS 'The correction.';
COMMENT ON COLUMN analyst.back_billing.account_id IS 'Account.';
COMMENT ON COLUMN analyst.back_billing.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.back_billing.period_start IS 'First day of the bill''s period.';
COMMENT ON COLUMN analyst.back_billing.period_end IS 'Day after its last.';
COMMENT ON COLUMN analyst.back_billing.full_amount IS 'What the correction comes to.';
COMMENT ON COLUMN analyst.back_billing.allowed IS 'What of it the rule allows.';
COMMENT ON COLUMN analyst.back_billing.waived IS 'What of it the rule does not allow.';
COMMENT ON COLUMN analyst.back_billing.interest IS 'Interest on the refund.';
COMMENT ON COLUMN analyst.back_billing.status IS 'requested, approved, refused, posted or superseded.';
COMMENT ON COLUMN analyst.back_billing.rule_commodity IS 'Commodity of the rule; * for all.';
COMMENT ON COLUMN analyst.back_billing.rule_class IS 'Customer class of the rule; * for all.';
COMMENT ON COLUMN analyst.back_billing.rule_from IS 'First day of the rule.';
COMMENT ON COLUMN analyst.back_billing.corrected_on IS 'Day from which the rule counts back.';
COMMENT ON COLUMN analyst.back_billing.limit_day IS 'First day that may be charged or credited; null without a limit.';
COMMENT ON COLUMN analyst.back_billing.why IS 'How the amounts follow from the rule.';
COMMENT ON COLUMN analyst.back_billing.instalments IS 'Months of instalments that are offered.';
COMMENT ON COLUMN analyst.back_billing.policy_adjustment IS 'Adjustment with the waived amount and the interest.';
COMMENT ON COLUMN analyst.back_billing.posting_month IS 'Accounting month it is posted in.';
COMMENT ON COLUMN billing.adjustment.reason IS 'late_actual, correction, tariff, reference, leak (forgiven above what the days come to) or policy (what a back-billing rule waives, and interest).';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
