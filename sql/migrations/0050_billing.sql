-- migrate:up
-- From validated usage to money: determinants, charges, statements, reconciliation, adjustments, sealed months.
CREATE SCHEMA billing;
COMMENT ON SCHEMA billing IS 'Determinants, charges, statements, adjustments and their reconciliation.';

CREATE TABLE ref.service_attributes (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,32}$'),
    attribute text NOT NULL CHECK (attribute IN ('meter_size', 'jurisdiction', 'rate_code', 'budget_per_day', 'winter_average_per_day')),
    value text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (service_point_id, attribute, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.service_attributes IS 'What a tariff may ask of a service beyond its class, effective-dated.';
COMMENT ON COLUMN ref.service_attributes.service_point_id IS 'service point id (id)';
COMMENT ON COLUMN ref.service_attributes.attribute IS 'attribute (one of meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day)';
COMMENT ON COLUMN ref.service_attributes.value IS 'value (text)';
COMMENT ON COLUMN ref.service_attributes.valid_from IS 'valid from (date)';
COMMENT ON COLUMN ref.service_attributes.valid_to IS 'valid to (date, may be empty)';

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
COMMENT ON COLUMN billing.determinant_day.peaks IS 'Highest demand per register, millionths of a kW.';
COMMENT ON COLUMN billing.determinant_day.peak_at IS 'When each began: UTC Unix seconds, 0 for none.';
COMMENT ON COLUMN billing.determinant_day.slots IS 'Intervals it is the sum of; 1 for a day''s total.';
COMMENT ON COLUMN billing.determinant_day.estimated IS 'How many of them are estimates.';
COMMENT ON COLUMN billing.determinant_day.missing IS 'How many had no value.';
COMMENT ON COLUMN billing.determinant_day.interval_minutes IS 'Length of an interval; 0 for a day''s total.';

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
    CONSTRAINT sealed_by_two_people CHECK (status <> 'sealed' OR (requested_by IS NOT NULL AND approved_by IS NOT NULL AND lower(btrim(requested_by)) <> lower(btrim(approved_by)) AND totals_sha256 IS NOT NULL))
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
    UNIQUE (account_id, cycle_id, period_start, revision),
    CHECK (period_end > period_start)
);
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
    PRIMARY KEY (statement_id, service_point_id, segment_start)
);
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

CREATE TABLE billing.statement_exception (
    account_id text COLLATE "C" NOT NULL,
    cycle_id text COLLATE "C" NOT NULL,
    period_start date NOT NULL,
    reason text NOT NULL CHECK (reason IN ('days_missing', 'held', 'not_charged', 'estimate_streak')),
    detail text NOT NULL,
    PRIMARY KEY (account_id, cycle_id, period_start, reason, detail)
);
COMMENT ON TABLE billing.statement_exception IS 'Statements that were not issued, and why.';
COMMENT ON COLUMN billing.statement_exception.account_id IS 'Account.';
COMMENT ON COLUMN billing.statement_exception.cycle_id IS 'Cycle.';
COMMENT ON COLUMN billing.statement_exception.period_start IS 'Period.';
COMMENT ON COLUMN billing.statement_exception.reason IS 'days_missing, held (an anomaly case), not_charged, or estimate_streak (issued, but look).';
COMMENT ON COLUMN billing.statement_exception.detail IS 'What exactly.';

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
    status text NOT NULL CHECK (status IN ('requested', 'approved', 'refused', 'posted')),
    requested_by text NOT NULL CHECK (btrim(requested_by) <> ''),
    requested_at timestamptz NOT NULL,
    decided_by text CHECK (btrim(decided_by) <> ''),
    decided_at timestamptz,
    posted_at timestamptz,
    posting_month date NOT NULL CHECK (extract(day FROM posting_month) = 1),
    CONSTRAINT decided_by_another_person CHECK (decided_by IS NULL OR lower(btrim(decided_by)) <> lower(btrim(requested_by))),
    CONSTRAINT posted_only_when_approved CHECK (status <> 'posted' OR posted_at IS NOT NULL AND (NOT approval_required OR decided_by IS NOT NULL)),
    CONSTRAINT approval_follows_threshold CHECK (approval_required = (gross > threshold))
);
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
COMMENT ON COLUMN billing.adjustment.status IS 'requested, approved, refused, posted.';
COMMENT ON COLUMN billing.adjustment.requested_by IS 'Who asked.';
COMMENT ON COLUMN billing.adjustment.requested_at IS 'When, UTC.';
COMMENT ON COLUMN billing.adjustment.decided_by IS 'Who approved or refused.';
COMMENT ON COLUMN billing.adjustment.decided_at IS 'When, UTC.';
COMMENT ON COLUMN billing.adjustment.posted_at IS 'When its lines counted, UTC.';
COMMENT ON COLUMN billing.adjustment.posting_month IS 'Accounting month it is posted in: an open one, whatever month it corrects.';

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

CREATE TABLE billing.determinant_revision (
    billing_day date NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    revision integer NOT NULL CHECK (revision > 0),
    posting_month date NOT NULL,
    recorded_at timestamptz NOT NULL,
    determinants jsonb NOT NULL,
    PRIMARY KEY (billing_day, service_point_id, revision)
);
COMMENT ON TABLE billing.determinant_revision IS 'Later versions of a day''s determinants whose month is sealed: the sealed row stays, corrections stand on these.';
COMMENT ON COLUMN billing.determinant_revision.billing_day IS 'Day.';
COMMENT ON COLUMN billing.determinant_revision.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.determinant_revision.revision IS 'Number of the revision.';
COMMENT ON COLUMN billing.determinant_revision.posting_month IS 'Open month in which it arrived.';
COMMENT ON COLUMN billing.determinant_revision.recorded_at IS 'When, UTC.';
COMMENT ON COLUMN billing.determinant_revision.determinants IS 'The day''s row as it would be now.';

CREATE INDEX statement_by_period ON billing.statement (cycle_id, period_start);
CREATE INDEX statement_line_by_service_point ON billing.statement_line (service_point_id, segment_start);
CREATE INDEX adjustment_by_statement ON billing.adjustment (statement_id);

-- A sealed month refuses. Statement-level with transition tables: one look per statement however many rows it has. The shared lock makes a
-- seal wait for writers in flight, and writers for a seal.
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

-- A sealed period's own row never changes again.
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
CREATE TRIGGER sealed_truncate BEFORE TRUNCATE ON billing.period FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_sealed('month');
ALTER TABLE billing.period ENABLE ALWAYS TRIGGER keep_seal, ENABLE ALWAYS TRIGGER sealed_truncate;

-- Partitions by month, made when first needed; the triggers stand on each as well, since one on the parent does not see a statement that
-- names a partition.
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
                PERFORM billing.guard_sealed(('billing.' || partition)::regclass, 'billing_day');
            END IF;
        END IF;
    END LOOP;
END
$function$;
COMMENT ON FUNCTION billing.ensure_partitions IS 'Makes the partitions that hold a billing day.';

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

-- migrate:down
DROP SCHEMA billing CASCADE;
DROP TABLE ref.service_attributes;
