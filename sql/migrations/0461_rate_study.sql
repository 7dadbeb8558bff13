-- migrate:up
-- Rate studies that were kept: for the council's record and for analysts.
CREATE TABLE billing.rate_study (
    study_id text COLLATE "C" NOT NULL,
    made_at timestamptz NOT NULL,
    made_by text NOT NULL,
    first_day date NOT NULL,
    past_day date NOT NULL,
    replaces text[] NOT NULL,
    documents jsonb NOT NULL,
    document_sha256 bytea[] NOT NULL,
    elasticity numeric,
    currency text NOT NULL,
    accounts integer NOT NULL CHECK (accounts >= 0),
    bills integer NOT NULL CHECK (bills >= 0),
    actual bigint NOT NULL,
    proposed bigint NOT NULL,
    not_reproduced integer NOT NULL CHECK (not_reproduced >= 0),
    left_out jsonb NOT NULL,
    PRIMARY KEY (study_id)
);
COMMENT ON TABLE billing.rate_study IS 'A rate study that was kept: what was asked, and what the bills came to under the tariffs proposed.';
COMMENT ON COLUMN billing.rate_study.study_id IS 'Rate study.';
COMMENT ON COLUMN billing.rate_study.made_at IS 'When, UTC.';
COMMENT ON COLUMN billing.rate_study.made_by IS 'Who.';
COMMENT ON COLUMN billing.rate_study.first_day IS 'Billing periods that end after this day.';
COMMENT ON COLUMN billing.rate_study.past_day IS 'And by this one.';
COMMENT ON COLUMN billing.rate_study.replaces IS 'Tariffs that are replaced.';
COMMENT ON COLUMN billing.rate_study.documents IS 'The documents proposed, in that order, as text.';
COMMENT ON COLUMN billing.rate_study.document_sha256 IS 'Their SHA-256.';
COMMENT ON COLUMN billing.rate_study.elasticity IS 'Elasticity assumed, null for none.';
COMMENT ON COLUMN billing.rate_study.currency IS 'Currency.';
COMMENT ON COLUMN billing.rate_study.accounts IS 'Accounts with a figure.';
COMMENT ON COLUMN billing.rate_study.bills IS 'Their bills.';
COMMENT ON COLUMN billing.rate_study.actual IS 'What was billed, millionths.';
COMMENT ON COLUMN billing.rate_study.proposed IS 'What would have been, millionths.';
COMMENT ON COLUMN billing.rate_study.not_reproduced IS 'Bills that do not come out as billed and are left out.';
COMMENT ON COLUMN billing.rate_study.left_out IS 'Why other services have no figure, and how many.'; 

CREATE TABLE billing.rate_study_account (
    study_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    customer_class text NOT NULL,
    bills integer NOT NULL CHECK (bills >= 1),
    actual bigint NOT NULL,
    proposed bigint NOT NULL,
    PRIMARY KEY (study_id, account_id),
    FOREIGN KEY (study_id) REFERENCES billing.rate_study (study_id)
);
COMMENT ON TABLE billing.rate_study_account IS 'An account''s bills in a rate study.';
COMMENT ON COLUMN billing.rate_study_account.study_id IS 'Rate study.';
COMMENT ON COLUMN billing.rate_study_account.account_id IS 'Account.';
COMMENT ON COLUMN billing.rate_study_account.customer_class IS 'Customer class of the account.';
COMMENT ON COLUMN billing.rate_study_account.bills IS 'Bills of the study''s periods.';
COMMENT ON COLUMN billing.rate_study_account.actual IS 'What was billed, millionths.';
COMMENT ON COLUMN billing.rate_study_account.proposed IS 'What would have been, millionths.'; 

CREATE TABLE billing.rate_study_revenue (
    study_id text COLLATE "C" NOT NULL,
    customer_class text NOT NULL,
    commodity text NOT NULL,
    component text NOT NULL,
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    actual bigint NOT NULL,
    proposed bigint NOT NULL,
    PRIMARY KEY (study_id, customer_class, commodity, component, month),
    FOREIGN KEY (study_id) REFERENCES billing.rate_study (study_id)
);
COMMENT ON TABLE billing.rate_study_revenue IS 'Revenue of a class and component in a month of a rate study.';
COMMENT ON COLUMN billing.rate_study_revenue.study_id IS 'Rate study.';
COMMENT ON COLUMN billing.rate_study_revenue.customer_class IS 'Customer class of the account.';
COMMENT ON COLUMN billing.rate_study_revenue.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN billing.rate_study_revenue.component IS 'Component of the charge: energy, fixed, tax and so on.';
COMMENT ON COLUMN billing.rate_study_revenue.month IS 'Month in which the billing periods end.';
COMMENT ON COLUMN billing.rate_study_revenue.actual IS 'What was billed, millionths.';
COMMENT ON COLUMN billing.rate_study_revenue.proposed IS 'What would have been, millionths.'; 

CREATE VIEW analyst.rate_studies AS
SELECT s.study_id, s.made_at, s.made_by, s.first_day, s.past_day, s.replaces, s.elasticity, s.currency, s.accounts, s.bills, s.actual::numeric / 1000000 AS actual,
    s.proposed::numeric / 1000000 AS proposed, s.not_reproduced, s.left_out
FROM billing.rate_study AS s;
COMMENT ON VIEW analyst.rate_studies IS 'Rate studies that were kept.';
COMMENT ON COLUMN analyst.rate_studies.study_id IS 'Study.';
COMMENT ON COLUMN analyst.rate_studies.made_at IS 'When, UTC.';
COMMENT ON COLUMN analyst.rate_studies.made_by IS 'Who.';
COMMENT ON COLUMN analyst.rate_studies.first_day IS 'Billing periods that end after this day.';
COMMENT ON COLUMN analyst.rate_studies.past_day IS 'And by this one.';
COMMENT ON COLUMN analyst.rate_studies.replaces IS 'Tariffs that are replaced.';
COMMENT ON COLUMN analyst.rate_studies.elasticity IS 'Elasticity assumed.';
COMMENT ON COLUMN analyst.rate_studies.currency IS 'Currency.';
COMMENT ON COLUMN analyst.rate_studies.accounts IS 'Accounts with a figure.';
COMMENT ON COLUMN analyst.rate_studies.bills IS 'Their bills.';
COMMENT ON COLUMN analyst.rate_studies.actual IS 'What was billed.';
COMMENT ON COLUMN analyst.rate_studies.proposed IS 'What would have been billed.';
COMMENT ON COLUMN analyst.rate_studies.not_reproduced IS 'Bills that do not come out as billed.';
COMMENT ON COLUMN analyst.rate_studies.left_out IS 'Why other services have no figure, and how many.';

CREATE VIEW analyst.rate_study_accounts AS
SELECT a.study_id, a.account_id, a.customer_class, a.bills, a.actual::numeric / 1000000 AS actual, a.proposed::numeric / 1000000 AS proposed,
    (a.proposed - a.actual)::numeric / 1000000 AS change, CASE WHEN a.actual > 0 THEN round(100.0 * (a.proposed - a.actual) / a.actual, 2) END AS change_percent
FROM billing.rate_study_account AS a;
COMMENT ON VIEW analyst.rate_study_accounts IS 'What an account was billed and would have been, by study.';
COMMENT ON COLUMN analyst.rate_study_accounts.study_id IS 'Study.';
COMMENT ON COLUMN analyst.rate_study_accounts.account_id IS 'Account.';
COMMENT ON COLUMN analyst.rate_study_accounts.customer_class IS 'Customer class.';
COMMENT ON COLUMN analyst.rate_study_accounts.bills IS 'Bills.';
COMMENT ON COLUMN analyst.rate_study_accounts.actual IS 'What was billed.';
COMMENT ON COLUMN analyst.rate_study_accounts.proposed IS 'What would have been.';
COMMENT ON COLUMN analyst.rate_study_accounts.change IS 'Difference.';
COMMENT ON COLUMN analyst.rate_study_accounts.change_percent IS 'Difference in percent of what was billed.';

CREATE VIEW analyst.rate_study_revenue AS
SELECT r.study_id, r.customer_class, r.commodity, r.component, r.month, r.actual::numeric / 1000000 AS actual, r.proposed::numeric / 1000000 AS proposed
FROM billing.rate_study_revenue AS r;
COMMENT ON VIEW analyst.rate_study_revenue IS 'Revenue of a study by class, component and month.';
COMMENT ON COLUMN analyst.rate_study_revenue.study_id IS 'Study.';
COMMENT ON COLUMN analyst.rate_study_revenue.customer_class IS 'Customer class.';
COMMENT ON COLUMN analyst.rate_study_revenue.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN analyst.rate_study_revenue.component IS 'Component of the charge.';
COMMENT ON COLUMN analyst.rate_study_revenue.month IS 'Month in which the billing periods end.';
COMMENT ON COLUMN analyst.rate_study_revenue.actual IS 'What was billed.';
COMMENT ON COLUMN analyst.rate_study_revenue.proposed IS 'What would have been.';

-- migrate:down
DROP VIEW analyst.rate_study_revenue;
DROP VIEW analyst.rate_study_accounts;
DROP VIEW analyst.rate_studies;
DROP TABLE billing.rate_study_revenue;
DROP TABLE billing.rate_study_account;
DROP TABLE billing.rate_study;
