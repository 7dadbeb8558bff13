-- migrate:up
-- Leak adjustments: dated rules of what is forgiven, and what each adjustment stands on.
CREATE TABLE ref.leak_adjustment_rules (
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal', '*')),
    seasons text,
    normal_periods integer NOT NULL,
    least_periods integer NOT NULL,
    share_percent numeric(18,6) NOT NULL CHECK (share_percent > -1e12 AND share_percent < 1e12),
    sewer_codes text,
    sewer_share_percent numeric(18,6) CHECK (sewer_share_percent > -1e12 AND sewer_share_percent < 1e12),
    months_between integer NOT NULL,
    most_bills integer NOT NULL,
    evidence text,
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (customer_class, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.leak_adjustment_rules IS 'What of a confirmed leak is forgiven, by customer class; * is every class without a rule of its own. The rule of the bill''s last day holds.';
COMMENT ON COLUMN ref.leak_adjustment_rules.customer_class IS 'class of the account; * every other one';
COMMENT ON COLUMN ref.leak_adjustment_rules.seasons IS 'seasons whose bills are compared with each other: months with blanks between, seasons with / between, such as 5 6 7 8 9 10 / 11 12 1 2 3 4; empty: all bills';
COMMENT ON COLUMN ref.leak_adjustment_rules.normal_periods IS 'how many earlier bills of the season the normal use is the mean of, the latest first';
COMMENT ON COLUMN ref.leak_adjustment_rules.least_periods IS 'how many of them there must be';
COMMENT ON COLUMN ref.leak_adjustment_rules.share_percent IS 'share of the use above normal that is forgiven, in percent';
COMMENT ON COLUMN ref.leak_adjustment_rules.sewer_codes IS 'codes of the tariff''s sewer charges, with blanks between';
COMMENT ON COLUMN ref.leak_adjustment_rules.sewer_share_percent IS 'share of the use above normal that those charges do not count, in percent; empty: share_percent';
COMMENT ON COLUMN ref.leak_adjustment_rules.months_between IS 'months after a bill that was adjusted for a leak in which no other leak of the service is forgiven';
COMMENT ON COLUMN ref.leak_adjustment_rules.most_bills IS 'how many bills of one leak are adjusted, the first ones';
COMMENT ON COLUMN ref.leak_adjustment_rules.evidence IS 'what the customer must show, such as a repair receipt; empty: nothing';
COMMENT ON COLUMN ref.leak_adjustment_rules.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.leak_adjustment_rules.valid_to IS 'billing day from which it no longer holds; empty while it does';
ALTER TABLE ref.leak_adjustment_rules ADD CONSTRAINT one_leak_rule_at_a_time EXCLUDE USING gist
    (customer_class WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ref.leak_adjustment_rules ADD CONSTRAINT leak_rule_in_range CHECK (normal_periods > 0 AND least_periods BETWEEN 1 AND normal_periods
    AND share_percent BETWEEN 0 AND 100 AND coalesce(sewer_share_percent, 0) BETWEEN 0 AND 100 AND months_between >= 0 AND most_bills > 0);
SELECT ref.keep_history('leak_adjustment_rules');

CREATE TABLE billing.leak_adjustment (
    adjustment_id text COLLATE "C" PRIMARY KEY REFERENCES billing.adjustment,
    case_id text COLLATE "C" NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    period_start date NOT NULL,
    period_end date NOT NULL,
    unit text NOT NULL,
    used bigint NOT NULL,
    normal bigint NOT NULL CHECK (normal >= 0),
    forgiven bigint NOT NULL CHECK (forgiven >= 0),
    sewer_forgiven bigint NOT NULL CHECK (sewer_forgiven >= 0),
    rule_class text NOT NULL,
    rule_from date NOT NULL,
    periods text NOT NULL,
    case_evidence text NOT NULL,
    shown text NOT NULL,
    CHECK (forgiven <= used - normal AND sewer_forgiven <= used - normal)
);
CREATE INDEX leak_adjustment_by_point ON billing.leak_adjustment (service_point_id, period_end);
COMMENT ON TABLE billing.leak_adjustment IS 'What an adjustment for a leak stands on: the confirmed case, normal use, the rule, and what the customer showed. Quantities in millionths of unit.';
COMMENT ON COLUMN billing.leak_adjustment.adjustment_id IS 'Adjustment.';
COMMENT ON COLUMN billing.leak_adjustment.case_id IS 'Confirmed leak.';
COMMENT ON COLUMN billing.leak_adjustment.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.leak_adjustment.period_start IS 'First day of the bill''s period.';
COMMENT ON COLUMN billing.leak_adjustment.period_end IS 'Day after its last.';
COMMENT ON COLUMN billing.leak_adjustment.unit IS 'Unit of the tariff.';
COMMENT ON COLUMN billing.leak_adjustment.used IS 'Usage that the bill stands on.';
COMMENT ON COLUMN billing.leak_adjustment.normal IS 'Normal use of as many days: the mean of the earlier bills that count.';
COMMENT ON COLUMN billing.leak_adjustment.forgiven IS 'Usage above normal that is not charged.';
COMMENT ON COLUMN billing.leak_adjustment.sewer_forgiven IS 'Usage above normal that sewer charges do not count.';
COMMENT ON COLUMN billing.leak_adjustment.rule_class IS 'Customer class of the rule; * for all.';
COMMENT ON COLUMN billing.leak_adjustment.rule_from IS 'First day of the rule.';
COMMENT ON COLUMN billing.leak_adjustment.periods IS 'Earlier bills with their days and quantities, and why one was left out: JSON.';
COMMENT ON COLUMN billing.leak_adjustment.case_evidence IS 'Days of the case with the figures that flagged them, who confirmed it and why: JSON.';
COMMENT ON COLUMN billing.leak_adjustment.shown IS 'What the customer showed.';
COMMENT ON COLUMN billing.adjustment.reason IS 'late_actual, correction, tariff, reference, or leak (forgiven above what the days come to).';

CREATE VIEW analyst.leak_adjustments AS
SELECT l.adjustment_id, l.case_id, a.account_id, l.service_point_id, l.period_start, l.period_end, l.unit, l.used::numeric / 1000000 AS used,
    l.normal::numeric / 1000000 AS normal, l.forgiven::numeric / 1000000 AS forgiven, l.sewer_forgiven::numeric / 1000000 AS sewer_forgiven, a.net, a.status,
    a.requested_by, a.decided_by, a.posting_month, l.rule_class, l.rule_from, l.periods::jsonb AS periods,
    l.case_evidence::jsonb AS case_evidence, l.shown
FROM billing.leak_adjustment AS l JOIN billing.adjustment AS a USING (adjustment_id);
COMMENT ON VIEW analyst.leak_adjustments IS 'Adjustments for leaks: what was normal, what is forgiven, by which rule, on what evidence.';
COMMENT ON COLUMN analyst.leak_adjustments.adjustment_id IS 'Adjustment.';
COMMENT ON COLUMN analyst.leak_adjustments.case_id IS 'Confirmed leak.';
COMMENT ON COLUMN analyst.leak_adjustments.account_id IS 'Account.';
COMMENT ON COLUMN analyst.leak_adjustments.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.leak_adjustments.period_start IS 'First day of the bill''s period.';
COMMENT ON COLUMN analyst.leak_adjustments.period_end IS 'Day after its last.';
COMMENT ON COLUMN analyst.leak_adjustments.unit IS 'Unit.';
COMMENT ON COLUMN analyst.leak_adjustments.used IS 'Usage on the bill.';
COMMENT ON COLUMN analyst.leak_adjustments.normal IS 'Normal use of as many days.';
COMMENT ON COLUMN analyst.leak_adjustments.forgiven IS 'Usage that is not charged.';
COMMENT ON COLUMN analyst.leak_adjustments.sewer_forgiven IS 'Usage that sewer charges do not count.';
COMMENT ON COLUMN analyst.leak_adjustments.net IS 'What the account owes less: negative.';
COMMENT ON COLUMN analyst.leak_adjustments.status IS 'requested, approved, refused or posted.';
COMMENT ON COLUMN analyst.leak_adjustments.requested_by IS 'Who asked.';
COMMENT ON COLUMN analyst.leak_adjustments.decided_by IS 'Who decided.';
COMMENT ON COLUMN analyst.leak_adjustments.posting_month IS 'Accounting month it is posted in.';
COMMENT ON COLUMN analyst.leak_adjustments.rule_class IS 'Customer class of the rule.';
COMMENT ON COLUMN analyst.leak_adjustments.rule_from IS 'First day of the rule.';
COMMENT ON COLUMN analyst.leak_adjustments.periods IS 'Earlier bills, and why some were left out.';
COMMENT ON COLUMN analyst.leak_adjustments.case_evidence IS 'The case''s evidence.';
COMMENT ON COLUMN analyst.leak_adjustments.shown IS 'What the customer showed.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
