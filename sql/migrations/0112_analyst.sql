-- migrate:up
-- The tables as analysts speak of them: whole units instead of millionths, one row a read, words for names. The views
-- have their owner's rights, so that a person may be given them and nothing under them.
CREATE SCHEMA analyst;
COMMENT ON SCHEMA analyst IS 'Views for analysts: docs/analysts.md has questions and their queries.';

CREATE VIEW analyst.reads AS
SELECT
    d.billing_day,
    d.meter_id,
    d.channel,
    d.interval_start AS starts_at,
    d.interval_minutes AS minutes,
    d.value,
    d.unit,
    d.quality,
    d.head_end,
    d.sequence,
    d.source_version AS version,
    d.idempotency_key,
    d.payload_hash AS payload_sha256
FROM raw.interval AS d;
COMMENT ON VIEW analyst.reads IS 'Every interval read as it arrived: nothing edited. Ask for a billing day, and a meter if you can.';
COMMENT ON COLUMN analyst.reads.billing_day IS 'Civil day of the utility that holds the interval''s start.';
COMMENT ON COLUMN analyst.reads.meter_id IS 'Meter.';
COMMENT ON COLUMN analyst.reads.channel IS 'Channel of the meter: E1 import, B1 export, and so on.';
COMMENT ON COLUMN analyst.reads.starts_at IS 'When the interval begins, UTC.';
COMMENT ON COLUMN analyst.reads.minutes IS 'Length of the interval, minutes.';
COMMENT ON COLUMN analyst.reads.value IS 'Quantity of the interval, exact, in unit.';
COMMENT ON COLUMN analyst.reads.unit IS 'Base unit: kWh, gal, ft3 and so on.';
COMMENT ON COLUMN analyst.reads.quality IS 'A actual, S substituted, F final substituted, E estimated, N null, V varies.';
COMMENT ON COLUMN analyst.reads.head_end IS 'Head-end that sent it.';
COMMENT ON COLUMN analyst.reads.sequence IS 'The meter''s own sequence number.';
COMMENT ON COLUMN analyst.reads.version IS 'Which of several versions of the day it is; the newest by its source stands.';
COMMENT ON COLUMN analyst.reads.idempotency_key IS 'SHA-256 over meter, instant and sequence: the read''s identity.';
COMMENT ON COLUMN analyst.reads.payload_sha256 IS 'SHA-256 of the day''s payload it came in: the leaf in the ledger.';

CREATE VIEW analyst.register_reads AS
SELECT
    r.billing_day,
    r.meter_id,
    r.channel,
    r.read_at,
    r.value,
    r.unit,
    r.quality,
    r.head_end,
    r.payload_hash AS payload_sha256
FROM raw.register AS r;
COMMENT ON VIEW analyst.register_reads IS 'Every cumulative register reading as it arrived.';
COMMENT ON COLUMN analyst.register_reads.billing_day IS 'Day the reading closes: (start, end] holds its instant.';
COMMENT ON COLUMN analyst.register_reads.meter_id IS 'Meter.';
COMMENT ON COLUMN analyst.register_reads.channel IS 'Channel.';
COMMENT ON COLUMN analyst.register_reads.read_at IS 'When it was read, UTC.';
COMMENT ON COLUMN analyst.register_reads.value IS 'What the register showed, exact, in unit.';
COMMENT ON COLUMN analyst.register_reads.unit IS 'Base unit.';
COMMENT ON COLUMN analyst.register_reads.quality IS 'A actual, S substituted, E estimated.';
COMMENT ON COLUMN analyst.register_reads.head_end IS 'Head-end that sent it.';
COMMENT ON COLUMN analyst.register_reads.payload_sha256 IS 'SHA-256 of the payload: its leaf in the ledger.';

CREATE VIEW analyst.intervals AS
SELECT
    v.billing_day,
    v.service_point_id,
    v.account_id,
    v.meter_id,
    v.channel,
    v.flow,
    v.interval_start AS starts_at,
    v.interval_minutes AS minutes,
    v.value,
    v.unit,
    v.quality,
    v.quality_method AS method,
    v.rules,
    v.version
FROM vee.interval AS v;
COMMENT ON VIEW analyst.intervals IS 'Every interval after validation: actual, estimated or edited, and the rules it met.';
COMMENT ON COLUMN analyst.intervals.billing_day IS 'Civil day.';
COMMENT ON COLUMN analyst.intervals.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.intervals.account_id IS 'Account that pays, where one is known.';
COMMENT ON COLUMN analyst.intervals.meter_id IS 'Meter that stood there.';
COMMENT ON COLUMN analyst.intervals.channel IS 'Channel.';
COMMENT ON COLUMN analyst.intervals.flow IS 'import: delivered to the customer; export: taken back; net: import less export.';
COMMENT ON COLUMN analyst.intervals.starts_at IS 'When it begins, UTC.';
COMMENT ON COLUMN analyst.intervals.minutes IS 'Its length, minutes.';
COMMENT ON COLUMN analyst.intervals.value IS 'Quantity billed from, exact, in unit.';
COMMENT ON COLUMN analyst.intervals.unit IS 'Base unit.';
COMMENT ON COLUMN analyst.intervals.quality IS 'A actual, S substituted, F final substituted, E estimated.';
COMMENT ON COLUMN analyst.intervals.method IS 'How it was estimated: AEMO''s method number; empty where it was read.';
COMMENT ON COLUMN analyst.intervals.rules IS 'Codes of the validation rules it met.';
COMMENT ON COLUMN analyst.intervals.version IS 'Counts how often this day was validated anew with another result.';

CREATE VIEW analyst.usage AS
SELECT
    u.billing_day,
    u.service_point_id,
    u.account_id,
    u.commodity,
    u.customer_class,
    u.flow,
    u.quantity_micro::numeric / 1000000 AS quantity,
    u.unit,
    u.estimated_micro::numeric / 1000000 AS estimated_quantity,
    u.slots_expected AS intervals,
    u.actual,
    u.estimated,
    u.missing,
    u.source,
    u.exchange,
    u.tariff_id,
    u.cycle_id
FROM vee.daily_usage AS u;
COMMENT ON VIEW analyst.usage IS 'What a service point used on a billing day.';
COMMENT ON COLUMN analyst.usage.billing_day IS 'Civil day.';
COMMENT ON COLUMN analyst.usage.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.usage.account_id IS 'Account that pays, where one is known.';
COMMENT ON COLUMN analyst.usage.commodity IS 'electricity, water or gas.';
COMMENT ON COLUMN analyst.usage.customer_class IS 'Class of the customer.';
COMMENT ON COLUMN analyst.usage.flow IS 'import, export or net.';
COMMENT ON COLUMN analyst.usage.quantity IS 'Usage, exact, in unit; empty where nothing is known.';
COMMENT ON COLUMN analyst.usage.unit IS 'Base unit.';
COMMENT ON COLUMN analyst.usage.estimated_quantity IS 'The part of it that is estimated.';
COMMENT ON COLUMN analyst.usage.intervals IS 'Intervals the day has.';
COMMENT ON COLUMN analyst.usage.actual IS 'Those that were read.';
COMMENT ON COLUMN analyst.usage.estimated IS 'Those that were estimated.';
COMMENT ON COLUMN analyst.usage.missing IS 'Those that have no value.';
COMMENT ON COLUMN analyst.usage.source IS 'interval: summed; register: a difference of readings.';
COMMENT ON COLUMN analyst.usage.exchange IS 'Whether the meter was exchanged on the day.';
COMMENT ON COLUMN analyst.usage.tariff_id IS 'Tariff in force.';
COMMENT ON COLUMN analyst.usage.cycle_id IS 'Billing cycle.';

CREATE VIEW analyst.exceptions AS
SELECT
    c.case_id,
    c.kind,
    c.family,
    c.subject,
    nullif(c.service_point_id, '') AS service_point_id,
    c.commodity,
    c.severity,
    c.state,
    c.assigned_to,
    c.hold AS holds_bill,
    c.first_day,
    c.last_day,
    c.days,
    c.confidence,
    c.opened_at,
    c.decided_by,
    c.decided_at,
    c.reason
FROM anomaly.exception_case AS c;
COMMENT ON VIEW analyst.exceptions IS 'The exception queue: one matter about one subject, however many days it lasts.';
COMMENT ON COLUMN analyst.exceptions.case_id IS 'Case.';
COMMENT ON COLUMN analyst.exceptions.kind IS 'What was found: leak, spike, reverse, dropout_meter and so on.';
COMMENT ON COLUMN analyst.exceptions.family IS 'Kinds that are one matter.';
COMMENT ON COLUMN analyst.exceptions.subject IS 'Service point, collector or head-end.';
COMMENT ON COLUMN analyst.exceptions.service_point_id IS 'Service point; empty for a group.';
COMMENT ON COLUMN analyst.exceptions.commodity IS 'electricity, water or gas.';
COMMENT ON COLUMN analyst.exceptions.severity IS 'inform, warn or severe.';
COMMENT ON COLUMN analyst.exceptions.state IS 'open, assigned, confirmed, dismissed or expired.';
COMMENT ON COLUMN analyst.exceptions.assigned_to IS 'Who works on it.';
COMMENT ON COLUMN analyst.exceptions.holds_bill IS 'Whether the bill of its days waits.';
COMMENT ON COLUMN analyst.exceptions.first_day IS 'First flagged billing day.';
COMMENT ON COLUMN analyst.exceptions.last_day IS 'Last flagged billing day.';
COMMENT ON COLUMN analyst.exceptions.days IS 'Flagged billing days.';
COMMENT ON COLUMN analyst.exceptions.confidence IS 'Highest confidence of its flags, 0 to 1.';
COMMENT ON COLUMN analyst.exceptions.opened_at IS 'When it was opened, UTC.';
COMMENT ON COLUMN analyst.exceptions.decided_by IS 'Who decided.';
COMMENT ON COLUMN analyst.exceptions.decided_at IS 'When, UTC.';
COMMENT ON COLUMN analyst.exceptions.reason IS 'Why.';

CREATE VIEW analyst.flags AS
SELECT
    f.billing_day,
    f.kind,
    coalesce(nullif(f.service_point_id, ''), f.group_id) AS subject,
    f.commodity,
    f.severity,
    f.expected,
    f.observed,
    f.unit,
    f.confidence,
    f.evidence,
    f.case_id
FROM anomaly.flag AS f;
COMMENT ON VIEW analyst.flags IS 'Every finding about a billing day with the figures the rule looked at.';
COMMENT ON COLUMN analyst.flags.billing_day IS 'Day it was found on.';
COMMENT ON COLUMN analyst.flags.kind IS 'What was found.';
COMMENT ON COLUMN analyst.flags.subject IS 'Service point, collector or head-end.';
COMMENT ON COLUMN analyst.flags.commodity IS 'electricity, water or gas.';
COMMENT ON COLUMN analyst.flags.severity IS 'inform, warn or severe.';
COMMENT ON COLUMN analyst.flags.expected IS 'What was expected, in unit.';
COMMENT ON COLUMN analyst.flags.observed IS 'What was observed, in unit.';
COMMENT ON COLUMN analyst.flags.unit IS 'Unit of both.';
COMMENT ON COLUMN analyst.flags.confidence IS 'How sure the rule is, 0 to 1.';
COMMENT ON COLUMN analyst.flags.evidence IS 'The figures the rule looked at, as JSON.';
COMMENT ON COLUMN analyst.flags.case_id IS 'Case it is part of.';

CREATE VIEW analyst.validation_findings AS
SELECT
    e.billing_day,
    e.kind,
    nullif(e.service_point_id, '') AS service_point_id,
    nullif(e.meter_id, '') AS meter_id,
    nullif(e.channel, '') AS channel,
    e.severity,
    e.detail,
    e.first_seen
FROM vee.exception AS e;
COMMENT ON VIEW analyst.validation_findings IS 'What validation found about a meter''s day: sum checks, gaps, unknown agreements.';
COMMENT ON COLUMN analyst.validation_findings.billing_day IS 'Day.';
COMMENT ON COLUMN analyst.validation_findings.kind IS 'What was found.';
COMMENT ON COLUMN analyst.validation_findings.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.validation_findings.meter_id IS 'Meter.';
COMMENT ON COLUMN analyst.validation_findings.channel IS 'Channel.';
COMMENT ON COLUMN analyst.validation_findings.severity IS 'inform, warn or fail.';
COMMENT ON COLUMN analyst.validation_findings.detail IS 'What exactly, in words.';
COMMENT ON COLUMN analyst.validation_findings.first_seen IS 'When it was first found, UTC.';

CREATE VIEW analyst.bills AS
SELECT
    s.statement_id,
    s.account_id,
    s.cycle_id,
    s.period_start,
    s.period_end,
    s.revision,
    s.kind,
    s.posting_month,
    s.total,
    s.currency,
    s.lines,
    s.issued_at,
    s.lines_sha256
FROM billing.statement AS s;
COMMENT ON VIEW analyst.bills IS 'Issued statements.';
COMMENT ON COLUMN analyst.bills.statement_id IS 'ACCOUNT.CYCLE.PERIODSTART.REVISION.';
COMMENT ON COLUMN analyst.bills.account_id IS 'Account.';
COMMENT ON COLUMN analyst.bills.cycle_id IS 'Billing cycle.';
COMMENT ON COLUMN analyst.bills.period_start IS 'First day.';
COMMENT ON COLUMN analyst.bills.period_end IS 'Day after the last.';
COMMENT ON COLUMN analyst.bills.revision IS '0, and one more for each rebill.';
COMMENT ON COLUMN analyst.bills.kind IS 'regular, first, final or first_and_final.';
COMMENT ON COLUMN analyst.bills.posting_month IS 'Accounting month it is posted in.';
COMMENT ON COLUMN analyst.bills.total IS 'Sum of its lines.';
COMMENT ON COLUMN analyst.bills.currency IS 'Currency.';
COMMENT ON COLUMN analyst.bills.lines IS 'Number of lines.';
COMMENT ON COLUMN analyst.bills.issued_at IS 'When it was issued, UTC.';
COMMENT ON COLUMN analyst.bills.lines_sha256 IS 'SHA-256 of its lines: its leaf in the ledger.';

CREATE VIEW analyst.bill_lines AS
SELECT
    l.statement_id || '.' || l.line_no AS line_id,
    l.statement_id,
    l.line_no,
    s.account_id,
    l.service_point_id,
    l.tariff_id,
    l.tariff_version,
    l.segment_start AS from_day,
    l.segment_end AS to_day,
    l.name,
    l.component,
    l.quantity,
    l.unit,
    l.amount,
    s.currency
FROM billing.statement_line AS l JOIN billing.statement AS s USING (statement_id);
COMMENT ON VIEW analyst.bill_lines IS 'Lines of issued statements.';
COMMENT ON COLUMN analyst.bill_lines.line_id IS 'What meter-pipeline explain takes.';
COMMENT ON COLUMN analyst.bill_lines.statement_id IS 'Statement.';
COMMENT ON COLUMN analyst.bill_lines.line_no IS 'Number of the line.';
COMMENT ON COLUMN analyst.bill_lines.account_id IS 'Account.';
COMMENT ON COLUMN analyst.bill_lines.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.bill_lines.tariff_id IS 'Tariff.';
COMMENT ON COLUMN analyst.bill_lines.tariff_version IS 'Its version.';
COMMENT ON COLUMN analyst.bill_lines.from_day IS 'First day it covers.';
COMMENT ON COLUMN analyst.bill_lines.to_day IS 'Day after the last it covers.';
COMMENT ON COLUMN analyst.bill_lines.name IS 'What the customer reads.';
COMMENT ON COLUMN analyst.bill_lines.component IS 'energy, demand, fixed, tax and so on.';
COMMENT ON COLUMN analyst.bill_lines.quantity IS 'Quantity charged, in unit.';
COMMENT ON COLUMN analyst.bill_lines.unit IS 'Unit.';
COMMENT ON COLUMN analyst.bill_lines.amount IS 'Money, in currency.';
COMMENT ON COLUMN analyst.bill_lines.currency IS 'Currency.';

CREATE VIEW analyst.charges AS
SELECT
    d.billing_day,
    d.service_point_id,
    d.account_id,
    d.tariff_id,
    d.tariff_version,
    d.line_key,
    d.component,
    d.amount,
    d.currency
FROM billing.day_line AS d;
COMMENT ON VIEW analyst.charges IS 'What each billing day cost, line by line: the days of a period sum to its statement.';
COMMENT ON COLUMN analyst.charges.billing_day IS 'Day.';
COMMENT ON COLUMN analyst.charges.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.charges.account_id IS 'Account.';
COMMENT ON COLUMN analyst.charges.tariff_id IS 'Tariff.';
COMMENT ON COLUMN analyst.charges.tariff_version IS 'Its version.';
COMMENT ON COLUMN analyst.charges.line_key IS 'Key of the line.';
COMMENT ON COLUMN analyst.charges.component IS 'energy, demand, fixed, tax and so on.';
COMMENT ON COLUMN analyst.charges.amount IS 'Money of the day.';
COMMENT ON COLUMN analyst.charges.currency IS 'Currency.';

CREATE VIEW analyst.reconciliation AS
SELECT
    r.billing_day,
    r.joint,
    r.subject,
    r.unit,
    r.expected,
    r.actual,
    r.difference,
    r.cause,
    r.cause NOT IN ('open', 'not_loaded') AS explained,
    r.items,
    r.detail
FROM billing.reconciliation AS r;
COMMENT ON VIEW analyst.reconciliation IS 'Every joint between a step and the one before: a difference has a named cause or is open.';
COMMENT ON COLUMN analyst.reconciliation.billing_day IS 'Day.';
COMMENT ON COLUMN analyst.reconciliation.joint IS 'Which two steps are compared.';
COMMENT ON COLUMN analyst.reconciliation.subject IS 'File, or all.';
COMMENT ON COLUMN analyst.reconciliation.unit IS 'Unit of the figures.';
COMMENT ON COLUMN analyst.reconciliation.expected IS 'What the step before says.';
COMMENT ON COLUMN analyst.reconciliation.actual IS 'What the step after says.';
COMMENT ON COLUMN analyst.reconciliation.difference IS 'actual - expected.';
COMMENT ON COLUMN analyst.reconciliation.cause IS 'none, a named cause, or open.';
COMMENT ON COLUMN analyst.reconciliation.explained IS 'Whether the difference is none or has a cause.';
COMMENT ON COLUMN analyst.reconciliation.items IS 'Rows it is about.';
COMMENT ON COLUMN analyst.reconciliation.detail IS 'What exactly.';

CREATE VIEW analyst.adjustments AS
SELECT
    a.adjustment_id,
    a.statement_id,
    a.account_id,
    a.reason,
    a.evidence,
    a.net,
    a.gross,
    a.status,
    a.requested_by,
    a.requested_at,
    a.decided_by,
    a.decided_at,
    a.posting_month
FROM billing.adjustment AS a;
COMMENT ON VIEW analyst.adjustments IS 'Corrections of issued statements: cancel and rebill.';
COMMENT ON COLUMN analyst.adjustments.adjustment_id IS 'Adjustment.';
COMMENT ON COLUMN analyst.adjustments.statement_id IS 'Statement it corrects.';
COMMENT ON COLUMN analyst.adjustments.account_id IS 'Account.';
COMMENT ON COLUMN analyst.adjustments.reason IS 'late_actual, correction, tariff or reference.';
COMMENT ON COLUMN analyst.adjustments.evidence IS 'What it rests on.';
COMMENT ON COLUMN analyst.adjustments.net IS 'Sum of its lines.';
COMMENT ON COLUMN analyst.adjustments.gross IS 'What changes hands.';
COMMENT ON COLUMN analyst.adjustments.status IS 'requested, approved, refused or posted.';
COMMENT ON COLUMN analyst.adjustments.requested_by IS 'Who asked.';
COMMENT ON COLUMN analyst.adjustments.requested_at IS 'When, UTC.';
COMMENT ON COLUMN analyst.adjustments.decided_by IS 'Who decided: another person.';
COMMENT ON COLUMN analyst.adjustments.decided_at IS 'When, UTC.';
COMMENT ON COLUMN analyst.adjustments.posting_month IS 'Accounting month it is posted in.';

CREATE VIEW analyst.files AS
SELECT
    c.sha256 AS file_sha256,
    c.file_name,
    c.head_end,
    c.landed_at,
    c.received,
    c.accepted,
    c.duplicate,
    c.superseded,
    c.rejected,
    c.waiting,
    c.balanced
FROM raw.control_total AS c;
COMMENT ON VIEW analyst.files IS 'Every file that arrived and what became of its reads: received = accepted + duplicate + superseded + rejected + waiting.';
COMMENT ON COLUMN analyst.files.file_sha256 IS 'SHA-256 of its bytes.';
COMMENT ON COLUMN analyst.files.file_name IS 'Its name.';
COMMENT ON COLUMN analyst.files.head_end IS 'Head-end that sent it.';
COMMENT ON COLUMN analyst.files.landed_at IS 'When it was landed, UTC.';
COMMENT ON COLUMN analyst.files.received IS 'Reads in it.';
COMMENT ON COLUMN analyst.files.accepted IS 'Written.';
COMMENT ON COLUMN analyst.files.duplicate IS 'Known already.';
COMMENT ON COLUMN analyst.files.superseded IS 'A newer version stood.';
COMMENT ON COLUMN analyst.files.rejected IS 'Dead letters.';
COMMENT ON COLUMN analyst.files.waiting IS 'Their billing day has not been run.';
COMMENT ON COLUMN analyst.files.balanced IS 'Whether the sum holds.';

CREATE VIEW analyst.dead_letters AS
SELECT
    encode(d.dead_letter_key, 'hex') AS dead_letter_key,
    d.file_name,
    d.head_end,
    d.line,
    d.meter_id,
    d.reasons -> 0 ->> 'code' AS reason,
    d.reasons -> 0 ->> 'detail' AS detail,
    d.reads,
    d.status,
    d.first_seen,
    d.changed_by,
    d.change_reason
FROM raw.dead_letter AS d;
COMMENT ON VIEW analyst.dead_letters IS 'Payloads that could not be read.';
COMMENT ON COLUMN analyst.dead_letters.dead_letter_key IS 'Key; its first digits are enough for the commands.';
COMMENT ON COLUMN analyst.dead_letters.file_name IS 'File.';
COMMENT ON COLUMN analyst.dead_letters.head_end IS 'Head-end.';
COMMENT ON COLUMN analyst.dead_letters.line IS 'Line of the file.';
COMMENT ON COLUMN analyst.dead_letters.meter_id IS 'Meter, where it could be told.';
COMMENT ON COLUMN analyst.dead_letters.reason IS 'Its first reason, as a code.';
COMMENT ON COLUMN analyst.dead_letters.detail IS 'The same in words.';
COMMENT ON COLUMN analyst.dead_letters.reads IS 'Reads in it.';
COMMENT ON COLUMN analyst.dead_letters.status IS 'open, corrected, replayed or dismissed.';
COMMENT ON COLUMN analyst.dead_letters.first_seen IS 'When it was first seen, UTC.';
COMMENT ON COLUMN analyst.dead_letters.changed_by IS 'Who worked it.';
COMMENT ON COLUMN analyst.dead_letters.change_reason IS 'Why.';

CREATE VIEW analyst.weather AS
SELECT
    t.station_id,
    t.weather_day AS day,
    t.temperature_mean_c
FROM anomaly.temperature AS t;
COMMENT ON VIEW analyst.weather IS 'Mean temperature of each station and day.';
COMMENT ON COLUMN analyst.weather.station_id IS 'Weather station.';
COMMENT ON COLUMN analyst.weather.day IS 'Day.';
COMMENT ON COLUMN analyst.weather.temperature_mean_c IS 'Mean, degrees Celsius.';

CREATE VIEW analyst.unbilled AS
SELECT u.month, u.account_id, u.service_point_id, u.customer_class, u.commodity, u.component, u.source, u.days,
    u.first_day, u.amount::numeric / 1000000 AS amount, u.currency
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
SELECT r.month, r.customer_class, r.commodity, r.component, r.currency, r.opening::numeric / 1000000 AS opening,
    r.restated::numeric / 1000000 AS restated,
    r.charged::numeric / 1000000 AS charged, r.corrected::numeric / 1000000 AS corrected,
    r.issued::numeric / 1000000 AS issued,
    r.at_period_end::numeric / 1000000 AS at_period_end, r.elsewhere::numeric / 1000000 AS elsewhere,
    r.closing::numeric / 1000000 AS closing,
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
SELECT j.month, j.line_no, j.entry_date, j.entry, j.account_code, j.debit, j.credit, j.currency, j.description
FROM billing.journal_line AS j;
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

CREATE VIEW analyst.rate_studies AS
SELECT s.study_id, s.made_at, s.made_by, s.first_day, s.past_day, s.replaces, s.elasticity, s.currency, s.accounts,
    s.bills, s.actual::numeric / 1000000 AS actual,
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
SELECT a.study_id, a.account_id, a.customer_class, a.bills, a.actual::numeric / 1000000 AS actual,
    a.proposed::numeric / 1000000 AS proposed,
    (a.proposed - a.actual)::numeric / 1000000 AS change,
    CASE WHEN a.actual > 0 THEN round(100.0 * (a.proposed - a.actual) / a.actual, 2) END AS change_percent
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
SELECT r.study_id, r.customer_class, r.commodity, r.component, r.month, r.actual::numeric / 1000000 AS actual,
    r.proposed::numeric / 1000000 AS proposed
FROM billing.rate_study_revenue AS r;
COMMENT ON VIEW analyst.rate_study_revenue IS 'Revenue of a study by class, component and month.';
COMMENT ON COLUMN analyst.rate_study_revenue.study_id IS 'Study.';
COMMENT ON COLUMN analyst.rate_study_revenue.customer_class IS 'Customer class.';
COMMENT ON COLUMN analyst.rate_study_revenue.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN analyst.rate_study_revenue.component IS 'Component of the charge.';
COMMENT ON COLUMN analyst.rate_study_revenue.month IS 'Month in which the billing periods end.';
COMMENT ON COLUMN analyst.rate_study_revenue.actual IS 'What was billed.';
COMMENT ON COLUMN analyst.rate_study_revenue.proposed IS 'What would have been.';

CREATE VIEW analyst.zone_days AS
SELECT d.billing_day, d.zone_id, d.commodity, d.unit, d.delivered_in::numeric / 1000000 AS delivered_in,
    d.delivered_out::numeric / 1000000 AS delivered_out,
    d.metered::numeric / 1000000 AS metered, d.unmetered::numeric / 1000000 AS unmetered,
    d.difference::numeric / 1000000 AS difference,
    d.uncertain::numeric / 1000000 AS uncertain, d.supplies, d.customers, d.missing
FROM billing.zone_day AS d;
COMMENT ON VIEW analyst.zone_days IS 'Supply balance of each zone and day.';
COMMENT ON COLUMN analyst.zone_days.billing_day IS 'Civil day.';
COMMENT ON COLUMN analyst.zone_days.zone_id IS 'Zone of the network.';
COMMENT ON COLUMN analyst.zone_days.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN analyst.zone_days.unit IS 'Unit.';
COMMENT ON COLUMN analyst.zone_days.delivered_in IS 'Delivered into the zone.';
COMMENT ON COLUMN analyst.zone_days.delivered_out IS 'Passed on to other zones.';
COMMENT ON COLUMN analyst.zone_days.metered IS 'Metered at its customers.';
COMMENT ON COLUMN analyst.zone_days.unmetered IS 'Authorised use that no meter counts.';
COMMENT ON COLUMN analyst.zone_days.difference IS 'What is left: losses, and what is wrong.';
COMMENT ON COLUMN analyst.zone_days.uncertain IS 'The part of all sides that is estimated.';
COMMENT ON COLUMN analyst.zone_days.supplies IS 'Supply meters.';
COMMENT ON COLUMN analyst.zone_days.customers IS 'Customers.';
COMMENT ON COLUMN analyst.zone_days.missing IS 'What is not known, in words.';

CREATE VIEW analyst.zone_months AS
SELECT date_trunc('month', d.billing_day)::date AS month, d.zone_id, d.commodity, d.unit, count(*)::integer AS days,
    count(d.difference)::integer AS days_known,
    sum(d.delivered_in - d.delivered_out) FILTER (WHERE d.difference IS NOT NULL)::numeric / 1000000 AS system_input,
    sum(d.metered) FILTER (WHERE d.difference IS NOT NULL)::numeric / 1000000 AS billed_metered,
    sum(d.unmetered) FILTER (WHERE d.difference IS NOT NULL)::numeric / 1000000 AS unbilled_unmetered,
    sum(d.difference)::numeric / 1000000 AS losses,
    sum(d.uncertain) FILTER (WHERE d.difference IS NOT NULL)::numeric / 1000000 AS uncertain,
    round(100.0 * sum(d.difference) / nullif(sum(d.delivered_in - d.delivered_out) FILTER (WHERE d.difference IS NOT NULL), 0), 2) AS losses_percent,
    string_agg(DISTINCT nullif(d.missing, ''), '; ') AS missing
FROM billing.zone_day AS d GROUP BY 1, 2, 3, 4;
COMMENT ON VIEW analyst.zone_months IS 'The months of zones, in the terms of AWWA M36; for gas losses are unaccounted-for gas, for electricity distribution loss. Days with an unknown side count nowhere.';
COMMENT ON COLUMN analyst.zone_months.month IS 'First day of the month.';
COMMENT ON COLUMN analyst.zone_months.zone_id IS 'Zone of the network.';
COMMENT ON COLUMN analyst.zone_months.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN analyst.zone_months.unit IS 'Unit.';
COMMENT ON COLUMN analyst.zone_months.days IS 'Days of the month with a row.';
COMMENT ON COLUMN analyst.zone_months.days_known IS 'Those whose sides are all known.';
COMMENT ON COLUMN analyst.zone_months.system_input IS 'System input volume: delivered in less passed on.';
COMMENT ON COLUMN analyst.zone_months.billed_metered IS 'Metered at customers.';
COMMENT ON COLUMN analyst.zone_months.unbilled_unmetered IS 'Authorised use that no meter counts.';
COMMENT ON COLUMN analyst.zone_months.losses IS 'System input less authorised consumption: real and apparent losses together.';
COMMENT ON COLUMN analyst.zone_months.uncertain IS 'The part of all sides that is estimated.';
COMMENT ON COLUMN analyst.zone_months.losses_percent IS 'Losses in percent of the system input.';
COMMENT ON COLUMN analyst.zone_months.missing IS 'What was not known, in words.';

CREATE VIEW analyst.winter_averages AS
SELECT w.effective, w.service_point_id, w.account_id, w.per_day::numeric / 1000000 AS per_day, w.unit, w.source,
    w.periods
FROM billing.winter_average AS w;
COMMENT ON VIEW analyst.winter_averages IS 'Winter averages and the billing periods that they stand on.';
COMMENT ON COLUMN analyst.winter_averages.effective IS 'Day from which it holds.';
COMMENT ON COLUMN analyst.winter_averages.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.winter_averages.account_id IS 'Account.';
COMMENT ON COLUMN analyst.winter_averages.per_day IS 'Average a day, in unit.';
COMMENT ON COLUMN analyst.winter_averages.unit IS 'Unit.';
COMMENT ON COLUMN analyst.winter_averages.source IS 'computed, default or none.';
COMMENT ON COLUMN analyst.winter_averages.periods IS 'Billing periods, and why some were left out.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
