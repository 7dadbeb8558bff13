-- migrate:up
-- Unbilled revenue at a month's end, how it moved since the month before, and the journal that books it. Sealed with the month.
CREATE TABLE ref.revenue_accounts (
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas', '*')),
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal', '*')),
    component text NOT NULL,
    revenue_account text NOT NULL,
    receivable_account text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (commodity, customer_class, component, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.revenue_accounts IS 'Accounts of the general ledger that unbilled revenue is booked to. * stands for every other value: a row that names a component comes before one that names a commodity, and that before one that names a class.';
COMMENT ON COLUMN ref.revenue_accounts.commodity IS 'electricity, water or gas; * every other one';
COMMENT ON COLUMN ref.revenue_accounts.customer_class IS 'class of the account; * every other one';
COMMENT ON COLUMN ref.revenue_accounts.component IS 'component of the charge (energy, fixed, demand_flat, demand_tou, rider, tax, minimum, credit); * every other one';
COMMENT ON COLUMN ref.revenue_accounts.revenue_account IS 'account that is credited, in the general ledger''s own code';
COMMENT ON COLUMN ref.revenue_accounts.receivable_account IS 'account of unbilled receivables that is debited';
COMMENT ON COLUMN ref.revenue_accounts.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.revenue_accounts.valid_to IS 'billing day from which it no longer holds; empty while it does';
ALTER TABLE ref.revenue_accounts ADD CONSTRAINT one_account_at_a_time EXCLUDE USING gist
    (commodity WITH =, customer_class WITH =, component WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
SELECT ref.keep_history('revenue_accounts');

CREATE TABLE billing.unbilled_month (
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    account_id text COLLATE "C" NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    customer_class text NOT NULL,
    commodity text NOT NULL,
    component text NOT NULL,
    currency text NOT NULL,
    source text NOT NULL CHECK (source IN ('days', 'correction')),
    days integer NOT NULL CHECK (days >= 0),
    first_day date NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (month, account_id, service_point_id, commodity, component, currency, source)
);
COMMENT ON TABLE billing.unbilled_month IS 'What an account owes at a month''s end for a service and component, for days served that are on no bill posted by then.';
COMMENT ON COLUMN billing.unbilled_month.month IS 'First day of the accounting month.';
COMMENT ON COLUMN billing.unbilled_month.account_id IS 'Account that pays.';
COMMENT ON COLUMN billing.unbilled_month.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.unbilled_month.customer_class IS 'Customer class of the account.';
COMMENT ON COLUMN billing.unbilled_month.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN billing.unbilled_month.component IS 'Component of the charge: energy, fixed, tax and so on.';
COMMENT ON COLUMN billing.unbilled_month.currency IS 'Currency.';
COMMENT ON COLUMN billing.unbilled_month.source IS 'Days: charged days that are on no bill; correction: adjustments of issued bills that are posted later.';
COMMENT ON COLUMN billing.unbilled_month.days IS 'Service days it is for; 0 for a correction.';
COMMENT ON COLUMN billing.unbilled_month.first_day IS 'The earliest of them.';
COMMENT ON COLUMN billing.unbilled_month.amount IS 'Millionths of the currency.'; 

CREATE TABLE billing.unbilled_roll (
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    customer_class text NOT NULL,
    commodity text NOT NULL,
    component text NOT NULL,
    currency text NOT NULL,
    opening bigint NOT NULL,
    restated bigint NOT NULL,
    charged bigint NOT NULL,
    corrected bigint NOT NULL,
    issued bigint NOT NULL,
    at_period_end bigint NOT NULL,
    elsewhere bigint NOT NULL,
    closing bigint NOT NULL,
    revenue_account text,
    PRIMARY KEY (month, customer_class, commodity, component, currency),
    CONSTRAINT rolls_forward CHECK (opening + restated + charged + corrected - (issued - at_period_end) - elsewhere = closing)
);
COMMENT ON TABLE billing.unbilled_roll IS 'How a class''s unbilled revenue of a component went from one month''s end to the next; amounts in millionths of the currency.';
COMMENT ON COLUMN billing.unbilled_roll.month IS 'First day of the accounting month.';
COMMENT ON COLUMN billing.unbilled_roll.customer_class IS 'Customer class of the account.';
COMMENT ON COLUMN billing.unbilled_roll.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN billing.unbilled_roll.component IS 'Component of the charge: energy, fixed, tax and so on.';
COMMENT ON COLUMN billing.unbilled_roll.currency IS 'Currency.';
COMMENT ON COLUMN billing.unbilled_roll.opening IS 'Unbilled at the end of the month before, as it was reported.';
COMMENT ON COLUMN billing.unbilled_roll.restated IS 'What became known later of days before the month.';
COMMENT ON COLUMN billing.unbilled_roll.charged IS 'Charges of the month''s days.';
COMMENT ON COLUMN billing.unbilled_roll.corrected IS 'Adjustments of issued bills that arose, posted in this month or later.';
COMMENT ON COLUMN billing.unbilled_roll.issued IS 'Statement and adjustment lines posted in the month.';
COMMENT ON COLUMN billing.unbilled_roll.at_period_end IS 'Part of issued that is in no day''s charge: minimum charges, credits, ratchets, rounding and the taxes on them.';
COMMENT ON COLUMN billing.unbilled_roll.elsewhere IS 'Charged days that the legacy batch bills, while a migration is under way.';
COMMENT ON COLUMN billing.unbilled_roll.closing IS 'Unbilled at the month''s end.';
COMMENT ON COLUMN billing.unbilled_roll.revenue_account IS 'Account of the general ledger; null where none is declared.'; 

CREATE TABLE billing.journal_line (
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    line_no integer NOT NULL CHECK (line_no >= 1),
    entry_date date NOT NULL,
    entry text NOT NULL CHECK (entry IN ('accrual', 'reversal')),
    account_code text NOT NULL,
    debit numeric(20,2) NOT NULL,
    credit numeric(20,2) NOT NULL,
    currency text NOT NULL,
    description text NOT NULL,
    PRIMARY KEY (month, line_no),
    CHECK (debit >= 0 AND credit >= 0 AND (debit = 0) <> (credit = 0))
);
COMMENT ON TABLE billing.journal_line IS 'A line of the journal of unbilled revenue: the month''s accrual, or the reversal of the one before.';
COMMENT ON COLUMN billing.journal_line.month IS 'First day of the accounting month.';
COMMENT ON COLUMN billing.journal_line.line_no IS 'Number of the line.';
COMMENT ON COLUMN billing.journal_line.entry_date IS 'Day it is booked on.';
COMMENT ON COLUMN billing.journal_line.entry IS 'Accrual or reversal.';
COMMENT ON COLUMN billing.journal_line.account_code IS 'Account of the general ledger.';
COMMENT ON COLUMN billing.journal_line.debit IS 'Debit.';
COMMENT ON COLUMN billing.journal_line.credit IS 'Credit.';
COMMENT ON COLUMN billing.journal_line.currency IS 'Currency.';
COMMENT ON COLUMN billing.journal_line.description IS 'What it is, in words.'; 

SELECT billing.guard_sealed('billing.unbilled_month', 'month');
SELECT billing.guard_sealed('billing.unbilled_roll', 'month');
SELECT billing.guard_sealed('billing.journal_line', 'month');

CREATE VIEW analyst.unbilled AS
SELECT u.month, u.account_id, u.service_point_id, u.customer_class, u.commodity, u.component, u.source, u.days, u.first_day,
    u.amount::numeric / 1000000 AS amount, u.currency
FROM billing.unbilled_month AS u;
COMMENT ON VIEW analyst.unbilled IS 'Unbilled revenue at each month''s end: days served that are on no bill posted by then.';
COMMENT ON COLUMN analyst.unbilled.month IS 'First day of the accounting month.';
COMMENT ON COLUMN analyst.unbilled.account_id IS 'Account.';
COMMENT ON COLUMN analyst.unbilled.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.unbilled.customer_class IS 'Customer class.';
COMMENT ON COLUMN analyst.unbilled.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN analyst.unbilled.component IS 'Component of the charge.';
COMMENT ON COLUMN analyst.unbilled.source IS 'days, or correction: adjustments of issued bills that are posted later.';
COMMENT ON COLUMN analyst.unbilled.days IS 'Service days it is for.';
COMMENT ON COLUMN analyst.unbilled.first_day IS 'The earliest of them.';
COMMENT ON COLUMN analyst.unbilled.amount IS 'Money, in currency.';
COMMENT ON COLUMN analyst.unbilled.currency IS 'Currency.';

CREATE VIEW analyst.unbilled_roll AS
SELECT r.month, r.customer_class, r.commodity, r.component, r.currency, r.opening::numeric / 1000000 AS opening, r.restated::numeric / 1000000 AS restated,
    r.charged::numeric / 1000000 AS charged, r.corrected::numeric / 1000000 AS corrected, r.issued::numeric / 1000000 AS issued,
    r.at_period_end::numeric / 1000000 AS at_period_end, r.elsewhere::numeric / 1000000 AS elsewhere, r.closing::numeric / 1000000 AS closing,
    r.revenue_account
FROM billing.unbilled_roll AS r;
COMMENT ON VIEW analyst.unbilled_roll IS 'opening + restated + charged + corrected - issued + at_period_end - elsewhere = closing, by class, commodity and component.';
COMMENT ON COLUMN analyst.unbilled_roll.month IS 'First day of the accounting month.';
COMMENT ON COLUMN analyst.unbilled_roll.customer_class IS 'Customer class.';
COMMENT ON COLUMN analyst.unbilled_roll.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN analyst.unbilled_roll.component IS 'Component of the charge.';
COMMENT ON COLUMN analyst.unbilled_roll.currency IS 'Currency.';
COMMENT ON COLUMN analyst.unbilled_roll.opening IS 'Unbilled at the end of the month before, as reported.';
COMMENT ON COLUMN analyst.unbilled_roll.restated IS 'What became known later of days before the month.';
COMMENT ON COLUMN analyst.unbilled_roll.charged IS 'Charges of the month''s days.';
COMMENT ON COLUMN analyst.unbilled_roll.corrected IS 'Adjustments of issued bills that arose.';
COMMENT ON COLUMN analyst.unbilled_roll.issued IS 'Lines of statements and adjustments posted in the month.';
COMMENT ON COLUMN analyst.unbilled_roll.at_period_end IS 'Part of issued that is in no day''s charge.';
COMMENT ON COLUMN analyst.unbilled_roll.elsewhere IS 'Charged days that the legacy batch bills.';
COMMENT ON COLUMN analyst.unbilled_roll.closing IS 'Unbilled at the month''s end.';
COMMENT ON COLUMN analyst.unbilled_roll.revenue_account IS 'Account of the general ledger, where one is declared.';

CREATE VIEW analyst.journal AS
SELECT j.month, j.line_no, j.entry_date, j.entry, j.account_code, j.debit, j.credit, j.currency, j.description FROM billing.journal_line AS j;
COMMENT ON VIEW analyst.journal IS 'The journal of unbilled revenue: debits equal credits in each entry.';
COMMENT ON COLUMN analyst.journal.month IS 'First day of the accounting month.';
COMMENT ON COLUMN analyst.journal.line_no IS 'Number of the line.';
COMMENT ON COLUMN analyst.journal.entry_date IS 'Day it is booked on.';
COMMENT ON COLUMN analyst.journal.entry IS 'accrual, or reversal of the month before.';
COMMENT ON COLUMN analyst.journal.account_code IS 'Account of the general ledger.';
COMMENT ON COLUMN analyst.journal.debit IS 'Debit.';
COMMENT ON COLUMN analyst.journal.credit IS 'Credit.';
COMMENT ON COLUMN analyst.journal.currency IS 'Currency.';
COMMENT ON COLUMN analyst.journal.description IS 'What it is, in words.';

-- migrate:down
DROP VIEW analyst.journal;
DROP VIEW analyst.unbilled_roll;
DROP VIEW analyst.unbilled;
DROP TABLE billing.journal_line;
DROP TABLE billing.unbilled_roll;
DROP TABLE billing.unbilled_month;
DROP FUNCTION ref.revenue_accounts_as_of(timestamptz);
DROP TABLE ref.revenue_accounts_version;
DROP TABLE ref.revenue_accounts;
