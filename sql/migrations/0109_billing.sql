-- migrate:up
-- From validated usage to money: determinants, charges, statements, reconciliation, adjustments, sealed months,
-- unbilled revenue.
CREATE SCHEMA billing;
COMMENT ON SCHEMA billing IS 'Determinants, charges, statements, adjustments and their reconciliation.';

-- Billing days.

CREATE TABLE billing.tariff_version (
    tariff_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    document_sha256 bytea NOT NULL CHECK (length(document_sha256) = 32),
    source text NOT NULL CHECK (source IN ('urdb', 'native')),
    name text NOT NULL,
    commodity text NOT NULL,
    currency text NOT NULL,
    unit text NOT NULL,
    periods text[] NOT NULL,
    registers text[] NOT NULL,
    line_keys text[] NOT NULL,
    line_names text[] NOT NULL,
    line_components text[] NOT NULL,
    day_keys text[] NOT NULL,
    day_components text[] NOT NULL,
    rounding text NOT NULL,
    first_used_at timestamptz NOT NULL,
    PRIMARY KEY (tariff_id, version)
);
COMMENT ON TABLE billing.tariff_version IS 'Tariff versions that something was billed with: frozen from then on, so that a bill can always be explained.';
COMMENT ON COLUMN billing.tariff_version.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.tariff_version.version IS 'Its version.';
COMMENT ON COLUMN billing.tariff_version.document_sha256 IS 'SHA-256 of the document as imported.';
COMMENT ON COLUMN billing.tariff_version.source IS 'Schema of the document.';
COMMENT ON COLUMN billing.tariff_version.name IS 'Name of the tariff.';
COMMENT ON COLUMN billing.tariff_version.commodity IS 'electricity, water or gas.';
COMMENT ON COLUMN billing.tariff_version.currency IS 'Currency of every amount.';
COMMENT ON COLUMN billing.tariff_version.unit IS 'Unit in which usage is charged.';
COMMENT ON COLUMN billing.tariff_version.periods IS 'Time-of-use periods: what the energy lists of determinants follow.';
COMMENT ON COLUMN billing.tariff_version.registers IS 'Demand registers: what the peaks lists follow.';
COMMENT ON COLUMN billing.tariff_version.line_keys IS 'Keys of the statement''s lines.';
COMMENT ON COLUMN billing.tariff_version.line_names IS 'Their names.';
COMMENT ON COLUMN billing.tariff_version.line_components IS 'Their components.';
COMMENT ON COLUMN billing.tariff_version.day_keys IS 'Keys of a day''s lines: what the amounts lists of charges follow.';
COMMENT ON COLUMN billing.tariff_version.day_components IS 'Their components.';
COMMENT ON COLUMN billing.tariff_version.rounding IS 'Rounding rule of its lines.';
COMMENT ON COLUMN billing.tariff_version.first_used_at IS 'When something was first billed with it, UTC.';

CREATE TABLE billing.determinant_day (
    billing_day date NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    tariff_id text COLLATE "C" NOT NULL,
    tariff_version integer NOT NULL,
    cycle_id text COLLATE "C" NOT NULL,
    period_start date NOT NULL,
    period_end date NOT NULL,
    stretch_start date NOT NULL,
    unit text NOT NULL,
    source_unit text NOT NULL,
    source_quantity bigint NOT NULL,
    source_export bigint NOT NULL,
    energy bigint[] NOT NULL,
    export bigint[] NOT NULL,
    peaks bigint[] NOT NULL,
    peak_at bigint[] NOT NULL,
    slots integer NOT NULL,
    estimated integer NOT NULL,
    missing integer NOT NULL,
    interval_minutes smallint NOT NULL,
    other_unit text NOT NULL DEFAULT '',
    other_quantity bigint NOT NULL DEFAULT 0,
    other_export bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (billing_day, service_point_id)
) PARTITION BY RANGE (billing_day);
COMMENT ON TABLE billing.determinant_day IS 'What a service point used on a billing day, as its tariff counts it. Depends on that day''s usage alone.';
COMMENT ON COLUMN billing.determinant_day.billing_day IS 'Local civil day.';
COMMENT ON COLUMN billing.determinant_day.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.determinant_day.account_id IS 'Account that pays.';
COMMENT ON COLUMN billing.determinant_day.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.determinant_day.tariff_version IS 'Version in force on the day.';
COMMENT ON COLUMN billing.determinant_day.cycle_id IS 'Billing cycle.';
COMMENT ON COLUMN billing.determinant_day.period_start IS 'First day of the billing period.';
COMMENT ON COLUMN billing.determinant_day.period_end IS 'Day after the period''s last.';
COMMENT ON COLUMN billing.determinant_day.stretch_start IS 'First day in the period of this account and tariff at the service point.';
COMMENT ON COLUMN billing.determinant_day.unit IS 'Unit of energy and export.';
COMMENT ON COLUMN billing.determinant_day.source_unit IS 'Base unit of the meter; empty where no usage came.';
COMMENT ON COLUMN billing.determinant_day.source_quantity IS 'Validated usage in millionths of source_unit.';
COMMENT ON COLUMN billing.determinant_day.source_export IS 'Validated exports in millionths of source_unit.';
COMMENT ON COLUMN billing.determinant_day.energy IS 'Usage per time-of-use period, millionths of unit.';
COMMENT ON COLUMN billing.determinant_day.export IS 'Exports likewise.';
COMMENT ON COLUMN billing.determinant_day.peaks IS 'what each register measured, millionths of kW, kVA, kVAr or kVArh, or of the unit in a block of the day';
COMMENT ON COLUMN billing.determinant_day.peak_at IS 'When each began: UTC Unix seconds, 0 for none.';
COMMENT ON COLUMN billing.determinant_day.slots IS 'Intervals it is the sum of; 1 for a day''s total.';
COMMENT ON COLUMN billing.determinant_day.estimated IS 'How many of them are estimates.';
COMMENT ON COLUMN billing.determinant_day.missing IS 'How many had no value.';
COMMENT ON COLUMN billing.determinant_day.interval_minutes IS 'Length of an interval; 0 for a day''s total.';
COMMENT ON COLUMN billing.determinant_day.other_unit IS 'Second base unit of the day, after an exchange of meters of different units; else empty.';
COMMENT ON COLUMN billing.determinant_day.other_quantity IS 'Validated usage in millionths of other_unit.';
COMMENT ON COLUMN billing.determinant_day.other_export IS 'Validated exports in millionths of other_unit.';

CREATE TABLE billing.determinant_day_version (
    LIKE billing.determinant_day INCLUDING COMMENTS,
    version_id bigint GENERATED ALWAYS AS IDENTITY,
    replaced_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (billing_day, service_point_id, version_id)
);
COMMENT ON TABLE billing.determinant_day_version IS 'Rows of billing.determinant_day that were replaced or taken out.';
COMMENT ON COLUMN billing.determinant_day_version.version_id IS 'In the order in which rows were replaced.';
COMMENT ON COLUMN billing.determinant_day_version.replaced_by IS 'Transaction that replaced the row.';

CREATE TABLE billing.determinant_revision (
    billing_day date NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    revision integer NOT NULL CHECK (revision > 0),
    posting_month date NOT NULL,
    recorded_at timestamptz NOT NULL,
    determinants jsonb NOT NULL,
    exceptions jsonb,
    PRIMARY KEY (billing_day, service_point_id, revision)
);
COMMENT ON TABLE billing.determinant_revision IS 'Later versions of a day''s determinants whose month is sealed: the sealed row stays, corrections stand on these.';
COMMENT ON COLUMN billing.determinant_revision.billing_day IS 'Day.';
COMMENT ON COLUMN billing.determinant_revision.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.determinant_revision.revision IS 'Number of the revision.';
COMMENT ON COLUMN billing.determinant_revision.posting_month IS 'Open month in which it arrived.';
COMMENT ON COLUMN billing.determinant_revision.recorded_at IS 'When, UTC.';
COMMENT ON COLUMN billing.determinant_revision.determinants IS 'The day''s row as it would be now.';
COMMENT ON COLUMN billing.determinant_revision.exceptions IS 'What stands against billing the day as it would be now: [[reason, detail], ...]; null where revisions did not keep it.';

CREATE TABLE billing.charge_day (
    billing_day date NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    tariff_id text COLLATE "C" NOT NULL,
    tariff_version integer NOT NULL,
    cycle_id text COLLATE "C" NOT NULL,
    period_start date NOT NULL,
    stretch_start date NOT NULL,
    days integer NOT NULL CHECK (days > 0),
    energy_to_date bigint[] NOT NULL,
    export_to_date bigint[] NOT NULL,
    peaks_to_date bigint[] NOT NULL,
    peak_at_to_date bigint[] NOT NULL,
    register_days bigint[] NOT NULL,
    budget_to_date bigint NOT NULL,
    carry bigint[] NOT NULL,
    history bigint[] NOT NULL,
    amounts bigint[] NOT NULL,
    total bigint NOT NULL,
    PRIMARY KEY (billing_day, service_point_id)
) PARTITION BY RANGE (billing_day);
COMMENT ON TABLE billing.charge_day IS 'What a billing day cost, and the position in the billing period after it. Amounts are millionths of the currency, rounded by the line''s own rule.';
COMMENT ON COLUMN billing.charge_day.billing_day IS 'Local civil day.';
COMMENT ON COLUMN billing.charge_day.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.charge_day.account_id IS 'Account that pays.';
COMMENT ON COLUMN billing.charge_day.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.charge_day.tariff_version IS 'Version in force on the day.';
COMMENT ON COLUMN billing.charge_day.cycle_id IS 'Billing cycle.';
COMMENT ON COLUMN billing.charge_day.period_start IS 'First day of the billing period.';
COMMENT ON COLUMN billing.charge_day.stretch_start IS 'First day in the period of this account and tariff at the service point.';
COMMENT ON COLUMN billing.charge_day.days IS 'Days of the stretch so far, this one included.';
COMMENT ON COLUMN billing.charge_day.energy_to_date IS 'Usage of the stretch so far per period: the tier''s position.';
COMMENT ON COLUMN billing.charge_day.export_to_date IS 'Exports of the stretch so far.';
COMMENT ON COLUMN billing.charge_day.peaks_to_date IS 'Highest demand of the stretch so far per register.';
COMMENT ON COLUMN billing.charge_day.peak_at_to_date IS 'When each began, UTC Unix seconds.';
COMMENT ON COLUMN billing.charge_day.register_days IS 'Days so far in each register''s season.';
COMMENT ON COLUMN billing.charge_day.budget_to_date IS 'Budget allotted so far, millionths of the unit.';
COMMENT ON COLUMN billing.charge_day.carry IS 'Net metering credit carried into the period, per period.';
COMMENT ON COLUMN billing.charge_day.history IS 'Highest peak of a ratchet''s look-back per register.';
COMMENT ON COLUMN billing.charge_day.amounts IS 'Amount of each day line (billing.tariff_version.day_keys).';
COMMENT ON COLUMN billing.charge_day.total IS 'Their sum.';

CREATE TABLE billing.charge_day_version (
    LIKE billing.charge_day INCLUDING COMMENTS,
    version_id bigint GENERATED ALWAYS AS IDENTITY,
    replaced_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (billing_day, service_point_id, version_id)
);
COMMENT ON TABLE billing.charge_day_version IS 'Rows of billing.charge_day that were replaced or taken out; billing.charge_day_before(transaction) puts them together.';
COMMENT ON COLUMN billing.charge_day_version.version_id IS 'In the order in which rows were replaced.';
COMMENT ON COLUMN billing.charge_day_version.replaced_by IS 'Transaction that replaced the row.';

CREATE TABLE billing.exception_day (
    billing_day date NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C",
    reason text NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (billing_day, service_point_id, reason, detail)
);
COMMENT ON TABLE billing.exception_day IS 'What a billing day could not bill, or billed without usage: a closed list of reasons.';
COMMENT ON COLUMN billing.exception_day.billing_day IS 'Local civil day.';
COMMENT ON COLUMN billing.exception_day.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.exception_day.account_id IS 'Account, where one is known.';
COMMENT ON COLUMN billing.exception_day.reason IS 'One of billing.bind.EXCEPTIONS.';
COMMENT ON COLUMN billing.exception_day.detail IS 'What exactly.';

CREATE TABLE billing.reconciliation (
    billing_day date NOT NULL,
    joint text NOT NULL,
    subject text NOT NULL,
    unit text NOT NULL,
    expected numeric(30,6) NOT NULL,
    actual numeric(30,6) NOT NULL,
    difference numeric(30,6) GENERATED ALWAYS AS (actual - expected) STORED,
    cause text NOT NULL,
    items bigint NOT NULL,
    detail text NOT NULL DEFAULT '',
    PRIMARY KEY (billing_day, joint, subject, unit, cause)
);
COMMENT ON TABLE billing.reconciliation IS 'Each joint between one stage and the next, per billing day: what was expected, what is there, and the named cause of any difference.';
COMMENT ON COLUMN billing.reconciliation.billing_day IS 'Day; a statement''s joint stands on the period''s last day.';
COMMENT ON COLUMN billing.reconciliation.joint IS 'Which two things were compared.';
COMMENT ON COLUMN billing.reconciliation.subject IS 'File, unit, service point or statement; all for the whole day.';
COMMENT ON COLUMN billing.reconciliation.unit IS 'Unit of the figures: rows, kWh, currency ...';
COMMENT ON COLUMN billing.reconciliation.expected IS 'What the stage before says.';
COMMENT ON COLUMN billing.reconciliation.actual IS 'What this stage has.';
COMMENT ON COLUMN billing.reconciliation.difference IS 'actual - expected.';
COMMENT ON COLUMN billing.reconciliation.cause IS 'none, a named cause of the closed list, or open.';
COMMENT ON COLUMN billing.reconciliation.items IS 'How many rows are behind it.';
COMMENT ON COLUMN billing.reconciliation.detail IS 'What exactly.';

CREATE TABLE billing.leaf_prefix (
    entry_id bigint PRIMARY KEY,
    billing_day date NOT NULL,
    prefixes bytea NOT NULL
);
ALTER TABLE billing.leaf_prefix ALTER COLUMN prefixes SET STORAGE EXTERNAL;
CREATE INDEX leaf_prefix_by_day ON billing.leaf_prefix (billing_day);
COMMENT ON TABLE billing.leaf_prefix IS 'The first four bytes of each leaf of the ledger entries of a day''s payloads, in their order: where to look in the entry, an eighth of its size.';
COMMENT ON COLUMN billing.leaf_prefix.entry_id IS 'Ledger entry of kind ingested.';
COMMENT ON COLUMN billing.leaf_prefix.billing_day IS 'Its billing day.';
COMMENT ON COLUMN billing.leaf_prefix.prefixes IS 'Four bytes a leaf.';

-- Kept for pages that cannot wait for the queries.
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

-- Statements.

-- Bills of a period that had begun before this day cover the days from it on; no bill waits for days before.
CREATE TABLE billing.going_live (
    first_billing_day date NOT NULL,
    single boolean PRIMARY KEY DEFAULT true CHECK (single)
);
COMMENT ON TABLE billing.going_live IS 'The first billing day of the deployment (utility.toml), as billing knows it: one row, or none where every day is billed.';
COMMENT ON COLUMN billing.going_live.first_billing_day IS 'First day that is billed.';
COMMENT ON COLUMN billing.going_live.single IS 'Always true: there is one row.';

CREATE TABLE billing.period (
    month date PRIMARY KEY CHECK (extract(day FROM month) = 1),
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closing', 'sealed')),
    requested_by text,
    requested_at timestamptz,
    checklist jsonb,
    approved_by text,
    sealed_at timestamptz,
    control_totals jsonb,
    totals_sha256 bytea CHECK (length(totals_sha256) = 32),
    signature bytea,
    ledger_entry bigint,
    CONSTRAINT sealed_by_two_people CHECK (status <> 'sealed' OR (requested_by IS NOT NULL
        AND approved_by IS NOT NULL AND lower(btrim(requested_by)) <> lower(btrim(approved_by))
        AND totals_sha256 IS NOT NULL))
);
COMMENT ON TABLE billing.period IS 'Accounting months. A sealed month refuses every change to what it holds.';
COMMENT ON COLUMN billing.period.month IS 'First day of the month.';
COMMENT ON COLUMN billing.period.status IS 'open, closing (asked, waiting for a second person), sealed.';
COMMENT ON COLUMN billing.period.requested_by IS 'Who asked for the close.';
COMMENT ON COLUMN billing.period.requested_at IS 'When, UTC.';
COMMENT ON COLUMN billing.period.checklist IS 'What was checked: each point with its result.';
COMMENT ON COLUMN billing.period.approved_by IS 'Who approved it: another person.';
COMMENT ON COLUMN billing.period.sealed_at IS 'When it was sealed, UTC.';
COMMENT ON COLUMN billing.period.control_totals IS 'Counts and sums of what it holds.';
COMMENT ON COLUMN billing.period.totals_sha256 IS 'SHA-256 of the control totals'' canonical bytes.';
COMMENT ON COLUMN billing.period.signature IS 'Signature over totals_sha256, where a signer was given.';
COMMENT ON COLUMN billing.period.ledger_entry IS 'Entry of the ledger that records the seal.';

CREATE TABLE billing.statement (
    statement_id text COLLATE "C" PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    cycle_id text COLLATE "C" NOT NULL,
    period_start date NOT NULL,
    period_end date NOT NULL,
    revision integer NOT NULL CHECK (revision >= 0),
    kind text NOT NULL CHECK (kind IN ('regular', 'first', 'final', 'first_and_final')),
    posting_month date NOT NULL CHECK (extract(day FROM posting_month) = 1),
    currency text NOT NULL,
    total numeric(20,6) NOT NULL,
    accrued numeric(20,6) NOT NULL,
    lines integer NOT NULL,
    lines_sha256 bytea NOT NULL CHECK (length(lines_sha256) = 32),
    issued_at timestamptz NOT NULL,
    period_end_due numeric(20,6) NOT NULL DEFAULT 0,
    credit_carried numeric(20,6) NOT NULL DEFAULT 0,
    ratchet_due numeric(20,6) NOT NULL DEFAULT 0,
    year_end_due numeric(20,6) NOT NULL DEFAULT 0,
    ledger_entry bigint,
    ledger_leaf integer,
    sealed_days_due numeric(20,6),
    UNIQUE (account_id, cycle_id, period_start, revision),
    CHECK (period_end > period_start)
);
CREATE INDEX statement_by_period ON billing.statement (cycle_id, period_start);
CREATE INDEX statement_newest ON billing.statement (issued_at DESC, statement_id DESC);
CREATE INDEX statement_by_account ON billing.statement (account_id, issued_at DESC, statement_id DESC);
COMMENT ON TABLE billing.statement IS 'A bill: one account, one billing period, one revision.';
COMMENT ON COLUMN billing.statement.statement_id IS 'ACCOUNT.CYCLE.PERIODSTART.REVISION';
COMMENT ON COLUMN billing.statement.account_id IS 'Account.';
COMMENT ON COLUMN billing.statement.cycle_id IS 'Billing cycle.';
COMMENT ON COLUMN billing.statement.period_start IS 'First day.';
COMMENT ON COLUMN billing.statement.period_end IS 'Day after the last.';
COMMENT ON COLUMN billing.statement.revision IS '0, and one more for each rebill.';
COMMENT ON COLUMN billing.statement.kind IS 'Whether the account''s service begins or ends in the period.';
COMMENT ON COLUMN billing.statement.posting_month IS 'Accounting month it is posted in.';
COMMENT ON COLUMN billing.statement.currency IS 'Currency.';
COMMENT ON COLUMN billing.statement.total IS 'Sum of its lines.';
COMMENT ON COLUMN billing.statement.accrued IS 'Sum of its days'' charges: the rest is owed only at a period''s end.';
COMMENT ON COLUMN billing.statement.lines IS 'Number of lines.';
COMMENT ON COLUMN billing.statement.lines_sha256 IS 'SHA-256 over the canonical bytes of its lines: its leaf in the ledger.';
COMMENT ON COLUMN billing.statement.issued_at IS 'When it was issued, UTC.';
COMMENT ON COLUMN billing.statement.period_end_due IS 'What the end of the period added to its days: minimum charges and the taxes on them.';
COMMENT ON COLUMN billing.statement.credit_carried IS 'What credit carried in from the period before took off.';
COMMENT ON COLUMN billing.statement.ratchet_due IS 'What demand of earlier months added.';
COMMENT ON COLUMN billing.statement.year_end_due IS 'What the end of a billing year added: the annual minimum, less what is paid for credit left over.';
COMMENT ON COLUMN billing.statement.ledger_entry IS 'Entry of the ledger that holds its leaf; null for statements issued before this column.';
COMMENT ON COLUMN billing.statement.ledger_leaf IS 'Number of the leaf in it, from 0.';
COMMENT ON COLUMN billing.statement.sealed_days_due IS 'What later reads of days in a sealed month changed: those days keep their sealed charges, the statement bills the corrected ones.';

CREATE TABLE billing.statement_line (
    statement_id text COLLATE "C" NOT NULL REFERENCES billing.statement,
    line_no integer NOT NULL CHECK (line_no > 0),
    service_point_id text COLLATE "C" NOT NULL,
    tariff_id text COLLATE "C" NOT NULL,
    tariff_version integer NOT NULL,
    segment_start date NOT NULL,
    segment_end date NOT NULL,
    line_key text NOT NULL,
    name text NOT NULL,
    component text NOT NULL,
    quantity numeric(24,6),
    unit text NOT NULL,
    amount numeric(20,6) NOT NULL,
    posting_month date NOT NULL,
    PRIMARY KEY (statement_id, line_no)
);
CREATE INDEX statement_line_by_service_point ON billing.statement_line (service_point_id, segment_start);
COMMENT ON TABLE billing.statement_line IS 'Lines of statements. A line''s public id is statement_id.line_no.';
COMMENT ON COLUMN billing.statement_line.statement_id IS 'Statement.';
COMMENT ON COLUMN billing.statement_line.line_no IS 'Number of the line.';
COMMENT ON COLUMN billing.statement_line.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.statement_line.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.statement_line.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.statement_line.segment_start IS 'First day it covers.';
COMMENT ON COLUMN billing.statement_line.segment_end IS 'Day after the last.';
COMMENT ON COLUMN billing.statement_line.line_key IS 'Key in the tariff version.';
COMMENT ON COLUMN billing.statement_line.name IS 'What the customer reads.';
COMMENT ON COLUMN billing.statement_line.component IS 'energy, demand_flat, demand_tou, fixed, minimum, rider, tax or credit.';
COMMENT ON COLUMN billing.statement_line.quantity IS 'Units charged for, where the line has units.';
COMMENT ON COLUMN billing.statement_line.unit IS 'Unit of quantity; empty where none.';
COMMENT ON COLUMN billing.statement_line.amount IS 'Money, rounded by the line''s rule.';
COMMENT ON COLUMN billing.statement_line.posting_month IS 'Accounting month.';

CREATE TABLE billing.statement_segment (
    statement_id text COLLATE "C" NOT NULL REFERENCES billing.statement,
    service_point_id text COLLATE "C" NOT NULL,
    tariff_id text COLLATE "C" NOT NULL,
    tariff_version integer NOT NULL,
    segment_start date NOT NULL,
    segment_end date NOT NULL,
    days integer NOT NULL,
    unit text NOT NULL,
    energy bigint[] NOT NULL,
    peaks bigint[] NOT NULL,
    peak_at bigint[] NOT NULL,
    carry_out bigint[] NOT NULL,
    slots bigint NOT NULL,
    estimated bigint NOT NULL,
    posting_month date NOT NULL,
    credit_out bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (statement_id, service_point_id, segment_start)
);
CREATE INDEX statement_segment_by_service_point ON billing.statement_segment (service_point_id, segment_start);
COMMENT ON TABLE billing.statement_segment IS 'What a statement''s lines stand on: determinants at the end of each service point''s stretch, tariff version by version, frozen with the statement.';
COMMENT ON COLUMN billing.statement_segment.statement_id IS 'Statement.';
COMMENT ON COLUMN billing.statement_segment.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.statement_segment.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.statement_segment.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.statement_segment.segment_start IS 'First day.';
COMMENT ON COLUMN billing.statement_segment.segment_end IS 'Day after the last.';
COMMENT ON COLUMN billing.statement_segment.days IS 'Days of the stretch up to the segment''s end.';
COMMENT ON COLUMN billing.statement_segment.unit IS 'Unit of energy.';
COMMENT ON COLUMN billing.statement_segment.energy IS 'Usage of the segment per period, millionths of unit.';
COMMENT ON COLUMN billing.statement_segment.peaks IS 'Highest demand up to the segment''s end per register.';
COMMENT ON COLUMN billing.statement_segment.peak_at IS 'When, UTC Unix seconds.';
COMMENT ON COLUMN billing.statement_segment.carry_out IS 'Net metering credit that goes on, per period.';
COMMENT ON COLUMN billing.statement_segment.slots IS 'Intervals summed.';
COMMENT ON COLUMN billing.statement_segment.estimated IS 'Estimates among them.';
COMMENT ON COLUMN billing.statement_segment.posting_month IS 'Accounting month.';
COMMENT ON COLUMN billing.statement_segment.credit_out IS 'Money credit for exports that goes on, millionths of the currency.';

CREATE TABLE billing.statement_exception (
    account_id text COLLATE "C" NOT NULL,
    cycle_id text COLLATE "C" NOT NULL,
    period_start date NOT NULL,
    reason text NOT NULL CHECK (reason IN ('days_missing', 'held', 'not_charged', 'estimate_streak', 'billed_by_legacy',
        'true_up_waiting', 'earlier_statement', 'set_aside')),
    detail text NOT NULL,
    PRIMARY KEY (account_id, cycle_id, period_start, reason, detail)
);
COMMENT ON TABLE billing.statement_exception IS 'Statements that were not issued, and why.';
COMMENT ON COLUMN billing.statement_exception.account_id IS 'Account.';
COMMENT ON COLUMN billing.statement_exception.cycle_id IS 'Cycle.';
COMMENT ON COLUMN billing.statement_exception.period_start IS 'Period.';
COMMENT ON COLUMN billing.statement_exception.reason IS 'days_missing, held (an anomaly case), not_charged (a day could not be priced or has no usage), true_up_waiting (a day will be validated again), earlier_statement (the one before it waits), set_aside (its pricing failed), billed_by_legacy (legacy has authority over the account), or estimate_streak (issued, but look).';
COMMENT ON COLUMN billing.statement_exception.detail IS 'What exactly.';

-- Corrections of issued statements.

-- Written in the transaction that moved the days: an adjustment is proposed for each, whatever becomes of the run in
-- between. A change that waits explains no more than the amount by which it moved its bill.
CREATE TABLE billing.late_change (
    statement_id text COLLATE "C" NOT NULL REFERENCES billing.statement,
    billing_day date NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    noticed_at timestamptz NOT NULL,
    waits_for text,
    energy_moved bigint,
    charge_moved bigint,
    PRIMARY KEY (statement_id, billing_day, service_point_id)
);
COMMENT ON TABLE billing.late_change IS 'Days that changed after a statement was issued from them and for which no adjustment has been worked out yet.';
COMMENT ON COLUMN billing.late_change.statement_id IS 'Statement issued.';
COMMENT ON COLUMN billing.late_change.billing_day IS 'Day that changed.';
COMMENT ON COLUMN billing.late_change.service_point_id IS 'Service point whose day it is.';
COMMENT ON COLUMN billing.late_change.noticed_at IS 'When, UTC.';
COMMENT ON COLUMN billing.late_change.waits_for IS 'Why no adjustment is worked out yet, as last tried; null where it was not tried.';
COMMENT ON COLUMN billing.late_change.energy_moved IS 'By how much the day''s usage of the statement''s account changed since, millionths of the tariff''s unit; null where it was noted before this column.';
COMMENT ON COLUMN billing.late_change.charge_moved IS 'By how much the charges of the statement''s period at the service point changed since, millionths of the currency; null as above.';

-- A newer proposal supersedes one that waits for a decision, so that proposals that wait are not counted twice.
CREATE TABLE billing.adjustment (
    adjustment_id text COLLATE "C" PRIMARY KEY,
    statement_id text COLLATE "C" NOT NULL REFERENCES billing.statement,
    account_id text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    evidence text NOT NULL,
    net numeric(20,6) NOT NULL,
    gross numeric(20,6) NOT NULL,
    approval_required boolean NOT NULL,
    threshold numeric(20,6) NOT NULL CHECK (threshold >= 0),
    status text NOT NULL CHECK (status IN ('requested', 'approved', 'refused', 'posted', 'superseded')),
    requested_by text NOT NULL CHECK (btrim(requested_by) <> ''),
    requested_at timestamptz NOT NULL,
    decided_by text CHECK (btrim(decided_by) <> ''),
    decided_at timestamptz,
    posted_at timestamptz,
    posting_month date NOT NULL CHECK (extract(day FROM posting_month) = 1),
    superseded_by text COLLATE "C" REFERENCES billing.adjustment,
    superseded_at timestamptz,
    restated boolean NOT NULL DEFAULT false,
    sealed_days_due numeric(20,6),
    period_end_due numeric(20,6),
    CONSTRAINT decided_by_another_person CHECK (decided_by IS NULL
        OR lower(btrim(decided_by)) <> lower(btrim(requested_by))),
    CONSTRAINT posted_only_when_approved CHECK (status <> 'posted' OR posted_at IS NOT NULL
        AND (NOT approval_required OR decided_by IS NOT NULL)),
    CONSTRAINT approval_follows_threshold CHECK (approval_required = (gross > threshold))
);
CREATE INDEX adjustment_by_statement ON billing.adjustment (statement_id);
CREATE INDEX adjustment_newest ON billing.adjustment (requested_at DESC, adjustment_id DESC);
CREATE INDEX adjustment_by_status ON billing.adjustment (status, requested_at DESC, adjustment_id DESC);
COMMENT ON TABLE billing.adjustment IS 'Corrections of issued statements: cancel and rebill of the lines that changed, never an edit.';
COMMENT ON COLUMN billing.adjustment.adjustment_id IS 'STATEMENT.A then a number.';
COMMENT ON COLUMN billing.adjustment.statement_id IS 'Statement corrected.';
COMMENT ON COLUMN billing.adjustment.account_id IS 'Account.';
COMMENT ON COLUMN billing.adjustment.reason IS 'late_actual, correction, tariff or reference.';
COMMENT ON COLUMN billing.adjustment.evidence IS 'What changed.';
COMMENT ON COLUMN billing.adjustment.net IS 'What the account owes more, or less.';
COMMENT ON COLUMN billing.adjustment.gross IS 'Sum of the absolute amounts of its lines.';
COMMENT ON COLUMN billing.adjustment.approval_required IS 'Whether it is above the threshold in force when it was asked.';
COMMENT ON COLUMN billing.adjustment.threshold IS 'That threshold.';
COMMENT ON COLUMN billing.adjustment.status IS 'requested, approved, refused, posted, superseded (its statement changed again before anybody decided).';
COMMENT ON COLUMN billing.adjustment.requested_by IS 'Who asked.';
COMMENT ON COLUMN billing.adjustment.requested_at IS 'When, UTC.';
COMMENT ON COLUMN billing.adjustment.decided_by IS 'Who approved or refused.';
COMMENT ON COLUMN billing.adjustment.decided_at IS 'When, UTC.';
COMMENT ON COLUMN billing.adjustment.posted_at IS 'When its lines counted, UTC.';
COMMENT ON COLUMN billing.adjustment.posting_month IS 'Accounting month it is posted in: an open one, whatever month it corrects.';
COMMENT ON COLUMN billing.adjustment.superseded_by IS 'Adjustment asked for in its place; null where nothing was left to correct.';
COMMENT ON COLUMN billing.adjustment.superseded_at IS 'When, UTC.';
COMMENT ON COLUMN billing.adjustment.restated IS 'Whether its segments are in billing.adjustment_segment; false for adjustments asked for before that table.';
COMMENT ON COLUMN billing.adjustment.sealed_days_due IS 'What the corrected statement bills for days in sealed months beyond the charges that those days keep; null where it was asked for before this column.';
COMMENT ON COLUMN billing.adjustment.period_end_due IS 'What the corrected statement''s end adds to its days'' charges: minimum, credits, ratchets, rounding; null as above.';

CREATE TABLE billing.adjustment_line (
    adjustment_id text COLLATE "C" NOT NULL REFERENCES billing.adjustment,
    line_no integer NOT NULL,
    action text NOT NULL CHECK (action IN ('cancel', 'rebill')),
    original_line_no integer,
    service_point_id text COLLATE "C" NOT NULL,
    tariff_id text COLLATE "C" NOT NULL,
    tariff_version integer NOT NULL,
    segment_start date NOT NULL,
    segment_end date NOT NULL,
    line_key text NOT NULL,
    name text NOT NULL,
    component text NOT NULL,
    quantity numeric(24,6),
    unit text NOT NULL,
    amount numeric(20,6) NOT NULL,
    posting_month date NOT NULL,
    PRIMARY KEY (adjustment_id, line_no)
);
COMMENT ON TABLE billing.adjustment_line IS 'Lines of adjustments: the old amount taken back, the new one charged.';
COMMENT ON COLUMN billing.adjustment_line.adjustment_id IS 'Adjustment.';
COMMENT ON COLUMN billing.adjustment_line.line_no IS 'Number.';
COMMENT ON COLUMN billing.adjustment_line.action IS 'cancel or rebill.';
COMMENT ON COLUMN billing.adjustment_line.original_line_no IS 'Line of the statement it takes back; null where the line is new.';
COMMENT ON COLUMN billing.adjustment_line.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.adjustment_line.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.adjustment_line.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.adjustment_line.segment_start IS 'First day.';
COMMENT ON COLUMN billing.adjustment_line.segment_end IS 'Day after the last.';
COMMENT ON COLUMN billing.adjustment_line.line_key IS 'Key in the tariff version.';
COMMENT ON COLUMN billing.adjustment_line.name IS 'Name.';
COMMENT ON COLUMN billing.adjustment_line.component IS 'Component.';
COMMENT ON COLUMN billing.adjustment_line.quantity IS 'Units.';
COMMENT ON COLUMN billing.adjustment_line.unit IS 'Unit.';
COMMENT ON COLUMN billing.adjustment_line.amount IS 'Money.';
COMMENT ON COLUMN billing.adjustment_line.posting_month IS 'Accounting month.';

-- A statement keeps its segments for ever (billing.statement_segment); an adjustment keeps those of the statement as it
-- is after it, so that the quantity of a corrected bill is stored and need not be guessed from its lines: riders, tiers
-- and capped blocks count the same units several times or not at all. The bills after it go on from them.
CREATE TABLE billing.adjustment_segment (
    adjustment_id text COLLATE "C" NOT NULL REFERENCES billing.adjustment,
    service_point_id text COLLATE "C" NOT NULL,
    tariff_id text COLLATE "C" NOT NULL,
    tariff_version integer NOT NULL,
    segment_start date NOT NULL,
    segment_end date NOT NULL,
    days integer NOT NULL,
    unit text NOT NULL,
    energy bigint[] NOT NULL,
    peaks bigint[] NOT NULL,
    carry_out bigint[] NOT NULL,
    posting_month date NOT NULL,
    credit_out bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (adjustment_id, service_point_id, segment_start)
);
CREATE INDEX adjustment_segment_by_service_point ON billing.adjustment_segment (service_point_id, segment_start);
COMMENT ON TABLE billing.adjustment_segment IS 'What a statement''s lines stand on after an adjustment: all its segments, none where nothing is left of it.';
COMMENT ON COLUMN billing.adjustment_segment.adjustment_id IS 'Adjustment.';
COMMENT ON COLUMN billing.adjustment_segment.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.adjustment_segment.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.adjustment_segment.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.adjustment_segment.segment_start IS 'First day.';
COMMENT ON COLUMN billing.adjustment_segment.segment_end IS 'Day after the last.';
COMMENT ON COLUMN billing.adjustment_segment.days IS 'Days of the stretch up to the segment''s end.';
COMMENT ON COLUMN billing.adjustment_segment.unit IS 'Unit of energy.';
COMMENT ON COLUMN billing.adjustment_segment.energy IS 'Usage of the segment per period, millionths of unit.';
COMMENT ON COLUMN billing.adjustment_segment.peaks IS 'Highest demand up to the segment''s end per register.';
COMMENT ON COLUMN billing.adjustment_segment.carry_out IS 'Net metering credit that goes on, per period.';
COMMENT ON COLUMN billing.adjustment_segment.posting_month IS 'Accounting month.';
COMMENT ON COLUMN billing.adjustment_segment.credit_out IS 'Money credit for exports that goes on, millionths of the currency.';

-- Unbilled revenue at a month's end.

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

-- Averages, balances and studies.

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

CREATE TABLE billing.zone_day (
    billing_day date NOT NULL,
    zone_id text COLLATE "C" NOT NULL,
    commodity text NOT NULL,
    unit text NOT NULL,
    delivered_in bigint,
    delivered_out bigint,
    metered bigint,
    unmetered bigint NOT NULL,
    difference bigint,
    uncertain bigint NOT NULL CHECK (uncertain >= 0),
    supplies integer NOT NULL CHECK (supplies >= 0),
    customers integer NOT NULL CHECK (customers >= 0),
    missing text NOT NULL,
    PRIMARY KEY (billing_day, zone_id),
    CONSTRAINT balance CHECK (difference = delivered_in - delivered_out - metered - unmetered),
    CONSTRAINT nothing_filled_in CHECK ((difference IS NULL) =
        (delivered_in IS NULL OR delivered_out IS NULL OR metered IS NULL))
);
COMMENT ON TABLE billing.zone_day IS 'A zone''s supply balance on a billing day, in millionths of its unit; null where a side is not known.';
COMMENT ON COLUMN billing.zone_day.billing_day IS 'Billing day: local civil day of the utility.';
COMMENT ON COLUMN billing.zone_day.zone_id IS 'Zone of the network.';
COMMENT ON COLUMN billing.zone_day.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN billing.zone_day.unit IS 'M3 for water, else the unit of its meters.';
COMMENT ON COLUMN billing.zone_day.delivered_in IS 'Delivered into the zone.';
COMMENT ON COLUMN billing.zone_day.delivered_out IS 'Passed on to other zones.';
COMMENT ON COLUMN billing.zone_day.metered IS 'Metered at its customers, those of the zones below included.';
COMMENT ON COLUMN billing.zone_day.unmetered IS 'Authorised use that no meter counts, as declared.';
COMMENT ON COLUMN billing.zone_day.difference IS 'Delivered_in - delivered_out - metered - unmetered.';
COMMENT ON COLUMN billing.zone_day.uncertain IS 'The part of all sides that is estimated or a share of a register''s reading of several days.';
COMMENT ON COLUMN billing.zone_day.supplies IS 'Supply meters of the day.';
COMMENT ON COLUMN billing.zone_day.customers IS 'Customers'' service points of the day.';
COMMENT ON COLUMN billing.zone_day.missing IS 'What is not known, in words; empty where nothing is missing.';

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

-- Files for the customer system: each record's content as it was last sent is kept, so that it is sent one time and a
-- correction is a new sequence.

CREATE TABLE billing.delivery (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    output text COLLATE "C" NOT NULL,
    contract integer NOT NULL CHECK (contract > 0),
    scope text COLLATE "C" NOT NULL,
    sequence integer NOT NULL CHECK (sequence > 0),
    template text COLLATE "C" NOT NULL,
    file_name text COLLATE "C" NOT NULL UNIQUE,
    records integer NOT NULL CHECK (records >= 0),
    sums jsonb NOT NULL,
    sha256 bytea NOT NULL CHECK (length(sha256) = 32),
    written_by text COLLATE "C" NOT NULL,
    written_at timestamptz NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('sent', 'acknowledged', 'disputed')),
    answered_at timestamptz,
    answered_records integer,
    answer text,
    UNIQUE (output, scope, sequence),
    CHECK ((status = 'sent') = (answered_at IS NULL))
);
COMMENT ON TABLE billing.delivery IS 'Files written for the customer system, and what it answered.';
COMMENT ON COLUMN billing.delivery.delivery_id IS 'Number of the file.';
COMMENT ON COLUMN billing.delivery.output IS 'reads, determinants, statements, adjustments or journal.';
COMMENT ON COLUMN billing.delivery.contract IS 'Version of the output''s contract.';
COMMENT ON COLUMN billing.delivery.scope IS 'What it covers: a cycle''s period, a month, a read request.';
COMMENT ON COLUMN billing.delivery.sequence IS 'Number of the file within its scope; after the first come corrections only.';
COMMENT ON COLUMN billing.delivery.template IS 'Template that its text was written by.';
COMMENT ON COLUMN billing.delivery.file_name IS 'Name of the file.';
COMMENT ON COLUMN billing.delivery.records IS 'Records in it.';
COMMENT ON COLUMN billing.delivery.sums IS 'Exact sums of its quantities and amounts by field.';
COMMENT ON COLUMN billing.delivery.sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN billing.delivery.written_by IS 'Who wrote it.';
COMMENT ON COLUMN billing.delivery.written_at IS 'When it was written, UTC.';
COMMENT ON COLUMN billing.delivery.status IS 'sent, acknowledged, or disputed: the customer system counted otherwise.';
COMMENT ON COLUMN billing.delivery.answered_at IS 'When its acknowledgement was read, UTC; null until then.';
COMMENT ON COLUMN billing.delivery.answered_records IS 'Records that the customer system took; null where it did not say.';
COMMENT ON COLUMN billing.delivery.answer IS 'What it said, or what does not agree; null until then.';

CREATE TABLE billing.delivery_item (
    output text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    item_key text COLLATE "C" NOT NULL,
    delivery_id bigint NOT NULL REFERENCES billing.delivery,
    sequence integer NOT NULL CHECK (sequence > 0),
    content_sha256 bytea NOT NULL CHECK (length(content_sha256) = 32),
    PRIMARY KEY (output, scope, item_key)
);
COMMENT ON TABLE billing.delivery_item IS 'Records as they were last sent to the customer system.';
COMMENT ON COLUMN billing.delivery_item.output IS 'Output.';
COMMENT ON COLUMN billing.delivery_item.scope IS 'Scope of its files.';
COMMENT ON COLUMN billing.delivery_item.item_key IS 'Key of the record within its scope.';
COMMENT ON COLUMN billing.delivery_item.delivery_id IS 'File it was last sent in.';
COMMENT ON COLUMN billing.delivery_item.sequence IS 'How often it was sent: 1, then a number more for each correction.';
COMMENT ON COLUMN billing.delivery_item.content_sha256 IS 'SHA-256 of its content as last sent.';

-- Sealed months.

-- A sealed month refuses every change. The triggers are statement-level with transition tables: one look per statement
-- however many rows it has. The shared lock makes a seal wait for writers in flight, and writers for a seal.
CREATE FUNCTION billing.refuse_sealed() RETURNS trigger LANGUAGE plpgsql AS $function$
DECLARE
    found date;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('billing.period'));
    IF TG_OP = 'TRUNCATE' THEN
        SELECT month INTO found FROM billing.period WHERE status = 'sealed' LIMIT 1;
    ELSE
        EXECUTE format(
            'SELECT p.month FROM billing.period AS p WHERE p.status = ''sealed'' AND EXISTS '
            '(SELECT FROM changed AS c WHERE c.%1$I >= p.month AND c.%1$I < p.month + interval ''1 month'') LIMIT 1', TG_ARGV[0]
        ) INTO found;
    END IF;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'period % is sealed: % on %.% refused', to_char(found, 'YYYY-MM'), TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation', HINT = 'Post an adjustment in the open period.';
    END IF;
    RETURN NULL;
END
$function$;
COMMENT ON FUNCTION billing.refuse_sealed IS 'Trigger: refuses a change to rows of a sealed accounting month.';

CREATE FUNCTION billing.guard_sealed(guarded regclass, dated text) RETURNS void LANGUAGE plpgsql AS $function$
BEGIN
    EXECUTE format('CREATE TRIGGER sealed_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_sealed(%L)', guarded, dated);
    EXECUTE format('CREATE TRIGGER sealed_update_from AFTER UPDATE ON %s REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_sealed(%L)', guarded, dated);
    EXECUTE format('CREATE TRIGGER sealed_update_to AFTER UPDATE ON %s REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_sealed(%L)', guarded, dated);
    EXECUTE format('CREATE TRIGGER sealed_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_sealed(%L)', guarded, dated);
    EXECUTE format('CREATE TRIGGER sealed_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_sealed(%L)', guarded, dated);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER sealed_insert, ENABLE ALWAYS TRIGGER sealed_update_from, ENABLE ALWAYS TRIGGER sealed_update_to, ENABLE ALWAYS TRIGGER sealed_delete, ENABLE ALWAYS TRIGGER sealed_truncate', guarded);
END
$function$;
COMMENT ON FUNCTION billing.guard_sealed IS 'Puts the sealed-period triggers on a table whose column says which month a row belongs to.';

SELECT billing.guard_sealed('billing.determinant_day', 'billing_day');
SELECT billing.guard_sealed('billing.charge_day', 'billing_day');
SELECT billing.guard_sealed('billing.exception_day', 'billing_day');
SELECT billing.guard_sealed('billing.statement', 'posting_month');
SELECT billing.guard_sealed('billing.statement_line', 'posting_month');
SELECT billing.guard_sealed('billing.statement_segment', 'posting_month');
SELECT billing.guard_sealed('billing.adjustment', 'posting_month');
SELECT billing.guard_sealed('billing.adjustment_line', 'posting_month');
SELECT billing.guard_sealed('billing.determinant_revision', 'posting_month');
SELECT billing.guard_sealed('billing.adjustment_segment', 'posting_month');
SELECT billing.guard_sealed('billing.unbilled_month', 'month');
SELECT billing.guard_sealed('billing.unbilled_roll', 'month');
SELECT billing.guard_sealed('billing.journal_line', 'month');

-- The row of a sealed period never changes again.
CREATE FUNCTION billing.keep_seal() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    IF OLD.status = 'sealed' THEN
        RAISE EXCEPTION 'period % is sealed', to_char(OLD.month, 'YYYY-MM') USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END
$function$;
COMMENT ON FUNCTION billing.keep_seal IS 'Trigger: a sealed period cannot be reopened or removed.';
CREATE TRIGGER keep_seal BEFORE UPDATE OR DELETE ON billing.period FOR EACH ROW EXECUTE FUNCTION billing.keep_seal();
CREATE TRIGGER sealed_truncate BEFORE TRUNCATE ON billing.period FOR EACH STATEMENT
    EXECUTE FUNCTION billing.refuse_sealed('month');
ALTER TABLE billing.period ENABLE ALWAYS TRIGGER keep_seal, ENABLE ALWAYS TRIGGER sealed_truncate;

CREATE FUNCTION billing.guard_seal() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.status = 'sealed' AND NOT (control.may_decide(NEW.approved_by, ARRAY['finance']) AND control.may_decide(NEW.requested_by, ARRAY['finance'])) THEN
        RAISE EXCEPTION '% and % may not seal a month', NEW.requested_by, NEW.approved_by USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION billing.guard_seal IS 'Trigger: two people of finance seal a month.';
CREATE TRIGGER guard_seal BEFORE INSERT OR UPDATE ON billing.period FOR EACH ROW EXECUTE FUNCTION billing.guard_seal();

-- A partition of a billing table holds one month, so that whether a write to it is refused does not depend on its rows:
-- one look at the month before the statement. Transition tables kept a second copy of every row of a first load, on
-- disk at 100,000 services. A statement on the parent may touch several months, and its rows are looked at.
CREATE FUNCTION billing.refuse_sealed_month() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('billing.period'));
    IF EXISTS (SELECT FROM billing.period AS p WHERE p.month = TG_ARGV[0]::date AND p.status = 'sealed') THEN
        RAISE EXCEPTION 'period % is sealed: % on %.% refused', left(TG_ARGV[0], 7), TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation', HINT = 'Post an adjustment in the open period.';
    END IF;
    RETURN NULL;
END
$function$;
COMMENT ON FUNCTION billing.refuse_sealed_month IS 'Trigger on a month''s partition: refuses every change where the month is sealed.';

CREATE FUNCTION billing.guard_month(guarded regclass, month date) RETURNS void LANGUAGE plpgsql AS $function$
BEGIN
    EXECUTE format('CREATE TRIGGER sealed_month BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_sealed_month(%L)', guarded, month);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER sealed_month', guarded);
END
$function$;
COMMENT ON FUNCTION billing.guard_month IS 'Puts the sealed-month trigger on a table that holds one month.';

-- Partitions by month, made when first needed; the triggers stand on each as well, since one on the parent does not see
-- a statement that names a partition.
CREATE FUNCTION billing.ensure_partitions(day date) RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    month date := date_trunc('month', day);
    parent text;
    partition text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['determinant_day', 'charge_day'] LOOP
        partition := format('%s_%s', parent, to_char(month, 'YYYYMM'));
        IF to_regclass('billing.' || partition) IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtext('billing.partition'));
            IF to_regclass('billing.' || partition) IS NULL THEN
                EXECUTE format('CREATE TABLE billing.%I PARTITION OF billing.%I FOR VALUES FROM (%L) TO (%L)', partition, parent,
                    month, (month + interval '1 month')::date);
                PERFORM raw.leave_arrays_unsampled(('billing.' || partition)::regclass);
                PERFORM billing.guard_month(('billing.' || partition)::regclass, month);
            END IF;
        END IF;
    END LOOP;
END
$function$;
COMMENT ON FUNCTION billing.ensure_partitions IS 'Makes the partitions that hold a billing day.';

-- Who decides an adjustment.

CREATE FUNCTION control.left_without_approval(statement text) RETURNS numeric
    LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT greatest(control.adjustment_limit() - coalesce(sum(gross), 0), 0) FROM billing.adjustment
    WHERE statement_id = statement AND status = 'posted' AND decided_by IS NULL
$$;
COMMENT ON FUNCTION control.left_without_approval IS 'What of a statement may still change hands without a second person.';

CREATE FUNCTION billing.guard_adjustment() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    changed numeric;
BEGIN
    IF NEW.requested_by !~ '^[ -~]+$' OR NEW.decided_by !~ '^[ -~]+$' THEN
        RAISE EXCEPTION 'a name has letters that are not ASCII' USING ERRCODE = 'check_violation';
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'requested' THEN
            RAISE EXCEPTION 'an adjustment begins as requested' USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.threshold > control.left_without_approval(NEW.statement_id) THEN
            RAISE EXCEPTION 'the threshold is % by the setting, not %', control.left_without_approval(NEW.statement_id), NEW.threshold
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF (NEW.adjustment_id, NEW.statement_id, NEW.net, NEW.gross, NEW.approval_required, NEW.threshold, NEW.requested_by)
        IS DISTINCT FROM (OLD.adjustment_id, OLD.statement_id, OLD.net, OLD.gross, OLD.approval_required, OLD.threshold, OLD.requested_by) THEN
        RAISE EXCEPTION 'what an adjustment asks for does not change' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.decided_by IS DISTINCT FROM OLD.decided_by AND NOT control.may_decide(NEW.decided_by, ARRAY['finance']) THEN
        RAISE EXCEPTION '% may not decide an adjustment', NEW.decided_by USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status = 'posted' AND OLD.status <> 'posted' THEN
        SELECT coalesce(sum(abs(moved)), 0) INTO changed FROM (
            SELECT sum(amount) AS moved FROM billing.adjustment_line WHERE adjustment_id = NEW.adjustment_id
            GROUP BY service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key) AS by_line;
        IF changed > NEW.gross THEN
            RAISE EXCEPTION 'its lines move %, it says %', changed, NEW.gross USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.decided_by IS NULL AND changed > control.left_without_approval(NEW.statement_id) THEN
            RAISE EXCEPTION 'a second person decides an adjustment of %', changed USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION billing.guard_adjustment IS 'Trigger: threshold, amounts and names of an adjustment are what the setting, its lines and the register say.';
CREATE TRIGGER guard_adjustment BEFORE INSERT OR UPDATE ON billing.adjustment FOR EACH ROW
    EXECUTE FUNCTION billing.guard_adjustment();
ALTER TABLE billing.adjustment ENABLE ALWAYS TRIGGER guard_adjustment;

CREATE FUNCTION billing.guard_adjustment_line() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (NEW.adjustment_id, NEW.line_no, NEW.action, NEW.service_point_id, NEW.line_key, NEW.quantity, NEW.amount)
        IS NOT DISTINCT FROM (OLD.adjustment_id, OLD.line_no, OLD.action, OLD.service_point_id, OLD.line_key, OLD.quantity, OLD.amount) THEN
        RETURN NEW;
    END IF;
    IF EXISTS (SELECT FROM billing.adjustment WHERE adjustment_id = NEW.adjustment_id AND status <> 'requested') THEN
        RAISE EXCEPTION 'adjustment % is decided: its lines stay as they are', NEW.adjustment_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION billing.guard_adjustment_line IS 'Trigger: lines are added to an adjustment only while it waits.';
CREATE TRIGGER guard_adjustment_line BEFORE INSERT OR UPDATE ON billing.adjustment_line FOR EACH ROW
    EXECUTE FUNCTION billing.guard_adjustment_line();

-- Views.

CREATE VIEW billing.day_line AS
SELECT c.billing_day, c.service_point_id, c.account_id, c.tariff_id, c.tariff_version, l.key AS line_key, l.component,
    (l.amount::numeric / 1000000) AS amount, v.currency
FROM billing.charge_day AS c
JOIN billing.tariff_version AS v ON v.tariff_id = c.tariff_id AND v.version = c.tariff_version
CROSS JOIN LATERAL unnest(v.day_keys, v.day_components, c.amounts) AS l (key, component, amount);
COMMENT ON VIEW billing.day_line IS 'One row per line of a billing day''s charges.';
COMMENT ON COLUMN billing.day_line.billing_day IS 'Day.';
COMMENT ON COLUMN billing.day_line.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.day_line.account_id IS 'Account.';
COMMENT ON COLUMN billing.day_line.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.day_line.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.day_line.line_key IS 'Key of the line.';
COMMENT ON COLUMN billing.day_line.component IS 'Component.';
COMMENT ON COLUMN billing.day_line.amount IS 'Money of the day.';
COMMENT ON COLUMN billing.day_line.currency IS 'Currency.';

CREATE VIEW billing.day_bucket AS
SELECT d.billing_day, d.service_point_id, d.account_id, d.tariff_id, d.tariff_version, b.period,
    (b.used::numeric / 1000000) AS quantity, (b.sent::numeric / 1000000) AS exported, d.unit
FROM billing.determinant_day AS d
JOIN billing.tariff_version AS v ON v.tariff_id = d.tariff_id AND v.version = d.tariff_version
CROSS JOIN LATERAL unnest(v.periods, d.energy, d.export) AS b (period, used, sent);
COMMENT ON VIEW billing.day_bucket IS 'One row per time-of-use period of a billing day''s determinants.';
COMMENT ON COLUMN billing.day_bucket.billing_day IS 'Day.';
COMMENT ON COLUMN billing.day_bucket.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.day_bucket.account_id IS 'Account.';
COMMENT ON COLUMN billing.day_bucket.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.day_bucket.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.day_bucket.period IS 'Time-of-use period.';
COMMENT ON COLUMN billing.day_bucket.quantity IS 'Usage in the tariff''s unit.';
COMMENT ON COLUMN billing.day_bucket.exported IS 'Exports in the tariff''s unit.';
COMMENT ON COLUMN billing.day_bucket.unit IS 'The tariff''s unit.';

CREATE VIEW billing.segment_in_effect AS
WITH last AS (
    SELECT DISTINCT ON (a.statement_id) a.statement_id, a.adjustment_id FROM billing.adjustment AS a
    WHERE a.status = 'posted' AND a.restated
    ORDER BY a.statement_id, a.posted_at DESC, length(a.adjustment_id) DESC, a.adjustment_id DESC
)
SELECT g.statement_id, NULL::text AS adjustment_id, g.service_point_id, g.tariff_id, g.tariff_version, g.segment_start,
    g.segment_end, g.unit, g.energy
FROM billing.statement_segment AS g WHERE NOT EXISTS (SELECT FROM last WHERE last.statement_id = g.statement_id)
UNION ALL
SELECT last.statement_id, g.adjustment_id, g.service_point_id, g.tariff_id, g.tariff_version, g.segment_start,
    g.segment_end, g.unit, g.energy
FROM billing.adjustment_segment AS g JOIN last USING (adjustment_id);
COMMENT ON VIEW billing.segment_in_effect IS 'The segments bills stand on now: of the last posted adjustment that restated them, else as issued.';
COMMENT ON COLUMN billing.segment_in_effect.statement_id IS 'Statement.';
COMMENT ON COLUMN billing.segment_in_effect.adjustment_id IS 'Adjustment it comes from; null for the statement as issued.';
COMMENT ON COLUMN billing.segment_in_effect.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.segment_in_effect.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.segment_in_effect.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.segment_in_effect.segment_start IS 'First day.';
COMMENT ON COLUMN billing.segment_in_effect.segment_end IS 'Day after the last.';
COMMENT ON COLUMN billing.segment_in_effect.unit IS 'Unit of energy.';
COMMENT ON COLUMN billing.segment_in_effect.energy IS 'Usage of the segment per period, millionths of unit.';

CREATE VIEW billing.effective_segment AS
WITH last AS (
    SELECT DISTINCT ON (a.statement_id) a.statement_id, a.adjustment_id FROM billing.adjustment AS a
    WHERE a.status = 'posted' AND a.restated
    ORDER BY a.statement_id, a.posted_at DESC, length(a.adjustment_id) DESC, a.adjustment_id DESC
)
SELECT s.statement_id, s.service_point_id, s.tariff_id, s.tariff_version, s.segment_start, s.segment_end, s.energy,
    s.peaks, s.carry_out, s.credit_out
FROM billing.statement_segment AS s WHERE NOT EXISTS (SELECT FROM last AS l WHERE l.statement_id = s.statement_id)
UNION ALL
SELECT l.statement_id, g.service_point_id, g.tariff_id, g.tariff_version, g.segment_start, g.segment_end, g.energy,
    g.peaks, g.carry_out, g.credit_out
FROM last AS l JOIN billing.adjustment_segment AS g USING (adjustment_id);
COMMENT ON VIEW billing.effective_segment IS 'What statements hand on now: usage, peaks and credits of their own segments, or of those of the adjustment that was posted last.';
COMMENT ON COLUMN billing.effective_segment.statement_id IS 'Statement.';
COMMENT ON COLUMN billing.effective_segment.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.effective_segment.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.effective_segment.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.effective_segment.segment_start IS 'First day.';
COMMENT ON COLUMN billing.effective_segment.segment_end IS 'Day after the last.';
COMMENT ON COLUMN billing.effective_segment.energy IS 'Usage of the segment per period, millionths of unit.';
COMMENT ON COLUMN billing.effective_segment.peaks IS 'Highest demand up to the segment''s end per register.';
COMMENT ON COLUMN billing.effective_segment.carry_out IS 'Net metering credit that goes on, per period.';
COMMENT ON COLUMN billing.effective_segment.credit_out IS 'Money credit for exports that goes on, millionths of the currency.';

-- Days and bills as they were, so that a statement can be priced again from the charges it was issued from. A day's
-- first load replaces no row and costs nothing.

CREATE FUNCTION billing.keep_replaced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    version text := TG_ARGV[0] || '_version';
    listed text;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
        RETURN NULL;
    END IF;
    SELECT string_agg(quote_ident(attname), ', ') INTO listed FROM pg_attribute
        WHERE attrelid = format('billing.%I', TG_ARGV[0])::regclass AND attnum > 0 AND NOT attisdropped;
    EXECUTE format('INSERT INTO billing.%I (%s) SELECT %2$s FROM (SELECT ($1).*) AS replaced', version, listed) USING OLD;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION billing.keep_replaced IS 'Trigger: keeps the row that an update or a delete takes the place of.';
CREATE TRIGGER keep_replaced AFTER UPDATE OR DELETE ON billing.charge_day FOR EACH ROW
    EXECUTE FUNCTION billing.keep_replaced('charge_day');
CREATE TRIGGER keep_replaced AFTER UPDATE OR DELETE ON billing.determinant_day FOR EACH ROW
    EXECUTE FUNCTION billing.keep_replaced('determinant_day');

CREATE FUNCTION billing.adjustment_without(later text[]) RETURNS SETOF billing.adjustment LANGUAGE sql STABLE AS $$
    SELECT * FROM billing.adjustment WHERE adjustment_id <> ALL (later)
$$;
COMMENT ON FUNCTION billing.adjustment_without IS 'Adjustments but for some: those that were posted after an instant that is looked at.';

CREATE FUNCTION billing.effective_segment_without(later text[]) RETURNS SETOF billing.effective_segment
    LANGUAGE sql STABLE AS $$
    WITH last AS (
        SELECT DISTINCT ON (a.statement_id) a.statement_id, a.adjustment_id FROM billing.adjustment AS a
        WHERE a.status = 'posted' AND a.restated AND a.adjustment_id <> ALL (later)
        ORDER BY a.statement_id, a.posted_at DESC, length(a.adjustment_id) DESC, a.adjustment_id DESC
    )
    SELECT s.statement_id, s.service_point_id, s.tariff_id, s.tariff_version, s.segment_start, s.segment_end, s.energy, s.peaks, s.carry_out, s.credit_out
    FROM billing.statement_segment AS s WHERE NOT EXISTS (SELECT FROM last AS l WHERE l.statement_id = s.statement_id)
    UNION ALL
    SELECT l.statement_id, g.service_point_id, g.tariff_id, g.tariff_version, g.segment_start, g.segment_end, g.energy, g.peaks, g.carry_out, g.credit_out
    FROM last AS l JOIN billing.adjustment_segment AS g USING (adjustment_id)
$$;
COMMENT ON FUNCTION billing.effective_segment_without IS 'billing.effective_segment as it was before some adjustments were posted.';

DO $$
DECLARE
    named text;
    listed text;
BEGIN
    FOREACH named IN ARRAY ARRAY['charge_day', 'determinant_day'] LOOP
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO listed FROM pg_attribute
            WHERE attrelid = format('billing.%I', named)::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format('CREATE FUNCTION billing.%I(transaction xid8) RETURNS SETOF billing.%I LANGUAGE sql STABLE AS %L', named || '_before', named, format(
            'SELECT %1$s FROM billing.%2$I AS d WHERE NOT EXISTS (SELECT FROM billing.%3$I AS v WHERE v.billing_day = d.billing_day '
            'AND v.service_point_id = d.service_point_id AND v.replaced_by > transaction) UNION ALL SELECT %1$s FROM ('
            'SELECT DISTINCT ON (billing_day, service_point_id) * FROM billing.%3$I WHERE replaced_by > transaction '
            'ORDER BY billing_day, service_point_id, version_id) AS v', listed, named, named || '_version'));
        EXECUTE format('COMMENT ON FUNCTION billing.%I IS %L', named || '_before', format('Rows of billing.%s as they were when a transaction ran.', named));
    END LOOP;
END
$$;

-- From a bill back to its reads and the ledger.

-- Walks back a day at a time over the services still estimated, so that it costs what the streaks are long.
CREATE FUNCTION billing.estimate_streaks(day date, at_least integer DEFAULT 1)
RETURNS TABLE (service_point_id text, account_id text, days integer, since date)
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    going text[];
    still text[];
    back integer := 0;
    found text[] := '{}';
    lengths integer[] := '{}';
BEGIN
    SELECT coalesce(array_agg(d.service_point_id), '{}') INTO going FROM billing.determinant_day AS d WHERE d.billing_day = day AND d.estimated >= d.slots AND d.slots > 0;
    WHILE cardinality(going) > 0 AND back < 400 LOOP
        back := back + 1;
        SELECT coalesce(array_agg(d.service_point_id), '{}') INTO still FROM billing.determinant_day AS d
        WHERE d.billing_day = day - back AND d.service_point_id = ANY (going) AND d.estimated >= d.slots AND d.slots > 0;
        IF back >= at_least THEN
            SELECT found || coalesce(array_agg(g), '{}'), lengths || coalesce(array_agg(back), '{}') INTO found, lengths
            FROM unnest(going) AS g WHERE NOT g = ANY (still);
        END IF;
        going := still;
    END LOOP;
    RETURN QUERY SELECT d.service_point_id, d.account_id, s.length, day - s.length + 1
        FROM unnest(found, lengths) AS s (point, length)
        JOIN billing.determinant_day AS d ON d.billing_day = day AND d.service_point_id = s.point ORDER BY 3 DESC, 1;
END
$function$;
COMMENT ON FUNCTION billing.estimate_streaks IS 'Services whose every interval was estimated on a day and on each of the days before it, with the length of the run.';

-- Billing compares its rows with the ledger's leaves and may not read the ledger: leaf_entries and leaf_at read it for
-- the roles that postgres/privileges.toml names, and give nothing but the hashes of entries that record payloads and
-- bills.
CREATE FUNCTION billing.leaf_entries(day date, of_kind text)
RETURNS TABLE (entry_id bigint, body bytea, leaves bytea)
LANGUAGE sql STABLE AS $function$
    SELECT e.entry_id, e.body, e.leaves FROM ledger.entry AS e
    WHERE e.billing_day = day AND e.kind = of_kind AND of_kind IN ('ingested', 'bill_issued') AND e.leaf_count > 0 ORDER BY 1
$function$;
COMMENT ON FUNCTION billing.leaf_entries IS 'A billing day''s ledger entries of payloads (ingested) or bills (bill_issued), with their leaves.';

CREATE FUNCTION billing.leaf_at(entry bigint, leaf integer)
RETURNS TABLE (entry_id bigint, kind text, leaf_hash bytea, payload_hash bytea)
LANGUAGE sql STABLE AS $function$
    SELECT e.entry_id, e.kind, e.leaf_hash, substr(e.leaves, leaf * 32 + 1, 32) FROM ledger.entry AS e
    WHERE e.entry_id = entry AND e.kind IN ('ingested', 'bill_issued')
$function$;
COMMENT ON FUNCTION billing.leaf_at IS 'One leaf of a ledger entry of payloads or bills.';

CREATE FUNCTION billing.payload_leaf(day date, hash bytea)
RETURNS TABLE (entry_id bigint, leaf integer, leaf_hash bytea)
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    held record;
    hit integer;
    past integer;
BEGIN
    FOR held IN SELECT p.entry_id AS id, p.prefixes AS prefixes FROM billing.leaf_prefix AS p WHERE p.billing_day = day ORDER BY 1 LOOP
        past := 0;
        LOOP
            hit := position(substr(hash, 1, 4) IN CASE WHEN past = 0 THEN held.prefixes ELSE substr(held.prefixes, past + 1) END);
            EXIT WHEN hit = 0;
            hit := past + hit;
            -- A hit across two prefixes, or of four equal bytes only, is none: the leaf itself decides.
            IF (hit - 1) % 4 = 0 THEN
                RETURN QUERY SELECT e.entry_id, (hit - 1) / 4, e.leaf_hash FROM ledger.entry AS e
                    WHERE e.entry_id = held.id AND substr(e.leaves, (hit - 1) / 4 * 32 + 1, 32) = hash;
                EXIT WHEN FOUND;
            END IF;
            past := hit;
        END LOOP;
    END LOOP;
    -- Entries that came after the day was last billed are not in the table yet.
    RETURN QUERY SELECT e.entry_id, (position(hash IN e.leaves) - 1) / 32, e.leaf_hash FROM ledger.entry AS e
        WHERE e.billing_day = day AND e.kind = 'ingested' AND NOT EXISTS (SELECT FROM billing.leaf_prefix AS p WHERE p.entry_id = e.entry_id)
            AND position(hash IN e.leaves) > 0;
END
$function$;
COMMENT ON FUNCTION billing.payload_leaf IS 'The ledger entries of a billing day that hold a payload hash, and the number of the leaf in each.';

-- From a line of a bill back to the bytes that came from the meter.
CREATE FUNCTION billing.explain_line(line_id text)
RETURNS TABLE (step integer, what text, day date, subject text, detail jsonb)
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    line billing.statement_line;
    bill billing.statement;
    key text;
BEGIN
    SELECT l.* INTO line FROM billing.statement_line AS l
    WHERE l.statement_id = regexp_replace(line_id, '\.[0-9]+$', '') AND l.line_no = substring(line_id FROM '\.([0-9]{1,9})$')::integer;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT s.* INTO bill FROM billing.statement AS s WHERE s.statement_id = line.statement_id;
    key := CASE WHEN line.line_key ~ '/[0-9]+$' THEN regexp_replace(line.line_key, '/[0-9]+$', '') ELSE line.line_key END;
    RETURN QUERY SELECT 1, 'line', NULL::date, line_id, to_jsonb(line) || jsonb_build_object('amount', line.amount::text, 'currency', bill.currency);
    RETURN QUERY SELECT 2, 'statement', NULL::date, bill.statement_id,
        jsonb_build_object('total', bill.total::text, 'kind', bill.kind, 'posting_month', bill.posting_month, 'lines_sha256', encode(bill.lines_sha256, 'hex'));
    RETURN QUERY SELECT 3, 'tariff', NULL::date, v.tariff_id || ' version ' || v.version,
        jsonb_build_object('name', v.name, 'document_sha256', encode(v.document_sha256, 'hex'), 'rounding', v.rounding, 'source', v.source, 'unit', v.unit)
        FROM billing.tariff_version AS v WHERE v.tariff_id = line.tariff_id AND v.version = line.tariff_version;
    RETURN QUERY SELECT 4, 'determinant', NULL::date, g.service_point_id,
        jsonb_build_object('segment', jsonb_build_array(g.segment_start, g.segment_end), 'days', g.days, 'unit', g.unit, 'energy_micro', g.energy,
            'peaks_micro', g.peaks, 'peak_at', g.peak_at, 'intervals', g.slots, 'estimated', g.estimated)
        FROM billing.statement_segment AS g
        WHERE g.statement_id = line.statement_id AND g.service_point_id = line.service_point_id AND g.segment_start = line.segment_start;
    RETURN QUERY SELECT 5, 'day', d.billing_day, d.service_point_id,
        jsonb_build_object('energy_micro', d.energy, 'peaks_micro', d.peaks, 'source_unit', d.source_unit, 'source_micro', d.source_quantity,
            'intervals', d.slots, 'estimated', d.estimated, 'amount', (SELECT l.amount::text FROM billing.day_line AS l
                WHERE l.billing_day = d.billing_day AND l.service_point_id = d.service_point_id AND l.line_key = key))
        FROM billing.determinant_day AS d
        WHERE d.service_point_id = line.service_point_id AND d.billing_day >= line.segment_start AND d.billing_day < line.segment_end
        ORDER BY d.billing_day;
    RETURN QUERY SELECT 6, 'validated', v.billing_day, v.meter_id || ' ' || v.channel,
        jsonb_build_object('version', v.version, 'actual', v.actual, 'estimated', v.estimated, 'missing', v.missing, 'total_micro', v.total_micro,
            'notes', v.notes, 'content_sha256', encode(v.content_hash, 'hex'))
        FROM vee.interval_day AS v
        WHERE v.service_point_id = line.service_point_id AND v.billed AND v.billing_day >= line.segment_start AND v.billing_day < line.segment_end
        ORDER BY v.billing_day, v.meter_id, v.channel;
    RETURN QUERY SELECT 7, 'payload', r.billing_day, r.meter_id || ' ' || r.channel,
        jsonb_build_object('payload_sha256', encode(r.payload_hash, 'hex'), 'head_end', r.head_end, 'payloads', r.payloads)
        FROM vee.interval_day AS v JOIN raw.interval_day AS r USING (billing_day, meter_id, channel)
        WHERE v.service_point_id = line.service_point_id AND v.billed AND v.billing_day >= line.segment_start AND v.billing_day < line.segment_end
        ORDER BY r.billing_day, r.meter_id, r.channel;
    RETURN QUERY SELECT 8, 'register', u.billing_day, r.meter_id || ' ' || r.channel || ' ' || to_char(r.read_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        jsonb_build_object('payload_sha256', encode(r.payload_hash, 'hex'), 'value_micro', r.value, 'head_end', r.head_end)
        FROM vee.daily_usage AS u
        JOIN vee.register_day AS d ON d.billing_day = u.billing_day AND d.service_point_id = u.service_point_id
        JOIN raw.register_read AS r ON r.billing_day = d.billing_day AND r.meter_id = d.meter_id AND r.channel = d.channel
        WHERE u.service_point_id = line.service_point_id AND u.source = 'register' AND u.billing_day >= line.segment_start AND u.billing_day < line.segment_end
        ORDER BY r.billing_day, r.meter_id, r.channel, r.read_at;
    RETURN QUERY SELECT 9, 'ledger', NULL::date, 'entry ' || e.entry_id,
        jsonb_build_object('kind', e.kind, 'leaf_hash', encode(e.leaf_hash, 'hex'), 'leaf', bill.ledger_leaf)
        FROM billing.leaf_at(bill.ledger_entry, bill.ledger_leaf) AS e WHERE e.payload_hash = bill.lines_sha256;
    RETURN QUERY SELECT 10, 'ledger', p.billing_day, 'entry ' || f.entry_id,
        jsonb_build_object('kind', 'ingested', 'leaf_hash', encode(f.leaf_hash, 'hex'), 'payload_sha256', encode(p.payload_hash, 'hex'), 'leaf', f.leaf)
        FROM (SELECT DISTINCT r.billing_day, r.payload_hash FROM vee.interval_day AS v JOIN raw.interval_day AS r USING (billing_day, meter_id, channel)
            WHERE v.service_point_id = line.service_point_id AND v.billed AND v.billing_day >= line.segment_start
                AND v.billing_day < line.segment_end) AS p
        CROSS JOIN LATERAL billing.payload_leaf(p.billing_day, p.payload_hash) AS f
        ORDER BY p.billing_day, f.entry_id;
    RETURN QUERY SELECT 11, 'adjustment', NULL::date, a.adjustment_id,
        jsonb_build_object('action', l.action, 'amount', l.amount::text, 'reason', a.reason, 'status', a.status, 'posting_month', a.posting_month)
        FROM billing.adjustment AS a JOIN billing.adjustment_line AS l USING (adjustment_id)
        WHERE a.statement_id = line.statement_id AND l.line_key = line.line_key AND l.service_point_id = line.service_point_id
            AND l.segment_start = line.segment_start
        ORDER BY a.adjustment_id, l.line_no;
END
$function$;
COMMENT ON FUNCTION billing.explain_line IS 'A statement line (STATEMENT.LINE_NO) back to its tariff version, determinants, days, validated intervals, raw payload hashes, ledger entries and adjustments.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
